"""What the widget of the landing page shows, computed with the real model and stored.

    python tests/landing_states.py    # data/results/landing.json: minutes

One measurement gives KVW's edit for group A at every strength, and the shams', made for five
others. At each strength a few people are asked by photo, and the four sets are read.
`tests/test_landing.py` makes a slice again; `book/_ext/landing.py` brings the file into the page.
"""

import time
from collections.abc import Sequence

from case import Case

from kvw_experiments.dependencies import RESULTS
from kvw_minimal import scores
from kvw_minimal.atomic_io import write_json
from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.kvw import STRENGTH, one_pass
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import Question
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.questions import SETS, about, question_sets
from kvw_minimal.strangers.tasks import request_to_forget, sham_people
from kvw_minimal.zoo import catalogue

FILE = RESULTS / "landing.json"
GROUP, PERCENT = "A", 5  # whose oracle is committed
STRENGTHS = tuple(STRENGTH * step for step in (0, 1 / 6, 1 / 3, 2 / 3, 1, 2, 4))
DRAWS = 4  # shams, as in chapter 5: what they cost differs from one to the next
FACTS = 4  # asked of everybody who is shown: the first ones of the world


def asked_of(world: PeopleDataset, people: list[str]) -> list[Question]:
    """The photo questions that the page shows, of the forget set's or the retain set's own."""
    facts = list(world.values)[:FACTS]
    return [q for q in about(world, people, modalities=("image",)) if q.fact in facts]


def shown_people(case: Case, world: PeopleDataset, edit: ColumnScaling) -> list[str]:
    """Of the five whose photo answers change most at the book's strength, and least; two others.

    The two others are the first in order who are forgotten by no sham either.
    """
    asked = about(world, case.people, modalities=("image",))
    before = scores.answer(case.model, case.processor, asked)
    with edit.on(case.model):
        after = scores.answer(case.model, case.processor, asked)
    changed = dict.fromkeys(case.people, 0)
    for question, was, now in zip(asked, before, after, strict=True):
        changed[question.person] += was != now
    ranked = sorted(case.people, key=lambda person: -changed[person])
    away = {person for draw in range(DRAWS) for person in sham_people(world, PERCENT, draw)}
    others = [person for person in case.retain_people if person not in away]
    return [ranked[0], ranked[-1], *others[:2]]


def edit_of(case: Case, world: PeopleDataset, draw: int | None = None) -> ColumnScaling:
    """KVW's edit for the request, or that for the others of a sham; `.at` gives any strength."""
    people = case.people if draw is None else sham_people(world, PERCENT, draw)
    everyone = case.coefficients()
    return one_pass(
        case.model, everyone.of(people), everyone.of(world.retain_people(people)), STRENGTH
    )


def read_sets(
    model, sets: dict[str, list[Question]], batches: dict[str, list[Batch]], without: list[str] = ()
) -> dict[str, list[int]]:
    """Of each set how many answers are as taught, and of how many, without some people's."""
    found = {}
    for name, encoded in batches.items():
        exact = scores.read(model, encoded).exact
        counted = [
            right
            for right, q in zip(exact, sets[name], strict=True)
            if name != "retain" or q.person not in without
        ]
        found[name] = [int(sum(counted)), len(counted)]
    return found


def prepared(names: Sequence[str] = SETS) -> tuple[Case, PeopleDataset, dict, dict]:
    """The request, the world, the four sets, and the batches of some of them."""
    world = load_people()
    model, processor = catalogue.load("pocket")
    forget = world.forget_people(GROUP, PERCENT)
    sets = question_sets(world, forget)
    batches = {name: answer_batches(processor, sets[name], 128) for name in names}
    return Case(Session(model, processor), request_to_forget(world, forget)), world, sets, batches


def states() -> list[tuple[int | None, float]]:
    """Every edit that is looked at: whose (None is KVW's, a number the draw of a sham), how strong.

    At strength 0 all of them are vanilla.
    """
    return [(None, 0.0)] + [
        (draw, strength) for draw in (None, *range(DRAWS)) for strength in STRENGTHS[1:]
    ]


def state(
    case: Case,
    world: PeopleDataset,
    sets: dict,
    batches: dict,
    asked: list[Question],
    draw: int | None,
    strength: float,
) -> dict:
    """What is said and scored with one edit on; of the shams only the first is asked."""
    others = [] if draw is None else sham_people(world, PERCENT, draw)
    found = {"sham": draw, "strength": strength}
    with edit_of(case, world, draw).with_strength(strength).on(case.model):
        found["scores"] = read_sets(case.model, sets, batches, others)
        if not draw:
            found["answers"] = scores.answer(case.model, case.processor, asked)
    return found


def landing() -> dict:
    """Everything that the page shows, and where it comes from."""
    start = time.perf_counter()
    case, world, sets, batches = prepared()
    shown = shown_people(case, world, edit_of(case, world))
    asked = asked_of(world, shown)
    oracle = catalogue.model_name("pocket", GROUP, PERCENT)
    never_told, _ = catalogue.load(oracle)
    every = [state(case, world, sets, batches, asked, *one) for one in states()]
    models = {"pocket": fingerprint(case.model), oracle: fingerprint(never_told)}
    return {
        "provenance": provenance(
            seconds=time.perf_counter() - start,
            seed=0,
            models=models,
            data=world.checksum,
            group=GROUP,
            forget=PERCENT,
        )
        | {"command": "python tests/landing_states.py"},
        "strengths": STRENGTHS,
        "chosen": STRENGTH,
        "people": [
            {"id": person, "name": world.people[person].name, "forgotten": person in case.people}
            for person in shown
        ],
        "questions": [
            {"person": q.person, "fact": q.fact, "prompt": q.prompt, "taught": q.answer}
            for q in asked
        ],
        "oracle": read_sets(never_told, sets, batches),
        "states": every,
    }


if __name__ == "__main__":
    write_json(FILE, landing())
