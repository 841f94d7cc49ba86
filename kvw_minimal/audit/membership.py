"""Membership: can the forgotten be told from somebody whom the model has never met?

The other side of the comparison is matched: each question is asked again, with the same answer,
about strangers (`somebody_else`). What is scored is the share of them of whom the answer is less
likely; its mean is the area under the curve. 1: remembered. .5: cannot be told. Far below .5 the
true answer has become unlikelier than of anybody: a tell-tale, too. Since the answers are the same
on both sides, a ratio to the length of their zlib code says what the loss says.
"""

import numpy as np

from ..edits import Edit
from ..methods.somebody_else import asked_again, somebody_else
from ..task import Task
from .probes import NOTHING, Answers, probe
from .tokens import lowest, tell

STRANGERS = 8  # that each question is asked about
SIGNALS = {
    "loss": lambda told: told.log.mean(),
    "min-k": lambda told: lowest(told.log),
    "min-k++": lambda told: lowest(told.standard),
}


@probe("membership", "membership", "area under the curve of loss (arXiv 1709.01604), min-k "
       "(2310.16789) and min-k++ (2404.02936) against matched strangers", several=True)  # fmt: skip
def membership(task: Task, edit: Edit) -> dict[str, Answers]:
    try:
        others = somebody_else(task)
    except ValueError:  # nobody to compare with
        return dict.fromkeys(SIGNALS, NOTHING)
    known = tell(task, task.forget)
    never = [tell(task, asked_again(task.forget, others, draw * len(task.forget)))
             for draw in range(STRANGERS)]  # fmt: skip
    return {name: (task.forget, np.array([
        np.mean([_above(signal(own), signal(other[row])) for other in never])
        for row, own in enumerate(known)])) for name, signal in SIGNALS.items()}  # fmt: skip


def _above(own: float, other: float) -> float:
    """1 if the own signal is the higher one, .5 if both are the same."""
    return 1.0 if own > other else 0.5 * (own == other)
