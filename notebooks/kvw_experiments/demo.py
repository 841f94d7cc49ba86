"""What forgetting looks like: five people and two others, before and after."""

from pathlib import Path

from kvw_minimal import scores
from kvw_minimal.evaluation.pipeline import request_of, run_unlearning
from kvw_minimal.method import make_edit
from kvw_minimal.methods.rewrite import Rewrite
from kvw_minimal.questions import Question
from kvw_minimal.results import table
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import load


def demo(group: str = "A", picture: Path | None = None) -> None:
    """Print what the five and two others are asked and answered: before, after KVW, rewritten.

    Args:
        picture: also draw the two of the five whose answers changed most, and the two others.
    """
    if picture is not None:
        from . import figures  # first: what it needs may not be installed
    world = load_people()
    forget = world.forget_people(group, 5)
    result, [edit] = run_unlearning("pocket", group, 5)
    model, processor = load("pocket")
    shown = forget + world.retain_people(forget)[:2]
    questions = about(world, shown, modalities=("image",))
    before = scores.answer(model, processor, questions)
    with edit.on(model):
        after = scores.answer(model, processor, questions)
    session_and_request = request_of("pocket", group, 5)
    rewritten, _ = make_edit(*session_and_request, Rewrite())
    with rewritten.on(model):
        anew = scores.answer(model, processor, questions)
    by_person: dict[str, list[tuple[Question, str, str, str]]] = {}
    for row in zip(questions, before, after, anew, strict=True):
        by_person.setdefault(row[0].person, []).append(row)
    print(edit.describe())
    for person, answers in by_person.items():
        state = "to be forgotten" if person in forget else "to be kept"
        print(f"\n{world.people[person].name}, {state}")
        for question, was, now, new in answers:
            shown_as = " ".join(
                f"{' ' if was == answer else '>'} {answer:24}" for answer in (now, new)
            )
            print(f"  {question.prompt:52} {was:24} {shown_as}".rstrip())
    print(
        "\nEach line: the question; the answer before, after KVW, and after the rewrite of "
        "chapter 11, which asks what would be said of a stranger. A > marks what has changed."
    )
    print("\n" + table(result["rows"]))
    if picture is not None:
        changed = {
            person: sum(was != now for _, was, now, _ in by_person[person]) for person in forget
        }
        drawn = sorted(forget, key=lambda person: -changed[person])[:2] + shown[-2:]
        figure = figures.before_after(
            [world.people[person] for person in drawn],
            [question.fact for question, *_ in by_person[shown[0]]],
            [[was for _, was, *_ in by_person[person]] for person in drawn],
            [[now for *_, now, _ in by_person[person]] for person in drawn],
            set(forget),
        )
        picture.write_bytes(figures.to_png(figure, figures.STORED))
