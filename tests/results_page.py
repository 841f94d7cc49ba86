"""Write the figure of `book/results.md` from the stored rows: `python tests/write_pages.py`."""

from functools import cache

import pandas as pd
from package_page import ROOT, filled

from kvw_experiments.drawings import Drawing, left_beside_sham
from kvw_experiments.runner import stored_rows
from kvw_experiments.summaries import mean_of_modalities

PAGE = ROOT / "book" / "results.md"
FIGURE = ROOT / "book" / "_static" / "left_and_kept.svg"
REPLICATION, SHAMS = ("replication-pocket", "methods"), ("layerwise-promises", "shams")
BEYOND = ("replication-pocket", "beyond the gate")
#: name in the figure; label of the stored rows, their experiment and list, and those of its sham
MODELS = {
    "before any edit": ("vanilla", REPLICATION, None),
    "KVW": ("KVW one pass", REPLICATION, REPLICATION),
    "LLM Surgery": ("LLM Surgery", REPLICATION, REPLICATION),
    "least squares": ("least squares", BEYOND, BEYOND),
    "last-layer rewrite": ("rewrite", BEYOND, BEYOND),
    "layerwise rewrite": ("layerwise rewrite", ("layerwise-rewrite", "methods"), SHAMS),
    "oracle": ("oracle", REPLICATION, None),
}
CAPTION = (
    "What each method leaves of the answers about the five, and keeps of those about everyone "
    "else: five groups, photos and names together (the [first page](index.md) has group A alone, "
    "of which KVW leaves {left:.2f}). Both rewrites come to the oracle and spare the others; LLM "
    "Surgery does not spare them, and KVW leaves more than half."
)


def of(place: tuple[str, str], label: str, sham: bool) -> pd.DataFrame:
    """Stored rows of a model, or of the shams of its method."""
    rows = stored_rows(*place)
    return rows[(rows["label"] == label) & ((rows["condition"] == "sham") == sham)]


@cache
def drawing() -> Drawing:
    """The figure: exact match, photos and names together."""
    rows: dict[str, tuple[float, float | None, float]] = {}
    for name, (label, edited, shams) in MODELS.items():
        own = of(edited, label, sham=False)
        sham = mean_of_modalities(of(shams, label, sham=True), "forget") if shams else None
        rows[name] = mean_of_modalities(own, "forget"), sham, mean_of_modalities(own, "retain")
    said = "; ".join(
        f"{name} {forgotten:.2f}{'' if sham is None else f' (sham {sham:.2f})'} and {others:.2f}"
        for name, (forgotten, sham, others) in rows.items()
    )
    first = of(REPLICATION, "KVW one pass", sham=False).query("group == 'A'")
    caption = CAPTION.format(left=mean_of_modalities(first, "forget"))
    alt = f"Share of answers left about the five, and kept about everyone else: {said}."
    return left_beside_sham(rows, caption, alt)


def figure() -> str:
    """The figure as a file."""
    return drawing().svg + "\n"


def page() -> str:
    """The page with its figure."""
    made = drawing()
    options = [f":alt: {made.alt}", ":width: 560px"]
    start = f"```{{figure}} _static/{FIGURE.name}"
    return filled(PAGE, ["", start, *options, "", made.caption, "```", ""])
