"""Rows of scores, one schema everywhere: conditions, means with intervals, headroom, text tables.

A row is about one question, or about all questions about a person. Its columns: `condition`,
`draw` (of a sham), `set`, `question`, `person`, `modality`, `metric`, `score_sum`, and `n`, the
number of questions. `summarise` computes a second table with means and intervals.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.box import Box
from rich.console import Console
from rich.table import Table

from .bootstrap import interval
from .questions import Question

#: the model as it is; with an edit; with an edit for others; a model that never saw the forgotten
CONDITIONS = ("vanilla", "edited", "sham", "oracle")
ABOUT = ("set", "modality", "metric")  # the subject of a mean
MEAN = ("value", "low", "high")  # a mean and its interval
BEYOND = "_beyond_sham"  # the end of the metrics of `beyond_sham`
ONE_PERSON = "(1 person)"  # stands in a cell in place of the interval
NO_INTERVAL = f"{ONE_PERSON}: all of it is about one person, and intervals are over people."
FEW = 5  # people, below which an interval over them is rough
ROUGH = (
    "An interval over {} people is rough: hardly more than the range from the lowest person to the "
    "highest."
)
MALFORMED = 0.05  # the fall of the share of well-formed answers that is worth a sentence
HEADROOM = 0.50  # the smallest lead of vanilla over the oracle on the forget set
TAUGHT_ANSWERS = tuple(("forget", modality, "exact_match") for modality in ("image", "text"))


def score_rows(
    name: str,
    questions: Sequence[Question],
    metrics: Mapping[str, Sequence[float] | np.ndarray],
    unparsable: Sequence[bool] | None = None,
    **columns: object,
) -> list[dict]:
    """Makes a row for each question and metric.

    Args:
        name: the name of the set.
        metrics: `{metric: values}`, a number for each question.
        unparsable: for each question whether its answer cannot be parsed; None without parsing.
        columns: further columns of every row, or replacements of the usual columns.
    """
    rows = [
        {
            "set": name,
            "modality": question.modality,
            "person": question.person,
            "question": question.id,
            "metric": metric,
            "score_sum": float(values[i]),
            "n": 1,
            **columns,
        }
        for i, question in enumerate(questions)
        for metric, values in metrics.items()
    ]
    if unparsable is not None:
        marks = np.repeat(np.asarray(unparsable, dtype=bool), len(metrics)).tolist()
        rows = [row | {"unparsable": mark} for row, mark in zip(rows, marks, strict=True)]
    return rows


def sum_by_person(rows: Iterable[Mapping]) -> list[dict]:
    """Sums the scores of a set over the questions about each person, by modality and metric."""
    people: dict[tuple, dict] = {}
    for row in rows:
        key = tuple(row[name] for name in (*ABOUT, "person"))
        total = people.setdefault(key, {**row, "question": None, "score_sum": 0.0, "n": 0})
        total["score_sum"] += row["score_sum"]
        total["n"] += row["n"]
    return list(people.values())


def about_of(row: Mapping) -> tuple[str, ...]:
    """The set, the modality and the metric of a row."""
    return tuple(row[name] for name in ABOUT)


def summarise(rows: Iterable[Mapping]) -> list[dict]:
    """Means with 95 % intervals over people, a row for each condition, set, modality and metric.

    All draws of a sham make one mean.

    Args:
        rows: rows of questions, or of people.

    Returns:
        Rows with `value`, `low`, `high`, `n_people`, `n` and, if the rows have it, the sum of
        `unparsable`. One person has no interval over people: there `low` and `high` are
        None. Exact match of the retained also has `right`, the sum of each person.
    """
    columns, groups = ("condition", *ABOUT), dict[tuple, list[Mapping]]()
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    summary = []
    for key, group in groups.items():
        counts = [row["n"] for row in group]
        values = np.repeat([row["score_sum"] / row["n"] for row in group], counts)
        people = np.repeat([row["person"] for row in group], counts)
        means: tuple[float | None, ...] = interval(values, people)
        count = len(set(people))
        if count == 1:
            means = (means[0], None, None)
        draws = len({row.get("draw") for row in group})
        about = dict(zip(columns, key, strict=True))
        about |= dict(zip(MEAN, means, strict=True))
        about |= {"n_people": count, "n": len(values) // draws}
        if (about["set"], about["metric"]) == ("retain", "exact_match"):
            about["right"] = {row["person"]: row["score_sum"] for row in sum_by_person(group)}
        if "unparsable" in group[0]:
            about["unparsable"] = sum(row["unparsable"] for row in group)
        summary.append(about)
    return summary


def rounded(summary: Iterable[dict]) -> list[dict]:
    """Rounds means and intervals to four digits, as they are stored."""
    return [
        row | {name: round(float(row[name]), 4) for name in MEAN if row.get(name) is not None}
        for row in summary
    ]


def bounds(row: Mapping) -> tuple[float, float]:
    """The ends of the interval of a row; of one person, who has none, the mean twice."""
    if row["low"] is None:
        return row["value"], row["value"]
    return row["low"], row["high"]


def beyond_sham(edited: Sequence[dict], shams: Iterable[Mapping]) -> list[dict]:
    """Rows of how much more an edit takes of the forgotten than its shams.

    The value is the mean score of a question under the shams, less that under the edit. Both
    modalities make one mean (`all`); the metric is `exact_match_beyond_sham` and so on.
    """
    left: dict[tuple, list[float]] = {}
    for row in shams:
        left.setdefault((row["set"], row["question"], row["metric"]), []).append(row["score_sum"])
    keys = [("forget", row["question"], row["metric"]) for row in edited]
    return [
        row
        | {"condition": "sham", "draw": None, "modality": "all", "metric": row["metric"] + BEYOND}
        | {"score_sum": float(np.mean(left[key])) - row["score_sum"]}
        for row, key in zip(edited, keys, strict=True)
        if row["set"] == "forget" and key in left
    ]


def beyond_rows(summary: Iterable[dict]) -> list[dict]:
    """The rows of `summarise` about `beyond_sham` in exact match; none without a sham."""
    return [row for row in summary if row["metric"] == f"exact_match{BEYOND}"]


def pooled_mean(
    summary: Iterable[Mapping], condition: str, eval_set: str, metric: str = "exact_match"
) -> float | None:
    """The mean over both modalities, weighted by questions; None without questions."""
    rows = [
        row
        for row in summary
        if (row["condition"], row["set"], row["metric"]) == (condition, eval_set, metric)
    ]
    count = sum(row["n"] for row in rows)
    return sum(row["value"] * row["n"] for row in rows) / count if count else None


#: sets whose answers should stay, and what they are called in sentences
KEPT_SETS = {"retain": "retained", "general": "general questions"}
KEPT = 0.95  # the share of vanilla's right answers that an edit must keep in each of them
LEFT = 0.25  # the largest share of the gap between oracle and vanilla that may be left
NO_ORACLE = (
    "There is no oracle, a model that never met them: how many of the answers are guessed is not "
    "known."
)
NOTHING_GENERAL = "No general question was asked: what else the edit takes is not known."


def closing_sentence(summary: Sequence[dict], method: str) -> str:
    """What the verdict on an edit does not say, in plain sentences; empty if there is nothing."""
    before = pooled_mean(summary, "vanilla", "forget")
    after = pooled_mean(summary, "edited", "forget")
    if before is None:
        return "Nothing is asked about the forgotten."
    if after is None:
        return f"The model answers {before:.2f} of what is asked about those to be forgotten."
    oracle = pooled_mean(summary, "oracle", "forget")
    texts = [NO_ORACLE if oracle is None else "", malformed(summary), unmeasured(summary)]
    text = " ".join(part.strip() for part in texts if part)
    return f"{method}: {text}" if text else ""


def more_or_less(row: dict, digits: int = 2) -> str:
    """A difference to the shams in words: `0.40 [0.30, 0.50] more (5 people)`."""
    less = row["value"] < 0
    if less:
        low, high = (None if end is None else -end for end in (row["high"], row["low"]))
        row = row | {"value": -row["value"], "low": low, "high": high}
    word = "less" if less else "more"
    if row["low"] is not None and row.get("n_people", FEW) < FEW:
        few = f"({people_text(row['n_people'])}, too few for an interval)"
        return f"{row['value']:.{digits}f} {word} {few}"
    return f"{cell(row, digits)} {word}{of_people(row)}"


def kept_shares(summary: Sequence[dict]) -> dict[str, float]:
    """The share of vanilla's right answers that an edit keeps, of each set with such answers."""
    shares = {}
    for name in KEPT_SETS:
        before = pooled_mean(summary, "vanilla", name)
        if before:
            shares[name] = (pooled_mean(summary, "edited", name) or 0.0) / before
    return shares


def left_share(summary: Sequence[dict]) -> float | None:
    """What is left of the forgotten: 0 as the oracle (without one, nothing), 1 as vanilla.

    None if vanilla does not answer more than the oracle, or without questions.
    """
    before, after = (pooled_mean(summary, when, "forget") for when in ("vanilla", "edited"))
    least = pooled_mean(summary, "oracle", "forget") or 0.0
    if before is None or after is None or before <= least:
        return None
    return (after - least) / (before - least)


def share_text(share: float, limit: float) -> str:
    """A share with two digits; with three where two would not tell it from the limit."""
    return f"{share:.3f}" if f"{share:.2f}" == f"{limit:.2f}" != str(share) else f"{share:.2f}"


def means_behind(summary: Sequence[dict], name: str) -> str:
    """What a share of a set comes from, in brackets: `(text and image together; 0.9 before)`.

    Empty where the share is the mean of one modality.
    """
    before, now = (pooled_mean(summary, when, name) for when in ("vanilla", "edited"))
    oracle = pooled_mean(summary, "oracle", name) if name == "forget" else None
    means = ""
    if None not in (before, now) and (oracle is not None or before not in (1, now)):
        means = f"{before:.2f} before, {now:.2f} now"
        means += "" if oracle is None else f", oracle {oracle:.2f}"
    modalities = sorted({row["modality"] for row in summary if row["set"] == name} - {"all"})
    joined = f"{' and '.join(reversed(modalities))} together" if len(modalities) > 1 else ""
    return in_brackets(joined, means)


def in_brackets(*texts: str) -> str:
    """Texts in one pair of brackets, without the empty ones."""
    text = "; ".join(filter(None, texts))
    return f" ({text})" if text else ""


class Criterion(NamedTuple):
    """One thing that is asked of an edit: whether it is met (None: not known), and the measure."""

    met: bool | None
    text: str


def criteria(
    summary: Sequence[dict], shams: int | None = None, named: bool = True
) -> list[Criterion]:
    """What is asked of an edit, and what was measured.

    Args:
        shams: the number of shams, where it is known.
        named: whether the people who lost most are named.
    """
    left = left_share(summary)
    measured = "there was nothing to forget" if left is None else share_text(left, LEFT)
    text = f"at most {LEFT} of the forgotten is left: {measured}{means_behind(summary, 'forget')}"
    listed = [Criterion(left is not None and left <= LEFT, text)]
    for name, share in kept_shares(summary).items():
        text = f"at least {KEPT} of the {KEPT_SETS[name]} is kept: {share_text(share, KEPT)}"
        listed.append(Criterion(share >= KEPT, text + means_behind(summary, name)))
    if any(right_answers(summary)):
        lost = half_lost(summary)
        text = "no retained person loses more than half"
        if lost:
            text += f": {people_text(len(lost))} {'does' if len(lost) == 1 else 'do'}"
        listed.append(Criterion(not lost, text + (most_lost(summary) if named else "")))
    return [*listed, beyond_shams(summary, shams)]


def beyond_shams(summary: Sequence[dict], shams: int | None = None) -> Criterion:
    """The last of the `criteria`: an edit takes more of the forgotten than its shams."""
    text = "more is forgotten than by its shams, edits for other people"
    rows = beyond_rows(summary)
    if not rows:
        return Criterion(None, f"{text}: no sham was made")
    by_sham = pooled_mean(summary, "sham", "forget")
    if by_sham is not None:
        how_many = "" if shams is None else f" ({'1 sham' if shams == 1 else f'{shams} shams'})"
        differences = ", ".join(map(more_or_less, rows))
        text += f": they leave {by_sham:.2f}{how_many}, so it takes {differences}"
    return Criterion(not any(bounds(row)[0] <= 0 for row in rows), text)


def outcome(
    summary: Sequence[dict], method: str, shams: int | None = None, named: bool = True
) -> str:
    """The verdict on an edit, and below it a line for each of the `criteria`.

    An edit `passes` if it meets all, `fails` if it misses one, and is `not decided` without a sham.
    """
    if pooled_mean(summary, "edited", "forget") is None:
        return f"not decided: {method}, nothing is asked about the forgotten"
    listed = criteria(summary, shams, named)
    met = [criterion.met for criterion in listed]
    word = "fails" if False in met else "not decided" if None in met else "passes"
    marks = {True: "yes", False: "NO ", None: "?  "}
    lines = [f"  {marks[criterion.met]} {criterion.text}" for criterion in listed]
    return "\n".join([f"{word}: {method}", *lines])


def falls_short(summary: Sequence[dict]) -> bool:
    """Whether an edit misses one of the `criteria`."""
    return any(criterion.met is False for criterion in criteria(summary))


def next_step(
    by_method: Mapping[str, list[dict]],
    how_to_audit: Callable[[str], str],
    what_else: Callable[[str, bool], Sequence[str]],
) -> str:
    """What to do next: an audit of the edit that passes and leaves least, or another try.

    Args:
        by_method: the summary of each method, by its name with its settings.
        how_to_audit: the code or command that audits the edit of a method.
        what_else: what to try beside a method that fails, and whether it should take more.
    """
    left = {method: left_share(rows) or 0.0 for method, rows in by_method.items()}
    good = [method for method, rows in by_method.items() if not falls_short(rows)]
    if good:
        best = min(good, key=left.__getitem__)
        if not beyond_rows(by_method[best]):
            return "next: try it with shams (`shams=3` makes three)"
        return f"next: look for what is hidden after {best}:\n  {how_to_audit(best)}"
    least = {name: min([1.0, *kept_shares(rows).values()]) for name, rows in by_method.items()}
    sparing = [
        method
        for method, share in least.items()
        if share >= KEPT and not half_lost(by_method[method])
    ]
    best = min(sparing, key=left.__getitem__) if sparing else max(least, key=least.__getitem__)
    tries = what_else(best, bool(sparing))
    if not tries:
        return f"next: take {best} with its price, or try another method"
    return "next: try\n" + "\nor:\n".join(f"  {one}" for one in tries)


def unmeasured(summary: Sequence[dict]) -> str:
    """Sentences on what was not asked, and on sets of which vanilla answers nothing right."""
    text = ""
    if pooled_mean(summary, "vanilla", "general") is None:
        text = f" {NOTHING_GENERAL}"
    unknown = [
        f"{row['set']} by {row['modality']}"
        for row in summary
        if (row["condition"], row["metric"], row["value"]) == ("vanilla", "exact_match", 0)
    ]
    if unknown:
        text += f" Before the edit no answer of {', '.join(unknown)} is right: this says nothing."
    return text


def people_text(count: int) -> str:
    """`1 person`, `2 people`."""
    return f"{count} {'person' if count == 1 else 'people'}"


def of_people(row: Mapping) -> str:
    """The number of people of an interval in brackets; empty without an interval."""
    known = row["low"] is not None and "n_people" in row
    return f" ({people_text(row['n_people'])})" if known else ""


def right_answers(summary: Sequence[Mapping]) -> tuple[Counter[str], Counter[str]]:
    """The right answers about each retained person, before and after the edit."""
    right: dict[str, Counter[str]] = {"vanilla": Counter(), "edited": Counter()}
    for row in summary:
        if row["condition"] in right:
            right[row["condition"]].update(row.get("right", {}))
    return right["vanilla"], right["edited"]


def half_lost(summary: Sequence[Mapping]) -> list[str]:
    """The retained people who lost more than half of two or more right answers.

    A mean over people hides them.
    """
    before, after = right_answers(summary)
    return [who for who in before if before[who] >= 2 and after[who] < before[who] / 2]


def most_lost(summary: Sequence[Mapping]) -> str:
    """The retained people with the most answers lost, in brackets; empty without a loss."""
    before, after = right_answers(summary)
    lost = [who for who in before if after[who] < before[who]]
    lost.sort(key=lambda who: (after[who] / before[who], after[who] - before[who]))
    names = [f"{who} {after[who]:g} of {before[who]:g}" for who in lost[:3]]
    return in_brackets(f"most lost, answers left: {', '.join(names)}") if after and names else ""


def malformed(summary: Sequence[dict]) -> str:
    """A sentence on the sets with clearly fewer well-formed answers; empty without such a set."""
    fallen = []
    for name in dict.fromkeys(row["set"] for row in summary):
        before, after = (
            pooled_mean(summary, when, name, "well_formed") for when in ("vanilla", "edited")
        )
        if before is not None and after is not None and before - after > MALFORMED:
            fallen.append(f"{name} {after:.2f} (before: {before:.2f})")
    words = "Fewer answers have the form of a taught answer"
    return f" {words}: {', '.join(fallen)}." if fallen else ""


def find(summary: Iterable[dict], condition: str, *about: str) -> dict:
    """The one row of a condition about a set, a modality and a metric.

    Raises:
        KeyError: no such row.
    """
    for row in summary:
        if (row["condition"], *about_of(row)) == (condition, *about):
            return row
    raise KeyError(f"no row for {condition}, {', '.join(about)}")


def check_headroom(
    summary: Sequence[dict],
    metrics: Iterable[tuple[str, str, str]] = TAUGHT_ANSWERS,
    margin: float = HEADROOM,
    chance: Mapping[str, float] | None = None,
) -> tuple[str, list[str]]:
    """Refuses to score forgetting if the model had nothing to forget.

    Args:
        metrics: the sets, modalities and metrics that show whether the model knows the people.
        margin: the smallest lead of vanilla over the oracle; their intervals must not overlap.
        chance: the score of guessing by modality, where it is known.

    Returns:
        A mark and warnings. The mark is `shown` with an oracle; without an oracle it is `unknown`,
        or `doubtful` if vanilla may be guessing.

    Raises:
        ValueError: vanilla is too close to the oracle.
    """
    if any(row["condition"] == "oracle" for row in summary):
        for about in metrics:
            _check_gap(find(summary, "vanilla", *about), find(summary, "oracle", *about), margin)
        return "shown", []
    mark = "unknown"
    notes = [
        "without an oracle nothing says how well a model that never met these people would "
        "guess: headroom is not shown"
    ]
    for about in metrics:
        row = find(summary, "vanilla", *about)
        guessed = (chance or {}).get(row["modality"], 0.0)
        if bounds(row)[0] <= guessed:
            mark = "doubtful"
            notes.append(
                f"vanilla {cell(row)} on {row['modality']} questions ({row['metric']}) may be "
                f"guessing, chance is {guessed:.2f}: this model does not seem to know the people "
                "it is asked to forget; teach it the benchmark's training rows"
            )
    return mark, notes


def _check_gap(vanilla: dict, oracle: dict, margin: float) -> None:
    if vanilla["value"] - oracle["value"] < margin or bounds(vanilla)[0] <= bounds(oracle)[1]:
        raise ValueError(
            f"no headroom on {vanilla['modality']} questions ({vanilla['metric']}): vanilla "
            f"{cell(vanilla)} against oracle {cell(oracle)}; a model that never saw the people "
            "must score clearly less before forgetting can be measured"
        )


# --- text tables ----------------------------------------------------------------------------------


def cell(row: dict, digits: int = 2) -> str:
    """Mean and interval of a row as text; `3?`: three answers could not be parsed."""
    if row["metric"] == "forget_quality":
        return f"log10 p {row['log10_p']:.1f}, KS {row['statistic']:.2f}"
    unparsable = f" {row['unparsable']}?" if row.get("unparsable") else ""
    value, low, high = row["value"], row["low"], row["high"]
    ends = ONE_PERSON if low is high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f} {ends}{unparsable}"


def text_table(
    head: Sequence[str], lines: Iterable[Sequence[str]], title: str = "", box: Box | None = None
) -> str:
    """Formats a table as plain text: the first column to the left, the others to the right.

    Args:
        box: the frame; no frame unless given.
    """
    grid = Table(title=title or None, box=box, title_justify="left", pad_edge=box is not None)
    for i, name in enumerate(head):
        grid.add_column(name, justify="right" if i else "left", no_wrap=True)
    for line in lines:
        grid.add_row(*line)
    console = Console(width=1000, color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines())


def pivoted(
    rows: Iterable[dict], lines: Sequence[str], columns: Sequence[str], digits: int = 2
) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table of rows: `-` for a missing row.

    Args:
        lines: the columns of the rows that define a line of the table.
        columns: the columns of the rows that define a column of the table.
        digits: the number of decimals of mean and interval.
    """
    cells: dict[tuple, dict[str, str]] = {}
    head: dict[str, None] = {}
    for row in rows:
        name = " ".join(str(row[column]) for column in columns)
        head[name] = None
        line = cells.setdefault(tuple(str(row[column]) for column in lines), {})
        line[name] = cell(row, digits)
    body = [[*key, *(line.get(name, "-") for name in head)] for key, line in cells.items()]
    return [*lines, *head], body


def table(summary: Iterable[dict], metric: str = "exact_match") -> str:
    """A metric as text: one line for each set and modality, one column for each condition.

    A cell holds mean and interval. A last line says where one person has no interval, or few people
    a rough one. If an edit has several strengths, each has its own columns.
    """
    rows = [row for row in summary if row["metric"] == metric]
    several = len({row.get("strength") for row in rows} - {None}) > 1
    rows.sort(key=lambda row: CONDITIONS.index(row["condition"]))
    people: dict[tuple, object] = {}
    for i, row in enumerate(rows):
        name = row["condition"]
        if several and row["strength"] is not None:
            name = f"{name} {row['strength']:g}"
        about = (row["set"], row["modality"])
        count = people.setdefault(about, row.get("n_people", "-"))
        rows[i] = row | {"column": name, "asked": " by ".join(about), "people": count}
    (_, *head), body = pivoted(rows, ("asked", "people"), ("column",))
    text = text_table([metric.replace("_", " "), *head], body)
    return "\n".join([text, *remarks(rows)])


def remarks(rows: Iterable[Mapping]) -> list[str]:
    """What stands under a table: where one person has no interval, or few people a rough one."""
    rows, sentences = list(rows), []
    if any(row.get("low", 0.0) is None for row in rows):
        sentences.append(NO_INTERVAL)
    fewest = min((row["n_people"] for row in rows if row.get("n_people", 0) > 1), default=FEW)
    if fewest < FEW:
        sentences.append(ROUGH.format(fewest))
    return sentences


def score_table(summary: Iterable[dict], digits: int = 2, box: Box | None = None) -> str:
    """All metrics as text: one line for each score, one column for each condition.

    `n_people` and `n` are the numbers of people and of questions of the first condition.

    Args:
        digits, box: as in `pivoted` and `text_table`.

    Raises:
        KeyError: a row lacks a column.
    """
    counts: dict[tuple, dict] = {}
    rows = []
    for row in summary:
        first = counts.setdefault(about_of(row), row)
        rows.append(row | {"n_people": first.get("n_people", "-"), "n": first["n"]})
    return text_table(*pivoted(rows, (*ABOUT, "n_people", "n"), ("condition",), digits), box=box)
