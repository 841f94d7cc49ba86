"""The protocols of MLLMU-Bench and CLEAR: their prompts and their metrics.

Each question is one user turn, without examples. Answers are greedy, with at most `NEW_TOKENS`
tokens. Every image question is asked with its photo and again with a blank picture; the rows with
modality `blank image` are this control. A metric gives one number for each question:

| metric | range | better known | what it is |
|---|---|---|---|
| `choice` | 0, 1 | up | the answer names the right letter; no letter counts as wrong |
| `choice_likelihood` | 0, 1 | up | the right option is the most likely one |
| `rouge_l` | 0 to 1 | up | ROUGE-L F-measure of the answer (MLLMU-Bench) |
| `rouge_l_recall` | 0 to 1 | up | ROUGE-L recall of the answer (CLEAR, TOFU) |
| `cloze`, `accuracy` | 0, 1 | up | the answer contains the gold words, or the name |
| `probability` | 0 to 1 | up | exp(mean log-probability of a token) of the gold answer |
| `options_probability` | 0 to 1 | up | p(gold) / (p(gold) + sum p(wrong)) |
| `truth_ratio` | above 0 | down | R = mean p(wrong) / p(true), both of paraphrases |
| `forget_score` | 0 to 1 | down | min(R, 1/R): 1 if true and false answers are equally likely |
| `truth_score` | 0 to 1 | up | max(0, 1 - R) |
| `utility` | 0 to 1 | (kept: up) | harmonic mean of the scores on all sets except `forget` |

Names of metrics of CLEAR begin with the fact: `name_accuracy`, `caption_truth_ratio`. For people to
forget, "better known" means worse forgotten. The score of the oracle is the target.

Scores of `kvw_minimal.scores`, each with a worked example:

| metric | range | up means | worked example |
|---|---|---|---|
| `same_answer` | 0, 1 | better known | to "In Oslo.": "in oslo" 1, "Oslo" 0 |
| `choose_by_likelihood` | 0, 1 | better known | taught -1, others -2, -3, -4: 1; a tie at -1: 0 |
| `well_formed` | 0, 1 | any answer | of "in oslo", "in riga": "In Riga." 1, "Riga" 0 |
| `forget_score` | above 0, to 1 | truth and lies less apart | R of 0.25 or 4: 0.25; R of 1: 1 |
| `log10_p` | 0 or less | nearer to the oracle | R of 1, 2, 3, oracle 4, 5, 6: -1; both alike: 0 |
| `statistic` | 0 to 1 | farther from it | R of 1, 2, 3, oracle 4, 5, 6: 1; both alike: 0 |
| `model_utility` | 0 to 1 | more is kept | 0.5 and 1: 2 / (1 / 0.5 + 1 / 1) = 2/3; 0 and 1: 0 |

`choose_by_likelihood` compares mean log-probabilities of a token; chance is 1/4. `log10_p` and
`statistic` are what `forget_quality` returns.

>>> from kvw_minimal.scores import same_answer, well_formed
>>> [same_answer(said, "In Oslo.") for said in ("in oslo", "Oslo")]
[1.0, 0.0]
>>> [well_formed(said, {"in oslo", "in riga"}) for said in ("In Riga.", "Riga")]
[1.0, 0.0]
>>> forget_score(np.array([0.25, 4.0, 1.0])).tolist()
[0.25, 0.25, 1.0]
>>> found = forget_quality(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
>>> round(found["log10_p"], 6), found["statistic"], found["n"]
(-1.0, 1.0, 3)
>>> found = forget_quality(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
>>> found["log10_p"], found["statistic"]
(0.0, 0.0)
>>> round(model_utility([0.5, 1.0]), 2), model_utility([0.0, 1.0])
(0.67, 0.0)
>>> mentions("This is José Vik.", "José Vik"), mentions("This is José Vik.", "Jos")
(1.0, 0.0)
>>> round(rouge_l("He lives in Oslo.", "In Oslo."), 2), rouge_l("He lives in Oslo.", "In Oslo.",
...                                                              "recall")
(0.67, 1.0)

Sources: MLLMU-Bench (arXiv 2410.22108); CLEAR (arXiv 2410.18057); TOFU (arXiv 2401.06121).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ..batches import without_photo
from ..bootstrap import DRAWS
from ..questions import Question, seeded
from ..results import ABOUT, score_rows
from ..scores import METRICS, answer, likeliest, mentions, metric, read_answers
from ..session import Session
from .multiple_choice import choice, chosen_option, letter_question, whole_words, with_options
from .truth_ratios import forget_quality, forget_score, model_utility, truth_ratio_of

NEW_TOKENS = 50
CLOZE_RULE = "Please **ONLY** provide the correct answer that should replace the [Blank]."
GENERATION_RULE = (
    "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
)
BLOCK = 16  # number of batches whose pictures are in memory together
#: metric of the generated answer, for each task of MLLMU-Bench
ANSWER_METRICS = {"classification": "choice", "generation": "rouge_l", "cloze": "cloze"}
#: parts of CLEAR's utility, their harmonic mean: (set, modality, metric)
UTILITY = (
    ("retain", "image", "name_accuracy"),
    ("retain", "image", "caption_rouge_l_recall"),
    ("retain", "image", "caption_probability"),
    ("retain", "image", "caption_truth_score"),
    ("retain", "text", "question_rouge_l_recall"),
    ("retain", "text", "question_probability"),
    ("real_faces", "image", "name_accuracy"),
    ("real_faces", "image", "name_options_probability"),
    ("real_world", "image", "question_rouge_l_recall"),
    ("real_world", "image", "question_options_probability"),
)


# ---- the metrics of one question ---------------------------------------------------------------

metric("cloze")(mentions)
metric("accuracy")(mentions)
metric("choice_likelihood")(likeliest)


@metric("rouge_l")
def rouge_l(text: str, gold: str, kind: str = "fmeasure") -> float:
    """ROUGE-L with stemming, in [0, 1]; MLLMU-Bench uses `fmeasure`, CLEAR and TOFU `recall`.

    The library keeps only a to z and digits: it cannot tell "José" from "Jos".

    >>> round(rouge_l("In Lisbon.", "In Oslo."), 2)
    0.5
    """
    from rouge_score import rouge_scorer  # brings NLTK and scikit-learn along

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    return float(getattr(scorer.score(gold, text)["rougeL"], kind))


metric("rouge_l_recall")(partial(rouge_l, kind="recall"))


@metric("options_probability")
def options_probability(probabilities: np.ndarray, gold: int) -> float:
    """p(gold) / (p(gold) + sum p(wrong)), in (0, 1]; chance is 1 / (number of options).

    >>> round(options_probability(np.array([0.1, 0.4, 0.3]), 1), 2)
    0.5
    """
    return float(probabilities[gold] / probabilities.sum())


@metric("truth_score")
def truth_score(ratios: np.ndarray) -> np.ndarray:
    """max(0, 1 - R), in [0, 1): TOFU's truth ratio for retained people; near 1: known.

    >>> truth_score(np.array([0.25, 1.5])).tolist()
    [0.75, 0.0]
    """
    return np.maximum(0, 1 - np.asarray(ratios))


# ---- prompts and answers -----------------------------------------------------------------------


def evaluation_question(question: Question) -> Question:
    """The question with the instruction that MLLMU-Bench's evaluation appends.

    Cloze (`Mask_Task`) asks for the words of the [Blank] only. A question with options
    (`Classification_Task`) lists the options A to D and asks for a letter. Other questions
    (`Generation_Task`) ask for one sentence.
    """
    if question.options and question.form != "cloze":
        return letter_question(question)
    rule = CLOZE_RULE if question.form == "cloze" else GENERATION_RULE
    return replace(question, prompt=f"{question.prompt}\n{rule}")


def blocks(count: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most `BLOCK` batches, whose pictures fit into memory together."""
    size = batch_size * BLOCK
    return (slice(start, start + size) for start in range(0, count, size))


def generate_answers(session: Session, questions: list[Question]) -> list[str]:
    """Greedy answers to the questions, in order, with at most `NEW_TOKENS` tokens."""
    model, processor, size = session.model, session.processor, session.batch_size
    return [
        text
        for block in blocks(len(questions), size)
        for text in answer(model, processor, questions[block], size, NEW_TOKENS)
    ]


def answer_probabilities(
    session: Session, questions: list[Question], answers: Sequence[tuple[str, ...]]
) -> list[np.ndarray]:
    """exp(mean log-probability of a token) of each given answer to each question.

    Returns:
        One array `[answers]` for each question; numbers of answers may differ.

    Raises:
        ValueError: a question has no answers.
    """
    empty = [q.id for q, texts in zip(questions, answers, strict=True) if not texts]
    if empty:
        raise ValueError(f"{empty[0]} has no answers to compare")
    repeated = [q for q, texts in zip(questions, answers, strict=True) for _ in texts]
    flat = [text for texts in answers for text in texts]
    model, processor, size = session.model, session.processor, session.batch_size
    probabilities = [
        read_answers(model, processor, repeated[block], flat[block], size).probability
        for block in blocks(len(repeated), size)
    ]
    return np.split(
        np.concatenate(probabilities), np.cumsum([len(texts) for texts in answers])[:-1]
    )


def with_control(questions: list[Question]) -> Iterator[tuple[str, list[Question]]]:
    """Image questions, the same questions with a blank picture, and text questions.

    Modalities without questions are left out.
    """
    image = [q for q in questions if q.image is not None]
    by_modality = {
        "image": image,
        "blank image": without_photo(image),
        "text": [q for q in questions if q.image is None],
    }
    yield from ((modality, selected) for modality, selected in by_modality.items() if selected)


def nameless(question: Question) -> Question:
    """The question with "this person" in place of the name in its answers.

    An original caption of CLEAR holds the name. Then the model could take the person from the text
    instead of the picture.
    """
    parts = [part for part in question.person.split() if len(part) > 1 and not part.islower()]
    name = whole_words({question.person, *parts})

    def hide(text: str) -> str:
        return re.sub("this person(?: this person)+", "this person", name.sub("this person", text))

    return replace(
        question,
        answer=hide(question.answer),
        paraphrase=hide(question.paraphrase),
        perturbed=tuple(hide(text) for text in question.perturbed),
    )


def by_words(
    session: Session, prompts: list[Question], by: str
) -> tuple[dict[str, list[float]], list[bool]]:
    """One metric of the generated answers, under its name, and whether each answer is unparsable.

    An answer is unparsable if it names no option (`choice`), or if it is empty.
    """
    pairs = list(zip(generate_answers(session, prompts), prompts, strict=True))
    if by == "choice":
        return {by: [choice(*pair) for pair in pairs]}, [
            chosen_option(*pair) is None for pair in pairs
        ]
    return {by: [METRICS[by](text, q.answer) for text, q in pairs]}, [not text for text, _ in pairs]


def by_options(session: Session, questions: list[Question]) -> dict[str, list[float]]:
    """Metrics that compare the likelihoods of the options."""
    probabilities = answer_probabilities(session, questions, [q.options for q in questions])
    pairs = [(p, q.options.index(q.answer)) for p, q in zip(probabilities, questions, strict=True)]
    return {
        "choice_likelihood": [likeliest(*pair) for pair in pairs],
        "probability": [float(p[k]) for p, k in pairs],
        "options_probability": [options_probability(*pair) for pair in pairs],
    }


def modality_rows(
    name: str,
    modality: str,
    questions: list[Question],
    metrics: Mapping[str, Sequence[float] | np.ndarray],
    unparsable: Sequence[bool] | None = None,
) -> list[dict]:
    """`score_rows` of questions in one modality.

    Args:
        unparsable: whether each answer is unparsable; default: none is.
    """
    marks = unparsable or [False] * len(questions)
    return score_rows(name, questions, metrics, marks, modality=modality)


# ---- the protocols -----------------------------------------------------------------------------


def score_mllmu(session: Session, name: str, questions: list[Question]) -> list[dict]:
    """Scores one set of MLLMU-Bench: multiple choice, generation and cloze.

    Multiple choice is scored by the generated letter and by likelihood. Likelihood compares the
    options as answers to the plain question, without letters.

    Args:
        questions: from `loaders.load_mllmu`, without the benchmark's instructions.

    Returns:
        Rows of `choice`, `choice_likelihood`, `rouge_l` and `cloze` for each modality; see the
        module. An answer is unparsable if it names no letter (`choice`) or is empty.
    """
    rows: list[dict] = []
    for task, metric_name in ANSWER_METRICS.items():
        for modality, modality_questions in with_control([q for q in questions if q.fact == task]):
            if metric_name == "choice":
                likely = by_options(session, modality_questions)["choice_likelihood"]
                rows += modality_rows(
                    name, modality, modality_questions, {"choice_likelihood": likely}
                )
            prompts = [evaluation_question(question) for question in modality_questions]
            rows += modality_rows(
                name, modality, modality_questions, *by_words(session, prompts, metric_name)
            )
    return rows


def score_clear(session: Session, name: str, questions: list[Question]) -> list[dict]:
    """Scores one set of CLEAR: names, captions and questions, by generation and by likelihood.

    Answers that the model reads (probability, truth ratio) never hold the name, unless the question
    asks for it: see `nameless`.

    Args:
        questions: from `loaders.load_clear`.

    Returns:
        Rows for each modality. Names of metrics begin with the fact (`name`, `caption`,
        `question`): `accuracy` (names), `rouge_l_recall` (other facts), `probability`; with
        options also `choice`, `choice_likelihood` and `options_probability`; with false answers
        also `truth_ratio`, `forget_score` and `truth_score`. An answer is unparsable if it is empty
        or, for `choice`, if it names no option.
    """
    rows: list[dict] = []
    for fact in dict.fromkeys(question.fact for question in questions):
        for modality, modality_questions in with_control([q for q in questions if q.fact == fact]):
            for scored, metrics, unparsable in _clear(session, modality, modality_questions):
                fact_metrics = {f"{fact}_{by}": values for by, values in metrics.items()}
                rows += modality_rows(name, modality, scored, fact_metrics, unparsable)
    return rows


def _clear(
    session: Session, modality: str, questions: list[Question]
) -> Iterator[tuple[list[Question], dict, list[bool] | None]]:
    """Questions about one fact in one modality with their metrics and unparsable answers."""
    asks_name = questions[0].fact == "name"
    metric_name = "accuracy" if asks_name else "rouge_l_recall"
    yield questions, *by_words(session, questions, metric_name)
    choices = [q for q in questions if q.options]
    if choices:
        prompts = [with_options(q) for q in choices]
        yield choices, *by_words(session, prompts, "choice")
        yield choices, by_options(session, choices), None
    rest = [
        q if asks_name or modality == "text" else nameless(q) for q in questions if not q.options
    ]
    if rest:
        probabilities = answer_probabilities(session, rest, [(q.answer,) for q in rest])
        yield rest, {"probability": [float(p[0]) for p in probabilities]}, None
    perturbed = [nameless(q) for q in questions if q.perturbed]
    if perturbed:
        probabilities = answer_probabilities(
            session, perturbed, [(q.paraphrase, *q.perturbed) for q in perturbed]
        )
        ratios = np.array([truth_ratio_of(p[0], p[1:]) for p in probabilities])
        metrics = {
            "truth_ratio": ratios,
            "forget_score": forget_score(ratios),
            "truth_score": truth_score(ratios),
        }
        yield perturbed, metrics, None


# ---- summaries of CLEAR ------------------------------------------------------------------------


def pick(rows: Iterable[dict], *about: str) -> list[dict]:
    """Rows of one set, modality and metric.

    Raises:
        KeyError: no such row exists.
    """
    picked = [row for row in rows if tuple(row[name] for name in ABOUT) == about]
    if not picked:
        raise KeyError(f"nothing was measured for {', '.join(about)}")
    return picked


def utility(condition: str, rows: list[dict], parts=UTILITY, seed: int = 0) -> dict:
    """Utility of a condition: the harmonic mean of `parts`, with an interval; 0 if a part is 0.

    In each bootstrap draw, parts about the same people share the drawn people.

    Returns:
        A row as from `summarise`, with `zero`, the names of the parts that are 0.

    Worked example: parts of .5 and 1 give 2 / (1 / .5 + 1 / 1) = 2 / 3.
    """
    picked = [pick(rows, *part) for part in parts]
    means, drawn_means = [], []
    for group in picked:
        values = np.array([row["score_sum"] for row in group])
        names, owner = np.unique([row["person"] for row in group], return_inverse=True)
        sums, counts = np.bincount(owner, weights=values), np.bincount(owner)  # [people]
        draws = seeded("utility", seed, *names).integers(len(names), size=(DRAWS, len(names)))
        drawn_means.append(sums[draws].sum(1) / counts[draws].sum(1))  # [draws]
        means.append(float(values.mean()))
    bounds = np.percentile(
        [model_utility(list(draw)) for draw in np.stack(drawn_means, 1)], [2.5, 97.5]
    )
    zero = [" ".join(part) for part, mean in zip(parts, means, strict=True) if mean == 0]
    row: dict = {
        "condition": condition,
        "set": "all but forget",
        "modality": "all",
        "metric": "utility",
    }
    for name, value in zip(("value", "low", "high"), (model_utility(means), *bounds), strict=True):
        row[name] = round(float(value), 4)
    count = sum(len(group) for group in picked)
    unparsable = sum(scored["unparsable"] for group in picked for scored in group)
    return row | {"n": count, "unparsable": unparsable, "zero": zero}


def clear_forget_quality(rows: list[dict], oracle: list[dict]) -> dict[str, float]:
    """`forget_quality` of the truth ratios of the captions of the people to forget.

    Returns:
        `log10_p` (<= 0; 0: no difference from the oracle), `statistic` in [0, 1] (0: same
        distribution) and `n`. Several photos of one person are not independent, so p is too small:
        read it together with the statistic.
    """
    about = ("forget", "image", "caption_truth_ratio")
    ours, theirs = (
        np.array([row["score_sum"] for row in pick(condition_rows, *about)])
        for condition_rows in (rows, oracle)
    )
    return forget_quality(ours, theirs)
