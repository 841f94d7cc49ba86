"""Reading a model: question by question, as rows, as means; and when not to read at all."""

from dataclasses import replace

import numpy as np
import pytest
import small
from small import case

from kvw_minimal import scores
from kvw_minimal.batches import answer_batches
from kvw_minimal.benchmarks.truth_ratios import truth_ratio
from kvw_minimal.bootstrap import interval
from kvw_minimal.conditions import score, score_shams
from kvw_minimal.evaluation import scoring
from kvw_minimal.evaluation.scoring import (
    FREE_TOKENS,
    forms,
    forms_of,
    is_free,
    panel,
    score_generated,
    scored,
    teacher_forced,
)
from kvw_minimal.method import make_edit, method_of
from kvw_minimal.questions import Question
from kvw_minimal.results import check_headroom, find, rounded, score_rows, summarise


def question(
    person: str,
    modality: str = "text",
    fact: str = "pet",
    answer: str = "A cat.",
    number: int = 0,
    options: tuple = (),
) -> Question:
    return Question(
        f"{person}/{fact}/{modality}/{number}",
        person,
        fact,
        modality,
        "What?",
        answer,
        answer,
        options=options,
    )


def own(**read_too):
    """Fourteen questions about one person, on the tiny model."""
    first = case().eval_sets["forget"][:14]
    return case().but(eval_sets={"forget": first} | read_too)


def read(session, request, names, aloud=(), by_question=False, free_tokens=FREE_TOKENS):
    """What an experiment would store of some sets."""
    protocol = panel(request, aloud, by_question, free_tokens)
    return score(session, request, protocol, names=names)


def summary_of(condition, asked, values):
    """Means of what is asked of `forget`, to four digits."""
    rows = score_rows("forget", asked, {"exact_match": values}, condition=condition)
    return rounded(summarise(rows))


# --- question by question --------------------------------------------------------------------


def test_scores_are_those_of_the_model():
    asked = own().eval_sets["forget"]
    found = scored(own().session, asked)
    forced = scores.read(case().model, answer_batches(case().processor, asked, 128))
    assert set(found) == {"exact_match", "probability"}
    assert np.array_equal(found["exact_match"], forced.exact)
    assert np.allclose(found["probability"], forced.probability, atol=1e-6)
    assert ((0 < found["probability"]) & (found["probability"] < 1)).all()


def test_the_world_is_scored_by_what_is_said(monkeypatch):
    world = [
        question("w1", fact="world", options=("Rome", "Roma")),
        question("w2", fact="world", options=("a whale",)),
        question("w3", fact="world", options=("Paris",)),
    ]
    seen = []

    def said(model, batches, processor, tokens):
        seen.append(tokens)
        return ["I think Roma, yes.", "Nowhere.", "Paris"]

    monkeypatch.setattr(scoring.scores, "generate", said)
    assert scored(own().session, world)["mentions"].tolist() == [1.0, 0.0, 1.0]
    assert set(scored(own().session, world, 7)) == {"mentions"} and seen == [scoring.FREE_TOKENS, 7]
    assert (
        is_free(world)
        and not is_free(own().eval_sets["forget"])
        and not is_free(world + [question("a")])
    )
    rows = read(*own(world=world), ["world"], free_tokens=9)
    assert [(row["person"], row["metric"], row["score_sum"]) for row in rows] == [
        ("w1", "mentions", 1.0),
        ("w2", "mentions", 0.0),
        ("w3", "mentions", 1.0),
    ]
    assert seen[-1] == 9


def test_rows_are_sums_over_people_and_modalities():
    asked = case().eval_sets["forget"][:28]
    rows = read(*case().but(eval_sets={"forget": asked}), ["forget"])
    found = scored(case().session, asked)
    assert len(rows) == 2 * 2 * 2  # people, modalities, metrics
    for row in rows:
        chosen = [
            i
            for i, q in enumerate(asked)
            if (q.person, q.modality) == (row["person"], row["modality"])
        ]
        assert row["n"] == len(chosen) == 7 and row["question"] is None
        assert row["score_sum"] == pytest.approx(found[row["metric"]][chosen].sum(), abs=1e-5)
        assert row["set"] == "forget"


def test_rows_of_single_questions():
    asked = own().eval_sets["forget"]
    rows = read(*own(), ["forget"], by_question=True)
    assert [row["question"] for row in rows] == [q.id for q in asked for _ in range(2)]
    assert all(row["n"] == 1 for row in rows)
    values = [row["score_sum"] for row in rows if row["metric"] == "probability"]
    assert np.allclose(values, scored(own().session, asked)["probability"], atol=1e-5)


def test_forget_set_and_general_are_heard_where_it_is_wanted(monkeypatch):
    asked = own().eval_sets["forget"]
    said = [q.answer if i % 2 else "What?" for i, q in enumerate(asked)]
    monkeypatch.setattr(scoring.scores, "generate", lambda *_: said)
    whole = own(test=asked, general=asked)
    rows = read(*whole, ["forget", "test", "general"], ("forget", "general"), by_question=True)
    heard = [row for row in rows if row["metric"] == "well_formed"]
    assert {row["set"] for row in heard} == {"forget", "general"}
    assert [row["score_sum"] for row in heard[:14]] == [float(i % 2) for i in range(14)]
    assert not [row for row in read(*whole, ["forget"]) if row["metric"] == "well_formed"]
    ratios = [row["score_sum"] for row in rows if row["metric"] == "truth_ratio"]
    expected = truth_ratio(whole.model, whole.processor, asked)
    assert ratios == pytest.approx(expected.tolist(), abs=1e-4) and min(ratios) > 0
    with_none = own(forget=[replace(q, perturbed=()) for q in asked])
    assert "truth_ratio" not in {
        row["metric"] for row in read(*with_none, ["forget"], ("forget",), by_question=True)
    }


def test_forms_are_what_was_taught():
    """Normalised answers and options of every question that is read, by fact."""
    asked = [
        question("a", answer="In Oslo."),
        question("b", answer="IN ROME", options=("In Bonn",)),
        question("c", fact="job", answer="A cook."),
    ]
    assert forms_of(iter(asked)) == {"pet": {"in oslo", "in rome", "in bonn"}, "job": {"a cook"}}
    whole = own().but(eval_sets={"forget": asked[:1], "retain": asked[1:]}, cache={})
    assert forms(*whole) == forms_of(asked) and forms(*whole) is forms(*whole)
    less = whole.but(eval_sets={"forget": asked[:1]})  # shares what is kept, not the forms
    assert forms(*less) == forms_of(asked[:1])


def test_what_is_said_is_scored_three_ways(monkeypatch):
    asked = own().eval_sets["forget"]
    said = [
        asked[0].answer.lower().rstrip("."),
        asked[1].options[0] if asked[1].options else "x",
        *["No idea at all."] * 12,
    ]
    monkeypatch.setattr(scoring.scores, "generate", lambda *_: said)
    heard, found = score_generated(*own(), asked)
    assert heard == asked and set(found) == {"exact_match_generated", "rouge_l", "well_formed"}
    assert (
        found["exact_match_generated"][0] == 1.0 == found["rouge_l"][0] == found["well_formed"][0]
    )
    assert found["exact_match_generated"][2] == 0.0 == found["well_formed"][2]
    assert found["rouge_l"][2] < 0.5


# --- means -----------------------------------------------------------------------------------


def test_a_summary_is_a_mean_over_people_for_each_modality():
    asked = [question(p, m, number=i) for p in "ab" for m in ("image", "text") for i in range(3)]
    values = np.array([1, 1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1.0])
    rows = summary_of("edited", asked, values)
    assert [row["modality"] for row in rows] == ["image", "text"]
    for row in rows:
        chosen = [i for i, q in enumerate(asked) if q.modality == row["modality"]]
        expected = interval(values[chosen], [asked[i].person for i in chosen])
        assert (row["value"], row["low"], row["high"]) == tuple(round(x, 4) for x in expected)
        assert (row["condition"], row["set"], row["n"]) == ("edited", "forget", 6)
    assert rows[0]["value"] == 0.5 and rows[1]["value"] == 0.5
    [row] = summary_of("edited", asked[:3], values)  # what is not asked has no row
    assert (row["modality"], row["n"]) == ("image", 3)


def test_a_sham_is_averaged_over_its_draws_question_by_question():
    asked, settings, singles = case().eval_sets["forget"], {"strength": 32.0}, []
    whole = case().but(eval_sets={"forget": asked, "retain": asked})
    # the tiny model is never right, and rows have four digits: log-probabilities tell edits apart
    pairs = {"exact_match": lambda found: 1e3 * np.log(found["probability"])}

    def make(other):
        return make_edit(case().session, other, method_of("KVW one pass", settings))[0]

    with pytest.MonkeyPatch.context() as patch:
        real = scoring.scored
        patch.setattr(scoring, "scored", lambda *a: {n: of(real(*a)) for n, of in pairs.items()})
        rows = rounded(summarise(score_shams(*whole, teacher_forced, make, range(2))))
    for draw in range(2):
        with make(case().sham(draw).request).on(case().model):
            singles.append(pairs["exact_match"](scored(case().session, asked)))
    with make(case().request).on(case().model):
        singles.append(pairs["exact_match"](scored(case().session, asked)))
    means = [summary_of("sham", asked, each) for each in (np.mean(singles[:2], axis=0), *singles)]
    expected = means.pop(0)
    assert expected not in means and means[0] != means[1]  # of one draw, or of its own people
    assert rows == expected  # and none of retain: its own people stand there


# --- the gate of honesty ---------------------------------------------------------------------


def rows_of(vanilla, oracle, width):
    return [
        {
            "condition": state,
            "set": "forget",
            "modality": modality,
            "metric": "exact_match",
            "value": value,
            "low": value - width,
            "high": value + width,
            "n": 35,
        }
        for state, value in (("vanilla", vanilla), ("oracle", oracle))
        for modality in ("image", "text")
    ]


@pytest.mark.parametrize(
    "vanilla, oracle, width", [(0.5, 0.04, 0.01), (0.9, 0.3, 0.4), (0.6, 0.1001, 0.01)]
)
def test_headroom_gate_refuses(vanilla, oracle, width):
    with pytest.raises(ValueError, match="headroom"):
        check_headroom(rows_of(vanilla, oracle, width))


def test_headroom_gate_lets_pass():
    check_headroom(rows_of(0.98, 0.04, 0.05))
    check_headroom(rows_of(0.75, 0.25, 0.01))


def test_each_modality_needs_its_headroom():
    for spoiled in range(2):
        rows = rows_of(0.98, 0.04, 0.05)
        rows[spoiled] |= {"value": 0.3, "low": 0.25, "high": 0.35}
        with pytest.raises(ValueError, match=f"no headroom on {rows[spoiled]['modality']}"):
            check_headroom(rows)


def test_a_row_is_found_or_missed_by_name():
    rows = rows_of(0.9, 0.1, 0.0)
    assert find(rows, "oracle", "forget", "text", "exact_match") is rows[3]
    with pytest.raises(KeyError, match="no row for sham, forget, text, exact_match"):
        find(rows, "sham", "forget", "text", "exact_match")
    assert small.people() == case().people


def test_what_is_said_of_somebody_else():
    """By hand: the name, the pet and the city of one other person; a pet of a second one."""
    world = small.world()
    asked = [q for q in case().eval_sets["forget"] if q.modality == "text"][:7]
    one, two = (world.people[person] for person in world.retain_people([asked[0].person])[:2])
    facts = {"name": one.name, "pet": one.facts["pet"], "birthplace": one.facts["birthplace"]}
    texts = [facts.get(q.fact, "nothing") for q in asked]
    found = scoring.said_of_others(asked, texts)
    assert found["of_others"].sum() == found["of_one"].sum() == 3
    mixed = {"name": one.name, "pet": one.facts["pet"], "birthplace": two.facts["birthplace"]}
    found = scoring.said_of_others(asked, [mixed.get(q.fact, "nothing") for q in asked])
    assert found["of_others"].sum() == 3 and found["of_one"].sum() == 2
    own = scoring.said_of_others(asked, [q.answer for q in asked])
    assert not own["of_others"].any()
