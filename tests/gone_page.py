"""Write the tables of `book/gone.md` from the stored rows: `python tests/write_pages.py`."""

from collections.abc import Sequence

import pandas as pd
from package_page import ROOT, filled
from rich.box import MARKDOWN

from kvw_experiments.runner import stored_rows
from kvw_experiments.summaries import mean_of_modalities
from kvw_experiments.verdicts import audit_rows, by_probe, judged, layerwise_over_draws, with_oracle
from kvw_minimal.results import text_table

PAGE = ROOT / "book" / "gone.md"
METHOD = "layerwise rewrite"
ALONE = ("layerwise-rewrite", "methods")
PROMISES = "layerwise-promises"
SETS = {
    "forget": "as taught",
    "test": "new photo and words",
    "cloze": "statements",
    "retain": "others",
    "kept anew": "others, new photo and words",
    "general": "portraits of nobody",
}
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
    rows, shams = stored_rows(*ALONE), stored_rows(PROMISES, "shams")
    edited = rows[rows["condition"] != "sham"]
    shams = shams[shams["condition"] == "sham"]
    draws = shams["draw"].nunique()
    return exact_match(
        {
            "vanilla": edited[edited["label"] == "vanilla"],
            "the layerwise rewrite": edited[edited["label"] == METHOD],
            f"its sham, {draws} draws a group": shams,
        }
    )


def exact_match(rows_of_line: dict[str, pd.DataFrame]) -> list[str]:
    """A table of exact match on each set; a dash where the set was not read."""
    lines = [
        [
            name,
            *(
                f"{mean_of_modalities(rows, part):.2f}" if part in set(rows["set"]) else "\u2013"
                for part in SETS
            ),
        ]
        for name, rows in rows_of_line.items()
    ]
    return table(["exact match", *SETS.values()], lines)


def sequences() -> list[str]:
    """The same for ten people, for 25 together, and in requests of five."""
    rows, ten = (stored_rows("layerwise-rewrite", name) for name in ("sequences", "methods, 10 %"))
    edited, shams = rows[rows["condition"] != "sham"], rows[rows["condition"] == "sham"]
    ten = ten[(ten["label"] == METHOD) & (ten["condition"] != "sham")]
    by_label = dict(iter(edited.groupby("label", sort=False, observed=True)))
    return exact_match({"ten at once": ten} | by_label | {"sham of 25 at once": shams})


def of_one_person() -> list[str]:
    """How many answers about each forgotten person are true of one retained person."""
    rows = stored_rows(PROMISES, "said of others")
    rows = rows[rows["metric"] == "of_one"]
    lines = []
    for name, label, groups in (
        ("group A, vanilla", "vanilla", "A"),
        ("group A, edited", METHOD, "A"),
        ("group A, oracle", "oracle", "A"),
        ("groups B to E, vanilla", "vanilla", "BCDE"),
        ("groups B to E, edited", METHOD, "BCDE"),
    ):
        own = rows[(rows["label"] == label) & rows["group"].isin(list(groups))]
        shares = own.groupby("modality", observed=True)["score_sum"].mean()
        lines.append([name, *(f"{shares[modality]:.2f}" for modality in ("image", "text"))])
    return table(["answers that are true of one retained person", "by photo", "by name"], lines)


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
    """The page with its tables."""
    tables = (prices(), groups(), attacks(), sequences(), of_one_person())
    return filled(PAGE, ["", *(line for lines in tables for line in [*lines, ""])])
