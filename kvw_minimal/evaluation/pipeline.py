"""What the command line says: a live demonstration, a scored request, a scored model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from tqdm import tqdm

from ..atomic_io import write_json
from ..audit import audit, findings_table, verdict
from ..benchmarks.conversations import check_rendered
from ..conditions import score, score_edited, score_shams
from ..edits import Edit
from ..forget_request import Request
from ..kvw import KVW
from ..methods import Method, make_edit, method_of
from ..models import fingerprint
from ..results import check_headroom, rounded, summarise, table
from ..session import Session
from ..strangers.people import load_people
from ..strangers.questions import question_sets
from ..zoo.catalogue import device_and_dtype, how_to_make, load, model_name
from . import resume as kept
from .provenance import file_hash, peak_memory, provenance
from .scoring import forced_and_generated, teacher_forced
from .setups import Oracle, Reads, is_made, request_factory, sample_of_general
from .setups import audit_sets as audited_sets

UNKNOWN = (
    "headroom: unknown. Without a model that never met them, nothing says how many of these "
    "answers are guessed."
)
TAUGHT = ("pocket", "smol")  # models of this book that were taught the people


def tables(result: dict) -> list[str]:
    """What the command says of rows: exact match; where the questions are anybody's, also how
    likely the answers are, and that nobody has looked for headroom."""
    said = [table(result["rows"])]
    if "questions" in result["provenance"]:
        said += [table(result["rows"], "probability"), UNKNOWN]
    return said


def stored_oracle(name: str) -> list[dict]:
    """Stored scores of an oracle whose weights are not here.

    Raises:
        FileNotFoundError: there are none; the message says how to make the oracle.
    """
    stored = entry_points(group="kvw_minimal.oracles")  # the book's experiments have some
    rows = [row for each in stored for row in each.load()(name)]
    if not rows:
        raise FileNotFoundError(
            f"the oracle {name} is neither here nor among the stored scores; make it with "
            f"`{how_to_make(name)}`, or leave it and the headroom check out with --no-oracle"
        )
    return rows


def oracle_rows(request: Request, name: str, **where) -> tuple[list[dict], dict[str, str]]:
    """Rows of the model that was never taught the forgotten, live if it is here, else stored."""
    if not is_made(name):
        return stored_oracle(name), {name: "stored scores"}
    model, processor = load(name, **where)
    rows = score(Session(model, processor), request, forced_and_generated(request), "oracle")
    return rounded(summarise(rows)), {name: fingerprint(model)}


def request_of(
    model: str,
    group: str,
    percent: int,
    reads: Reads = question_sets,
    people: Sequence[str] = (),
    **where,
) -> tuple[Session, Request]:
    """A model, and the request of a group of strangers to it.

    Args:
        reads: what is read.
        people: who is forgotten, in place of a group.
        where: its device and dtype, for `load`.

    Raises:
        ValueError, OSError: no such people, group or percentage, no such model, or one without
            eyes.
    """
    world = load_people()
    forget = some_strangers(people) or world.forget_people(group, percent)
    found, processor = load(model, **where)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"{model} has no eyes, and half of what is asked shows a picture")
    request = request_factory(world, reads)(forget)
    check_rendered(processor, request.forget[:1])
    return Session(found, processor), request


def some_strangers(people: Sequence[str]) -> list[str]:
    """Strangers by their ids.

    Raises:
        ValueError: somebody unknown.
    """
    known = load_people().people
    strange = sorted(set(people) - set(known))
    if strange:
        raise ValueError(f"no stranger is called {strange[0]!r}; there are {', '.join(known)}")
    return list(dict.fromkeys(people))


def request_from(
    questions: str, model: str, people: Sequence[str] = (), **where
) -> tuple[Session, Request]:
    """A model, and the request of anybody's questions to it (`benchmarks.jsonl.read_request`).

    Raises:
        ValueError, OSError: questions that cannot be read, somebody on both sides, too few to
            retain for a sham, no such model, or one that cannot be asked so.
    """
    from ..benchmarks.jsonl import read_request

    request = read_request(questions, people)
    both = sorted(set(request.people) & set(request.retain_people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")
    request.sham(0)  # refuses before a model is loaded
    found, processor = load(model, **where)
    if not hasattr(processor, "image_processor"):
        request = read_request(questions, people, processor)
    check_rendered(
        processor,
        [q for asked in (request.questions(), *request.eval_sets.values()) for q in asked],
    )
    return Session(found, processor), request


def oracle_name(model: str, group: str, percent: int, people: Sequence[str] = ()) -> str:
    """The name of the oracle of a group, whose weights or scores are here.

    Raises:
        ValueError, FileNotFoundError: there is none.
    """
    if model not in TAUGHT or people:
        raise ValueError(
            f"nothing says which model is the oracle of {model!r}: its headroom cannot be checked; "
            f"with --no-oracle it is left out (only {' and '.join(TAUGHT)} have oracles here, of "
            "their groups)"
        )
    bound = model_name(model, group, percent)
    if not is_made(bound):
        stored_oracle(bound)
    return bound


def build_request(
    model: str,
    group: str,
    percent: int,
    oracle: bool,
    people: Sequence[str],
    questions: str | None,
    **where,
) -> tuple[Session, Request, str | None, dict]:
    """A session, a request, the name of its oracle, and what provenance says of the questions.

    Raises:
        ValueError, OSError: as `request_of`, `request_from` and `oracle_name`.
    """
    if questions is not None:
        session, request = request_from(questions, model, people, **where)
        return (
            session,
            request,
            None,
            {"data": kept.digest_of(request.eval_sets), "questions": questions},
        )
    if not people:
        load_people().forget_people(group, percent)  # refuses before a model is loaded
    bound = oracle_name(model, group, percent, people) if oracle else None
    whom = {} if people else {"group": group, "forget": percent}
    session, request = request_of(model, group, percent, question_sets, people, **where)
    return session, request, bound, {"data": load_people().checksum} | whom


def methods_of(method: str, settings: dict | list[dict] | None) -> list[Method]:
    """A method for each of its strengths; as the book chose it unless settings are given.

    Raises:
        ValueError: no such method or setting, or a strength twice.
    """
    each = settings if isinstance(settings, list) else [settings or {}]
    methods = [method_of(method, own) for own in each]
    if len(set(methods)) < len(methods):
        raise ValueError("a strength stands there twice; name each once")
    return methods


def named(place: dict) -> dict[str, str]:
    """A device and a number format as provenance says them."""
    return {"device": place["device"], "dtype": str(place["dtype"]).removeprefix("torch.")}


def unlearn(
    model: str,
    group: str = "A",
    percent: int = 5,
    method: str = KVW.name,
    settings: dict | list[dict] | None = None,
    draws: int = 20,
    oracle: bool = True,
    *,
    people: Sequence[str] = (),
    questions: str | None = None,
    batch_size: int | None = None,
    folder: Path | None = None,
    **where: str,
) -> tuple[dict, list[Edit]]:
    """Forget the people of a group, or of a file; score vanilla, edited, sham and oracle.

    Args:
        settings: of the method, or a list of them that differ in their strength; those that the
            book chose unless given.
        draws: so many shams each.
        oracle: compare with the oracle and refuse if there is no headroom. Of a file of questions
            nothing says which model that is.
        people: who is forgotten: of the strangers in place of a group, of a file in place of those
            of the set `forget`.
        questions: as `benchmarks.jsonl.read_request`.
        batch_size: questions that are read at a time; that of `Session` unless given.
        folder: keep rows and edits there, and go on with what is there.
        where: `device` and `dtype`, as `placed`.

    Returns:
        A dict of `provenance` and `rows` (condition, strength, set, modality, metric, value, low,
        high and n of each; the strength None where there is none), and the edits. The model is left
        as it was.

    Raises:
        FileNotFoundError, ValueError: no such method, people or questions; no oracle, unless it is
            left out; no headroom; settings that cannot work; a folder with other rows.
    """
    start, each = time.perf_counter(), methods_of(method, settings)
    kept.check_folder(folder)
    place = device_and_dtype(**where)
    session, request, bound, about = build_request(
        model, group, percent, oracle, people, questions, **place
    )
    session = replace(session, batch_size=batch_size or session.batch_size, measure_once=True)
    inputs = kept.inputs_of(session, request, each[0], draws)
    before, rows = kept.load_partial(folder, inputs)
    made, edit_of = {model: fingerprint(session.model)}, kept.edit_maker()
    protocol = forced_and_generated(request)
    edits = [kept.saved_edit(folder, own) or edit_of(session, request, own) for own in each]
    done = {(row["condition"], row["strength"]) for row in rows}
    wanted: dict[tuple, int] = {("vanilla", None): 1} | ({("oracle", None): 1} if bound else {})
    for own in each:
        strength = own.settings.get("strength")
        wanted |= {("edited", strength): 1, ("sham", strength): draws}
    there = sum(steps for cell, steps in wanted.items() if cell in done)
    bar = tqdm(total=sum(wanted.values()), desc="scores", initial=there, disable=None)

    def result() -> dict:
        seconds = before.get("seconds", 0.0) + time.perf_counter() - start
        gammas = [edit.notes.get("gamma") for edit in edits]
        source = provenance(
            seconds=seconds,
            seed=request.seed,
            models=made,
            people=request.people,
            method=method,
            settings=[own.settings for own in each],
            gamma=gammas,
            sham_draws=draws,
            inputs=inputs,
            headroom="shown" if bound else "unknown",
            memory=peak_memory(),
            **named(place),
            **about,
        )
        return {"provenance": source, "rows": rows}

    def keep_summary(condition: str, strength: float | None, summary: list[dict]) -> None:
        """Take the means of a condition, unless they are there, and write them down."""
        if (condition, strength) not in done:
            rows.extend(row | {"strength": strength} for row in summary)
            bar.update(condition != "sham")
            if folder is not None:
                folder.mkdir(exist_ok=True)
                write_json(folder / kept.ROWS, result())

    def keep(condition: str, strength: float | None, scored: Callable[[], list[dict]]) -> None:
        """Score under a condition, unless its means are there."""
        if (condition, strength) not in done:
            keep_summary(condition, strength, rounded(summarise(scored())))

    def sham(own: Method) -> Callable[[Request], Edit]:
        def edit_of_sham(other: Request) -> Edit:
            bar.update()
            return edit_of(session, other, own)

        return edit_of_sham

    with bar:
        keep("vanilla", None, lambda: score(session, request, protocol))
        if bound:
            oracle_summary, made_from = oracle_rows(request, bound, **place)
            made |= made_from
            keep_summary("oracle", None, oracle_summary)
            check_headroom(rows)
        for own, edit in zip(each, edits, strict=True):
            strength = own.settings.get("strength")
            if folder is not None:
                edit.save(kept.edit_file(folder, own))
            keep("edited", strength, partial(score_edited, session, request, protocol, edit))
            shams = partial(score_shams, session, request, teacher_forced, sham(own), draws)
            keep("sham", strength, shams)
    return result(), edits


def evaluate(
    model: str, group: str, percent: int, edit_file: Path | None = None, **where: str
) -> dict:
    """Score a model as it is, or with a saved edit on, on the four sets of a group.

    Returns:
        As `unlearn`; the provenance says which edit was on (`edit`, None without one).
    """
    start, edit = time.perf_counter(), Edit.load(edit_file) if edit_file else None
    place = device_and_dtype(**where)
    session, request = request_of(model, group, percent, **place)
    made, described = {model: fingerprint(session.model)}, None
    if edit and edit_file:
        described = {
            "file": file_hash(edit_file),
            **edit.notes,
            "fits": edit.check_compatible(session.model),
        }
    protocol = forced_and_generated(request)
    if edit is None:
        rows = score(session, request, protocol)
    else:
        rows = score_edited(session, request, protocol, edit)
    source = provenance(
        seconds=time.perf_counter() - start,
        seed=0,
        models=made,
        data=load_people().checksum,
        group=group,
        forget=percent,
        edit=described,
        **named(place),
    )
    return {"provenance": source, "rows": rounded(summarise(rows))}


def run_audit(
    model: str, group: str, percent: int, method: str, edit_file: Path | None = None, **where: str
) -> tuple[str, dict]:
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
    forget_by = method_of(method)
    forget = world.forget_people(group, percent)
    place = device_and_dtype(**where)
    session, request = request_of(model, group, percent, audited_sets, **place)
    request = replace(request, general=sample_of_general(world, "audit"))
    sham = None
    if edit_file:
        edit = Edit.load(edit_file)
        edit.check_compatible(session.model)
    else:
        edit, sham = (make_edit(session, each, forget_by)[0] for each in (request, request.sham(0)))
    oracle = None
    if model in TAUGHT and is_made(model_name(model, group, percent)):
        oracle, _ = make_edit(session, request, Oracle(model))
    found = audit(session, request, edit, oracle, sham)
    word, because = verdict(found)
    source = provenance(
        seconds=time.perf_counter() - start,
        seed=0,
        models={model: fingerprint(session.model)},
        data=world.checksum,
        group=group,
        forget=percent,
        people=forget,
        edit=edit.notes,
        oracle="stands beside it" if oracle else "strangers in its place",
        **named(place),
    )
    said = f"{edit.describe()}\n{findings_table(found)}\n\nverdict: {word}"
    if because:
        said += f", by {', '.join(each.label for each in because[:3])}"
    return said, {"provenance": source, "verdict": word, "rows": [asdict(f) for f in found]}
