"""Edits for other tools, loaded where this package is not; coefficients as files."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kvw_minimal import sharing
from kvw_minimal.__main__ import app
from kvw_minimal.coefficients import Coefficients
from kvw_minimal.edits import ColumnScaling, Edit, LowRank, WeightReplacement
from kvw_minimal.models import find_projections, fingerprint, weight_stats
from kvw_minimal.sharing import card, exporters
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo import catalogue, load

NAMES = ("Ada Lark", "p0451", "quixote")
NOTES = {"method": "KVW one pass", "settings": {"strength": 2.0}, "people": list(NAMES)}
FORMS = ("peft", "merged", "factors")
#: of each model, which edits go out in which forms
CASES = {
    "llava": {
        "gates": FORMS,
        "shares": ("peft",),
        "low rank": FORMS,
        "two gates": ("peft",),
        "two low ranks": ("peft",),
    },
    "qwen2_vl": {"gates": ("peft",), "low rank": ("peft",)},
    "llama": {"gates": FORMS, "low rank": FORMS, "mixed": ("factors",)},
    "gpt2": {"gates": ("peft", "factors"), "low rank": ("peft",)},
}
#: run where this package is not: what each card says, then logits
STRANGER = """
import json, re, sys
sys.modules["kvw_minimal"] = None
try:
    import kvw_minimal
except ImportError:
    pass
else:
    raise SystemExit("the package is there")
import torch
from safetensors.torch import load_file, save_file
found = {}
for name, case in json.load(open(sys.argv[1])).items():
    inputs = load_file(case["inputs"])
    code = re.search("```python\\n(.*?)```", open(case["folder"] + "/README.md").read(), re.S)[1]
    known = {"FOLDER": case["folder"], "UNEDITED": case["base"]}
    exec(code, known)
    model = known["model"].eval()
    with torch.no_grad():
        found[name] = model(**inputs).logits.contiguous()
save_file(found, sys.argv[2])
"""


def loud(name: str) -> torch.nn.Module:
    """A tiny model whose FFNs can be heard in what it says."""
    return tiny.loud(tiny.llava() if name == "llava" else tiny.build(name))


def asked(name: str) -> dict[str, torch.Tensor]:
    """Ids, and pictures where it has eyes."""
    batch = tiny.picture_batch(name) if name == "qwen2_vl" else tiny.random_batch()
    return batch.inputs


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def columns_of(model, seed: int = 0, rule: str = "gate") -> ColumnScaling:
    contrast = drawn(tiny.LAYERS, tiny.D_FF, seed=seed)
    contrast = contrast.abs() if rule == "gate" else contrast
    return ColumnScaling(contrast, 2.0, fingerprint(model), notes=NOTES, rule=rule)


def low_rank(model, ranks=(2, 3, 5), seed: int = 0, strength: float = 0.5) -> LowRank:
    """An addition to each output projection, of ranks that differ."""
    factors = {}
    for rank, (path, projection) in zip(ranks, find_projections(model).items(), strict=True):
        out, into = projection.weight.shape
        factors[f"{path}.weight"] = (drawn(out, rank, seed=seed), drawn(rank, into, seed=seed + 1))
    return LowRank(factors, fingerprint(model), strength, notes=NOTES)


def edit_of(model, key: str) -> Edit:
    """By its name in `CASES`."""
    if key == "mixed":
        return columns_of(model) + low_rank(model)
    if key == "two low ranks":
        return low_rank(model) + (low_rank(model, seed=5) + low_rank(model, seed=7))
    if "rank" in key:
        return low_rank(model)
    edit = columns_of(model, rule="share" if key == "shares" else "gate")
    return edit + columns_of(model, 1) if key == "two gates" else edit


def weights(model) -> WeightReplacement:
    path = next(iter(find_projections(model)))
    new = {f"{path}.weight": model.get_submodule(path).weight.detach() + 0.5}
    return WeightReplacement(new, fingerprint(model), notes=NOTES)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """`{case: (logits with the edit on, plain logits)}`, and the logits in another process."""
    place = tmp_path_factory.mktemp("shared")
    cases, expected = {}, {}
    for name, edits in CASES.items():
        model, inputs = loud(name), asked(name)
        model.save_pretrained(place / name)
        save_file({key: tensor.contiguous() for key, tensor in inputs.items()}, place / f"{name}.i")
        processor = tiny.processor() if name == "llava" else tiny.tokenizer()
        with torch.no_grad():
            plain = model(**inputs).logits
            for key, forms in edits.items():
                edit = edit_of(model, key)
                with edit.on(model):
                    edited = model(**inputs).logits
                for form in forms:
                    case = f"{name}, {key}, {form}"
                    sharing.export_edit(edit, model, processor, place / case, form)
                    expected[case] = edited, plain
                    cases[case] = {
                        "folder": str(place / case),
                        "base": str(place / name),
                        "inputs": str(place / f"{name}.i"),
                    }
            assert torch.equal(model(**inputs).logits, plain)
    (place / "cases.json").write_text(json.dumps(cases))
    subprocess.run(
        [sys.executable, "-c", STRANGER, place / "cases.json", place / "said"],
        check=True,
        env=tiny.environment(),
    )
    return expected, load_file(place / "said"), place


@pytest.mark.slow
def test_other_tools_say_what_the_edited_model_says(said):
    """On the plain model, by the code of the card, without this package."""
    expected, found, _ = said
    assert set(expected) == set(found)
    for case, (edited, plain) in expected.items():
        assert (edited - plain).abs().max() > 0.01, case
        torch.testing.assert_close(found[case], edited, atol=1e-5, rtol=1e-5, msg=case)


# --- the card ------------------------------------------------------------------------------------

ROW = {
    "condition": "edited",
    "set": "forget",
    "modality": "text",
    "metric": "exact_match",
    "value": 0.25,
    "low": 0.1,
    "high": 0.4,
    "n": 5,
}
ROWS = [
    ROW | {"condition": state, "value": value, "people": list(NAMES)}
    for state, value in (("vanilla", 1.0), ("edited", 0.25), ("sham", 0.875))
]


@pytest.fixture(scope="module")
def llama():
    return loud("llama")


@pytest.mark.slow
def test_nothing_that_is_written_names_anybody_or_a_place(said):
    place = said[2]
    files = [p for p in place.rglob("*") if p.is_file() and p.name not in ("cases.json", "said")]
    assert len(files) > 60
    for word in (*NAMES, str(place), str(Path.home())):
        assert [file for file in files if word.encode() in file.read_bytes()] == [], word


def test_scores_do_not_name_anybody_unless_it_is_wanted(llama, tmp_path):
    edit = columns_of(llama) + low_rank(llama)
    for named in (False, True):
        folder = tmp_path / str(named)
        sharing.export_edit(
            edit, llama, tiny.tokenizer(), folder, "merged", scores=ROWS, named=named
        )
        text = (folder / "README.md").read_text()
        assert [name in text for name in NAMES] == [named] * 3
        assert (card.PRIVATE in text) != named
    assert text.count('| KVW one pass | `{"strength": 2.0}` |') == 2
    lines = [line.split() for line in text.splitlines()]
    assert "| set | modality | metric | n_people | n | vanilla | edited | sham |".split() in lines
    means = "| forget | text | exact_match | - | 5 | 1.000 [0.100, 0.400] | 0.250 [0.100, 0.400] |"
    assert any(line[: len(means.split())] == means.split() for line in lines)
    assert card.NO_SHAM not in text and card.LIMITS in text and card.NO_SCORES not in text
    assert fingerprint(llama) in text


def test_a_card_says_what_is_missing(llama, tmp_path):
    edit = columns_of(llama)
    for name, scores, words in (("none", None, card.NO_SCORES), ("no sham", [ROW], card.NO_SHAM)):
        sharing.export_edit(edit, llama, None, tmp_path / name, "peft", scores=scores)
        text = (tmp_path / name / "README.md").read_text()
        assert words in text and ("No general question was asked" in text) == bool(scores)


def test_a_card_has_the_metadata_of_the_hub(llama, tmp_path):
    named = {"base_model": "owner/name", "license": "mit"}
    scores = [*ROWS, *(row | {"modality": "image", "value": 0.5} for row in ROWS)]
    sharing.export_edit(
        columns_of(llama), llama, None, tmp_path / "x", "peft", scores=scores, **named
    )
    text = (tmp_path / "x" / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.base_model, data.license, data.pipeline_tag) == (
        *named.values(),
        "text-generation",
    )
    found = {each.dataset_config: each.metric_value for each in data.eval_results}
    assert found == {"forget": 0.375}  # the mean over both modalities
    assert data.library_name == "peft"
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/name" and config["task_type"] == "CAUSAL_LM"
    assert "AutoModelForCausalLM.from_pretrained('owner/name'" in text


@pytest.mark.slow
def test_a_folder_repeats_its_scores_without_this_package(tmp_path, monkeypatch):
    """And another edit than the exported one does not; what the folder says is computed once."""
    loud("llava").save_pretrained(tmp_path / "base")
    tiny.processor().save_pretrained(tmp_path / "base")
    model, processor = load(str(tmp_path / "base"))
    asked, edit = tiny.some_questions(load_people()), columns_of(model)
    given = model, processor, asked, ""
    sharing.export_edit(edit, model, processor, tmp_path / "x", "peft")
    run, said = subprocess.run, []

    def recorded(*command, **more):
        said.append(run(*command, **more))
        return said[0]

    monkeypatch.setattr(subprocess, "run", recorded)
    text, same = sharing.repeat_scores(tmp_path / "x", edit, *given)
    assert same and "equal to 4 digits" in text
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said[0])
    other, same = sharing.repeat_scores(tmp_path / "x", edit.with_strength(0.0), *given)
    assert not same and "other by up to" in other
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nno weights")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match="cannot be loaded without this package: no weights"):
        sharing.repeat_scores(tmp_path / "x", edit, *given)


def test_a_hub_id_is_said_and_of_a_folder_not_its_place(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models/mine").mkdir(parents=True)
    for i, (name, base) in enumerate(
        [
            ("org/model", "org/model"),
            (str(tmp_path), f"./{tmp_path.name}"),
            ("/nowhere/model", "./model"),
            ("models/mine/", "./models/mine"),
            ("models/../models/mine", "./mine"),
            ("../model", "./model"),
            ("", None),
        ]
    ):
        monkeypatch.setattr(llama, "name_or_path", name, raising=False)
        sharing.export_edit(columns_of(llama), llama, None, tmp_path / f"{i}", "peft")
        assert PeftConfig.from_pretrained(tmp_path / f"{i}").base_model_name_or_path == base
        text = (tmp_path / f"{i}" / "README.md").read_text()
        hub = base == "org/model"
        assert ("base_model: org/model\n" in text) == hub
        assert (".from_pretrained('org/model', dtype=\"float32\")" in text) == hub
        assert (card.PLACES["UNEDITED"] in text) != hub and "FOLDER is this folder" in text
        assert str(tmp_path) not in text and "nowhere" not in text


def test_peft_finds_the_folder_of_the_unedited_model_by_itself(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    llama.save_pretrained("my_model")
    model = type(llama).from_pretrained("my_model").eval()
    edit = columns_of(model)
    sharing.export_edit(edit, model, None, "adapter", "peft")
    inputs = asked("llama")
    with torch.no_grad():
        found = AutoPeftModelForCausalLM.from_pretrained("adapter")(**inputs).logits
        with edit.on(model):
            torch.testing.assert_close(found, model(**inputs).logits, atol=1e-5, rtol=1e-5)


# --- refusals ------------------------------------------------------------------------------------


def refused(tmp_path: Path, error, match: str | None, *given, **more) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match):
        sharing.export_edit(*given, **more)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_an_adapter_cannot_be_is_refused(llama, tmp_path):
    mark, words = fingerprint(llama), "model.embed_tokens.weight"
    pair = (drawn(tiny.VOCABULARY, 2), drawn(2, tiny.WIDTH))
    mixed = columns_of(llama) + low_rank(llama)
    strange, nothing = LowRank({words: pair}, mark), LowRank({}, mark)
    for edit, match in (
        (weights(llama), "neither"),
        (mixed, "neither"),
        (strange, "no linear map"),
        (nothing, "changes nothing"),
    ):
        refused(tmp_path, ValueError, match, edit, llama, None, tmp_path / "x", "peft")


def test_what_does_not_belong_together_is_refused(llama, tmp_path):
    edit = columns_of(llama)
    other = replace(edit, fingerprint="0" * 16)
    for form in sharing.FORMATS:
        given = (other, llama, tiny.tokenizer(), tmp_path / "x", form)
        refused(tmp_path, ValueError, "another model", *given)
        lacking = low_rank(llama)
        lacking.factors["nowhere.weight"] = (drawn(2, 1), drawn(1, 2))
        given = (lacking, llama, tiny.tokenizer(), tmp_path / "x", form)
        refused(tmp_path, ValueError, "'nowhere.weight', a weight that", *given)
    refused(
        tmp_path,
        ValueError,
        "no format 'gguf'; there are merged, peft, factors",
        edit,
        llama,
        None,
        tmp_path / "x",
        "gguf",
    )
    own = type("Own", (type(llama),), {"__module__": "mine"})(llama.config)
    mine = replace(edit, fingerprint=fingerprint(own))
    given = (mine, own, tiny.tokenizer(), tmp_path / "x")
    refused(tmp_path, ValueError, "cannot load a Own", *given)
    missing = "add processor=processor"
    refused(tmp_path, ValueError, missing, edit, llama, None, tmp_path / "x")
    with columns_of(llama, 1).on(llama):
        refused(
            tmp_path, ValueError, "another edit is on", edit, llama, None, tmp_path / "x", "peft"
        )


@pytest.mark.parametrize("rows", [[1], [{}], [ROW | {"value": "high"}], [ROW | {"low": None}]])
def test_scores_that_are_no_rows_are_refused(llama, tmp_path, rows):
    refused(
        tmp_path,
        ValueError,
        "no rows of `unlearn --json`",
        columns_of(llama),
        llama,
        None,
        tmp_path / "x",
        "peft",
        scores=rows,
    )


def test_what_is_there_is_never_replaced(llama, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere/at all")
    for name in ("full", "file"):
        given = (columns_of(llama), llama, None, tmp_path / name, "peft")
        refused(tmp_path, FileExistsError, "there already", *given)
    for name in ("link", "none/x", "file/x"):
        given = (columns_of(llama), llama, None, tmp_path / name, "peft")
        refused(tmp_path, FileNotFoundError, "make it first", *given)


@pytest.mark.parametrize(
    "error, seen",
    [
        (SafetensorError("full"), OSError),
        (OSError(28, "full"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_folder_is_there_whole_or_not_at_all(llama, tmp_path, monkeypatch, error, seen):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(exporters, "save_file", fail)
    (tmp_path / "empty").mkdir()
    for form in ("peft", "factors"):
        given = (columns_of(llama), llama, None, tmp_path / "empty", form)
        refused(tmp_path, seen, None, *given)
    monkeypatch.setattr(llama, "save_pretrained", fail)
    before = fingerprint(llama)
    given = (columns_of(llama), llama, tiny.tokenizer(), tmp_path / "empty")
    refused(tmp_path, seen, None, *given)
    assert fingerprint(llama) == before


def test_an_edit_of_rounded_weights_is_exported_too(tmp_path):
    exact = loud("llama")
    edit = replace(columns_of(exact), weight_stats=weight_stats(exact))
    half = loud("llama").bfloat16()
    sharing.export_edit(edit, half, tiny.tokenizer(), tmp_path / "x")
    assert 'dtype="bfloat16"' in (tmp_path / "x" / "README.md").read_text()
    assert "bfloat16" in (tmp_path / "x" / "config.json").read_text()


# --- the command ---------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_a_saved_edit_is_exported(llama, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kvw_minimal.zoo.load",
        lambda name, device, dtype: seen.append((name, dtype)) or (llama, tiny.tokenizer()),
    )
    columns_of(llama).save(tmp_path / "edit")
    (tmp_path / "rows.json").write_text(json.dumps({"rows": ROWS}))
    audit = {"rows": [], "verdict": "quiet", "provenance": {"edit": NOTES}}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    other = audit | {"provenance": {"edit": NOTES | {"people": ["ben"]}}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    refused = invoke(
        "--edit", tmp_path / "edit", tmp_path / "z", "--scores", tmp_path / "other.json"
    )
    assert "is the audit of another edit" in str(refused.exception)
    done = invoke(
        "--edit",
        tmp_path / "edit",
        "--model",
        "mine",
        tmp_path / "x",
        "--format",
        "peft",
        "--scores",
        tmp_path / "rows.json",
        "--scores",
        tmp_path / "audit.json",
        "--named",
    )
    assert done.exit_code == 0 and "as peft" in done.output, done.output
    text = (tmp_path / "x" / "README.md").read_text()
    assert "0.875" in text and NAMES[0] in text and "hidden knowledge: quiet." in text
    assert "edited to forget 3 people" in text
    done = invoke("--edit", tmp_path / "edit", tmp_path / "y", "--dtype", "bfloat16")
    assert done.exit_code == 0 and (tmp_path / "y" / "tokenizer.json").is_file()
    assert seen == [("mine", torch.float32), ("pocket", torch.bfloat16)]
    assert NAMES[0] not in (tmp_path / "y" / "README.md").read_text()


def test_a_folder_is_pushed_by_the_hubs_own_call(llama, tmp_path, monkeypatch):
    """The calls are recorded: no network."""
    calls = []
    monkeypatch.setattr("kvw_minimal.zoo.load", lambda name, **_: (llama, tiny.tokenizer()))
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(
            f"huggingface_hub.{name}",
            lambda *given, of=name, **more: calls.append((of, *given, more)),
        )
    monkeypatch.setattr(catalogue, "urlopen", lambda *_, **__: io.BytesIO())
    columns_of(llama).save(tmp_path / "edit")
    done = invoke("--edit", tmp_path / "edit", tmp_path / "x", "--push-to-hub", "me/mine")
    assert done.exit_code == 0 and "me/mine" in done.output, done.output
    assert calls == [
        ("create_repo", "me/mine", {"exist_ok": True}),
        ("upload_folder", {"repo_id": "me/mine", "folder_path": tmp_path / "x"}),
    ]
    assert (tmp_path / "x" / "README.md").is_file()


def test_a_hub_that_does_not_answer_is_said_before_the_work(llama, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(catalogue, "urlopen", fail)
    monkeypatch.setattr("kvw_minimal.zoo.load", lambda name, **_: pytest.fail("loaded"))
    columns_of(llama).save(tmp_path / "edit")
    done = invoke("--edit", tmp_path / "edit", tmp_path / "x", "--push-to-hub", "me/mine")
    assert isinstance(done.exception, ConnectionError) and "does not answer" in str(done.exception)
    assert not (tmp_path / "x").exists()


def test_a_call_that_cannot_work_loads_no_model(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("kvw_minimal.zoo.load", lambda name, **_: pytest.fail("loaded"))
    columns_of(llama).save(tmp_path / "edit")
    (tmp_path / "rows.json").write_text("{}")
    for arguments, word in (
        (["--edit", tmp_path / "none", tmp_path / "x"], "does not exist"),
        (["--edit", tmp_path / "edit", tmp_path], "there already"),
        (["--edit", tmp_path / "edit", tmp_path / "x", "--format", "onnx"], "no format 'onnx'"),
        (["--edit", tmp_path / "rows.json", tmp_path / "x"], "is not an edit"),
        (
            ["--edit", tmp_path / "edit", tmp_path / "x", "--scores", tmp_path / "rows.json"],
            "has no rows",
        ),
    ):
        done = invoke(*arguments)
        said = " ".join(f"{done.output} {done.exception}".replace("│", " ").split())
        assert done.exit_code and word in said, arguments


# --- coefficients as files -----------------------------------------------------------------------


@pytest.fixture
def measured() -> Coefficients:
    return Coefficients(
        drawn(2, 3, 4).abs(), torch.tensor([2.0, 7.0]), ("a", "ü"), "f" * 16, "answer and end"
    )


@pytest.mark.parametrize("joined", [False, True])
def test_coefficients_come_back_as_they_were(measured, tmp_path, joined):
    measured = measured + measured if joined else measured
    sharing.save_measured(measured, tmp_path / "x")
    back = sharing.load_measured(tmp_path / "x")
    assert torch.equal(back.sums, measured.sums) and back.sums.dtype == measured.sums.dtype
    assert torch.equal(back.tokens, measured.tokens) and back.people == measured.people
    assert (back.fingerprint, back.mask) == (measured.fingerprint, measured.mask)


def test_damaged_files_of_coefficients_are_refused(measured, tmp_path, llama):
    sharing.save_measured(measured, tmp_path / "x")
    whole = (tmp_path / "x").read_bytes()
    for content in (
        b"",
        whole[:-3],
        whole.replace(b"ffff", b"fffe"),
        whole.replace(b'"format":"1"', b'"format":"9"'),
    ):
        (tmp_path / "y").write_bytes(content)
        with pytest.raises(ValueError, match="no coefficients, or is damaged"):
            sharing.load_measured(tmp_path / "y")
    columns_of(llama).save(tmp_path / "edit")
    with pytest.raises(ValueError, match="format is not 1"):
        sharing.load_measured(tmp_path / "edit")
    with pytest.raises(FileNotFoundError):
        sharing.load_measured(tmp_path / "none")
    for wrong in (
        replace(measured, people=("a",)),
        replace(measured, tokens=torch.ones(3)),
        replace(measured, sums=torch.ones(2, 3)),
    ):
        sharing.save_measured(wrong, tmp_path / "y")
        with pytest.raises(ValueError, match="do not go together"):
            sharing.load_measured(tmp_path / "y")
