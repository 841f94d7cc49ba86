"""Every metric on cases worked out by hand, and on the traps that public code fell into."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import vectors
from torch import nn

from kvw_minimal import scores
from kvw_minimal.batches import IGNORED, Batch, answer_batches
from kvw_minimal.benchmarks import truth_ratios
from kvw_minimal.benchmarks.truth_ratios import (
    among_values,
    forget_score,
    model_utility,
    truth_ratio,
)
from kvw_minimal.bootstrap import DRAWS, interval
from kvw_minimal.questions import Question
from kvw_minimal.scores import (
    TeacherForcedScores,
    answer,
    choose_by_likelihood,
    mentions,
    metric,
    normalised,
    read,
    read_answers,
    same_answer,
    well_formed,
)
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about

# --- words


@pytest.mark.parametrize(
    "said, gold",
    [
        ("In Lisbon.", "in lisbon"),
        ("  In   Lisbon ", "In Lisbon."),
        ("José", "JOSÉ."),
        ("Jose\u0301", "José"),
        ("STRASSE", "straße"),
        ("It's so", "it s so"),
    ],
)
def test_same_answer(said, gold):
    assert same_answer(said, gold) == 1.0


@pytest.mark.parametrize(
    "said, gold",
    [
        ("Jos", "José"),
        ("José", "Jos"),
        ("Jose", "José"),
        ("", "José"),
        ("In Oslo.", "In Lisbon."),
        ("Lisbon", "In Lisbon."),
        ("In Lisbon, in Oslo.", "In Lisbon."),
        ("InLisbon", "In Lisbon"),
        ("...", "In Lisbon."),
    ],
)
def test_another_answer(said, gold):
    assert same_answer(said, gold) == 0.0


@pytest.mark.parametrize(
    "said, gold, expected",
    [
        ("This is José Vik.", "José Vik", 1),
        ("This is José Vik.", "Jos", 0),
        ("Joséphine", "José", 0),
        ("a catalogue", "cat", 0),
        ("A cat, I think", "cat", 1),
        ("José met Vik", "José Vik", 0),
        ("", "cat", 0),
        ("cat", "cat", 1),
        ("東京", "東京", 1),
    ],
)
def test_mentions_are_whole_words(said, gold, expected):
    assert mentions(said, gold) == expected


@pytest.mark.parametrize("score", [same_answer, mentions])
@pytest.mark.parametrize("gold", ["", " ", ".", "?!", "\n"])
def test_an_empty_gold_answer_is_an_error(score, gold):
    for said in ("", "anything"):
        with pytest.raises(ValueError, match="empty gold"):
            score(said, gold)


def test_normalised_keeps_letters_and_drops_the_rest():
    assert normalised("  Ça va,\tJosé-Luis?! 3.5 ") == "ça va josé luis 3 5"


def test_well_formed_is_right_or_wrong_but_an_answer():
    answers = {normalised(f"In {city}.") for city in ("Lisbon", "Oslo")}
    assert well_formed("In Oslo.", answers) == 1
    assert well_formed("in lisbon", answers) == 1
    for said in ("In In In", "", "A pet cat.", "In Oslo. In Oslo."):
        assert well_formed(said, answers) == 0


# --- the list of all of them


# --- the list of all of them


def test_two_scores_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(scores, "METRICS", {})
    assert metric("mine")(mentions) is metric("mine")(mentions) is mentions
    with pytest.raises(ValueError, match="two scores of the name mine"):
        metric("mine")(same_answer)


# --- teacher forcing


class Bigram(nn.Module):
    """A model whose next token depends on the last one by a table of probabilities."""

    def __init__(self, table: list[list[float]]):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table).log(), requires_grad=False)

    def forward(self, input_ids, attention_mask, use_cache):
        assert use_cache is False
        return SimpleNamespace(logits=self.table[input_ids])


TABLE = [[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.1, 0.7]]


def batch_of(rows: list[list[int]], answers: list[int], numbers: list[int]) -> Batch:
    """Right-padded ids; the last `answers[i]` tokens of row i are its answer."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, (row, count) in enumerate(zip(rows, answers, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, len(row) - count : len(row)] = torch.tensor(row[-count:])
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, numbers)


def test_read_by_hand():
    batches = [batch_of([[0, 1, 0], [2, 2, 2, 2]], [2, 1], [2, 0]), batch_of([[0, 2, 1]], [2], [1])]
    forced = read(Bigram(TABLE), batches)
    # question 0: 2 -> 2 (.7); question 1: 0 -> 2 -> 1 (.3, .1); question 2: 0 -> 1 -> 0 (.6, .5)
    assert forced.exact.tolist() == [1, 0, 1]
    assert forced.tokens.tolist() == [1, 2, 2]
    assert np.exp(forced.logprob) == pytest.approx([0.7, 0.03, 0.3])
    assert forced.probability == pytest.approx([0.7, math.sqrt(0.03), math.sqrt(0.3)])


def test_one_wrong_token_is_not_exact():
    """Both orders: wrong first then right, right first then wrong."""
    forced = read(Bigram(TABLE), [batch_of([[0, 2, 2], [0, 1, 1]], [2, 2], [0, 1])])
    assert forced.exact.tolist() == [0, 0]
    assert np.exp(forced.logprob) == pytest.approx([0.3 * 0.7, 0.6 * 0.3])


def test_logits_that_are_not_finite_are_an_error():
    broken = Bigram(TABLE)
    broken.table[1, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        read(broken, [batch_of([[0, 1, 0]], [2], [0])])


def test_log_probabilities_of_half_precision_are_taken_in_float32():
    half = Bigram(TABLE).bfloat16()
    log = half.table.float().log_softmax(-1)
    forced = read(half, [batch_of([[0, 2, 1]], [2], [0])])
    assert forced.logprob[0] == pytest.approx(float(log[0, 2] + log[2, 1]), abs=1e-6)


@pytest.fixture(scope="module")
def asked():
    """The tiny committed model, and what is asked about two people: it knows some of that."""
    return *vectors.tiny(), about(vectors.world(), list(vectors.world().people)[:2])


def test_teacher_forcing_is_greedy_generation(asked):
    """If every token is the likeliest given the ones before it, greedy decoding says them all."""
    said, forced = answer(*asked), read(asked[0], answer_batches(*asked[1:]))
    equal = [s == q.answer for s, q in zip(said, asked[2], strict=True)]
    assert forced.exact.tolist() == equal and {*equal} == {True, False}
    assert forced.probability[forced.exact > 0].min() > 0.5


def test_answers_do_not_depend_on_their_neighbours(asked):
    model, processor, questions = *asked[:2], asked[2][::4]
    together = answer(model, processor, questions, batch_size=64)
    assert together == [answer(model, processor, [q])[0] for q in questions]
    forced = read(model, answer_batches(processor, questions, batch_size=64))
    alone = read(model, answer_batches(processor, questions, batch_size=1))
    assert forced.exact.tolist() == alone.exact.tolist()
    assert forced.logprob == pytest.approx(alone.logprob, rel=1e-4, abs=1e-4)


def test_answers_are_not_drawn():
    """Of a model that is not sure of anything, whatever the state of the random numbers."""
    known = tiny.some_questions(load_people(), people=1)[:4]
    model, said = tiny.llava(seed=1), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        said.append(answer(model, tiny.processor(), known, new_tokens=6))
    assert said[0] == said[1]


def test_read_answers_reads_the_other_answer(asked):
    known = [q for q, own in zip(asked[2], answer(*asked), strict=True) if own == q.answer]
    other = read_answers(*asked[:2], known, [q.options[0] for q in known])
    assert other.exact.tolist() == [float(q.options[0] == q.answer) for q in known]
    assert 0 < other.exact.sum() < len(known)
    with pytest.raises(ValueError):
        read_answers(*asked[:2], known, ["too few"])


# --- choice and truth ratio, on probabilities given by hand


def table_of_probabilities(monkeypatch, table: dict[str, float]):
    """Let `read_answers` find each answer as likely as the table says, with two tokens each."""

    def fake(model, processor, questions, answers, batch_size=64):
        logprob = np.array([2 * math.log(table[said]) for said in answers])
        return TeacherForcedScores(np.zeros(len(answers)), logprob, np.full(len(answers), 2.0))

    for module in (scores, truth_ratios):
        monkeypatch.setattr(module, "read_answers", fake)


def chosen(right: str) -> Question:
    return Question("q", "p", "f", "text", "?", right, right, options=("a", "b", "c", "d"))


def test_a_tie_is_wrong(monkeypatch):
    table_of_probabilities(monkeypatch, {"a": 0.4, "b": 0.4, "c": 0.1, "d": 0.1})
    assert choose_by_likelihood(None, None, [chosen(x) for x in "abcd"]).tolist() == [0] * 4


def test_truth_ratio_by_hand(monkeypatch):
    table_of_probabilities(monkeypatch, {"t": 0.5, "x": 0.1, "y": 0.2, "z": 0.3, "u": 0.05})
    question = Question(
        "q", "p", "f", "text", "?", "t", "t", paraphrase="t", perturbed=("x", "y", "z")
    )
    other = replace(question, paraphrase="u")
    ratios = truth_ratio(None, None, [question, other])
    assert ratios == pytest.approx([0.2 / 0.5, 0.2 / 0.05])
    assert forget_score(ratios) == pytest.approx([0.4, 0.25])
    assert forget_score(np.array([1.0])) == 1.0


def test_among_the_values_of_a_fact_by_hand(monkeypatch):
    """The true one is neither the likeliest nor the least likely; then all are alike."""
    table_of_probabilities(
        monkeypatch, {"In-a": 0.4**0.5, "In-b": 0.2**0.5, "In-c": 0.1**0.5, "In-d": 0.1**0.5}
    )
    question = Question("q", "p", "f", "text", "?", "In-b", "b")
    last = replace(question, answer="In-c", value="c")
    found = among_values(None, None, [question, last], {"f": ["a", "b", "c", "d"]})
    assert found["p_true"] == pytest.approx([0.25, 0.125])
    assert found["rank"] == pytest.approx([1 / 3, 2 / 3])  # what is alike is not likelier
    p = np.array([0.5, 0.25, 0.125, 0.125])
    assert found["entropy"] == pytest.approx([-(p * np.log(p)).sum() / np.log(4)] * 2)
    table_of_probabilities(monkeypatch, dict.fromkeys(("In-a", "In-b", "In-c", "In-d"), 0.1))
    found = among_values(None, None, [last], {"f": ["a", "b", "c", "d"]})
    assert [found[name].item() for name in ("p_true", "rank", "entropy")] == pytest.approx(
        [0.25, 0, 1]
    )


# --- sets


@pytest.mark.parametrize("values", [[], [0.5, -0.1], [0.5, float("nan")], [float("nan"), 0.5]])
def test_model_utility_of_nothing_sensible_is_an_error(values):
    with pytest.raises(ValueError):
        model_utility(values)


# --- intervals


def test_the_interval_is_that_of_a_plain_loop():
    rng = np.random.default_rng(3)
    people = ["a"] * 3 + ["b"] * 7 + ["c"] * 1 + ["d"] * 4
    values = rng.random(len(people))
    of = {name: [v for v, p in zip(values, people, strict=True) if p == name] for name in "abcd"}
    draws = np.random.default_rng(11).integers(4, size=(DRAWS, 4))
    means = []
    for draw in draws:
        pooled = [value for i in draw for value in of["abcd"[i]]]
        means.append(sum(pooled) / len(pooled))
    mean, low, high = interval(values, people, seed=11)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


@pytest.mark.parametrize(
    "values, people",
    [
        ([], []),
        ([1.0], ["a", "b"]),
        ([1.0, 2.0], ["a"]),
        ([float("nan")], ["a"]),
        ([1.0, float("inf")], ["a", "b"]),
    ],
)
def test_an_interval_of_nothing_is_an_error(values, people):
    with pytest.raises(ValueError, match="one finite value and one person"):
        interval(np.array(values), people)
