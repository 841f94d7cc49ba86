"""Verdicts of the audit from stored rows: one group, several groups together, several draws."""

from collections.abc import Iterable, Sequence

import pandas as pd

from kvw_minimal.audit import Finding, judge, verdict
from kvw_minimal.audit.findings import GONE, NOT_FORGOTTEN, OVER, QUIET, UNDECIDED
from kvw_minimal.audit.probes import MEMBERSHIP, RELEARNING, probe_of

from .runner import stored_rows

LAYERWISE = "layerwise rewrite"
WORDS = (GONE, UNDECIDED, OVER, QUIET, NOT_FORGOTTEN)
QUESTIONS = ["set", "modality", "person", "score_sum", "n"]
#: probes by words whose score is computed from the probabilities of given answers
BY_PROBABILITY = {"among four", "among all values", "true or false"}


def audit_rows(part: str) -> pd.DataFrame:
    """The stored rows of a list of the audit, with a label for each edit."""
    return stored_rows("audit", part)


def judged(
    rows: pd.DataFrame, label: str, reference: pd.DataFrame, groups: Sequence[str]
) -> list[Finding]:
    """Findings on an edit, from the people of all `groups` together.

    Args:
        rows: rows with the edit under `label`.
        reference: rows with vanilla and the oracles.

    Raises:
        ValueError: a condition was not measured on one of the groups.
    """

    def of(frame: pd.DataFrame, name: str, sham: bool = False) -> list[dict]:
        selected = frame[(frame["label"] == name) & frame["group"].isin(groups)]
        selected = selected[(selected["condition"] == "sham") == sham]
        missing = set(groups) - set(selected["group"])
        if missing and not sham:
            raise ValueError(f"{name} was not audited on {', '.join(sorted(missing))}")
        return selected[QUESTIONS].astype({"set": str}).to_dict("records")

    conditions = {
        "vanilla": of(reference, "vanilla"),
        "oracle": of(reference, "oracle"),
        "edited": of(rows, label),
        "sham": of(rows, label, sham=True),
    }
    return judge(
        {name: records for name, records in conditions.items() if records or name != "sham"}
    )


def nearest(findings: Iterable[Finding]) -> Finding:
    """The finding that comes nearest to a conviction: the largest share left that counts."""
    counted = [f for f in findings if f.used]
    return max(counted, key=lambda finding: finding.left or 0.0)


def over_draws(
    edits: Sequence[tuple[pd.DataFrame, str]], reference: pd.DataFrame, groups: Sequence[str]
) -> pd.DataFrame:
    """Verdicts on each group, and on the people of all groups together, over several edits.

    Args:
        edits: rows, and the label in them: the same edit with other draws of strangers.
        reference: rows with vanilla and the oracles.

    Returns:
        One row for each group, the last `together`: how many edits have each verdict that occurs;
        of the edit that comes nearest to a conviction its probe, its share left and what one
        answer adds.
    """
    records = {}
    for name, members in [*((group, [group]) for group in groups), ("together", groups)]:
        findings = [judged(rows, label, reference, members) for rows, label in edits]
        given = [verdict(of_one)[0] for of_one in findings]
        closest = max(map(nearest, findings), key=lambda finding: finding.left or 0.0)
        records[name] = {word.partition(" as ")[0]: given.count(word) for word in WORDS} | {
            "nearest to a conviction": closest.label,
            "left": closest.left,
            "one answer": closest.resolution,
        }
    counted = pd.DataFrame.from_dict(records, orient="index").rename_axis("group")
    return counted.loc[:, (counted != 0).any()]


def layerwise_over_draws() -> pd.DataFrame:
    """`over_draws` of the layerwise rewrite: ten draws of strangers, on every group."""
    rows, draws = audit_rows(LAYERWISE), audit_rows("draws")
    others = [(draws, str(label)) for label in draws["label"].unique()]
    return over_draws([(rows, LAYERWISE), *others], rows, with_oracle(rows))


def with_oracle(rows: pd.DataFrame) -> list[str]:
    """The groups on which an oracle was audited."""
    return sorted(set(rows[rows["label"] == "oracle"]["group"]))


def by_probe(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The finding of each probe at the setting that counts."""
    return {probe_of(f.label).name: f for f in findings if f.strongest and f.applies}


def attacker_has(label: str) -> str:
    """What an attacker must have for a probe: text only, probabilities, the weights or vanilla."""
    probe = probe_of(label)
    if probe.before:
        return "vanilla, too"
    if probe.kind in ("inside", RELEARNING):
        return "the weights"
    if probe.kind == MEMBERSHIP or probe.name in BY_PROBABILITY:
        return "probabilities"
    return "text only"
