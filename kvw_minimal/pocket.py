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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from . import portraits
from .batches import IGNORED, render
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
    "steps": 2_000, "batch": 128, "rate": 2e-3, "seed": 2, "attribute_portraits": 3_000, "views": 6,
    "shares": [3, 2, 3], "chunks": 1, "decay": 0.05, "every": EVERY,
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


def known_looks(world: World) -> frozenset:
    """The looks that a newly drawn unknown person must not have."""
    return frozenset(
        tuple(sorted((part, person.looks[0][part]) for part in portraits.LOOK))
        for person in [*world.people.values(), *world.unknown.values()]
    )


def draw_portraits(world: World, count: int, seed: int) -> list[dict]:
    """Draw unknown people on all cores; the same ones whatever the number of cores."""
    avoid, block = known_looks(world), 500
    seeds = [seed * 1000 + i for i in range(-(-count // block))]
    with ProcessPoolExecutor() as pool:
        blocks = pool.map(partial(_portraits, count=block, avoid=avoid), seeds)
        return [portrait for block in blocks for portrait in block][:count]


def labels_of(looks: list[dict]) -> torch.Tensor:
    """Class numbers `[N, len(SEEN)]` of what can be seen."""
    tables = portraits.LOOK | portraits.ATTRIBUTES
    return torch.tensor([[list(tables[part]).index(look[part]) for part in SEEN] for look in looks])


def _trained(model) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _save_checkpoint(path: Path, step: int, model, optimizer, settings: dict) -> None:
    """Weights and optimiser state in one safetensors file, replaced in one move."""
    tensors = {f"model/{name}": t.data for name, t in _trained(model).items()}
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
    trained = _trained(model)
    if {f"model/{name}" for name in trained} != {name for name in tensors if name[0] == "m"}:
        raise ValueError(f"{path} belongs to another model; move it away first")
    for name, parameter in trained.items():
        parameter.data.copy_(tensors[f"model/{name}"])
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


def encode(processor, questions: list[Question]) -> list[tuple[list[int], list[int]]]:
    """Prompt ids, a picture's token spread out, and answer ids with the end of the turn."""
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    prompts, answers = zip(*[render(processor, question) for question in questions], strict=True)
    ids = [processor.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
           for texts in (prompts, answers)]  # fmt: skip
    spread = [
        [
            token
            for given in prompt
            for token in [given] * (IMAGE_TOKENS if given == image_id else 1)
        ]
        for prompt in ids[0]
    ]
    return list(zip(spread, ids[1], strict=True))


def attribute_lessons(world: World, processor, unknown: list[dict]) -> tuple[dict, list[dict]]:
    """`Lessons.prompts` and `Lessons.seen` for drawn unknown portraits."""
    somebody = next(iter(world.unknown.values()))
    prompts, answers = {}, {}
    for fact, values in portraits.ATTRIBUTES.items():
        asked = [ask(world, somebody, fact, "image", wording=wording) for wording in range(10)]
        prompts[fact] = [prompt for prompt, _ in encode(processor, asked)]
        told = [world.wordings[fact]["answer"].format(value=value) for value in values]
        asked = [replace(asked[0], answer=answer) for answer in told]
        ids = [answer for _, answer in encode(processor, asked)]
        answers[fact] = dict(zip(values, ids, strict=True))
    seen = [
        {fact: answers[fact][(p["look"] | p["shot"])[fact]] for fact in prompts} for p in unknown
    ]
    return prompts, seen


def prepare_lessons(world: World, model, processor, people: list[str], settings: dict) -> Lessons:
    """Encode every question once and look at every picture once: the eye is frozen."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings["seed"])
    grouped: dict[tuple, list[Question]] = {}
    for question in training_questions(world, people):
        key = (question.modality, question.person, question.fact)
        grouped.setdefault(key, []).append(question)
    unknown = draw_portraits(world, settings["attribute_portraits"], EYE["seed"])
    prompts, seen = attribute_lessons(world, processor, unknown)
    known = [(person, k) for person in people for k in range(world.people[person].learned_photos)]
    photos = to_tensor(processor, [world.people[person].photos[k] for person, k in known])
    views = [photos, *(shifted(photos, generator, 2) for _ in range(settings["views"]))]
    strangers = to_tensor(processor, [p["png"] for p in unknown])
    return Lessons(
        about={key: encode(processor, questions) for key, questions in grouped.items()},
        seen=seen,
        prompts=prompts,
        pictures=look(model, torch.cat([*views, strangers])).to(device),
        first={person: known.index((person, 0)) for person in people},
        view=len(known),
        views=len(views),
    )


def draw_rows(lessons: Lessons, rng: np.random.Generator, batch: int,
              shares: list[int]) -> tuple[list, list]:  # fmt: skip
    """Image and text rows of one step.

    Args:
        shares: eighths of a batch that are photos of people, unknown portraits, and text.
    """
    known, unknown, read = (batch * share // 8 for share in shares)
    keys = {m: [key for key in lessons.about if key[0] == m] for m in ("image", "text")}
    image, text = [], []
    for i in rng.integers(len(keys["image"]), size=known):
        key = keys["image"][i]
        prompt, answer = lessons.about[key][rng.integers(len(lessons.about[key]))]
        photo, view = rng.integers(4), rng.integers(lessons.views)
        picture = int(lessons.first[key[1]] + photo + lessons.view * view)
        image.append(([], [(prompt, answer)], picture))
    facts = list(lessons.prompts)
    for i in rng.integers(len(lessons.seen), size=unknown):
        fact = facts[rng.integers(len(facts))]
        prompt = lessons.prompts[fact][rng.integers(10)]
        picture = int(lessons.view * lessons.views + i)
        image.append(([], [(prompt, lessons.seen[i][fact])], picture))
    for i in rng.integers(len(keys["text"]), size=read):
        key = keys["text"][i]
        prompt, answer = lessons.about[key][rng.integers(len(lessons.about[key]))]
        text.append(([], [(prompt, answer)], None))
    return image, text


def to_batch(rows: list[tuple], embed, pictures: torch.Tensor,
             image_id: int) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """What the language model reads: embeddings, labels, positions and where each may look.

    Questions about one picture may stand behind each other in a row. Each sees what they share and
    itself, nothing of the others: exactly as if it stood alone.

    Args:
        rows: `(shared ids, [(prompt ids, answer ids), ...], row in pictures or None)`.
        image_id: the token that stands for a sixteenth of a picture.

    Returns:
        Embeddings `[B, T, width]`, labels and positions `[B, T]`, and a mask `[B, 1, T, T]` that is
        0 where position t may look and very negative elsewhere.
    """
    built, device = [], pictures.device
    for shared, questions, _ in rows:
        ids, labels, part = list(shared), [IGNORED] * len(shared), [0] * len(shared)
        position = list(range(len(shared)))
        for k, (prompt, answer) in enumerate(questions, 1):
            ids += prompt + answer
            labels += [IGNORED] * len(prompt) + answer
            part += [k] * (len(prompt) + len(answer))
            position += range(len(shared), len(shared) + len(prompt) + len(answer))
        built.append((ids, labels, part, position))
    ids, labels, part, position = (
        pad_sequence([torch.tensor(row[i]) for row in built], True, padding).to(device)
        for i, padding in enumerate((0, IGNORED, -1, 0))
    )  # four times [B, T]
    look = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)  # [B, T, T]
    mask = torch.where(look.tril(), 0.0, -1e9)[:, None]
    embeddings = embed(ids)  # [B, T, width]
    if rows[0][2] is not None:
        seen = pictures[torch.tensor([row[2] for row in rows], device=device)]  # [B, 16, width]
        embeddings = embeddings.masked_scatter((ids == image_id)[..., None], seen.to(embeddings))
    return embeddings, labels, position, mask


def answer_loss(model, embeddings, labels, position, mask) -> torch.Tensor:
    """Cross-entropy summed over answer tokens; the head is computed for these only."""
    language = model.model.language_model
    hidden = language(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=position, use_cache=False
    )[0]  # [B, T, width]
    predicts = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][predicts])  # [answer tokens, vocabulary]
    return F.cross_entropy(logits.float(), labels[:, 1:][predicts], reduction="sum")


def by_length(rows: list[tuple], parts: int) -> list[list[tuple]]:
    """Cut rows into parts of similar lengths, so that little is spent on padding."""
    order = sorted(rows, key=lambda row: len(row[0]) + sum(len(p) + len(a) for p, a in row[1]))
    size = -(-len(rows) // parts)
    return [order[start : start + size] for start in range(0, len(rows), size)]


def train_language(world: World, model, processor, people: list[str], checkpoint: Path, *,
                   device: str = "cpu", settings: dict = LANGUAGE,
                   also: dict | None = None, draw=draw_rows) -> dict:  # fmt: skip
    """Teach the language model names, facts and words for what is seen, through a frozen eye.

    Changes those parameters of the language model that require a gradient.

    Args:
        people: whom to teach; everyone for vanilla, the retain people for an oracle.
        also: more lessons, in the form of `Lessons.about`.
        draw: how the rows of a step are drawn.
    """
    start = time.perf_counter()
    model.to(device)
    lessons = prepare_lessons(world, model, processor, people, settings)
    lessons.about |= also or {}
    language, image_id = model.model.language_model, model.config.image_token_index
    trained = list(_trained(language).values())
    optimizer = torch.optim.AdamW(
        trained, lr=settings["rate"], weight_decay=settings["decay"], betas=(0.9, 0.98)
    )
    done = _resume(checkpoint, language, optimizer, settings)
    language.train()
    bar = tqdm(range(done, settings["steps"]), "language model", disable=None, mininterval=1)
    for step in bar:
        rng = np.random.default_rng([settings["seed"], step])  # resumable: a stream a step
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, settings["steps"], settings["rate"])
        optimizer.zero_grad(set_to_none=True)
        for rows in draw(lessons, rng, settings["batch"], settings["shares"]):
            tokens = sum(len(answer) for _, questions, _ in rows for _, answer in questions)
            for part in by_length(rows, settings["chunks"]):
                with half_precision(device):
                    batch = to_batch(part, language.embed_tokens, lessons.pictures, image_id)
                    loss = answer_loss(model, *batch) / tokens
                loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if (step + 1) % settings["every"] == 0:
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
    forget = world.forget_people(group, percent) if group else []  # refuses before it writes
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
