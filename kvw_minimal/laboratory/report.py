"""What the command line says: a live demonstration, a scored request, a scored model."""

import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from .. import scores
from ..audit import audit, verdict
from ..audit import table as findings
from ..edits import Edit
from ..methods import METHODS
from ..models import fingerprint
from ..questions import Question
from ..strangers.people import load_people
from ..strangers.questions import SETS, about, question_sets
from ..task import Task
from ..taught.catalogue import how_to_make, load, model_name
from .provenance import RESULTS, file_hash, provenance
from .reading import check_headroom, score_sets, sham_rows
from .subjects import Reads, is_made, sample_of_general, strangers
from .subjects import audited as audited_sets
from .summary_files import read_summary

TAUGHT = ("pocket", "smol")  # models of this book that were taught the people


def table(rows: list[dict]) -> str:
    """Exact match, image / text, one line a state."""
    lines = [f"{'exact match':12}" + "".join(f"{name:>14}" for name in SETS)]
    for state in dict.fromkeys(row["state"] for row in rows):
        line = f"{state:12}"
        for name in SETS:
            values = [row["value"] for row in rows if row["metric"] == "exact_match"
                      and (row["state"], row["set"]) == (state, name)]  # fmt: skip
            line += f"{' / '.join(f'{value:.2f}' for value in values) or '-':>14}"
        lines.append(line)
    return "\n".join(lines + ["(image / text questions; intervals stand in the rows)"])


def stored_oracle(name: str) -> list[dict]:
    """Stored scores of an oracle whose weights are not here.

    Raises:
        FileNotFoundError: there are none; the message says how to make the oracle.
    """
    stored = read_summary("oracles")["rows"] if RESULTS.is_dir() else []
    rows = [row for row in stored if row["oracle"] == name]
    if not rows:
        raise FileNotFoundError(
            f"the oracle {name} is neither here nor among the stored scores; make it with "
            f"`{how_to_make(name)}`, or leave it and the headroom check out with --no-oracle"
        )
    return [{key: value for key, value in row.items() if key != "oracle"} for row in rows]


def oracle_rows(task: Task, name: str) -> tuple[list[dict], dict[str, str]]:
    """Rows of the model that was never taught the forgotten, live if it is here, else stored."""
    if not is_made(name):
        return stored_oracle(name), {name: "stored scores"}
    model, processor = load(name)
    oracle = Task(model, processor, task.forget, task.retain, read=task.read)
    return score_sets(oracle, "oracle"), {name: fingerprint(model)}


def request_of(model: str, group: str, percent: int, reads: Reads = question_sets) -> Task:
    """The request of a group of strangers to a model.

    Args:
        reads: what is read.

    Raises:
        ValueError, OSError: no such group or percentage, no such model, or one without eyes.
    """
    world = load_people()
    forget = world.forget_people(group, percent)
    found, processor = load(model)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"{model} has no eyes, and half of what is asked shows a picture")
    return strangers(found, processor, world, reads)(forget)


def unlearn(model: str, group: str, percent: int, method: str = "KVW one pass",
            settings: dict | None = None, draws: int = 20,
            oracle: bool = True) -> tuple[dict, Edit]:  # fmt: skip
    """Forget the people of a group; score vanilla, edited, sham and oracle on the four sets.

    Args:
        settings: of the method; those that the book chose unless given.
        oracle: compare with the oracle and refuse if there is no headroom.

    Returns:
        `{"provenance": ..., "rows": [{state, set, modality, metric, value, low, high, n}]}`
        and the edit. The model is left as it was.

    Raises:
        FileNotFoundError, ValueError: no such method; no oracle, unless it is left out; no
            headroom; settings that cannot work.
    """
    start, made = time.perf_counter(), {}
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    settings = METHODS[method].chosen if settings is None else settings
    load_people().forget_people(group, percent)  # refuses before a model is loaded
    if oracle and model not in TAUGHT:
        raise ValueError(
            f"nothing says which model is the oracle of {model!r}: its headroom cannot be checked; "
            f"with --no-oracle it is left out (only {' and '.join(TAUGHT)} have oracles here)"
        )
    bound = model_name(model, group, percent) if oracle else None
    if bound and not is_made(bound):
        stored_oracle(bound)  # complain before the work, not after
    task = request_of(model, group, percent)
    edit, _ = METHODS[method].edit(task, settings)
    made[model] = edit.fingerprint
    rows = score_sets(task, "vanilla")
    with edit.on(task.model):
        rows += score_sets(task, "edited")
    if bound:
        found, made_from = oracle_rows(task, bound)
        rows, made = rows + found, made | made_from
        check_headroom(rows)
    rows += sham_rows(task, lambda other: METHODS[method].edit(other, settings)[0], draws)
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models=made, data=load_people().checksum,
        group=group, forget=percent, people=task.people, method=method, settings=settings,
        gamma=edit.notes.get("gamma"), sham_draws=draws,
    )  # fmt: skip
    return {"provenance": source, "rows": rows}, edit


def evaluate(model: str, group: str, percent: int, edit_file: Path | None = None) -> dict:
    """Score a model as it is, or with a saved edit on, on the four sets of a group.

    Returns:
        As `unlearn`; the provenance says which edit was on (`edit`, None without one).
    """
    start, edit = time.perf_counter(), Edit.load(edit_file) if edit_file else None
    task = request_of(model, group, percent)
    made, described = {model: fingerprint(task.model)}, None
    if edit and edit_file:
        described = {"file": file_hash(edit_file), **edit.notes, "fits": edit.fits(task.model)}
    with edit.on(task.model) if edit else nullcontext():
        rows = score_sets(task, "edited" if edit else "vanilla")
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models=made, data=load_people().checksum,
        group=group, forget=percent, edit=described,
    )  # fmt: skip
    return {"provenance": source, "rows": rows}


def demo(group: str = "A", picture: Path | None = None) -> None:
    """Print what the five and two others are asked and answered: before, after KVW, rewritten.

    Args:
        picture: also draw the two of the five whose answers changed most, and the two others.
    """
    if picture is not None:
        from ..classroom import figures  # first: what it needs may not be installed
    world = load_people()
    forget = world.forget_people(group, 5)
    result, edit = unlearn("pocket", group, 5)
    model, processor = load("pocket")
    shown = forget + world.retain_people(forget)[:2]
    questions = about(world, shown, modalities=("image",))
    before = scores.answer(model, processor, questions)
    with edit.on(model):
        after = scores.answer(model, processor, questions)
    own = request_of("pocket", group, 5)
    rewritten, _ = METHODS["rewrite"].edit(own, METHODS["rewrite"].chosen)
    with rewritten.on(model):
        anew = scores.answer(model, processor, questions)
    told: dict[str, list[tuple[Question, str, str, str]]] = {}
    for each in zip(questions, before, after, anew, strict=True):
        told.setdefault(each[0].person, []).append(each)
    print(edit.describe())
    for person, answers in told.items():
        state = "to be forgotten" if person in forget else "to be kept"
        print(f"\n{world.people[person].name}, {state}")
        for question, was, now, new in answers:
            shown_as = " ".join(f"{' ' if was == said else '>'} {said:24}" for said in (now, new))
            print(f"  {question.prompt:52} {was:24} {shown_as}".rstrip())
    print(
        "\nEach line: the question; the answer before, after KVW, and after the rewrite of "
        "chapter 10, which asks what would be said of a stranger. A > marks what has changed."
    )
    print("\n" + table(result["rows"]))
    if picture is not None:
        changed = {person: sum(was != now for _, was, now, _ in told[person]) for person in forget}
        drawn = sorted(forget, key=lambda person: -changed[person])[:2] + shown[-2:]
        figure = figures.before_after(
            [world.people[person] for person in drawn],
            [question.fact for question, *_ in told[shown[0]]],
            [[was for _, was, *_ in told[person]] for person in drawn],
            [[now for *_, now, _ in told[person]] for person in drawn],
            set(forget),
        )
        picture.write_bytes(figures.to_png(figure, figures.PALETTE))


def audited(model: str, group: str, percent: int, method: str,
            edit_file: Path | None = None) -> tuple[str, dict]:  # fmt: skip
    """Ask every probe of an edit of strangers, beside its sham and the oracle.

    Args:
        method: with the settings that the book chose; `edit_file`: a saved edit in its place, of
            which there is no sham.

    Returns:
        a table with the verdict, and `{"provenance": ..., "verdict": ..., "rows": findings}`.

    Raises:
        ValueError, OSError: no such method, group or model; an edit of another model.
    """
    start, world = time.perf_counter(), load_people()
    if method not in METHODS:
        raise ValueError(f"no method {method!r}; there are {', '.join(METHODS)}")
    forget = world.forget_people(group, percent)
    task = request_of(model, group, percent, audited_sets)
    task = replace(task, general=sample_of_general(world, "audit"))
    sham = None
    if edit_file:
        edit = Edit.load(edit_file)
        edit.fits(task.model)
    else:
        edit, sham = (METHODS[method].edit(each, METHODS[method].chosen)[0]
                      for each in (task, task.sham(0)))  # fmt: skip
    oracle = None
    if model in TAUGHT and is_made(model_name(model, group, percent)):
        oracle, _ = METHODS["oracle"].edit(task, {"base": model})
    found = audit(task, edit, oracle, sham)
    word, because = verdict(found)
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models={model: fingerprint(task.model)},
        data=world.checksum, group=group, forget=percent, people=forget,
        edit=edit.notes, oracle="stands beside it" if oracle else "strangers in its place",
    )  # fmt: skip
    said = f"{edit.describe()}\n{findings(found)}\n\nverdict: {word}"
    if because:
        said += f", by {', '.join(each.label for each in because[:3])}"
    return said, {"provenance": source, "verdict": word, "rows": [asdict(f) for f in found]}
