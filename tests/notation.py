"""The letters of this book: what each means, its shape or range, its function and its chapter.

`tests/write_pages.py` writes them into `book/glossary.md`; `tests/test_glossary.py` sees to it
that each stands in a formula of its chapter, for one thing only.
"""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Symbol(NamedTuple):
    """A row of the table of notation.

    Attributes:
        latex: as it stands in a formula; several are parted by a blank after the comma.
        meaning: in a few words.
        shape: or the unit, or the range; empty for a plain number.
        module: of `kvw_minimal`; `name`: what in it computes, finds or holds the thing.
        chapter: how the name of its notebook begins.
    """

    latex: str
    meaning: str
    shape: str
    module: str
    name: str
    chapter: str


SYMBOLS = tuple(
    Symbol(*row)
    for row in (
        (
            r"W_\text{down}",
            "output projection of a layer's FFN",
            "`[d_model, d_ff]`",
            "models",
            "find_projections",
            "02",
        ),
        ("v_i", "knowledge vector, column $i$ of it", "`[d_model]`", "models", "columns", "02"),
        (
            "h_i",
            "what vector $i$ is multiplied by at one token, with its sign; `h`",
            "`[B, T, d_ff]`",
            "coefficients",
            "hook_inputs",
            "02",
        ),
        (
            "M",
            "mask: 1 where a token of an answer is predicted",
            "`[B, T]`, 0 or 1",
            "batches",
            "Batch",
            "04",
        ),
        (
            r"c_{l,i}",
            r"knowledge coefficient: mean of $\lvert h\rvert$ under the mask",
            "`[layers, d_ff]`, ≥ 0",
            "coefficients",
            "mean_absolute",
            "03",
        ),
        (
            "c_f, c_r",
            "the same over the forget set, the retain set; `kc_f`, `kc_r`",
            "`[layers, d_ff]`, ≥ 0",
            "coefficients",
            "Coefficients",
            "03",
        ),
        (
            r"\varepsilon",
            "keeps the logarithm of a silent vector finite",
            "$10^{-12}$",
            "kvw",
            "contrast",
            "04",
        ),
        (
            r"\delta",
            "contrast of forget and retain",
            "`[layers, d_ff]`, ≥ 0",
            "kvw",
            "contrast",
            "05",
        ),
        ("G", "strength of an edit", "≥ 0", "kvw", "gate", "03"),
        (
            "g",
            "gate: what a knowledge vector is multiplied by",
            "`[layers, d_ff]`, in (0, 1]",
            "kvw",
            "gate",
            "03",
        ),
        (r"\gamma", "strength of one batch, $G / n$", "≥ 0", "kvw", "published", "05"),
        (
            "s, A, B",
            "LoRA: the change of a weight is $s\\,BA$",
            "`[rank, d_in]`, `[d_out, rank]`",
            "edits",
            "LowRank",
            "06",
        ),
        ("p", "probability that the model gives", "0 to 1", "scores", "read", "01"),
        (
            "p_0",
            "the same of the model from before",
            "0 to 1",
            "methods.losses",
            "divergence",
            "07",
        ),
        (
            r"\mathrm{NLL}",
            r"minus $\log p$, summed over the tokens of an answer",
            "nats, ≥ 0",
            "methods.losses",
            "sequence_loss",
            "07",
        ),
        (
            r"\mathrm{CE}",
            r"minus $\log p$, mean over all answer tokens",
            "nats a token, ≥ 0",
            "methods.losses",
            "token_loss",
            "07",
        ),
        (
            r"\mathrm{KL}",
            "divergence of two distributions over the next token",
            "nats a token, ≥ 0",
            "methods.losses",
            "divergence",
            "07",
        ),
        (
            r"\Delta",
            r"by how much $\mathrm{NLL}$ has risen (before a weight, $\Delta W$: its change)",
            "nats",
            "methods.losses",
            "negative_preference",
            "07",
        ),
        (r"\beta", "how soon NPO lets go", "> 0", "methods.losses", "negative_preference", "07"),
        (
            r"\sigma",
            r"with brackets: the logistic function $1 / (1 + e^{-x})$",
            "0 to 1",
            "methods.losses",
            "negative_preference",
            "07",
        ),
        (
            "w",
            "weight of what is to be kept in a loss",
            "≥ 0",
            "methods.gradients",
            "GradientDifference",
            "07",
        ),
        (
            "F_f, F_r",
            "Fisher information: mean squared gradient of a weight",
            "as the weight, ≥ 0",
            "methods.fisher",
            "fisher",
            "07",
        ),
        (
            "m",
            "log-odds of the fact in an answer",
            "nats",
            "methods.least_squares",
            "effects",
            "11",
        ),
        (
            "E_i",
            "effect of vector $i$ on them",
            "`[questions, layers, d_ff]`",
            "methods.least_squares",
            "effects",
            "11",
        ),
        (
            "z_i",
            "share of vector $i$ that least squares takes away",
            "`[layers, d_ff]`, of any sign",
            "methods.least_squares",
            "ridge_solution",
            "11",
        ),
        (
            "k_t, d_t",
            "rewrite: what goes in at a deciding position, and the step wanted there",
            "`[n, d_ff]`, `[n, d_model]`",
            "methods.rewrite",
            "solution",
            "11",
        ),
        (
            "C",
            "second moment of what else goes in",
            "`[d_ff, d_ff]`",
            "methods.rewrite",
            "retain_covariance",
            "11",
        ),
    )
)


def notebook_of(chapter: str) -> Path:
    """The notebook whose name begins so.

    Raises:
        ValueError: there is not exactly one.
    """
    found = sorted((ROOT / "notebooks").glob(f"{chapter}_*.ipynb"))
    if len(found) != 1:
        raise ValueError(f"{len(found)} notebooks begin with {chapter}_")
    return found[0]
