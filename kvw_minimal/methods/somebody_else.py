"""The same question about somebody else: another picture or name, the same answer behind it."""

from dataclasses import replace

from ..questions import Question, seeded
from ..task import Task


def called(question: Question) -> str:
    """What the prompt calls the person; nothing where it does not."""
    own = question.name or question.person
    return own if own in question.prompt else ""


def invented(names: list[str]) -> list[str]:
    """Names that nobody has, each put together from two; or these, if all are of one word."""
    parts = [name.split(maxsplit=1) for name in sorted(set(names))]
    made = {f"{one[0]} {two[1]}" for one in parts for two in parts if len(two) > 1}
    return sorted(made - set(names) or set(names))


def somebody_else(task: Task) -> tuple[list[bytes], list[str]]:
    """Pictures and names to ask about: of nobody where the task has such, else of the retained.

    Raises:
        ValueError: a forget question has neither a picture nor a name that could be exchanged.
    """
    seen = {q.person: q.image for q in task.general if q.image is not None}
    faces = list((seen or {q.person: q.image for q in task.retain if q.image is not None}).values())
    names = invented([called(q) for q in task.retain if called(q)])
    for question in task.forget:
        if not (faces if question.image is not None else called(question) and names):
            raise ValueError(f"{question.id} cannot be asked about somebody else: it needs a "
                             "picture, or a name in its prompt, and others in the retain set to "
                             "put in their place")  # fmt: skip
    rng = seeded("somebody else", task.seed)
    return [faces[i] for i in rng.permutation(len(faces))], rng.permutation(names).tolist()


def asked_again(questions: list[Question], others: tuple[list[bytes], list[str]],
                draw: int = 0) -> list[Question]:  # fmt: skip
    """Each question about somebody else, another one for each draw; the answer stays."""
    found, (faces, names) = [], others
    for row, question in enumerate(questions, draw):
        if question.image is not None and faces:
            question = replace(question, image=faces[row % len(faces)])
        elif called(question) and names:
            own, new = called(question), names[row % len(names)]
            new = new if " " in own else new.split(maxsplit=1)[0]  # a first name for a first name
            question = replace(question, prompt=question.prompt.replace(own, new), name=new)
        found.append(question)
    return found
