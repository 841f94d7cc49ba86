"""The public functions: forget people, evaluate the result, compare methods.

`import kvw_minimal as kvw` offers these names. A model is any causal model or LVLM of transformers
in memory, with its processor or tokenizer. A request is data only: the questions about the people
to forget and about the people to retain. A method is a frozen dataclass with typed settings and
one function, `edit`. An edit is the change that a method makes, apart from the model. You can apply
it for the length of a `with` block, save it, export it and compare it.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image
from torch import nn
from tqdm import tqdm

from . import __all__ as front_door
from .atomic_io import write_json
from .batches import png_bytes
from .benchmarks.jsonl import read_request
from .coefficients import Coefficients
from .conditions import score, score_edited, score_shams, warn_of_other_people
from .edits import Edit, applied_edits
from .evaluation.progress import script_progress
from .evaluation.scoring import nothing_to_forget, teacher_forced
from .forget_request import Request
from .method import alternatives, check_requirements, method_of_edit, name_of_method
from .methods import Method, make_edit
from .questions import Question
from .results import (
    CONDITIONS,
    beyond_sham,
    closing_sentence,
    next_step,
    outcome,
    pooled_mean,
    summarise,
    table,
    text_table,
)
from .scores import answer
from .session import Session
from .sharing.exporters import export_edit
from .strangers.people import load_people
from .strangers.questions import general
from .strangers.tasks import request_to_forget

HOW_TO_AUDIT = (
    "from kvw_minimal.audit import audit, findings_table, verdict\n"
    "  found = audit(kvw.Session(model, processor), request, edit)\n"
    "  print(findings_table(found), verdict(found)[0])"
)
STRANGERS = re.compile("strangers(:(?P<group>[^@]+))?(@(?P<percent>[0-9]+))?")


# --- a request ------------------------------------------------------------------------------------


def request(source: str | Path | Iterable[Mapping], forget: str | Sequence[str] = ()) -> Request:
    """Reads a request from a file, a data set or rows in memory.

    Args:
        source: a file of JSON lines, JSON, CSV or parquet, a data set of the hub, MLLMU-Bench or
            CLEAR (`FOLDER@5` forgets five percent), a list of dicts, a data frame of pandas, a
            `datasets.Dataset`, or `strangers:A@5`, five percent of the invented people of this
            book. A row is one question, with `set`, `person`, `fact`, `prompt` and `answer`;
            pictures and more are optional (`kvw_minimal.benchmarks.jsonl`).
        forget: the people to forget, or the one person, in place of the people of the set `forget`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: people beside a group of this book; rows that cannot be read;
            the message names the row, the field and the remedy.
    """
    book = STRANGERS.fullmatch(source) if isinstance(source, str) else None
    forget = [forget] if isinstance(forget, str) else forget
    if book:
        if forget:
            raise ValueError(f"{source} says who is forgotten: leave `forget` out")
        return _strangers(book["group"] or "A", int(book["percent"] or 5))
    return read_request(_records(source), forget)


def _records(source: Any) -> Any:
    """The rows of a data frame as dicts, without its empty cells; any other source as it is."""
    if not hasattr(source, "iterrows"):
        return source
    rows = source.astype(object).where(source.notna(), None).to_dict("records")
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _strangers(group: str, percent: int) -> Request:
    """The request of a group of the invented people that `pocket` was taught."""
    world = load_people()
    forget = world.forget_people(group, percent)
    request = request_to_forget(world, forget, general=general(world))
    return replace(request, sham_pool=None)  # shams of everybody who is retained


def measure(session: Session, request: Request) -> tuple[Coefficients, Coefficients]:
    """Measures the coefficients: mean absolute inputs of each FFN output projection.

    The mean is over the positions that predict an answer token. `coefficients.measure` does the
    same for batches that are encoded already.

    Returns:
        The coefficients of the forget set and of the retain set, by person: `.pooled()` is
        `[layers, d_ff]`, `.per_person()` is `[people, layers, d_ff]`, both float32, >= 0.
    """
    return session.sides(request)


# --- unlearn, evaluate, compare, export -----------------------------------------------------------


def _check_edit(edit: object) -> None:
    """Raises TypeError for an object that is no edit, such as the name of its file."""
    if not isinstance(edit, Edit):
        raise TypeError(f"{edit!r:.40} is no edit: `kvw.Edit.load` reads one from its file")


def _session(
    model: nn.Module,
    processor: Any,
    request: object,
    *methods: object,
    edit: object = None,
) -> Session:
    """A session for objects of the right kinds.

    Raises:
        TypeError: a name, a class or another object in the place of one; the message says what to
            write.
    """
    session = Session(model, processor)
    if processor is None:
        raise TypeError("the processor is missing: `kvw.load` returns it with the model")
    if not isinstance(request, Request):
        raise TypeError(f"{request!r:.40} is no request: `kvw.request` reads one")
    if edit is not None:
        _check_edit(edit)
    for method in methods:
        if isinstance(method, type):
            raise TypeError(f"{method.__name__} is a class: write {method.__name__}()")
        if isinstance(method, str):
            raise TypeError(f"{method!r} is no method: write one such as kvw.KVW()")
        if isinstance(method, Method):
            check_requirements(method, request)
    return session


def _check_known(vanilla: list[dict], request: Request) -> None:
    """Warns if the unedited model does not know the forgotten people."""
    for note in nothing_to_forget(summarise(vanilla), request.eval_sets.get("forget", [])):
        warnings.warn(note, stacklevel=3)


def unlearn(model: nn.Module, processor: Any, request: Request, method: Method) -> Edit:
    """Makes an edit. The model stays as it was, bit for bit: `with edit.on(model)` applies it.

    It warns if an edit is on the model: the new one then fits only the model with that edit.

    Args:
        model: a causal model or an LVLM of transformers, on any device, quantised or not.
        processor: its processor; the tokenizer of a model without a vision tower.
        method: `KVW()`, `Rewrite()`, ..., or your own method.

    Raises:
        ValueError: a setting that cannot work, an empty retain set, activations or a loss that are
            not finite; the message says which and why.
        TypeError: a name or a class in place of an object.
    """
    session = _session(model, processor, request, method)
    if applied_edits(model):
        warnings.warn(
            "an edit is on this model, and the new one will fit only the model with it; take it "
            "off, and forget everybody in one request",
            stacklevel=2,
        )
    return make_edit(session, request, method)[0]


def _with_edit(
    session: Session,
    request: Request,
    edit: Edit,
    method: Method | None,
    draws: list[int],
    bar: tqdm,
) -> list[dict]:
    """Scores an edit, and shams: edits of the same method for as many other people."""
    rows = score_edited(session, request, teacher_forced, edit)
    bar.update()
    if method is None:
        return rows

    def make(other: Request) -> Edit:
        return make_edit(session, other, method)[0]

    drawn = list[dict]()
    for i, draw in enumerate(draws, 1):
        bar.desc = f"sham {i} of {len(draws)}"
        drawn += score_shams(session, request, teacher_forced, make, [draw])
        bar.update()
    return rows + drawn + beyond_sham(rows, drawn)


def evaluate(
    model: nn.Module,
    processor: Any,
    request: Request,
    edit: Edit | None = None,
    *,
    shams: int = 3,
    method: Method | None = None,
    oracle: nn.Module | None = None,
) -> "Report":
    """Scores a model without and with an edit, with shams and, if given, with an oracle.

    It warns if the model does not know the people to forget, or if the edit is for other people.

    Args:
        edit: the edit to score; None scores only the model as it is.
        shams: the number of shams: edits of the same method for as many other people, drawn at
            random. They show the effect of any such edit on the forgotten people. If fewer
            different ones are possible, a warning says so, and each is made once.
        method: the method of the edit, if it is not registered and the edit was loaded.
        oracle: the same model trained without the forgotten people: the ideal result.

    Raises:
        ValueError: an edit of another model; shams for an edit without a known method, or with
            fewer people to retain than to forget; a request without evaluation sets.
        TypeError: a name or a class in place of an object.
    """
    session = _session(model, processor, request, method, edit=edit)
    if not request.eval_sets:
        raise ValueError("the request has no set to evaluate; give it `eval_sets`")
    draws: list[int] = []
    name = "vanilla"
    if edit is not None:
        method = method or method_of_edit(edit)
        name = str(method or name_of_method(edit)) + warn_of_other_people(edit, request)
        if shams and method is None:
            raise ValueError(
                "the method of this edit is not known: name it (method=...), or shams=0"
            )
        draws = request.sham_draws(shams)  # refuses too few people before the scoring
    steps = 1 + (edit is not None) + len(draws) + (oracle is not None)
    with script_progress(steps, "vanilla") as bar:
        rows = score(session, request, teacher_forced)
        bar.update()
        if edit is not None:
            _check_known(rows, request)
            bar.desc = "edited"
            rows += _with_edit(session, request, edit, method, draws, bar)
        if oracle is not None:
            bar.desc = "oracle"
            rows += score(Session(oracle, processor), request, teacher_forced, "oracle")
            bar.update()
    return Report(summarise(rows), name, len(draws), method)


def compare(
    methods: Iterable[Method], model: nn.Module, processor: Any, request: Request, *, shams: int = 1
) -> "Results":
    """Runs `unlearn` and `evaluate` for each method; scores the unedited model once.

    Raises:
        ValueError: as `unlearn` and `evaluate`; the same method with the same settings twice.
        TypeError: a name or a class in place of an object.
    """
    methods = list(methods)
    session = _session(model, processor, request, *methods)
    labels = [str(method) for method in methods]
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"{twice} stands twice among the methods")
    draws = request.sham_draws(shams)
    reports = []
    with script_progress(1 + len(methods) * (1 + len(draws)), "vanilla") as bar:
        vanilla = score(session, request, teacher_forced)
        bar.update()
        _check_known(vanilla, request)
        for method, label in zip(methods, labels, strict=True):
            bar.desc = label
            edit = make_edit(session, request, method)[0]
            rows = _with_edit(session, request, edit, method, draws, bar)
            reports.append(Report(summarise(vanilla + rows), label, len(draws), method))
    return Results(reports)


def export(
    edit: Edit,
    model: nn.Module,
    folder: str | Path,
    format: str = "merged",
    processor=None,
    **card: Any,
) -> Path:
    """Writes an edit for other tools, into a new folder, and returns its path.

    Args:
        model: the unedited model; it stays as it is.
        format: `merged`, the whole model; `peft`, an adapter; `factors`, the edit as tensors.
        processor: stored in a `merged` folder, which needs it.
        card: `base_model`, `license`, `scores`, `named` and `verdict`, as
            `sharing.exporters.export_edit`.

    Raises:
        ValueError: an unknown format, or one that cannot express the edit; a `merged` folder
            without a processor; another edit is on the model.
        OSError: the folder exists already, or the disk is full.
        TypeError: a name or another object in place of the edit, the model or the folder.
    """
    _check_edit(edit)
    Session(model)  # refuses the name of a model
    if not isinstance(folder, str | Path):
        raise TypeError(
            f"a {type(folder).__name__} is no folder: write "
            "kvw.export(edit, model, folder, processor=processor)"
        )
    export_edit(edit, model, processor, folder, format, **card)
    return Path(folder)


# --- asking ---------------------------------------------------------------------------------------


def ask(
    model: nn.Module,
    processor,
    prompt: str,
    picture: str | Path | bytes | Image | None = None,
    new_tokens: int = 24,
) -> str:
    """Asks a model one question, and returns its answer. In `with edit.on(model):` the edit is on.

    Args:
        prompt: the question, without chat template.
        picture: a file of a picture, its bytes, or an image of PIL; None without a picture.
        new_tokens: the longest answer, in tokens. The likeliest token is taken each time.

    Raises:
        FileNotFoundError: no such picture.
        ValueError: the processor cannot render the question, as a picture without a vision tower.
        TypeError: another object in the place of the model, the processor or the prompt.
    """
    session = Session(model, processor)
    if not isinstance(prompt, str):
        raise TypeError(f"{prompt!r:.40} is no prompt: ask(model, processor, prompt, picture)")
    if not prompt.strip():
        raise ValueError("an empty prompt asks nothing; write a question")
    if isinstance(picture, Image):
        picture = png_bytes(picture)
    image = picture if isinstance(picture, bytes | None) else Path(picture).read_bytes()
    modality = "text" if image is None else "image"
    question = Question("asked", "", "", modality, prompt, "", "", image)
    [text] = answer(session.model, processor, [question], new_tokens=new_tokens)
    return text


# --- reports --------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Report:
    """The scores of an edit. It prints as a verdict, the next step, a table and a few sentences.

    `pandas.DataFrame(report.rows)` is a data frame of all scores.

    Attributes:
        rows: one row for each condition, set, modality and metric, with `value`, `low`, `high`
            (95 % interval, bootstrapped over people), `n_people` and `n`, the numbers
            of people and of questions.
        method: the method with its settings.
        shams: the number of shams.
        made_by: the method itself, where it is known.
    """

    rows: list[dict]
    method: str
    shams: int
    made_by: Method | None = None

    def mean(self, condition: str, eval_set: str, metric: str = "exact_match") -> float | None:
        """The mean over both modalities, weighted by questions; None without questions.

        Raises:
            ValueError: no such condition; a set or a metric that no row has.
        """
        self._check(metric, eval_set, condition)
        return pooled_mean(self.rows, condition, eval_set, metric)

    def _check(self, metric: str, eval_set: str = "forget", condition: str = "edited") -> None:
        """Raises ValueError for a name that no row can have, with the names that there are."""
        for kind, name, allowed in (
            ("condition", condition, CONDITIONS),
            ("set", eval_set, {"forget", "retain"}.union(row["set"] for row in self.rows)),
            ("metric", metric, {row["metric"] for row in self.rows}),
        ):
            if name not in allowed:
                raise ValueError(f"no {kind} {name!r}; there are {', '.join(sorted(allowed))}")

    @property
    def verdict(self) -> str:
        """`passes`, `fails` or `not decided`, and a line for each criterion: met, and measured."""
        return outcome(self.rows, self.method, self.shams)

    @property
    def sentence(self) -> str:
        """What the verdict does not say, in plain sentences; empty if there is nothing."""
        return closing_sentence(self.rows, self.method)

    def table(self, metric: str = "exact_match") -> str:
        """One line for each condition, one column for each set and modality: mean and interval.

        Raises:
            ValueError: a metric that no row has.
        """
        self._check(metric)
        return table(self.rows, metric)

    def to_json(self, file: str | Path) -> None:
        """Writes method, number of shams and rows as JSON, as `export --scores` reads them."""
        write_json(file, {"method": self.method, "shams": self.shams, "rows": self.rows})

    def __repr__(self) -> str:
        measured = "\n\n".join(filter(None, (self.table(), self.sentence)))
        if all(row["condition"] != "edited" for row in self.rows):
            return measured

        def what_else(_: str, more: bool) -> list[str]:
            return [in_code(m) for m in alternatives(self.made_by, more)] if self.made_by else []

        advice = next_step({self.method: self.rows}, lambda _: HOW_TO_AUDIT, what_else)
        return f"{self.verdict}\n{advice}\n\n{measured}"

    def figure(self):
        """Draws the means of the forgotten and the retained; needs matplotlib."""
        return Results([self]).frontier()


def in_code(method: Method) -> str:
    """The code that makes an edit of a method, after `import kvw_minimal as kvw`."""
    place = ""
    if type(method).__module__.startswith("kvw_minimal."):
        place = "kvw." if type(method).__name__ in front_door else "kvw.methods."
    return f"edit = kvw.unlearn(model, processor, request, {place}{method})"


def _points(reports: Iterable[Report], condition: str, metric: str) -> tuple[list, list]:
    """Means of the forgotten and of the retained; a sham takes the retained mean of its edit."""
    source = "edited" if condition == "sham" else condition
    pairs = [
        (report.mean(condition, "forget", metric), report.mean(source, "retain", metric))
        for report in reports
    ]
    both = [pair for pair in pairs if None not in pair]
    return [forgotten for forgotten, _ in both], [retained for _, retained in both]


@dataclass(frozen=True, repr=False)
class Results:
    """Reports of several methods. It prints as a table, sorted by the mean of the forgotten."""

    reports: list[Report]

    def table(self, metric: str = "exact_match") -> str:
        """One line for each method: means of the forgotten, of the sham, and of the other sets.

        The method that leaves least of the forgotten stands first. The last column has the
        verdict, whose reason is `report.verdict`.
        """
        sets = list(dict.fromkeys(row["set"] for report in self.reports for row in report.rows))
        others = [name for name in sets if name != "forget"]

        def cell(report: Report, condition: str, name: str) -> str:
            value = report.mean(condition, name, metric)
            return "-" if value is None else f"{value:.2f}"

        head = ["", "forget", "sham", *others, "verdict"]
        vanilla = self.reports[0]
        lines = [["vanilla", cell(vanilla, "vanilla", "forget"), "-"]]
        lines[0] += [*(cell(vanilla, "vanilla", name) for name in others), "-"]
        for report in sorted(self.reports, key=lambda r: r.mean("edited", "forget") or 0.0):
            line = [report.method, cell(report, "edited", "forget"), cell(report, "sham", "forget")]
            line += [cell(report, "edited", name) for name in others]
            lines.append([*line, report.verdict.partition(":")[0]])
        title = f"{metric.replace('_', ' ')}, least left of forget first"
        return text_table(head, lines, title)

    def frontier(self, metric: str = "exact_match"):
        """Draws forgotten on x, retained on y: a line per method, a point per setting.

        Hollow points are shams.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a figure needs matplotlib: pip install matplotlib"
            ) from error

        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.add_subplot()
        kinds: dict[str, list[Report]] = {}
        for report in self.reports:
            kinds.setdefault(report.method.partition("(")[0], []).append(report)
        axes.plot(*_points(self.reports[:1], "vanilla", metric), "ks", label="vanilla")
        for kind, reports in kinds.items():
            (line,) = axes.plot(*_points(reports, "edited", metric), "o-", label=kind)
            (sham,) = axes.plot(*_points(reports, "sham", metric), "o", label=f"{kind}, sham")
            sham.set(markerfacecolor="none", markeredgecolor=line.get_color())
        axes.set(xlabel="left of the forgotten", ylabel="left of the retained")
        axes.legend()
        return figure

    def __repr__(self) -> str:
        return self.table()
