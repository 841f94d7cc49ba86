"""One request to forget: both sides, what is measured once, the sham, and what is refused."""

from dataclasses import replace
from functools import cache

import pytest
import tiny
import torch

from kvw_minimal.batches import without_photo
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import REPORT_GROUPS, TUNING_GROUPS, load_people
from kvw_minimal.strangers.questions import SETS, about, question_sets
from kvw_minimal.strangers.tasks import request, sham_people
from kvw_minimal.task import Task


def question(number: int, person: str) -> Question:
    return Question(f"{person}/{number}", person, "work", "text", "What?", "A baker.", "baker")


def small(**more) -> Task:
    """`c` and `a`, in this order, are to be forgotten; `d`, `b` and `e` are kept."""
    forget = [question(i, person) for person in "ca" for i in (1, 0)]
    retain = [question(i, person) for i in (0, 1) for person in "dbe"]
    return Task(torch.nn.Linear(1, 1), None, forget, retain, **more)


@cache
def seeing() -> Task:
    """A tiny LLaVA is to forget the first of four strangers."""
    questions = tiny.some_questions(load_people(), people=4)
    forget = [question for question in questions if question.person == "p000"]
    retain = [question for question in questions if question.person != "p000"]
    return Task(tiny.llava(), tiny.processor(), forget, retain, read={"forget": forget})


# --- who and what


def test_known_is_the_same_whoever_is_to_be_forgotten():
    """Sorted by person; the questions of one person stay in their order."""
    task = small()
    ids = [each.id for each in task.known()]
    assert ids == ["a/1", "a/0", "b/0", "b/1", "c/1", "c/0", "d/0", "d/1", "e/0", "e/1"]
    other = Task(
        task.model,
        None,
        [q for q in task.known() if q.person in "be"],
        [q for q in task.known() if q.person not in "be"],
    )
    assert other.known() == task.known()


def test_nobody_to_forget_is_refused():
    with pytest.raises(ValueError, match="forget set is empty"):
        replace(small(), forget=[])
    assert replace(small(), retain=[]).others == []  # some methods need nobody


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_a_question_that_stands_twice_is_named(side):
    task = small()
    with pytest.raises(ValueError, match="stands twice among forget and retain: c/1"):
        replace(task, **{side: [*getattr(task, side), task.forget[0]]})


def test_sets_by_name():
    task = small(read={"test": [question(5, "c")], "retain": []})
    assert dict(task.sets()) == task.read and list(dict(task.sets("retain"))) == ["retain"]
    with pytest.raises(ValueError, match="no set 'general' to read; there are test, retain"):
        list(task.sets("test", "general"))


# --- once


def test_what_is_made_once_is_made_once():
    task, calls = small(), []

    def make():
        calls.append(1)
        return None  # even nothing is not made again

    assert task.once(("a",), make) is None and task.once(("a",), make) is None
    assert task.once(("b",), lambda: 5) == 5 and len(calls) == 1
    assert replace(task, seed=3).once(("b",), make) == 5, "tasks that share what is kept"
    assert small().once(("b",), lambda: 6) == 6, "and others do not"


def test_what_fails_is_not_kept():
    task = small()
    with pytest.raises(RuntimeError):
        task.once(("a",), lambda: (_ for _ in ()).throw(RuntimeError()))
    assert task.once(("a",), lambda: 1) == 1


def test_questions_are_encoded_once_for_each_size():
    task = seeing()
    one = task.batches(task.forget)
    assert task.batches(list(task.forget)) is one and task.prompts(task.forget) is not one
    assert task.prompts(task.forget) is task.prompts(list(task.forget))
    turned = task.forget[::-1]  # as many, but others
    assert task.prompts(turned) is not task.prompts(task.forget)
    singles = task.batches(task.forget, 1)
    assert len(singles) == len(task.forget) and task.batches(task.forget, 1) is singles
    backwards = task.batches(task.forget[::-1])
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
    task = seeing()
    shown = [q for q in task.forget if q.image is not None]
    first = task.batches(shown)[0]
    other = task.batches(change(shown))[0]
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(first.inputs.values(), other.inputs.values(), strict=True)
    )


def test_another_encoder_is_asked_when_there_is_one():
    task, seen = seeing(), []

    def encode(processor, questions, size):
        seen.append((processor, len(questions), size))
        return []

    other = replace(task, encode=encode, kept={}, batch_size=7)
    assert other.batches(task.forget) == [] and other.batches(task.forget, 2) == []
    assert seen == [(task.processor, len(task.forget), size) for size in (7, 2)]


def test_everyone_is_measured_once_whoever_asks(monkeypatch):
    task = replace(seeing(), kept={})
    calls, own = [], Task.measured
    monkeypatch.setattr(Task, "measured", lambda *given: calls.append(1) or own(*given))
    every = task.everyone()
    assert sorted(every.people) == ["p000", "p001", "p002", "p003"]
    questions = task.known()
    other = replace(
        task,
        forget=[q for q in questions if q.person == "p002"],
        retain=[q for q in questions if q.person != "p002"],
    )
    assert other.everyone() is every and task.sham(0).everyone() is every and len(calls) == 1
    fewer = replace(task, retain=[q for q in task.retain if q.person == "p001"])
    assert fewer.everyone().people == ("p000", "p001") and len(calls) == 2


# --- the sham


def test_a_sham_forgets_as_many_others_and_keeps_the_rest():
    task = small(read={"test": [question(5, "c")]}, general=[question(9, "u")])
    sham = task.sham(3)
    assert len(sham.people) == 2 and not set(sham.people) & set(task.people)
    assert set(sham.people) | set(sham.others) == set("abcde")
    assert {q.id for q in sham.forget} == {q.id for q in task.known() if q.person in sham.people}
    assert sham.read is task.read and sham.general is task.general and sham.kept is task.kept
    assert sham.seed == 3 and task.seed == 0
    assert sham.forget == [q for q in task.known() if q.person in sham.people], "by person"


def test_shams_repeat_and_differ():
    task = seeing()
    drawn = [task.sham(draw).people for draw in range(12)]
    assert drawn == [task.sham(draw).people for draw in range(12)]
    assert {name for people in drawn for name in people} == set(task.others)


def test_a_pool_says_who_may_be_drawn():
    task = small(pool=["e", "b"])
    assert {tuple(task.sham(draw).people) for draw in range(5)} == {("b", "e")}
    with pytest.raises(ValueError, match="1 people to retain are too few.*to forget, 2"):
        replace(task, pool=["e"]).sham(0)
    with pytest.raises(ValueError, match="3 people.*to forget, 4"):
        four = replace(task, forget=task.forget + [question(0, "x"), question(0, "y")], pool=None)
        four.sham(0)


def test_the_forgotten_are_never_drawn_even_from_a_pool_that_holds_them():
    task = small(pool=["a", "b", "c", "e"])
    assert all(task.sham(draw).people == ["b", "e"] for draw in range(8))


def test_somebody_without_questions_cannot_be_drawn():
    """The sham would be of fewer people than it says."""
    with pytest.raises(ValueError, match="nothing is asked about nobody, drawn for a sham"):
        small(pool=["b", "nobody"]).sham(0)


# --- strangers


def test_a_request_of_strangers(world):
    people = world.forget_people("A", 5)
    task = request(None, None, world, people, seed=4, batch_size=16)
    sets = question_sets(world, people)
    assert (task.forget, task.retain, task.read) == (sets["forget"], sets["retain"], sets)
    assert task.people == people and task.others == world.retain_people(people)
    assert tuple(task.read) == SETS and (task.seed, task.batch_size) == (4, 16)
    own = {"mine": about(world, people, new=True)}
    assert request(None, None, world, people, own).read is own


@pytest.mark.parametrize("group", REPORT_GROUPS[:2] + TUNING_GROUPS[:1])
@pytest.mark.parametrize("percent", [5, 10, 15])
def test_a_sham_of_strangers_is_of_the_people_that_sham_people_names(world, group, percent):
    """The stored shams were drawn by this function: the same people for the same draw."""
    task = request(None, None, world, world.forget_people(group, percent))
    for draw in range(4):
        sham = task.sham(draw)
        assert sham.people == sham_people(world, percent, draw)
        assert sham.forget == about(world, sham.people)
        assert set(sham.others) == set(world.people) - set(sham.people)


def test_the_draws_of_the_book_are_as_they_were(world):
    """Fixed values: other draws would be other results under the same name."""
    assert sham_people(world, 5, 0) == DRAWN[0] and sham_people(world, 5, 19) == DRAWN[19]


DRAWN = {0: ["p002", "p073", "p082", "p086", "p087"], 19: ["p016", "p027", "p048", "p059", "p064"]}


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
        request(None, None, world, forget)
