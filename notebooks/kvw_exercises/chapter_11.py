"""Checks of the exercises of chapter 11."""

from collections.abc import Callable
from dataclasses import replace

import torch

from kvw_minimal.questions import Question

from .comparison import drawn, grade


def _case(seed: int, n: int, d_ff: int, d_model: int) -> tuple[torch.Tensor, ...]:
    """Inputs `[n, d_ff]`, steps `[n, d_model]`, and a price `[d_ff, d_ff]`."""
    k, d, h = drawn(seed, (n, d_ff), (n, d_model), (d_ff, d_ff))
    return k, d, h.T @ h / 3 + torch.eye(d_ff).double()


def _delta(k: torch.Tensor, d: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(k.T @ k / len(k) + price, k.T @ d / len(k)).T  # [d_model, d_ff]


def check_delta(delta: Callable) -> bool:
    """`delta(k, d, price)` minimises mean |dW k_i - d_i|^2 + tr(dW price dW').

    `[d_model, d_ff]`.
    """
    cases = {
        "three inputs": _case(20, 3, 4, 2),
        "more inputs than dimensions": _case(21, 9, 4, 2),
        "a square matrix": _case(22, 5, 3, 3),
        "one input": _case(23, 1, 4, 2),
    }
    mistakes = {
        lambda *given: _delta(*given).T: "The right numbers, turned: what are its rows?",
        lambda k, d, price: _delta(
            k, d, len(k) * price
        ): "Look at the first term of the loss: a sum over inputs, or their mean?",
        lambda k, d, price: _delta(
            k, d, price / len(k)
        ): "Only one of the two terms has a mean; which one did you divide?",
        lambda k, d, price: torch.linalg.lstsq(k, d).solution.T: "Where does the price come in?",
        lambda k, d, price: (
            torch.linalg.solve(price, k.T @ d / len(k)).T
        ): "What of the inputs stands beside the price, in what you invert?",
        lambda k, d, price: _delta(
            k, d, price + torch.eye(len(price)).double()
        ): "Something is added to the price; it is paid once, and no ridge beside it.",
        lambda k, d, price: -_delta(k, d, price): "Look at the sign: you step away from the goal.",
    }
    return grade(delta, cases, _delta, mistakes)


def check_price(price_of_one_more: Callable) -> bool:
    """`price_of_one_more(k, d, price, h, a)` is what h moves by: without its moment and with it.

    `[2]`; the inputs of the new question are the rows of h.
    """

    def moved(k, d, price, h):
        return (h @ _delta(k, d, price).T).square().sum(1)

    def both(k, d, price, h, a, of=lambda moves: moves.mean()):
        priced = price + a * h.T @ h / len(h)
        return [of(moved(k, d, moment, h)) for moment in (price, priced)]

    def case(seed, a, n, d_ff, d_model, rows):
        return *_case(seed, n, d_ff, d_model), drawn(seed + 50, (rows, d_ff))[0], a

    cases = {
        "two inputs": case(21, 5.0, 3, 4, 2, 2),
        "many inputs": case(22, 0.5, 4, 4, 3, 7),
        "one input": case(23, 2.0, 3, 3, 3, 1),
        "a weight of zero": case(24, 0.0, 3, 4, 2, 2),
    }
    mistakes = {
        lambda *given: both(*given)[::-1]: "Look at the order: first without, then with it.",
        lambda *given: both(
            *given, of=lambda moves: moves.sum()
        ): "You add the inputs of the question up where their mean is asked.",
        lambda k, d, price, h, a: both(
            k, d, price, h, a * len(h)
        ): "Your second moment is a sum over inputs; what is a moment?",
        lambda k, d, price, h, a: [
            both(k, d, price, h, a)[0],
            both(k, d, price, h, 1.0)[1],
        ]: "Where does the weight of the new question come in?",
        lambda *given: both(
            *given, of=lambda moves: moves.sqrt().mean()
        ): "You take lengths; their squares are asked.",
        lambda k, d, price, h, a: [
            move / d.shape[1] for move in both(k, d, price, h, a)
        ]: "You divide by the dimensions, too; a squared length is a sum over them.",
        lambda k, d, price, h, a: [
            moved(k, d, price, h).mean(),
            moved(k, d, price + a * h.T @ h / len(h), k).mean(),
        ]: "Whose way do you measure the second time: that of the new question?",
    }
    return grade(price_of_one_more, cases, both, mistakes)


def _asked(person: str, fact: str, image: bytes | None = None) -> Question:
    return Question(
        f"{person}/{fact}/{image}",
        person,
        fact,
        "image" if image else "text",
        f"{fact}?",
        "x",
        "x",
        image=image,
    )


def _ids(lists, *_) -> str:
    """The questions of both lists, in any order."""
    forget, retain = (sorted(question.id for question in questions) for questions in lists)
    return f"{forget} {retain}"


def check_only(only_the_fact: Callable) -> bool:
    """`only_the_fact(forget, retain, fact)` is what to forget, and what to retain, as lists."""

    def split(questions, fact):
        return ([q for q in questions if q.fact == fact], [q for q in questions if q.fact != fact])

    def right(forget, retain, fact):
        of_fact, rest = split(forget, fact)
        return of_fact, rest + retain

    ann = [_asked("ann", fact) for fact in ("pet", "work", "dish")]
    both = ann + [_asked("cy", fact, b"c") for fact in ("pet", "work")]
    others = [_asked("bo", fact) for fact in ("pet", "work")]
    cases = {
        "one person": (ann, others, "pet"),
        "two people, and photos": (both, others, "work"),
        "a fact that only one was asked about": (both, others, "dish"),
        "nobody else": (ann, [], "work"),
    }
    mistakes = {
        lambda f, r, fact: (
            split(f, fact)[0],
            r,
        ): "What becomes of the other facts of the same person?",
        lambda f, r, fact: (
            split(f, fact)[0],
            split(f + r, fact)[1],
        ): "Should other people lose this fact from what is kept?",
        lambda f, r, fact: right(f, r, fact)[::-1]: "Look at the order of the two lists.",
        lambda f, r, fact: (
            split(f, fact)[1],
            split(f, fact)[0] + r,
        ): "You forget everything else, and keep the fact.",
        lambda f, r, fact: (
            split(f + r, fact)[0],
            split(f + r, fact)[1],
        ): "Other people's questions about the fact are to be forgotten here, too.",
        lambda f, r, fact: (f, r): "Everything is as it was; which questions change sides?",
        lambda f, r, fact: (
            split(f, fact)[0],
            f + r,
        ): "Something is to be forgotten and kept at once.",
    }
    return grade(only_the_fact, cases, right, mistakes, read=_ids)


def _change(new: Question, old: Question, photos: dict) -> str:
    """What was done to the photo of one question, and whether anything else was changed."""
    more = "" if replace(new, image=old.image) == old else ", and more"
    if old.image is None:
        return ("none" if new.image is None else "added") + more
    if new.image is None or new.image == old.image:
        return ("taken away" if new.image is None else "same") + more
    return ("other" if new.image in photos[old.person] else "somebody else's") + more


def _changes(results, questions, photos) -> str:
    """What was done to each question, in order."""
    pairs = zip(results, questions, strict=True) if len(results) == len(questions) else []
    changes = [_change(new, old, photos) for new, old in pairs]
    return "; ".join(changes or [str(question.id) for question in results])


def check_attack(with_another_photo: Callable) -> bool:
    """`with_another_photo(questions, photos)` are the same questions with other photos."""

    def other(question, photos):
        others = [photo for photo in photos[question.person] if photo != question.image]
        return replace(question, image=others[0])

    def exchange(questions, photos, of=other):
        return [
            question if question.image is None else of(question, photos) for question in questions
        ]

    def stranger(question, photos):
        return replace(
            question,
            image=next(
                pictures[0] for person, pictures in photos.items() if person != question.person
            ),
        )

    photos = {"ann": [b"a0", b"a1"], "bo": [b"b0", b"b1", b"b2"]}
    ann, bo, text = _asked("ann", "pet", b"a0"), _asked("bo", "work", b"b1"), _asked("bo", "pet")
    cases = {
        "photos and a text": ([ann, bo, text], photos),
        "the last photos": ([_asked("ann", "dish", b"a1"), _asked("bo", "dish", b"b2")], photos),
        "texts only": ([text, _asked("ann", "work")], photos),
        "the same photo twice": ([bo, _asked("bo", "dish", b"b1"), text], photos),
    }
    mistakes = {
        lambda questions, photos: questions: "Every photo is the same as before.",
        lambda *given: exchange(
            *given, of=lambda question, photos: replace(question, image=photos[question.person][0])
        ): "What if a question has the very photo already that you choose?",
        lambda *given: exchange(*given, of=stranger): "Look at whose photo it is.",
        lambda questions, photos: [
            other(question, photos) for question in questions
        ]: "A question in text got a photo.",
        lambda *given: [
            question for question in exchange(*given) if question.image
        ]: "Some questions are missing: what becomes of those without a photo?",
        lambda *given: [
            replace(question, id=f"{question.id}, again", prompt="")
            for question in exchange(*given)
        ]: "Something besides the photo was changed.",
        lambda *given: exchange(
            *given, of=lambda question, photos: replace(question, image=None)
        ): "You take the photos away; another one is asked.",
    }
    return grade(with_another_photo, cases, exchange, mistakes, read=_changes)
