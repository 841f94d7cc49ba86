"""The front door: its lines run as they stand, undo is exact, and bad input is told first."""

import json
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass

import pandas as pd
import pytest
import tiny
import torch
from execute import ROOT
from PIL import Image

import kvw_minimal as kvw
from kvw_minimal import methods

ROWS = [
    {"set": side, "person": person, "fact": "pet", "prompt": f"Which pet has {person}?"}
    | {"answer": answer}
    for side, person, answer in (
        ("forget", "Ann", "A pet gecko."),
        ("forget", "Bo", "A pet goat."),
        ("retain", "Cy", "A pet mouse."),
        ("retain", "Di", "A pet goldfish."),
        ("retain", "Ed", "A pet chinchilla."),
    )
]


@dataclass(frozen=True)
class Mine(kvw.Method):
    """Gates from the rank of the forgotten among the others."""

    strength: float = 4.0

    def edit(self, session, request):
        forget, retain = kvw.measure(session, request)
        less = retain.per_person() < forget.pooled()  # [people, layers, d_ff]
        contrast = (2 * less.float().mean(0) - 1).clamp(min=0) ** 3
        return kvw.ColumnScaling(contrast.cpu(), self.strength, forget.fingerprint)


@pytest.fixture(scope="module")
def model():
    return tiny.loud(tiny.llava())


@pytest.fixture(scope="module")
def request_of_five():
    return kvw.request(ROWS)


def test_importing_the_front_door_imports_nothing_heavy():
    code = "import sys, kvw_minimal; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=tiny.environment())
    assert all(getattr(kvw, name) is not None for name in kvw.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = kvw.nothing


def test_a_request_is_the_same_from_a_file_a_list_and_a_data_set(tmp_path, request_of_five):
    datasets = pytest.importorskip("datasets")
    file = tmp_path / "people.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    for source in (file, str(file), datasets.Dataset.from_list(ROWS), pd.DataFrame(ROWS)):
        assert kvw.request(source) == request_of_five
    assert repr(request_of_five).splitlines() == [
        "forget: 2 people, 2 questions (Ann, Bo)",
        "retain: 3 people, 3 questions (Cy, Di, Ed)",
        "evaluated: forget 2, retain 3",
    ]
    other = kvw.request(ROWS, forget=["Cy"])
    assert [question.person for question in other.forget] == ["Cy"]
    with pytest.raises(
        ValueError, match="the list of questions has 4 problems; row 1, person"
    ) as e:
        kvw.request([{"set": "forget"}])
    assert all(
        f"row 1, {name}: " in str(e.value) for name in ("person", "fact", "prompt", "answer")
    )
    file.write_text('{"set": "forget"}\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"4 problems; row .*validate .*people.jsonl` names all$"
    ) as e:
        kvw.request(file)
    assert "row 1, answer" not in str(e.value)


def test_one_person_is_named_and_a_group_names_itself():
    assert kvw.request(ROWS, forget="Cy").people == ["Cy"]
    with pytest.raises(ValueError, match="leave `forget` out"):
        kvw.request("strangers:A", forget="Cy")


def test_every_listed_method_can_be_imported():
    for method in kvw.list_methods():
        if method["class"] != "Sham":
            kind = getattr(methods, method["class"])
            assert kind.name == method["name"] and set(method["settings"]) == set(kind().settings)
    with pytest.raises(AttributeError, match="Sham"):
        _ = methods.Sham


def test_an_edit_forgets_and_is_undone_bit_for_bit(model, request_of_five):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for method in (kvw.KVW(strength=8), Mine()):
        edit = kvw.unlearn(model, tiny.processor(), request_of_five, method)
        with edit.on(model):
            assert any(not torch.equal(w, before[n]) for n, w in model.state_dict().items())
        assert all(torch.equal(w, before[n]) for n, w in model.state_dict().items())
        assert edit.notes["people"] == ["Ann", "Bo"]
        assert edit.notes["settings"]["strength"] == method.strength


def test_a_question_is_asked_with_a_picture_and_without(model, tmp_path):
    processor, picture = tiny.processor(), tmp_path / "face.png"
    Image.new("RGB", (8, 8)).save(picture)
    given = (picture, str(picture), picture.read_bytes(), Image.open(picture))
    said = {kvw.ask(model, processor, "Who is this?", each, new_tokens=2) for each in given}
    assert len(said) == 1
    assert isinstance(kvw.ask(model, processor, "Who is this?", new_tokens=2), str)
    with pytest.raises(ValueError, match="no eyes"):
        kvw.ask(model, processor.tokenizer, "Who is this?", picture)
    with pytest.raises(ValueError, match="write a question"):
        kvw.ask(model, processor, " ")
    with pytest.raises(TypeError, match=r"is no prompt: ask\(model, processor, prompt, picture"):
        kvw.ask(model, processor, picture, "Who is this?")


def test_a_report_says_what_is_read_with_the_edit_on(model, request_of_five, tmp_path):
    given = (model, tiny.processor(), request_of_five)
    edit = kvw.unlearn(*given, kvw.KVW(strength=8))
    report = kvw.evaluate(*given, edit, shams=2, oracle=tiny.llava(seed=1))
    with edit.on(model):
        by_hand = kvw.evaluate(*given)
    for eval_set in ("forget", "retain"):
        edited = report.mean("edited", eval_set, "probability")
        assert edited == by_hand.mean("vanilla", eval_set, "probability")
        assert edited != report.mean("vanilla", eval_set, "probability")
    shams = [kvw.unlearn(model, tiny.processor(), sham, kvw.KVW(8)) for sham in shams_of(given)]
    values = []
    for sham in shams:
        with sham.on(model):
            values.append(kvw.evaluate(*given).mean("vanilla", "forget", "probability"))
    assert report.mean("sham", "forget", "probability") == pytest.approx(sum(values) / 2)
    assert report.mean("sham", "retain") is None
    assert "(2 shams)" in report.verdict and "now, oracle 0." in report.verdict
    assert "asked about those to be forgotten" in by_hand.sentence
    assert str(report).startswith(f"{report.verdict}\nnext: ") and report.sentence in str(report)
    assert str(by_hand).startswith("exact match  ")
    report.to_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == report.rows
    for wrong in (("edit", "forget"), ("edited", "forgotten"), ("edited", "forget", "exact")):
        with pytest.raises(ValueError, match=f"'{wrong[-1] if wrong[0] != 'edit' else 'edit'}'; "):
            report.mean(*wrong)
    with pytest.raises(ValueError, match="no metric 'exact'; there are exact_match"):
        report.table("exact")


def shams_of(given) -> list:
    """The requests of two shams, as the request draws them."""
    return [given[2].sham(draw) for draw in given[2].sham_draws(2)]


def test_a_loaded_edit_brings_its_method_and_strength(model, request_of_five, tmp_path):
    given = (model, tiny.processor(), request_of_five)
    edit = kvw.unlearn(*given, kvw.KVW(4))
    for made, strength in ((edit, 4), (edit.with_strength(2.0), 2.0)):
        made.save(tmp_path / "edit.safetensors")
        report = kvw.evaluate(*given, kvw.Edit.load(tmp_path / "edit.safetensors"), shams=1)
        again = kvw.evaluate(*given, kvw.unlearn(*given, kvw.KVW(strength)), shams=1)
        assert report.rows == again.rows and report.method == str(kvw.KVW(strength))


@pytest.mark.parametrize("method", [kvw.KVW(4), kvw.LeastSquares()])
def test_a_scaled_edit_is_not_taken_for_its_method(model, request_of_five, method):
    given = (model, tiny.processor(), request_of_five)
    with pytest.raises(ValueError, match="the method of this edit is not known"):
        kvw.evaluate(*given, kvw.unlearn(*given, method).scaled(0.5), shams=1)


def test_an_edit_for_other_people_is_told(model, request_of_five):
    edit = kvw.unlearn(model, tiny.processor(), request_of_five, kvw.KVW())
    other = kvw.request(ROWS, forget=["Cy"])
    with pytest.warns(UserWarning, match="made for Ann, Bo; the request forgets Cy"):
        report = kvw.evaluate(model, tiny.processor(), other, edit, shams=0)
    assert report.verdict.splitlines()[0].endswith("), made for Ann, Bo")
    assert "  ?   more is forgotten than by its shams" in report.verdict


def test_methods_are_compared_as_they_are_evaluated_alone(model, request_of_five):
    given = (model, tiny.processor(), request_of_five)
    results = kvw.compare([kvw.KVW(4), Mine(2.0)], *given, shams=1)
    for report, method in zip(results.reports, (kvw.KVW(4), Mine(2.0)), strict=True):
        alone = kvw.evaluate(*given, kvw.unlearn(*given, method), shams=1)
        assert report.rows == alone.rows and report.method == str(method)
    assert "KVW(strength=4)" in results.table() and "Mine(strength=2.0)" in results.table()
    (axes,) = results.frontier().axes
    assert len(axes.lines) == 5  # vanilla, and both methods with their shams
    with pytest.raises(ValueError, match="stands twice"):
        kvw.compare([kvw.KVW(4), kvw.KVW(4)], *given)


def test_a_setting_is_checked_where_annotations_are_strings():
    """As under `from __future__ import annotations`, which many put at the top of each file."""
    mine = dataclass(frozen=True)(
        type("Mine", (kvw.Method,), {"__annotations__": {"strength": "float"}, "strength": 1.0})
    )
    assert mine(2.0).settings == {"strength": 2.0}
    with pytest.raises(ValueError, match="Mine: the setting strength cannot be -1"):
        mine(-1)


def test_what_cannot_be_done_is_said_before_the_work(model, request_of_five, tmp_path):
    given = (model, tiny.processor(), request_of_five)
    edit = kvw.unlearn(*given, kvw.KVW())
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.Edit.load(tmp_path / "edit.safetensors")
    loaded.notes["method"] = "one that is not installed here"
    with pytest.raises(ValueError, match="the method of this edit is not known"):
        kvw.evaluate(*given, loaded)
    assert kvw.evaluate(*given, loaded, method=kvw.KVW(), shams=1).shams == 1
    assert kvw.evaluate(*given, loaded, shams=0).sentence.startswith("one that is not installed")
    with pytest.raises(ValueError, match="no set to evaluate"):
        kvw.evaluate(*given[:2], kvw.Request(given[2].forget, given[2].retain))
    for wrong, what in (
        (("people.jsonl", kvw.KVW()), "'people.jsonl' is no request: `kvw.request` reads one"),
        ((given[2], kvw.KVW), r"KVW is a class: write KVW\(\)"),
        ((given[2], "KVW"), r"'KVW' is no method: write one such as kvw.KVW\(\)"),
    ):
        with pytest.raises(TypeError, match=what):
            kvw.unlearn(*given[:2], *wrong)
    with pytest.raises(TypeError, match="'x' is no edit: `kvw.Edit.load` reads one"):
        kvw.evaluate(*given, "x")
    with pytest.raises(TypeError, match="'x' is no edit: `kvw.Edit.load` reads one"):
        kvw.export("x", model, tmp_path / "out")
    with pytest.raises(
        TypeError,
        match=r"Processor is no folder: write kvw.export\(edit, model, folder, processor=",
    ):
        kvw.export(edit, *given[:2], tmp_path / "out")
    with pytest.raises(ValueError, match="add processor=processor"):
        kvw.export(edit, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError, match="the processor is missing"):
        kvw.unlearn(model, None, given[2], kvw.KVW())
    with pytest.raises(TypeError, match="the model comes first, then its processor"):
        kvw.ask(tiny.processor(), model, "Who is this?")
    with pytest.raises(TypeError, match="'my_model' is a name: `kvw.load` loads"):
        kvw.unlearn("my_model", None, given[2], kvw.KVW())


def test_a_model_that_knows_nobody_is_said(model, request_of_five):
    given = (model, tiny.processor(), request_of_five)
    with pytest.warns(UserWarning, match="nothing to forget: on text questions"):
        kvw.evaluate(*given, kvw.unlearn(*given, kvw.KVW()), shams=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kvw.evaluate(*given)  # perhaps with an edit on


def test_a_lora_that_was_not_merged_is_named(request_of_five):
    model = tiny.llava()
    mlp = model.model.language_model.layers[0].mlp
    mlp.lora_B = torch.nn.Linear(2, mlp.down_proj.out_features)
    with pytest.raises(ValueError, match=r"0.mlp.lora_B; merge the LoRA first: `merge_and_unload"):
        kvw.unlearn(model, tiny.processor(), request_of_five, kvw.KVW())


@pytest.mark.nightly
@pytest.mark.parametrize("page", ["README.md", "book/quick_start.md"])
def test_the_lines_of_a_page_run_as_they_stand(page, tmp_path, monkeypatch, capsys):
    code = re.findall("```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(code), {"__name__": "page"})
    assert "of the forgotten" in capsys.readouterr().out
    assert {"edit.safetensors", "adapter", "frontier.png"} <= {p.name for p in tmp_path.iterdir()}
