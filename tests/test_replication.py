"""The replication: equal budgets, resumable parts, rows by hand, and stored results that hold."""

import copy
import json
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from kvw_minimal.laboratory import replication
from kvw_minimal.methods import contenders
from kvw_minimal.methods.contenders import CONTENDERS
from kvw_minimal.intervals import interval
from kvw_minimal.laboratory.matrix import read_sets
from kvw_minimal.models import MODELS, load
from kvw_minimal.strangers.people import (
    PERCENTS,
    REPORT_GROUPS,
    TUNING_GROUPS,
    load_people,
)
from kvw_minimal.questions import Question
from kvw_minimal.strangers.questions import about
from kvw_minimal.laboratory.replication import (
    ALL_GROUPS,
    REFERENCE,
    STUDIES,
    assemble,
    choose,
    difference_rows,
    joined,
    kept_part,
    made_for,
    make_part,
    named,
    oracle_rows,
    score_rows,
    settings_of,
    verify,
)
from kvw_minimal.laboratory.results import RESULTS, read_json, write_json
from kvw_minimal.laboratory.request import Request, begin, prepare, sham_people

STORED = RESULTS / "replication.json"
TUNING = RESULTS / "replication-tuning.json"


# --- the rule of choice ----------------------------------------------------------------------


def tried(name: str, forget: list[float], retain: list[float]) -> list[dict]:
    rows = [{"contender": "vanilla", "settings": {}, "set": "retain", "value": 1.0}]
    for settings, f, r in zip(CONTENDERS[name].grid, forget, retain, strict=True):
        for part, value in (("forget", f), ("retain", r), ("general", 1.0)):
            rows.append({"contender": name, "settings": settings, "set": part, "value": value})
    return rows


def test_the_setting_that_forgets_most_at_kept_retain_is_chosen():
    rows = tried(REFERENCE, [0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.1, 0.0],
                 [1.0, 1.0, 0.95, 0.9, 0.89, 0.8, 0.5, 0.1])  # fmt: skip
    found = choose(REFERENCE, rows)
    assert found["settings"] == CONTENDERS[REFERENCE].grid[3] and found["kept"]
    assert (found["forget"], found["retain"]) == (0.5, 0.9)


def test_where_no_setting_keeps_retain_the_gentlest_is_taken_and_it_says_so():
    rows = tried("SSD", [0.1] * 8, [0.2, 0.3, 0.8, 0.4, 0.5, 0.6, 0.7, 0.1])
    found = choose("SSD", rows)
    assert found["settings"] == CONTENDERS["SSD"].grid[2] and not found["kept"]


def test_controls_take_the_settings_of_what_they_control_for():
    chosen = {"KVW one pass": {"settings": {"strength": 3.0}}}
    assert settings_of("sham KVW one pass", chosen) == {"strength": 3.0}
    assert settings_of("random columns", chosen) == {"strength": 3.0}
    assert settings_of("vanilla", chosen) == settings_of("oracle", chosen) == {}
    assert settings_of("SSD", chosen) is None


def test_names_bring_what_they_are_compared_with():
    assert named("sham KVW published") == ["vanilla", "KVW published", REFERENCE,
                                           "sham KVW published"]  # fmt: skip
    assert named("") == list(CONTENDERS)
    with pytest.raises(ValueError, match="no contender 'magic'"):
        named("magic")


# --- rows by hand ----------------------------------------------------------------------------


def asked() -> dict[str, list[Question]]:
    """Two people, an image and a text question about each; one portrait."""

    def of(people):
        return [Question(f"{p}/{m}", p, "name", m, "Who?", "Ann.", "Ann")
                for p in people for m in ("image", "text")]  # fmt: skip

    return {"forget": of("ab"), "test": of("ab"), "retain": of("cd"), "general": of("u")[:1]}


def part(exact: dict, probability: float = 0.5, **more) -> dict:
    values = {name: {"exact_match": each, "probability": [probability] * len(each)}
              for name, each in exact.items()}  # fmt: skip
    return {"values": values, "cost": {"seconds": 1.0}} | more


EXACT = {"forget": [1, 0, 0, 0], "test": [1, 1, 0, 0], "retain": [1, 1, 1, 0], "general": [1]}


def only(rows: list[dict], **keys) -> dict:
    (found,) = [row for row in rows if keys.items() <= row.items()]
    return found


def test_scores_by_hand():
    here = part(EXACT, truth_ratio=[0.5, 2.0, 1.0, 4.0], well_formed=[1, 1, 0, 1])
    rows = score_rows({}, [here], asked())
    image = only(rows, set="forget", modality="image", metric="exact_match")
    assert (image["value"], image["n"]) == (0.5, 2)
    assert (image["low"], image["high"]) == (0.0, 1.0)  # a is right, b is not
    score = only(rows, set="forget", modality="text", metric="forget_score")
    assert score["value"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    utility = only(rows, metric="utility")  # exact 1, .5, 1; probability .5, .5, .5
    assert utility["value"] == pytest.approx(6 / (1 / 1 + 1 / 0.5 + 1 / 1 + 3 / 0.5), abs=1e-4)
    assert utility["low"] is None


def test_differences_are_paired():
    """Question by question: equal scores on different questions are no agreement."""
    other = part(EXACT | {"forget": [0, 1, 0, 0], "test": [1, 1, 0, 0]})
    rows = difference_rows({}, [part(EXACT)], [other], asked())
    forget = only(rows, set="forget")
    assert (forget["value"], forget["low"], forget["high"]) == (0.0, 0.0, 0.0)  # within a person
    assert only(rows, set="test")["high"] == 0.0 and forget["n"] == 4
    swapped = part(EXACT | {"forget": [0, 0, 1, 0]})
    forget = only(difference_rows({}, [part(EXACT)], [swapped], asked()), set="forget")
    assert forget["value"] == 0.0 and forget["low"] < 0 < forget["high"]


def test_oracle_distance_and_quality_by_hand():
    ratios = {"truth_ratio": [0.1, 0.2, 0.3, 0.4], "well_formed": [1] * 4}
    here, oracle = part(EXACT, 0.9, **ratios), part(EXACT, 0.2, **ratios)
    rows = oracle_rows({}, [here], [oracle], asked())
    distance = only(rows, metric="oracle_distance")
    assert distance["value"] == pytest.approx(0.7) and distance["n"] == 8
    assert only(rows, metric="log10_p")["value"] == 0.0  # the same truth ratios
    same = oracle_rows({}, [oracle], [oracle], asked())
    assert only(same, metric="oracle_distance")["value"] == 0.0


def test_groups_are_joined_before_the_interval():
    values = joined([part(EXACT), part(EXACT)], "values", "forget", "exact_match")
    assert values.tolist() == EXACT["forget"] * 2


# --- parts -----------------------------------------------------------------------------------


def test_a_part_is_used_again_only_with_the_same_stamp(tmp_path):
    path = tmp_path / "deeper" / "part.json"
    assert kept_part(path, {"source": "x"}) is None
    assert make_part(path, {"source": "x"}, lambda: [1])["rows"] == [1]
    assert kept_part(path, {"source": "x"})["rows"] == [1]
    assert kept_part(path, {"source": "y"}) is None


@cache
def small_request() -> Request:
    """Group A's five on pocket, in a world of twenty people at most, with few questions."""
    world = load_people()
    forget = world.forget_people("A", 5)
    people = forget + sham_people(world, 5, 0) + sham_people(world, 5, 1) + world.groups["B"][:5]
    world = replace(world, people={person: world.people[person] for person in people})
    model, processor = load("pocket")
    whole = begin(model, processor, world, forget)
    few = {name: questions[:28] for name, questions in whole.subject.questions.items()}
    return replace(whole, subject=prepare(model, processor, few))


@contextmanager
def quick(folder):
    """Two contenders with one setting each, on a small request, in a folder of their own."""
    request = small_request()
    model, processor = request.subject.model, request.subject.processor
    bold = {"GD full": {"rate": 1e-3, "weight": 1.0}, REFERENCE: {"strength": 32.0}}
    with pytest.MonkeyPatch.context() as patch:
        for name, settings in bold.items():
            patch.setitem(CONTENDERS, name, replace(CONTENDERS[name], grid=(settings,)))
        patch.setenv("KVW_CACHE", str(folder))
        patch.setattr(contenders, "EPOCHS", 1)
        patch.setattr("kvw_minimal.matrix.DRAWS", 2)
        for name, value in {
            "load": lambda _: (model, processor), "load_people": lambda: request.world,
            "RESULTS": folder,
        }.items():  # fmt: skip
            patch.setattr(replication, name, value)
        small = {"begin": lambda *_: request, "questions": lambda *_: request.subject.questions}
        patch.setitem(STUDIES, "pocket", replace(STUDIES["pocket"], **small))
        yield patch


NAMES = ["vanilla", REFERENCE, "GD full"]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """Two contenders and vanilla, end to end: folder, tuning, what was measured."""
    folder, model = tmp_path_factory.mktemp("matrix"), small_request().subject.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with quick(folder):
        tuning = replication.tune(NAMES, ("tuning-1",))
        found = replication.measure(NAMES, ("A",), (5,), tuning["chosen"])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return folder, tuning, found


def test_two_contenders_from_tuning_to_rows(matrix):
    _, tuning, found = matrix
    assert set(tuning["chosen"]) == {REFERENCE, "GD full"}
    rows = found["rows"]
    vanilla = only(rows, contender="vanilla", set="forget", modality="image", metric="exact_match")
    weakened = only(rows, contender=REFERENCE, set="forget", modality="image", metric="exact_match")
    assert weakened["value"] < vanilla["value"] == 1.0
    difference = only(rows, contender="vanilla", set="forget", metric="difference")
    assert difference["against"] == REFERENCE and difference["value"] > 0
    assert {row["metric"] for row in rows if row["contender"] == "GD full"} == {
        "exact_match", "probability", "forget_score", "well_formed", "utility", "difference",
    }  # fmt: skip
    spent = {cost["contender"]: cost for cost in found["costs"]}
    retained = 14 * (len(small_request().world.people) - 5)
    assert spent[REFERENCE]["passes"] == {"forget": 70, "retain": retained}
    assert spent["GD full"]["passes"]["forget"] == 3 * 70
    assert spent["retain pass"]["passes"] == {"forget": 0, "retain": retained}
    assert {answer["contender"] for answer in found["answers"]} == set(NAMES)
    assert found["provenance"]["contenders"] == replication.SOURCE
    json.dumps(found, allow_nan=False)


def test_finished_parts_are_used_again(matrix):
    """Everything again, without touching the model; but not with other settings."""
    folder, tuning, found = matrix

    def forbidden(*_, **__):
        raise AssertionError("a finished part was made again")

    with quick(folder) as patch:
        works = dict.fromkeys(("measure_one", "try_settings", "retain_pass"), forbidden)
        patch.setitem(STUDIES, "pocket", replace(STUDIES["pocket"], **works))
        assert replication.tune(NAMES, ("tuning-1",))["rows"] == tuning["rows"]
        again = replication.measure(NAMES, ("A",), (5,), tuning["chosen"])
        assert again["rows"] == found["rows"]
        other = tuning["chosen"] | {REFERENCE: {"settings": {"strength": 31.0}}}
        with pytest.raises(AssertionError, match="made again"):
            replication.measure(NAMES, ("A",), (5,), other)
        with pytest.raises(KeyError, match="SSD was not tuned"):
            replication.measure(["SSD"], ("A",), (5,), tuning["chosen"])
        fewer = replication.measure(["vanilla"], ("B",), (), tuning["chosen"])
        assert fewer["rows"] == found["rows"]  # what was done before stays
        assert "SSD A 5" in fewer["provenance"]["missing"]
        assert "vanilla A 5" not in fewer["provenance"]["missing"]


def test_stored_tuning_is_used_where_the_cache_is_gone(matrix, tmp_path):
    """On another machine only the committed file is left; what it has is not tried again."""
    _, tuning, _ = matrix
    write_json(tmp_path / "replication-tuning.json", tuning)

    def forbidden(*_, **__):
        raise AssertionError("tried again")

    with quick(tmp_path) as patch:
        patch.setitem(STUDIES, "pocket", replace(STUDIES["pocket"], try_settings=forbidden))
        again = replication.tune(NAMES, ("tuning-1",))
        assert (again["rows"], again["chosen"]) == (tuning["rows"], tuning["chosen"])
        other = replace(CONTENDERS["GD full"], grid=({"rate": 2e-3, "weight": 1.0},))
        patch.setitem(CONTENDERS, "GD full", other)
        with pytest.raises(AssertionError, match="tried again"):
            replication.tune(NAMES, ("tuning-1",))


def test_stored_rows_are_compared_with_a_new_run(matrix):
    """A changed value is noticed, and so is other code."""
    folder, _, found = matrix
    stored, names = copy.deepcopy(found), ["vanilla", REFERENCE]
    with quick(folder):
        write_json(folder / "replication.json", stored)
        assert all(row["same"] for row in verify(2, names, seed=0))
        for row in stored["rows"]:
            if row["contender"] == REFERENCE and row["metric"] in replication.TOLERANCE:
                row["value"] += 0.07
        write_json(folder / "replication.json", stored)
        wrong = {row["contender"] for row in verify(2, names, seed=0) if not row["same"]}
        assert wrong == {REFERENCE}
        stored["provenance"]["contenders"] = "0" * 16
        write_json(folder / "replication.json", stored)
        with pytest.raises(ValueError, match="other code"):
            verify(1)


def test_a_sham_is_averaged_over_its_draws(tmp_path):
    name, settings, request = "sham KVW one pass", {"strength": 32.0}, small_request()
    with quick(tmp_path):
        found = replication.measure_one(request, CONTENDERS[name], settings, ("test", "retain"))
    assert set(found["values"]) == {"test"} and "truth_ratio" not in found
    singles = []
    for draw in range(2):
        with CONTENDERS[name].on(request, request.forget, settings, draw):
            singles.append(read_sets(request, ["test"])["test"]["probability"])
    assert not np.allclose(*singles)
    expected = np.mean(singles, axis=0)
    assert np.allclose(found["values"]["test"]["probability"], expected, atol=1e-5)


def test_the_oracle_never_met_them_and_vanilla_comes_back():
    request = small_request()
    before = {n: t.clone() for n, t in request.subject.model.state_dict().items()}
    with CONTENDERS["oracle"].on(request, request.forget) as cost:
        found = read_sets(request, ["forget", "general"])
    assert (
        found["forget"]["exact_match"].mean() < 0.1 < 0.9 < found["general"]["exact_match"].mean()
    )
    assert cost.passes["forget"] == 0 < cost.passes["retain"]  # those of its training
    after = request.subject.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_oracle_that_is_not_made_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    world = load_people()
    names = ["vanilla", "oracle"]
    assert made_for(names, world, world.forget_people("A", 5)) == names
    assert made_for(names, world, world.forget_people("D", 10)) == ["vanilla"]


# --- what is stored stays --------------------------------------------------------------------


@contextmanager
def stored_and_empty(folder, found, name="replication.json"):
    """`quick` with a stored file, and a cache in which there is nothing."""
    (folder / "cache").mkdir(parents=True)
    with quick(folder / "cache") as patch:
        patch.setattr(replication, "RESULTS", folder)
        write_json(folder / name, found)
        yield


def test_a_fresh_file_stays_whole_where_the_cache_is_empty(matrix, tmp_path):
    """Nothing measured, nothing lost: rows, costs, answers, and where they came from."""
    _, tuning, found = matrix
    with stored_and_empty(tmp_path, found):
        again = replication.measure([], (), (), tuning["chosen"])
    for kind in ("rows", "costs", "answers"):
        assert found[kind] and again[kind] == found[kind]
    made, before = again["provenance"], found["provenance"]
    assert [run["commit"] for run in made["earlier"]] == [before["commit"]]
    assert made["missing"] == before["missing"] and "vanilla A 5" not in made["missing"]
    assert made["kept"] == sorted(f"{name} 5" for name in [*NAMES, "retain pass"])


def test_nothing_stale_is_mixed_in(matrix, tmp_path):
    """Other code, other data, another model: nothing stays. Other settings: not what they made."""
    _, tuning, found = matrix
    for i, (key, value) in enumerate([("contenders", "0" * 16), ("data", "0" * 16),
                                      ("models", {"pocket": "0" * 16})]):  # fmt: skip
        stale = found | {"provenance": found["provenance"] | {key: value}}
        with stored_and_empty(tmp_path / str(i), stale):
            again = replication.measure([], (), (), tuning["chosen"])
        assert again["rows"] == again["costs"] == again["answers"] == [], key
        assert "kept" not in again["provenance"]
    other = tuning["chosen"] | {REFERENCE: {"settings": {"strength": 31.0}}}
    with stored_and_empty(tmp_path / "settings", found):
        again = replication.measure([], (), (), other)
    assert {row["contender"] for row in again["rows"]} == {"vanilla", "GD full"}
    assert not any(row.get("against") == REFERENCE for row in again["rows"])
    assert f"{REFERENCE} A 5" in again["provenance"]["missing"]


def test_a_file_with_its_parts_can_be_filled_on_another_day(matrix, tmp_path):
    """Without a cache nothing is measured twice; a stale part is made again."""
    folder, tuning, found = matrix

    def forbidden(*_, **__):
        raise AssertionError("a stored part was made again")

    with quick(folder) as patch:
        patch.setattr(replication, "RESULTS", tmp_path)
        keeping = replace(STUDIES["pocket"], keeps_parts=True)
        patch.setitem(STUDIES, "pocket", keeping)
        whole = replication.measure([], (), (), tuning["chosen"])
        assert {part["contender"] for part in whole["parts"]} == {*NAMES, "retain pass"}
        patch.setenv("KVW_CACHE", str(tmp_path / "empty"))
        write_json(tmp_path / "replication.json", whole)
        works = dict.fromkeys(("measure_one", "retain_pass"), forbidden)
        patch.setitem(STUDIES, "pocket", replace(keeping, **works))
        again = replication.measure(NAMES, ("A",), (5,), tuning["chosen"])
        assert again["rows"] == found["rows"] and again["parts"] == whole["parts"]
        whole["parts"][0]["provenance"]["source"] = "0" * 16
        write_json(tmp_path / "replication.json", whole)
        with pytest.raises(AssertionError, match="made again"):
            replication.measure(NAMES, ("A",), (5,), tuning["chosen"])
    assert "parts" not in found


def test_of_two_rows_the_one_that_covers_more_stays():
    keys = dict.fromkeys(replication.KEYS["rows"], "x")
    four, one = keys | {"groups": 4, "value": 0.4}, keys | {"groups": 1, "value": 0.1}
    other = keys | {"set": "y", "value": 0.7}
    joined_entries = replication.joined_entries
    assert joined_entries("rows", [one], [four, other]) == ([four, other], [four, other])
    assert joined_entries("rows", [four], [one]) == ([four], [])
    assert joined_entries("rows", [one | {"value": 0.2}], [one]) == ([one | {"value": 0.2}], [])
    more = [keys | {"groups": 5, "oracles": 1}], [keys | {"groups": 5, "oracles": 4}]
    assert joined_entries("rows", *more) == (more[1], more[1])


def test_several_groups_are_pooled_over_their_people():
    world = load_people()
    zeros = {name: [0.0] * count for name, count in
             {"forget": 70, "test": 70, "retain": 1330, "general": 300}.items()}  # fmt: skip
    ones = {name: [1.0] * len(each) for name, each in zeros.items()}
    heard = {"truth_ratio": [1.0] * 70, "well_formed": [1.0] * 70, "answers": []}
    parts = {(REFERENCE, group, 5): part(exact, **heard)
             for group, exact in zip("ABC", (zeros, ones, ones), strict=True)}  # fmt: skip
    found = assemble(parts, world)
    pooled = only(found["rows"], group=ALL_GROUPS, set="forget", modality="text",
                  metric="exact_match")  # fmt: skip
    assert pooled["value"] == pytest.approx(2 / 3, abs=1e-4) and pooled["n"] == 3 * 35
    people = [q.person for group in "ABC" for q in about(world, world.forget_people(group, 5),
                                                         modalities=("text",))]  # fmt: skip
    expected = interval(np.repeat([0.0, 1.0, 1.0], 35), people)
    assert (pooled["low"], pooled["high"]) == pytest.approx(expected[1:], abs=1e-4)


# --- what is stored --------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TUNING, STORED], ids=lambda path: path.name)
def test_stored_results_are_fresh(path):
    """The code that decides them, contenders and this matrix included, has not changed."""
    made = read_json(path)["provenance"]
    assert made["contenders"] == replication.SOURCE, f"{path.name} is stale: make it again"


@pytest.mark.parametrize("file", [replication.tuning_file, replication.stored_file])
def test_stored_results_of_smol_are_fresh(file):
    """Code and data are those of today, and the model is the one whose card is stored."""
    made = replication.check_fresh(read_json(file("smol")), "smol")["provenance"]
    card = read_json(MODELS / "smol.json")["provenance"]
    assert made["models"]["smol"] == card["models"]["smol"]


def test_the_stored_matrix_of_smol_says_what_is_missing():
    """Tuned on every setting or not at all, chosen by the rule; rows or an entry in `missing`."""
    study, tuning = STUDIES["smol"], read_json(replication.tuning_file("smol"))
    rows, field = tuning["rows"], study.contenders
    for name, found in tuning["chosen"].items():
        tried = {(json.dumps(row["settings"]), row["group"]) for row in rows
                 if row["contender"] == name}  # fmt: skip
        assert tried == {(json.dumps(settings), group) for settings in field[name].grid
                         for group in study.tuning_groups}, name  # fmt: skip
        assert found == choose(name, rows, field)
    content = read_json(replication.stored_file("smol"))
    assert content["chosen"] == tuning["chosen"]
    there = {(row["contender"], row["group"]) for row in content["rows"]
             if row["group"] in study.groups}  # fmt: skip
    missing = {f"{name} {group} 5" for name in field for group in study.groups
               if (name, group) not in there}  # fmt: skip
    assert missing == set(content["provenance"]["missing"])
    parts = {(part["contender"], part["group"]) for part in content["parts"]}
    assert parts >= there  # so that it can be filled without measuring anything twice


def test_rows_of_smol_follow_from_the_parts_that_are_stored():
    content = read_json(replication.stored_file("smol"))
    parts = {(part["contender"], part["group"], part["percent"]): part["rows"]
             for part in content["parts"]}  # fmt: skip
    assert assemble(parts, load_people(), "smol")["rows"] == content["rows"]


def test_the_stored_tuning_is_complete_and_fair():
    """Every contender with a grid, all its settings, both tuning groups; choices by the rule."""
    content = read_json(TUNING)
    rows = content["rows"]
    for name, contender in CONTENDERS.items():
        for settings in contender.grid:
            groups = {row["group"] for row in rows
                      if (row["contender"], row["settings"]) == (name, settings)}  # fmt: skip
            assert groups == set(TUNING_GROUPS), (name, settings)
    expected = {name: choose(name, rows) for name in CONTENDERS if CONTENDERS[name].grid}
    assert content["chosen"] == expected


def test_the_stored_matrix_is_complete():
    """At 5 % every contender and group but oracles; whatever is missing is named."""
    content = read_json(STORED)
    there = {(row["contender"], row["group"], row["percent"]) for row in content["rows"]}
    wanted = {(name, group, percent) for name in CONTENDERS for group in REPORT_GROUPS
              for percent in replication.PERCENTS}  # fmt: skip
    missing = {f"{name} {group} {percent}" for name, group, percent in wanted - there}
    assert missing == set(content["provenance"]["missing"])
    assert all(entry.startswith("oracle") or entry.endswith(" 10") for entry in missing)
    assert set(replication.PERCENTS) <= set(PERCENTS)
    assert content["chosen"] == read_json(TUNING)["chosen"]
