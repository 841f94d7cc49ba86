"""Verdicts of the audit from stored rows: one group, several groups together, several draws."""

from collections.abc import Iterable, Sequence

import pandas as pd

from kvw_minimal.audit import Finding, judge, verdict
from kvw_minimal.audit.probes import MEMBERSHIP, RELEARNING, probe_of

from .runner import stored_rows

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
    counted = [f for f in findings if f.fair and f.strongest and not f.before]
    return max(counted, key=lambda finding: finding.left or 0.0)


def verdicts(
    rows: pd.DataFrame, reference: pd.DataFrame, labels: Iterable[str], groups: Sequence[str]
) -> pd.DataFrame:
    """One row for each edit and group: the verdict, and what came nearest to a conviction."""
    records = []
    for label in labels:
        for group in groups:
            findings = judged(rows, label, reference, [group])
            word, because = verdict(findings)
            decisive = because[0] if because else nearest(findings)
            records.append(
                {
                    "edit": label,
                    "group": group,
                    "verdict": word,
                    "probe": decisive.label,
                    "left": decisive.left,
                    "resolution": decisive.resolution,
                }
            )
    return pd.DataFrame(records)


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
