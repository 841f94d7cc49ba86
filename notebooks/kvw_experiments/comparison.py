"""A user's rows beside the book's: `python -m kvw_minimal book compare FILE`.

Compared are means of the same edit (method, settings, condition) on the same model, group, set and
metric, person by person. Costs and weights are about nobody and are left out.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from kvw_minimal.bootstrap import interval

from . import results_store as store
from .summaries import cell
from .trials import Trial

MADE = ["model", "method", "settings", "group", "condition"]
KEY = [*MADE, "edit_scale", "set", "modality", "metric"]
PAIR = [*KEY, "draw", "person"]  # a sham of another draw is another sham


def by_person(rows: pd.DataFrame) -> pd.DataFrame:
    """`score_sum` and `n` of every `PAIR`, questions summed."""
    question_rows = store.words(rows[rows["modality"] != "none"]).astype(
        {"score_sum": float, "n": int}
    )
    return question_rows.groupby(PAIR, sort=False)[["score_sum", "n"]].sum()


def paired(
    rows: pd.DataFrame, book: Iterable[tuple[str, pd.DataFrame]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means of some rows beside those of the first experiment that has any of their people.

    Args:
        book: rows by experiment, in the order in which they are asked.

    Returns:
        one line for each `KEY` that has a counterpart: `here`, `book`, their difference (`value`,
        with `low` and `high` over people), both `n`, how many `people`, how many of them the
        `experiment` `lacks`; and each `KEY` that has none.
    """
    left, lines = by_person(rows), []
    for experiment, theirs in book:
        both = left.join(by_person(theirs).add_suffix("_book"), how="inner")
        sizes = left.groupby(KEY, sort=False).size()
        for key, part in both.groupby(KEY, sort=False):
            gap = part["score_sum"] / part["n"] - part["score_sum_book"] / part["n_book"]
            people = list(part.index.get_level_values("person"))
            value, low, high = interval(gap.to_numpy(), people)
            here, there = (
                float((part[f"score_sum{of}"] / part[f"n{of}"]).mean()) for of in ("", "_book")
            )
            lines.append(
                [
                    *key,
                    experiment,
                    here,
                    there,
                    value,
                    low,
                    high,
                    int(part["n"].sum()),
                    int(part["n_book"].sum()),
                    len(set(people)),
                    int(sizes[key]) - len(part),
                ]
            )
        keys = left.index.droplevel(["draw", "person"])
        left = left[~keys.isin(both.index.droplevel(["draw", "person"]))]
    more = ["experiment", "here", "book", "value", "low", "high", "n", "n_book", "people", "lacks"]
    return (
        pd.DataFrame(lines, columns=[*KEY, *more]),
        left.reset_index()[KEY].drop_duplicates(ignore_index=True),
    )


def other_origins(
    made: dict, theirs: dict, experiment: str, models: Iterable[str]
) -> Iterator[str]:
    """In which way rows are of other data, models or code than those of an experiment.

    Args:
        made, theirs: provenance of both; models: whose rows are compared.
    """
    if made.get("data") != theirs.get("data"):
        yield f"{experiment} was made from other data: {theirs.get('data')}, not {made.get('data')}"
    mine, known = made.get("models") or {}, theirs.get("models") or {}
    for name in models:
        if mine.get(name) != known.get(name):
            yield (
                f"the model {name} is another one in {experiment}: {known.get(name)}, not "
                f"{mine.get(name, 'named here')}"
            )
    mine, known = made.get("behaviour") or {}, theirs.get("behaviour") or {}
    moved = [name for name in sorted(set(mine) & set(known)) if mine[name] != known[name]]
    if moved:
        yield f"the code behaves otherwise than when {experiment} was made: {', '.join(moved)}"


def named(made: tuple) -> str:
    """The `MADE` of some means, for people, without the settings that are those of chapter 5."""
    model, method, settings, group, condition = made
    usual = json.loads(Trial().text)
    unusual = {
        name: value for name, value in json.loads(settings).items() if usual.get(name) != value
    }
    settings_text = "".join(f", {name} {value}" for name, value in unusual.items())
    return f"{model}, {method}{settings_text}: group {group}, {condition}"


def nearest(made: tuple, book: Iterable[pd.DataFrame]) -> tuple | None:
    """`MADE` with the stored settings that have the most values alike; None without any."""
    model, method, settings, *rest = made
    wanted, known = json.loads(settings), list[str]()
    for rows in book:
        alike = rows[(rows["model"] == model) & (rows["method"] == method)]
        known += alike["settings"].unique().tolist()

    def alike_in(other: str) -> int:
        return sum(wanted.get(name) == value for name, value in json.loads(other).items())

    return (model, method, max(known, key=alike_in), *rest) if known else None


def line_text(line) -> str:
    """One line of `paired`, for people."""
    part = "" if line.edit_scale == 1 else f", {line.edit_scale:g} of the edit"
    lacks = f"; {line.lacks} people without a counterpart" if line.lacks else ""
    return (
        f"  {line.set} {line.modality} {line.metric}{part}: {line.here:.2f} here, "
        f"{line.book:.2f} in {line.experiment}, {line.gap} over {line.people} people, "
        f"n {line.n} and {line.n_book}{lacks}"
    )


def compare(file: Path) -> tuple[str, dict]:
    """A file of rows beside the stored rows: a text for people, and the same as JSON.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no file of rows with provenance.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist, or is no ordinary file")
    rows, made = store.read_rows("", file, fresh=False)
    experiments = set(rows["experiment"].astype(str))
    paths = sorted(
        store.ROWS.glob("*.parquet"), key=lambda path: (path.stem not in experiments, path.stem)
    )
    book = {path.stem: store.read_rows(path.stem, path, fresh=False) for path in paths}
    counterparts, missing = paired(rows, ((name, theirs) for name, (theirs, _) in book.items()))
    notes = [
        note
        for name, part in counterparts.groupby("experiment", sort=False)
        for note in other_origins(made, book[name][1], name, part["model"].unique())
    ]
    lines = [*notes]
    if not notes and len(counterparts):
        lines.append("data and models are those of the book")
    for key, part in counterparts.assign(gap=cell(counterparts, "+")).groupby(MADE, sort=False):
        lines.append(named(key))
        lines += map(line_text, part.itertuples())
    for key, part in missing.groupby(MADE, sort=False):
        lines.append(f"no counterpart in the book: {named(key)}, {len(part)} means")
        near = nearest(key, [theirs for theirs, _ in book.values()])
        if near is not None:
            lines.append(f"  nearest there: {named(near)}")
    lines.append(
        f"{len(counterparts)} of {len(counterparts) + len(missing)} means have a counterpart"
    )
    plain = {
        "rows": counterparts.to_dict("records"),
        "without_counterpart": missing.to_dict("records"),
    }
    return "\n".join(lines), {"notes": notes} | plain
