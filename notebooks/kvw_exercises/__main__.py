"""Grade a class: who has solved which exercises.

    python -m kvw_exercises FOLDER_OR_NOTEBOOK ... --out marks.csv

One row a student: a notebook in the folder, or all in a folder in it. Of a notebook only what the
exercises need is run, each in a process of its own with a time limit, never a whole chapter. No
network is needed. Learners' code runs on this machine as you do: grade only what you would run
yourself.
"""

import argparse
import csv
import logging
import sys
from pathlib import Path

from kvw_minimal.atomic_io import replacing, write_json

from .grading import cut, grade_notebook

FORMULA = ("=", "+", "-", "@", "\t")  # a table would compute what begins with one of these
WIDE = 110  # characters of a line on the terminal


def handed_in(paths: list[Path]) -> dict[str, list[Path]]:
    """The notebooks of each student: those in a folder are named after what lies in that folder."""
    notebooks: dict[str, list[Path]] = {}
    for given in paths:
        if not given.is_dir():
            notebooks.setdefault(str(given.with_suffix("")), []).append(given)
            continue
        for path in sorted(given.rglob("*.ipynb")):
            inside = path.relative_to(given)
            if ".ipynb_checkpoints" not in inside.parts:
                notebooks.setdefault(inside.parts[0].removesuffix(".ipynb"), []).append(path)
    return notebooks


def grade_student(student: str, paths: list[Path], seconds: int) -> dict:
    """One row: how many exercises of how many are passed, each of them, and what cannot be graded.

    Of a chapter that was handed in twice the better try of each exercise counts.
    """
    exercises: dict[str, dict] = {}
    troubles = []
    for path in paths:
        try:
            graded = grade_notebook(path, seconds)
        except (ValueError, TimeoutError) as error:
            troubles.append(cut(f"{path.name}: {error}"))
            continue
        for name, row in graded.items():
            if not exercises.get(name, {}).get("passed"):
                exercises[name] = row
    return {
        "student": student,
        "passed": sum(row["passed"] for row in exercises.values()),
        "of": len(exercises),
        "trouble": "; ".join(troubles),
        "exercises": exercises,
    }


def lines(row: dict) -> list[str]:
    """A row as the terminal shows it: what is not passed is said below."""
    texts = [f"{row['student']}: {row['passed']} of {row['of']}"]
    texts += [f"    {row['trouble']}"] if row["trouble"] else []
    texts += [
        f"    {name}: {exercise['said']}"
        for name, exercise in row["exercises"].items()
        if not exercise["passed"]
    ]
    return [text if len(text) <= WIDE else text[: WIDE - 5] + "[...]" for text in texts]


def flat(row: dict) -> dict[str, str]:
    """A row of a table of text: "passed", or what was said instead."""
    cells = {name: str(row[name]) for name in ("student", "passed", "of", "trouble")}
    for name, exercise in row["exercises"].items():
        cells[name] = "passed" if exercise["passed"] else exercise["said"]
    return {name: f"'{text}" if text.startswith(FORMULA) else text for name, text in cells.items()}


def write(rows: list[dict], out: Path) -> None:
    """JSON or CSV, as the name ends."""
    if out.suffix == ".json":
        write_json(out, rows)
        return
    table = [flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in table for name in row))
    with replacing(out) as half, half.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m kvw_exercises",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", type=Path, help="notebooks, or folders of them")
    parser.add_argument("--out", type=Path, help="a file that ends in .json or .csv")
    parser.add_argument("--seconds", type=int, default=60, help="time limit of an exercise (60)")
    given = parser.parse_args(arguments)
    if given.out and given.out.suffix not in (".json", ".csv"):
        parser.error(f"--out ends in .json or .csv, not in {given.out.suffix or 'nothing'}")
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    rows = []
    for student, paths in handed_in(given.paths).items():
        rows.append(grade_student(student, paths, given.seconds))
        print("\n".join(lines(rows[-1])), flush=True)
    passed, total = (sum(row[name] for row in rows) for name in ("passed", "of"))
    troubled = sum(bool(row["trouble"]) for row in rows)
    print(
        f"{len(rows)} students, {passed} of {total} exercises passed; "
        f"{troubled} students handed in what cannot be graded"
    )
    if given.out:
        write(rows, given.out)
    return 1 if troubled or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
