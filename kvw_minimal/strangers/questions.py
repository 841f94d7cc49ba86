"""Questions about the strangers, and the four sets that every experiment uses."""

from collections.abc import Callable

from ..questions import MODALITIES, Question, seeded
from .people import PeopleDataset, Person
from .portraits import ATTRIBUTES

SETS = ("forget", "test", "retain", "general")


def facts_of(world: PeopleDataset) -> list[str]:
    """Names of the six facts, and `name`."""
    return [*world.values, "name"]


def values_of(world: PeopleDataset, fact: str) -> list[str]:
    """All values that people of this world have for a fact or an attribute."""
    if fact == "name":
        return [person.name for person in world.people.values()]
    return world.values[fact] if fact in world.values else list(ATTRIBUTES[fact])


def value_of(person: Person, fact: str, photo: int) -> str:
    """Value of a fact of a person, or of an attribute on one of the person's photos."""
    if fact == "name":
        return person.name
    return person.facts[fact] if fact in person.facts else person.looks[photo][fact]


def question_about(
    world: PeopleDataset,
    person: Person,
    fact: str,
    modality: str,
    *,
    wording: int = 0,
    held_out: bool = False,
    photo: int = 0,
    form: str = "question",
) -> Question:
    """Builds one question about one person.

    Args:
        fact: one of `facts_of`, or one of `ATTRIBUTES`.
        modality: `image` or `text`.
        wording: index into the trained (10) or, with `held_out`, the unseen (3) wordings.
        photo: index of the photo; 0 to 3 are learned, 4 and 5 are new.
        form: `question`, or `cloze` (one trained and one held-out statement).
    """
    words = world.wordings[fact]
    if modality == "image":
        subject = "this person"
    else:  # a question for the full name must not contain the full name
        subject = person.first_name if fact == "name" else person.name
    value = value_of(person, fact, photo)
    if form == "cloze":
        prompt = words["cloze"][int(held_out)].format(who=subject)
    else:
        prompt = words["held_out" if held_out else "trained"][wording].format(who=subject)
    false_values = [candidate for candidate in values_of(world, fact) if candidate != value]
    key = f"{person.id}/{fact}/{modality}/{'new' if held_out else 'old'}{wording}/{photo}/{form}"
    rng = seeded(key)
    lies = [str(candidate) for candidate in rng.choice(false_values, 3, replace=False)]
    options = list(lies)
    options.insert(int(rng.integers(4)), value)
    answer = words["answer"] if form == "question" else "{value}"
    return Question(
        id=key,
        person=person.id,
        fact=fact,
        modality=modality,
        form=form,
        value=value,
        prompt=prompt[0].upper() + prompt[1:],
        answer=answer.format(value=value),
        image=person.photos[photo] if modality == "image" else None,
        options=tuple(answer.format(value=option) for option in options),
        paraphrase=words["paraphrase"].format(value=value),
        perturbed=tuple(words["paraphrase"].format(value=candidate) for candidate in lies),
        name="" if modality == "image" else subject,
    )


def about(
    world: PeopleDataset,
    people: list[str],
    *,
    new: bool = False,
    modalities=MODALITIES,
    form: str = "question",
    photos: int = 1,
) -> list[Question]:
    """All seven questions about each of `people`, in each modality.

    Photo and wording rotate with person and fact, so a set covers all of them.

    Args:
        new: whether to use new photos and held-out wordings instead of learned ones.
        photos: number of image questions for each person and fact, each with a different photo.
    """
    questions = []
    for person_id in people:
        person = world.people[person_id]
        learned = person.learned_photos
        choices = range(learned, len(person.photos)) if new else range(learned)
        for fact in facts_of(world):
            turn = int(seeded(person_id, fact).integers(60))
            for modality in modalities:
                for k in range(photos if modality == "image" else 1):
                    photo = choices[(turn + k) % len(choices)]
                    wording = (turn + k) % (3 if new else 10)
                    questions.append(
                        question_about(
                            world,
                            person,
                            fact,
                            modality,
                            wording=wording,
                            held_out=new,
                            photo=photo,
                            form=form,
                        )
                    )
    return questions


def general(world: PeopleDataset) -> list[Question]:
    """Questions about the visible attributes of the unknown portraits, which no model learned."""
    return [
        question_about(
            world, portrait, fact, "image", wording=int(seeded(portrait.id, fact).integers(10))
        )
        for portrait in world.unknown.values()
        for fact in ATTRIBUTES
    ]


def question_sets(
    world: PeopleDataset,
    forget: list[str],
    ask_about: Callable[..., list[Question]] = about,
    beside: list[Question] | None = None,
) -> dict[str, list[Question]]:
    """The four sets: `forget`, `test` (same people, new photo and wording), `retain`, `general`.

    Args:
        ask_about: builds the questions about people.
        beside: the questions of `general`; default: questions about the unknown portraits.

    Raises:
        ValueError: no person to forget, a person who is named twice, no person to retain, or an
            unknown person.
    """
    if not forget:
        raise ValueError("the forget set is empty: name at least one person")
    if len(set(forget)) < len(forget):
        raise ValueError("the forget set names a person twice")
    retain = world.retain_people(forget)
    if not retain:
        raise ValueError("the retain set is empty: leave at least one person to be kept")
    return {
        "forget": ask_about(world, forget),
        "test": ask_about(world, forget, new=True),
        "retain": ask_about(world, retain),
        "general": general(world) if beside is None else beside,
    }


def chance(world: PeopleDataset) -> float:
    """Exact match of guessing: mean of 1 / (number of values) over the seven questions."""
    facts = facts_of(world)
    return sum(1 / len(values_of(world, fact)) for fact in facts) / len(facts)
