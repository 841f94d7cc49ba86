"""Scores: what a model says, how likely it finds it, and what that means for forgetting.

Every score of one question is a number; a score of a set is the mean over its questions with a
95 % interval bootstrapped over people (`kvw_minimal.bootstrap`). Whatever gives such a number is
in `METRICS` under its name; more of them are in `kvw_minimal.benchmarks`.
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

#: every score of a question by its name
METRICS: dict[str, Callable] = {}


def metric(name: str) -> Callable[[Callable], Callable]:
    """A decorator that enters a score into `METRICS`.

    Raises:
        ValueError: there is another score of this name.
    """

    def enter(score: Callable) -> Callable:
        if METRICS.setdefault(name, score) is not score:
            raise ValueError(f"there are two scores of the name {name}")
        return score

    return enter


@dataclass
class TeacherForcedScores:
    """Teacher-forced scores, one entry a question.

    Attributes:
        exact: every token of the answer (and its end) is the most likely one; 0 or 1.
        logprob: sum of log-probabilities of the answer's tokens, <= 0.
        tokens: how many tokens that was.
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
    """Logits where an answer or its end is predicted, `[answer tokens, vocabulary]`.

    A model that can leave out the head elsewhere does so: it is a fifth of SmolLM2.
    """
    predicts, given = batch.predicts, batch.inputs
    if "logits_to_keep" not in signature(model.forward).parameters:
        return model(**given, use_cache=False).logits[predicts]
    columns = predicts.any(0).nonzero()[:, 0]
    logits = model(**given, use_cache=False, logits_to_keep=columns).logits  # [B, columns, words]
    return logits[predicts[:, columns]]


@torch.no_grad()
def read(model, batches: list[Batch]) -> TeacherForcedScores:
    """Let the model read questions with their answers and say how it would have gone on.

    Raises:
        ValueError: logits that are not finite.
    """
    count = sum(len(batch.rows) for batch in batches)
    exact, logprob, tokens = np.zeros(count), np.zeros(count), np.zeros(count)
    for batch in share(model, batches):
        batch = batch.to(next(model.parameters()).device)
        where, _ = batch.predicts.nonzero(as_tuple=True)
        said = logits_of_answers(model, batch).float()
        if not said.isfinite().all():
            raise ValueError("the model's logits are NaN or infinite")
        gold = batch.labels[:, 1:][batch.predicts[:, :-1]]  # [answer tokens]
        right = (said.argmax(-1) == gold).double()
        log = said.log_softmax(-1).gather(1, gold[:, None])[:, 0].double()
        ones, zeros = torch.ones_like(log), torch.zeros(len(batch.rows)).to(log)
        n = zeros.index_add(0, where, ones).cpu().numpy()
        exact[batch.rows] = zeros.index_add(0, where, right).cpu().numpy() == n
        logprob[batch.rows] = zeros.index_add(0, where, log).cpu().numpy()
        tokens[batch.rows] = n
    return TeacherForcedScores(exact, logprob, tokens)


def read_answers(
    model, processor, questions: list[Question], answers: list[str], batch_size: int = 64
) -> TeacherForcedScores:
    """`read` with other answers in place of the taught ones."""
    asked = [replace(q, answer=answer) for q, answer in zip(questions, answers, strict=True)]
    return read(model, answer_batches(processor, asked, batch_size))


@torch.no_grad()
def generate(model, batches: list[Batch], processor, new_tokens: int = 24) -> list[str]:
    """Greedy answers, decoded and stripped, in the order of the questions.

    Args:
        batches: from `prompt_batches`.
        new_tokens: at most so many tokens an answer.
    """
    answers = [""] * sum(len(batch.rows) for batch in batches)
    for batch in share(model, batches):
        inputs = batch.to(next(model.parameters()).device).inputs
        ids = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        new = ids[:, inputs["input_ids"].shape[1] :]
        said = tokenizer_of(processor).batch_decode(new, skip_special_tokens=True)
        for row, text in zip(batch.rows, said, strict=True):
            answers[row] = text.strip()
    return answers


def answer(
    model, processor, questions: list[Question], batch_size: int = 64, new_tokens: int = 24
) -> list[str]:
    """`generate` for a list of questions."""
    return generate(model, prompt_batches(processor, questions, batch_size), processor, new_tokens)


def normalised(text: str) -> str:
    """Lower case, one space between words, no punctuation; letters keep their accents."""
    text = unicodedata.normalize("NFC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]", " ", text).split())


@metric("same_answer")
def same_answer(said: str, gold: str) -> float:
    """1 if both are the same words, else 0.

    Raises:
        ValueError: the gold answer is empty: nothing said could be right.
    """
    if not normalised(gold):
        raise ValueError("an empty gold answer cannot be scored")
    return float(normalised(said) == normalised(gold))


@metric("mentions")
def mentions(said: str, gold: str) -> float:
    """1 if the gold words stand in the answer as whole words, else 0 (cloze, names)."""
    if not normalised(gold):
        raise ValueError("an empty gold answer cannot be scored")
    return float(f" {normalised(gold)} " in f" {normalised(said)} ")


def likeliest(likelihoods: np.ndarray, gold: int) -> float:
    """1 if the gold option is the likeliest, else 0; a tie is 0. Chance is one in the options.

    >>> likeliest(np.array([0.1, 0.4, 0.2]), 1), likeliest(np.array([0.4, 0.4]), 1)
    (1.0, 0.0)
    """
    return float((likelihoods >= likelihoods[gold]).sum() == 1)


@metric("choose_by_likelihood")
def choose_by_likelihood(model, processor, questions: list[Question]) -> np.ndarray:
    """`likeliest` of the four options, by the mean log-probability of their tokens."""
    asked = [q for q in questions for _ in q.options]
    options = [option for q in questions for option in q.options]
    told = read_answers(model, processor, asked, options)
    means = (told.logprob / told.tokens).reshape(len(questions), -1)  # [N, 4]
    return np.array(
        [
            likeliest(mean, q.options.index(q.answer))
            for mean, q in zip(means, questions, strict=True)
        ]
    )


@metric("well_formed")
def well_formed(said: str, answers: set[str]) -> float:
    """1 if an answer has the form of *some* answer to that question, right or wrong.

    Args:
        answers: normalised taught answers to the same kind of question, of anybody.
    """
    return float(normalised(said) in answers)
