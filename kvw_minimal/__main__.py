"""The command line: `python -m kvw_minimal --help`."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .replicate import replicate_command
from .results import check_place, write_json
from .unlearn import STRENGTH

app = typer.Typer(help="Knowledge Vector Weakening, from the book.", add_completion=False)
Strength = Annotated[float, typer.Option(help="total strength G, at least 0")]
Schedule = Annotated[str, typer.Option(help="'one pass' or 'published'")]
Group = Annotated[str, typer.Option(help="A to E, or tuning-1, tuning-2")]
Forget = Annotated[int, typer.Option(help="percent of the people: 5, 10 or 15")]
ModelName = Annotated[str, typer.Option(help="pocket, a folder, or a hub id")]


def _parse_layers(text: str) -> tuple:
    """`0:3` is layers 0 to 3, `0.0:1.0` fractions of the depth."""
    try:
        first, last = text.split(":")
        return (float(first), float(last)) if "." in text else (int(first), int(last))
    except ValueError as error:
        raise typer.BadParameter(f"--layers {text!r}: write 0:3 or 0.0:1.0") from error


@app.command()
def demo(
    group: Group = "A",
    picture: Annotated[Path | None, typer.Option(help="also draw it (PNG)")] = None,
) -> None:
    """Forget five people, live: their answers and two others' before and after."""
    from . import report

    check_place(picture)
    report.demo(group, picture)


@app.command()
def unlearn(
    model: ModelName = "pocket",
    forget: Forget = 5,
    group: Group = "A",
    strength: Strength = STRENGTH,
    schedule: Schedule = "one pass",
    layers: Annotated[str, typer.Option(help="0:3 or 0.0:1.0")] = "0.0:1.0",
    draws: Annotated[int, typer.Option(help="sham draws", min=1)] = 20,
    oracle: Annotated[bool, typer.Option(help="compare with the oracle, demand headroom")] = True,
    save_edit: Annotated[Path | None, typer.Option(help="write the edit (safetensors)")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write rows here")] = None,
) -> None:
    """Forget the people of a group and score vanilla, edited, sham and oracle."""
    from . import report

    check_place(save_edit, json_file)
    result, edit = report.unlearn(
        model,
        group,
        forget,
        strength,
        schedule,
        _parse_layers(layers),
        draws,
        oracle,
        progress=True,
    )
    typer.echo(edit.describe())
    typer.echo(report.table(result["rows"]))
    if save_edit is not None:
        edit.save(save_edit)
    if json_file is not None:
        write_json(json_file, result)


@app.command()
def evaluate(
    model: ModelName = "pocket",
    forget: Forget = 5,
    group: Group = "A",
    edit: Annotated[
        Path | None, typer.Option(help="an edit to put on first", exists=True, dir_okay=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write rows here")] = None,
) -> None:
    """Score a model as it is, or with a saved edit, on the four sets."""
    from . import report

    check_place(json_file)
    result = report.evaluate(model, group, forget, edit)
    typer.echo(report.table(result["rows"]))
    if json_file is not None:
        write_json(json_file, result)


@app.command()
def doctor(targets: Annotated[bool, typer.Option(help="also score the models")] = False) -> None:
    """Say whether everything is in its place and, with --targets, which targets are reached."""
    from . import doctor as checks

    if not checks.examine(targets):
        raise typer.Exit(1)


@app.command()
def train(
    what: Annotated[str, typer.Argument(help="eye, pocket, smol-connector or smol")],
    group: Annotated[str | None, typer.Option(help="make the oracle of this group")] = None,
    forget: Forget = 5,
    device: str = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
    seed: Annotated[int | None, typer.Option(help="smol: another seed than the usual")] = None,
) -> None:
    """Train the eye, vanilla, or an oracle; resumes where it was interrupted."""
    from . import pocket, smol

    if not what.startswith("smol"):
        if seed is not None:
            raise ValueError("--seed is for smol; pocket has the one seed of its recipe")
        cost = pocket.train(what, group, forget, device, threads)
    else:
        cost = smol.train(what, group, forget, device, threads, seed)
    typer.echo(json.dumps(cost, indent=1))


app.command("replicate")(replicate_command)


@app.command()
def verify(
    rows: Annotated[int, typer.Option(help="rows of each method", min=1)] = 1,
    seed: Annotated[int | None, typer.Option(help="which rows; another choice each time")] = None,
    model: Annotated[str, typer.Option(help="pocket, or smol (half an hour)")] = "pocket",
) -> None:
    """Make random rows of the stored replication again and compare."""
    from . import replication

    found = replication.verify(rows, seed=seed, model=model)
    for row in found:
        verdict = "same     " if row["same"] else "DIFFERENT"
        typer.echo(f"{verdict} {row['contender']:22} {row['group']} {row['percent']:2} % "
                   f"{row['set']:8} {row['modality']:6} {row['metric']:12} "
                   f"stored {row['value']:.4f}, again {row['again']:.4f}")  # fmt: skip
    if not all(row["same"] for row in found):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; expected errors are one clear line, not a traceback."""
    start = time.perf_counter()
    try:
        app()
    except (ValueError, OSError, KeyError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    finally:
        if sys.stderr.isatty():
            typer.echo(f"({time.perf_counter() - start:.0f} s)", err=True)


if __name__ == "__main__":
    main()
