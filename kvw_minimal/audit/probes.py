"""What a probe is, the one list of all of them, and the loop that asks them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..edits import Edit
from ..forget_request import Request
from ..questions import Question
from ..session import Session

SAID, BROUGHT_BACK = "said another way", "brought back"
KINDS = (SAID, "membership", BROUGHT_BACK, "inside", "receipt")
#: what a probe found: the questions it asked, and how well each is known, `[questions]` in [0, 1]
Answers = tuple[list[Question], np.ndarray]
NOTHING: Answers = ([], np.zeros(0))


@dataclass(frozen=True)
class Probe:
    """One way to look for what is left.

    Attributes:
        name: as it stands in tables; of one that is tried at several settings what they share.
        kind: one of `KINDS`.
        source: paper, or where it comes from, and what differs here.
        make: `(session, request, edit) -> {setting: answers}`, with the edit on the model, which is
            put back; the setting is empty where there is one only. `NOTHING` where it cannot be
            asked.
        beside: the probe whose score it tries to raise; empty for one that only reads.
        before: it needs the model before the edit, too: it says where the edit is, and whoever
            has that model needs no probe. It does not count for a verdict.
    """

    name: str
    kind: str
    source: str
    make: Callable[[Session, Request, Edit], dict[str, Answers]]
    beside: str = ""
    before: bool = False


PROBES: dict[str, Probe] = {}


def probe(
    name: str, kind: str, source: str, beside: str = "", several: bool = False, before: bool = False
) -> Callable:
    """A decorator that enters a probe into `PROBES`.

    Args:
        several: the function gives `{setting: answers}`, not the answers of one.
        beside, before: as in `Probe`.

    Raises:
        ValueError: another one has that name, or there is no such kind.
    """

    def enter(make: Callable) -> Callable:
        if name in PROBES or kind not in KINDS:
            raise ValueError(f"there is a probe {name!r} already, or no kind {kind!r}")
        given = make if several else partial(_one, make)
        PROBES[name] = Probe(name, kind, source, given, beside, before)
        return make

    return enter


def _one(make: Callable, session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return {"": make(session, request, edit)}


def label_of(name: str, setting: str) -> str:
    """How a probe at one of its settings stands in rows."""
    return f"{name}: {setting}" if setting else name


def probe_of(label: str) -> Probe:
    """The probe of a label."""
    return PROBES[label.partition(": ")[0]]


def reading() -> list[str]:
    """The probes that only read; a sham has lost nobody who could be brought back."""
    return [name for name, each in PROBES.items() if each.kind != BROUGHT_BACK]


def examine(
    session: Session, request: Request, edit: Edit, names: Iterable[str] | None = None
) -> list[dict]:
    """Ask probes of the model with an edit on: one row a probe, setting, modality and person.

    Args:
        edit: not on the model yet; both are as they were afterwards.
        names: all probes unless given.

    Raises:
        KeyError: no such probe.
        ValueError: a probe gave something that is not finite.
    """
    rows = list[dict]()
    with edit.on(session.model):
        for each in [PROBES[name] for name in (PROBES if names is None else names)]:
            for setting, (questions, values) in each.make(session, request, edit).items():
                label = label_of(each.name, setting)
                if not np.isfinite(values).all():
                    raise ValueError(f"the probe {label!r} found something that is not finite")
                owners: dict[tuple[str, str], list[float]] = {}
                for question, value in zip(questions, values, strict=True):
                    owners.setdefault((question.modality, question.person), []).append(value)
                rows += [
                    {
                        "set": label,
                        "modality": modality,
                        "person": person,
                        "question": None,
                        "metric": "known",
                        "score_sum": round(float(sum(own)), 5),
                        "n": len(own),
                    }
                    for (modality, person), own in owners.items()
                ]
    return rows
