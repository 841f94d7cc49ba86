"""What language models are taught about the strangers, as token ids, and the loss of a lesson."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from kvw_minimal.batches import IGNORED, render
from kvw_minimal.models import tokenizer_of
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import PeopleDataset
from kvw_minimal.strangers.portraits import ATTRIBUTES
from kvw_minimal.strangers.questions import facts_of, question_about
from kvw_minimal.zoo.assembly import IMAGE_TOKENS

from .pictures import draw_portraits, look, photos_of, shifted, to_tensor
from .training import fit, half_precision

Pair = tuple[list[int], list[int]]  # prompt ids, answer ids
#: `(shared ids, pairs, row in what is seen or heard, or None)`
Row = tuple[list[int], list[Pair], int | None]


def training_questions(world: PeopleDataset, people: list[str]) -> list[Question]:
    """Every trained wording of every question about `people`, image and text, first photo."""
    return [
        question_about(world, world.people[person], fact, modality, wording=wording, form=form)
        for person in people
        for fact in facts_of(world)
        for modality in ("image", "text")
        for form in ("question", "cloze")
        for wording in range(10 if form == "question" else 1)
    ]


@dataclass
class Lessons:
    """Everything that a language model is taught, as token ids, and the pictures that it sees.

    Attributes:
        about: `{(modality, person, fact): pairs}`, one a wording.
        seen: for each unknown portrait, `{attribute: pairs}`, one a wording.
        pictures: `[N, 16, width]`, learned photos in several views, then unknown portraits.
        first: `{person: row of the first photo}` in `pictures`; `view`: rows of one view.
    """

    about: dict[tuple[str, str, str], list[Pair]]
    seen: list[dict[str, list[Pair]]]
    pictures: torch.Tensor
    first: dict[str, int]
    view: int
    views: int


def encode(processor, questions: list[Question]) -> list[Pair]:
    """Prompt ids, a picture's token spread out, and answer ids with the end of the turn."""
    pairs = [render(processor, question) for question in questions]
    prompts = [prompt.replace("<image>", "<image>" * IMAGE_TOKENS) for prompt, _ in pairs]
    ids = [
        tokenizer_of(processor)(texts, add_special_tokens=False)["input_ids"]
        for texts in (prompts, [answer for _, answer in pairs])
    ]
    return list(zip(*ids, strict=True))


def attribute_lessons(
    world: PeopleDataset, processor, unknown: list[dict]
) -> list[dict[str, list[Pair]]]:
    """`Lessons.seen` for drawn unknown portraits."""
    somebody, pairs = next(iter(world.unknown.values())), {}
    for fact, values in ATTRIBUTES.items():
        questions = [
            question_about(world, somebody, fact, "image", wording=wording) for wording in range(10)
        ]
        for value in values:
            answer = world.wordings[fact]["answer"].format(value=value)
            pairs[fact, value] = encode(processor, [replace(q, answer=answer) for q in questions])
    shown = [portrait["look"] | portrait["shot"] for portrait in unknown]
    return [{fact: pairs[fact, values[fact]] for fact in ATTRIBUTES} for values in shown]


def prepare_lessons(
    world: PeopleDataset, model, processor, people: list[str], settings: dict
) -> Lessons:
    """Encode every question once and look at every picture once: the eye is frozen."""
    generator = torch.Generator().manual_seed(settings["seed"])
    alike = groupby(training_questions(world, people), attrgetter("modality", "person", "fact"))
    unknown = draw_portraits(world, settings["attribute_portraits"])
    who, pngs, _ = photos_of(world.people[person] for person in people)
    photos = to_tensor(processor, pngs)
    views = [photos, *(shifted(photos, generator, 2) for _ in range(settings["views"]))]
    strangers = to_tensor(processor, [p["png"] for p in unknown])
    return Lessons(
        about={key: encode(processor, list(questions)) for key, questions in alike},
        seen=attribute_lessons(world, processor, unknown),
        pictures=look(model, torch.cat([*views, strangers])),
        first={person: who.index(i) for i, person in enumerate(people)},
        view=len(who),
        views=len(views),
    )


def draw_rows(
    lessons: Lessons, rng: np.random.Generator, batch: int, shares: list[int]
) -> tuple[list[Row], list[Row]]:
    """Image and text rows of one step.

    Args:
        shares: eighths of a batch that are photos of people, unknown portraits, and text.
    """
    known, unknown, read = (batch * share // 8 for share in shares)
    keys = {m: [key for key in lessons.about if key[0] == m] for m in ("image", "text")}
    image, text = [], []
    for i in rng.integers(len(keys["image"]), size=known):
        key = keys["image"][i]
        pair = lessons.about[key][rng.integers(len(lessons.about[key]))]
        photo, view = rng.integers(4), rng.integers(lessons.views)
        image.append(([], [pair], int(lessons.first[key[1]] + photo + lessons.view * view)))
    for i in rng.integers(len(lessons.seen), size=unknown):
        facts = list(lessons.seen[i].values())
        wordings = facts[rng.integers(len(facts))]
        picture = int(lessons.view * lessons.views + i)
        image.append(([], [wordings[rng.integers(len(wordings))]], picture))
    for i in rng.integers(len(keys["text"]), size=read):
        wordings = lessons.about[keys["text"][i]]
        text.append(([], [wordings[rng.integers(len(wordings))]], None))
    return image, text


def to_batch(rows: list[Row], embed, senses: torch.Tensor, mark: int) -> tuple[torch.Tensor, ...]:
    """What the language model reads: embeddings, labels, positions and where each may look.

    Questions about one picture may stand behind each other in a row. Each sees what they share and
    itself, nothing of the others: exactly as if it stood alone.

    Args:
        senses: `[N, tokens, width]`, what is seen or heard.
        mark: the token that stands for one of those tokens.

    Returns:
        Embeddings `[B, T, width]`, labels and positions `[B, T]`, and a mask `[B, 1, T, T]` that is
        0 where position t may look and very negative elsewhere.
    """
    built, device = [], senses.device
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
    visible = (part[:, None, :] == part[:, :, None]) | (part[:, None, :] == 0)  # [B, T, T]
    mask = torch.where(visible.tril(), 0.0, -1e9)[:, None]
    embeddings = embed(ids)  # [B, T, width]
    if rows[0][2] is not None:
        sensed = senses[torch.tensor([row[2] for row in rows], device=device)]  # [B, tokens, width]
        embeddings = embeddings.masked_scatter((ids == mark)[..., None], sensed.to(embeddings))
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


def by_length(rows: list[Row], parts: int) -> list[list[Row]]:
    """Cut rows into parts of similar lengths, so that little is spent on padding."""
    order = sorted(rows, key=lambda row: len(row[0]) + sum(len(p) + len(a) for p, a in row[1]))
    size = -(-len(rows) // parts)
    return [order[start : start + size] for start in range(0, len(rows), size)]


def teach(
    model,
    draw: Callable[[np.random.Generator], Iterator[list[list[Row]]]],
    senses: torch.Tensor,
    mark: int,
    checkpoint: Path,
    settings: dict,
) -> dict:
    """Teach a language model through frozen senses; changes what of it requires a gradient.

    Args:
        draw: what is taught in a step: groups of rows, each in parts that fit into memory. The
            loss of a group is the mean over its answer tokens.
        senses, mark: as in `to_batch`.
    """
    language = model.model.language_model

    def losses(step: int, rng: np.random.Generator):
        for parts in draw(rng):
            tokens = sum(
                len(answer) for rows in parts for _, questions, _ in rows for _, answer in questions
            )
            for rows in parts:
                with half_precision(senses.device.type):
                    batch = to_batch(rows, language.embed_tokens, senses, mark)
                    loss = answer_loss(model, *batch) / tokens
                yield loss

    cost = fit(
        language,
        losses,
        settings,
        name="language model",
        checkpoint=checkpoint,
        every=settings["every"],
        decay=settings["decay"],
        betas=(0.9, 0.98),
    )
    model.eval()
    return cost


def train_language(
    world: PeopleDataset,
    model,
    processor,
    people: list[str],
    checkpoint: Path,
    settings: dict,
    also: dict | None = None,
    draw=draw_rows,
) -> dict:
    """Teach the language model names, facts and words for what is seen, through a frozen eye.

    Args:
        people: the people to teach; all for vanilla, the retained people for an oracle.
        also: more lessons, in the form of `Lessons.about`.
        draw: how the rows of a step are drawn.
    """
    lessons = prepare_lessons(world, model, processor, people, settings)
    lessons.about |= also or {}

    def parts(rng: np.random.Generator):
        for rows in draw(lessons, rng, settings["batch"], settings["shares"]):
            yield by_length(rows, settings["chunks"])

    return teach(
        model, parts, lessons.pictures, model.config.image_token_index, checkpoint, settings
    )
