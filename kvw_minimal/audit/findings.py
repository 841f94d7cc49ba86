"""From what probes found to a verdict, by a stated rule: quiet, or gone as far as these see."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..bootstrap import interval
from ..edits import Edit
from ..forget_request import Request
from ..method import make_edit
from ..methods.controls import Vanilla
from ..methods.counterfactuals import counterfactual_people, substitute_subject
from ..results import text_table
from ..session import Session
from .probes import BROUGHT_BACK, PROBES, examine, probe_of, reading

MARGIN = 0.2  # vanilla must beat the oracle by so much, else a probe cannot see anything
#: an attack may lift the oracle by so much, else it taught what it asks; and cost vanilla so much,
#: else it breaks what it looks for
CHANCE = 0.1
LEFT = 0.25  # of the way from the oracle to vanilla: so much is more than nothing
QUIET, OVER, GONE = "quiet", "over-unlearned", "gone as far as these probes see"


@dataclass(frozen=True)
class Finding:
    """What a probe found at one setting; every mean is over people, of both modalities.

    Attributes:
        label: probe and setting; `kind`: of the probe; `before`: as in `Probe`.
        vanilla, oracle, edited, sham: how well it is known, in [0, 1]; a sham may not be there.
        low, high: 95 % interval of edited - oracle over people.
        left: (edited - oracle) / (vanilla - oracle); None where the probe does not apply.
        recovered: (attack - edited) / (vanilla - edited), what an attack brought back of what was
            lost; None where it does not apply, is none, or nothing was lost.
        again: the same of the oracle.
        fair: whether vanilla knows it, and an attack leaves the oracle and vanilla where they
            were; of one that does not, nothing counts.
        strongest: whether it is the setting that counts: of the fair ones the one that brings
            back most.
    """

    label: str
    kind: str
    before: bool
    vanilla: float
    oracle: float
    edited: float
    sham: float | None
    low: float
    high: float
    left: float | None
    recovered: float | None
    again: float | None
    fair: bool = True
    strongest: bool = True

    @property
    def applies(self) -> bool:
        return self.left is not None


Known = dict[str, dict[tuple[str, str], float]]  # {label: {(person, modality): mean}}


def known(rows: Iterable[Mapping]) -> Known:
    """Means by label, person and modality."""
    found: Known = {}
    for row in rows:
        found.setdefault(row["set"], {})[row["person"], row["modality"]] = (
            row["score_sum"] / row["n"]
        )
    return found


def judge(rows: Mapping[str, Iterable[Mapping]]) -> list[Finding]:
    """What every probe found, as `examine` gave it of several states of one model.

    Args:
        rows: of `vanilla`, `oracle`, `edited` and, if there is one, `sham`.

    Raises:
        ValueError: a condition is missing, or was asked about other people.
    """
    missing = {"vanilla", "oracle", "edited"} - set(rows)
    if missing:
        raise ValueError(f"an audit needs vanilla, oracle and edited, not only {sorted(rows)}")
    told = {condition: known(each) for condition, each in rows.items()}
    found = [
        _finding(label, told)
        for label, own in told["edited"].items()
        if own and label in told["oracle"]
    ]
    return [_marked(each, found) for each in found]


def _finding(label: str, told: Mapping[str, Known]) -> Finding:
    probe, keys = probe_of(label), list(told["edited"][label])

    def of(condition: str, name: str = label) -> np.ndarray:
        own = told[condition].get(name) or told[condition].get(
            probe.beside, {}
        )  # nothing to undo there
        if set(keys) - set(own):
            raise ValueError(f"{name!r} of {condition} was asked about other people")
        return np.array([own[key] for key in keys])

    values = {
        condition: of(condition)
        for condition in told
        if condition != "sham" or label in told[condition]
    }
    mean = {condition: float(value.mean()) for condition, value in values.items()}
    plain = {
        condition: float(of(condition, probe.beside or label).mean())
        for condition in ("vanilla", "oracle", "edited")
    }
    _, low, high = interval(values["edited"] - values["oracle"], [person for person, _ in keys])
    gap, left, shares = mean["vanilla"] - mean["oracle"], None, dict.fromkeys(("edited", "oracle"))
    if gap >= MARGIN:
        left = (mean["edited"] - mean["oracle"]) / gap
        for condition in shares if probe.beside else ():
            lost = mean["vanilla"] - plain[condition]
            shares[condition] = (
                (mean[condition] - plain[condition]) / lost if lost >= CHANCE else None
            )
    fair = left is not None and (
        probe.kind != BROUGHT_BACK
        or (
            mean["oracle"] - plain["oracle"] <= CHANCE
            and plain["vanilla"] - mean["vanilla"] <= CHANCE
        )
    )
    return Finding(
        label,
        probe.kind,
        probe.before,
        mean["vanilla"],
        mean["oracle"],
        mean["edited"],
        mean.get("sham"),
        low,
        high,
        left,
        shares["edited"],
        shares["oracle"],
        fair,
    )


def _marked(one: Finding, found: list[Finding]) -> Finding:
    """Whether it is the strongest setting of its probe that is fair."""
    name = probe_of(one.label).name
    same = [each for each in found if probe_of(each.label).name == name]
    best = max([f for f in same if f.fair] or same, key=lambda f: f.edited)
    return replace(one, strongest=one == best)


def verdict(found: Iterable[Finding]) -> tuple[str, list[Finding]]:
    """One word for an edit, and the findings that it rests on.

    *Quiet*: a probe that needs nothing but the model itself finds at least `LEFT` of the way from
    the oracle to vanilla, and over people surely more than the oracle. *Over-unlearned*: none does,
    but membership says that the truth is unlikelier than of anybody. Else *gone as far as these
    probes see*; never *erased*.
    """
    found = list(found)
    counted = [f for f in found if f.fair and f.strongest and not f.before]
    loud = [f for f in counted if f.left is not None and f.left >= LEFT and f.low > 0]
    if loud:
        return QUIET, sorted(loud, key=lambda f: -(f.left or 0))
    low = [
        f
        for f in found
        if f.applies
        and f.kind == "membership"
        and not f.before
        and f.high < 0
        and f.oracle - f.edited >= MARGIN
    ]
    return (OVER, low) if low else (GONE, [])


def audit(
    session: Session,
    request: Request,
    edit: Edit,
    oracle: Edit | None = None,
    sham: Edit | None = None,
) -> list[Finding]:
    """Examine an edit between the model as it is and one that never met the forgotten.

    Args:
        oracle: as an edit of the same model. Without one the model is asked about strangers in
            its place, and what would have to be trained into it is left out.
        sham: the same edit, made for other people; it is not attacked.

    Raises:
        ValueError: without an oracle, questions that cannot be asked about anybody else.
    """
    nothing, _ = make_edit(session, request, Vanilla())
    rows = {
        "vanilla": examine(session, request, nothing),
        "edited": examine(session, request, edit),
    }
    if oracle is None:
        met = replace(
            request, forget=substitute_subject(request.forget, counterfactual_people(request))
        )
        rows["oracle"] = examine(
            session, met, nothing, (n for n in reading() if not PROBES[n].before)
        )
    else:
        rows["oracle"] = examine(session, request, oracle)
    if sham is not None:
        rows["sham"] = examine(session, request, sham, reading())
    return judge(rows)


def table(found: Iterable[Finding]) -> str:
    """What an audit found, one line a probe, of several settings the strongest."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    lines = [
        [
            f.label,
            *map(number, (f.vanilla, f.oracle, f.edited, f.sham)),
            number(f.left) if f.applies else "n/a",
            number(f.recovered),
            number(f.again),
        ]
        for f in found
        if f.strongest
    ]
    head = ["probe", "vanilla", "oracle", "edited", "sham", "left"]
    return text_table([*head, "brought back", "of the oracle"], lines)
