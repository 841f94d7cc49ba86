"""Grade a class: which exercises of which notebook are solved.

    python -m kvw_exercises FOLDER_OR_NOTEBOOK ... --out table.csv

Of each notebook only the imports and the functions of the exercise cells are run, with a time
limit, never a whole chapter. No network is needed. Learners' code runs on this machine as you do:
grade only what you would run yourself.
"""

import argparse
import csv
import logging
import sys
from pathlib import Path

from kvw_minimal.atomic_io import replacing, write_json

from .grading import grade_notebook

COLUMNS = ("notebook", "exercise", "passed", "said")


def notebooks(paths: list[Path]) -> list[Path]:
    """The notebooks that are named, and those in the folders that are."""
    found = [
        each
        for path in paths
        for each in (sorted(path.rglob("*.ipynb")) if path.is_dir() else [path])
    ]
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def table(rows: list[dict]) -> str:
    """Aligned columns for a terminal."""
    shown = [
        [row["notebook"], row["exercise"], "passed" if row["passed"] else "-", row["said"]]
        for row in rows
    ]
    widths = [max(len(row[place]) for row in shown) for place in range(3)] if shown else []
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[3]]) for row in shown)


def write(rows: list[dict], out: Path) -> None:
    """JSON or CSV, as the name ends."""
    if out.suffix == ".json":
        write_json(out, rows)
        return
    with replacing(out) as half, half.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m kvw_exercises",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, help="notebooks, or folders of them")
    parser.add_argument("--out", type=Path, help="a file that ends in .json or .csv")
    parser.add_argument("--seconds", type=int, default=60, help="time limit of a cell (60)")
    given = parser.parse_args(arguments)
    if given.out and given.out.suffix not in (".json", ".csv"):
        parser.error(f"--out ends in .json or .csv, not in {given.out.suffix or 'nothing'}")
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    rows, unread = [], 0
    for path in notebooks(given.paths):
        try:
            rows += grade_notebook(path, given.seconds)
        except ValueError as error:
            unread += 1
            print(f"{path}: {error}", file=sys.stderr)
    if rows:
        print(table(rows))
    passed = sum(row["passed"] for row in rows)
    print(f"{passed} of {len(rows)} exercises passed; {unread} notebooks could not be graded")
    if given.out:
        write(rows, given.out)
    return 1 if unread or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
