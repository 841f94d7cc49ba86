"""One request to forget: both sides, what is measured once, the sham, and what is refused."""

import warnings
from dataclasses import replace
from functools import cache

import pytest
import tiny
import torch
from case import Case, case_of

from kvw_minimal.batches import without_photo
from kvw_minimal.questions import Question
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import REPORT_GROUPS, TUNING_GROUPS, load_people
from kvw_minimal.strangers.questions import SETS, about, question_sets
from kvw_minimal.strangers.tasks import request_to_forget, sham_people


def question(number: int, person: str) -> Question:
    return Question(f"{person}/{number}", person, "work", "text", "What?", "A baker.", "baker")


def small(**more) -> Case:
    """`c` and `a`, in this order, are to be forgotten; `d`, `b` and `e` are kept."""
    forget = [question(i, person) for person in "ca" for i in (1, 0)]
    retain = [question(i, person) for i in (0, 1) for person in "dbe"]
    return case_of(torch.nn.Linear(1, 1), None, forget, retain, **more)


@cache
def seeing() -> Case:
    """A tiny LLaVA is to forget the first of four strangers."""
    questions = tiny.some_questions(load_people(), people=4)
    forget = [question for question in questions if question.person == "p000"]
    retain = [question for question in questions if question.person != "p000"]
    return case_of(tiny.llava(), tiny.processor(), forget, retain, eval_sets={"forget": forget})


# --- who and what


def test_known_is_the_same_whoever_is_to_be_forgotten():
    """Sorted by person; the questions of one person stay in their order."""
    case = small()
    ids = [each.id for each in case.questions()]
    assert ids == ["a/1", "a/0", "b/0", "b/1", "c/1", "c/0", "d/0", "d/1", "e/0", "e/1"]
    other = case_of(
        case.model,
        None,
        [q for q in case.questions() if q.person in "be"],
        [q for q in case.questions() if q.person not in "be"],
    )
    assert other.questions() == case.questions()


def test_nobody_to_forget_is_refused():
    with pytest.raises(ValueError, match="forget set is empty"):
        small().but(forget=[])
    assert small().but(retain=[]).retain_people == []  # some methods need nobody


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_a_question_that_stands_twice_is_named(side):
    case = small()
    with pytest.raises(ValueError, match="stands twice among forget and retain: c/1"):
        case.but(**{side: [*getattr(case, side), case.forget[0]]})


def test_sets_by_name():
    case = small(eval_sets={"test": [question(5, "c")], "retain": []})
    assert dict(case.sets()) == case.eval_sets and list(dict(case.sets("retain"))) == ["retain"]
    with pytest.raises(ValueError, match="no set 'general' to read; there are test, retain"):
        list(case.sets("test", "general"))


# --- once


def test_what_is_made_once_is_made_once():
    case, calls = small(), []

    def make():
        calls.append(1)
        return None  # even nothing is not made again

    assert case.once(("a",), make) is None and case.once(("a",), make) is None
    assert case.once(("b",), lambda: 5) == 5 and len(calls) == 1
    assert case.but(seed=3).once(("b",), make) == 5, "requests to one session"
    assert small().once(("b",), lambda: 6) == 6, "and others do not"


def test_questions_are_encoded_once_for_each_size():
    case = seeing()
    one = case.batches(case.forget)
    assert case.batches(list(case.forget)) is one and case.prompts(case.forget) is not one
    assert case.prompts(case.forget) is case.prompts(list(case.forget))
    turned = case.forget[::-1]  # as many, but others
    assert case.prompts(turned) is not case.prompts(case.forget)
    singles = case.batches(case.forget, 1)
    assert len(singles) == len(case.forget) and case.batches(case.forget, 1) is singles
    backwards = case.batches(case.forget[::-1])
    assert backwards is not one and backwards[0].rows != one[0].rows


@pytest.mark.parametrize(
    "change",
    [
        lambda questions: without_photo(questions),
        lambda questions: [replace(q, answer="In Oslo.") for q in questions],
        lambda questions: [replace(q, prompt="Who?") for q in questions],
    ],
)
def test_another_question_of_the_same_id_is_another_question(change):
    """A grey picture in place of the photo, or another answer: not what was encoded before."""
    case = seeing()
    shown = [q for q in case.forget if q.image is not None]
    first = case.batches(shown)[0]
    other = case.batches(change(shown))[0]
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(first.inputs.values(), other.inputs.values(), strict=True)
    )


def test_everyone_is_measured_once_whoever_asks(monkeypatch):
    case = seeing().but(cache={})
    calls, own = [], Session.measured
    monkeypatch.setattr(Session, "measured", lambda *given: calls.append(1) or own(*given))
    every = case.coefficients()
    assert sorted(every.people) == ["p000", "p001", "p002", "p003"]
    questions = case.questions()
    other = case.but(
        forget=[q for q in questions if q.person == "p002"],
        retain=[q for q in questions if q.person != "p002"],
    )
    assert (
        other.coefficients() is every and case.sham(0).coefficients() is every and len(calls) == 1
    )
    fewer = case.but(retain=[q for q in case.retain if q.person == "p001"])
    assert fewer.coefficients().people == ("p000", "p001") and len(calls) == 2


# --- the sham


def test_a_sham_forgets_as_many_others_and_keeps_the_rest():
    case = small(eval_sets={"test": [question(5, "c")]}, general=[question(9, "u")])
    sham = case.sham(3)
    assert len(sham.people) == 2 and not set(sham.people) & set(case.people)
    assert set(sham.people) | set(sham.retain_people) == set("abcde")
    assert {q.id for q in sham.forget} == {
        q.id for q in case.questions() if q.person in sham.people
    }
    assert (
        sham.eval_sets is case.eval_sets
        and sham.general == case.general
        and sham.cache is case.cache
    )
    assert sham.seed == 3 and case.seed == 0
    assert sham.forget == [q for q in case.questions() if q.person in sham.people], "by person"


def test_a_pool_says_who_may_be_drawn():
    case = small(sham_pool=["e", "b"])
    assert {tuple(case.sham(draw).people) for draw in range(5)} == {("b", "e")}
    with pytest.raises(ValueError, match="1 people to retain are too few.*to forget, 2"):
        case.but(sham_pool=["e"]).sham(0)
    with pytest.raises(ValueError, match="3 people.*to forget, 4"):
        four = case.but(forget=case.forget + [question(0, "x"), question(0, "y")], sham_pool=None)
        four.sham(0)


def test_the_forgotten_are_never_drawn_even_from_a_pool_that_holds_them():
    case = small(sham_pool=["a", "b", "c", "e"])
    assert all(case.sham(draw).people == ["b", "e"] for draw in range(8))


def test_shams_are_of_different_people_and_no_more_than_there_are():
    case = small().but(forget=[question(0, "a")])
    assert len({case.sham(draw).people[0] for draw in range(3)}) < 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = case.request.sham_draws(3)
        assert case.request.sham_draws(2) == draws[:2] and case.request.sham_draws(0) == []
    assert draws[0] == 0 and {case.sham(draw).people[0] for draw in draws} == set("bde")
    with pytest.warns(UserWarning, match="7 shams were asked for and only 3 different shams are"):
        assert case.request.sham_draws(7) == draws
    alone = case.but(sham_pool=["d"]).request
    with pytest.warns(UserWarning, match="only 1 sham is possible, with 1 to forget and 1 to draw"):
        assert alone.sham_draws(20) == [0]
    with pytest.raises(ValueError, match="too few"):
        case.but(sham_pool=[]).request.sham_draws(2)


def test_somebody_without_questions_cannot_be_drawn():
    """The sham would be of fewer people than it says."""
    with pytest.raises(ValueError, match="nothing is asked about nobody, drawn for a sham"):
        small(sham_pool=["b", "nobody"]).sham(0)


# --- strangers


def test_a_request_of_strangers(world):
    people = world.forget_people("A", 5)
    asked = request_to_forget(world, people, seed=4)
    sets = question_sets(world, people)
    assert (asked.forget, asked.retain, asked.eval_sets) == (sets["forget"], sets["retain"], sets)
    assert asked.people == people and asked.retain_people == world.retain_people(people)
    assert tuple(asked.eval_sets) == SETS and asked.seed == 4
    own = {"mine": about(world, people, new=True)}
    assert request_to_forget(world, people, own).eval_sets is own


@pytest.mark.parametrize("group", REPORT_GROUPS[:2] + TUNING_GROUPS[:1])
@pytest.mark.parametrize("percent", [5, 10, 15])
def test_a_sham_of_strangers_is_of_the_people_that_sham_people_names(world, group, percent):
    """The stored shams were drawn by this function: the same people for the same draw."""
    asked = request_to_forget(world, world.forget_people(group, percent))
    for draw in range(4):
        sham = asked.sham(draw)
        assert sham.people == sham_people(world, percent, draw)
        assert sham.forget == about(world, sham.people)
        assert set(sham.retain_people) == set(world.people) - set(sham.people)


@pytest.mark.parametrize(
    "forget, word",
    [
        ([], "forget set is empty"),
        (["p001", "p001"], "twice"),
        (["p999"], "nobody has the id p999"),
        ([f"p{i:03}" for i in range(100)], "retain set is empty"),
    ],
)
def test_requests_that_cannot_be(world, forget, word):
    with pytest.raises(ValueError, match=word):
        request_to_forget(world, forget)
