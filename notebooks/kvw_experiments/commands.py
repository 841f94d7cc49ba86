"""The commands of the book itself: `python -m kvw_minimal book --help`, and `new`.

Most of them need this repository: its stored results and what they are made by.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from kvw_minimal.atomic_io import check_place
from kvw_minimal.evaluation.options import ForgetPercent, Group, Json, write_outputs

book = typer.Typer(help="What this book is made with: its models, experiments and results.")


def _needs_results() -> None:
    from .summary_files import check_results

    check_results()


@book.command()
def demo(
    group: Group = "A",
    picture: Annotated[Path | None, typer.Option(help="also draw it (PNG)")] = None,
) -> None:
    """Forget five people, live: their answers and two others' before and after."""
    from .demo import demo as show

    check_place(picture)
    show(group, picture)


@book.command()
def compare(
    file: Annotated[
        Path, typer.Argument(help="rows of your own, as `book run --save` stores them")
    ],
    json_file: Json = None,
) -> None:
    """Lay rows of your own beside the book's, and say which have no counterpart there."""
    _needs_results()
    from kvw_minimal.evaluation.provenance import file_hash, provenance
    from kvw_minimal.strangers.people import load_people

    from . import comparison

    check_place(json_file)
    if json_file and json_file.resolve() == file.resolve():
        raise ValueError(f"{file} holds your rows; what comes of them cannot go to one file")
    start = time.perf_counter()
    text, result = comparison.compare(file)
    source = provenance(
        seconds=time.perf_counter() - start,
        seed=0,
        models={},
        data=load_people().checksum,
        rows=file_hash(file),
    )
    write_outputs(text, {"provenance": source} | result, json_file)


@book.command()
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


@book.command()
def card(name: Annotated[str, typer.Argument(help="smol-before, smol or an oracle of it")]) -> None:
    """Measure and store what the card of smol says about one of its models."""
    from kvw_minimal.evaluation.provenance import provenance

    from . import cards

    cards.measure(name, note=provenance(seconds=0, seed=0, models={}, data=""))


@book.command()
def run(
    experiment: Annotated[str, typer.Argument(help="one of `book results`")],
    lists: Annotated[list[str] | None, typer.Argument(help="lists of it; all unless given")] = None,
    groups: Annotated[str, typer.Option(help="report groups, such as A,B; all unless given")] = "",
    save: Annotated[Path | None, typer.Option(help="another file than the stored one")] = None,
) -> None:
    """Measure the missing trials of an experiment; resumes where it was interrupted."""
    _needs_results()
    from . import plans, runner

    check_place(save)
    named = groups.split(",") if groups else []
    chosen_plans = plans.plans_of(experiment)
    every = [name for plan in chosen_plans for name in plan.lists]
    places = [group for plan in chosen_plans for group in plan.groups]
    for given, known, kind in ((lists, every, "list"), (named, places, "group")):
        strange = sorted(set(given or ()) - set(known))
        if strange:
            raise ValueError(
                f"no {kind} {strange[0]!r} in {experiment}; there are "
                f"{', '.join(dict.fromkeys(known))}"
            )
    for plan in chosen_plans:
        list_names = [name for name in plan.lists if name in (lists or plan.lists)]
        its = [group for group in plan.groups if group in (named or plan.groups)]
        if list_names and its:
            typer.echo(runner.run(plan, list_names, save, its))


@book.command()
def results() -> None:
    """Every experiment, its lists, and how much of it is measured."""
    _needs_results()
    from . import plans, results_store

    for plan in plans.PLANS:
        path, measured = results_store.path_of(plan.experiment), set()
        if path.is_file():
            stored, _ = results_store.read_rows(plan.experiment, fresh=False)
            measured = results_store.cells(stored[stored["model"] == plan.model])
        for name in plan.lists:
            entries = plan.entries(name)
            there = sum(
                any((t.method, t.text, group) in measured for t in those)
                for those in entries.values()
                for group in plan.groups
            )
            typer.echo(
                f"{plan.experiment:22} {plan.model:18} {name:14} {there:4} of "
                f"{len(entries) * len(plan.groups):4} labels x groups"
            )


@book.command()
def verify(
    rows: Annotated[int, typer.Option(help="random trials of each model", min=1)] = 1,
    seed: Annotated[int | None, typer.Option(help="of the choice of trials", min=0)] = None,
    experiment: Annotated[str, typer.Option(help="whose trials")] = "replication-pocket",
) -> None:
    """Make random trials of the stored results again, through the runner, and compare."""
    _needs_results()
    from . import runner

    good = True
    for trial in runner.again(experiment, rows, seed):
        good &= trial["gap"] <= runner.TOLERANCE
        typer.echo(
            f"{trial['model']}, {trial['method']}, {trial['group']}: largest gap of a "
            f"mean {trial['gap']:.4f}"
        )
    if not good:
        raise typer.Exit(1)


@book.command()
def bench(json_file: Json = None) -> None:
    """What measuring coefficients costs, done in three ways; minutes, on a quiet machine."""
    from . import bench as measured

    measured.main(json_file)


def new(
    name: Annotated[str, typer.Argument(help="of the folder")],
    method: Annotated[bool, typer.Option("--method", help="a method, not an experiment")] = False,
) -> None:
    """Make a folder of your own to fork: a notebook, questions, and what checks them."""
    from . import scaffold

    made = scaffold.new(name, "method" if method else "experiment")
    typer.echo(f"{made}: {', '.join(sorted(path.name for path in made.iterdir()))}")


@book.command()
def train(
    what: Annotated[str, typer.Argument(help="eye, pocket, smol-connector, smol, ear or voices")],
    group: Annotated[str | None, typer.Option(help="make the oracle of this group")] = None,
    forget_percent: ForgetPercent = 5,
    device: str = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    seed: Annotated[
        int | None, typer.Option(help="pocket and smol: another than usual", min=0)
    ] = None,
) -> None:
    """Train a part, vanilla, or an oracle; resumes where it was interrupted."""
    from . import recipes

    typer.echo(
        json.dumps(recipes.train(what, group, forget_percent, device, threads, seed), indent=1)
    )


@book.command()
def teach(
    questions: Annotated[Path, typer.Argument(help="a file that `validate` accepts")],
    save: Annotated[Path, typer.Option(help="a folder for model, oracle and questions")],
) -> None:
    """Teach pocket your own people, and an oracle without those to forget; minutes."""
    from .recipes.own_people import teach_people

    typer.echo(teach_people(questions, save))


@book.command()
def strangers() -> None:
    """Make the hundred strangers again, byte for byte, in data/strangers."""
    from .recipes import strangers as made

    made.main()
