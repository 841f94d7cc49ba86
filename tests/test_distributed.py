"""Coefficients measured by many processes are those of one; what goes wrong is said, once."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import tiny
import torch

from kvw_minimal import distributed
from kvw_minimal.benchmarks.jsonl import write_questions
from kvw_minimal.coefficients import Coefficients, measure_questions
from kvw_minimal.sharing import load_measured, save_measured
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo import load

SIZE = 2  # questions in a part


@pytest.fixture(scope="module")
def asked():
    """Seven questions about three people, with pictures and without, of different lengths."""
    some = tiny.some_questions(load_people(), 4)
    return {"forget": some[:2] + some[7:9], "retain": some[14:16] + some[-1:]}


@pytest.fixture(scope="module")
def place(asked, tmp_path_factory) -> Path:
    """A folder in which every case has been made, two and four processes side by side."""
    place = tmp_path_factory.mktemp("processes")
    for name, seed in (("llava", 0), ("other", 1)):
        tiny.loud(tiny.llava(seed)).save_pretrained(place / name)
        tiny.processor().save_pretrained(place / name)
    write_questions(place / "all.jsonl", asked)
    write_questions(place / "few.jsonl", {side: some[:1] for side, some in asked.items()})
    (place / "none.jsonl").touch()
    subprocess.run(
        [sys.executable, processes.__file__, place],
        check=True,
        env=tiny.environment() | {"OMP_NUM_THREADS": "1"},
    )
    return place


@pytest.fixture(scope="module")
def outcomes(place) -> dict:
    return json.loads((place / "outcomes.json").read_text())


def same(one: Coefficients, other: Coefficients) -> bool:
    """Of the same people, tokens and model, and to 1e-6 of a layer's largest coefficient."""
    other = other.of(list(one.people))
    a, b = one.per_person(), other.per_person()
    assert set(one.people) == set(other.people) and one.fingerprint == other.fingerprint
    assert torch.equal(one.tokens.float(), other.tokens.float()) and one.mask == other.mask
    return bool(((a - b).abs() <= 1e-6 * b.amax(-1, keepdim=True)).all())


@pytest.fixture(scope="module")
def exact(place, asked) -> Coefficients:
    """Measured at once, in this process."""
    model, processor = load(str(place / "llava"))
    return measure_questions(model, processor, asked["forget"] + asked["retain"])


@pytest.mark.nightly
@pytest.mark.parametrize("count", [1, 2])
def test_many_processes_measure_what_one_does(outcomes, place, exact, count):
    """Seven questions in parts of two: some process has a part less, and one part is shorter."""
    done = outcomes[f"{count} processes"]
    assert done["status"] == [0] * count and done["errors"] == [""] * count
    assert done["measured"] == 4 and same(load_measured(place / f"{count}"), exact)
    assert f"questions: 7, parts: 4 (measured now: 4), processes: {count}\n" in done["said"][0]
    assert done["said"][1:] == [""] * (count - 1) and not (place / f"{count}.parts").exists()


@pytest.mark.nightly
def test_one_that_fails_stops_all_with_its_sentence_and_the_rest_goes_on_later(
    outcomes, place, exact
):
    failed, later = outcomes["wrong"], outcomes["wrong, again"]
    assert failed["status"] == [2, 2]
    assert failed["errors"] == ["error: process 1: a picture of nothing\n", ""]
    assert failed["measured"] == 3 and later["status"] == [0] * 4 and later["measured"] == 1
    assert "(measured now: 1)" in later["said"][0] and same(load_measured(place / "wrong"), exact)


@pytest.mark.nightly
def test_one_that_is_gone_is_noticed(outcomes, place):
    done = outcomes["ends"]
    assert done["status"][0] == 2, done
    assert done["errors"][0].startswith("error: another process has ended or does not answer; ")
    assert not (place / "ends").exists() and len([*(place / "ends.parts").iterdir()]) == 3


@pytest.mark.nightly
def test_other_models_and_files_without_questions_are_refused_once(outcomes, place):
    other, none = outcomes["other model"], outcomes["no questions"]
    assert other["status"] == none["status"] == [2, 2]
    said = "error: the processes have other models, processors or questions\n"
    assert other["errors"] == [said, ""] and other["measured"] == 0
    assert none["errors"][0].count("error:") == 1 and none["errors"][1] == ""
    assert "nobody to forget" in none["errors"][0]


@pytest.mark.nightly
def test_a_model_in_shards_is_measured_without_gathering_the_whole(outcomes, place, exact):
    """Each process holds half of it, also afterwards; the fingerprint is that of the whole."""
    done = outcomes["fully_shard"]
    assert done["status"] == [0, 0], done["errors"]
    assert same(load_measured(place / "sharded"), exact)
    for said in done["said"]:
        held, whole = map(int, said.splitlines()[-1].split())
        assert held < 0.55 * whole
    assert done["measured"] == 2 * 4  # both take part in each


@pytest.mark.nightly
def test_a_model_that_is_cut_within_its_layers_is_refused(outcomes, place):
    done = outcomes["tensor"]
    assert done["status"] == [0, 0], done["errors"]
    assert all("spread over processes in a way" in said for said in done["said"])
    assert done["measured"] == 0 and not (place / "tensor").exists()


def test_parts_keep_people_and_pictures_together_whatever_the_order(asked):
    questions = asked["forget"] + asked["retain"]
    found = distributed.cut(questions, SIZE)
    assert found == distributed.cut(questions[::-1], SIZE)
    assert [len(part) for part in found] == [2, 2, 2, 1]
    assert sorted(q.id for part in found for q in part) == sorted(q.id for q in questions)
    blind = [q.image is None for part in found for q in part]
    assert blind == sorted(blind)


def test_a_part_is_named_after_all_that_decides_it(asked):
    processor, part = tiny.processor(), asked["forget"][:SIZE]
    (name,) = distributed.files_of_parts([part], processor, "a")
    assert distributed.files_of_parts([list(part)], processor, "a") == {name: part}
    for change in ({"answer": "No."}, {"image": asked["retain"][0].image}, {"person": "q"}):
        other = [replace(part[0], **change), *part[1:]]
        assert name not in distributed.files_of_parts([other], processor, "a"), change
    assert name not in distributed.files_of_parts([part], processor, "b")
    quiet = copy.deepcopy(processor)
    quiet.chat_template = processor.chat_template.replace("<end>", "<pad>")
    assert name not in distributed.files_of_parts([part], quiet, "a")


def test_nobody_is_on_both_sides(asked):
    rows = [(side, question) for side, some in asked.items() for question in some]
    assert distributed.sides([*rows, ("test", rows[0][1])]) == [question for _, question in rows]
    with pytest.raises(ValueError, match="cannot be both forgotten and retained"):
        distributed.sides([*rows, ("retain", rows[0][1])])


def test_files_are_joined_in_halves(tmp_path):
    each = [
        Coefficients(torch.full((1, 2, 3), 2.0**i), torch.ones(1), (f"{i % 3}",), "m")
        for i in range(7)
    ]
    for i, part in enumerate(each):
        save_measured(part, tmp_path / f"{i}")
    whole = distributed.joined([tmp_path / f"{i}" for i in range(7)])
    assert whole.of(list("012")).sums[:, 0, 0].tolist() == [1 + 8 + 64, 2 + 16, 4 + 32]
    assert whole.tokens.sum() == 7


def test_a_part_that_another_machine_has_is_missed(asked, tmp_path, monkeypatch):
    distributed.started()
    monkeypatch.setattr(distributed, "save_measured", lambda *_: None)
    with pytest.raises(ValueError, match="4 parts are not in .*all machines must share"):
        distributed.measure_in_parts(
            tiny.llava(),
            tiny.processor(),
            [*asked["forget"], *asked["retain"]],
            tmp_path / "x",
            SIZE,
        )
    with pytest.raises(ValueError, match="no questions to measure"):
        distributed.measure_in_parts(tiny.llava(), tiny.processor(), [], tmp_path / "x")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no device 'magic' here"):
        distributed.started("magic")
