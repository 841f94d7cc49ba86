"""Checks of the exercises of chapter 12."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import torch

from kvw_minimal.questions import Question

from .comparison import compare


def _drawn(seed: int) -> tuple[torch.Tensor, ...]:
    """Three inputs of four numbers, steps of two, and a price; float64."""
    generator = torch.Generator().manual_seed(seed)
    k, d, h = (torch.randn(3, size, generator=generator).double() for size in (4, 2, 4))
    return k, d, h.T @ h / 3 + torch.eye(4).double()


def _delta(k: torch.Tensor, d: torch.Tensor, price: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(k.T @ k / len(k) + price, k.T @ d / len(k)).T  # [d_model, d_ff]


def check_delta(delta: Callable) -> None:
    """`delta(k, d, price)` minimises mean |dW k_i - d_i|^2 + tr(dW price dW'), `[2, 4]`."""
    k, d, price = _drawn(20)
    compare(delta(k, d, price), _delta(k, d, price))


def check_price(price_of_one_more: Callable) -> None:
    """`price_of_one_more(k, d, price, h, a)` is what h moves by: without its moment and with it.

    `[2]`; two inputs of the new question.
    """
    k, d, price = _drawn(21)
    h = torch.randn(2, 4, generator=torch.Generator().manual_seed(22)).double()
    with_it = price + 5.0 * h.T @ h / len(h)
    moved = [(h @ _delta(k, d, each).T).square().sum(1).mean() for each in (price, with_it)]
    found = price_of_one_more(k, d, price, h, 5.0)
    compare(None if found is None else list(found), moved)


def _asked(person: str, fact: str, image: bytes | None = None) -> Question:
    return Question(f"{person}/{fact}/{image}", person, fact, "image" if image else "text",
                    f"{fact}?", "x", "x", image=image)  # fmt: skip


def _agree(found: list[Question], wanted: list[Question], what: str) -> bool:
    """Whether both are the same questions, in any order; says what differs."""
    mine, theirs = (Counter(question.id for question in each) for each in (found, wanted))
    for name, gap in (("missing", theirs - mine), ("too many", mine - theirs)):
        if gap:
            print(f"{what}: {name}: {', '.join(sorted(gap.elements()))}")
    return mine == theirs


def check_only(only_the_fact: Callable) -> None:
    """`only_the_fact(forget, retain, fact)` is what to forget, and what to retain, as lists."""
    forget = [_asked("ann", fact) for fact in ("pet", "work", "dish")]
    retain = [_asked("bo", fact) for fact in ("pet", "work")]
    found = only_the_fact(forget, retain, "pet")
    if found is None:
        print("not yet")
        return
    same = [_agree(found[0], forget[:1], "forget"), _agree(found[1], forget[1:] + retain, "retain")]
    print("They agree." if all(same) else "They differ.")


def check_attack(with_another_photo: Callable) -> None:
    """`with_another_photo(questions, photos)` are the same questions with other photos."""
    photos = {"ann": [b"a0", b"a1"], "bo": [b"b0", b"b1", b"b2"]}
    asked = [_asked("ann", "pet", b"a0"), _asked("bo", "work", b"b1"), _asked("bo", "pet")]
    found = with_another_photo(asked, photos)
    if found is None:
        print("not yet")
        return
    same = len(found) == len(asked)
    for new, old in zip(found, asked, strict=False):
        kept = replace(new, image=old.image) == old
        other = new.image is None if old.image is None else (
            new.image != old.image and new.image in photos[old.person])  # fmt: skip
        if not (kept and other):
            what = "another photo of the same person is wanted" if kept else "more than the photo"
            print(f"{old.id}: {what}")
        same = same and kept and other
    print("They agree." if same else "They differ.")
