"""What the command line says: a live demonstration, a scored request, a scored model."""

import time
from pathlib import Path

from . import scores
from .edits import Edit
from .models import find_model, fingerprint, load
from .people import load_people
from .pocket import model_name
from .questions import SETS, about
from .results import RESULTS, provenance, read_json
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


def oracle_rows(request: Request, group: str, percent: int) -> tuple[list[dict], dict]:
    """Rows of the model that was never taught the forgotten: live if it is here, else stored.

    Raises:
        FileNotFoundError: neither model nor stored rows; the message says how to make them.
        ValueError: stored rows that were made from other data.
    """
    name = model_name(group, percent)
    if Path(find_model(name)).is_dir():
        model, processor = load(name)
        subject = prepare(model, processor, request.subject.questions)
        return score_sets(subject, "oracle", request.forms), {name: fingerprint(model)}
    stored = RESULTS / "oracles.json"
    content = read_json(stored) if stored.is_file() else {"rows": [], "provenance": {}}
    rows = [row for row in content["rows"] if row["oracle"] == name]
    if not rows:
        raise FileNotFoundError(
            f"the oracle {name} is neither here nor among the stored scores; make it with "
            f"`python -m kvw_minimal train pocket --group {group} --forget {percent}`, or leave "
            "it and the headroom check out with --no-oracle"
        )
    if content["provenance"]["data"] != request.world.checksum[:16]:
        raise ValueError(f"{stored} was made from other strangers; run `make models`")
    rows = [{key: value for key, value in row.items() if key != "oracle"} for row in rows]
    return rows, {name: "stored scores"}


def unlearn(name: str, group: str, percent: int, strength: float = STRENGTH,
            schedule: str = "one pass", layers: tuple = (0.0, 1.0), draws: int = 20,
            oracle: bool = True, progress: bool = False) -> tuple[dict, Edit]:  # fmt: skip
    """Forget the people of a group; score vanilla, edited, sham and oracle on the four sets.

    Args:
        oracle: compare with the oracle and refuse if there is no headroom.

    Returns:
        `{"provenance": ..., "rows": [{state, set, modality, metric, value, low, high, n}]}`
        and the edit. The model is left as it was.
    """
    start = time.perf_counter()
    world = load_people()
    forget = world.forget_people(group, percent)
    model, processor = load(name)
    check_settings(model, schedule, strength, layers)
    request = begin(model, processor, world, forget, progress)
    edit = make_edit(request, forget, schedule, strength, layers, progress=progress)
    rows = score_sets(request.subject, "vanilla", request.forms)
    with edit.on(model):
        rows += score_sets(request.subject, "edited", request.forms)
    made = {name: edit.fingerprint}
    if name == "pocket" and oracle:
        found, made_from = oracle_rows(request, group, percent)
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


def evaluate(name: str, group: str, percent: int, edit_file: Path | None = None) -> dict:
    """Score a model as it is, or with a saved edit on, on the four sets of a group."""
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
    source = provenance(seconds=time.perf_counter() - start, seed=0, models=made,
                        data=world.checksum, group=group, forget=percent)  # fmt: skip
    return {"provenance": source, "rows": rows}


def demo(group: str = "A") -> None:
    """Print what two forgotten and two kept people were and are remembered for."""
    world = load_people()
    forget = world.forget_people(group, 5)
    model, processor = load("pocket")
    request = begin(model, processor, world, forget)
    edit = make_edit(request, forget)
    shown = forget[:2] + world.retain_people(forget)[:2]
    questions = [q for q in about(world, shown, modalities=("image",)) if q.fact != "name"]
    before = scores.answer(model, processor, questions)
    with edit.on(model):
        after = scores.answer(model, processor, questions)
    print(edit.describe())
    for question, old, new in zip(questions, before, after, strict=True):
        if question.fact == "birthplace":
            state = "forgotten" if question.person in forget else "kept"
            print(f"\n{world.people[question.person].name}, {state}")
        mark = "=" if old == new else "->"
        print(f"  {question.prompt:52} {old:26} {mark} {new}")
    result, _ = unlearn("pocket", group, 5, progress=True)
    print("\n" + table(result["rows"]))
