"""The command line: `python -m kvw_minimal --help`.

Rows and findings go to `--json`, and what a later command reads to `--save`. A command that makes
one new folder takes its name as an argument.
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from kvw_experiments.commands import book, new

from .atomic_io import check_place, read_json
from .evaluation.options import (
    Device,
    Dtype,
    ForgetPercent,
    Group,
    Json,
    ModelName,
    People,
    Questions,
    how_to_install,
    read_layers,
    read_people,
    read_settings,
    read_strengths,
    write_outputs,
)

NAME = "python -m kvw_minimal"
MISUSE = typer.BadParameter.__mro__[1]  # click's UsageError, which comes with typer
#: modules whose FutureWarnings are for their own developers
LIBRARIES = r"(torch|transformers|peft|sklearn)(\.|$)"


class Terminated(KeyboardInterrupt):
    """Another program asks this one to end (SIGTERM), as a job queue does when time is over."""


app = typer.Typer(help="Knowledge Vector Weakening, from the book.", add_completion=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvw-minimal {version('kvw-minimal')}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which this is")
    ] = False,
) -> None:
    pass


def _check_edit(edit: Path | None, json_file: Path | None) -> None:
    """Checks that the edit exists and that the rows go to another file."""
    check_place(json_file)
    if edit and not edit.is_file():
        raise typer.BadParameter(f"--edit {edit} does not exist, or is no ordinary file")
    if edit and json_file and edit.resolve() == json_file.resolve():
        raise ValueError(f"{edit} is the edit; the rows cannot go to one file with it")


def _typed(context: typer.Context) -> set[str]:
    """The parameters that stand on the command line."""
    return {
        name for name in context.params if "COMMANDLINE" in str(context.get_parameter_source(name))
    }


def _check_source(typed: set[str]) -> None:
    """Refuses the options of groups beside people or questions."""
    source = "questions" if "questions" in typed else "people"
    for name in ("group", "forget_percent") if {"people", "questions"} & typed else ():
        if name in typed:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} is for groups of strangers: leave it out, "
                f"--{source} says who is forgotten"
            )


@app.command("unlearn")
def unlearn_command(
    context: typer.Context,
    *,
    model: ModelName = "pocket",
    questions: Questions = None,
    people: People = None,
    forget_percent: ForgetPercent = 5,
    group: Group = "A",
    method: Annotated[str, typer.Option(help="a name of `methods`")] = "KVW one pass",
    strength: Annotated[
        str | None,
        typer.Option(
            help="total strength G, at least 0; or several, such as 8,32,64",
            show_default="as tuned",
        ),
    ] = None,
    layers: Annotated[str, typer.Option(help="0:3 or 0.0:1.0")] = "0.0:1.0",
    settings: Annotated[
        str, typer.Option(help="of another method, as JSON: '{\"rate\": 1e-3}'")
    ] = "",
    sham_draws: Annotated[int, typer.Option(help="edits made for other people", min=1)] = 20,
    oracle: Annotated[
        str | None, typer.Option(help="your own: a model that was never taught the forgotten")
    ] = None,
    no_oracle: Annotated[
        bool, typer.Option("--no-oracle", help="do not compare with it, demand no headroom")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="questions at a time", min=1)] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    save: Annotated[
        Path | None,
        typer.Option(help="a folder for rows and edits; an interrupted run goes on there"),
    ] = None,
    save_edit: Annotated[Path | None, typer.Option(help="write the edit (safetensors)")] = None,
    measured: Annotated[
        Path | None, typer.Option(help="coefficients that `measure` wrote, for KVW one pass")
    ] = None,
    seed: Annotated[int, typer.Option(help="of what the method draws", min=0)] = 0,
    config: Annotated[
        Path | None, typer.Option(help="rows of an earlier run: what is not typed is as there")
    ] = None,
    json_file: Json = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would cost")] = False,
) -> None:
    """Forget people and score vanilla, edited, sham and oracle: a group's, or a file's."""
    from .evaluation import pipeline
    from .kvw import KVW, PublishedKVW
    from .methods import method_of

    check_place(save_edit, json_file, None if save and save.is_dir() else save)
    base = method_of(method, read_settings(settings))
    typed = _typed(context)
    words = [name for name in ("strength", "layers") if name in typed]
    if words and (settings or not isinstance(base, KVW | PublishedKVW)):
        raise typer.BadParameter(f"--{words[0]} is for KVW without --settings: put it into these")
    _check_source(typed)
    methods = [base]
    if isinstance(base, KVW | PublishedKVW) and not settings:
        base = replace(base, layers=tuple(read_layers(layers)))
        methods = [replace(base, strength=G) for G in read_strengths(strength, base.strength)]
    arguments: dict[str, Any] = {
        "model": model,
        "group": group,
        "percent": forget_percent,
        "draws": sham_draws,
        "oracle": oracle or not no_oracle,
        "people": read_people(people),
        "questions": questions,
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    if config:
        configured, former = pipeline.asked_in(config)
        short = {"forget_percent": "percent", "sham_draws": "draws", "no_oracle": "oracle"}
        now = {short.get(name, name) for name in typed}
        arguments |= {name: value for name, value in configured.items() if name not in now}
        methods = methods if {"method", "settings", "strength", "layers"} & typed else former
    if save_edit and len(methods) > 1:
        raise typer.BadParameter("--save-edit holds one edit: --save FOLDER holds several")
    arguments["methods"] = methods
    if dry_run:
        from .evaluation import estimate_cost

        typer.echo(estimate_cost.format_estimate(**arguments))
        return
    result, edits = pipeline.run_unlearning(**arguments, folder=save, measured=measured)
    text = pipeline.results_text(result, arguments, save)
    write_outputs(text, result, json_file, edits[0], save_edit)


@app.command("evaluate")
def evaluate_command(
    context: typer.Context,
    *,
    model: ModelName = "pocket",
    forget_percent: ForgetPercent = 5,
    group: Group = "A",
    edit: Annotated[Path | None, typer.Option(help="an edit to put on first")] = None,
    questions: Questions = None,
    people: People = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Score a model as it is and with a saved edit, on the sets of a group or a file."""
    from .evaluation import pipeline

    _check_source(_typed(context))
    _check_edit(edit, json_file)
    text, result = pipeline.run_evaluation(
        model,
        group,
        forget_percent,
        edit,
        questions=questions,
        people=read_people(people),
        device=device,
        dtype=dtype,
    )
    write_outputs(text, result, json_file)


@app.command("audit")
def audit_command(
    context: typer.Context,
    *,
    model: ModelName = "pocket",
    group: Group = "A",
    forget_percent: ForgetPercent = 5,
    method: Annotated[str, typer.Option(help="a method, as the book chose it")] = "KVW one pass",
    edit: Annotated[Path | None, typer.Option(help="a saved edit in place of a method")] = None,
    questions: Questions = None,
    people: People = None,
    oracle: Annotated[
        str | None, typer.Option(help="your own: a model that was never taught the forgotten")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            help="`audit --json` of another edit: vanilla and oracle are not probed again"
        ),
    ] = None,
    long: Annotated[bool, typer.Option("--long", help="with long relearning: an hour")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Run every probe on an edit, its sham and the oracle: gone, or only quiet? Takes minutes."""
    from .evaluation import pipeline

    _check_source(_typed(context))
    _check_edit(edit, json_file)
    text, result = pipeline.run_audit(
        model,
        group,
        forget_percent,
        method,
        edit,
        long,
        questions=questions,
        people=read_people(people),
        oracle=oracle,
        references=references,
        findings_file=json_file,
        device=device,
        dtype=dtype,
    )
    write_outputs(text, result, json_file)


@app.command("methods")
def methods_command(
    name: Annotated[
        str | None, typer.Argument(help="one method, with its settings explained")
    ] = None,
) -> None:
    """List all methods, recommended ones first: class, settings with defaults, and needs."""
    from .evaluation.options import methods_table

    typer.echo(methods_table(name))


def _of_strength(edit: Any, rows: Any) -> Any:
    """Selects the rows with the strength of an edit, and the rows without a strength."""
    strengths = (None, edit.notes.get("settings", {}).get("strength"))
    rows = rows if isinstance(rows, list) else [rows]
    return [row for row in rows if not isinstance(row, dict) or row.get("strength") in strengths]


def _for_card(edit: Any, files: list[Path]) -> tuple[list | None, str | None]:
    """The rows of `unlearn` for an edit, and the verdict of its audit; None where no file has them.

    Raises:
        ValueError: an audit of another edit.
    """
    rows, verdict = None, None
    for file in files:
        content = read_json(file, "rows")
        if "verdict" not in content:
            rows = _of_strength(edit, content["rows"])
            continue
        audited, about = content["provenance"]["edit"], ("method", "settings", "people")
        if any(audited.get(name) != edit.notes.get(name) for name in about):
            raise ValueError(f"{file} is the audit of another edit")
        verdict = content["verdict"]
    return rows, verdict


@app.command("export")
def export_command(
    folder: Annotated[Path, typer.Argument(help="a new one")],
    *,
    edit: Annotated[Path, typer.Option(help="a saved edit")],
    model: ModelName = "pocket",
    format: Annotated[str, typer.Option(help="merged, peft or factors")] = "merged",
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="rows of `unlearn --json`; once more, those of `audit --json`"),
    ] = None,
    named: Annotated[bool, typer.Option(help="say in the card for whom it was made")] = False,
    base_model: Annotated[str | None, typer.Option(help="hub id of the unedited model")] = None,
    license: Annotated[str | None, typer.Option(help="of the result, such as mit")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="a file: its questions to forget and as many to retain are scored again, in a "
            "fresh process without this package"
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="an id of the hub (never tried: no network here)")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Write a saved edit as a folder that other tools read, with a model card."""
    from huggingface_hub import create_repo, upload_folder

    from . import sharing
    from .benchmarks.jsonl import read_request
    from .edits import Edit
    from .results import falls_short
    from .zoo import load
    from .zoo.catalogue import check_hub, device_and_dtype

    _check_edit(edit, None)
    sharing.check_request(folder, format)
    if check and format == "peft":
        import_module("peft")  # the fresh process needs it
    if push_to_hub:
        check_hub()
    saved = Edit.load(edit)
    rows, verdict = _for_card(saved, scores or [])
    request = read_request(check) if check else None
    loaded, processor = load(model, **device_and_dtype(device, dtype))
    sharing.export_edit(
        saved,
        loaded,
        processor,
        folder,
        format,
        scores=rows,
        named=named,
        base_model=base_model,
        license=license,
        verdict=verdict,
    )
    typer.echo(f"{folder} holds the edit as {format}; its README.md says how to load it")
    if rows and falls_short(rows):
        typer.echo("note: by these scores the edit fails; the README.md says in what")
    if request:
        questions = request.forget + request.retain[: len(request.forget)]
        text, same = sharing.repeat_scores(
            folder, saved, loaded, processor, questions, base_model or ""
        )
        whole = len(request.forget) + len(request.retain)
        typer.echo(f"{text}; {len(questions)} of {whole} were asked")
        if not same:
            raise typer.Exit(1)
    if push_to_hub:
        create_repo(push_to_hub, exist_ok=True)
        upload_folder(repo_id=push_to_hub, folder_path=folder)
        typer.echo(f"the folder is on the hub as {push_to_hub}")


@app.command("check")
def check_command(
    method: Annotated[str, typer.Argument(metavar="MODULE:METHOD", help="such as mine.py:Mine")],
    settings: Annotated[str, typer.Option(help="as JSON; else the usual")] = "",
) -> None:
    """Check which promises of every method your own method keeps, and which it breaks."""
    from .testing.check_command import check

    text, passed = check(method, read_settings(settings) if settings else None)
    typer.echo(text)
    raise typer.Exit(int(not passed))


@app.command("validate")
def validate_command(
    file: Annotated[str, typer.Argument(help="lines of JSON, parquet, or a hub id")],
    model: Annotated[
        str | None,
        typer.Option(help="also put the questions into its form, and ask it one of each kind"),
    ] = None,
) -> None:
    """Name every bad row of a file with your own questions, and its remedy."""
    from .benchmarks.jsonl import print_problems

    status = print_problems(file)
    if model and not status:
        from .evaluation.pipeline import try_questions

        typer.echo(try_questions(file, model))
    raise typer.Exit(status)


@app.command("replicate")
def replicate_command(
    *,
    benchmark: Annotated[str, typer.Option(help="mllmu or clear")],
    data: Annotated[str, typer.Option(help="a folder with one sub-folder a config, or a hub id")],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a hub id")],
    forget_percent: ForgetPercent = 5,
    oracle: Annotated[str | None, typer.Option(help="a model never taught the forgotten")] = None,
    strength: Annotated[float | None, typer.Option(help="total G; else as tuned")] = None,
    schedule: Annotated[str, typer.Option(help="'one pass' or 'published'")] = "one pass",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    limit: Annotated[int | None, typer.Option(help="a trial: so many questions a kind")] = None,
    batch_size: Annotated[int, typer.Option(help="questions at a time", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="of the sham draw and the options' order", min=0)] = 0,
    json_file: Json = None,
) -> None:
    """Run KVW and its controls on MLLMU-Bench or CLEAR."""
    from .benchmarks import replicate as benchmarks
    from .evaluation.provenance import provenance
    from .results import score_table

    check_place(json_file)
    result = benchmarks.replicate(
        benchmark,
        data,
        model,
        forget_percent,
        oracle=oracle,
        strength=strength,
        schedule=schedule,
        dtype=dtype,
        device=device,
        limit=limit,
        batch_size=batch_size,
        seed=seed,
        progress=True,
    )
    text = f"{score_table(result['rows'])}\n{benchmarks.LEGEND}"
    source = provenance(**result["provenance"])
    write_outputs(text, result | {"provenance": source}, json_file)


@app.command("measure")
def measure_command(
    *,
    questions: Annotated[Path, typer.Option(help="a file that `validate` accepts")],
    save: Annotated[Path, typer.Option(help="write the coefficients here (safetensors)")],
    model: ModelName = "pocket",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="questions at a time", min=1)] = 16,
) -> None:
    """Measure the coefficients of all people in a file; `torchrun` runs many processes."""
    from . import distributed
    from .benchmarks.jsonl import read_questions
    from .zoo.catalogue import device_and_dtype, load

    place = device_and_dtype(device, dtype)
    state = distributed.started(place["device"])
    try:
        with distributed.fail_together():
            check_place(save)
            rows = distributed.sides(read_questions(questions))
            loaded, processor = load(model, str(state.device), place["dtype"])
        text = distributed.measure_in_parts(
            loaded, processor, rows, save, batch_size, progress=True
        )
    except (ValueError, OSError) as error:
        if state.is_main_process:
            raise
        raise typer.Exit(2) from error  # the main process prints the message
    if state.is_main_process:
        typer.echo(text)


app.add_typer(book, name="book")
app.command()(new)


def sentence(error: BaseException) -> str | None:
    """Describes an error of the user or of the environment in one line.

    Returns:
        The sentence; None for any other error: that is a fault of the program, with a traceback.
    """
    text = " ".join(getattr(error, "format_message", error.__str__)().split())
    if isinstance(error, MISUSE):
        return f"{text} ({NAME} --help says more)"
    if isinstance(error, KeyboardInterrupt):
        how = "ended from outside" if isinstance(error, Terminated) else "interrupted"
        return f"{how}; a command with --save keeps its rows, and goes on when it is given again"
    if isinstance(error, BrokenPipeError):
        return "nobody reads what is printed any more"
    if isinstance(error, ModuleNotFoundError) and not f"{error.name}".startswith("kvw_minimal"):
        return text + how_to_install(error.name or "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return (text or type(error).__name__) if isinstance(error, (ValueError, OSError)) else None


def _call(arguments: list[str]) -> int:
    """Runs a command, flushes its output, and returns its exit status."""
    command, status = typer.main.get_command(app), 0
    try:
        with command.make_context(NAME, arguments) as context:
            command.invoke(context)
    except typer.Exit as ended:
        status = ended.exit_code
    print(end="", flush=True)
    return status


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into an exception inside the block. `torchrun` ends its processes itself."""

    def terminate(*_: object) -> None:
        raise Terminated

    if "RANK" in os.environ:
        yield
        return
    former = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def main() -> None:
    """Runs the command; an expected error prints one clear line, not a traceback."""
    start = time.perf_counter()
    warnings.filterwarnings("ignore", category=FutureWarning, module=LIBRARIES)
    warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
    try:
        with _terminable():
            status = _call(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        message = sentence(error)
        if message is None:
            raise
        status = 2
        if isinstance(error, KeyboardInterrupt):
            status = 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
        typer.echo(f"error: {message}", err=True)
        try:
            print(end="", flush=True)
        except OSError:
            sys.stdout = None  # type: ignore[assignment] # else Python flushes once more
    if sys.stderr and sys.stderr.isatty():
        typer.echo(f"({time.perf_counter() - start:.0f} s)", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
