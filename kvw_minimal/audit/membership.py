"""Membership: can the forgotten be told from somebody whom the model has never met?

The other side of the comparison is matched: each question is asked again, with the same answer,
about strangers (`counterfactual_people`). What is scored is the share of them of whom the answer is
less likely; its mean is the area under the curve. 1: remembered. .5: cannot be told. Far below .5
the true answer has become unlikelier than of anybody: a tell-tale, too. Since the answers are the
same on both sides, a ratio to the length of their zlib code says what the loss says.
"""

import numpy as np

from ..edits import Edit
from ..forget_request import Request
from ..methods.counterfactuals import counterfactual_people, substitute_subject
from ..questions import Question
from ..session import Session
from .probes import NOTHING, Answers, probe
from .relearning_attacks import reverted
from .token_probes import lowest, tell

STRANGERS = 8  # that each question is asked about
SIGNALS = {
    "loss": lambda told: told.log.mean(),
    "min-k": lambda told: lowest(told.log),
    "min-k++": lambda told: lowest(told.standard),
}


@probe(
    "membership",
    "membership",
    "area under the curve of loss (arXiv 1709.01604), min-k "
    "(2310.16789) and min-k++ (2404.02936) against matched strangers",
    several=True,
)
def membership(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    told = [tell(session, questions) for questions in _asked(request)]
    if not told:
        return dict.fromkeys(SIGNALS, NOTHING)
    return {
        name: (request.forget, _above(*(np.array([signal(t) for t in each]) for each in told)))
        for name, signal in SIGNALS.items()
    }


@probe(
    "reference ratio",
    "membership",
    "log-probability beside that of a reference model, arXiv "
    "2112.03570; the reference is the model before the edit, which takes no knowledge of who "
    "was forgotten. .5: it fell as that of strangers did",
    before=True,
)
def reference_ratio(session: Session, request: Request, edit: Edit) -> Answers:
    asked = _asked(request)
    if not asked:
        return NOTHING

    def losses() -> np.ndarray:
        return np.array([[t.log.mean() for t in tell(session, each)] for each in asked])

    now = losses()  # [1 + strangers, questions]
    with reverted(session.model, edit):
        return request.forget, _above(*(now - losses()))


def _asked(request: Request) -> list[list[Question]]:
    """The questions about the forgotten, then about strangers, draw after draw; or nothing."""
    try:
        others = counterfactual_people(request)
    except ValueError:  # nobody to compare with
        return []
    draws = range(0, STRANGERS * len(request.forget), len(request.forget))
    return [request.forget, *(substitute_subject(request.forget, others, draw) for draw in draws)]


def _above(own: np.ndarray, *never: np.ndarray) -> np.ndarray:
    """The share of the others whose signal is lower; one that is the same counts half."""
    return np.mean([np.where(own == other, 0.5, own > other) for other in never], axis=0)
