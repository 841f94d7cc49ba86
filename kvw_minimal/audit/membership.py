"""Membership: can an attacker separate the forgotten people from people the model never saw?

The comparison is matched: each question is asked again, with the same answer, about strangers
(`counterfactual_people`). The score is the share of strangers for which the answer is less likely.
The first strangers have names made of known parts, which bring answers of their own. The *new
strangers* have names of which every part is new, and photos to which no method moves anything
(`unfamiliar_people`).
Its mean is the area under the curve. 1: the person is remembered. .5: the person cannot be
separated from a stranger. A value far below .5 reveals the person, too: the true answer has become
less likely than for strangers. Both sides have the same answers, so a ratio to the length of their
zlib code adds nothing to the loss.
"""

from collections.abc import Callable

import numpy as np

from ..edits import Edit
from ..forget_request import Request
from ..methods.counterfactuals import (
    People,
    counterfactual_people,
    substitute_subject,
    unfamiliar_people,
)
from ..questions import Question
from ..session import Session
from .probes import NOTHING, Answers, probe
from .relearning_attacks import reverted
from .token_probes import lowest, tell

MATCHED_STRANGERS = 8  # strangers for each question
SIGNALS = {
    "loss": lambda answer: answer.log.mean(),
    "min-k": lambda answer: lowest(answer.log),
    "min-k++": lambda answer: lowest(answer.standard),
}


@probe(
    "membership",
    "membership",
    "area under the curve of loss (arXiv 1709.01604), min-k "
    "(2310.16789) and min-k++ (2404.02936) against matched strangers",
    several=True,
)
def membership(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return against(session, request, counterfactual_people)


@probe(
    "membership, new strangers",
    "membership",
    "the same against strangers of whom the model knows no part: names coined from halves of "
    "names, and portraits to which no method moves anything",
    several=True,
)
def membership_of_new(session: Session, request: Request, edit: Edit) -> dict[str, Answers]:
    return against(session, request, unseen_people)


def against(
    session: Session, request: Request, people: Callable[[Request], People]
) -> dict[str, Answers]:
    """The share of strangers with a less likely answer, by each of `SIGNALS`."""
    stats = [tell(session, questions) for questions in _matched_questions(request, people)]
    if not stats:
        return dict.fromkeys(SIGNALS, NOTHING)
    return {
        name: (
            request.forget,
            _share_below(*(np.array([score(answer) for answer in draw]) for draw in stats)),
        )
        for name, score in SIGNALS.items()
    }


def unseen_people(request: Request) -> People:
    """Strangers that are no target of any method."""
    return unfamiliar_people(request, held_out=True)


@probe(
    "reference ratio",
    "membership",
    "log-probability beside that of a reference model, arXiv "
    "2112.03570; the reference is the model before the edit, which takes no knowledge of who "
    "was forgotten. .5: it fell as that of strangers did",
    before=True,
)
def reference_ratio(session: Session, request: Request, edit: Edit) -> Answers:
    draws = _matched_questions(request, counterfactual_people)
    if not draws:
        return NOTHING

    def losses() -> np.ndarray:
        return np.array(
            [[answer.log.mean() for answer in tell(session, questions)] for questions in draws]
        )

    edited = losses()  # [1 + strangers, questions]
    with reverted(session.model, edit):
        return request.forget, _share_below(*(edited - losses()))


def _matched_questions(
    request: Request, people: Callable[[Request], People]
) -> list[list[Question]]:
    """Questions about the people to forget, then about each draw of strangers; or nothing."""
    try:
        strangers = people(request)
    except ValueError:  # these questions cannot be asked about another person
        return []
    offsets = range(0, MATCHED_STRANGERS * len(request.forget), len(request.forget))
    return [
        request.forget,
        *(substitute_subject(request.forget, strangers, offset) for offset in offsets),
    ]


def _share_below(person: np.ndarray, *strangers: np.ndarray) -> np.ndarray:
    """Share of the strangers with a lower signal; an equal signal counts half."""
    return np.mean(
        [np.where(person == stranger, 0.5, person > stranger) for stranger in strangers], axis=0
    )
