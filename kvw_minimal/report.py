"""What the command line says: a live demonstration, a scored request, a scored model."""

import time
from collections import Counter
from pathlib import Path

from . import scores
from .edits import Edit
from .models import find_file, fingerprint, load
from .people import World, load_people
from .questions import SETS, about
from .results import RESULTS, file_hash, provenance, read_json
from .unlearn import (
    STRENGTH,
    Request,
    begin,
    check_headroom,
    check_settings,
    make_edit,
    prepare,
    score_sets,
    sham_rows,
)

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


def oracle_name(model: str, group: str, percent: int) -> str:
    """The oracle of a model of this book, made or not.

    Raises:
        ValueError: another model.
    """
    if model not in TAUGHT:
        raise ValueError(
            f"nothing says which model is the oracle of {model!r}: its headroom cannot be checked; "
            f"with --no-oracle it is left out (only {' and '.join(TAUGHT)} have oracles here)"
        )
    return f"{model}-oracle-{group}-{percent}"


def is_here(name: str) -> bool:
    """Whether the weights of a model of this book are committed or in the cache."""
    return any(find_file(name, file) for file in ("config.json", "adapter.safetensors"))


def stored_oracle(name: str, world: World) -> list[dict]:
    """Stored scores of an oracle whose weights are not here.

    Raises:
        FileNotFoundError: there are none; the message says how to make the oracle.
        ValueError: they were made from other data.
    """
    stored = RESULTS / "oracles.json"
    content = read_json(stored) if stored.is_file() else {"rows": [], "provenance": {}}
    rows = [row for row in content["rows"] if row["oracle"] == name]
    if not rows:
        model, request = name.split("-oracle-")
        group, percent = request.rsplit("-", 1)
        raise FileNotFoundError(
            f"the oracle {name} is neither here nor among the stored scores; make it with "
            f"`python -m kvw_minimal train {model} --group {group} --forget {percent}`, or leave "
            "it and the headroom check out with --no-oracle"
        )
    if content["provenance"]["data"] != world.checksum[:16]:
        raise ValueError(f"{stored} was made from other strangers; run `make models`")
    return [{key: value for key, value in row.items() if key != "oracle"} for row in rows]


def oracle_rows(request: Request, name: str) -> tuple[list[dict], dict[str, str]]:
    """Rows of the model that was never taught the forgotten, live if it is here, else stored."""
    if not is_here(name):
        return stored_oracle(name, request.world), {name: "stored scores"}
    model, processor = load(name)
    subject = prepare(model, processor, request.subject.questions)
    return score_sets(subject, "oracle", request.forms), {name: fingerprint(model)}


def unlearn(name: str, group: str, percent: int, strength: float = STRENGTH,
            schedule: str = "one pass", layers: tuple = (0.0, 1.0), draws: int = 20,
            oracle: bool = True, progress: bool = False) -> tuple[dict, Edit]:  # fmt: skip
    """Forget the people of a group; score vanilla, edited, sham and oracle on the four sets.

    Args:
        oracle: compare with the oracle and refuse if there is no headroom.

    Returns:
        `{"provenance": ..., "rows": [{state, set, modality, metric, value, low, high, n}]}`
        and the edit. The model is left as it was.

    Raises:
        FileNotFoundError, ValueError: as `oracle_name` and `stored_oracle`, unless the oracle is
            left out; no headroom; settings that cannot work.
    """
    start = time.perf_counter()
    world = load_people()
    forget = world.forget_people(group, percent)
    bound = oracle_name(name, group, percent) if oracle else None
    if bound and not is_here(bound):
        stored_oracle(bound, world)  # complain before the work, not after
    model, processor = load(name)
    check_settings(model, schedule, strength, layers)
    request = begin(model, processor, world, forget, progress)
    edit = make_edit(request, forget, schedule, strength, layers, progress=progress)
    rows = score_sets(request.subject, "vanilla", request.forms)
    with edit.on(model):
        rows += score_sets(request.subject, "edited", request.forms)
    made = {name: edit.fingerprint}
    if bound:
        found, made_from = oracle_rows(request, bound)
        rows, made = rows + found, made | made_from
        check_headroom(rows)
    rows += sham_rows(
        request,
        lambda people: make_edit(request, people, schedule, strength, layers),
        draws,
        progress,
    )
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models=made, data=world.checksum,
        group=group, forget=percent, people=forget, schedule=schedule, strength=strength,
        gamma=edit.notes.get("gamma"), layers=list(layers), sham_draws=draws,
    )  # fmt: skip
    return {"provenance": source, "rows": rows}, edit


def described(edit: Edit | None, file: Path | None) -> dict | None:
    """What the provenance of a result says about a saved edit; None if there is none."""
    if edit is None or file is None:
        return None
    return {"file": file_hash(file), "strength": edit.strength, "schedule": edit.schedule,
            "people": edit.notes.get("people")}  # fmt: skip


def evaluate(name: str, group: str, percent: int, edit_file: Path | None = None) -> dict:
    """Score a model as it is, or with a saved edit on, on the four sets of a group.

    Returns:
        As `unlearn`; the provenance says which edit was on (`edit`, None without one).
    """
    start = time.perf_counter()
    world = load_people()
    forget = world.forget_people(group, percent)
    edit = Edit.load(edit_file) if edit_file else None
    model, processor = load(name)
    made = {name: fingerprint(model)}
    request = begin(model, processor, world, forget)
    if edit:
        with edit.on(model):
            rows = score_sets(request.subject, "edited", request.forms)
    else:
        rows = score_sets(request.subject, "vanilla", request.forms)
    source = provenance(
        seconds=time.perf_counter() - start, seed=0, models=made, data=world.checksum,
        group=group, forget=percent, edit=described(edit, edit_file),
    )  # fmt: skip
    return {"provenance": source, "rows": rows}


def demo(group: str = "A", picture: Path | None = None) -> None:
    """Print what the five and two others are asked and answered, before and after.

    Args:
        picture: also draw the two of the five whose answers changed most, and the two others.
    """
    world = load_people()
    forget = world.forget_people(group, 5)
    model, processor = load("pocket")
    result, edit = unlearn("pocket", group, 5, progress=True)
    shown = forget + world.retain_people(forget)[:2]
    questions = about(world, shown, modalities=("image",))
    before = scores.answer(model, processor, questions)
    with edit.on(model):
        after = scores.answer(model, processor, questions)
    changed = Counter(q.person for q, b, a in zip(questions, before, after, strict=True) if b != a)
    print(edit.describe())
    for i, question in enumerate(questions):
        if question.fact == next(iter(world.values)):
            state = "to be forgotten" if question.person in forget else "to be kept"
            print(f"\n{world.people[question.person].name}, {state}")
        mark = " " if before[i] == after[i] else ">"
        print(f"  {question.prompt:52} {before[i]:24} {mark} {after[i]}")
    print("\n" + table(result["rows"]))
    if picture is not None:
        from . import figures

        facts = [question.fact for question in questions if question.person == shown[0]]
        starts = {person: i * len(facts) for i, person in enumerate(shown)}
        drawn = [person for person, _ in changed.most_common() if person in forget][:2] + shown[-2:]
        figure = figures.before_after(
            [world.people[person] for person in drawn],
            facts,
            [before[starts[person] : starts[person] + len(facts)] for person in drawn],
            [after[starts[person] : starts[person] + len(facts)] for person in drawn],
            set(forget),
        )
        picture.write_bytes(figures.to_png(figure))
