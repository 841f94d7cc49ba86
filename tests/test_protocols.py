"""The protocols of MLLMU-Bench and CLEAR: metrics by hand and by library, and each known trap."""

import doctest
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.metrics import accuracy_score

from kvw_minimal import scores
from kvw_minimal.batches import render, without_photo
from kvw_minimal.benchmarks import multiple_choice, protocols, truth_ratios
from kvw_minimal.benchmarks.loaders import NAME_PROMPT
from kvw_minimal.benchmarks.multiple_choice import (
    choice,
    letter_question,
    parse_choice,
    parse_letter,
)
from kvw_minimal.benchmarks.protocols import (
    NEW_TOKENS,
    answer_probabilities,
    clear_forget_quality,
    evaluation_question,
    nameless,
    options_probability,
    pick,
    rouge_l,
    score_clear,
    score_mllmu,
    truth_score,
    utility,
)
from kvw_minimal.benchmarks.truth_ratios import truth_ratio_of
from kvw_minimal.questions import Question
from kvw_minimal.results import score_rows, summarise
from kvw_minimal.scores import likeliest
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import load_people

WORLD = load_people()
PHOTO = WORLD.people["p000"].photos[0]
CITIES = ("Oslo", "Lima", "Cairo", "Rome")


def question(
    fact: str, modality: str = "text", answer: str = "Lima", person: str = "Ann Lee", **more
) -> Question:
    fields = {"id": f"{person}/{fact}/{modality}/{answer}", "value": answer, "prompt": "Where?"}
    fields["image"] = PHOTO if modality == "image" else None
    return Question(person=person, fact=fact, modality=modality, answer=answer, **fields | more)


@pytest.fixture(scope="module")
def model():
    return tiny.llava()


class Spoken:
    """Stands in for `scores.answer`: says what it is told to and remembers what it was asked."""

    def __init__(self, monkeypatch, saying):
        self.saying, self.asked = saying, []
        monkeypatch.setattr(protocols, "answer", self)

    def __call__(self, model, processor, questions, batch_size, new_tokens):
        assert new_tokens == NEW_TOKENS == 50
        self.asked += questions
        return [self.saying(each) for each in questions]


def likelihood(monkeypatch, probability_of) -> list:
    """Stands in for `scores.read_answers`; returns the list of what is read."""
    heard = []

    def read_answers(model, processor, questions, answers, batch_size):
        heard.extend(zip(questions, answers, strict=True))
        pairs = zip(questions, answers, strict=True)
        return SimpleNamespace(probability=np.array([probability_of(q, a) for q, a in pairs]))

    monkeypatch.setattr(protocols, "read_answers", read_answers)
    return heard


def values(measured, name, modality, metric) -> list[float]:
    return [row["score_sum"] for row in pick(measured, name, modality, metric)]


def means_of(rows: list[dict]) -> list[dict]:
    return summarise(row | {"condition": "vanilla"} for row in rows)


# --- metrics


def test_the_worked_examples_in_the_docstrings_are_right():
    found = [doctest.testmod(module) for module in (protocols, multiple_choice, scores)]
    assert sum(each.failed for each in found) == 0
    assert sum(each.attempted for each in found) >= 20 and all(each.attempted for each in found)


# --- ROUGE


def test_rouge_l_stems_and_is_that_of_rouge_score():
    assert rouge_l("He plays guitars", "He played guitar") == 1.0
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    cases = [("In Lisbon.", "In Oslo."), ("", "In Oslo."), ("a b c d", "d c b a")]
    for said, gold in cases:
        expected = scorer.score(target=gold, prediction=said)["rougeL"]
        assert rouge_l(said, gold) == expected.fmeasure
        assert rouge_l(said, gold, "recall") == expected.recall
    assert rouge_l("", "In Oslo.") == 0.0


# --- letters


@pytest.mark.parametrize(
    "said, letter",
    [
        # benchmarks: a first character is no letter, a blank answer is none
        ("Correct answer: C", "C"),
        ("Based on the picture", None),
        ("A man in a hat", None),
        ("", None),
        (" ", None),
        # emphasis
        ("**C**", "C"),
        ("Answer: **B**", "B"),
        ("**Answer:** B", "B"),
        ("__D__", "D"),
        ("`A`", "A"),
        ("*A* man", None),
        ("**A.** In Lisbon.", "A"),
        ("**", None),
        # the article, with a capital
        ("The answer is A man in a hat", None),
        ("Answer: A plate of ramen.", None),
        ("The correct option is A man.", None),
        ("The answer is **A man**", None),
        # and the letter before a small word
        ("Option A is right.", "A"),
        ("Option A shows it", "A"),
        ("choice A fits", "A"),
        ("The answer is A because of the hat", "A"),
        ("The answer is A, a man in a hat", "A"),
        ("The answer is A.", "A"),
        ("The answer is B man", "B"),
        ("(b)", "B"),
        ("(C) In Riga.", "C"),
        ("Option B is wrong, the answer is C.", "C"),
        ("As a baker.", None),
        ("BD", None),
        ("1", None),
        ("A", "A"),
    ],
)
def test_letters_are_read_in_what_models_write(said, letter):
    assert parse_letter(said) == letter


def test_a_choice_is_right_by_letter_and_where_options_stand_by_words():
    asked = question("classification", options=CITIES)
    for said, right in (("B", 1), ("**B**", 1), ("A", 0), ("", 0), ("E", 0)):
        assert choice(said, asked) == choice(said, letter_question(asked)) == right
    assert (choice("Lima", asked), choice("Lima", letter_question(asked))) == (1, 0)
    assert choice("", replace(letter_question(asked), answer="None")) == 0


@pytest.mark.parametrize(
    "said, expected",
    [
        ("B", 1),
        ("b", 1),
        ("(C)", 2),
        ("Answer: D", 3),
        ("B. Lima", 1),
        ("It is Cairo.", 2),
        ("", None),
        ("A man in Peru", None),
        ("Based on the photo", None),
        ("Oslo or Lima", None),
        ("E", None),
        ("Romeo", None),
        ("Correct answer: C", 2),
        ("I do not know", None),
    ],
)
def test_parse_choice(said, expected):
    assert parse_choice(said, CITIES) == expected


def test_a_name_within_a_name_and_an_accent_are_kept_apart():
    assert parse_choice("José", ("Jos", "José", "Jose")) == 1
    assert parse_choice("Jos", ("Jos", "José", "Jose")) == 0
    assert parse_choice("Ann Lee Vik", ("Ann Lee", "Ann Lee Vik")) == 1


def test_likelihood_metrics_by_hand():
    p = np.array([0.2, 0.5, 0.2, 0.1])
    assert likeliest(p, 1) == 1 and likeliest(p, 0) == 0
    assert likeliest(np.array([0.3, 0.3]), 0) == 0  # a tie is not knowing
    assert options_probability(p, 1) == pytest.approx(0.5)
    assert options_probability(np.array([0.1, 0.1, 0.1, 0.1]), 2) == pytest.approx(1 / 4)
    assert truth_ratio_of(0.5, np.array([0.1, 0.2, 0.3])) == pytest.approx(0.4)
    assert truth_score(np.array([0.0, 0.4, 1.0, 3.0])).tolist() == [1.0, 0.6, 0.0, 0.0]


def test_probabilities_agree_with_the_scores_of_the_book(model):
    world, session = tiny.some_questions(WORLD)[::3], Session(model, tiny.processor(), 4)
    options = [q.options for q in world]
    p = answer_probabilities(session, world, options)
    ours = [likeliest(each, q.options.index(q.answer)) for each, q in zip(p, world, strict=True)]
    theirs = scores.choose_by_likelihood(model, tiny.processor(), world)
    assert ours == theirs.tolist()
    told = [(q.paraphrase, *q.perturbed) for q in world]
    p = answer_probabilities(session, world, told)
    ratios = [truth_ratio_of(each[0], each[1:]) for each in p]
    np.testing.assert_allclose(
        ratios, truth_ratios.truth_ratio(model, tiny.processor(), world), 1e-4
    )


def test_questions_with_different_numbers_of_options_do_not_mix(monkeypatch):
    likelihood(monkeypatch, lambda q, a: float(a))
    asked = [question("name"), question("caption"), question("question")]
    told = [("0.1",), ("0.2", "0.3", "0.4"), ("0.5", "0.6")]
    for batch_size in (1, 8):
        p = answer_probabilities(Session(None, None, batch_size), asked, told)
        assert [each.tolist() for each in p] == [[float(a) for a in given] for given in told]
    with pytest.raises(ValueError, match="Ann Lee/name"):
        answer_probabilities(Session(None), asked[:1], [()])


# --- MLLMU-Bench


def test_mllmu_by_hand_and_by_library(monkeypatch, model):
    people = ("Ann Lee", "Bo Ray", "Cy Dee", "Di Eel")
    said = dict(zip(people, ("Correct answer: B", "A man in Lima", "", "C"), strict=True))
    Spoken(monkeypatch, lambda q: said[q.person])
    likelihood(monkeypatch, lambda q, a: 0.5 if a == "Lima" else 0.1 + (q.person == "Di Eel"))
    kinds = ("classification", "generation", "cloze")
    asked = [
        question(
            kind,
            person=person,
            options=CITIES * (kind == kinds[0]),
            form="cloze" if kind == "cloze" else "question",
        )
        for kind in kinds
        for person in people
    ]
    found = score_mllmu(Session(model), "forget", asked)
    assert values(found, "forget", "text", "choice") == [1, 0, 0, 0]
    assert values(found, "forget", "text", "choice_likelihood") == [1, 1, 1, 0]
    assert values(found, "forget", "text", "cloze") == [0, 1, 0, 0]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    expected = [scorer.score("Lima", text)["rougeL"].fmeasure for text in said.values()]
    assert values(found, "forget", "text", "rouge_l") == expected
    assert expected[1] == pytest.approx(0.4)  # one of 4 words and of 1: 2 * .25 * 1 / 1.25
    rows = {row["metric"]: row for row in means_of(found)}
    assert rows["choice"]["value"] == accuracy_score(["B"] * 4, ["B", "-", "-", "C"])
    # "A man" is no letter and neither is silence; the others only count silence
    assert {m: row["unparsable"] for m, row in rows.items()} == {
        "choice": 2,
        "choice_likelihood": 0,
        "rouge_l": 1,
        "cloze": 1,
    }
    assert {row["n"] for row in rows.values()} == {4}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())


def test_mllmu_asks_as_the_benchmark_does_and_without_examples(monkeypatch, model):
    spoken = Spoken(monkeypatch, lambda q: "B")
    heard = likelihood(monkeypatch, lambda q, a: 0.5)
    asked = [
        question("classification", options=CITIES),
        question("cloze", form="cloze"),
        question("generation", answer="In Lima."),
    ]
    score_mllmu(Session(model), "forget", asked)
    assert [q.prompt for q in spoken.asked] == [
        evaluation_question(q).prompt for q in (asked[0], asked[2], asked[1])
    ]
    assert spoken.asked[0].prompt.endswith("Just give ONE letter representing the answer directly.")
    assert [answer for _, answer in heard] == list(CITIES)
    assert {q.prompt for q, _ in heard} == {"Where?"}  # no letters beside the likelihood
    for each in spoken.asked:  # one turn, and the answer is not in it unless it is an option
        prompt, _ = render(tiny.processor(), each)
        assert prompt.count("<user>") == prompt.count("<assistant>") == 1
        assert "In Lima." not in prompt


# --- the picture


def test_image_questions_are_asked_with_the_photo_and_with_a_blank_one(monkeypatch, model):
    spoken = Spoken(monkeypatch, lambda q: "Lima" if q.image == PHOTO else "Oslo")
    likelihood(monkeypatch, lambda q, a: float(q.image == PHOTO and a == "Lima") + 0.1)
    asked = [
        question(kind, "image", options=CITIES * (kind == "classification"))
        for kind in ("classification", "generation", "cloze")
    ]
    found = score_mllmu(Session(model), "forget", asked + [question("generation")])
    for metric in ("choice_likelihood", "rouge_l", "cloze"):
        assert values(found, "forget", "image", metric) == [1.0]
        assert values(found, "forget", "blank image", metric) == [0.0]
    found = score_clear(Session(model), "forget", [question("name", "image")])
    assert values(found, "forget", "image", "name_accuracy") == [1.0]
    assert values(found, "forget", "blank image", "name_accuracy") == [0.0]
    image = [each for each in spoken.asked if each.modality == "image"]
    assert len(image) == 8 and all(each.image for each in image)
    blank = without_photo(image[:1])[0].image
    assert {each.image for each in image} == {PHOTO, blank}


# --- CLEAR


def test_clear_by_hand(monkeypatch, model):
    caption = "This is Ann Lee, who was born in Lima."
    lies = {
        "paraphrase": "Ann Lee is from Lima.",
        "perturbed": ("Ann Lee is from Oslo.", "Lee is from Rome."),
    }
    names = ("Bo Ray", "Ann Lee", "José Vik")
    asked = [
        question("name", "image", "Ann Lee", prompt=NAME_PROMPT, options=names),
        question("caption", "image", caption, **lies),
        question("question"),
    ]
    spoken = Spoken(monkeypatch, lambda q: "B" if "\nB. " in q.prompt else "Ann Lee, from Lima")
    likely = {"Ann Lee": 0.4, "Lima": 0.3, "this person is from Lima.": 0.5}
    heard = likelihood(monkeypatch, lambda q, a: likely.get(a, 0.1))
    found = score_clear(Session(model), "forget", asked)
    assert values(found, "forget", "image", "name_accuracy") == [1]
    assert values(found, "forget", "image", "name_choice") == [1]
    assert values(found, "forget", "image", "name_probability") == [0.4]
    assert values(found, "forget", "image", "name_options_probability") == [
        pytest.approx(0.4 / 0.6)
    ]
    assert values(found, "forget", "image", "caption_truth_ratio") == [pytest.approx(0.1 / 0.5)]
    assert values(found, "forget", "image", "caption_forget_score") == [pytest.approx(0.2)]
    assert values(found, "forget", "image", "caption_truth_score") == [pytest.approx(0.8)]
    assert values(found, "forget", "text", "question_probability") == [0.3]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    recall = scorer.score(caption, "Ann Lee, from Lima")["rougeL"].recall
    assert values(found, "forget", "image", "caption_rouge_l_recall") == [recall]
    assert recall == pytest.approx(3 / 9)  # three of the nine words, in order
    assert f"{NAME_PROMPT}\nA. Bo Ray\nB. Ann Lee\nC. José Vik" in [q.prompt for q in spoken.asked]
    # what is read with its answer must not hold the name, unless the name is what is asked
    leaks = [a for q, a in heard if q.fact == "caption" and q.modality == "image" and "Lee" in a]
    assert leaks == []


def test_nameless():
    told = question(
        "caption",
        answer="Ann van Lee, or Ann, rides a van. Lee's annex.",
        person="Ann van Lee",
        paraphrase="Lee",
        perturbed=("Leeds",),
    )
    hidden = nameless(told)
    assert hidden.answer == "this person, or this person, rides a van. this person's annex."
    assert (hidden.paraphrase, hidden.perturbed) == ("this person", ("Leeds",))
    assert nameless(question("caption", answer="José saw Jos", person="Jos")).answer == (
        "José saw this person"
    )


def measured(name, modality, metric, numbers, people=None) -> list[dict]:
    people = people or [f"person {i}" for i in range(len(numbers))]
    asked = [question("generation", person=person) for person in people]
    unparsable = [False] * len(asked)
    return score_rows(name, asked, {metric: numbers}, unparsable, modality=modality)


def test_utility_by_hand_and_by_library():
    parts = (("retain", "image", "a"), ("real_faces", "image", "b"))
    first = measured(*parts[0], [0.25, 0.5, 0.75])
    known = first + measured(*parts[1], [0.5, 0.75, 1.0])
    row = utility("vanilla", known, parts)
    assert row["value"] == pytest.approx(0.6) and row["zero"] == []  # 2 / (1 / .5 + 1 / .75)
    assert row["value"] == pytest.approx(stats.hmean([0.5, 0.75]))
    # one draw in 27 is all of one person, in both parts: 1 / 3 and 6 / 7
    assert (row["low"], row["high"]) == pytest.approx((1 / 3, 6 / 7), abs=1e-4)
    assert row["n"] == 6
    lost = first + measured(*parts[1], [0.0, 0.0, 0.0])
    row = utility("edited", lost, parts)
    assert (row["value"], row["low"], row["high"]) == (0, 0, 0)
    assert row["zero"] == ["real_faces image b"]
    with pytest.raises(KeyError, match="real_faces"):
        utility("vanilla", first, parts)


def test_forget_quality_is_that_of_scipy():
    rng = np.random.default_rng(0)
    key = ("forget", "image", "caption_truth_ratio")
    ours, theirs = rng.gamma(2, 1, 40), rng.gamma(4, 1, 30)
    found = clear_forget_quality(measured(*key, ours), measured(*key, theirs))
    expected = stats.ks_2samp(ours, theirs)
    assert found["log10_p"] == pytest.approx(math.log10(expected.pvalue))
    assert (found["statistic"], found["n"]) == (expected.statistic, 40)
    itself = clear_forget_quality(measured(*key, ours), measured(*key, ours[::-1]))
    assert (itself["log10_p"], itself["statistic"]) == (0, 0)  # whatever the order of the rows
