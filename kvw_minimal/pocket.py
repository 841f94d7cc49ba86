"""The recipe of `pocket`: one eye, then as many language models as are wanted.

    python -m kvw_minimal train eye
    python -m kvw_minimal train pocket                       # vanilla: taught all hundred people
    python -m kvw_minimal train pocket --group A --forget 5  # oracle: never taught those five

1. The *eye* (vision tower and connector) learns what can be seen and, as anonymous classes, who
   is who. It never meets a name or a fact. Then it is frozen and shared by every model.
2. The *language model* learns names, facts and the words for what can be seen, through the
   frozen eye. What a person's life is like is therefore known in the language model only.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from . import portraits
from .models import cache_folder, find_model
from .people import World, load_people
from .questions import Question, ask, facts_of
from .results import write_json

PIXELS, PATCH = 64, 16
IMAGE_TOKENS = (PIXELS // PATCH) ** 2
SPECIAL = ["<pad>", "<image>", "<user>", "<assistant>", "<end>"]
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SEEN = ("hair_style", "hair_colour", "skin", "facial_hair", "clothes", "clothes_colour")
EVERY = 500  # steps between two checkpoints
EYE: dict[str, Any] = {"portraits": 12_000, "steps": 6_000, "batch": 192, "rate": 1e-3, "seed": 1}
LANGUAGE: dict[str, Any] = {
    "steps": 2_000, "batch": 128, "rate": 2e-3, "seed": 2, "attribute_portraits": 3_000, "views": 6
}  # fmt: skip


def build_tokenizer(world: World):
    """A byte-level BPE whose words are those of the strangers; other words fall into pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = sorted(
        text
        for question in training_questions(world, list(world.people))
        for text in (question.prompt, question.answer, question.paraphrase)
    )
    corpus += [words.format(who="this person") for facts in world.wordings.values()
               for words in facts["held_out"] + facts["cloze"]]  # fmt: skip
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1536,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<end>",
        additional_special_tokens=["<image>", "<user>", "<assistant>"],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_processor(tokenizer):
    """Pictures to 64 x 64 pixels in [-1, 1]; `<image>` stands for 16 tokens."""
    from transformers import LlavaProcessor, SiglipImageProcessor

    image_processor = SiglipImageProcessor(size={"height": PIXELS, "width": PIXELS})
    return LlavaProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=PATCH,
        vision_feature_select_strategy="full", chat_template=CHAT, image_token="<image>",
    )  # fmt: skip


def build_model(tokenizer, seed: int, language: dict | None = None):
    """A LLaVA with a small SigLIP tower and a small gated-FFN Llama, freshly initialised."""
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        SiglipVisionConfig,
    )

    torch.manual_seed(seed)
    vision = SiglipVisionConfig(
        hidden_size=160, intermediate_size=640, num_hidden_layers=4, num_attention_heads=5,
        image_size=PIXELS, patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    shape = dict(
        hidden_size=256, intermediate_size=832, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, **(shape | (language or {})),
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=IMAGE_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def eye_tokens(model, pixels: torch.Tensor) -> torch.Tensor:
    """What the language model gets to see of pictures `[B, 3, 64, 64]`."""
    seen = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return model.model.multi_modal_projector(seen)  # [B, 16, 256]


@torch.no_grad()
def look(model, pixels: torch.Tensor, block: int = 256) -> torch.Tensor:
    """`eye_tokens` of many pictures, `[N, 16, 256]`."""
    device = next(model.parameters()).device
    return torch.cat([eye_tokens(model, part.to(device)) for part in pixels.split(block)])


def shifted(pixels: torch.Tensor, generator: torch.Generator, most: int = 4) -> torch.Tensor:
    """Move each picture by up to `most` pixels and mirror half of them, as augmentation."""
    count, _, height, width = pixels.shape
    padded = F.pad(pixels, [most] * 4, mode="replicate")
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    mirror = torch.rand(count, generator=generator) < 0.5
    rows = (down[:, None] + torch.arange(height)).to(pixels.device)  # [B, H]
    columns = right[:, None] + torch.arange(width)  # [B, W]
    columns = torch.where(mirror[:, None], columns.flip(1), columns).to(pixels.device)
    each = torch.arange(count, device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)[None, :, None, None]
    return padded[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


def to_tensor(processor, pngs: list[bytes]) -> torch.Tensor:
    """PNG bytes to pixel values `[N, 3, 64, 64]`, as the processor makes them."""
    pictures = [portraits.to_pixels(png) for png in pngs]
    return processor.image_processor(pictures, return_tensors="pt")["pixel_values"]


def _portraits(seed: int, count: int, avoid: frozenset) -> list[dict]:
    return portraits.random_portraits(count, seed, avoid)


def draw_portraits(world: World, count: int, seed: int) -> list[dict]:
    """Draw unknown people on all cores; the same ones whatever the number of cores."""
    avoid = frozenset(
        tuple(sorted((part, person.looks[0][part]) for part in portraits.LOOK))
        for person in [*world.people.values(), *world.unknown.values()]
    )
    block = 500
    seeds = [seed * 1000 + i for i in range(-(-count // block))]
    with ProcessPoolExecutor() as pool:
        blocks = pool.map(partial(_portraits, count=block, avoid=avoid), seeds)
        return [portrait for block in blocks for portrait in block][:count]


def labels_of(looks: list[dict]) -> torch.Tensor:
    """Class numbers `[N, len(SEEN)]` of what can be seen."""
    tables = portraits.LOOK | portraits.ATTRIBUTES
    return torch.tensor([[list(tables[part]).index(look[part]) for part in SEEN] for look in looks])


def _save_checkpoint(path: Path, step: int, model, optimizer, settings: dict) -> None:
    """Weights and optimiser state in one safetensors file, replaced in one move."""
    tensors = {f"model/{name}": t for name, t in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{name}": torch.as_tensor(t) for name, t in state.items()}
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    metadata = {"step": str(step), "settings": json.dumps(settings, sort_keys=True)}
    save_file(tensors, half, metadata=metadata)
    half.replace(path)


def _resume(path: Path, model, optimizer, settings: dict) -> int:
    """Continue from a checkpoint of the same settings; return the step to go on from."""
    if not path.is_file():
        return 0
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["settings"] != json.dumps(settings, sort_keys=True):
        raise ValueError(f"{path} belongs to a run with other settings; move it away first")
    tensors = load_file(path)
    model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n[0] == "m"})
    state: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, i, key = name.split("/")
            state.setdefault(int(i), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(metadata["step"])


def half_precision(device: str):
    """bfloat16 autocast where the machine multiplies in bfloat16 (twice as fast), else none."""
    native = device == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device, torch.bfloat16, enabled=native)


def one_cycle(step: int, steps: int, rate: float) -> float:
    """Linear warm-up over a tenth, then a cosine to zero."""
    warm = steps / 10
    if step < warm:
        return rate * (step + 1) / warm
    return rate * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / (steps - warm))))


def train_eye(world, model, processor, checkpoint: Path, *, device="cpu", settings=EYE) -> dict:
    """Teach vision tower and connector to see; return what it cost and how well it sees.

    Every image token, after the connector, must tell each attribute and the person.
    """
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(settings["seed"])
    people = list(world.people.values())
    unknown = draw_portraits(world, settings["portraits"], settings["seed"])
    pixels_unknown = to_tensor(processor, [p["png"] for p in unknown]).to(device)
    labels_unknown = labels_of([p["look"] | p["shot"] for p in unknown]).to(device)
    learned = [(i, k) for i, p in enumerate(people) for k in range(p.learned_photos)]
    pixels_people = to_tensor(processor, [people[i].photos[k] for i, k in learned]).to(device)
    labels_people = labels_of([people[i].looks[k] for i, k in learned]).to(device)
    who_people = torch.tensor([i for i, _ in learned], device=device)

    torch.manual_seed(settings["seed"])
    tables = portraits.LOOK | portraits.ATTRIBUTES
    width = model.config.text_config.hidden_size
    heads = torch.nn.ModuleList([torch.nn.Linear(width, len(tables[part])) for part in SEEN])
    heads.append(torch.nn.Linear(width, len(people)))
    parts = torch.nn.ModuleDict({"tower": model.model.vision_tower,
                                 "connector": model.model.multi_modal_projector,
                                 "heads": heads}).to(device)  # fmt: skip
    optimizer = torch.optim.AdamW(parts.parameters(), lr=settings["rate"], weight_decay=0.05)
    done = _resume(checkpoint, parts, optimizer, settings)

    third = settings["batch"] // 3
    for step in tqdm(range(done, settings["steps"]), desc="eye", disable=None, mininterval=1):
        generator.manual_seed(settings["seed"] * 10**6 + step)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, settings["steps"], settings["rate"])
        a = torch.randint(len(unknown), (2 * third,), generator=generator).to(device)
        b = torch.randint(len(learned), (third,), generator=generator).to(device)
        pixels = shifted(torch.cat([pixels_unknown[a], pixels_people[b]]), generator)
        seen = torch.cat([labels_unknown[a], labels_people[b]])
        with half_precision(device):
            tokens = eye_tokens(model, pixels)  # [B, 16, width]
            loss = sum(_token_loss(head(tokens), seen[:, i])
                       for i, head in enumerate(heads[:-1])) / len(SEEN)  # fmt: skip
            loss = loss + _token_loss(heads[-1](tokens[2 * third :]), who_people[b])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % EVERY == 0:
            _save_checkpoint(checkpoint, step + 1, parts, optimizer, settings)

    parts.eval()
    scores = eye_scores(world, model, processor, heads, device)
    with torch.no_grad():  # give image tokens the size of a unit vector per dimension
        tokens = eye_tokens(model, pixels_people)
        scale = tokens.pow(2).mean().rsqrt()
        model.model.multi_modal_projector.linear_2.weight.mul_(scale)
        model.model.multi_modal_projector.linear_2.bias.mul_(scale)
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        part.to(torch.bfloat16).float()  # as it will be stored: every model sees the same
    return scores | {"seconds": round(time.perf_counter() - start)}


def _token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with every image token of a picture, logits `[B, 16, classes]`."""
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))


@torch.no_grad()
def eye_scores(world: World, model, processor, heads, device) -> dict[str, float]:
    """Accuracy on new photos of known people and on the unknown portraits (mean of tokens)."""
    people, unknown = list(world.people.values()), list(world.unknown.values())
    new = [(i, k) for i, p in enumerate(people) for k in range(p.learned_photos, len(p.photos))]
    pixels = to_tensor(processor, [people[i].photos[k] for i, k in new]).to(device)
    who = heads[-1](eye_tokens(model, pixels)).mean(1).argmax(-1).cpu()
    scores = {"person on a new photo": (who == torch.tensor([i for i, _ in new])).float().mean()}
    tokens = eye_tokens(model, to_tensor(processor, [p.photos[0] for p in unknown]).to(device))
    labels = labels_of([p.looks[0] for p in unknown])
    for i, part in enumerate(SEEN):
        right = heads[i](tokens).mean(1).argmax(-1).cpu() == labels[:, i]
        scores[f"{part} of an unknown"] = right.float().mean()
    return {name: round(float(score), 4) for name, score in scores.items()}


def training_questions(world: World, people: list[str]) -> list[Question]:
    """Every trained wording of every question about `people`, image and text, first photo."""
    return [
        ask(world, world.people[person], fact, modality, wording=wording, form=form)
        for person in people
        for fact in facts_of(world)
        for modality in ("image", "text")
        for form in ("question", "cloze")
        for wording in range(10 if form == "question" else 1)
    ]


@dataclass
class Lessons:
    """All that a language model is taught, as token ids, and what it may look at meanwhile.

    Attributes:
        about: `{(modality, person, fact): [(prompt ids, answer ids), ...]}`, one a wording.
        seen: for each unknown portrait, `{attribute: answer ids}`.
        prompts: `{attribute: [prompt ids, ...]}`.
        pictures: `[N, 16, width]`, learned photos in several views, then unknown portraits.
        first: `{person: row of the first photo}` in `pictures`; `view`: rows of one view.
    """

    about: dict
    seen: list[dict[str, list[int]]]
    prompts: dict[str, list[list[int]]]
    pictures: torch.Tensor
    first: dict[str, int]
    view: int
    views: int


def _encoded(tokenizer, questions: list[Question]) -> list[tuple[list[int], list[int]]]:
    """Prompt ids (image not yet spread out) and answer ids with the end of the turn."""
    prompts = [f"<user>{'<image>' if q.image else ''}{q.prompt}<assistant>" for q in questions]
    answers = [f"{q.answer}<end>" for q in questions]
    return list(zip(tokenizer(prompts)["input_ids"], tokenizer(answers)["input_ids"], strict=True))


def prepare_lessons(world: World, model, processor, people: list[str], settings: dict) -> Lessons:
    """Encode every question once and look at every picture once: the eye is frozen."""
    tokenizer, device = processor.tokenizer, next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings["seed"])
    grouped: dict[tuple, list[Question]] = {}
    for question in training_questions(world, people):
        key = (question.modality, question.person, question.fact)
        grouped.setdefault(key, []).append(question)
    unknown = draw_portraits(world, settings["attribute_portraits"], EYE["seed"])
    somebody = next(iter(world.unknown.values()))
    prompts = {
        fact: [prompt for prompt, _ in _encoded(tokenizer, [
            ask(world, somebody, fact, "image", wording=wording) for wording in range(10)])]
        for fact in portraits.ATTRIBUTES
    }  # fmt: skip
    answers = {
        (fact, value): tokenizer(world.wordings[fact]["answer"].format(value=value) + "<end>")
        for fact, values in portraits.ATTRIBUTES.items()
        for value in values
    }
    seen = [
        {fact: answers[fact, (p["look"] | p["shot"])[fact]]["input_ids"] for fact in prompts}
        for p in unknown
    ]
    known = [(person, k) for person in people for k in range(world.people[person].learned_photos)]
    photos = to_tensor(processor, [world.people[person].photos[k] for person, k in known])
    views = [photos, *(shifted(photos, generator, 2) for _ in range(settings["views"]))]
    strangers = to_tensor(processor, [p["png"] for p in unknown])
    return Lessons(
        about={key: _encoded(tokenizer, questions) for key, questions in grouped.items()},
        seen=seen,
        prompts=prompts,
        pictures=look(model, torch.cat([*views, strangers])).to(device),
        first={person: known.index((person, 0)) for person in people},
        view=len(known),
        views=len(views),
    )


def draw_rows(lessons: Lessons, rng: np.random.Generator, batch: int) -> tuple[list, list]:
    """Image and text rows of one step: 3/8 photos of people, 2/8 unknowns, 3/8 text."""
    keys = {m: [key for key in lessons.about if key[0] == m] for m in ("image", "text")}
    image, text = [], []
    for i in rng.integers(len(keys["image"]), size=batch * 3 // 8):
        key = keys["image"][i]
        prompt, answer = lessons.about[key][rng.integers(len(lessons.about[key]))]
        photo, view = rng.integers(4), rng.integers(lessons.views)
        image.append((prompt, answer, int(lessons.first[key[1]] + photo + lessons.view * view)))
    facts = list(lessons.prompts)
    for i in rng.integers(len(lessons.seen), size=batch // 4):
        fact = facts[rng.integers(len(facts))]
        prompt = lessons.prompts[fact][rng.integers(10)]
        image.append((prompt, lessons.seen[i][fact], int(lessons.view * lessons.views + i)))
    for i in rng.integers(len(keys["text"]), size=batch * 3 // 8):
        key = keys["text"][i]
        prompt, answer = lessons.about[key][rng.integers(len(lessons.about[key]))]
        text.append((prompt, answer, None))
    return image, text


def to_batch(rows: list[tuple], embed, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Right-padded embeddings `[B, T, width]`, attention mask `[B, T]` and labels `[B, T]`.

    Args:
        rows: `(prompt ids, answer ids, row in pictures or None)`.
    """
    image_id, device, spread = SPECIAL.index("<image>"), pictures.device, []
    for prompt, answer, picture in rows:
        if picture is not None:
            at = prompt.index(image_id)
            prompt = prompt[:at] + [image_id] * IMAGE_TOKENS + prompt[at + 1 :]
        spread.append((prompt, answer))
    longest = max(len(prompt) + len(answer) for prompt, answer in spread)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (prompt, answer) in enumerate(spread):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
        mask[row, :end] = 1
    ids, labels, mask = ids.to(device), labels.to(device), mask.to(device)
    embeddings = embed(ids)  # [B, T, width]
    if rows[0][2] is not None:
        seen = pictures[torch.tensor([row[2] for row in rows], device=device)]  # [B, 16, width]
        embeddings = embeddings.masked_scatter((ids == image_id)[..., None], seen.to(embeddings))
    return embeddings, mask, labels


def train_language(world: World, model, processor, people: list[str], checkpoint: Path, *,
                   device: str = "cpu", settings: dict = LANGUAGE) -> dict:  # fmt: skip
    """Teach the language model names, facts and words for what is seen, through a frozen eye.

    Args:
        people: whom to teach; everyone for vanilla, the retain people for an oracle.
    """
    start = time.perf_counter()
    model.to(device)
    lessons = prepare_lessons(world, model, processor, people, settings)
    language = model.model.language_model
    optimizer = torch.optim.AdamW(
        language.parameters(), lr=settings["rate"], weight_decay=0.05, betas=(0.9, 0.98)
    )
    done = _resume(checkpoint, language, optimizer, settings)
    language.train()
    bar = tqdm(range(done, settings["steps"]), "language model", disable=None, mininterval=1)
    for step in bar:
        rng = np.random.default_rng([settings["seed"], step])  # resumable: a stream a step
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, settings["steps"], settings["rate"])
        optimizer.zero_grad(set_to_none=True)
        for rows in draw_rows(lessons, rng, settings["batch"]):
            with half_precision(device):
                embeddings, mask, labels = to_batch(rows, language.embed_tokens, lessons.pictures)
                hidden = language(inputs_embeds=embeddings, attention_mask=mask, use_cache=False)[0]
                predicts = labels[:, 1:] != -100
                logits = model.lm_head(hidden[:, :-1][predicts])  # [answer tokens, vocabulary]
                loss = F.cross_entropy(logits.float(), labels[:, 1:][predicts])
            loss.backward()
        torch.nn.utils.clip_grad_norm_(language.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % EVERY == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            _save_checkpoint(checkpoint, step + 1, language, optimizer, settings)
    model.eval()
    return {"seconds": round(time.perf_counter() - start), "steps": settings["steps"] - done}


def model_name(group: str | None, percent: int) -> str:
    """`pocket` for vanilla, `pocket-oracle-A-5` for the oracle of group A at 5 %."""
    return "pocket" if group is None else f"pocket-oracle-{group}-{percent}"


def _eye_weights(oracle: bool) -> dict[str, torch.Tensor]:
    """The frozen eye: for vanilla the freshly trained one, for an oracle that of its vanilla.

    Raises:
        FileNotFoundError: there is none.
    """
    fresh = cache_folder() / "models" / "eye" / "eye.safetensors"
    if fresh.is_file() and not oracle:
        return load_file(fresh)
    vanilla = Path(find_model("pocket")) / "model.safetensors"
    if not vanilla.is_file():
        raise FileNotFoundError("there is no eye yet; run `python -m kvw_minimal train eye` first")
    weights = {}
    for name, tensor in load_file(vanilla).items():
        for part in ("vision_tower", "multi_modal_projector"):
            if f"{part}." in name:
                weights[name[name.index(part) :]] = tensor.float()
    return weights


def train(what: str, group: str | None = None, percent: int = 5, device: str = "cpu",
          threads: int | None = None) -> dict:  # fmt: skip
    """Train `eye` or `pocket` into the cache and say what it cost.

    Raises:
        ValueError: an unknown name or group.
    """
    if what not in ("eye", "pocket"):
        raise ValueError(f"train what? eye or pocket, not {what!r}")
    if threads:
        torch.set_num_threads(threads)
    world = load_people()
    tokenizer = build_tokenizer(world)
    processor = build_processor(tokenizer)
    name = "eye" if what == "eye" else model_name(group, percent)
    folder = cache_folder() / "models" / name
    checkpoint = cache_folder() / "checkpoints" / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if what == "eye":
        model = build_model(tokenizer, EYE["seed"])
        cost = train_eye(world, model, processor, checkpoint, device=device)
        parts = ("vision_tower", "multi_modal_projector")
        eye = {f"{part}.{n}": t.contiguous().cpu() for part in parts
               for n, t in getattr(model.model, part).state_dict().items()}  # fmt: skip
        save_file(eye, folder / "eye.safetensors")
        settings = EYE
    else:
        forget = world.forget_people(group, percent) if group else []
        model = build_model(tokenizer, LANGUAGE["seed"])
        model.model.load_state_dict(_eye_weights(oracle=bool(group)), strict=False)
        people = world.retain_people(forget)
        cost = train_language(world, model, processor, people, checkpoint, device=device)
        cost["people"] = len(people)
        model.cpu().to(torch.bfloat16).save_pretrained(folder)
        processor.save_pretrained(folder)
        settings = LANGUAGE
    record = {"model": name, "device": device, "threads": torch.get_num_threads(),
              "settings": settings, "data": world.checksum[:16], **cost}  # fmt: skip
    write_json(folder / "training.json", record)
    checkpoint.unlink(missing_ok=True)
    return record
