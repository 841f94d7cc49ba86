"""Scores: the answers of a model, and their probabilities, as numbers.

The score of a question is a number. The score of a set is the mean over its questions, with a 95 %
interval bootstrapped over people (`kvw_minimal.bootstrap`). `METRICS` holds every score by its
name; `kvw_minimal.benchmarks` adds more.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from operator import attrgetter

import numpy as np
import torch

from .batches import Batch, answer_batches, prompt_batches
from .beginnings import share
from .models import tokenizer_of
from .questions import Question

#: the scores of a question by their names
METRICS: dict[str, Callable] = {}


def metric(name: str) -> Callable[[Callable], Callable]:
    """A decorator that enters a score into `METRICS`.

    Raises:
        ValueError: another score has this name.
    """

    def enter(score: Callable) -> Callable:
        if METRICS.setdefault(name, score) is not score:
            raise ValueError(f"there are two scores of the name {name}")
        return score

    return enter


@dataclass
class TeacherForcedScores:
    """Teacher-forced scores, one entry per question.

    Attributes:
        exact: `[questions]`, 1 if every token of the answer (and its end) is the most likely one,
            else 0.
        logprob: `[questions]`, the sum of the log-probabilities of the answer tokens, <= 0.
        tokens: `[questions]`, the number of these tokens.
    """

    exact: np.ndarray
    logprob: np.ndarray
    tokens: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """exp(mean log-probability of a token), in (0, 1]; higher = better known."""
        return np.exp(self.logprob / self.tokens)


metric("exact_match")(attrgetter("exact"))
metric("probability")(attrgetter("probability"))


def logits_of_answers(model, batch: Batch) -> torch.Tensor:
    """Logits at the positions that predict an answer or its end, `[answer tokens, vocabulary]`.

    If the model can skip the head elsewhere, it does: the head is a fifth of SmolLM2.
    """
    predicts, inputs = batch.predicts, batch.inputs
    if "logits_to_keep" not in signature(model.forward).parameters:
        return model(**inputs, use_cache=False).logits[predicts]
    columns = predicts.any(0).nonzero()[:, 0]
    logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits  # [B, columns, words]
    return logits[predicts[:, columns]]


@torch.no_grad()
def read(model, batches: list[Batch]) -> TeacherForcedScores:
    """Scores the taught answers: the model reads each question with its answer.

    Raises:
        ValueError: logits that are not finite.
    """
    count = sum(len(batch.rows) for batch in batches)
    exact, logprob, tokens = np.zeros(count), np.zeros(count), np.zeros(count)
    for batch in share(model, batches):
        batch = batch.to(next(model.parameters()).device)
        where, _ = batch.predicts.nonzero(as_tuple=True)
        logits = logits_of_answers(model, batch).float()
        if not logits.isfinite().all():
            raise ValueError("the model's logits are NaN or infinite")
        gold = batch.labels[:, 1:][batch.predicts[:, :-1]]  # [answer tokens]
        right = (logits.argmax(-1) == gold).double()
        log = logits.log_softmax(-1).gather(1, gold[:, None])[:, 0].double()
        ones, zeros = torch.ones_like(log), torch.zeros(len(batch.rows)).to(log)
        n = zeros.index_add(0, where, ones).cpu().numpy()
        exact[batch.rows] = zeros.index_add(0, where, right).cpu().numpy() == n
        logprob[batch.rows] = zeros.index_add(0, where, log).cpu().numpy()
        tokens[batch.rows] = n
    return TeacherForcedScores(exact, logprob, tokens)


def read_answers(
    model, processor, questions: list[Question], answers: list[str], batch_size: int = 64
) -> TeacherForcedScores:
    """`read` with other answers in place of the taught answers."""
    changed = [replace(q, answer=answer) for q, answer in zip(questions, answers, strict=True)]
    return read(model, answer_batches(processor, changed, batch_size))


@torch.no_grad()
def generate(model, batches: list[Batch], processor, new_tokens: int = 24) -> list[str]:
    """Generates greedy answers, decoded and stripped, in the order of the questions.

    Args:
        batches: from `prompt_batches`.
        new_tokens: the largest number of tokens in an answer.
    """
    answers = [""] * sum(len(batch.rows) for batch in batches)
    for batch in share(model, batches):
        inputs = batch.to(next(model.parameters()).device).inputs
        ids = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer_of(processor).batch_decode(new, skip_special_tokens=True)
        for row, text in zip(batch.rows, texts, strict=True):
            answers[row] = text.strip()
    return answers


def answer(
    model, processor, questions: list[Question], batch_size: int = 64, new_tokens: int = 24
) -> list[str]:
    """`generate` for a list of questions."""
    return generate(model, prompt_batches(processor, questions, batch_size), processor, new_tokens)


def normalised(text: str) -> str:
    """Normalises a text: lower case, single spaces, no punctuation; letters keep their accents."""
    text = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]", " ", text).split())


@metric("same_answer")
def same_answer(text: str, gold: str) -> float:
    """1 if both texts have the same words, else 0.

    Raises:
        ValueError: an empty gold answer.
    """
    if not normalised(gold):
        raise ValueError("an empty gold answer cannot be scored")
    return float(normalised(text) == normalised(gold))


@metric("mentions")
def mentions(text: str, gold: str) -> float:
    """1 if the text contains the gold words as whole words, else 0 (cloze, names).

    Raises:
        ValueError: an empty gold answer.
    """
    if not normalised(gold):
        raise ValueError("an empty gold answer cannot be scored")
    return float(f" {normalised(gold)} " in f" {normalised(text)} ")


def likeliest(likelihoods: np.ndarray, gold: int) -> float:
    """1 if the gold option is the likeliest, else 0; a tie is 0. Chance is 1 / options.

    >>> likeliest(np.array([0.1, 0.4, 0.2]), 1), likeliest(np.array([0.4, 0.4]), 1)
    (1.0, 0.0)
    """
    return float((likelihoods >= likelihoods[gold]).sum() == 1)


def option_ranks(model, processor, questions: list[Question], batch_size: int = 64) -> np.ndarray:
    """The rank of the taught answer among the options of each question, `[questions]`.

    0 is the likeliest, 1 the least likely, by the mean log-probability of a token. A tie counts
    against the taught answer.
    """
    repeated = [q for q in questions for _ in q.options]
    options = [option for q in questions for option in q.options]
    scores = read_answers(model, processor, repeated, options, batch_size)
    ends = np.cumsum([len(q.options) for q in questions])
    means = np.split(scores.logprob / scores.tokens, ends[:-1])
    gold = [mean[q.options.index(q.answer)] for mean, q in zip(means, questions, strict=True)]
    above = [(mean >= gold_mean).sum() - 1 for mean, gold_mean in zip(means, gold, strict=True)]
    return np.array([n / (len(mean) - 1) for n, mean in zip(above, means, strict=True)])


@metric("choose_by_likelihood")
def choose_by_likelihood(model, processor, questions: list[Question]) -> np.ndarray:
    """1 where the taught answer is the likeliest of the options, else 0; a tie is 0."""
    return (option_ranks(model, processor, questions) == 0).astype(float)


@metric("well_formed")
def well_formed(text: str, answers: set[str]) -> float:
    """1 if a text has the form of *some* answer to the question, right or wrong, else 0.

    Args:
        answers: normalised taught answers to the same kind of question, about all people.
    """
    return float(normalised(text) in answers)
