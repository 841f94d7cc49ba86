"""A museum of mistakes: each looks right and is not; imported as `kvw_exhibits.museum`.

Every one of them was made in public code about unlearning, by careful people (two of them by the
authors of this book), and is written anew here in a few lines. An exhibit is a class that holds

- `mistake`, and `mended`, its twin that does the same without it;
- `fine(make)`, a quick look: it is content with both;
- `check(make)`, which raises AssertionError at the mistake and is content with its twin. `guard`
  names the function of the package that checks, or does, this for everything in this book.

    for exhibit in EXHIBITS:
        exhibit.room.check(exhibit.room.mended)
"""

import argparse
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoProcessor

from kvw_experiments.model_selection import TIES, Rule, choose
from kvw_experiments.recipes import pocket
from kvw_minimal.atomic_io import check_place
from kvw_minimal.batches import (
    IGNORED,
    Batch,
    answer_batches,
    prompt_batches,
    render,
    without_photo,
)
from kvw_minimal.benchmarks.multiple_choice import parse_letter
from kvw_minimal.benchmarks.truth_ratios import forget_quality
from kvw_minimal.coefficients import Coefficients, hook_inputs
from kvw_minimal.edits import ColumnScaling, Edit, WeightReplacement
from kvw_minimal.forget_request import Request
from kvw_minimal.kvw import (
    check_sides,
    contrast,
    contrast_of_batch,
    epoch_order,
    gate,
    sequential_weakening,
)
from kvw_minimal.method import Method, make_edit
from kvw_minimal.methods.fisher import masked
from kvw_minimal.methods.losses import AnswerLogits, divergence
from kvw_minimal.methods.training import DO_NOT_KNOW
from kvw_minimal.models import backbone, columns, find_projections, fingerprint
from kvw_minimal.questions import Question, seeded
from kvw_minimal.scores import mentions, read
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.testing.method_checks import check_method, require
from kvw_minimal.zoo.catalogue import MODELS


@dataclass(frozen=True)
class Exhibit:
    """One mistake.

    Attributes:
        name: what it is called here.
        seen: in which project and file, and when.
        told: what happens, in a sentence.
        looks: why nobody noticed.
        caught: what notices; `guard`: the function that does, of `kvw_minimal` unless it says
            another.
        room: the class with `mistake`, `mended`, `fine` and `check`.
    """

    name: str
    seen: str
    told: str
    looks: str
    caught: str
    guard: str
    room: type


EXHIBITS: list[Exhibit] = []
KVW = "KVW, github kyj93790/KVW"
MLLMU = "MLLMU-Bench, github franciscoliu/MLLMU-Bench"
CLEAR = "CLEAR, github somvy/multimodal_unlearning"
MMU = "MMUnlearner, github Z1zs/MMUnlearner"


def exhibit(name: str, **words: str) -> Callable[[type], type]:
    """A decorator that puts a class into the museum."""

    def enter(room: type) -> type:
        EXHIBITS.append(Exhibit(name, room=room, **words))
        return room

    return enter


# --- what the exhibits are tried on ------------------------------------------------------------


@cache
def processor():
    """That of `pocket`."""
    return AutoProcessor.from_pretrained(MODELS / "pocket")


def a_model(seed: int = 0) -> nn.Module:
    """A tiny random one, of the make of `pocket`."""
    eye = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    words = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return pocket.build_model(processor().tokenizer, seed, words, eye).eval()


@cache
def forget_and_retain() -> tuple[list[Question], list[Question]]:
    """What is to be forgotten and what is to stay: about one person, and about two others."""
    world = load_people()
    mine, *others = (about(world, [person])[:6] for person in list(world.people)[:3])
    return mine, sum(others, [])


def a_case(
    seed: int = 0, dtype: torch.dtype = torch.float32, images: bool = True
) -> tuple[Session, Request]:
    """A tiny model and a small request to it."""
    forget, retain = (
        [q for q in side if images or q.image is None] for side in forget_and_retain()
    )
    return Session(a_model(seed).to(dtype), processor()), Request(forget, retain)


def as_method(make: Callable, strength: float = 1.0) -> Method:
    """A function `(session, request, strength) -> Edit` as a method with one setting."""

    @dataclass(frozen=True)
    class Shown(Method):
        strength: float = 1.0

        def edit(self, session: Session, request: Request) -> Edit:
            return make(session, request, self.strength)

    return Shown(strength)


def decoded(labels: torch.Tensor) -> str:
    """The text of all labels that are learned from."""
    return processor().tokenizer.decode(labels[labels != IGNORED]).strip()


# --- methods -----------------------------------------------------------------------------------


@exhibit(
    "The error that nobody heard",
    seen=f"{KVW}, baselines/KVW.py, 2026-01-31 to 2026-03-29",
    told="One value was unpacked into two. A bare `except` caught the error, and the unedited "
    "model was saved.",
    looks="The run ends in its usual time, an edit is written, and the others lose no answers.",
    caught="An edit must change some answers, and an error in any pass must be raised.",
    guard="testing.method_checks.changes_something",
)
class Swallowed:
    def mistake(session: Session, request: Request, strength: float) -> ColumnScaling:
        made_for, retain = fingerprint(session.model), reference(session, request)
        total = torch.zeros_like(retain)
        for batch in session.batches(request.forget, 1):
            try:
                step, _ = contrast_of_batch(session.model, batch, retain)  # there is one, not two
                total += step
            except Exception:  # noqa: BLE001, S110 - this is the mistake
                pass
        session.cost.add("forget", len(request.forget), 1)
        return ColumnScaling(total, strength, made_for)

    def mended(session: Session, request: Request, strength: float) -> ColumnScaling:
        made_for, retain = fingerprint(session.model), reference(session, request)
        steps = [
            contrast_of_batch(session.model, b, retain) for b in session.batches(request.forget, 1)
        ]
        session.cost.add("forget", len(request.forget), 1)
        return ColumnScaling(torch.stack(steps).sum(0), strength, made_for)

    def fine(make: Callable) -> bool:
        session, request = a_case()
        edit, cost = make_edit(session, request, as_method(make, 0.1))
        before = read(session.model, session.batches(request.retain)).probability.mean()
        with edit.on(session.model):
            share = read(session.model, session.batches(request.retain)).probability.mean() / before
        return edit.notes["people"] == request.people and cost.seconds > 0 and share > 0.9

    def check(make: Callable) -> None:
        check_method(as_method(make), *a_case())


def reference(session: Session, request: Request) -> torch.Tensor:
    """Retain coefficients, `[layers, d_ff]`, with what they cost."""
    session.cost.add("retain", len(request.retain), 1)
    return session.coefficients(request).of(request.retain_people).pooled()


@exhibit(
    "The hooks that stayed",
    seen=f"{KVW}, baselines/KVW.py, 2026-03-29",
    told="The hooks are removed after the last batch. If a batch fails (for lack of memory, say), "
    "they stay, and then fail in every batch of another length.",
    looks="If no batch fails, the coefficients are right bit for bit.",
    caught="The method is interrupted in its first, a middle and its last pass; the model must be "
    "as before.",
    guard="testing.method_checks.lets_errors_through",
)
class HooksLeftOn:
    def mistake(session: Session, request: Request, strength: float) -> ColumnScaling:
        def measured(questions: list[Question]) -> torch.Tensor:
            sums, see = summing(session)
            hooks = [
                p.register_forward_pre_hook(lambda _, x, i=i: see(i, x[0]))
                for i, p in enumerate(find_projections(session.model).values())
            ]
            run(session, questions, see)
            for hook in hooks:
                hook.remove()
            return torch.stack(sums)

        return by_contrast(measured, session, request, strength)

    def mended(session: Session, request: Request, strength: float) -> ColumnScaling:
        def measured(questions: list[Question]) -> torch.Tensor:
            sums, see = summing(session)
            with hook_inputs(find_projections(session.model), see):  # comes off whatever happens
                run(session, questions, see)
            return torch.stack(sums)

        return by_contrast(measured, session, request, strength)

    def fine(make: Callable) -> bool:
        edit, _ = make_edit(*a_case(), as_method(make))
        right, _ = make_edit(*a_case(), as_method(HooksLeftOn.mended))
        return torch.equal(edit.contrast, right.contrast)

    def check(make: Callable) -> None:
        check_method(as_method(make), *a_case())


def summing(session: Session) -> tuple[list, Callable]:
    """Mean |h| of each layer over all positions, and what a hook has to call for it."""
    sums: list = [0.0] * len(find_projections(session.model))

    def see(layer: int, h: torch.Tensor) -> None:
        sums[layer] = sums[layer] + h.detach().abs().mean((0, 1))

    return sums, see


@torch.no_grad()
def run(session: Session, questions: list[Question], see: Callable) -> None:
    """Let the model read some questions."""
    for batch in session.batches(questions):
        backbone(session.model)(**batch.inputs, use_cache=False)


def by_contrast(
    measured: Callable, session: Session, request: Request, strength: float
) -> ColumnScaling:
    """The edit that follows from what was measured on both sides."""
    made_for = fingerprint(session.model)
    session.cost.add("forget", len(request.forget), 1)
    session.cost.add("retain", len(request.retain), 1)
    scores = contrast(measured(request.forget), measured(request.retain))
    return ColumnScaling(scores, strength, made_for)


@exhibit(
    "Multiplied by one",
    seen=f"{KVW}, baselines/KVW.py, 2026-03-29",
    told="Each small step multiplies the weights in bfloat16, where a gate just below 1 is "
    "rounded to 1: many steps together change nothing.",
    looks="The printed gates, in float32, are all below 1, and their product is small.",
    caught="An edit must change some answers, on a model in bfloat16, too.",
    guard="edits.scaled_columns",
)
class InPlace:
    STEPS = 1_000

    def mistake(session: Session, request: Request, strength: float) -> WeightReplacement:
        made_for, scores = fingerprint(session.model), clipped(session, request)
        step = gate(scores, strength / InPlace.STEPS)
        with torch.no_grad():
            for row, projection in zip(step, find_projections(session.model).values(), strict=True):
                for _ in range(InPlace.STEPS):
                    columns(projection).mul_(row.to(projection.weight.dtype))
        new = {
            f"{path}.weight": p.weight.detach().clone()
            for path, p in find_projections(session.model).items()
        }
        return WeightReplacement(
            new, made_for, notes={"gate": float(step.pow(InPlace.STEPS).mean())}
        )

    def mended(session: Session, request: Request, strength: float) -> ColumnScaling:
        made_for, scores = fingerprint(session.model), clipped(session, request)
        gates = gate(scores, strength)
        return ColumnScaling(scores, strength, made_for, notes={"gate": float(gates.mean())})

    def fine(make: Callable) -> bool:
        session, request = a_case(dtype=torch.bfloat16, images=False)
        return make_edit(session, request, as_method(make))[0].notes["gate"] < 0.9

    def check(make: Callable) -> None:
        session, request = a_case(dtype=torch.bfloat16, images=False)
        check_method(as_method(make), session, request)


def clipped(session: Session, request: Request) -> torch.Tensor:
    """A contrast that is at most 1, `[layers, d_ff]`."""
    retain = reference(session, request)
    session.cost.add("forget", len(request.forget), 1)
    return contrast(session.measured(request.forget).pooled(), 0.5 * retain).clamp(max=1)


@exhibit(
    "Another order every time",
    seen=f"{KVW}, baselines/KVW.py, 2026-03-29; {MLLMU}, baselines, 2024-12-13",
    told="A loader shuffles without a seed; the code sets only the seed of another library.",
    looks="Each run forgets about as much as the last.",
    caught="The same seed must give the same edit, bit for bit, after any other random draws.",
    guard="testing.method_checks.repeats_itself",
)
class Unseeded:
    def mistake(session: Session, request: Request, strength: float) -> ColumnScaling:
        random.seed(42)  # of Python; the loader draws from torch
        loader = DataLoader(range(len(request.forget)), shuffle=True, batch_size=None)
        return in_steps([int(i) for i in loader], session, request, strength)

    def mended(session: Session, request: Request, strength: float) -> ColumnScaling:
        return in_steps(
            epoch_order(len(request.forget), seed=request.seed), session, request, strength
        )

    def fine(make: Callable) -> bool:
        one, other = (make_edit(*a_case(), as_method(make, 4.0))[0] for _ in range(2))
        return abs(float(one.gates.mean() - other.gates.mean())) < 0.01

    def check(make: Callable) -> None:
        check_method(as_method(make, 4.0), *a_case())


def in_steps(
    order: list[int], session: Session, request: Request, strength: float
) -> ColumnScaling:
    """Question after question, each on the model as it is by then."""
    made_for, retain = fingerprint(session.model), reference(session, request)
    batches = session.batches(request.forget, 1)
    session.cost.add("forget", len(request.forget), 1)
    total = sequential_weakening(
        session.model,
        order,
        lambda i: contrast_of_batch(session.model, batches[i], retain),
        lambda scores: gate(scores, strength),
    )
    return ColumnScaling(total, strength, made_for, "published")


# --- runs --------------------------------------------------------------------------------------


@exhibit(
    "A name without its model",
    seen=f"{KVW}, baselines/KVW.py, 2026-03-29",
    told="Retain coefficients are stored under the size of the retain set alone; the next model "
    "gets the coefficients of the last one.",
    looks="The second run is much faster, and with one model it is right.",
    caught="Coefficients hold the fingerprint of their model; an edit refuses those of another.",
    guard="kvw.check_sides",
)
class StaleCache:
    def mistake(session: Session, request: Request, shelf: dict[str, Coefficients]) -> Coefficients:
        name = f"retain-{len(request.retain)}"
        shelf[name] = shelf.get(name) or session.measured(request.retain)
        return shelf[name]

    def mended(session: Session, request: Request, shelf: dict[str, Coefficients]) -> Coefficients:
        name = f"retain-{len(request.retain)}-{fingerprint(session.model)}"
        shelf[name] = shelf.get(name) or session.measured(request.retain)
        return shelf[name]

    def fine(make: Callable) -> bool:
        (session, request), shelf = a_case(), {}
        return torch.equal(make(session, request, shelf).sums, make(session, request, shelf).sums)

    def check(make: Callable) -> None:
        shelf: dict[str, Coefficients] = {}
        for seed in (0, 1):
            session, request = a_case(seed)
            try:
                check_sides(
                    fingerprint(session.model), request.people, make(session, request, shelf)
                )
            except ValueError as error:
                raise AssertionError(str(error)) from error


@exhibit(
    "Two baselines, one folder",
    seen=f"{KVW}, forget.sh, 2026-03-29",
    told="Of four commands, the last was copied from the second, with its folder: both models go "
    "there, and the table compares a method with itself.",
    looks="Each command prints where its model was saved, and each folder that is read exists.",
    caught="All output places are checked before the work: two results cannot go to one place.",
    guard="atomic_io.check_place",
)
class OneFolder:
    def mistake(folder: Path) -> dict[str, Path]:
        return {
            "GA": folder / "GA_5",
            "GD": folder / "GD_5",
            "KL": folder / "KL_5",
            "NPO": folder / "GD_5",
        }

    def mended(folder: Path) -> dict[str, Path]:
        return {name: folder / f"{name}_5" for name in ("GA", "GD", "KL", "NPO")}

    def fine(make: Callable) -> bool:
        with TemporaryDirectory() as folder:
            places = make(Path(folder))
            for name, place in places.items():
                place.write_text(name)
            return len(places) == 4 and all(place.is_file() for place in places.values())

    def check(make: Callable) -> None:
        with TemporaryDirectory() as folder:
            try:
                check_place(*make(Path(folder)).values())
            except ValueError as error:
                raise AssertionError(str(error)) from error


@exhibit(
    "False is true",
    seen=f"{KVW}, finetune.py and finetune.sh, 2026-03-29; the same kind of option in {MLLMU} and "
    f"{MMU}",
    told="`--is_oracle False` is read by `bool`, for which every non-empty word is true: the "
    "model that should know everybody is trained without the people to forget.",
    looks="Without the option it is false, with True it is true.",
    caught="Each option of a command is followed to the call that it causes, for each of its "
    "values.",
    guard="__main__.unlearn_command",
)
class FalseIsTrue:
    def mistake(words: list[str]) -> bool:
        parser = argparse.ArgumentParser()
        parser.add_argument("--is_oracle", type=bool, default=False)
        return parser.parse_args(words).is_oracle

    def mended(words: list[str]) -> bool:
        parser = argparse.ArgumentParser()
        known = {"True": True, "False": False}
        parser.add_argument("--is_oracle", type=known.__getitem__, default=False)
        return parser.parse_args(words).is_oracle

    def fine(make: Callable) -> bool:
        return make(["--is_oracle", "True"]) and not make([])

    def check(make: Callable) -> None:
        for value, meant in (("True", True), ("False", False)):
            require(make(["--is_oracle", value]) is meant, f"{value} is read as {not meant}")


# --- loaders -----------------------------------------------------------------------------------


@exhibit(
    "An error built, not raised",
    seen=f"{KVW}, data_process/CLEAR_process.py, 2026-03-29",
    told="If the answer is not found among the tokens (because a long prompt was cut, say), an "
    "error object is built but not raised. The whole prompt stays in the labels, and all of it "
    "is averaged.",
    looks="Every answer that is found has the right mask, and a batch always has labels.",
    caught="A missing answer stops the work, with the name of its question.",
    guard="batches.answer_batches",
)
class NeverRaised:
    def mistake(ids: list[int], answer: list[int]) -> list[int]:
        start = place_of(answer, ids)
        if start is None:
            ValueError("the answer is not among the tokens")
            return ids
        rest = len(ids) - start - len(answer)
        return [IGNORED] * start + answer + [IGNORED] * rest

    def mended(ids: list[int], answer: list[int]) -> list[int]:
        start = place_of(answer, ids)
        if start is None:
            raise ValueError("the answer is not among the tokens")
        rest = len(ids) - start - len(answer)
        return [IGNORED] * start + answer + [IGNORED] * rest

    def fine(make: Callable) -> bool:
        return make([5, 6, 7, 8, 2], [7, 8]) == [IGNORED, IGNORED, 7, 8, IGNORED]

    def check(make: Callable) -> None:
        try:
            labels = make([5, 6, 7], [7, 8])  # cut after three
        except ValueError:
            return
        learned = sum(label != IGNORED for label in labels)
        require(False, f"{learned} of {len(labels)} tokens are taken for the answer")


def place_of(some: list[int], ids: list[int]) -> int | None:
    """Where some tokens begin among others, or None."""
    starts = range(len(ids) - len(some) + 1)
    return next((i for i in starts if ids[i : i + len(some)] == some), None)


@exhibit(
    "One token for a picture",
    seen=f"{CLEAR}, mm/dataset.py, 2025-03-30",
    told="The tokenizer measures the prompt and counts one token for the picture; today's "
    "processors insert many, and the end of the prompt is learned like an answer.",
    looks="For questions without a picture the labels are right.",
    caught="The training tokens, decoded, must be the answer and its end, word for word.",
    guard="batches.answer_batches",
)
class OnePlaceholder:
    def mistake(question: Question) -> torch.Tensor:
        batch = answer_batches(processor(), [question])[0]
        labels = batch.inputs["input_ids"][0].clone()
        labels[: len(processor().tokenizer(render(processor(), question)[0])["input_ids"])] = (
            IGNORED
        )
        return labels

    def mended(question: Question) -> torch.Tensor:
        return answer_batches(processor(), [question])[0].labels[0]

    def fine(make: Callable) -> bool:
        question = next(q for q in forget_and_retain()[0] if q.image is None)
        return torch.equal(make(question), OnePlaceholder.mended(question))

    def check(make: Callable) -> None:
        for question in forget_and_retain()[0]:
            learned, right = decoded(make(question)), render(processor(), question)[1]
            require(learned == right, f"{learned!r} is learned, not {right!r}")


@exhibit(
    "The end of turn among the words",
    seen="this book, kvw_minimal/batches.py, until 2026-11-26",
    told="The position that predicts the end of the turn was counted as a part of the answer, "
    "though the method's authors leave it out: in a short answer it is one position of a few.",
    looks="The coefficients are finite, and differ little.",
    caught="The tokens in the mask, decoded, must be the answer and nothing else.",
    guard="batches.Batch",
)
class EndOfTurn:
    def mistake(batch: Batch) -> torch.Tensor:
        return batch.predicts

    def mended(batch: Batch) -> torch.Tensor:
        return batch.answers

    def fine(make: Callable) -> bool:
        return all(
            bool(make(b).any(1).all()) and not bool((make(b) & ~b.predicts).any())
            for b in answer_batches(processor(), forget_and_retain()[0])
        )

    def check(make: Callable) -> None:
        for question in forget_and_retain()[0]:
            batch = answer_batches(processor(), [question])[0]
            text = decoded(batch.inputs["input_ids"][0, 1:][make(batch)[0, :-1]])
            require(text == question.answer, f"{text!r} is counted, not {question.answer!r}")


@exhibit(
    "I do not know, made and left lying",
    seen=f"{CLEAR}, mm/dataset.py, 2025-03-30",
    told="A copy of each question gets “I don't know” as its answer, but the original question is "
    "used: the model is taught again what it should forget.",
    looks="There are as many pairs as questions, and the loss falls as it should.",
    caught="An answer that replaces a taught answer must differ from it.",
    guard="methods.training.idk_answer",
)
class NotTheCopy:
    def mistake(questions: list[Question]) -> list[Question]:
        pairs = []
        for question in questions:
            pairs.append((question, replace(question, answer=DO_NOT_KNOW)))
        return [question for question, _ in pairs]

    def mended(questions: list[Question]) -> list[Question]:
        return [replace(question, answer=DO_NOT_KNOW) for question in questions]

    def fine(make: Callable) -> bool:
        made = make(forget_and_retain()[0])
        return [q.id for q in made] == [q.id for q in forget_and_retain()[0]] and all(
            q.answer for q in made
        )

    def check(make: Callable) -> None:
        for question, other in zip(
            forget_and_retain()[0], make(forget_and_retain()[0]), strict=True
        ):
            require(other.answer != question.answer, f"{other.id} is taught {other.answer!r} again")


@exhibit(
    "Examples that give it away",
    seen=f"{MLLMU}, eval.py, 2025-03-12",
    told="The example before a question is drawn, without a seed, from the people to forget, with "
    "its answer: the prompt contains what it asks for.",
    looks="Every question has an example, and none is its own.",
    caught="No prompt may contain an answer about the forgotten, and two runs must ask the same.",
    guard="audit.prompting_probes.few_shot",
)
class GivenAway:
    def mistake(request: Request) -> list[Question]:
        shown = random.sample(request.forget, 2)
        return [before([s for s in shown if s is not q][0], q) for q in request.forget]

    def mended(request: Request) -> list[Question]:
        drawn = seeded("examples", request.seed).integers(
            len(request.retain), size=len(request.forget)
        )
        return [before(request.retain[i], q) for i, q in zip(drawn, request.forget, strict=True)]

    def fine(make: Callable) -> bool:
        _, request = a_case()
        asked_now = make(request)
        return all(
            now.prompt.endswith(q.prompt) and f"{q.prompt} {q.answer}" not in now.prompt
            for now, q in zip(asked_now, request.forget, strict=True)
        )

    def check(make: Callable) -> None:
        _, request = a_case()
        first, known = make(request), {f"{q.prompt} {q.answer}" for q in request.forget}
        for question in first:
            given = [sentence for sentence in known if sentence in question.prompt]
            require(not given, f"{question.id} is asked after {given}")
        require(make(request) == first, "the second time something else is asked")


def before(example: Question, question: Question) -> Question:
    """A question with another one, answered, before it."""
    return replace(question, prompt=f"{example.prompt} {example.answer} {question.prompt}")


@exhibit(
    "The picture that nobody saw",
    seen=f"{CLEAR}, mm/eval.py, 2025-03-30",
    told="For generation the prompt is decoded to text and encoded again, without its picture: "
    "the score is that of a guess.",
    looks="Every question gets an answer, and forgetting looks complete.",
    caught="With a grey picture instead, the input of the model must be different.",
    guard="batches.without_photo",
)
class Unseen:
    def mistake(question: Question) -> dict:
        text, _ = render(processor(), question)
        return dict(processor().tokenizer([text], return_tensors="pt"))

    def mended(question: Question) -> dict:
        return prompt_batches(processor(), [question])[0].inputs

    def fine(make: Callable) -> bool:
        text = processor().tokenizer.decode(make(photographed())["input_ids"][0])
        return photographed().prompt in text

    def check(make: Callable) -> None:
        shown, blank = make(photographed()), make(without_photo([photographed()])[0])
        same = all(torch.equal(shown[name], blank[name]) for name in shown)
        require(not same, "with a grey picture the model is given the same")


def photographed() -> Question:
    """A question about a photo."""
    return next(q for q in forget_and_retain()[0] if q.image is not None)


# --- losses ------------------------------------------------------------------------------------


@exhibit(
    "A mean over sentences, not tokens",
    seen=f"{MLLMU}, baselines/KL_Min.py, 2024-12-13; {MMU}, baselines, 2025-05-21",
    told="`batchmean` divides by the first axis only. For [B, T, vocabulary] the divergence is T "
    "times too large, includes padding and prompt, and outweighs the other loss.",
    looks="It is zero for an unchanged model, and grows with the change.",
    caught="The same tokens twice over must give the same mean.",
    guard="methods.losses.divergence",
)
class BatchMean:
    def mistake(start: torch.Tensor, now: torch.Tensor) -> float:
        return float(F.kl_div(now.log_softmax(-1), start.softmax(-1), reduction="batchmean"))

    def mended(start: torch.Tensor, now: torch.Tensor) -> float:
        one, other = (
            AnswerLogits(logits.flatten(0, 1), *(torch.zeros(0),) * 2) for logits in (start, now)
        )
        return float(divergence(one, other))

    def fine(make: Callable) -> bool:
        start, moved = drawn_logits()
        return abs(make(start, start)) < 1e-5 < make(start, moved) < make(start, 2 * moved)

    def check(make: Callable) -> None:
        start, moved = drawn_logits()
        once, twice = make(start, moved), make(torch.cat([start] * 2, 1), torch.cat([moved] * 2, 1))
        require(
            abs(twice / once - 1) < 1e-3, f"twice the tokens, {twice / once:.1f} times the mean"
        )


def drawn_logits() -> tuple[torch.Tensor, torch.Tensor]:
    """Of a start model and of one that has moved, `[2, 6, 10]` each."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 6, 10, generator=generator) for _ in range(2))


@exhibit(
    "A mask before the optimiser",
    seen=f"{MMU}, baselines/CLEAR_manifold.py, 2025-05-21",
    told="The gradient is masked and then given to AdamW. Its weight decay and momentum move "
    "weights without any gradient, so weights outside the mask change, too.",
    looks="Outside the mask every gradient is zero, and the weights seem to stay the same.",
    caught="After a step the weights outside the mask must be unchanged, bit for bit.",
    guard="methods.fisher.masked",
)
class MaskedTooEarly:
    def mistake(
        optimizer: torch.optim.Optimizer,
        weight: nn.Parameter,
        mask: torch.Tensor,
        loss: torch.Tensor,
    ) -> None:
        loss.backward()
        weight.grad.mul_(mask)
        optimizer.step()
        optimizer.zero_grad()

    def mended(
        optimizer: torch.optim.Optimizer,
        weight: nn.Parameter,
        mask: torch.Tensor,
        loss: torch.Tensor,
    ) -> None:
        masked(optimizer, [weight], [mask], loss)

    def fine(make: Callable) -> bool:
        gap, mask = moved_by(make)
        return float(gap[~mask].abs().max()) < 0.05 * float(gap[mask].abs().min())

    def check(make: Callable) -> None:
        gap, mask = moved_by(make)
        require(not gap[~mask].any(), f"{int(gap[~mask].count_nonzero())} weights outside moved")


def moved_by(make: Callable) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each of eight weights moves in a step, and which of them may."""
    weight, mask = nn.Parameter(torch.linspace(-1, 1, 8)), torch.arange(8) < 4
    start = weight.detach().clone()
    make(torch.optim.AdamW([weight], 1e-2), weight, mask, weight.square().sum())
    return weight.detach() - start, mask


@exhibit(
    "A sum that stops growing",
    seen=f"{MMU}, data_process/SFRon.py, 2025-05-21",
    told="Squares of gradients are summed in bfloat16, the number format of the weights: once the "
    "sum is a few hundred times a square, adding another square changes nothing.",
    looks="Over the eight batches of a trial the mean is right.",
    caught="The mean of equal numbers must be that number, for any count.",
    guard="methods.fisher.fisher",
)
class SumStops:
    def mistake(gradients: list[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros_like(gradients[0])
        for gradient in gradients:
            total += gradient.square() / len(gradients)
        return total

    def mended(gradients: list[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros_like(gradients[0], dtype=torch.float32)
        for gradient in gradients:
            total += gradient.float().square() / len(gradients)
        return total

    def fine(make: Callable) -> bool:
        return abs(float(make([torch.ones(3).bfloat16()] * 8).mean()) - 1) < 0.01

    def check(make: Callable) -> None:
        mean = float(make([torch.ones(3).bfloat16()] * 2_000).mean())
        require(abs(mean - 1) < 0.01, f"the mean of 2,000 ones is {mean:.2f}")


# --- scores ------------------------------------------------------------------------------------


@exhibit(
    "The first letter",
    seen=f"{MLLMU}, eval.py, 2025-03-12; {KVW}, eval.py, 2026-03-29",
    told="The first letter of the answer is taken as the option: “Correct answer: D” is read as "
    "C, and “A man in a hat” as A.",
    looks="Answers of one letter are read rightly.",
    caught="Sentences are parsed, and an answer without an option is counted as such.",
    guard="benchmarks.multiple_choice.parse_letter",
)
class FirstLetter:
    def mistake(text: str) -> str | None:
        first = text.strip()[:1].upper()
        return first if first and first in "ABCD" else None

    def mended(text: str) -> str | None:
        return parse_letter(text)

    def fine(make: Callable) -> bool:
        return [make(text) for text in ("A", "b", "C.", "D", "")] == ["A", "B", "C", "D", None]

    def check(make: Callable) -> None:
        for text, meant in (
            ("Correct answer: D", "D"),
            ("A man in a hat", None),
            ("Based on the photo, no", None),
            ("**B**", "B"),
        ):
            require(make(text) == meant, f"{text!r} is read as {make(text)}")


@exhibit(
    "Only a to z",
    seen=f"{KVW}, eval.py, 2026-03-29",
    told="All characters but plain letters and digits are removed before a name is searched: José "
    "becomes Jos, Ann is found in Joanna, and a name in another script becomes empty, and is "
    "found everywhere.",
    looks="Plain names, alone in a sentence, are found and missed as they should be.",
    caught="Names are compared as whole words, with their accents; an empty name is an error.",
    guard="scores.mentions",
)
class OnlyAToZ:
    def mistake(answer: str, gold: str) -> float:
        answer, gold = (re.sub("[^a-z0-9]", "", text.lower()) for text in (answer, gold))
        return float(gold in answer)

    def mended(text: str, gold: str) -> float:
        return mentions(text, gold)

    def fine(make: Callable) -> bool:
        return make("This is Ann Lee.", "Ann Lee") == 1 and make("This is Bo Vik.", "Ann Lee") == 0

    def check(make: Callable) -> None:
        for text, gold in (
            ("It is Jos.", "José"),
            ("It is Joanna.", "Ann"),
            ("Nobody.", "李娜"),
        ):
            require(make(text, gold) == 0, f"{gold} is found in {text!r}")


@exhibit(
    "A distance between two orders",
    seen=f"{CLEAR}, mm/calculate_metrics.py, 2025-03-30",
    told="Two lists of truth ratios are given to a distance that compares them place by place: it "
    "measures how the rows are sorted.",
    looks="It is zero for the oracle itself, and larger for any other model.",
    caught="The rows in another order must give the same number.",
    guard="benchmarks.truth_ratios.forget_quality",
)
class RowOrder:
    def mistake(ratios: np.ndarray, oracle: np.ndarray) -> float:
        return float(jensenshannon(ratios, oracle))

    def mended(ratios: np.ndarray, oracle: np.ndarray) -> float:
        return forget_quality(ratios, oracle)["statistic"]

    def fine(make: Callable) -> bool:
        oracle = np.array([0.8, 1.1, 0.9, 1.3])
        return make(oracle, oracle) == 0 < make(oracle / np.array([9, 5, 7, 3]), oracle)

    def check(make: Callable) -> None:
        ratios, oracle = np.array([0.2, 0.4, 0.9, 1.8]), np.array([0.3, 0.5, 0.8, 1.7])
        one, other = make(ratios, oracle), make(ratios[::-1], oracle)
        require(one == other, f"{one:.2f}, and {other:.2f} with the rows turned round")


@exhibit(
    "The first of equals",
    seen="this book, notebooks/kvw_experiments/model_selection.py, until 2026-11-26",
    told="Of settings that forget equally much, the first of the grid was taken, though a later "
    "one kept more of everything: a competitor looked worse than it was.",
    looks="The chosen setting keeps as much as it must, and no setting forgets more.",
    caught="With the grid in reverse order the same setting must be chosen.",
    guard="kvw_experiments.model_selection.choose",
)
class FirstOfEquals:
    TRIED = {"small": {"forget": 0.1, "retain": 0.92}, "large": {"forget": 0.1, "retain": 0.99}}

    def mistake(tried: dict) -> str:
        return choose(tried, {"forget": 1.0, "retain": 1.0}, Rule(ties=("order",)))[0]

    def mended(tried: dict) -> str:
        return choose(tried, {"forget": 1.0, "retain": 1.0}, Rule(ties=TIES))[0]

    def fine(make: Callable) -> bool:
        chosen = FirstOfEquals.TRIED[make(FirstOfEquals.TRIED)]
        least = min(scores["forget"] for scores in FirstOfEquals.TRIED.values())
        return chosen["retain"] >= 0.9 and chosen["forget"] == least

    def check(make: Callable) -> None:
        tried = FirstOfEquals.TRIED
        one, other = make(tried), make(dict(reversed(tried.items())))
        require(one == other, f"{one} is chosen, and {other} with the grid turned round")


# --- the page ----------------------------------------------------------------------------------


def caught(room: type) -> str:
    """What its check says of a mistake; empty if it says nothing."""
    try:
        room.check(room.mistake)
    except AssertionError as error:
        return str(error)
    return ""


def page() -> str:
    """The exhibits as the definition list of `book/museum.md`."""
    return "\n".join(
        f"**{entry.name}.** {entry.told}\n"
        f": *Looks right*: {entry.looks}\n"
        f": *Caught*: {entry.caught} (`{entry.guard}`)\n"
        f": *Seen*: {entry.seen}.\n"
        for entry in EXHIBITS
    )
