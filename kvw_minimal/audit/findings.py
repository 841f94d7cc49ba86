"""A verdict from the results of the probes, by a stated rule: quiet, or gone as far as they see."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..bootstrap import interval
from ..edits import Edit
from ..forget_request import Request
from ..method import make_edit
from ..methods.controls import Vanilla
from ..methods.counterfactuals import counterfactual_people, substitute_subject
from ..results import LEFT, text_table
from ..session import Session
from .probes import (
    MEMBERSHIP,
    PROBES,
    RELEARNING,
    control_label,
    examine,
    probe_of,
    quick,
    reading,
    unseen,
)
from .prompting_probes import AS_TAUGHT

MARGIN = 0.2  # the smallest lead of vanilla over the oracle with which a probe can show anything
#: the largest rise of the oracle under an attack (a larger one means that the attack teaches the
#: answers), and the largest fall of vanilla (a larger one means that it destroys the answers)
CHANCE = 0.1
QUIET, OVER, GONE = "quiet", "over-unlearned", "gone as far as these probes see"
UNDECIDED, NOT_FORGOTTEN = "not decided", "not forgotten"


@dataclass(frozen=True)
class Finding:
    """Result of a probe at one setting. Means are over people, in both modalities.

    Attributes:
        label: probe and setting; `kind`: kind of the probe; `before`: as in `Probe`.
        vanilla, oracle, edited, sham: mean score under each condition, in [0, 1]; `sham` is None
            if no sham was given.
        low, high: 95 % interval of edited - oracle over people; None if there is one person.
        left: (edited - oracle) / (vanilla - oracle); None if the probe does not apply.
        resolution: the change of `left` by one answer; None if the probe does not apply.
        recovered: (attack - edited) / (vanilla - edited), the share of the lost knowledge that an
            attack recovers; None if the probe is no attack or does not apply, or if nothing was
            lost.
        again: the same share for the oracle.
        fair: whether vanilla knows the answers, an attack changes neither the oracle nor vanilla,
            and the control of the probe does not rise. A finding that is not fair does not count
            in the verdict. The finding of a control is never fair.
        strongest: whether this setting counts: among the fair settings of a probe, the one with
            the highest score of the edited model.
    """

    label: str
    kind: str
    before: bool
    vanilla: float
    oracle: float
    edited: float
    sham: float | None
    low: float | None
    high: float | None
    left: float | None
    resolution: float | None
    recovered: float | None
    again: float | None
    fair: bool = True
    strongest: bool = True

    @property
    def applies(self) -> bool:
        return self.left is not None

    @property
    def used(self) -> bool:
        """Whether the verdict uses the probe, at this setting."""
        return self.fair and self.strongest and not self.before

    @property
    def counts(self) -> bool:
        """Whether the verdict may rest on it; about one person the mean alone decides."""
        return self.used and (self.low is None or self.low > 0)


NOT_USED = "not used in the verdict:"  # the line of a table above such probes
#: mean score and number of answers, `{label: {(person, modality): (mean, n)}}`
Known = dict[str, dict[tuple[str, str], tuple[float, int]]]


def known(rows: Iterable[Mapping]) -> Known:
    """Means and numbers of answers by label, person and modality."""
    means: Known = {}
    for row in rows:
        means.setdefault(row["set"], {})[row["person"], row["modality"]] = (
            row["score_sum"] / row["n"],
            int(row["n"]),
        )
    return means


def judge(rows: Mapping[str, Iterable[Mapping]]) -> list[Finding]:
    """Computes one finding for each probe and setting, from the rows that `examine` returns.

    Args:
        rows: rows under `vanilla`, `oracle`, `edited` and, optionally, `sham`.

    Raises:
        ValueError: a condition is missing, or its questions are about other people.
    """
    missing = {"vanilla", "oracle", "edited"} - set(rows)
    if missing:
        raise ValueError(f"an audit needs vanilla, oracle and edited, not only {sorted(rows)}")
    means = {condition: known(condition_rows) for condition, condition_rows in rows.items()}
    findings = [
        _finding(label, means)
        for label, values in means["edited"].items()
        if values and label in means["oracle"]
    ]
    return [_marked(finding, findings) for finding in findings]


def _finding(label: str, means: Mapping[str, Known]) -> Finding:
    probe, keys = probe_of(label), list(means["edited"][label])

    def values_of(condition: str, name: str = label) -> np.ndarray:
        label_means = means[condition].get(name) or means[condition].get(
            probe.beside, {}
        )  # an attack that undoes the edit has no rows for vanilla
        if set(keys) - set(label_means):
            raise ValueError(f"{name!r} of {condition} was asked about other people")
        return np.array([label_means[key][0] for key in keys])

    def rise(name: str) -> tuple[float, float, float]:
        """The mean of edited - oracle, and its interval over people."""
        difference = values_of("edited", name) - values_of("oracle", name)
        return interval(difference, [person for person, _ in keys])

    values = {
        condition: values_of(condition)
        for condition in means
        if condition != "sham" or label in means[condition]
    }
    average = {condition: float(value.mean()) for condition, value in values.items()}
    baseline = {
        condition: float(values_of(condition, probe.beside or label).mean())
        for condition in ("vanilla", "oracle", "edited")
    }
    _, *ends = rise(label)
    low, high = ends if len({person for person, _ in keys}) > 1 else (None, None)
    gap = average["vanilla"] - average["oracle"]
    share_left, resolution, shares = None, None, dict.fromkeys(("edited", "oracle"))
    if gap >= MARGIN and not probe.control_of:
        share_left = (average["edited"] - average["oracle"]) / gap
        fewest = min(n for _, n in means["edited"][label].values())
        resolution = 1 / (fewest * len(keys)) / gap
        for condition in shares if probe.beside else ():
            lost = average["vanilla"] - baseline[condition]
            shares[condition] = (
                (average[condition] - baseline[condition]) / lost if lost >= CHANCE else None
            )
    control = control_label(label)
    control_rise, control_low, _ = rise(control) if control in means["edited"] else (0.0, 0.0, 0.0)
    fair = (
        share_left is not None
        and not (control_low > 0 and control_rise >= LEFT * gap)
        and (
            probe.kind != RELEARNING
            or (
                average["oracle"] - baseline["oracle"] <= CHANCE
                and baseline["vanilla"] - average["vanilla"] <= CHANCE
            )
        )
    )
    return Finding(
        label,
        probe.kind,
        probe.before,
        average["vanilla"],
        average["oracle"],
        average["edited"],
        average.get("sham"),
        low,
        high,
        share_left,
        resolution,
        shares["edited"],
        shares["oracle"],
        fair,
    )


def _marked(finding: Finding, findings: list[Finding]) -> Finding:
    """The finding, with `strongest` set if it is the strongest fair setting of its probe."""
    name = probe_of(finding.label).name
    settings = [other for other in findings if probe_of(other.label).name == name]
    best = max([f for f in settings if f.fair] or settings, key=lambda f: f.edited)
    return replace(finding, strongest=finding == best)


def verdict(findings: Iterable[Finding]) -> tuple[str, list[Finding]]:
    """Verdict on an edit, and the findings on which it rests.

    *Quiet*: a probe that uses the edited model alone recovers more than `LEFT` of the gap between
    oracle and vanilla, by at least one answer, and the interval of edited - oracle lies above 0.
    *Not forgotten*: the question as it was taught is such a probe: nothing is hidden yet.
    *Not decided*: no probe does, but one is within one answer of it. *Over-unlearned*: in a
    membership probe the true answer is less likely than for strangers. Otherwise *gone as far as
    these probes see*. No verdict says *erased*.
    """
    findings = list(findings)
    counted = [f for f in findings if f.counts]

    def beyond(finding: Finding, answers: int) -> bool:
        return (finding.left or 0) >= LEFT + answers * (finding.resolution or 0)

    for word, answers in ((QUIET, 1), (UNDECIDED, -1)):
        loud = [finding for finding in counted if beyond(finding, answers)]
        loud.sort(key=lambda f: (f.label != AS_TAUGHT, -(f.left or 0)))
        if loud:
            as_taught = word == QUIET and loud[0].label == AS_TAUGHT
            return NOT_FORGOTTEN if as_taught else word, loud
    unlikely = [
        f
        for f in findings
        if f.applies
        and f.kind == MEMBERSHIP
        and not f.before
        and (f.high is None or f.high < 0)
        and f.oracle - f.edited >= MARGIN
    ]
    return (OVER, unlikely) if unlikely else (GONE, [])


def audit_rows(
    session: Session,
    request: Request,
    edit: Edit,
    oracle: Edit | None = None,
    sham: Edit | None = None,
    long: bool = False,
    watch: Callable[[int, str], object] = unseen,
    references: Mapping[str, list[dict]] | None = None,
) -> dict[str, list[dict]]:
    """Runs all probes on an edit, on the unedited model and on an oracle.

    Args:
        long: whether to run the probes that take many minutes, too (`Probe.long`).
        oracle: the oracle, as an edit of the same model. Without it, the unedited model answers
            the same questions about counterfactual people; attacks by training, membership and
            probes that need the unedited model are left out.
        sham: the same edit, made for other people. No attack is run on it.
        watch: called before each probe with the number of all, and with condition and name.
        references: rows under `vanilla` and `oracle` of an earlier audit of the same models and
            request. Then these two are only asked as taught, and must answer as they did.

    Returns:
        Rows as `examine` returns, under `vanilla`, `oracle`, `edited` and, with a sham, `sham`.

    Raises:
        ValueError: no oracle is given, and the questions cannot be asked about other people;
            or `references` answered otherwise.
    """
    references = references or {}
    unedited, _ = make_edit(session, request, Vanilla())
    if oracle is None:
        people = counterfactual_people(request)
        others = replace(request, forget=substitute_subject(request.forget, people))
        # strangers are no reference for membership: it is another for an oracle of these people
        names = [
            name
            for name in reading()
            if not PROBES[name].before and PROBES[name].kind != MEMBERSHIP
        ]
        reference = (others, unedited, names)
    else:
        names = list(PROBES) if long else quick()
        reference = (request, oracle, names)
    conditions = {
        "vanilla": (request, unedited, names),
        "oracle": reference,
        "edited": (request, edit, names),
    }
    if sham is not None:
        conditions["sham"] = (request, sham, reading())
    conditions |= {name: (*conditions[name][:2], [AS_TAUGHT]) for name in references}
    steps = sum(len(probes) for _, _, probes in conditions.values())

    def told(condition: str, name: str) -> None:
        watch(steps, f"{condition}, {name}")

    rows = dict[str, list[dict]]()
    for condition, given in conditions.items():
        rows[condition] = examine(session, *given, partial(told, condition))
        if condition in references:  # the references come first: a wrong file costs seconds
            _check_same_answers(condition, rows[condition], references[condition])
            rows[condition] = references[condition]
    return rows


def _check_same_answers(condition: str, rows: list[dict], earlier: list[dict]) -> None:
    """Refuses earlier rows if more than one answer about a person differs.

    Processors round differently, so that a single answer may flip.
    """
    now, before = known(rows)[AS_TAUGHT], known(earlier).get(AS_TAUGHT, {})
    if now.keys() != before.keys() or any(
        n != before[key][1] or abs(mean - before[key][0]) * n > 1.01
        for key, (mean, n) in now.items()
    ):
        raise ValueError(
            f"the references are of another audit: {condition} answers otherwise than it did there"
        )


def audit(
    session: Session,
    request: Request,
    edit: Edit,
    oracle: Edit | None = None,
    sham: Edit | None = None,
    long: bool = False,
    watch: Callable[[int, str], object] = unseen,
) -> list[Finding]:
    """Runs all probes on an edit, and judges it; arguments and errors as `audit_rows`."""
    return judge(audit_rows(session, request, edit, oracle, sham, long, watch))


def findings_table(findings: Iterable[Finding], reference: str = "oracle") -> str:
    """Text table of an audit: one line for each probe, at its strongest setting.

    The probes that the verdict uses come first, those that find most at the top.

    Args:
        reference: what stands in the column of the oracle; *strangers* if no oracle was given.
    """

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def line(f: Finding) -> list[str]:
        return [
            f.label,
            *map(number, (f.vanilla, f.oracle, f.edited, f.sham)),
            number(f.left) if f.applies else "n/a",
            number(f.recovered),
            number(f.again),
        ]

    shown = [f for f in findings if f.strongest]
    used = sorted((f for f in shown if f.used), key=lambda f: -1 if f.left is None else f.left)
    unused = [line(f) for f in shown if not f.used]
    head = ["probe", "vanilla", reference, "edited", "sham", "left"]
    lines = [*map(line, reversed(used)), *([[NOT_USED]] if unused else []), *unused]
    return text_table([*head, "brought back", f"of the {reference}"], lines)
