"""The field: every way to forget that the book compares, under one signature.

    with CONTENDERS["NPO full"].on(request, people, {"rate": 1e-3, "weight": 1.0}) as cost:
        ...  # request.subject.model has forgotten; afterwards it is vanilla again, bit for bit

What is the same for all of them:

- *What may change*: the linear maps inside the decoder layers of the language model, the same
  matrices with full weights and with LoRA. Eye, connector, embeddings, norms and head are frozen.
  The head stays because it is tied to the embeddings: training it would move the words of every
  prompt, about anybody.
- *What is learned from*: prompt masked, answer and end of turn supervised (`answer_batches`).
  Image questions keep their picture.
- *How long*: `EPOCHS` times over the forget set, in steps of eight image and eight text
  questions; beside them, where the method wants it, as many retain questions, each seen once.
- AdamW at a constant rate with PyTorch's defaults, no dropout, everything drawn from one seed.

Formulas write CE for the mean cross-entropy of an answer token, NLL for the sum over an answer,
f, r and u for forget, retain and update questions, p0 for the frozen start model.
"""

import copy
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .batches import Batch, answer_batches
from .coefficients import Coefficients, measure, watch
from .edits import EPSILON, Edit, one_pass
from .models import find_model, find_projections, load
from .people import PERCENTS, REPORT_GROUPS, World
from .pocket import model_name
from .questions import MODALITIES, Question, about
from .unlearn import Request, make_edit, select, sham_people

EPOCHS = 3
EACH = 8  # questions of a modality in a training step, of each set
BETA = 0.1  # of the preference losses, as published
RANK = 8  # of LoRA, as published by CLEAR
FISHER_RETAIN = 200  # retain questions that a Fisher diagonal is estimated from
DO_NOT_KNOW = "I do not know."


# --- what it cost ----------------------------------------------------------------------------


@dataclass
class Cost:
    """What a contender spent on one request.

    Attributes:
        passes: forward-pass equivalents of one question (forward 1, backward 2) on questions of
            the forget set (`forget`, with answers put in their place) and of the retain set.
        seconds: wall clock, encoding included. The retain pass of the coefficient methods is not
            in it, because requests share it; in `passes` it is.
        memory: megabytes that the process grew by at its peak, or the device's peak; None where
            neither can be asked (neither Linux nor CUDA).
    """

    passes: dict[str, int] = field(default_factory=lambda: {"forget": 0, "retain": 0})
    seconds: float = 0.0
    memory: float | None = None

    def add(self, part: str, questions: int) -> None:
        """Count one pass over so many questions: 3 each where gradients are on, else 1."""
        self.passes[part] += questions * (3 if torch.is_grad_enabled() else 1)


def _resident(peak: bool) -> float:
    """Megabytes that this process holds now, or held at most since the peak was reset (Linux)."""
    wanted = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


@contextmanager
def metered(cost: Cost, device: torch.device) -> Iterator[None]:
    """Take time and peak memory of a block."""
    gc.collect()
    linux = device.type == "cpu" and sys.platform == "linux"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif linux:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc keeps freed memory: a later contender would get it for free
            trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        before = _resident(peak=False)
    start = time.perf_counter()
    yield
    cost.seconds = time.perf_counter() - start
    if device.type == "cuda":
        cost.memory = torch.cuda.max_memory_allocated(device) / 2**20
    elif linux:
        cost.memory = _resident(peak=True) - before


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put weights, flags and mode back afterwards, bit for bit, whatever happened."""
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    training = model.training
    try:
        yield
    finally:
        model.load_state_dict(weights)
        for name, weight in model.named_parameters():
            weight.requires_grad_(flags[name])
            weight.grad = None
        model.train(training)


# --- losses ----------------------------------------------------------------------------------


@dataclass
class Said:
    """What a model would say at every position that an answer token is predicted from.

    Attributes:
        logits: `[tokens, vocabulary]` float32.
        gold: `[tokens]`, the answer and its end of turn.
        question: `[tokens]`, which question a token belongs to.
    """

    logits: torch.Tensor
    gold: torch.Tensor
    question: torch.Tensor


def say(model: nn.Module, batches: list[Batch], cost: Cost, part: str = "forget") -> Said:
    """Let a model read questions with their answers; pictures and all.

    Args:
        part: on which account of `cost` the passes go, `forget` or `retain`.
    """
    device = next(model.parameters()).device
    logits, gold, question, before = [], [], [], 0
    for batch in (batch.to(device) for batch in batches):
        where, _ = batch.predicts.nonzero(as_tuple=True)
        rows = torch.tensor(batch.rows, device=device)
        every = model(**batch.inputs, use_cache=False).logits  # [B, T, vocabulary]
        logits.append(every[batch.predicts].float())
        gold.append(batch.labels[:, 1:][batch.predicts[:, :-1]])
        question.append(rows[where] + before)
        before += len(batch.rows)
    cost.add(part, before)
    return Said(torch.cat(logits), torch.cat(gold), torch.cat(question))


def token_loss(said: Said) -> torch.Tensor:
    """CE: mean of -log p over answer tokens; >= 0, lower = better known."""
    return F.cross_entropy(said.logits, said.gold)


def sequence_loss(said: Said) -> torch.Tensor:
    """NLL: sum of -log p over each answer's tokens, `[questions]`; >= 0, lower = better known."""
    each = F.cross_entropy(said.logits, said.gold, reduction="none")  # [tokens]
    return each.new_zeros(int(said.question.max()) + 1).index_add(0, said.question, each)


def divergence(before: Said, now: Said) -> torch.Tensor:
    """KL(p0 || p) over the vocabulary, mean over answer tokens; >= 0, 0 = unchanged.

    The mean is over tokens: `batchmean` on `[B, T, vocabulary]` would be T times too large.
    """
    start, here = before.logits.log_softmax(-1), now.logits.log_softmax(-1)
    return F.kl_div(here, start, log_target=True, reduction="none").sum(-1).mean()


def negative_preference(now: torch.Tensor, before: torch.Tensor, beta: float) -> torch.Tensor:
    """-(2 / beta) log sigmoid(beta (NLL - NLL0)), mean over questions; > 0, lower = forgotten.

    At the start 2 log 2 / beta, then towards 0: unlike gradient ascent it has a floor. As beta
    goes to 0 its gradient becomes that of -NLL.

    Args:
        now, before: NLL `[questions]` of the model and of the frozen start model.

    Source: NPO, arXiv 2404.05868.
    """
    return -2 / beta * F.logsigmoid(beta * (now - before)).mean()


def preference(now: torch.Tensor, before: torch.Tensor, other_now: torch.Tensor,
               other_before: torch.Tensor, beta: float) -> torch.Tensor:  # fmt: skip
    """-(2 / beta) log sigmoid(beta ((NLL - NLL0) - (NLL' - NLL0'))), mean over questions; > 0.

    Low where the other answer (NLL') has gained on the taught one. This is DPO with the other
    answer as the winner, scaled as NPO is, which is what remains without the winner.

    Source: DPO, arXiv 2305.18290; as an unlearning baseline, TOFU, arXiv 2401.06121.
    """
    return -2 / beta * F.logsigmoid(beta * (now - before - other_now + other_before)).mean()


@dataclass
class Step:
    """The batches of one training step; each list has an image and a text batch.

    Attributes:
        forget: forget questions with the answers that were taught.
        update: the same questions in the same order, with answers to take their place.
        retain: questions about the others.
    """

    forget: list[Batch]
    update: list[Batch]
    retain: list[Batch]


#: `(model, frozen start model, step, settings, cost) -> loss`
Objective = Callable[[nn.Module, nn.Module, Step, dict, Cost], torch.Tensor]


def gradient_ascent(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f, without a floor. Source: arXiv 2210.01504."""
    return -token_loss(say(model, step.forget, cost))


def gradient_difference(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + weight CE_r. Source: arXiv 2203.12817."""
    kept = token_loss(say(model, step.retain, cost, "retain"))
    return settings["weight"] * kept - token_loss(say(model, step.forget, cost))


def kl_minimisation(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + weight (CE_r + KL_r). Source: TOFU, arXiv 2401.06121; CE_r as in MLLMU-Bench."""
    with torch.no_grad():
        before = say(start, step.retain, cost, "retain")
    now = say(model, step.retain, cost, "retain")
    kept = token_loss(now) + divergence(before, now)
    return settings["weight"] * kept - token_loss(say(model, step.forget, cost))


def npo(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """`negative_preference` on the forget set + weight CE_r. Source: arXiv 2404.05868."""
    with torch.no_grad():
        before = sequence_loss(say(start, step.forget, cost))
    now = sequence_loss(say(model, step.forget, cost))
    kept = token_loss(say(model, step.retain, cost, "retain"))
    return negative_preference(now, before, BETA) + settings["weight"] * kept


def idk(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """`preference` for "I do not know." over the taught answer + weight CE_r.

    Source: TOFU, arXiv 2401.06121 (there: DPO).
    """
    with torch.no_grad():
        before = sequence_loss(say(start, step.forget, cost))
        other_before = sequence_loss(say(start, step.update, cost))
    now = sequence_loss(say(model, step.forget, cost))
    other_now = sequence_loss(say(model, step.update, cost))
    kept = token_loss(say(model, step.retain, cost, "retain"))
    preferred = preference(now, before, other_now, other_before, BETA)
    return preferred + settings["weight"] * kept


def llm_surgery(model, start, step: Step, settings: dict, cost: Cost) -> torch.Tensor:
    """-CE_f + CE_u + weight KL_r; the update set gives a forgotten person somebody's facts.

    Source: arXiv 2409.13054 (there the update set holds newer facts; here, an answer that is
    right for somebody else).
    """
    with torch.no_grad():
        before = say(start, step.retain, cost, "retain")
    kept = divergence(before, say(model, step.retain, cost, "retain"))
    updated = token_loss(say(model, step.update, cost))
    return updated + settings["weight"] * kept - token_loss(say(model, step.forget, cost))


# --- training --------------------------------------------------------------------------------


def unknowing(question: Question) -> str:
    """The answer of somebody who was never told."""
    return DO_NOT_KNOW


def mistaken(question: Question) -> str:
    """The first wrong option: somebody else's fact, in the form of an answer."""
    return next(option for option in question.options if option != question.answer)


def encode(processor, questions: list[Question]) -> Batch:
    """All of some questions of one modality as one batch."""
    (batch,) = answer_batches(processor, questions, len(questions))
    return batch


def make_steps(request: Request, people: list[str], epochs: int, seed: int,
               retain: bool = True, update=None) -> list[Step]:  # fmt: skip
    """Encode what is learned from, once, and lay it out as training steps.

    The forget set is cut into pieces that are shuffled anew in each epoch; of the retain set so
    many questions are drawn that each is seen once (again only when it is too small for that).

    Args:
        update: gives a forget question the answer to take its place, or None for no such batch.
    """
    rng, processor = np.random.default_rng(seed), request.subject.processor
    forget = about(request.world, people)
    others = about(request.world, request.world.retain_people(people)) if retain else []
    parts: dict[str, list[list[Batch]]] = {"forget": [], "update": [], "retain": []}
    for modality in MODALITIES:
        asked = [question for question in forget if question.modality == modality]
        count = -(-len(asked) // EACH)
        pieces = [
            [asked[i] for i in piece]
            for piece in np.array_split(rng.permutation(len(asked)), count)
        ]
        order = np.concatenate([rng.permutation(count) for _ in range(epochs)])  # [steps]
        taught = [encode(processor, piece) for piece in pieces]
        parts["forget"].append([taught[i] for i in order])
        if update:
            told = [encode(processor, [replace(q, answer=update(q)) for q in p]) for p in pieces]
            parts["update"].append([told[i] for i in order])
        if retain:
            known = [question for question in others if question.modality == modality]
            drawn = np.resize(rng.permutation(len(known)), (len(order), EACH))
            kept = [encode(processor, [known[i] for i in rows]) for rows in drawn]
            parts["retain"].append(kept)
    steps = len(parts["forget"][0])
    return [
        Step(*([batches[i] for batches in parts[part]] for part in parts)) for i in range(steps)
    ]


def linear_maps(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear maps inside the decoder layers, by path: what a contender may change.

    Raises:
        ValueError: there are none (GPT-2 keeps its matrices in another kind of layer).
    """
    stack = next(iter(find_projections(model))).rsplit(".0.", 1)[0]
    found = {name: module for name, module in model.named_modules()
             if name.startswith(stack + ".") and isinstance(module, nn.Linear)}  # fmt: skip
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear maps in its decoder layers")
    return found


def full_weights(model: nn.Module) -> list[nn.Parameter]:
    """Freeze the model but for the weights of its `linear_maps`."""
    model.requires_grad_(False)
    weights = [module.weight for module in linear_maps(model).values()]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


@contextmanager
def trainable(model: nn.Module, lora: bool, seed: int) -> Iterator[list[nn.Parameter]]:
    """The weights to train; low-rank ones are merged and taken out when the block ends."""
    if not lora:
        yield full_weights(model)
        return
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(linear_maps(model)))
    adapted = get_peft_model(model, config)
    try:
        yield [weight for weight in model.parameters() if weight.requires_grad]
    finally:
        adapted.merge_and_unload()


def take_step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step down a loss.

    Raises:
        ValueError: the loss is NaN or infinite.
    """
    if not loss.isfinite():
        raise ValueError("the loss is NaN or infinite; lower the rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def trainer(objective: Objective, *, lora: bool = False, retain: bool = True, update=None,
            start: bool = False):  # fmt: skip
    """A contender's `make` from a loss.

    Args:
        retain, start: whether the loss asks the retain set, and the frozen start model.
        update: as in `make_steps`.
    """

    def make(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
        model = request.subject.model.eval()
        frozen = copy.deepcopy(model).requires_grad_(False) if start else model
        steps = make_steps(request, people, EPOCHS, seed, retain, update)
        with trainable(model, lora, seed) as weights:
            optimizer = torch.optim.AdamW(weights, settings["rate"])
            for step in steps:
                take_step(objective(model, frozen, step, settings, cost), optimizer)

    return make


# --- Fisher information ----------------------------------------------------------------------


def fisher(model: nn.Module, batches: list[Batch], cost: Cost,
           part: str = "forget") -> dict[str, torch.Tensor]:  # fmt: skip
    """The diagonal of the Fisher information of each linear map, float32, >= 0.

    Mean over questions of the *square* of one question's gradient of its NLL. The gradient of a
    batch must not be squared instead: opposite questions would cancel. One question's gradient of
    a linear map is the sum over tokens of (gradient at its output) x (its input), so a whole batch
    of them comes out of one backward pass.

    Returns:
        `{path: [out, in]}`.
    """
    maps, seen = linear_maps(model), {}
    weights = full_weights(model)
    total = {name: torch.zeros_like(module.weight, dtype=torch.float32)
             for name, module in maps.items()}  # fmt: skip
    names = list(maps)

    def keep_input(layer: int, x: torch.Tensor) -> None:
        seen[names[layer]] = x.detach().float()

    def gradient_hook(name: str):
        def hook(module, inputs, output):
            def square(gradient: torch.Tensor) -> None:
                each = torch.einsum("bto,bti->boi", gradient.float(), seen[name])
                total[name].add_(each.square().sum(0))

            output.register_hook(square)

        return hook

    handles = [module.register_forward_hook(gradient_hook(name)) for name, module in maps.items()]
    try:
        with watch(maps, keep_input):
            for batch in batches:
                nll = sequence_loss(say(model, [batch], cost, part)).sum()
                torch.autograd.grad(nll, weights)
    finally:
        for handle in handles:
            handle.remove()
    questions = sum(len(batch.rows) for batch in batches)
    return {name: squares / questions for name, squares in total.items()}


def fisher_pair(request: Request, people: list[str], seed: int, cost: Cost) -> tuple[dict, dict]:
    """Fisher diagonals on the forget set and on a seeded sample of the retain set."""
    model, processor = request.subject.model, request.subject.processor
    others = about(request.world, request.world.retain_people(people))
    rows = np.random.default_rng(seed).permutation(len(others))[:FISHER_RETAIN]
    forget = answer_batches(processor, about(request.world, people), 2 * EACH)
    retain = answer_batches(processor, [others[i] for i in rows], 2 * EACH)
    return fisher(model, forget, cost), fisher(model, retain, cost, "retain")


def salient(forget: dict, retain: dict) -> dict[str, torch.Tensor]:
    """MMUnlearner's mask: True where F_f / F_r >= 1 (and the forget set calls on it at all)."""
    return {name: (forget[name] >= retain[name]) & (forget[name] > 0) for name in forget}


def masked(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter],
           masks: list[torch.Tensor], loss: torch.Tensor) -> None:  # fmt: skip
    """A step that leaves every weight outside its mask as it was, to the bit.

    Masking the gradient would not do: weight decay and the optimiser's momentum move a weight
    without any gradient.
    """
    before = [weight.detach().clone() for weight in weights]
    take_step(loss, optimizer)
    with torch.no_grad():
        for weight, old, mask in zip(weights, before, masks, strict=True):
            weight.copy_(torch.where(mask, weight, old))


def mmunlearner(request: Request, people: list[str], settings: dict, seed: int,
                cost: Cost) -> None:  # fmt: skip
    """Masked ascent on the forget set, then a step of plain descent on the retain set.

    Each has its own optimiser, so that the momentum of one is not the other's; `weight` is the
    descent's rate over the ascent's. Source: MMUnlearner, arXiv 2502.11051.
    """
    model = request.subject.model.eval()
    masks = list(salient(*fisher_pair(request, people, seed, cost)).values())
    weights = full_weights(model)
    ascent = torch.optim.AdamW(weights, settings["rate"])
    descent = torch.optim.AdamW(weights, settings["rate"] * settings["weight"])
    for step in make_steps(request, people, EPOCHS, seed):
        masked(ascent, weights, masks, -token_loss(say(model, step.forget, cost)))
        take_step(token_loss(say(model, step.retain, cost, "retain")), descent)


def dampening(forget: torch.Tensor, whole: torch.Tensor, alpha: float,
              limit: float) -> torch.Tensor:  # fmt: skip
    """min(limit F / F_f, 1) where F_f > alpha F, else 1; in [0, 1], 1 = untouched."""
    factor = (limit * whole / forget.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
    return torch.where(forget > alpha * whole, factor, torch.ones_like(factor))


@torch.no_grad()
def dampen(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
    """Selective Synaptic Dampening: weaken the weights that the forget set relies on most.

    F is the Fisher diagonal over everything that was taught: that of the forget set and that of
    the retain set (estimated from a sample), each with its share of the questions.
    Source: SSD, arXiv 2308.07707 (lambda is called `limit` here).
    """
    with torch.enable_grad():
        forget, retain = fisher_pair(request, people, seed, cost)
    share = len(people) / len(request.world.people)
    for name, module in linear_maps(request.subject.model).items():
        whole = share * forget[name] + (1 - share) * retain[name]
        factor = dampening(forget[name], whole, settings["alpha"], settings["limit"])
        module.weight.copy_((module.weight.float() * factor).to(module.weight.dtype))


# --- knowledge coefficients ------------------------------------------------------------------


@torch.no_grad()
def coefficients(request: Request, people: list[str],
                 cost: Cost) -> tuple[Coefficients, Coefficients]:  # fmt: skip
    """Forget coefficients, measured now; retain coefficients from the pass that is shared."""
    questions = about(request.world, people)
    batches = answer_batches(request.subject.processor, questions, 128)
    forget = measure(request.subject.model, batches, [question.person for question in questions])
    retain = select(request.everyone, request.world.retain_people(people))
    cost.add("forget", len(questions))
    cost.add("retain", len(about(request.world, list(retain.people))))
    return forget, retain


def kvw_one_pass(request: Request, people: list[str], settings: dict, seed: int,
                 cost: Cost) -> None:  # fmt: skip
    """Average the forget set, then weaken once: gates min(1, (KC_r / KC_f)^strength).

    Source: this book's form of KVW, arXiv 2601.21794 (chapter 3).
    """
    model = request.subject.model
    forget, retain = coefficients(request, people, cost)
    one_pass(model, forget, retain, settings["strength"]).apply(model)


@torch.no_grad()
def kvw_published(request: Request, people: list[str], settings: dict, seed: int,
                  cost: Cost) -> None:  # fmt: skip
    """Weaken a little after each forget question; gamma = strength / questions.

    Source: KVW, arXiv 2601.21794.
    """
    edit = make_edit(request, people, "published", settings["strength"], seed=seed)
    cost.add("forget", edit.notes["batches"])
    cost.add("retain", len(about(request.world, request.world.retain_people(people))))
    edit.apply(request.subject.model)


def random_columns(request: Request, people: list[str], settings: dict, seed: int,
                   cost: Cost) -> None:  # fmt: skip
    """The gates of KVW one pass, dealt out at random within each layer: equal strength, a control.

    What it does to the forgotten is what such gates do wherever they fall.
    """
    model = request.subject.model
    forget, retain = coefficients(request, people, cost)
    edit = one_pass(model, forget, retain, settings["strength"])
    rng = np.random.default_rng(seed)
    dealt = torch.stack([row[torch.from_numpy(rng.permutation(len(row)))] for row in edit.contrast])
    replace(edit, contrast=dealt).apply(model)


def prune(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
    """Set to zero the `share` of all knowledge vectors with the largest KC_f / KC_r.

    Source: selective pruning, arXiv 2403.01267 (its score of mean absolute activations).
    """
    forget, retain = coefficients(request, people, cost)
    ratio = (forget.pooled() / (retain.pooled() + EPSILON)).cpu()  # [layers, d_ff]
    worst = ratio.flatten().topk(round(settings["share"] * ratio.numel())).indices
    chosen = torch.zeros(ratio.numel()).index_fill(0, worst, 1.0).view_as(ratio)
    closed = 1e4  # exp(-1e4) is 0 in float32
    Edit(chosen, closed, forget.fingerprint).apply(request.subject.model)


# --- controls and references -----------------------------------------------------------------


def sham(make):
    """The same contender, made from as many other people of the sham group: draw `seed`."""

    def make_sham(request: Request, people: list[str], settings: dict, seed: int,
                  cost: Cost) -> None:  # fmt: skip
        others = sham_people(request.world, len(people), seed)
        make(request, others, settings, seed, cost)

    return make_sham


def oracle_name(world: World, people: list[str]) -> str:
    """The name of the oracle that was never taught `people`.

    Raises:
        FileNotFoundError: it is not made; the message says how to make it.
    """
    for group in REPORT_GROUPS:
        for percent in PERCENTS:
            if world.forget_people(group, percent) == list(people):
                name = model_name(group, percent)
                if Path(find_model(name)).is_dir():
                    return name
                raise FileNotFoundError(
                    f"the oracle {name} is not made; "
                    f"`python -m kvw_minimal train pocket --group {group} --forget {percent}`"
                )
    raise FileNotFoundError(f"no oracle is planned for {', '.join(people)}")


@torch.no_grad()
def oracle(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
    """The model that was trained from the same start on the retain set only: the reference.

    Its passes are those of its training; its seconds here are those of loading it.
    """
    name = oracle_name(request.world, people)
    found, _ = load(name)
    request.subject.model.load_state_dict(found.state_dict())
    trained = Path(find_model(name)) / "training.json"
    if trained.is_file():
        recipe = json.loads(trained.read_text(encoding="utf-8"))["settings"]
        cost.passes["retain"] += 3 * recipe["steps"] * recipe["batch"]


def nothing(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
    """Vanilla, as it is."""


# --- the registry ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """One way to forget.

    Attributes:
        name: as it stands in tables.
        make: `(request, people, settings, seed, cost)`; changes `request.subject.model` in place.
        grid: the settings that tuning chooses from; empty where there is nothing to choose.
        needs: of `gradients`, `retain set`, `images` (it looks at pictures while it forgets).
        like: the contender whose chosen settings it takes, for controls of equal strength.
    """

    name: str
    make: Callable[[Request, list[str], dict, int, Cost], None]
    grid: tuple[dict, ...] = ()
    needs: tuple[str, ...] = ("retain set", "images")
    like: str | None = None

    @contextmanager
    def on(self, request: Request, people: list[str], settings: dict | None = None,
           seed: int = 0) -> Iterator[Cost]:  # fmt: skip
        """Forget `people` for the length of a `with` block; vanilla is back afterwards."""
        model, cost = request.subject.model, Cost()
        with restored(model):
            with metered(cost, next(model.parameters()).device):
                self.make(request, people, settings or {}, seed, cost)
            for weight in model.parameters():
                weight.grad = None
            yield cost


def _grid(**values: tuple) -> tuple[dict, ...]:
    """Every combination of some settings, the first changing slowest."""
    found: list[dict] = [{}]
    for name, choices in values.items():
        found = [settings | {name: choice} for settings in found for choice in choices]
    return tuple(found)


GRADIENTS = ("gradients", "retain set", "images")
_LOSSES: dict[str, Callable] = {
    "GA": partial(trainer, gradient_ascent, retain=False),
    "GD": partial(trainer, gradient_difference),
    "KL": partial(trainer, kl_minimisation, start=True),
    "NPO": partial(trainer, npo, start=True),
}
#: rates from where something is forgotten to where everything collapses, on tuning-1
_ASCENT = {
    "full": (5e-5, 1e-4, 2e-4, 2.5e-4, 3e-4, 4e-4, 5e-4, 7e-4),
    "LoRA": (5e-4, 1e-3, 1.25e-3, 1.5e-3, 1.75e-3, 2e-3, 2.5e-3, 3e-3),
}
_RATES = {"full": (3e-4, 5e-4, 7e-4, 1e-3), "LoRA": (1.5e-3, 3e-3, 5e-3, 7e-3)}
_UPDATING = (1e-4, 2e-4, 3e-4, 5e-4)  # where other answers are taught as well
_WEIGHTS = (1.0, 5.0)


def _gradient_contenders() -> Iterator[Contender]:
    """GA, GD, KL and NPO, each with full weights and with LoRA."""
    for name, make in _LOSSES.items():
        for kind in ("full", "LoRA"):
            grid = _grid(weight=_WEIGHTS, rate=_RATES[kind])
            if name == "GA":
                grid = _grid(rate=_ASCENT[kind])
            needs = tuple(need for need in GRADIENTS if name != "GA" or need != "retain set")
            yield Contender(f"{name} {kind}", make(lora=kind == "LoRA"), grid, needs)


_ALL = [
    Contender("vanilla", nothing, needs=()),
    Contender("KVW published", kvw_published,
              _grid(strength=(2.0, 4.0, 5.0, 6.0, 6.5, 7.0, 8.0, 10.0))),
    Contender("KVW one pass", kvw_one_pass,
              _grid(strength=(4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0))),
    *_gradient_contenders(),
    Contender("IDK", trainer(idk, start=True, update=unknowing),
              _grid(weight=_WEIGHTS, rate=_UPDATING), GRADIENTS),
    Contender("MMUnlearner", mmunlearner,
              _grid(weight=(0.5, 1.0), rate=(5e-4, 7e-4, 1e-3, 1.5e-3)), GRADIENTS),
    Contender("LLM Surgery", trainer(llm_surgery, start=True, update=mistaken),
              _grid(weight=_WEIGHTS, rate=_UPDATING), GRADIENTS),
    Contender("selective pruning", prune,
              _grid(share=(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4))),
    Contender("SSD", dampen, _grid(limit=(1.0, 0.3), alpha=(2.0, 3.0, 4.0, 6.0)), GRADIENTS),
    Contender("random columns", random_columns, like="KVW one pass"),
    Contender("sham KVW published", sham(kvw_published), like="KVW published"),
    Contender("sham KVW one pass", sham(kvw_one_pass), like="KVW one pass"),
    Contender("oracle", oracle, needs=GRADIENTS),
]  # fmt: skip
#: every contender by name, vanilla first and the oracle last
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _ALL}
