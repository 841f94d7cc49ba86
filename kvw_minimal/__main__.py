"""The command line: `python -m kvw_minimal --help`."""

import json
import sys
import time
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import check_place, read_json, write_json
from .laboratory.arguments import read_layers, read_settings, read_strengths

NAME = "python -m kvw_minimal"
MISUSE = typer.BadParameter.__mro__[1]  # click's UsageError, which typer brings along


app = typer.Typer(help="Knowledge Vector Weakening, from the book.", add_completion=False)
Group = Annotated[str, typer.Option(help="A to E, or tuning-1, tuning-2")]
Forget = Annotated[int, typer.Option(help="percent of the people: 5, 10 or 15")]
ModelName = Annotated[str, typer.Option(help="pocket, a folder, or a hub id")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16")]
Json = Annotated[Path | None, typer.Option("--json", help="write rows here")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kvw-minimal {version('kvw-minimal')}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which this is")
    ] = False,
) -> None:
    pass


def _needs_results() -> None:
    from .laboratory.provenance import check_results

    check_results()


def _hand_over(said: str, result: dict, json_file: Path | None, edit: Any = None,
               edit_file: Path | None = None) -> None:  # fmt: skip
    """Write rows, then the edit, then print: one that fails does not lose the others."""
    with ExitStack() as rest:  # from the last to the first
        rest.callback(typer.echo, said)
        if edit_file is not None:
            rest.callback(edit.save, edit_file)
        if json_file is not None:
            rest.callback(write_json, json_file, result)


def _check_edit(edit: Path | None, json_file: Path | None) -> None:
    """The edit is there, and the rows can be written somewhere else."""
    check_place(json_file)
    if edit and not edit.is_file():
        raise typer.BadParameter(f"--edit {edit} does not exist, or is no ordinary file")
    if edit and json_file and edit.resolve() == json_file.resolve():
        raise ValueError(f"{edit} is the edit; the rows cannot go to one file with it")


@app.command()
def demo(
    group: Group = "A",
    picture: Annotated[Path | None, typer.Option(help="also draw it (PNG)")] = None,
) -> None:
    """Forget five people, live: their answers and two others' before and after."""
    from .laboratory import report

    check_place(picture)
    report.demo(group, picture)


@app.command()
def unlearn(
    context: typer.Context,
    *,
    model: ModelName = "pocket",
    questions: Annotated[str | None, typer.Option(help="a file of questions, a folder or a hub id "
                         "of MLLMU-Bench or CLEAR: its rows say who is forgotten")] = None,
    people: Annotated[
        str | None, typer.Option(help="who is forgotten instead, such as ada,ben")
    ] = None,
    forget: Forget = 5,
    group: Group = "A",
    method: Annotated[str, typer.Option(help="a method by name")] = "KVW one pass",
    strength: Annotated[str | None, typer.Option(help="total strength G, at least 0; or several, "
                        "such as 8,32,64", show_default="as tuned")] = None,
    layers: Annotated[str, typer.Option(help="0:3 or 0.0:1.0")] = "0.0:1.0",
    settings: Annotated[
        str, typer.Option(help="of another method, as JSON: '{\"rate\": 1e-3}'")
    ] = "",
    draws: Annotated[int, typer.Option(help="sham draws", min=1)] = 20,
    oracle: Annotated[bool, typer.Option(help="compare with the oracle, demand headroom")] = True,
    batch_size: Annotated[int | None, typer.Option(help="questions at a time", min=1)] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    save: Annotated[Path | None, typer.Option(help="a folder for rows and edits; an interrupted "
                    "run goes on there")] = None,
    save_edit: Annotated[Path | None, typer.Option(help="write the edit (safetensors)")] = None,
    json_file: Json = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what it would cost")] = False,
) -> None:  # fmt: skip
    """Forget people and score vanilla, edited, sham and oracle: a group's, or a file's."""
    from .laboratory import report

    check_place(save_edit, json_file, None if save and save.is_dir() else save)
    own = read_settings(settings)
    said = {name for name in context.params
            if "COMMANDLINE" in str(context.get_parameter_source(name))}  # fmt: skip
    words = [name for name in ("strength", "layers") if name in said]
    if words and (settings or not method.startswith("KVW")):
        raise typer.BadParameter(f"--{words[0]} is for KVW without --settings: put it into these")
    whom = "people" if questions is None else "questions"
    for name in ("group", "forget", "oracle") if {"people", "questions"} & said else ():
        if name in said and (name != "oracle" or oracle):
            raise typer.BadParameter(f"--{name} is for groups of strangers: leave it out, --{whom} "
                                     "says who is forgotten")  # fmt: skip
    each: list[dict] = [own] if settings else []
    if not settings and method.startswith("KVW"):
        each = [{"strength": G, "layers": read_layers(layers)} for G in read_strengths(strength)]
    if save_edit and len(each) > 1:
        raise typer.BadParameter("--save-edit holds one edit: --save FOLDER holds several")
    asked = model, group, forget, method, each or None, draws, oracle
    more: dict[str, Any] = {"people": [] if people is None else people.split(","),
                            "questions": questions, "batch_size": batch_size, "device": device,
                            "dtype": dtype}  # fmt: skip
    if dry_run:
        from .laboratory import expected

        typer.echo(expected.told(*asked, **more))
        return
    result, edits = report.unlearn(*asked, **more, folder=save)
    said_last = [*(edit.describe() for edit in edits), *report.tables(result)]
    _hand_over("\n".join(said_last), result, json_file, edits[0], save_edit)


@app.command()
def evaluate(
    model: ModelName = "pocket",
    forget: Forget = 5,
    group: Group = "A",
    edit: Annotated[Path | None, typer.Option(help="an edit to put on first")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Score a model as it is, or with a saved edit, on the four sets."""
    from .laboratory import report

    _check_edit(edit, json_file)
    result = report.evaluate(model, group, forget, edit, device=device, dtype=dtype)
    _hand_over(report.table(result["rows"]), result, json_file)


@app.command()
def audit(
    *,
    model: ModelName = "pocket",
    group: Group = "A",
    forget: Forget = 5,
    method: Annotated[str, typer.Option(help="a method, as the book chose it")] = "KVW one pass",
    edit: Annotated[Path | None, typer.Option(help="a saved edit in place of a method")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    json_file: Json = None,
) -> None:
    """Gone, or only quiet? Ask every probe of an edit, its sham and the oracle; minutes."""
    from .laboratory import report

    _check_edit(edit, json_file)
    said, result = report.audited(model, group, forget, method, edit, device=device, dtype=dtype)
    _hand_over(said, result, json_file)


def _of_strength(edit: Any, rows: Any) -> Any:
    """Of the rows of several strengths those of an edit, and those of no edit."""
    own = edit.notes.get("settings", {}).get("strength")
    rows = rows if isinstance(rows, list) else [rows]
    return [row for row in rows if not isinstance(row, dict) or row.get("strength") in (None, own)]


@app.command("export")
def export_edit(
    folder: Annotated[Path, typer.Argument(help="a new one")],
    *,
    edit: Annotated[Path, typer.Option(help="a saved edit")],
    model: ModelName = "pocket",
    format: Annotated[str, typer.Option(help="merged, peft or factors")] = "merged",
    scores: Annotated[Path | None, typer.Option(help="rows of `unlearn --json`")] = None,
    named: Annotated[bool, typer.Option(help="say in the card for whom it was made")] = False,
) -> None:
    """Write a saved edit as a folder that other tools read, with a model card."""
    from . import sharing
    from .edits import Edit
    from .taught import load

    _check_edit(edit, None)
    sharing.check_request(folder, format)
    made = Edit.load(edit)
    rows = _of_strength(made, read_json(scores, "rows")["rows"]) if scores else None
    found, processor = load(model)
    sharing.export(made, found, processor, folder, format, scores=rows, named=named)
    typer.echo(f"{folder} holds the edit as {format}; its README.md says how to load it")


@app.command("check")
def check_method(
    method: Annotated[str, typer.Argument(metavar="MODULE:METHOD", help="such as mine.py:forget")],
    settings: Annotated[str, typer.Option(help="as JSON; else the usual")] = "",
) -> None:
    """Say which promises of every method a method of your own keeps, and which it breaks."""
    from .audit.checking import check

    said, whole = check(method, read_settings(settings) if settings else None)
    typer.echo(said)
    raise typer.Exit(int(not whole))


@app.command()
def validate(
    file: Annotated[str, typer.Argument(help="lines of JSON, parquet, or a hub id")],
) -> None:
    """Name every bad row of a file with your own questions, and what to do about it."""
    from .benchmarks.own import validate_command

    raise typer.Exit(validate_command(file))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="of the folder")],
    method: Annotated[bool, typer.Option("--method", help="a method, not an experiment")] = False,
) -> None:
    """Make a folder of your own to fork: a notebook, questions, and what checks them."""
    from .laboratory import forking

    made = forking.new(name, "method" if method else "experiment")
    typer.echo(f"{made}: {', '.join(sorted(path.name for path in made.iterdir()))}")


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(help="rows of your own, as `run --into` stores them")],
    json_file: Json = None,
) -> None:
    """Lay rows of your own beside the book's, and say which have no counterpart there."""
    _needs_results()
    from .laboratory import counterparts
    from .laboratory.provenance import file_hash, provenance
    from .strangers.people import load_people

    check_place(json_file)
    if json_file and json_file.resolve() == file.resolve():
        raise ValueError(f"{file} holds your rows; what comes of them cannot go to one file")
    start = time.perf_counter()
    said, result = counterparts.compare(file)
    source = provenance(seconds=time.perf_counter() - start, seed=0, models={},
                        data=load_people().checksum, rows=file_hash(file))  # fmt: skip
    _hand_over(said, {"provenance": source} | result, json_file)


@app.command()
def doctor(
    targets: Annotated[bool, typer.Option(help="also score the models")] = False,
    card: Annotated[bool, typer.Option(help="measure and store what pocket's card says")] = False,
) -> None:
    """Say whether everything is in its place and, with --targets, which targets are reached."""
    from . import doctor as checks

    if card:
        checks.write_card()
    elif not checks.examine(targets):
        raise typer.Exit(1)


@app.command()
def train(
    what: Annotated[str, typer.Argument(help="eye, pocket, smol-connector, smol, ear or voices")],
    group: Annotated[str | None, typer.Option(help="make the oracle of this group")] = None,
    forget: Forget = 5,
    device: str = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="smol: another than usual", min=0)] = None,
) -> None:
    """Train a part, vanilla, or an oracle; resumes where it was interrupted."""
    from .taught import catalogue

    typer.echo(json.dumps(catalogue.train(what, group, forget, device, threads, seed), indent=1))


@app.command()
def card(name: Annotated[str, typer.Argument(help="smol-before, smol or an oracle of it")]) -> None:
    """Measure and store what the card of smol says about one of its models."""
    from .laboratory.provenance import provenance
    from .taught import cards

    note = provenance(seconds=0, seed=0, models={}, data="")
    cards.measure(name, note={key: note[key] for key in ("command", "commit", "date")})


@app.command()
def strangers() -> None:
    """Make the hundred strangers again, byte for byte, in data/strangers."""
    from .strangers import make

    make.main()


@app.command()
def replicate(
    *,
    benchmark: Annotated[str, typer.Option(help="mllmu or clear")],
    data: Annotated[str, typer.Option(help="a folder with one sub-folder a config, or a hub id")],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a hub id")],
    forget: Annotated[int, typer.Option(help="percent of the people")] = 5,
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
    from .laboratory.provenance import provenance

    check_place(json_file)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
        result = benchmarks.replicate(
            benchmark, data, model, forget, oracle=oracle, strength=strength, schedule=schedule,
            dtype=dtype, device=device, limit=limit, batch_size=batch_size, seed=seed,
            progress=True,
        )  # fmt: skip
    said, source = benchmarks.table(result["rows"]), provenance(**result["provenance"])
    _hand_over(said, result | {"provenance": source}, json_file)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="one of `results`")],
    lists: Annotated[list[str] | None, typer.Argument(help="lists of it; all unless given")] = None,
    groups: Annotated[str, typer.Option(help="report groups, such as A,B; all unless given")] = "",
    into: Annotated[Path | None, typer.Option(help="another file than the stored one")] = None,
) -> None:
    """Measure all that is missing of an experiment; resumes where it was interrupted."""
    _needs_results()
    from .laboratory import plans, running

    check_place(into)
    named = groups.split(",") if groups else []
    found = plans.plans_of(experiment)
    every = [name for plan in found for name in plan.lists]
    places = [group for plan in found for group in plan.groups]
    for given, known, kind in ((lists, every, "list"), (named, places, "group")):
        strange = sorted(set(given or ()) - set(known))
        if strange:
            raise ValueError(f"no {kind} {strange[0]!r} in {experiment}; there are "
                             f"{', '.join(dict.fromkeys(known))}")  # fmt: skip
    for plan in found:
        own = [name for name in plan.lists if name in (lists or plan.lists)]
        its = [group for group in plan.groups if group in (named or plan.groups)]
        if own and its:
            typer.echo(running.run(plan, own, into, its))


@app.command("results")
def list_results() -> None:
    """Every experiment, its lists, and how much of it is measured."""
    _needs_results()
    from .laboratory import plans, rows

    for plan in plans.PLANS:
        path, measured = rows.path_of(plan.experiment), set()
        if path.is_file():
            stored, _ = rows.read_rows(plan.experiment, fresh=False)
            measured = rows.cells(stored[stored["subject"] == plan.subject])
        for name in plan.lists:
            entries = plan.entries(name)
            there = sum(any((t.method, t.text, group) in measured for t in those)
                        for those in entries.values() for group in plan.groups)  # fmt: skip
            typer.echo(f"{plan.experiment:22} {plan.subject:18} {name:14} {there:4} of "
                       f"{len(entries) * len(plan.groups):4} labels x groups")  # fmt: skip


@app.command()
def verify(
    rows: Annotated[int, typer.Option(help="random trials of each subject", min=1)] = 1,
    seed: Annotated[int | None, typer.Option(help="of the choice of trials", min=0)] = None,
    experiment: Annotated[str, typer.Option(help="whose trials")] = "replication-pocket",
) -> None:
    """Make random trials of the stored results again, through the runner, and compare."""
    _needs_results()
    from .laboratory import running

    good = True
    for trial in running.again(experiment, rows, seed):
        good &= trial["gap"] <= running.TOLERANCE
        typer.echo(f"{trial['subject']}, {trial['method']}, {trial['group']}: largest gap of a "
                   f"mean {trial['gap']:.4f}")  # fmt: skip
    if not good:
        raise typer.Exit(1)


@app.command()
def bench(
    file: Annotated[Path | None, typer.Argument(help="store the rows here")] = None,
) -> None:
    """What measuring coefficients costs, done in three ways; minutes, on a quiet machine."""
    from .laboratory.provenance import provenance
    from .speed import bench as measured

    measured.main(file, provenance=provenance)


@app.command("measure")
def measure_file(
    *,
    questions: Annotated[Path, typer.Option(help="a file that `validate` accepts")],
    into: Annotated[Path, typer.Option(help="write the coefficients here (safetensors)")],
    model: ModelName = "pocket",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    batch_size: Annotated[int, typer.Option(help="questions at a time", min=1)] = 16,
) -> None:
    """Measure the coefficients of all who stand in a file; under `torchrun` by many processes."""
    from .benchmarks.own import read_questions
    from .sharing import parts
    from .taught.catalogue import load, placed

    place = placed(device, dtype)
    state = parts.started(place["device"])
    try:
        with parts.agreed():
            check_place(into)
            asked = parts.sides(read_questions(questions))
            found, processor = load(model, str(state.device), place["dtype"])
        said = parts.measure_in_parts(found, processor, asked, into, batch_size, progress=True)
    except (ValueError, OSError) as error:
        if state.is_main_process:
            raise
        raise typer.Exit(2) from error  # one of them says it
    if state.is_main_process:
        typer.echo(said)


def sentence(error: BaseException) -> str | None:
    """What is wrong with the call or with the place it is made in, in one line.

    Returns:
        None for everything else: that is a fault of the program, and worth a traceback.
    """
    said = " ".join(getattr(error, "format_message", error.__str__)().split())
    if isinstance(error, MISUSE):
        return f"{said} ({NAME} --help says more)"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was stored until now is kept"
    if isinstance(error, BrokenPipeError):
        return "nobody reads what is printed any more"
    if isinstance(error, ModuleNotFoundError) and not f"{error.name}".startswith("kvw_minimal"):
        from .doctor import how_to_install

        return said + how_to_install(error.name or "")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return (said or type(error).__name__) if isinstance(error, (ValueError, OSError)) else None


def _call(arguments: list[str]) -> int:
    """Run a command; its exit status. What it prints is out by then, or it fails."""
    command, status = typer.main.get_command(app), 0
    try:
        with command.make_context(NAME, arguments) as context:
            command.invoke(context)
    except typer.Exit as left:
        status = left.exit_code
    print(end="", flush=True)
    return status


def main() -> None:
    """Run the command; what can be expected to go wrong is one clear line, not a traceback."""
    start = time.perf_counter()
    try:
        status = _call(sys.argv[1:])
    except (Exception, KeyboardInterrupt) as error:
        said = sentence(error)
        if said is None:
            raise
        status = 130 if isinstance(error, KeyboardInterrupt) else 2
        typer.echo(f"error: {said}", err=True)
        try:
            print(end="", flush=True)
        except OSError:
            sys.stdout = None  # type: ignore[assignment] # else Python tries once more
    if sys.stderr and sys.stderr.isatty():
        typer.echo(f"({time.perf_counter() - start:.0f} s)", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
