"""The layerwise rewrite: moves the hidden states of every layer to those of one stranger.

The rewrite (`rewrite.py`) spreads the difference to the counterfactual state over the layers, so
the states of the earlier layers still hold the answer. This method moves the states behind *each*
layer the whole way. It differs in four choices:

1. Each layer takes the whole remaining difference: d = t - h, not divided by the layers left.
2. The target of a person is one stranger, not the mean of many. A mean has no answer of its own,
   so any rest of the true answer wins.
3. The names of the strangers are new in every part (`coined`). A part that the model knows would
   bring the answers of people with that part.
4. The price C counts every retained question, and the layers are edited in several sweeps: each
   sweep moves what the last one left.

    minimise  mean over i of |dW k_i - d_i|^2  +  a tr(dW C dW') + mu |dW|^2

k_i [d_ff] is the input of the projection at the i-th position where the person determines the
answer, d_i [d_model] the difference to the stranger there. `solution` has the closed form.

A saved edit shows for whom it was made: the k_i are in its factors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..architectures import check_dense_fp
from ..batches import Batch
from ..coefficients import shape_of
from ..edits import LowRank
from ..forget_request import Request
from ..method import Method, register
from ..models import fingerprint
from ..questions import Question
from ..session import Session
from .counterfactuals import answer_states, substitute_person, unfamiliar_people
from .rewrite import add_general_once, add_moments, allocate_moments, solve_layerwise

#: pairs of retain penalty and sweeps for tuning
TRIED = ((10.0, 2), (10.0, 4), (10.0, 6), (3.0, 1), (3.0, 2), (3.0, 3), (1.0, 1), (1.0, 2))


def second_moments(session: Session, questions: list[Question]) -> tuple[torch.Tensor, list[int]]:
    """Sums of hh' over positions that predict an answer, and over all positions.

    h [d_ff] is the input of a layer's output projection. The sums add up: those of a part can be
    subtracted.

    Returns:
        `[2, layers, d_ff, d_ff]` float64, and the two numbers of positions.
    """
    sums, counts = allocate_moments(*shape_of(session.model)), list[int]()
    batches = session.encode(session.processor, questions, session.batch_size)
    everywhere: tuple[Callable[[Batch], torch.Tensor], ...] = (
        lambda batch: batch.predicts,
        lambda batch: batch.inputs["attention_mask"].bool(),
    )
    for total, where in zip(sums, everywhere, strict=True):
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
        for total, own, n, own_n in zip(sums, forgotten, counts, forgotten_counts, strict=True):
            price += (total - own) / (n - own_n)
    passes = 2 * len(questions) + add_general_once(session, request, price)
    session.cost.add("forget", len(request.forget), 2)
    session.cost.add("retain", passes, 1)
    return price


def choose_stranger(draws: list[torch.Tensor], likely: float) -> int:
    """The first stranger of whom the answer is less likely than `likely`, else the least likely.

    Args:
        draws: for each stranger the probabilities of the answer tokens, `[tokens]`.
    """
    whole = [float(p.double().prod()) for p in draws]
    return next((i for i, p in enumerate(whole) if p < likely), whole.index(min(whole)))


@register(
    "layerwise rewrite",
    grid=tuple({"retain_penalty": penalty, "sweeps": sweeps} for penalty, sweeps in TRIED),
    source="this book, chapter 10: closed form, from forward passes alone; kin: MEMIT, TIME, UCE",
)
@dataclass(frozen=True)
class LayerwiseRewrite(Method):
    """Moves the states behind every layer to those of one stranger for each person.

    Attributes:
        retain_penalty: a, the price of a change on retained and general questions.
        sweeps: how often the layers are edited, from the first to the last.
        subject_threshold: the smallest drop of the answer token's probability, with the stranger
            in the prompt, at which a position counts.
        likely: the probability of the whole answer above which another stranger is taken.
        others: the number of strangers to choose from, for each question.
        layers: first and last layer to change, as numbers or as fractions of the depth.
    """

    retain_penalty: float = 10.0
    sweeps: int = 6
    subject_threshold: float = 0.3
    likely: float = 0.01
    others: int = 16
    layers: tuple = (0.0, 1.0)

    def edit(self, session: Session, request: Request) -> LowRank:
        """Makes the edit.

        Raises:
            ValueError: no strangers, or no answer that depends on the person.
        """
        made_for = fingerprint(session.model)
        check_dense_fp(session.model)
        moments = retain_moments(session, request)
        goals, marks = self.targets(session, request)
        session.cost.add("forget", len(request.forget), self.others + 1 + 3 * self.sweeps)

        def price(layer: int) -> torch.Tensor:
            return self.retain_penalty * moments[layer]

        sweeps = [
            solve_layerwise(session, request, goals, marks, price, 1.0, self.layers, spread=False)
            for _ in range(self.sweeps)
        ]
        factors = {
            name: (
                torch.cat([sweep[name][0] for sweep in sweeps], 1),  # B [out, n]
                torch.cat([sweep[name][1] for sweep in sweeps], 0),  # A [n, in]
            )
            for name in sweeps[0]
        }
        return LowRank(factors, made_for, notes={"positions": int(torch.cat(marks).sum())})

    def targets(
        self, session: Session, request: Request
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The target states of each question, and the positions where they count.

        Returns:
            For each forget question the states of its stranger, `[tokens, layers, d_model]`; and
            whether the person determines the token, `[tokens]` bool.

        Raises:
            ValueError: no strangers, or no answer that depends on the person.
        """
        strangers = unfamiliar_people(request)
        draws = [
            answer_states(
                session.model,
                session.encode(
                    session.processor,
                    substitute_person(request.forget, strangers, draw),
                    session.batch_size,
                ),
            )
            for draw in range(self.others)
        ]
        goals, marks = list[torch.Tensor](), list[torch.Tensor]()
        answers = answer_states(session.model, session.batches(request.forget))
        for (own, _), *pairs in zip(answers, *draws, strict=True):
            p, states = pairs[choose_stranger([p for p, _ in pairs], self.likely)]
            goals.append(states)
            marks.append(own - p > self.subject_threshold)
        if not any(mark.any() for mark in marks):
            raise ValueError("nothing that the forget set asks depends on whom it is asked about")
        return goals, marks
