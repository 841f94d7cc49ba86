"""Every edit of this book's family as one point on a few axes: what KVW is made of, part by part.

    rows = recorded(session, "square", "answer", questions)     # once: what every question calls
    edit = make(Setting(score="square", share=0.2), session, request)

An edit answers six questions. Each has a few answers, and each answer is a short function here:

- *score*: what of a coefficient h counts? `absolute` |h|, `square` h^2, `positive` max(0, h), or
  `fisher`, the squared derivative of the loss by the factor in front of the vector.
- *positions*: at which tokens? Those that predict the `answer` (as in the authors' code), the
  `fact` in it, or the `answer and end` of the turn; all `text`; or the `image`.
- *whose*: which modalities are asked about, and what is the reference: the retain set, or the
  retain set and `general`; of the same modalities, of the same facts, or whole.
- *contrast*: how are forget and retain compared?
- *shape*: how does a contrast become a gate?
- *schedule*: everything at once, or batch after batch on weights already weakened.

KVW as published, selective pruning and the rest are settings with a name: `NAMED`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest

import numpy as np
import torch
from torch.nn import functional as F

from kvw_minimal.architectures import check_dense_fp
from kvw_minimal.batches import Batch
from kvw_minimal.coefficients import run_with_hooks, shape_of
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.forget_request import Request
from kvw_minimal.kvw import EPSILON, contrast, mask_layers, sequential_weakening
from kvw_minimal.method import Method, register
from kvw_minimal.methods.kvw import ZERO_GATE_STRENGTH, shuffle_within_layer, top_share_mask
from kvw_minimal.methods.positions import POSITIONS, kinds_of_positions
from kvw_minimal.models import fingerprint
from kvw_minimal.questions import MODALITIES, Question
from kvw_minimal.session import Session

from . import in_place, kin, sequential  # noqa: F401 - they register, too

#: what of a coefficient counts, without any gradient
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "absolute": torch.abs,
    "square": torch.square,
    "positive": torch.relu,
}
SCORES = (*ACTIVATIONS, "fisher")
AGAINST = ("modalities", "facts", "whole")
STEPS = ("person", "facts")  # a batch that is no number
TINY = torch.finfo(torch.float32).tiny


# --- what every question calls ---------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What questions call, one row each, for one score at one kind of position.

    Attributes:
        sums: `[questions, layers, d_ff]` float32, sum over the tokens of that kind.
        tokens: `[questions]` float32, how many such tokens; for `fisher` 1 where there are any.
        questions: in the order of the rows.
        fingerprint: of the model that was asked.
    """

    sums: torch.Tensor
    tokens: torch.Tensor
    questions: tuple[Question, ...]
    fingerprint: str

    def where(self, chosen: Callable[[Question], bool]) -> "Rows":
        """The rows of some questions.

        Raises:
            ValueError: of none.
        """
        places = [i for i, question in enumerate(self.questions) if chosen(question)]
        places = [i for i in places if self.tokens[i] > 0]
        if not places:
            raise ValueError("no question has a token of this kind here")
        return Rows(
            self.sums[places],
            self.tokens[places],
            tuple(self.questions[i] for i in places),
            self.fingerprint,
        )

    @cached_property
    def ids(self) -> frozenset[str]:
        """Of the questions."""
        return frozenset(question.id for question in self.questions)

    def of(self, modalities: Iterable[str]) -> "Rows":
        """The rows of questions of some modalities."""
        return self.where(lambda question: question.modality in modalities)

    def mean(self) -> torch.Tensor:
        """Token-weighted mean, `[layers, d_ff]`."""
        return self.sums.sum(0) / self.tokens.sum()

    def per_person(self) -> torch.Tensor:
        """Token-weighted mean of each person, `[people, layers, d_ff]`."""
        names = list(dict.fromkeys(question.person for question in self.questions))
        owner = torch.tensor([names.index(question.person) for question in self.questions])
        sums = self.sums.new_zeros(len(names), *self.sums.shape[1:]).index_add_(0, owner, self.sums)
        tokens = self.tokens.new_zeros(len(names)).index_add_(0, owner, self.tokens)
        return sums / tokens[:, None, None]


def nll(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
    """Sum of -log p over the answers of a batch."""
    gold = batch.labels[:, 1:][batch.predicts[:, :-1]]
    return F.cross_entropy(logits[batch.predicts].float(), gold, reduction="sum")


def record(
    session: Session,
    questions: list[Question],
    scores: Iterable[str] = tuple(ACTIVATIONS),
    positions: Iterable[str] = POSITIONS,
    batch_size: int = 64,
    progress: bool = False,
    made_for: str = "",
) -> dict[tuple[str, str], Rows]:
    """Ask every question once and keep what it calls, for every score and kind of position.

    `fisher` needs a backward pass; the others need only the body of the model.

    Args:
        made_for: the fingerprint that the rows bear, where the model's need not be taken: its
            whole state would be read for each step of a schedule.

    Returns:
        `{(score, positions): Rows}`, on the processor.

    Raises:
        ValueError: an unknown score or position, or an activation that is not finite.
    """
    scores, positions = tuple(scores), tuple(positions)
    strange = (set(scores) - set(SCORES)) | (set(positions) - set(POSITIONS))
    if strange:
        raise ValueError(f"no {sorted(strange)}; there are {SCORES} and {POSITIONS}")
    check_dense_fp(session.model)
    shape = (len(questions), *shape_of(session.model))
    sums = {(s, p): torch.zeros(shape) for s in scores for p in positions}
    tokens = {p: torch.zeros(len(questions)) for p in positions}
    kinds: dict[str, torch.Tensor] = {}

    def see(batch, layer, h):
        rows = torch.tensor(batch.rows)
        if layer == 0:
            kinds.update(kinds_of_positions(session.model, session.processor, batch, questions))
            for p in positions:
                tokens[p][rows] = kinds[p].sum(1).float().cpu()
        at = {p: kinds[p].float() for p in positions}  # [B, T] each
        factor = h.detach().float().reshape(*batch.labels.shape, -1)  # [B, T, d_ff]
        for s in set(scores) & set(ACTIVATIONS):
            activations = ACTIVATIONS[s](factor)
            for p in positions:
                sums[s, p][rows, layer] = torch.einsum("bt,btf->bf", at[p], activations).cpu()
        if "fisher" in scores:

            def square(gradient):
                products = gradient.float().reshape(factor.shape) * factor  # d loss / d gate
                for p in positions:
                    whole = torch.einsum("bt,btf->bf", at[p], products)
                    sums["fisher", p][rows, layer] = whole.square().cpu()

            h.register_hook(square)

    run_with_hooks(
        session.model,
        session.batches(questions, batch_size),
        see,
        nll if "fisher" in scores else None,
        "asking" if progress else "",
    )
    for (s, p), totals in sums.items():
        if not totals.isfinite().all():
            raise ValueError(f"NaN or infinite {s} at {p} positions; is the model broken?")
    known, made = tuple(questions), made_for or fingerprint(session.model)
    return {
        (s, p): Rows(totals, tokens[p].clamp(max=1) if s == "fisher" else tokens[p], known, made)
        for (s, p), totals in sums.items()
    }


def prepare(
    session: Session,
    questions: list[Question],
    scores: Iterable[str] = SCORES,
    positions: Iterable[str] = POSITIONS,
    progress: bool = False,
) -> None:
    """Record many questions at once, for all settings and requests that share the session."""
    for key, rows in record(session, questions, scores, positions, progress=progress).items():
        session.cache["rows", *key] = rows


def recorded(session: Session, score: str, positions: str, questions: list[Question]) -> Rows:
    """What some questions call, recorded now unless all of them were before.

    Raises:
        ValueError: as `record`; or what was recorded is of another model.
    """
    rows, ids = session.cache.get(("rows", score, positions)), {q.id for q in questions}
    if rows is None or not ids <= rows.ids:
        rows = record(session, questions, (score,), (positions,))[score, positions]
        session.cache["rows", score, positions] = rows
    return rows.where(lambda question: question.id in ids)


# --- contrasts: how forget and retain are compared -------------------------------------------


def log_ratio(forget: Rows, retain: Rows) -> torch.Tensor:
    """max(0, log f - log r) of the means: KVW's.

    Taken in units of the mean r, so that epsilon is small beside squared gradients, too.
    """
    f, r = forget.mean(), retain.mean()
    unit = r.mean().clamp(min=TINY)
    return contrast(f / unit, r / unit)


def difference(forget: Rows, retain: Rows) -> torch.Tensor:
    """max(0, f - r), in units of the layer's mean r: large vectors count more."""
    f, r = forget.mean(), retain.mean()
    return (f - r).clamp(min=0) / r.mean(1, keepdim=True).clamp(min=TINY)


def t_over_people(forget: Rows, retain: Rows) -> torch.Tensor:
    """Welch's t between the people of both sides, where positive: consistency counts.

    One forgotten person has no spread; then the spread of the others stands alone.
    """
    f, r = forget.per_person(), retain.per_person()
    noise = r.var(0) / len(r) + (f.var(0) / len(f) if len(f) > 1 else 0)
    return ((f.mean(0) - r.mean(0)) / noise.clamp(min=EPSILON**2).sqrt()).clamp(min=0)


def above_quantile(forget: Rows, retain: Rows, q: float = 0.9) -> torch.Tensor:
    """max(0, log f - log r_q), r_q what a share q of the retained people stay below."""
    f, r = forget.mean(), retain.per_person().quantile(q, dim=0)
    unit = r.mean().clamp(min=TINY)
    return contrast(f / unit, r / unit)


CONTRASTS: dict[str, Callable[[Rows, Rows], torch.Tensor]] = {
    "log ratio": log_ratio,
    "difference": difference,
    "t over people": t_over_people,
    "quantile": above_quantile,
}


# --- shapes: from a contrast to what an Edit takes -------------------------------------------


def power_law(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G c): every vector as much as it deserves. KVW's; `share` does not enter."""
    return contrasts


def threshold(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G max(0, c - c0)), c0 such that a `share` of all vectors lies above: a noise floor."""
    floor = contrasts.flatten().kthvalue(max(1, round((1 - share) * contrasts.numel()))).values
    return (contrasts - floor).clamp(min=0)


def top(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G c) for the `share` with the largest contrast, all others untouched."""
    return contrasts * top_share_mask(contrasts, share) * (contrasts > 0)


def zero(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """0 for the `share` with the largest contrast, at strength `ZERO_GATE_STRENGTH`."""
    return top_share_mask(contrasts, share) * (contrasts > 0)


SHAPES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "power law": power_law,
    "threshold": threshold,
    "top": top,
    "zero": zero,
}


# --- one setting -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One edit of the family; the defaults are KVW in one pass, as in chapter 5.

    Attributes:
        score, positions, contrast, shape: answers to the questions of this module, by name.
        strength: the total G; a `zero` shape does not ask for it.
        share: of all knowledge vectors, for shapes that choose some.
        modalities: of the questions asked on both sides.
        apart: contrasts are taken for each modality and added, instead of pooling first.
        general: the reference also holds descriptions of unknown portraits.
        against: what of the retain set is compared with: its questions in these `modalities`,
            about the same `facts` in the same modality as those of a step, or the `whole` of it.
        batch: forget questions a step, in seeded order, on weights already weakened; `person` for
            those about one person, `facts` for one about each fact, 0 for all at once.
        epochs: how often the forget set is gone through in batches.
        shuffle: contrasts are dealt out at random within each layer: a control.
        layers: first and last, inclusive: whole numbers count layers, (0.0, 1.0) are fractions.
    """

    score: str = "absolute"
    positions: str = "answer"
    contrast: str = "log ratio"
    shape: str = "power law"
    strength: float = 24.0
    share: float = 0.1
    modalities: tuple[str, ...] = MODALITIES
    apart: bool = False
    general: bool = False
    against: str = "modalities"
    batch: int | str = field(default=0, metadata={"at_least": 0})
    epochs: int = 1
    shuffle: bool = False
    layers: tuple = (0.0, 1.0)

    def __post_init__(self):
        for value, known in (
            (self.score, SCORES),
            (self.positions, POSITIONS),
            (self.contrast, CONTRASTS),
            (self.shape, SHAPES),
            (self.against, AGAINST),
        ):
            if value not in known:
                raise ValueError(f"no {value!r}; there are {', '.join(known)}")
        fits = self.batch in STEPS or isinstance(self.batch, int) and self.batch >= 0
        if not 0 < self.share <= 1 or not fits or self.epochs < 1:
            raise ValueError(
                f"share is in (0, 1], batch at least 0 or one of {STEPS}, epochs at least 1"
            )
        if not self.modalities or set(self.modalities) - set(MODALITIES):
            raise ValueError(f"modalities are some of {MODALITIES}, not {self.modalities}")


NAMED: dict[str, Setting] = {
    "KVW one pass": Setting(),
    "KVW published": Setting(batch="person", modalities=("image",), against="whole", strength=20.0),
    "selective pruning": Setting(shape="zero", share=0.25),
    "SSD-like": Setting(score="fisher", shape="threshold", strength=1.0),
    "zero ablation": Setting(shape="zero", share=0.03),
    "random columns": Setting(shuffle=True),
}


def like(forget: Rows, retain: Rows) -> Rows:
    """The retained questions about the same facts, in the same modality, as some forget questions.

    Raises:
        ValueError: there are none.
    """
    kinds = {(question.fact, question.modality) for question in forget.questions}
    return retain.where(lambda question: (question.fact, question.modality) in kinds)


def compare(setting: Setting, forget: Rows, retain: Rows) -> torch.Tensor:
    """The contrast of a setting, `[layers, d_ff]` float32, >= 0, zero outside its layers."""
    groups = [(m,) for m in setting.modalities] if setting.apart else [setting.modalities]
    parts = []
    for group in groups:
        forgotten, among = forget.of(group), retain
        if setting.against == "modalities":
            among = retain.of(group)
        elif setting.against == "facts":
            among = like(forgotten, retain)
        parts.append(CONTRASTS[setting.contrast](forgotten, among))
    return mask_layers(torch.stack(parts).sum(0).float(), setting.layers)


def shaped(
    setting: Setting, contrasts: torch.Tensor, made: str, seed: int, **notes
) -> ColumnScaling:
    """Shape a contrast into an edit."""
    contrasts = shuffle_within_layer(contrasts, seed) if setting.shuffle else contrasts
    strength = ZERO_GATE_STRENGTH if setting.shape == "zero" else setting.strength
    schedule = "published" if setting.batch else "one pass"
    return ColumnScaling(
        SHAPES[setting.shape](contrasts, setting.share), strength, made, schedule, notes
    )


def sides(setting: Setting, session: Session, request: Request) -> tuple[Rows, Rows]:
    """The rows of the forgotten and those of the reference.

    Raises:
        ValueError: a person is on both sides, or a side is empty.
    """
    both = sorted(set(request.people) & set(request.retain_people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")
    reference = request.retain + (request.general if setting.general else [])
    if not reference:
        raise ValueError("the reference is empty: there is nothing to compare with")
    every = recorded(session, setting.score, setting.positions, request.forget + reference)
    ids = {question.id for question in request.forget}
    return (
        every.where(lambda question: question.id in ids),
        every.where(lambda question: question.id not in ids),
    )


class TooMuch(ValueError):
    """An edit cannot reach the asked share."""


def at_mass(edit: ColumnScaling, mass: float) -> ColumnScaling:
    """The same edit at the strength that takes a given share from a vector on average.

    So edits whose contrasts have other units can be compared: none may take more than another.

    Args:
        mass: mean of 1 - gate over all vectors, in (0, 1).

    Raises:
        TooMuch: even all touched vectors at gate 0 would not reach the share.
        ValueError: a published edit, whose strength is part of how it came about.
    """
    if not 0 < mass < (edit.contrast > 0).float().mean():
        raise TooMuch(f"this contrast cannot take {mass:g} from a vector on average")
    low, high = 0.0, 1.0
    while 1 - edit.with_strength(high).gates.mean() < mass:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if 1 - edit.with_strength(middle).gates.mean() < mass else (low, middle)
        )
    return edit.with_strength((low + high) / 2)


def each_fact_once(questions: list[Question], rng: np.random.Generator) -> list[list[Question]]:
    """Steps with at most one question about each fact; the people of a step are drawn."""
    by_fact: dict[str, list[Question]] = {}
    for i in rng.permutation(len(questions)):
        by_fact.setdefault(questions[i].fact, []).append(questions[i])
    return [[q for q in step if q] for step in zip_longest(*by_fact.values())]


def in_steps(
    questions: list[Question], setting: Setting, rng: np.random.Generator
) -> list[list[Question]]:
    """The forget questions of each step of a schedule, every epoch shuffled anew."""
    if setting.batch == "facts":
        return [step for _ in range(setting.epochs) for step in each_fact_once(questions, rng)]
    if isinstance(setting.batch, str):
        people = list(dict.fromkeys(question.person for question in questions))
        by_person = [[q for q in questions if q.person == person] for person in people]
        return [
            by_person[i] for _ in range(setting.epochs) for i in rng.permutation(len(by_person))
        ]
    cuts = range(setting.batch, len(questions), setting.batch)
    return [
        [questions[i] for i in part]
        for _ in range(setting.epochs)
        for part in np.split(rng.permutation(len(questions)), cuts)
    ]


def make(setting: Setting, session: Session, request: Request) -> ColumnScaling:
    """The edit of a setting that forgets `request.forget`.

    Raises:
        ValueError: as `sides`; or what was recorded is of another model.
    """
    forget_rows, reference = sides(setting, session, request)
    made_for = fingerprint(session.model)
    if forget_rows.fingerprint != made_for:
        raise ValueError("these rows were recorded on another model (or an edited one)")
    if setting.batch == 0:
        return shaped(setting, compare(setting, forget_rows, reference), made_for, request.seed)
    questions = [q for q in forget_rows.questions if q.modality in setting.modalities]
    whole = replace(setting, apart=False)  # a batch may hold one modality only
    steps = in_steps(questions, setting, np.random.default_rng(request.seed))

    def contrast_of(few):
        kind = (setting.score, setting.positions)
        rows = record(session, few, kind[:1], kind[1:], made_for=made_for)[kind]
        return compare(whole, rows, reference)

    mean = sequential_weakening(
        session.model,
        steps,
        contrast_of,
        lambda total: shaped(setting, total, made_for, request.seed).gates,
    )
    return shaped(setting, mean, made_for, request.seed, batches=len(steps))


@register(
    "family",
    requires=("images",),
    source="this book's family of edits; at its defaults KVW in one pass",
)
@dataclass(frozen=True)
class Family(Setting, Method):
    """The edit of a setting, as a method.

    Attributes:
        mass: mean share that is taken from a knowledge vector; the strength (of a `zero` shape the
            share) is solved for. 0: as the setting says. The others as in `Setting`.
    """

    mass: float = 0.0

    def __post_init__(self):
        Method.__post_init__(self)
        Setting.__post_init__(self)

    def edit(self, session: Session, request: Request) -> ColumnScaling:
        zero = self.mass > 0 and self.shape == "zero"
        setting = replace(self, share=self.mass) if zero else self
        edit = make(setting, session, request)
        passes, rounds = 3 if self.score == "fisher" else 1, self.epochs if self.batch else 1
        session.cost.add("forget", len(request.forget) * rounds, passes)
        session.cost.add("retain", len(request.retain), passes)
        return at_mass(edit, self.mass) if self.mass and not zero else edit
