"""Tables of chapter 13: what the probes find after each edit of group A, from stored rows.

The rows are made by `python -m kvw_minimal book run audit`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from kvw_experiments.plans import plan_of
from kvw_experiments.results_store import read_rows
from kvw_experiments.runner import labelled, stored_rows
from kvw_experiments.verdicts import LAYERWISE, attacker_has, audit_rows, by_probe, judged
from kvw_minimal.audit import Finding, judge, verdict
from kvw_minimal.audit.probes import RELEARNING, probe_of
from kvw_minimal.audit.prompting_probes import MOST
from kvw_minimal.forget_request import Request
from kvw_minimal.questions import Question
from kvw_minimal.scores import read_answers
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import PeopleDataset

FULL, ONLY = LAYERWISE, "layerwise rewrite, answers only"
TAUGHT, RETRAINED = "as taught", "last FFN retrained: 60 steps"
WITHOUT_EDIT = ("vanilla", "oracle")
ATTACKERS = ("text only", "probabilities", "the weights")
#: what the chapter calls a probe, or one of its settings
NAMES = {
    "another set: cloze": "statement to fill in",
    "another set": "new words and photo",
    "beginning given": "first token given",
    "20 samples": "twenty draws",
    "among four": "likeliest of four",
    "among all values": "rank",
    "last FFN retrained": "last matrix retrained",
}
Findings = dict[str, list[Finding]]


def rows_of_group_a() -> tuple[pd.DataFrame, dict]:
    """The stored rows of every edit of group A, and what they were made with."""
    plan = plan_of("audit")
    rows, made = read_rows("audit")
    rows = labelled(plan, "methods", rows, plan.groups, made["impossible"])
    layered, only = audit_rows(FULL), audit_rows("last FFN retrained")
    layered = layered[(layered["label"] == FULL) & (layered["group"] == "A")]
    return pd.concat([rows, layered, only[only["label"] == ONLY]]), made


def rows_under(rows: pd.DataFrame, label: str, sham: bool = False) -> list[dict]:
    """The rows of one edit, or of its sham."""
    return rows[(rows["label"] == label) & ((rows["condition"] == "sham") == sham)].to_dict(
        "records"
    )


def findings_of(rows: pd.DataFrame) -> Findings:
    """The findings on each edit of `rows`, between vanilla and the oracle of the same rows."""
    references = {name: rows_under(rows, name) for name in WITHOUT_EDIT}
    by_edit = {}
    for label in rows["label"].unique():
        if label not in WITHOUT_EDIT:
            sham = rows_under(rows, label, sham=True)
            by_edit[label] = judge(
                references | {"edited": rows_under(rows, label)} | ({"sham": sham} if sham else {})
            )
    return by_edit


def at(findings: Iterable[Finding], label: str) -> Finding:
    """The finding of one probe at one setting.

    Raises:
        KeyError: the probe was not asked.
    """
    return {finding.label: finding for finding in findings}[label]


def name_of(label: str) -> str:
    """What the chapter calls the probe of a label."""
    probe = probe_of(label).name
    return NAMES.get(label) or NAMES.get(probe, probe)


def beside_references(
    by_edit: Findings, probes: Mapping[str, str], edits: Sequence[str]
) -> pd.DataFrame:
    """One row for each probe: vanilla, the oracle and each edit.

    Args:
        probes: `{row: label of the probe}`.
    """
    rows = {}
    for name, label in probes.items():
        first = at(by_edit[edits[0]], label)
        rows[name] = {"vanilla": first.vanilla, "oracle": first.oracle} | {
            edit: at(by_edit[edit], label).edited for edit in edits
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("probe")


def largest(findings: Iterable[Finding], kind: Callable[[Finding], bool]) -> Finding:
    """Of the findings that count and are of a kind, the one with the largest share left."""
    counted = [f for f in by_probe(findings).values() if f.fair and not f.before and kind(f)]
    return max(counted, key=lambda f: f.left or 0.0)


def most_with(findings: Iterable[Finding], attacker: str) -> Finding | None:
    """The most that an attacker finds, of what counts in the verdict; None if that is nothing.

    Args:
        attacker: what the attacker has, as `attacker_has` names it.
    """
    counted = [finding for finding in by_probe(findings).values() if finding.counts]
    open_to = [finding for finding in counted if attacker_has(finding.label) == attacker]
    return max(open_to, key=lambda finding: finding.left or 0.0, default=None)


def by_attacker(by_edit: Findings, edits: Sequence[str]) -> pd.DataFrame:
    """What each edit says, and the most that each attacker finds, with the probe: a row an edit."""
    rows = {}
    for edit in edits:
        findings = by_edit[edit]
        plain, most = at(findings, TAUGHT), {name: most_with(findings, name) for name in ATTACKERS}
        rows[edit] = (
            {"as taught": plain.edited, "its sham": plain.sham}
            | {
                name: finding and f"{finding.left:.2f} {name_of(finding.label)}"
                for name, finding in most.items()
            }
            | {"verdict": verdict(findings)[0]}
        )
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("edit")


def shares_left(by_edit: Findings, edits: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """`[probes, edits]` share left at the setting that counts, cut off to 0 and 1."""
    shares = {
        label: {name: f.left for name, f in by_probe(by_edit[label]).items()} for label in edits
    }
    table = [[shares[label].get(name, np.nan) for label in edits] for name in names]
    return np.array(table, dtype=float).clip(0, 1)


def worked(by_edit: Findings, cases: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """What a verdict rests on: one row for each edit and label of a probe."""
    rows = []
    for edit, label in cases:
        finding = at(by_edit[edit], label)
        numbers = ("vanilla", "oracle", "edited", "low", "left", "resolution")
        rows.append(
            {"edit": edit, "probe": name_of(label)}
            | {name: getattr(finding, name) for name in numbers}
        )
    return pd.DataFrame(rows).set_index("edit").rename(columns={"resolution": "one answer"})


def retrained(by_edit: Findings, edits: Sequence[str]) -> pd.DataFrame:
    """Exact match before and after the last FFN is trained again, references first."""
    before, after = (at(by_edit[edits[0]], label) for label in (TAUGHT, RETRAINED))
    rows = {name: (getattr(before, name), getattr(after, name)) for name in WITHOUT_EDIT}
    rows |= {
        label: (at(by_edit[label], TAUGHT).edited, at(by_edit[label], RETRAINED).edited)
        for label in edits
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["as taught", "after"]).rename_axis(
        "edit"
    )


def by_layer(by_edit: Findings, edits: Sequence[str]) -> pd.DataFrame:
    """What the head reads behind each layer, as rows for `figures.lines`.

    Behind the last layer that is the answer of the model itself.
    """
    lens = [f.label for f in by_edit[edits[0]] if probe_of(f.label).name == "logit lens"]
    table = beside_references(by_edit, {label: label for label in [*lens, TAUGHT]}, edits)
    table.index = pd.Index(map(str, range(len(table))), name="read behind layer")
    return table.reset_index().melt(
        "read behind layer", var_name="model", value_name="share of answers"
    )


def rank_by_rarity(session: Session, request: Request, world: PeopleDataset) -> pd.DataFrame:
    """How a model ranks values that more and fewer of the retained people have.

    The values are those of the probe *among all values*: `MOST` of a fact, first of the people to
    forget.

    Returns:
        One row for each kind of value: how many retained people have it (mean), and its rank, from
        0 (always the least likely) to 1 (always the likeliest).
    """
    facts = pd.DataFrame(
        [{"name": person.name} | person.facts for person in world.people.values()],
        index=list(world.people),
    )
    forgotten, retained = facts.loc[list(request.people)], facts.drop(list(request.people))
    pairs = [
        (question, value)
        for question in request.forget
        for value in pd.concat([forgotten, retained])[question.fact].unique()[:MOST]
    ]
    read = read_answers(
        session.model,
        session.processor,
        [question for question, _ in pairs],
        [question.answer.replace(question.value, value) for question, value in pairs],
    )

    def kind_of(question: Question, value: str) -> str:
        if question.fact == "name":
            return "own name" if value == question.value else ""
        if value == question.value:
            return "own value"
        of_another = value in set(forgotten[question.fact])
        return "value of another of the five" if of_another else "value of others only"

    table = pd.DataFrame(
        {
            "question": [str(question.id) for question, _ in pairs],
            "value": [kind_of(question, value) for question, value in pairs],
            "people who have it": [
                (retained[question.fact] == value).sum() for question, value in pairs
            ],
            "logprob": read.logprob,
        }
    )
    ranks = table.groupby("question")["logprob"].rank(method="max")
    counts = table.groupby("question")["logprob"].transform("size")
    table["rank"] = (ranks - 1) / (counts - 1)
    kinds = table[table["value"] != ""].groupby("value")
    return kinds[["people who have it", "rank"]].mean().sort_values("rank", ascending=False)


def on_smol() -> pd.DataFrame:
    """The audit of `smol`: one row for each edit."""
    lines = {}
    for label, findings in findings_of(audit_rows("on smol")).items():
        look = largest(findings, lambda f: f.label != TAUGHT)
        lines[label] = {
            "as taught": at(findings, TAUGHT).edited,
            "finds most": name_of(look.label),
            "left": look.left,
            "verdict": verdict(findings)[0],
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("edit")


# --- the kin of the layerwise rewrite ------------------------------------------------------------


def findings_of_kin() -> Findings:
    """The findings on the kin of the layerwise rewrite, between the references of group A."""
    layered, kin = audit_rows(FULL), audit_rows("kin")
    return {label: judged(kin, label, layered, ["A"]) for label in kin["label"].unique()}


def what_others_keep() -> pd.DataFrame:
    """Exact match on group A: what others keep, on new photos, too, and what the sham leaves."""
    rows = pd.concat([stored_rows("layerwise-rewrite", part, ["A"]) for part in ("methods", "kin")])
    rows = rows[rows["metric"] == "exact_match"].astype({"condition": str, "set": str})
    sums = rows.groupby(["label", "condition", "set"])[["score_sum", "n"]].sum()
    means = (sums["score_sum"].astype(float) / sums["n"]).unstack(["condition", "set"])
    columns = {
        "others": ("edited", "retain"),
        "others, new photos": ("edited", "kept anew"),
        "its sham": ("sham", "forget"),
    }
    return pd.DataFrame({name: means[column] for name, column in columns.items()})


def kin_table(by_edit: Findings) -> pd.DataFrame:
    """One row for each kin: what is said and kept, what finds most, and the verdict."""
    rows = {}
    for label, findings in by_edit.items():
        look = largest(findings, lambda finding: finding.label != TAUGHT)
        rows[label] = {
            "as taught": at(findings, TAUGHT).edited,
            "finds most": probe_of(look.label).name,
            "left": look.left,
            "verdict": verdict(findings)[0],
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("target, price or training")
    return table.join(what_others_keep())[
        ["as taught", "others", "others, new photos", "its sham", "finds most", "left", "verdict"]
    ]


def said_and_inside(by_edit: Findings) -> pd.DataFrame:
    """What each edit says, and the most that a probe with the weights finds, from 0 to 1.

    Probes count that every edit was asked: those that read states or change weights.
    """
    inside = {
        label: {
            name: finding
            for name, finding in by_probe(findings).items()
            if finding.kind in ("inside", RELEARNING) and finding.fair and not finding.before
        }
        for label, findings in by_edit.items()
    }
    common = set.intersection(*({*probes} for probes in inside.values()))
    rows = {
        label: {
            "said": at(by_edit[label], TAUGHT).edited,
            "inside": max(probes[name].left or 0.0 for name in common),
        }
        for label, probes in inside.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").clip(0, 1)
