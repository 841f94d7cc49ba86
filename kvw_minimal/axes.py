"""Every edit of this book as one point on a few axes: what KVW is made of, part by part.

    rows = record(model, processor, questions)        # once: what every question calls
    edit = make(Setting(score="square", share=0.2), model, rows, forget)

An edit answers six questions. Each has a few answers, and each answer is a short function here:

- *score*: what of a coefficient h counts? `absolute` |h|, `square` h^2, `positive` max(0, h), or
  `fisher`, the squared derivative of the loss by the factor in front of the vector.
- *positions*: at which tokens? Those that predict the `answer`, those that predict the `fact` in
  it, all `text`, or those of the `image`.
- *whose*: which modalities are asked about, and who is the reference: the other people, or the
  other people and `general`.
- *contrast*: how are forget and retain compared?
- *shape*: how does a contrast become a gate?
- *schedule*: everything at once, or batch after batch on weights already weakened.

KVW as published, selective pruning and the rest are settings with a name: `NAMED`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from .batches import answer_batches
from .coefficients import watch
from .edits import EPSILON, Edit, contrast, within
from .models import body, columns, find_projections, fingerprint
from .positions import POSITIONS, differentiable, kinds_of_positions
from .questions import MODALITIES, Question

SCORES = ("absolute", "square", "positive", "fisher")
TINY = torch.finfo(torch.float32).tiny
CLOSED = 1e4  # a strength at which every touched gate is 0 in float32


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
        kept = [i for i, question in enumerate(self.questions) if chosen(question)]
        kept = [i for i in kept if self.tokens[i] > 0]
        if not kept:
            raise ValueError("no question has a token of this kind here")
        return Rows(self.sums[kept], self.tokens[kept],
                    tuple(self.questions[i] for i in kept), self.fingerprint)  # fmt: skip

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


def _of_activation(h: torch.Tensor, score: str) -> torch.Tensor:
    """What of a coefficient counts, without any gradient."""
    return {"absolute": h.abs, "square": h.square, "positive": h.relu}[score]()


def record(model, processor, questions: list[Question], scores: Iterable[str] = SCORES[:3],
           positions: Iterable[str] = POSITIONS, batch_size: int = 64,
           progress: bool = False) -> dict[tuple[str, str], Rows]:  # fmt: skip
    """Ask every question once and keep what it calls, for every score and kind of position.

    `fisher` needs a backward pass; the others need only the body of the model.

    Returns:
        `{(score, positions): Rows}`.

    Raises:
        ValueError: an unknown score or position, or an activation that is not finite.
    """
    scores, positions = tuple(scores), tuple(positions)
    strange = (set(scores) - set(SCORES)) | (set(positions) - set(POSITIONS))
    if strange:
        raise ValueError(f"no {sorted(strange)}; there are {SCORES} and {POSITIONS}")
    projections, plain = find_projections(model), [s for s in scores if s != "fisher"]
    width = columns(next(iter(projections.values()))).shape[1]
    shape = (len(questions), len(projections), width)
    sums = {(s, p): torch.zeros(shape) for s in scores for p in positions}
    tokens = {p: torch.zeros(len(questions)) for p in positions}
    batches = answer_batches(processor, questions, batch_size)
    for batch in tqdm(batches, "asking", disable=None if progress else True):
        kinds = kinds_of_positions(model, processor, batch, questions)
        rows = torch.tensor(batch.rows)
        for p in positions:
            tokens[p][rows] = kinds[p].sum(1).float()

        def see(layer, h, kinds=kinds, rows=rows):
            factor = h.detach().float().reshape(*kinds["answer"].shape, -1)  # [B, T, d_ff]
            for s in plain:
                each = _of_activation(factor, s)
                for p in positions:
                    sums[s, p][rows, layer] = torch.einsum("bt,btf->bf", kinds[p].float(), each)
            if "fisher" not in scores:
                return

            def square(gradient):
                each = gradient.reshape(factor.shape).float() * factor  # d loss / d gate
                for p in positions:
                    whole = torch.einsum("bt,btf->bf", kinds[p].float(), each)
                    sums["fisher", p][rows, layer] = whole.square()

            h.register_hook(square)

        with watch(projections, see):
            if "fisher" in scores:
                with torch.enable_grad(), differentiable(model):
                    logits = model(**batch.inputs, use_cache=False).logits
                    gold = batch.labels[:, 1:][batch.predicts[:, :-1]]
                    F.cross_entropy(
                        logits[batch.predicts].float(), gold, reduction="sum"
                    ).backward()
            else:
                with torch.no_grad():
                    body(model)(**batch.inputs, use_cache=False)
    for (s, p), each in sums.items():
        if not each.isfinite().all():
            raise ValueError(f"NaN or infinite {s} at {p} positions; is the model broken?")
    known, made = tuple(questions), fingerprint(model)
    return {(s, p): Rows(each, tokens[p].clamp(max=1) if s == "fisher" else tokens[p], known, made)
            for (s, p), each in sums.items()}  # fmt: skip


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
    "log ratio": log_ratio, "difference": difference, "t over people": t_over_people,
    "quantile": above_quantile,
}  # fmt: skip


# --- shapes: from a contrast to what an Edit takes -------------------------------------------


def most(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of all knowledge vectors with the largest contrast, else 0."""
    count = round(share * contrasts.numel())
    chosen = contrasts.flatten().topk(count).indices
    chosen = torch.zeros(contrasts.numel()).index_fill(0, chosen, 1.0).view_as(contrasts)
    return chosen * (contrasts > 0)


def power_law(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G c): every vector as much as it deserves. KVW's; `share` does not enter."""
    return contrasts


def threshold(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G max(0, c - c0)), c0 such that a `share` of all vectors lies above: a noise floor."""
    floor = contrasts.flatten().kthvalue(max(1, round((1 - share) * contrasts.numel()))).values
    return (contrasts - floor).clamp(min=0)


def top(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """exp(-G c) for the `share` with the largest contrast, all others untouched."""
    return contrasts * most(contrasts, share)


def zero(contrasts: torch.Tensor, share: float) -> torch.Tensor:
    """0 for the `share` with the largest contrast, at strength `CLOSED`."""
    return most(contrasts, share)


SHAPES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "power law": power_law, "threshold": threshold, "top": top, "zero": zero,
}  # fmt: skip


# --- one setting -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One edit of the family; the defaults are KVW in one pass, as in chapter 4.

    Attributes:
        strength: the total G; a `zero` shape does not ask for it.
        share: of all knowledge vectors, for shapes that choose some.
        modalities: of the questions asked on both sides.
        apart: contrasts are taken for each modality and added, instead of pooling first.
        general: the reference also holds descriptions of unknown portraits.
        batch: forget questions a step, in seeded order, on weights already weakened; 0 for all
            at once.
        epochs: how often the forget set is gone through in batches.
        shuffle: contrasts are dealt out at random within each layer: a control.
        layers: first and last, inclusive: whole numbers count layers, (0.0, 1.0) are fractions.
    """

    score: str = "absolute"
    positions: str = "answer"
    contrast: str = "log ratio"
    shape: str = "power law"
    strength: float = 32.0
    share: float = 0.1
    modalities: tuple[str, ...] = MODALITIES
    apart: bool = False
    general: bool = False
    batch: int = 0
    epochs: int = 1
    shuffle: bool = False
    layers: tuple = (0.0, 1.0)

    def __post_init__(self):
        for value, known in ((self.score, SCORES), (self.positions, POSITIONS),
                             (self.contrast, CONTRASTS), (self.shape, SHAPES)):  # fmt: skip
            if value not in known:
                raise ValueError(f"no {value!r}; there are {', '.join(known)}")
        if not 0 < self.share <= 1 or self.batch < 0 or self.epochs < 1:
            raise ValueError("share is in (0, 1], batch at least 0, epochs at least 1")
        if not self.modalities or set(self.modalities) - set(MODALITIES):
            raise ValueError(f"modalities are some of {MODALITIES}, not {self.modalities}")


NAMED: dict[str, Setting] = {
    "KVW one pass": Setting(),
    "KVW published": Setting(batch=1, strength=6.5),
    "selective pruning": Setting(shape="zero", share=0.25),
    "SSD-like": Setting(score="fisher", shape="threshold", strength=1.0),
    "zero ablation": Setting(shape="zero", share=0.03),
    "random columns": Setting(shuffle=True),
}


def compare(setting: Setting, forget: Rows, retain: Rows) -> torch.Tensor:
    """The contrast of a setting, `[layers, d_ff]` float32, >= 0, zero outside its layers."""
    between = CONTRASTS[setting.contrast]
    groups = [(m,) for m in setting.modalities] if setting.apart else [setting.modalities]
    parts = []
    for group in groups:
        asked, reference = (side.of(group) for side in (forget, retain))
        parts.append(between(asked, reference))
    return within(torch.stack(parts).sum(0).float(), setting.layers)


def _edit(setting: Setting, contrasts: torch.Tensor, made: str, seed: int, **notes) -> Edit:
    """Shape a contrast into an edit."""
    if setting.shuffle:
        rng = np.random.default_rng(seed)
        contrasts = torch.stack([row[torch.from_numpy(rng.permutation(len(row)))]
                                 for row in contrasts])  # fmt: skip
    strength = CLOSED if setting.shape == "zero" else setting.strength
    schedule = "published" if setting.batch else "one pass"
    return Edit(SHAPES[setting.shape](contrasts, setting.share), strength, made, schedule, notes)


def sides(setting: Setting, rows: dict[tuple[str, str], Rows], forget: list[str],
          retain: list[str] | None = None,
          chosen: Callable[[Question], bool] = lambda question: True
          ) -> tuple[Rows, Rows]:  # fmt: skip
    """The rows of the forgotten and those of the reference.

    Args:
        retain: the people of the reference; everyone else unless given.
        chosen: only these questions count, on both sides.

    Raises:
        KeyError: that score at those positions was not recorded.
        ValueError: nobody on one side, or somebody on both.
    """
    if retain is not None and set(forget) & set(retain):
        raise ValueError(f"{sorted(set(forget) & set(retain))} cannot be both")
    if (setting.score, setting.positions) not in rows:
        raise KeyError(f"{setting.score} at {setting.positions} positions was not recorded")
    every, gone = rows[setting.score, setting.positions], set(forget)

    others = None if retain is None else set(retain)

    def kept(question: Question) -> bool:
        if question.person.startswith("u"):  # a portrait of nobody
            return setting.general
        return question.person not in gone if others is None else question.person in others

    return (every.where(lambda question: question.person in gone and chosen(question)),
            every.where(lambda question: kept(question) and chosen(question)))  # fmt: skip


class TooMuch(ValueError):
    """An edit cannot take so much."""


def at_mass(edit: Edit, mass: float) -> Edit:
    """The same edit at the strength that takes a given share from a vector on average.

    So edits whose contrasts have other units can be compared: none may take more than another.

    Args:
        mass: mean of 1 - gate over all vectors, in (0, 1).

    Raises:
        TooMuch: not even all touched vectors at gate 0 would take so much.
        ValueError: a published edit, whose strength is part of how it came about.
    """
    if not 0 < mass < (edit.contrast > 0).float().mean():
        raise TooMuch(f"this contrast cannot take {mass:g} from a vector on average")
    low, high = 0.0, 1.0
    while 1 - edit.at(high).gates.mean() < mass:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - edit.at(middle).gates.mean() < mass else (low, middle)
    return edit.at((low + high) / 2)


def make(setting: Setting, model, rows: dict[tuple[str, str], Rows], forget: list[str],
         retain: list[str] | None = None, processor=None, seed: int = 0,
         chosen: Callable[[Question], bool] = lambda question: True) -> Edit:  # fmt: skip
    """The edit of a setting that forgets some people.

    Args:
        rows: from `record`, on this model as it is.
        retain, chosen: as in `sides`.
        processor: needed where the schedule asks again, batch after batch.
    """
    asked, reference = sides(setting, rows, forget, retain, chosen)
    if asked.fingerprint != fingerprint(model):
        raise ValueError("these rows were recorded on another model (or an edited one)")
    if setting.batch == 0:
        contrasts = compare(setting, asked, reference)
        return _edit(setting, contrasts, asked.fingerprint, seed, people=list(forget))
    questions = [q for q in asked.questions if q.modality in setting.modalities]
    whole = replace(setting, apart=False)  # a batch may hold one modality only
    rng, total, edit = np.random.default_rng(seed), 0.0, None
    cuts = range(setting.batch, len(questions), setting.batch)
    steps = [part for _ in range(setting.epochs)
             for part in np.split(rng.permutation(len(questions)), cuts)]  # fmt: skip
    try:
        for part in steps:
            batch = record(model, processor, [questions[i] for i in part], (setting.score,),
                           (setting.positions,))[setting.score, setting.positions]  # fmt: skip
            total = total + compare(whole, batch, reference) / len(steps)
            if edit:
                edit.undo(model)
            edit = _edit(setting, total, asked.fingerprint, seed)
            edit.apply(model)
    finally:
        if edit:
            edit.undo(model)
    return _edit(setting, total, asked.fingerprint, seed, people=list(forget), batches=len(steps))
