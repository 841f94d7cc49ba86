"""A benchmark from its files to rows, on strangers in its clothes and on the page's own example."""

import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from execute import ROOT
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from kvw_minimal.__main__ import app
from kvw_minimal.benchmarks import protocols
from kvw_minimal.benchmarks import replicate as module
from kvw_minimal.benchmarks.loaders import Unnamed
from kvw_minimal.benchmarks.replicate import (
    benchmark_headroom,
    benchmark_request,
    benchmark_sham,
    data_hash,
    evenly,
    replicate,
    summary_of,
)
from kvw_minimal.kvw import STRENGTH
from kvw_minimal.questions import Question
from kvw_minimal.results import bounds, score_rows, summarise
from kvw_minimal.strangers.people import load_people

WORLD = load_people()
FORGET = WORLD.forget_people("A", 5)
STATES = ["vanilla", "edited", "sham", "oracle"]


@pytest.fixture
def data(mllmu, clear) -> dict[str, Path]:
    return {"mllmu": mllmu, "clear": clear}


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> str:
    """A random language model in a folder, without eyes."""
    folder, tokenizer = tmp_path_factory.mktemp("reader"), tiny.tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), **tiny.LANGUAGE)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    monkeypatch.setattr(protocols, "NEW_TOKENS", 2)


def find(rows: list[dict], state: str, *key: str) -> dict:
    [row] = [
        r for r in rows if (r["condition"], r["set"], r["modality"], r["metric"]) == (state, *key)
    ]
    return row


# --- end to end


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["mllmu", "clear"])
def test_pocket_and_its_oracle_end_to_end(benchmark, data, tmp_path, monkeypatch):
    """Of the sets beside forget one question of each kind is asked."""
    path, sets_of = tmp_path / "rows.json", module.SETS_OF[benchmark]

    def few(*given):
        sets, training = sets_of(*given)
        others = {name: evenly(asked, 1) for name, asked in sets.items() if name != "forget"}
        return sets | others, training

    monkeypatch.setitem(module.SETS_OF, benchmark, few)
    done = CliRunner().invoke(
        app,
        [
            "replicate",
            "--benchmark",
            benchmark,
            "--data",
            str(data[benchmark]),
            "--model",
            "pocket",
            "--oracle",
            "pocket-oracle-A-5",
            "--limit",
            "5",
            "--batch-size",
            "64",
            "--json",
            str(path),
        ],
    )
    assert done.exit_code == 0, done.output
    content = json.loads(path.read_text())
    source, rows = content["provenance"], content["rows"]
    assert source["headroom"] == "shown" and source["warnings"] == []
    assert {"command", "commit", "versions", "date"} <= set(source)
    assert set(source["models"]) == {"pocket", "pocket-oracle-A-5"}
    assert source["benchmark"] == benchmark and len(source["people"]) == len(source["sham"]) == 5
    assert list(dict.fromkeys(row["condition"] for row in rows)) == STATES
    assert {row["headroom"] for row in rows} == {"shown"}
    for row in rows:
        if row["metric"] != "forget_quality":
            low, high = bounds(row)
            assert low <= row["value"] <= high and row["n"] > 0
            assert 0 <= row["unparsable"] <= row["n"]
    keys = {(row["set"], row["metric"]) for row in rows if row["modality"] == "image"}
    blank = {(row["set"], row["metric"]) for row in rows if row["modality"] == "blank image"}
    assert {key for key in keys if key[1] != "forget_quality"} == blank
    key = module.HEADROOM_METRIC[benchmark][0]
    vanilla, oracle = (find(rows, state, *key)["value"] for state in ("vanilla", "oracle"))
    assert vanilla >= 0.8 and oracle < 0.6
    told = [
        [row["value"] for row in rows if row["condition"] == state and "value" in row]
        for state in STATES[:2]
    ]
    assert len(told[0]) == len(told[1]) and told[0] != told[1]  # the edit was on, then off
    assert find(rows, "vanilla", key[0], "blank image", key[2])["value"] < vanilla
    if benchmark == "clear":
        quality = [find(rows, state, "forget", "image", "forget_quality") for state in STATES]
        assert quality[-1]["log10_p"] == 0 and quality[-1]["statistic"] == 0
        assert all(row["log10_p"] <= 0 and row["n"] == 5 for row in quality)
        assert find(rows, "vanilla", "all but forget", "all", "utility")["n"] > 0
    lines = done.output.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("set "))
    assert lines[head].split() == ["set", "modality", "metric", "n_people", "n", *STATES]
    assert str(find(rows, "vanilla", *key)["n"]) in lines[head + 1]


# --- headroom


def rows_about(about: tuple[str, str, str], values: Sequence[float], condition: str) -> list[dict]:
    """Scores of one question about each of five people."""
    name, modality, metric = about
    people = [replace(asked()[0], person=person) for person in "abcde"]
    columns = {"modality": modality, "condition": condition}
    return score_rows(name, people, {metric: values}, [False] * 5, **columns)


def measured(benchmark: str, *values: float, condition: str = "vanilla") -> list[dict]:
    """Means of five people, by what a benchmark tells headroom."""
    rows: list[dict] = []
    for about in module.HEADROOM_METRIC[benchmark]:
        rows += rows_about(about, values if len(values) > 1 else values * 5, condition)
    return summarise(rows)


def asked() -> list[Question]:
    fields = {"person": "a", "fact": "name", "prompt": "?", "answer": "x", "value": "x"}
    return [
        Question(id=m, modality=m, options=("x", "y", "z", "w"), **fields)
        for m in ("image", "text")
    ]


@pytest.mark.parametrize("benchmark", ["mllmu", "clear"])
def test_headroom(benchmark):
    known, unknown = measured(benchmark, 1.0), measured(benchmark, 0.25)
    oracle = measured(benchmark, 0.25, condition="oracle")
    assert benchmark_headroom(benchmark, asked(), known, oracle) == ("shown", [])
    with pytest.raises(ValueError, match="no headroom.*vanilla 0.25.*oracle 0.25"):
        benchmark_headroom(benchmark, asked(), unknown, oracle)
    close = measured(benchmark, 1.0 - module.HEADROOM_MARGIN / 2, condition="oracle")
    with pytest.raises(ValueError, match="no headroom"):
        benchmark_headroom(benchmark, asked(), known, close)
    unsure = measured(benchmark, 1, 1, 1, 0, 0)  # .6 against .2: far, but intervals meet
    low = measured(benchmark, 1, 0, 0, 0, 0, condition="oracle")
    with pytest.raises(ValueError, match="no headroom"):
        benchmark_headroom(benchmark, asked(), unsure, low)
    mark, notes = benchmark_headroom(benchmark, asked(), known, None)
    assert mark == "unknown" and "without an oracle" in notes[0] and len(notes) == 1
    mark, notes = benchmark_headroom(benchmark, asked(), unknown, None)
    assert mark == "doubtful" and "does not seem to know the people" in notes[-1]


@pytest.mark.parametrize("benchmark", ["mllmu", "clear"])
def test_chance_is_the_mean_over_questions(benchmark):
    easy = [replace(q, id=f"{q.id}, easy", options=q.options[:2]) for q in asked()]
    unsure = measured(benchmark, 0.45)  # below one in two, above the mean with one in four
    assert benchmark_headroom(benchmark, easy, unsure, None)[0] == "doubtful"
    assert benchmark_headroom(benchmark, easy + asked(), unsure, None)[0] == "unknown"


def test_a_model_that_knows_nobody_is_refused_beside_an_oracle(data, tiny_model):
    with pytest.raises(ValueError, match="no headroom"):
        replicate("mllmu", str(data["mllmu"]), tiny_model, oracle=tiny_model, limit=2)


# --- refusals


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"benchmark": "tofu"}, ValueError, "mllmu and clear"),
        ({"dtype": "int8"}, ValueError, "no dtype 'int8'; there are float32, bfloat16, float16"),
        ({"device": "abacus"}, ValueError, "abacus"),
        ({"limit": 0}, ValueError, "at least 1"),
        ({"strength": -1.0}, ValueError, "strength"),
        ({"schedule": "never"}, ValueError, "one pass and published"),
        (
            {"schedule": "published", "strength": 32.0},
            ValueError,
            "32 is too much .*gamma = strength / questions.*10 took .* none at all for 6.5",
        ),
        ({"schedule": "published", "strength": 10.1}, ValueError, "too much"),
        ({"forget": 7}, ValueError, "forget_7"),
        ({"forget": 10}, FileNotFoundError, "forget_10.*holds.*forget_5"),
        ({"benchmark": "clear"}, FileNotFoundError, "forget05.*holds"),
        ({"data": "nowhere"}, FileNotFoundError, "neither a folder nor a hub id"),
    ],
)
def test_refusals_come_before_the_work(change, error, words, data, tiny_model, monkeypatch):
    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("nothing should be loaded"))
    settings = {"benchmark": "mllmu", "data": str(data["mllmu"]), "model": tiny_model} | change
    with pytest.raises(error, match=f"(?s){words}"):
        replicate(**settings)


# --- the schedule published


class Enough(Exception):
    """The edit would be made now."""


def fed(monkeypatch, *given, **settings):
    """The request, the schedule and the strength with which the edit would be made."""

    def stop(session, request, everyone, schedule, strength, progress):
        assert sorted(everyone.people) == sorted({*request.people, *request.retain_people})
        raise Enough(request, schedule, strength)

    monkeypatch.setattr(module, "edit_of", stop)
    with pytest.raises(Enough) as caught, pytest.warns(UserWarning):
        replicate(*given, limit=1, **settings)
    return caught.value.args


@pytest.mark.slow
def test_every_schedule_has_its_own_tuned_strength_and_published_its_captions(
    data, tiny_model, monkeypatch
):
    assert module.TUNED_STRENGTHS == {"one pass": STRENGTH, "published": 6.5}
    given = ("clear", str(data["clear"]), tiny_model)
    for schedule, facts in (("one pass", {"caption", "question"}), ("published", {"caption"})):
        request, *made = fed(monkeypatch, *given, schedule=schedule)
        assert made == [schedule, module.TUNED_STRENGTHS[schedule]]
        assert {q.fact for q in request.forget} == {q.fact for q in request.retain} == facts
        assert {q.fact for q in request.eval_sets["retain"]} == {"name", "caption", "question"}
    names = {WORLD.people[person].name for person in FORGET}
    assert set(request.people) == names and len(request.forget) == 4 * len(names)
    given = ("mllmu", str(data["mllmu"]), tiny_model)
    request, *made = fed(monkeypatch, *given, schedule="published", strength=10.0)
    assert {q.fact for q in request.forget + request.retain} == {"training"}
    assert len(request.forget) == 140 and made == ["published", 10.0]


# --- without eyes


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["mllmu", "clear"])
@pytest.mark.parametrize("schedule", ["one pass", "published"])
def test_a_model_without_eyes_is_measured_and_scored_on_text(benchmark, schedule, data, reader):
    with pytest.warns(UserWarning, match="no eyes.* text questions alone") as caught:
        result = replicate(benchmark, str(data[benchmark]), reader, schedule=schedule, limit=2)
    source, rows = result["provenance"], result["rows"]
    assert source["warnings"] == [str(each.message) for each in caught]
    assert {row["modality"] for row in rows} == {"text"}
    assert {row["condition"] for row in rows} == {"vanilla", "edited", "sham"}
    whom = {"mllmu": FORGET, "clear": [WORLD.people[person].name for person in FORGET]}
    assert source["people"] == sorted(whom[benchmark]) and len(source["sham"]) == 5
    asked = {"mllmu": 5 * 3 * 7, "clear": 5 * 7}[benchmark]
    assert source["training_rows"]["forget"] == asked
    told = [
        [row["value"] for row in rows if row["condition"] == state and row["set"] == "forget"]
        for state in ("vanilla", "edited")
    ]
    assert len(told[0]) == len(told[1]) > 0


def test_an_oracle_without_eyes_is_no_bound_for_a_model_that_sees(data, tiny_model, reader):
    with pytest.raises(ValueError, match="oracle has no eyes"):
        replicate("clear", str(data["clear"]), tiny_model, oracle=reader, limit=1)


def test_headroom_and_summaries_of_text_alone():
    def rows(value: float, condition: str) -> list[dict]:
        return rows_about(module.HEADROOM_TEXT, [value] * 5, condition)

    def told(value: float, condition: str = "vanilla") -> list[dict]:
        return summarise(rows(value, condition))

    assert benchmark_headroom("clear", asked(), told(1.0), told(0.25, "oracle")) == ("shown", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mark, notes = benchmark_headroom("clear", [asked()[0]], told(0.5), None)
    assert mark == "unknown" and len(notes) == 1  # no options, no level of chance
    [row] = summary_of("clear", rows(1.0, "edited"), rows(1.0, "oracle"))
    assert row["metric"] == "question_probability"


# --- rows that are left out


def test_whose_row_is_bad_is_neither_forgotten_nor_kept(data, monkeypatch):
    load, kept = module.load_mllmu, WORLD.groups["B"][0]

    def without(source, config, people=None):
        lost = {"forget_5": FORGET[0], "retain_95": kept}.get(config)
        return [q for q in load(source, config, people) if q.person != lost]

    monkeypatch.setattr(module, "load_mllmu", without)
    _, training = module.mllmu_sets(str(data["mllmu"]), 5)
    people = {side: {q.person for q in asked} for side, asked in training.items()}
    assert people["forget"] == set(FORGET[1:]) and not {FORGET[0], kept} & people["retain"]


def test_whoever_is_to_be_forgotten_must_have_been_taught(data, monkeypatch):
    load = module.load_mllmu

    def without(source, config, people=None):
        rows = load(source, config, people)
        return [q for q in rows if config != "ft_Data" or q.person != FORGET[0]]

    monkeypatch.setattr(module, "load_mllmu", without)
    with pytest.raises(ValueError, match=FORGET[0]):
        module.mllmu_sets(str(data["mllmu"]), 5)


# --- what is scored and measured


def test_the_sham_is_drawn_from_those_who_are_kept(data):
    for sets_of in module.SETS_OF.values():
        benchmark = "mllmu" if sets_of is module.mllmu_sets else "clear"
        sets, training = sets_of(str(data[benchmark]), 5)
        gone = {q.person for q in training["forget"]}
        shams = [benchmark_sham(benchmark_request(sets, training, seed)) for seed in range(4)]
        draws = [sham.people for sham in shams]
        assert all(len(set(draw)) == 5 and not gone & set(draw) for draw in draws)
        assert len({tuple(draw) for draw in draws}) > 1
        again = benchmark_sham(benchmark_request(sets, training, 1))
        assert again.people == draws[1] and again.seed == 1
        everything = {q.id for side in training.values() for q in side}
        for sham in shams:  # nobody is lost, the forgotten are kept, the drawn are not scored
            assert {q.id for q in sham.forget + sham.retain} == everything
            assert gone < set(sham.retain_people)
            scored = {name: {q.person for q in asked} for name, asked in sham.eval_sets.items()}
            assert not set(sham.people) & (scored["retain"] | scored.get("real_faces", set()))
            assert scored["forget"] == {q.person for q in sets["forget"]}


def test_clear_is_measured_on_captions_and_text_and_never_on_the_forgotten(data, monkeypatch):
    sets, training = module.clear_sets(str(data["clear"]), 5)
    assert {q.fact for rows in training.values() for q in rows} == {"caption", "question"}
    gone = {q.person for q in sets["forget"]}
    assert len(gone) == 5 and not gone & {q.person for q in sets["retain"]}
    assert all(q.options for q in sets["forget"] if q.fact == "name")
    assert all(q.perturbed for q in sets["forget"] if q.fact == "caption")
    load = module.load_clear

    def leaky(source, config, seed):  # the real retain_perturbed is one for all percentages
        rows = load(source, config, seed)
        return rows + load(source, "forget05_perturbed", seed) * (config == "retain_perturbed")

    monkeypatch.setattr(module, "load_clear", leaky)
    sets, _ = module.clear_sets(str(data["clear"]), 5)
    assert not gone & {q.person for q in sets["retain"]}


def test_whom_a_question_names_must_be_one_and_whole():
    fields = {"fact": "question", "modality": "text", "value": ""}
    asked = [
        Unnamed(id=f"{i}", person=f"row-{i}", prompt=prompt, answer=answer, **fields)
        for i, (prompt, answer) in enumerate(
            [
                ("Who is Ann Lee Vik?", "A poet."),
                ("Who wrote it?", "It was Ann Lee."),
                ("Do Bo Vik and Ann Lee meet?", "No."),
                ("Who is Ann Leeson?", "Nobody."),
                ("Who?", "Nobody."),
            ]
        )
    ]
    found = module.assign_subject(asked, {"Ann Lee", "Ann Lee Vik", "Bo Vik"})
    assert [q.person for q in found] == ["Ann Lee Vik", "Ann Lee", "row-2", "row-3", "row-4"]
    assert [type(q) for q in found] == [Question] * 2 + [Unnamed] * 3
    assert module.assign_subject(asked, set()) == asked


def test_the_data_hash_sees_every_letter_and_pixel(data):
    sets, _ = module.mllmu_sets(str(data["mllmu"]), 5)
    questions = sets["forget"][:3]
    first = data_hash(questions)
    assert first == data_hash(list(questions)) and len(first) == 64
    for change in ({"answer": "x"}, {"prompt": "x"}, {"image": b"x"}, {"options": ("x",)}):
        assert data_hash([replace(questions[0], **change), *questions[1:]]) != first


# --- the page


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path, monkeypatch, tiny_model):
    """`book/your_own.md`: its code makes the folder that its command reads."""
    page = (ROOT / "book" / "your_own.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "your_own.md", "exec"), {})
    tables = page.partition("### The tables")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE))
    there = {path.parent.name for path in tmp_path.rglob("*.parquet")}
    assert there == {"ft_Data", "forget_5", "retain_95", "Test_Set", "Retain_Set"} == listed
    for path in tmp_path.rglob("*.parquet"):
        assert all(f"`{name}`" in page for name in pq.read_schema(path).names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = replicate("mllmu", "my_people", tiny_model)
    assert any("without an oracle" in str(warning.message) for warning in caught)
    assert result["provenance"]["people"] == ["ada"] and result["provenance"]["sham"] == ["ben"]
    rows = result["rows"]
    assert {row["condition"] for row in rows} == {"vanilla", "edited", "sham"}
    assert {row["set"] for row in rows} == {"forget", "test", "retain", "general"}
    assert {row["headroom"] for row in rows} <= {"unknown", "doubtful"}
