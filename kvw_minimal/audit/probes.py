"""The probe, the registry of all probes, and the loop that runs them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..edits import Edit
from ..forget_request import Request
from ..questions import Question
from ..session import Session

PROMPTING, MEMBERSHIP, RELEARNING = "said another way", "membership", "brought back"
PROBE_KINDS = (PROMPTING, MEMBERSHIP, RELEARNING, "inside", "receipt")
#: result of a probe: the questions that it asked, and a score for each, `[questions]` in [0, 1]
Answers = tuple[list[Question], np.ndarray]
NOTHING: Answers = ([], np.zeros(0))


@dataclass(frozen=True)
class Probe:
    """One way to look for knowledge that an edit leaves in the model.

    Attributes:
        name: name in tables, shared by all settings of the probe.
        kind: one of `PROBE_KINDS`.
        source: the paper or other source, and the differences here.
        make: `(session, request, edit) -> {setting: answers}`. It runs with the edit on the model
            and leaves the model as it was. A probe with a single setting uses the empty name.
            Answers are `NOTHING` if the probe does not apply.
        beside: the probe whose score this attack tries to raise; empty for a probe that only reads.
        before: whether the probe uses the unedited model, too. It shows where the edit is, but an
            attacker with the unedited model needs no probe. It does not count in the verdict.
        control_of: the probe whose control task this is; empty for a probe. A control has the
            settings of its probe. It never convicts: where it rises, its probe does not count.
        long: whether the probe takes many minutes. It runs only where it is asked for.
    """

    name: str
    kind: str
    source: str
    make: Callable[[Session, Request, Edit], dict[str, Answers]]
    beside: str = ""
    before: bool = False
    control_of: str = ""
    long: bool = False


PROBES: dict[str, Probe] = {}


def probe(
    name: str,
    kind: str,
    source: str,
    beside: str = "",
    several: bool = False,
    before: bool = False,
    control_of: str = "",
    long: bool = False,
) -> Callable:
    """Decorator that registers a probe in `PROBES`.

    Args:
        several: whether the function returns `{setting: answers}` instead of the answers of one
            setting.
        name, kind, source, beside, before, control_of, long: as in `Probe`.

    Raises:
        ValueError: another probe has this name, or the kind is unknown.
    """

    def enter(make: Callable) -> Callable:
        if name in PROBES or kind not in PROBE_KINDS:
            raise ValueError(f"there is a probe {name!r} already, or no kind {kind!r}")
        make_all = make if several else partial(_single, make)
        PROBES[name] = Probe(name, kind, source, make_all, beside, before, control_of, long)
        return make

    return enter


def _single(make: Callable, session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return {"": make(session, request, edit)}


def label_of(name: str, setting: str) -> str:
    """Label of a probe and its setting in rows."""
    return f"{name}: {setting}" if setting else name


def probe_of(label: str) -> Probe:
    """The probe of a label."""
    return PROBES[label.partition(": ")[0]]


def control_label(label: str) -> str:
    """Label of the control of a probe at the same setting; empty if the probe has no control."""
    name, colon, setting = label.partition(": ")
    controls = [entry.name for entry in PROBES.values() if entry.control_of == name]
    return f"{controls[0]}{colon}{setting}" if controls else ""


def quick() -> list[str]:
    """Names of the probes that take no long time."""
    return [name for name, entry in PROBES.items() if not entry.long]


def reading() -> list[str]:
    """Names of the probes that only read. A sham is not attacked: it has lost no knowledge."""
    return [name for name in quick() if PROBES[name].kind != RELEARNING]


def unseen(*step: object) -> None:
    """Shows no progress."""


def examine(
    session: Session,
    request: Request,
    edit: Edit,
    names: Iterable[str] | None = None,
    watch: Callable[[str], object] = unseen,
) -> list[dict]:
    """Runs probes on an edited model: one row for each probe, setting, modality and person.

    Args:
        edit: an edit that is not on the model yet. Edit and model stay as they are.
        names: names of the probes; default: those of `quick`.
        watch: called with the name of each probe before it runs.

    Raises:
        KeyError: a probe has an unknown name.
        ValueError: a probe gave a value that is not finite.
    """
    rows = list[dict]()
    with edit.on(session.model):
        for entry in [PROBES[name] for name in (quick() if names is None else names)]:
            watch(entry.name)
            for setting, (questions, values) in entry.make(session, request, edit).items():
                label = label_of(entry.name, setting)
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
                        "score_sum": round(float(sum(scores)), 5),
                        "n": len(scores),
                    }
                    for (modality, person), scores in owners.items()
                ]
    return rows
