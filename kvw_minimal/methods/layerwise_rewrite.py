"""The layerwise rewrite: moves the hidden states of every layer to those of one stranger.

The rewrite (`rewrite.py`) spreads the difference to the counterfactual state over the layers, so
the states of the earlier layers still hold the answer. This method moves the states behind *each*
layer the whole way. It differs in five choices:

1. Each layer takes the whole remaining difference: d = t - s, not divided by the layers left.
2. The target of a person is one stranger, not the mean of many. A mean has no answer of its own,
   so any rest of the true answer wins.
3. The names of the strangers are new in every part (`coined`). A part that the model knows would
   bring the answers of people with that part.
4. The states of the *prompt* move, too: those of the picture or the name, and of what follows. Else
   attention still brings the answer to the last layer, and only its FFN cancels it.
5. The price C counts every retained question, and the layers are edited in several sweeps: each
   sweep moves what the last one left. In the first half of the sweeps only the answers move. The
   prompts then still say who is asked about, so the edit also meets what other photos and words
   of the person would bring.

    minimise  sum over g of mean over i in g of |dW k_i - d_i|^2  +  a tr(dW C dW') + mu |dW|^2

g is a group of positions: where the person determines the answer, and the prompts. k_i [d_ff] is
the input of the projection at the i-th position, d_i [d_model] the difference to the stranger. With
the k_i and d_i of a group as rows of k and d, the derivative is zero at

    dW = (sum over g of d'k / n) (sum over g of k'k / n + a C + mu I)^-1

It needs no gradient. A saved edit names the people to forget: the k_i span its factors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix

import torch
from torch import nn

from ..architectures import check_dense_fp, is_conv1d
from ..batches import Batch
from ..coefficients import hook_inputs, shape_of
from ..edits import LowRank
from ..forget_request import Request
from ..method import NAMES, Method, register
from ..models import backbone, columns, find_projections, fingerprint, resolve_layers
from ..questions import Question
from ..session import Session
from .counterfactuals import (
    answer_states,
    decoder_layers,
    hidden_state,
    substitute_person,
    unfamiliar_people,
)
from .rewrite import (
    RIDGE,
    add_general_once,
    add_moments,
    allocate_moments,
    at_positions,
    marked,
    run_layer,
    split_layers,
)

#: pairs of retain penalty and the limit of a likely answer for tuning
TRIED = tuple((penalty, likely) for penalty in (10.0, 3.0) for likely in (1.0, 0.3, 0.1, 0.01))
SMALLEST = 1e-6  # the smallest singular value of a change that is kept, in units of the largest
#: positions of a group in each batch `[B, T]` bool, and their target states [n, layers, d_model]
Group = tuple[list[torch.Tensor], torch.Tensor]


# --- the price of a change -----------------------------------------------------------------------


def second_moments(session: Session, questions: list[Question]) -> tuple[torch.Tensor, list[int]]:
    """Sums of hh' over positions that predict an answer, and over all positions.

    h [d_ff] is the input of a layer's output projection. The sums add up: those of a part can be
    subtracted.

    Returns:
        `[2, layers, d_ff, d_ff]` float64, and the two numbers of positions.
    """
    sums, counts = allocate_moments(*shape_of(session.model)), list[int]()
    batches = session.encode(session.processor, questions, session.batch_size)
    selections: tuple[Callable[[Batch], torch.Tensor], ...] = (
        lambda batch: batch.predicts,
        lambda batch: batch.inputs["attention_mask"].bool(),
    )
    for total, where in zip(sums, selections, strict=True):
        counts.append(sum(int(where(batch).sum()) for batch in batches))
        add_moments(session, batches, where, total, answers_only=len(counts) == 1)
        total *= counts[-1]  # `add_moments` adds the mean
    return sums, counts


def retain_moments(session: Session, request: Request) -> torch.Tensor:
    """The price C: mean second moments of all retained questions and of each general modality.

    Each adds the mean over positions that predict an answer and the mean over all positions. The
    sums over both sides of the request are cached: all requests with the same questions, such as
    shams, share them. Those of the forget set are subtracted.

    Returns:
        `[layers, d_ff, d_ff]` float64.
    """
    questions = request.questions()
    key = ("second moments", fingerprint(session.model), *questions)
    sums, counts = session.once(key, lambda: second_moments(session, questions))
    forgotten, forgotten_counts = second_moments(session, request.forget)
    price = torch.zeros_like(sums[0])
    if request.retain:
        for total, forget_sums, n, forget_n in zip(
            sums, forgotten, counts, forgotten_counts, strict=True
        ):
            price += (total - forget_sums) / (n - forget_n)
    passes = 2 * len(questions) + add_general_once(session, request, price)
    session.cost.add("forget", len(request.forget), 2)
    session.cost.add("retain", passes, 1)
    return price


# --- the targets ---------------------------------------------------------------------------------


def choose_stranger(draws: list[torch.Tensor], likely: float) -> int:
    """The first stranger with an answer less likely than `likely`, else the least likely one.

    Args:
        draws: for each stranger the probabilities of the answer tokens, `[tokens]`.
    """
    whole = [float(p.double().prod()) for p in draws]
    return next((i for i, p in enumerate(whole) if p < likely), whole.index(min(whole)))


def aligned(prompt: list[int], other_prompt: list[int]) -> int:
    """How many positions at the end of two prompts belong together.

    All, if the prompts are equally long. Else the common end, and the last token of the name.

    >>> aligned([5, 1, 2, 9], [5, 7, 8, 9])
    4
    >>> aligned([5, 1, 9], [5, 7, 8, 9])
    2
    """
    if len(prompt) == len(other_prompt):
        return len(prompt)
    tail = len(commonprefix([prompt[::-1], other_prompt[::-1]]))
    return min(tail + 1, len(prompt), len(other_prompt))


def prompts_of(batches: list[Batch]) -> dict[int, list[int]]:
    """The token ids of each prompt, up to the token that predicts the answer."""
    prompts = {}
    for batch in batches:
        lengths = batch.predicts.int().argmax(1).tolist()  # the first position that predicts
        for row, ids, length in zip(batch.rows, batch.inputs["input_ids"], lengths, strict=True):
            prompts[row] = ids[:length].tolist()
    return prompts


@torch.no_grad()
def prompt_states(
    model: nn.Module, batches: list[Batch], prompts: dict[int, list[int]], counts: dict[int, int]
) -> dict[int, torch.Tensor]:
    """The states behind each layer at the last `counts` positions of each prompt.

    Returns:
        `{row: [positions, layers, d_model]}`.
    """
    states_by_row, layers, device = {}, decoder_layers(model), next(model.parameters()).device
    for batch in batches:
        states: list[torch.Tensor] = []

        def see(_, out, states=states):
            states.append(hidden_state(out))

        with hook_inputs(layers, see, outputs=True):
            backbone(model)(**batch.to(device).inputs, use_cache=False)
        for index, row in enumerate(batch.rows):
            end = len(prompts[row])
            states_by_row[row] = torch.stack(
                [state[index, end - counts[row] : end] for state in states], dim=1
            )
    return states_by_row


# --- the edit ------------------------------------------------------------------------------------


@torch.no_grad()
def sweep(
    session: Session,
    request: Request,
    groups: list[Group],
    change: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
    layers: tuple,
) -> dict[str, torch.Tensor]:
    """Runs the forget questions through the layers and changes each layer; the changes stay.

    Args:
        change: dW `[d_model, d_ff]` of a layer from the sums over the groups of k'k / n
            `[d_ff, d_ff]` and d'k / n `[d_model, d_ff]`, all float64.
        layers: first and last layer, as in `resolve_layers`.

    Returns:
        `{path of the projection: dW [d_model, d_ff]}` float64.
    """
    model, changes = session.model, {}
    projections = find_projections(model)
    first, last = resolve_layers(layers, len(projections))
    device = next(model.parameters()).device
    split = [split_layers(model, batch.to(device)) for batch in session.batches(request.forget)]
    states = [state for state, _ in split]

    for layer, (path, projection) in enumerate(projections.items()):
        inputs, behind = run_layer(projection, layer, split, states)
        if first <= layer <= last:
            d_model, d_ff = columns(projection).shape
            keys = torch.zeros(d_ff, d_ff, dtype=torch.float64, device=device)
            wanted = torch.zeros(d_model, d_ff, dtype=torch.float64, device=device)
            for where, goals in groups:
                k = at_positions(inputs, where).double()  # [n, d_ff]
                d = goals[:, layer].double() - at_positions(behind, where).double()  # [n, d_model]
                keys += k.T @ k / len(k)
                wanted += d.T @ k / len(k)
            changes[path] = change(layer, keys, wanted)
            columns(projection).add_(changes[path].to(projection.weight))
            _, behind = run_layer(projection, layer, split, states)
        states = behind
    return changes


def low_rank_factors(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """B `[out, n]` and A `[n, in]` float32 with BA = change; n is its rank, up to `SMALLEST`."""
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    n = max(1, int((s > SMALLEST * s[0]).sum()))
    root = s[:n].sqrt()
    return (u[:, :n] * root).float().contiguous(), (root[:, None] * v[:n]).float().contiguous()


@register(
    "layerwise rewrite",
    requires=NAMES,
    grid=tuple({"retain_penalty": penalty, "likely": likely} for penalty, likely in TRIED),
    source="this book, chapter 11: closed form, from forward passes alone; kin: MEMIT, TIME, UCE",
)
@dataclass(frozen=True)
class LayerwiseRewrite(Method):
    """Moves the states behind every layer to those of one stranger for each person.

    Attributes:
        retain_penalty: a, the price of a change on retained and general questions.
        sweeps: how often the layers are edited, from the first to the last.
        subject_threshold: the smallest drop of the answer token's probability, with the stranger
            in the prompt, at which a position of the answer counts.
        likely: the probability of the whole answer above which another stranger is taken.
        others: the number of strangers to choose from, for each question.
        layers: first and last layer to change, as numbers or as fractions of the depth.
        prompts: whether the states of the prompts move, too. Without them attention still brings
            the answers to the last layer.
    """

    retain_penalty: float = 10.0
    sweeps: int = 4
    subject_threshold: float = 0.3
    likely: float = 0.1
    others: int = 16
    layers: tuple = (0.0, 1.0)
    prompts: bool = True

    def edit(self, session: Session, request: Request) -> LowRank:
        """Makes the edit.

        Raises:
            ValueError: no strangers, or no answer that depends on the person.
        """
        model, made_for = session.model, fingerprint(session.model)
        check_dense_fp(model)
        moments = retain_moments(session, request)
        groups = self.targets(session, request)
        session.cost.add("forget", len(request.forget), self.others + 2 + 3 * self.sweeps)

        def change(layer: int, keys: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return self.change(keys, wanted, moments[layer].to(keys))

        total: dict[str, torch.Tensor] = {}
        for number in range(self.sweeps):
            both = self.prompts and number >= self.sweeps // 2
            moved = groups if both else groups[:1]
            for path, step in sweep(session, request, moved, change, self.layers).items():
                total[path] = total[path] + step if path in total else step
        factors = {}
        for path, whole in total.items():
            b, a = low_rank_factors(whole)
            transposed = is_conv1d(find_projections(model)[path])
            factors[f"{path}.weight"] = (a.T, b.T) if transposed else (b, a)
        notes = {"positions": [int(sum(at.sum() for at in where)) for where, _ in groups]}
        return LowRank(factors, made_for, notes=notes)

    def change(
        self, keys: torch.Tensor, wanted: torch.Tensor, moments: torch.Tensor
    ) -> torch.Tensor:
        """dW `[d_model, d_ff]` of a layer.

        Args:
            keys: the sum over the groups of k'k / n, `[d_ff, d_ff]` float64.
            wanted: the sum over the groups of d'k / n, `[d_model, d_ff]` float64.
            moments: C, `[d_ff, d_ff]` float64.
        """
        whole = keys + self.retain_penalty * moments
        whole.diagonal().add_(RIDGE * whole.diagonal().mean())
        return torch.linalg.solve(whole, wanted.T).T  # `whole` is symmetric

    def substituted(self, request: Request) -> list[list[Question]]:
        """The forget questions about `others` strangers, one for all questions about a person."""
        strangers = unfamiliar_people(request)
        return [substitute_person(request.forget, strangers, draw) for draw in range(self.others)]

    def choose(self, draws: list[torch.Tensor]) -> list[int]:
        """The strangers whose mean state is the target of a question; equally many for each.

        Args:
            draws: for each stranger the probabilities of the answer tokens, `[tokens]`.
        """
        return [choose_stranger(draws, self.likely)]

    def targets(self, session: Session, request: Request) -> list[Group]:
        """The positions that move, and their target states: of the answers, and of the prompts.

        Raises:
            ValueError: no strangers, or no answer that depends on the person.
        """
        substituted = self.substituted(request)
        draws = [
            answer_states(
                session.model, session.encode(session.processor, questions, session.batch_size)
            )
            for questions in substituted
        ]
        own_batches = session.batches(request.forget)
        answers_now = answer_states(session.model, own_batches)
        goals, marks, chosen = list[torch.Tensor](), list[torch.Tensor](), list[list[int]]()
        for row, (p_own, _) in enumerate(answers_now):
            chosen.append(self.choose([draw[row][0] for draw in draws]))
            p_other = torch.stack([draws[draw][row][0] for draw in chosen[row]]).mean(0)
            goals.append(torch.stack([draws[draw][row][1] for draw in chosen[row]]).mean(0))
            marks.append(p_own - p_other > self.subject_threshold)
        if not any(mark.any() for mark in marks):
            raise ValueError("nothing that the forget set asks depends on whom it is asked about")
        order = [row for batch in own_batches for row in batch.rows]
        answers = (
            [marked(batch, marks) for batch in own_batches],
            torch.cat([goals[row][marks[row]] for row in order]),
        )
        others = [
            session.encode(
                session.processor,
                [substituted[draw][row] for row, draw in enumerate(draws_of_place)],
                session.batch_size,
            )
            for draws_of_place in zip(*chosen, strict=True)
        ]
        prompts, other_prompts = prompts_of(own_batches), [prompts_of(b) for b in others]
        counts = {
            row: min(aligned(prompts[row], other[row]) for other in other_prompts) for row in order
        }
        states = [
            prompt_states(session.model, batches, other, counts)
            for batches, other in zip(others, other_prompts, strict=True)
        ]
        where = [torch.zeros_like(batch.predicts) for batch in own_batches]
        for batch, at in zip(own_batches, where, strict=True):
            for index, row in enumerate(batch.rows):
                end = len(prompts[row])
                at[index, end - counts[row] : end] = True
        means = [torch.stack([state[row] for state in states]).mean(0) for row in order]
        return [answers, (where, torch.cat(means))]
