"""The pipelines of the command line: `unlearn`, `evaluate` and `audit`."""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from itertools import count
from math import ceil
from pathlib import Path
from shlex import quote
from typing import Any

from .. import scores
from ..atomic_io import read_json, write_json
from ..audit import audit_rows, findings_table, judge, verdict
from ..audit.findings import GONE, NOT_FORGOTTEN, OVER, QUIET, UNDECIDED
from ..benchmarks.conversations import check_rendered
from ..conditions import Protocol, score, score_edited, score_shams, warn_of_other_people
from ..edits import Edit
from ..forget_request import Request
from ..kvw import KVW, PublishedKVW
from ..method import (
    RECOMMENDED,
    alternatives,
    check_requirements,
    method_of_edit,
    milder,
    name_of_method,
    stronger,
)
from ..methods import Method, make_edit, method_of
from ..models import find_projections, fingerprint, resolve_layers
from ..questions import one_of_each
from ..results import (
    BEYOND,
    FEW,
    NOTHING_GENERAL,
    ROUGH,
    TAUGHT_ANSWERS,
    about_of,
    beyond_sham,
    check_headroom,
    closing_sentence,
    malformed,
    next_step,
    outcome,
    people_text,
    rounded,
    summarise,
    table,
)
from ..session import Session
from ..strangers.people import load_people
from ..strangers.questions import question_sets
from ..zoo.catalogue import BOOK, book_name, device_and_dtype, how_to_make, load, model_name
from . import resume
from .progress import progress
from .provenance import file_hash, peak_memory, provenance
from .scoring import (
    forced_and_generated,
    generated,
    nothing_to_forget,
    teacher_forced,
    with_other_answers,
)
from .setups import Oracle, Reads, is_made, replacement, request_factory, sample_of_general
from .setups import audit_sets as audited_sets

MEANS = {
    QUIET: "what was to be forgotten can still be found in the edited model",
    OVER: "the taught answers are less likely than those of strangers, which gives them away",
    NOT_FORGOTTEN: (
        "asked as it was taught, the edited model still gives {0:.2f} of the answers (unedited "
        "{1:.2f}), and no attack is needed"
    ),
    UNDECIDED: "one answer more or less would decide it",
    GONE: (
        "no probe that counts finds clearly more than where it was never taught (by a quarter of "
        "what was known, and one answer more); nothing says that it is erased"
    ),
}
WITHOUT = (
    "Without an oracle the same questions about strangers stand in its place; membership and "
    "attacks that train the model are left out. --oracle FOLDER runs them."
)
#: what stands under the table of an audit; `{}` is the name of the column beside vanilla
COLUMNS = (
    "left: 0 as {0}, 1 as vanilla, n/a where these two are too close to tell; brought back: the "
    "share of what the edit took that this way of asking returns, below 0 where it returns less "
    "than plain asking; of the {0}: that share for them; -: not measured (of a saved edit no sham; "
    "brought back, if the probe is no attack or nothing was lost)"
)
USED = (
    "The verdict uses {} of {} probes, those that find most first. The others do not apply here "
    "(n/a), are controls, or need vanilla."
)
ONE_FORGOTTEN = (
    "One person is forgotten: no interval over people stands behind this verdict, and it may be "
    "chance."
)
TRIED = 20  # questions of each set that `validate` asks a model
DEFAULT = KVW.name  # the method of `unlearn` and `audit`
#: what a command to paste repeats, if it is not the default
SHARED_OPTIONS = {"device": "cpu", "dtype": "float32"}
UNLEARN_OPTIONS = {
    "draws": ("--sham-draws", 20),
    "batch_size": ("--batch-size", None),
    "seed": ("--seed", 0),
}
REFERENCES = ("vanilla", "oracle")  # the conditions of an audit that do not depend on the edit
TAUGHT = ("pocket", "smol")  # the models of this book that were taught the strangers


def results_text(result: dict, arguments: Mapping[str, Any], folder: Path | None = None) -> str:
    """A verdict on each edit, and what to do next; then a table, and a few sentences for each edit.

    Args:
        result: what `run_unlearning` returned for these `arguments`.
        folder: where the edits are saved.
    """
    source, rows = result["provenance"], result["rows"]
    methods = {
        str(method): method
        for method in (method_of(source["method"], settings) for settings in source["settings"])
    }
    by_method = {
        name: [row for row in rows if row["strength"] in (None, method.settings.get("strength"))]
        for name, method in methods.items()
    }
    draws = source["sham_draws"]

    def how_to_audit(name: str) -> str:
        if folder:
            return command_to_audit(arguments, methods[name], folder)
        return command_to_make_and_audit(arguments, methods[name], folder)

    def what_else(name: str, more: bool) -> list[str]:
        others = alternatives(methods[name], more)
        return [command_to_unlearn(arguments, m, unused_folder(folder, m)) for m in others]

    texts = [outcome(of_method, name, draws) for name, of_method in by_method.items()]
    if source["notes"]:
        texts += [*source["notes"], "next: teach the model these people, and ask again"]
    else:
        texts.append(next_step(by_method, how_to_audit, what_else))
    texts.append("\nWhat it says now:")
    for answers in result["answers"]:
        shown = "(with a picture) " if answers["picture"] else ""
        texts += [f"  {shown}{answers['prompt']}", f"    taught: {answers['taught']}"]
        texts += [f"    after {name}: {text}" for name, text in answers["after"].items()]
    texts += ["", table(rows), ""]
    sentences = [closing_sentence(of_method, name) for name, of_method in by_method.items()]
    texts += filter(None, sentences)
    others = sorted({row["metric"] for row in rows} - {"exact_match", f"exact_match{BEYOND}"})
    if others:
        where = f"stored in {folder / resume.ROWS}" if folder else "written by `--json FILE`"
        texts.append(f"Other metrics ({', '.join(others)}) are {where}.")
    return "\n".join(texts)


def options_of(method: Method) -> list[str]:
    """The options of `unlearn` for a method: name, strength or settings, if not the defaults."""
    options = [] if method.name == DEFAULT else [f"--method {quote(method.name)}"]
    changed = method.changed
    if isinstance(method, KVW | PublishedKVW) and set(changed) == {"strength"}:
        options.append(f"--strength {changed['strength']:g}")
    elif changed:
        options.append(f"--settings {quote(json.dumps(changed))}")
    return options


def command(name: str, arguments: Mapping[str, Any], *options: str) -> str:
    """A command about the model and the people of `run_unlearning` or `run_audit`."""
    words = [f"--model {quote(arguments['model'])}", *options]
    if arguments["questions"] is not None:
        words.append(f"--questions {quote(arguments['questions'])}")
    elif not arguments.get("people"):
        words.append(f"--group {arguments['group']} --forget-percent {arguments['percent']}")
    if arguments.get("people"):
        words.append(f"--people {quote(','.join(arguments['people']))}")
    for option, default in SHARED_OPTIONS.items():
        value = arguments.get(option, default)
        if value != default:
            words.append(f"--{option} {quote(str(value))}")
    if isinstance(arguments.get("oracle"), str):
        words.append(f"--oracle {quote(arguments['oracle'])}")
    return f"python -m kvw_minimal {name} {' '.join(words)}"


def command_to_unlearn(arguments: Mapping[str, Any], method: Method, folder: Path) -> str:
    """The command that makes and scores another edit for the same people, into a new folder."""
    options = options_of(method)
    for name, (option, default) in UNLEARN_OPTIONS.items():
        value = arguments.get(name, default)
        if value != default:
            options.append(f"{option} {value}")
    if arguments.get("oracle") is False:
        options.append("--no-oracle")
    return command("unlearn", arguments, *options, f"--save {quote(str(folder))}")


def command_to_audit(arguments: Mapping[str, Any], method: Method, folder: Path) -> str:
    """The command that audits an edit of `run_unlearning`."""
    edit, findings = resume.edit_file(folder, method), resume.findings_file(folder, method)
    options = [f"--edit {quote(str(edit))}", f"--json {quote(str(findings))}"]
    return command("audit", arguments, *options)


def command_to_export(
    arguments: Mapping[str, Any], edit_file: Path, findings_file: Path | None
) -> str:
    """The command that exports an edit; a file of questions is asked again of the folder.

    Its card gets the rows of `unlearn --save` and the findings, where these were written.
    """
    words = [f"--model {quote(arguments['model'])}", f"--edit {quote(str(edit_file))}"]
    rows = edit_file.with_name(resume.ROWS)
    scores = [rows] if rows.is_file() else []
    scores += [findings_file] if findings_file else []
    words += [f"--scores {quote(str(file))}" for file in scores]
    questions = arguments["questions"]
    if questions is not None and Path(questions).is_file():
        words.append(f"--check {quote(questions)}")
    return f"python -m kvw_minimal export merged {' '.join(words)}"


def command_to_make_and_audit(
    arguments: Mapping[str, Any], method: Method, beside: Path | None
) -> str:
    """The commands that make an edit, score it, and audit it."""
    new = unused_folder(beside, method)
    made = command_to_unlearn(arguments, method, new)
    return f"{made} && {command_to_audit(arguments, method, new)}"


def unused_folder(beside: Path | None, method: Method) -> Path:
    """A folder that does not exist yet, beside that of an earlier run.

    Its name has the method, and the settings that are not the defaults.
    """
    values = [f"{value:g}" for value in method.changed.values() if isinstance(value, int | float)]
    base = (beside or Path("edits")).with_name("-".join([*method.name.split(), *values]))
    if not base.exists():
        return base
    return next(new for i in count(2) if not (new := base.with_name(f"{base.name}-{i}")).exists())


def after_audit(
    word: str,
    method: Method | None,
    arguments: Mapping[str, Any],
    edit_file: Path | None,
    findings_file: Path | None = None,
) -> str:
    """What to do after the verdict of an audit.

    Args:
        method: the method of the edit, where it is known.
        edit_file: the file of the edit; None if the audit made it.
        findings_file: the file that gets the findings.
    """
    if word == UNDECIDED:
        return (
            "add questions about these people to the file, so that one answer decides less (the "
            "model must have been taught their answers), then `unlearn` and `audit` again"
        )
    if word == GONE:
        if edit_file is None:
            return "make this edit with `unlearn --save FOLDER`, which asks the others, too"
        return (
            "hand the edit on; what it takes from others is not asked here, but by `unlearn`:\n  "
            f"{command_to_export(arguments, edit_file, findings_file)}"
        )
    if word == OVER:
        kind, again = "a milder", method and milder(method)
    elif method is None or method.name == RECOMMENDED[0]:
        kind, again = "a stronger", method and stronger(method)
    else:
        kind, again = "another", method_of(RECOMMENDED[0])
    if again is None:
        return f"make {kind} edit, or one of another method"
    beside = edit_file.parent if edit_file and edit_file.parent.name else None
    commands = command_to_make_and_audit(arguments, again, beside)
    return f"make {kind} edit, and audit it:\n  {commands}"


def stored_oracle(name: str) -> list[dict]:
    """Stored scores of an oracle without local weights.

    Raises:
        FileNotFoundError: no stored scores; the message says how to make the oracle.
    """
    sources = entry_points(group="kvw_minimal.oracles")  # the experiments of the book have some
    rows = [row for source in sources for row in source.load()(name)]
    if not rows:
        raise FileNotFoundError(
            f"the oracle {name} is neither here nor among the stored scores; make it with "
            f"`{how_to_make(name)}`, or leave it and the headroom check out with --no-oracle"
        )
    return rows


def oracle_rows(
    request: Request, name: str, protocol: Protocol | None = None, **where
) -> tuple[list[dict], dict[str, str]]:
    """Rows of an oracle, scored now or else stored, and `{name: fingerprint}`.

    An oracle is a model that was never taught the forgotten people.

    Args:
        name: an oracle of this book; with a `protocol` the user's own, a folder or a hub id.

    Raises:
        FileNotFoundError: as `stored_oracle`.
    """
    if protocol is None and not is_made(name):
        return stored_oracle(name), {name: "stored scores"}
    model, processor = load(name if protocol else f"{BOOK}{name}", **where)
    protocol = protocol or forced_and_generated(request)
    rows = score(Session(model, processor), request, protocol, "oracle")
    return rounded(summarise(rows)), {name: fingerprint(model)}


def request_of(
    model: str,
    group: str,
    percent: int,
    reads: Reads = question_sets,
    people: Sequence[str] = (),
    **where,
) -> tuple[Session, Request]:
    """A session with a model, and the request to forget a group of strangers.

    Args:
        reads: makes the evaluation sets.
        people: the people to forget, in place of a group.
        where: device and dtype of the model, for `load`.

    Raises:
        ValueError, OSError: unknown people, group, percentage or model, or a model without a
            vision tower.
    """
    world = load_people()
    forget = some_strangers(people) or world.forget_people(group, percent)
    loaded, processor = load(model, **where)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"{model} has no eyes, and half of what is asked shows a picture")
    request = request_factory(world, reads)(forget)
    check_rendered(processor, request.forget[:1])
    return Session(loaded, processor), request


def some_strangers(people: Sequence[str]) -> list[str]:
    """Checks the ids of strangers, and returns each once.

    Raises:
        ValueError: an unknown id.
    """
    known = load_people().people
    strange = sorted(set(people) - set(known))
    if strange:
        raise ValueError(f"no stranger is called {strange[0]!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(people))


def request_from(
    questions: str, model: str, people: Sequence[str] = (), **where
) -> tuple[Session, Request]:
    """A session with a model, and a request from a user's questions (`jsonl.read_request`).

    Args:
        questions: the source of the questions, for `benchmarks.jsonl.read_request`.
        people: the people to forget, in place of the set `forget`.
        where: device and dtype of the model, for `load`.

    Raises:
        ValueError, OSError: questions that cannot be read, a person on both sides, too few people
            to retain for a sham, an unknown model, or one that cannot render the questions.
    """
    from ..benchmarks.jsonl import read_request

    request = read_request(questions, people)
    request.sham(0)  # refuses before a model is loaded
    loaded, processor = load(model, **where)
    if not hasattr(processor, "image_processor"):
        request = read_request(questions, people, processor)
    groups = (request.questions(), *request.eval_sets.values())
    check_rendered(processor, [question for group in groups for question in group])
    return Session(loaded, processor), request


def try_questions(questions: str, model: str) -> str:
    """Encodes all questions for a model, and asks it some of them.

    Returns:
        The first question by text and by picture, each with its taught answer and the model's in
        three lines; then the share that is right of at most `TRIED` questions of each set.

    Raises:
        ValueError, OSError: as `request_from` and `batches.answer_batches`.
    """
    session, request = request_from(questions, model)
    for group in (request.questions(), *request.eval_sets.values()):
        session.batches(group)
    lines = [
        f"asked:  {q.prompt}\ntaught: {q.answer}\nsaid:   {answer}"
        for q in one_of_each(request.forget + request.retain)
        for answer in scores.answer(session.model, session.processor, [q])
    ]
    right = {
        name: scores.read(session.model, session.batches(group[:: ceil(len(group) / TRIED)])).exact
        for name, group in request.eval_sets.items()
    }
    shares = ", ".join(
        f"{name} {exact.mean():.2f} of {len(exact)}" for name, exact in right.items()
    )
    lines.append(f"right before any edit: {shares}")
    # the set `test` asks with new words, which no model was taught
    taught = [name for name in right if not name.startswith("test")]
    if unknown := [name for name in taught if right[name].mean() < 0.5]:
        lines.append(
            f"less than half of {', '.join(unknown)} is right: teach the model first, else an "
            "edit has little to take there"
        )
    return "\n".join(lines)


def answers_after(
    session: Session, request: Request, edits: Mapping[str, Edit]
) -> list[dict[str, Any]]:
    """What the model says with each edit, asked one question about the forgotten of each kind.

    Args:
        edits: by the name of their method with its settings.

    Returns:
        Dicts of `prompt`, `picture` (whether one is shown), `taught` and `after`, the answer with
        each edit.
    """
    questions = one_of_each(request.forget)
    by_edit = {}
    for name, edit in edits.items():
        with edit.on(session.model):
            by_edit[name] = scores.answer(session.model, session.processor, questions)
    return [
        {
            "prompt": question.prompt,
            "picture": bool(question.pictures),
            "taught": question.answer,
            "after": {name: texts[i] for name, texts in by_edit.items()},
        }
        for i, question in enumerate(questions)
    ]


def oracle_name(model: str, group: str, percent: int, people: Sequence[str] = ()) -> str:
    """The name of the oracle of a group, with local weights or stored scores.

    Raises:
        ValueError: no oracle is defined for this model or these people.
        FileNotFoundError: the oracle is not made, and no scores are stored.
    """
    base = book_name(model)
    if base not in TAUGHT or people:
        raise ValueError(
            f"nothing says which model is the oracle of {model!r}: its headroom cannot be checked; "
            f"with --no-oracle it is left out (only {' and '.join(TAUGHT)} have oracles here, of "
            "their groups)"
        )
    bound = model_name(base, group, percent)
    if not is_made(bound):
        stored_oracle(bound)
    return bound


def build_request(
    model: str,
    group: str,
    percent: int,
    oracle: bool | str,
    people: Sequence[str],
    questions: str | None,
    reads: Reads = question_sets,
    **where,
) -> tuple[Session, Request, str | None, dict]:
    """A session, a request, the name of its oracle, and columns for the provenance.

    Args:
        reads: the evaluation sets of strangers.
        oracle: the user's own oracle, a folder or a hub id; or whether to take that of the book.

    Raises:
        ValueError, OSError: as `request_of`, `request_from` and `oracle_name`.
    """
    own_oracle = oracle if isinstance(oracle, str) else None
    if questions is not None:
        session, request = request_from(questions, model, people, **where)
        return (
            session,
            request,
            own_oracle,
            {"data": resume.digest_of(request.eval_sets), "questions": questions},
        )
    if not people:
        load_people().forget_people(group, percent)  # refuses before a model is loaded
    bound = own_oracle or (oracle_name(model, group, percent, people) if oracle else None)
    columns = {} if people else {"group": group, "forget": percent}
    session, request = request_of(model, group, percent, reads, people, **where)
    return session, request, bound, {"data": load_people().checksum} | columns


def check_methods(methods: Sequence[Method]) -> None:
    """Refuses methods that one run cannot compare, or cannot run.

    Raises:
        ValueError: different kinds of methods, or the same settings twice.
        ModuleNotFoundError: a LoRA, and `peft` is not installed.
    """
    if getattr(methods[0], "lora", False):
        import_module("peft")
    if len({method.name for method in methods}) > 1:
        raise ValueError("one run makes edits of one method; they may differ in their strength")
    if len(set(methods)) < len(methods):
        raise ValueError("a strength stands there twice; name each once")


def asked_in(file: Path) -> tuple[dict, list[Method]]:
    """What an earlier run was asked, as arguments of `run_unlearning`, and its methods.

    Args:
        file: rows of `unlearn`.

    Raises:
        ValueError: a file without them.
    """
    source = read_json(file, "provenance")["provenance"]
    try:
        arguments, name, settings = source["asked"], source["method"], source["settings"]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{file} holds no rows of `unlearn`: {error}") from error
    return dict(arguments), [method_of(name, setting) for setting in settings]


def named(place: dict) -> dict[str, str]:
    """The device and the number format as columns of the provenance."""
    return {"device": place["device"], "dtype": str(place["dtype"]).removeprefix("torch.")}


def run_unlearning(
    model: str,
    group: str = "A",
    percent: int = 5,
    methods: Sequence[Method] = (KVW(),),
    draws: int = 20,
    oracle: bool | str = True,
    *,
    people: Sequence[str] = (),
    questions: str | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
    measured: Path | None = None,
    seed: int = 0,
    **where: str,
) -> tuple[dict, list[Edit]]:
    """Forgets the people of a group or of a file; scores vanilla, edited, sham and oracle.

    Args:
        methods: one method, or several of one kind that differ in their strength.
        draws: the number of shams for each method; fewer if fewer different ones are possible.
        oracle: whether to compare with the oracle and to refuse without headroom; or the user's
            own oracle, a folder or a hub id. A file of questions has no other oracle.
        people: the people to forget: strangers in place of a group, people of a file in place of
            its set `forget`.
        questions: the source of the questions, for `benchmarks.jsonl.read_request`.
        batch_size: the number of questions in a batch; the default of `Session` unless given.
        folder: a folder for rows and edits; an interrupted run continues from it.
        measured: coefficients of both sides (`measure`), for KVW in one pass.
        seed: the seed of everything that a method draws.
        where: `device` and `dtype`, as `device_and_dtype`.

    Returns:
        A dict of `provenance`, `rows` (condition, strength, set, modality, metric, value, low,
        high and n; the strength may be None) and `answers`, and the edits. The model stays as it
        was.

    Raises:
        FileNotFoundError, ValueError: an unknown method, unknown people or questions; a missing
            oracle; no headroom; settings that cannot work; a folder with other rows.
    """
    start = time.perf_counter()
    asked_for = {
        "model": model,
        "group": group,
        "percent": percent,
        "draws": draws,
        "oracle": oracle,
        "people": list(people),
        "questions": questions,
        "batch_size": batch_size,
        "seed": seed,
        **where,
    }
    check_methods(methods)
    resume.check_folder(folder)
    place = device_and_dtype(**where)
    session, request, bound, about = build_request(
        model, group, percent, oracle, people, questions, **place
    )
    session = replace(session, batch_size=batch_size or session.batch_size, measure_once=True)
    request = replace(request, seed=seed)
    check_requirements(methods[0], request, shams=True)
    for variant in methods:
        if "layers" in variant.settings:  # refuses before anything is scored
            resolve_layers(variant.settings["layers"], len(find_projections(session.model)))
    sham_draws = request.sham_draws(draws)
    inputs = resume.inputs_of(session, request, methods[0], len(sham_draws))
    before, rows = resume.load_partial(folder, inputs)
    resume.use_coefficients(session, request, methods[0], folder, measured)
    models, edit_of = {model: fingerprint(session.model)}, resume.edit_maker()
    has_own_questions, protocol = questions is not None, forced_and_generated(request)
    if has_own_questions:
        protocol = with_other_answers(protocol)
    saved = [resume.saved_edit(folder, variant) for variant in methods]
    edits: list[Edit] = []
    notes: list[str] = []
    done = {(row["condition"], row["strength"]) for row in rows}
    wanted: dict[tuple, int] = {("vanilla", None): 1} | ({("oracle", None): 1} if bound else {})
    for variant in methods:
        strength = variant.settings.get("strength")
        wanted |= {("edited", strength): 1, ("sham", strength): len(sham_draws)}
    steps_done = sum(steps for cell, steps in wanted.items() if cell in done)

    def result() -> dict:
        seconds = before.get("seconds", 0.0) + time.perf_counter() - start
        gammas = [edit.notes.get("gamma") for edit in edits]
        source = provenance(
            seconds=seconds,
            seed=request.seed,
            models=models,
            people=request.people,
            method=methods[0].name,
            settings=[variant.settings for variant in methods],
            gamma=gammas,
            sham_draws=len(sham_draws),
            inputs=inputs,
            headroom="shown" if bound else "doubtful" if notes else "unknown",
            notes=notes,
            asked=asked_for,
            memory=peak_memory(),
            **named(place),
            **about,
        )
        return {"provenance": source, "rows": rows}

    def keep_summary(condition: str, strength: float | None, summary: list[dict]) -> None:
        """Adds the means of a condition and writes the rows, unless they exist."""
        if (condition, strength) not in done:
            rows.extend(row | {"strength": strength} for row in summary)
            bar.update(condition != "sham")
            if folder is not None:
                folder.mkdir(exist_ok=True)
                take()
                write_json(folder / resume.ROWS, result())

    def keep(condition: str, strength: float | None, scored: Callable[[], list[dict]]) -> None:
        """Scores under a condition, unless its means exist."""
        if (condition, strength) not in done:
            keep_summary(condition, strength, rounded(summarise(scored())))

    def scored_shams(variant: Method, edit: Edit, scored: list[dict]) -> list[dict]:
        """Rows of the shams of an edit, and how much more the edit takes."""

        def make(other: Request) -> Edit:
            return edit_of(session, other, variant)

        drawn = resume.saved_shams(folder, variant)
        bar.update(len(drawn))
        for draw in sham_draws[len(drawn) :]:
            bar.desc = f"{variant}, sham {len(drawn) + 1}"
            drawn.append(score_shams(session, request, teacher_forced, make, [draw]))
            bar.update()
            if folder is not None:
                write_json(resume.sham_file(folder, variant), {"draws": drawn})
        shams = sum(drawn, [])
        if not scored:  # the edit was scored by an earlier run
            scored = score_edited(session, request, teacher_forced, edit, "edited", ["forget"])
        return shams + beyond_sham(scored, shams)

    first = f"continued from {folder}" if steps_done else "vanilla"
    steps = progress(sum(wanted.values()), first, steps_done)
    with resume.only_process(folder) as take, steps as bar:
        keep("vanilla", None, lambda: score(session, request, protocol))
        if bound:
            bar.desc = "oracle"
            given = {"protocol": protocol} if isinstance(oracle, str) else {}
            oracle_summary, oracle_models = oracle_rows(request, bound, **given, **place)
            models |= oracle_models
            keep_summary("oracle", None, oracle_summary)
            readings = [about_of(row) for row in rows if row["condition"] == "vanilla"]
            check_headroom(rows, [about for about in readings if about in TAUGHT_ANSWERS])
        elif has_own_questions:
            forget_set = request.eval_sets["forget"]
            notes += nothing_to_forget(rows, forget_set)
            if oracle and len(notes) == len({question.modality for question in forget_set}):
                raise ValueError(f"{'; '.join(notes)}; --no-oracle goes on all the same")
            for note in notes:
                warnings.warn(note, stacklevel=2)
        for variant, loaded in zip(methods, saved, strict=True):
            strength, scored = variant.settings.get("strength"), list[dict]()
            bar.desc = str(variant)
            edit = loaded or edit_of(session, request, variant)
            edits.append(edit)
            if folder is not None:
                edit.save(resume.edit_file(folder, variant))
                resume.keep_coefficients(session, request, folder)

            def score_edit(edit: Edit = edit, scored: list[dict] = scored) -> list[dict]:
                scored += score_edited(session, request, protocol, edit)
                return scored

            keep("edited", strength, score_edit)
            keep("sham", strength, partial(scored_shams, variant, edit, scored))
            if folder is not None:
                resume.sham_file(folder, variant).unlink(missing_ok=True)
    named_edits = {str(variant): edit for variant, edit in zip(methods, edits, strict=True)}
    return result() | {"answers": answers_after(session, request, named_edits)}, edits


def run_evaluation(
    model: str,
    group: str,
    percent: int,
    edit_file: Path | None = None,
    *,
    questions: str | None = None,
    people: Sequence[str] = (),
    **where: str,
) -> tuple[str, dict]:
    """Scores a model as it is and with a saved edit, on the sets of a group or of a file.

    It warns if the edit is for other people, or if the model does not know the people of a file.

    Returns:
        A verdict, a table and a closing sentence, and a dict of `provenance` and `rows` as
        `unlearn`, without shams; the provenance describes the `edit`, or has None.

    Raises:
        ValueError, OSError: as `request_of` and `Edit.load`; an edit of another model.
    """
    start, edit = time.perf_counter(), Edit.load(edit_file) if edit_file else None
    place = device_and_dtype(**where)
    session, request, _, about = build_request(
        model, group, percent, False, people, questions, **place
    )
    models, described, name = {model: fingerprint(session.model)}, None, "vanilla"
    if edit and edit_file:
        name = name_of_method(edit) + warn_of_other_people(edit, request)
        described = {
            "file": file_hash(edit_file),
            **edit.notes,
            "fits": edit.check_compatible(session.model),
        }
    protocol = forced_and_generated(request)
    if questions is not None:
        protocol = with_other_answers(protocol)
    with progress(2 if edit else 1, "vanilla") as bar:
        rows = score(session, request, protocol)
        if questions is not None:
            for note in nothing_to_forget(summarise(rows), request.eval_sets["forget"]):
                warnings.warn(note, stacklevel=2)
        if edit:
            bar.desc = "edited"
            bar.update()
            rows += score_edited(session, request, protocol, edit)
    source = provenance(
        seconds=time.perf_counter() - start,
        seed=0,
        models=models,
        edit=described,
        **named(place),
        **about,
    )
    summary = rounded(summarise(rows))
    verdict = outcome(summary, name) if edit else ""
    texts = filter(None, (verdict, table(summary), closing_sentence(summary, name)))
    return "\n\n".join(texts), {"provenance": source, "rows": summary}


def run_audit(
    model: str,
    group: str,
    percent: int,
    method: str,
    edit_file: Path | None = None,
    long: bool = False,
    *,
    questions: str | None = None,
    people: Sequence[str] = (),
    oracle: str | None = None,
    references: Path | None = None,
    findings_file: Path | None = None,
    **where: str,
) -> tuple[str, dict]:
    """Runs every probe on an edit of strangers or of a file's people, with sham and oracle.

    Args:
        method: the name of a method, with the settings of the book.
        edit_file: a saved edit in place of the method; it has no sham.
        long: whether to run the probes that take many minutes, too.
        findings_file: where the caller will write the findings; a printed command names it.
        questions: the source of the questions, for `benchmarks.jsonl.read_request`.
        people: the people to forget, in place of a group or of the set `forget`.
        oracle: the user's own oracle, a folder or a hub id.
        references: an earlier result of the same models and questions. Its rows of vanilla and of
            the oracle are read.

    Returns:
        The verdict with a table, and a dict of `provenance`, `verdict`, `rows` (the findings) and
        `references` (the probes' rows of vanilla and of the oracle).

    Raises:
        ValueError, OSError: an unknown method, group or model; an edit of another model;
            references of other models, people or questions.
    """
    start = time.perf_counter()
    for library in ("sklearn", "peft"):  # the probes that need them come last
        import_module(library)
    forget_by = method_of(method)
    place = device_and_dtype(**where)
    session, request, _, about = build_request(
        model, group, percent, False, people, questions, audited_sets, **place
    )
    if questions is None:
        request = replace(request, general=sample_of_general(load_people(), "audit"))
    others = None if edit_file else request.sham(0)  # refuses too few people before the edit
    beside, base = None, book_name(model)
    if oracle:
        beside = replacement(session.model, load(oracle, **place)[0])
    elif (
        not people
        and questions is None
        and base in TAUGHT
        and is_made(model_name(base, group, percent))
    ):
        beside, _ = make_edit(session, request, Oracle(base))
    models = {model: fingerprint(session.model)}
    if beside:
        with beside.on(session.model):
            models["oracle"] = fingerprint(session.model)
    origin: dict[str, Any] = {
        "models": models,
        "people": request.people,
        "data": about["data"][:16],
        "long": long,
    }
    earlier = earlier_references(references, origin) if references else None
    sham = None
    with progress(1, "the edit") as bar:
        if edit_file:
            edit = Edit.load(edit_file)
            edit.check_compatible(session.model)
            warn_of_other_people(edit, request)
        else:
            edit, _ = make_edit(session, request, forget_by)
        if others:
            bar.desc = "its sham"
            sham, _ = make_edit(session, others, forget_by)

        def show(steps: int, step: str) -> None:
            bar.total, bar.desc = 1 + steps, step
            bar.update()

        examined = audit_rows(session, request, edit, beside, sham, long, show, earlier)
    protocol = generated(request)
    answers = score(session, request, protocol, names=["forget"])
    answers += score_edited(session, request, protocol, edit, names=["forget"])
    probed = judge(examined)
    word, because = verdict(probed)
    source = provenance(
        seconds=time.perf_counter() - start,
        seed=0,
        edit=edit.notes,
        oracle="stands beside it" if beside else "strangers in its place",
        references=references.name if references else None,
        **about | origin | named(place),
    )
    reference = "oracle" if beside else "strangers"
    count_of_people = len(request.people)
    text = f"verdict: {word} ({people_text(count_of_people)})"
    meaning = MEANS[word]
    if because:
        text += f", by {', '.join(finding.label for finding in because[:3])}"
        meaning = meaning.format(because[0].edited, because[0].vanilla)
    asked_for = {
        "model": model,
        "group": group,
        "percent": percent,
        "questions": questions,
        "people": people,
        "oracle": oracle,
        **where,
    }
    advice = after_audit(word, method_of_edit(edit), asked_for, edit_file, findings_file)
    text += f": {meaning}\nnext: {advice}"
    text += f"\n\n{findings_table(probed, reference)}\n{COLUMNS.format(reference)}"
    shown = [finding for finding in probed if finding.strongest]
    text += f"\n\n{USED.format(sum(finding.used for finding in shown), len(shown))}"
    text += malformed(summarise(answers))
    if beside is None:
        text += f"\n{WITHOUT}"
    if count_of_people < FEW:
        text += f"\n{ONE_FORGOTTEN if count_of_people == 1 else ROUGH.format(count_of_people)}"
    if not request.general and "general" not in request.eval_sets:
        text += f"\n{NOTHING_GENERAL}"
    return text, {
        "provenance": source,
        "verdict": word,
        "rows": [asdict(finding) for finding in probed],
        "references": {name: examined[name] for name in REFERENCES},
    }


def earlier_references(file: Path, origin: dict) -> dict[str, list[dict]]:
    """Rows of vanilla and of the oracle of an earlier audit of the same models and questions.

    Args:
        origin: `models`, `people`, `data` and `long`, as in the provenance of an audit.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no references, or what was asked there differs.
    """
    content = read_json(file, "provenance", "references")
    other = [name for name in origin if content["provenance"].get(name) != origin[name]]
    if other:
        raise ValueError(f"the references of {file} are of other {', '.join(other)}")
    return {name: content["references"][name] for name in REFERENCES}
