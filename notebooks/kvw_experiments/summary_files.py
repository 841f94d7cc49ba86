"""The one reader of results that were stored as summaries only, until they are measured again.

Their rows are means with intervals, `{..., value, low, high, n}`. What is measured from now on is
stored as rows (`rows.py`) and summarised when it is asked for.
"""

from pathlib import Path

from kvw_minimal.atomic_io import read_json
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo.catalogue import MODELS

from .dependencies import RESULTS, SUMMARIES

#: where each is, by name: the cards of models beside the models
FILES: dict[str, Path] = {
    name: (MODELS if name in ("scores", "smol") else RESULTS) / f"{name}.json" for name in SUMMARIES
}


def check_results() -> None:
    """Refuse what needs the stored results where there are none.

    Raises:
        FileNotFoundError: this is an installed wheel.
    """
    if not RESULTS.is_dir():
        raise FileNotFoundError(
            "an installed wheel has no stored results: clone the repository and run this there"
        )


def read_summary(name: str, fresh: bool = True) -> dict:
    """A stored summary: `provenance`, `rows` and what else the file holds.

    Args:
        name: a key of `FILES`.
        fresh: refuse what today's code would not make.

    Raises:
        ValueError: there is no such file, it is damaged, of other data, or stale.
        FileNotFoundError: as `check_results`.
    """
    check_results()
    if name not in FILES:
        raise ValueError(f"no summary {name!r}; there are {', '.join(FILES)}")
    content = read_json(FILES[name], "provenance", "rows")
    if content["provenance"]["data"] != load_people().checksum[:16]:
        raise ValueError(f"{FILES[name].name} was made from other data")
    if fresh:
        from .freshness import check_file  # with pandas

        check_file(FILES[name].name, content)
    return content


def scores_of(oracle: str) -> list[dict]:
    """Stored means of an oracle, as `kvw_minimal.results.summarise` gives them.

    None where there are no stored results, as in an installed wheel.
    """
    rows = read_summary("oracles")["rows"] if RESULTS.is_dir() else []
    return [
        {key: value for key, value in row.items() if key != "oracle"}
        for row in rows
        if row["oracle"] == oracle
    ]
