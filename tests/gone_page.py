"""Write the tables of `book/gone.md` from the stored rows: `python tests/write_pages.py`."""

from collections.abc import Sequence

from package_page import ROOT, filled
from rich.box import MARKDOWN

from kvw_experiments.runner import stored_rows
from kvw_experiments.summaries import mean_of_modalities
from kvw_experiments.verdicts import audit_rows, by_probe, judged, layerwise_over_draws, with_oracle
from kvw_minimal.results import text_table

PAGE = ROOT / "book" / "gone.md"
METHOD = "layerwise rewrite"
#: probe of the audit, and what an attacker needs for it
ATTACKS = {
    "as taught": "a question",
    "another set": "other words, another photo",
    "20 samples": "twenty draws",
    "among all values": "the list of all values",
    "membership, new strangers": "likelihoods, and strangers to compare with",
    "logit lens": "the weights",
    "linear probe": "the weights, and people who are kept",
    "prototypes": "the weights, and the answers in the other modality",
    "relearning others": "the weights, and training on people who are kept",
    "relearning two": "the weights, and two of the forgotten to train on",
    "last FFN retrained": "the weights, and the last FFN trained anew on people who are kept",
}


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return text_table(head, lines, box=MARKDOWN).strip().splitlines()


def prices() -> list[str]:
    """What is forgotten and what others keep, on all report groups."""
    rows = stored_rows("layerwise-rewrite", "methods")
    lines = []
    for name, label, sham in (
        ("vanilla", "vanilla", False),
        ("the layerwise rewrite", METHOD, False),
        ("its sham, five draws a group", METHOD, True),
    ):
        own = rows[(rows["label"] == label) & ((rows["condition"] == "sham") == sham)]
        read = set(own["set"])
        sets = ("forget", "test", "cloze", "retain", "kept anew", "general")
        lines.append(
            [
                name,
                *(f"{mean_of_modalities(own, part):.2f}" if part in read else "" for part in sets),
            ]
        )
    head = ["exact match", "as taught", "new photo and words", "statements", "others"]
    return table([*head, "others, new photo and words", "portraits of nobody"], lines)


def attacks() -> list[str]:
    """Each attack beside the oracle, people of all audited groups together."""
    rows = audit_rows(METHOD)
    findings = judged(rows, METHOD, rows, with_oracle(rows))
    strongest = by_probe(findings)
    lines = [
        [
            finding.label,
            needs,
            *(f"{value:.2f}" for value in (finding.vanilla, finding.oracle, finding.edited)),
            f"{finding.left or 0:.2f}",
        ]
        for name, needs in ATTACKS.items()
        if (finding := strongest.get(name)) is not None
    ]
    return table(["probe", "it takes", "vanilla", "oracle", "edited", "left"], lines)


def groups() -> list[str]:
    """The verdicts on each group and on all groups together, over all draws of strangers."""
    counted = layerwise_over_draws().reset_index()
    lines = [
        [f"{value:.2f}" if isinstance(value, float) else str(value) for value in row]
        for row in counted.drop(columns="one answer").itertuples(index=False)
    ]
    return table([str(name) for name in counted.columns[:-1]], lines)


def page() -> str:
    """The page with its three tables."""
    return filled(PAGE, ["", *prices(), "", *groups(), "", *attacks(), ""])
