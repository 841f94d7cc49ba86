"""The command line: what it prints, what it refuses, and that a refusal writes nothing."""

import getpass
import json
import os
import re
import signal
import socket
import sys
from base64 import b64encode
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import tiny
from typer.testing import CliRunner

from kvw_experiments import comparison, demo, runner
from kvw_experiments.results_store import read_rows
from kvw_minimal.__main__ import app, main
from kvw_minimal.benchmarks import replicate
from kvw_minimal.evaluation import pipeline, resume
from kvw_minimal.evaluation.provenance import file_hash
from kvw_minimal.kvw import KVW, STRENGTH, PublishedKVW
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.rewrite import Rewrite
from kvw_minimal.results import bounds, cell
from kvw_minimal.strangers.people import load_people
from kvw_minimal.testing import check_command
from kvw_minimal.zoo.catalogue import MODELS


def invoke(*arguments):
    """The command inside this process: output, exit code, exception."""
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    """Pocket, group A, two shams, some of each set read: what it wrote and said."""
    folder = tmp_path_factory.mktemp("unlearned")
    path, edit = folder / "rows.json", folder / "edit.safetensors"
    arguments = ["unlearn", "--model", "pocket", "--forget-percent", 5, "--sham-draws", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "request_of", small.little_of(pipeline.request_of))
        done = invoke(*arguments, "--json", path, "--save-edit", edit)
        assert done.exit_code == 0, done.output
        yield json.loads(path.read_text()), edit, done.output


@pytest.mark.slow
def test_unlearn_writes_rows_of_four_states(unlearned):
    """The promised keys, finite numbers, and a table that says the same."""
    rows, said = unlearned[0]["rows"], unlearned[2]
    assert {row["condition"] for row in rows} == {"vanilla", "edited", "sham", "oracle"}
    about = {"condition", "strength", "set", "modality", "metric"}
    keys = about | {"value", "low", "high", "n_people", "n"}
    for row in rows:
        lost_most = (row["set"], row["metric"]) == ("retain", "exact_match")
        assert set(row) == keys | ({"right"} if lost_most else set())
        low, high = bounds(row)
        assert low <= row["value"] <= high <= 1
        assert low >= 0 or row["metric"].endswith("_beyond_sham")
    head, *lines = said[said.index("exact match") :].splitlines()
    assert head.split() == ["exact", "match", "people", "vanilla", "edited", "sham", "oracle"]
    forget = [
        row
        for row in rows
        if row["condition"] == "edited" and (row["set"], row["metric"]) == ("forget", "exact_match")
    ]
    asked = {" ".join(line.split()[:3]): line for line in lines if " by " in line}
    assert forget and all(cell(row) in asked[f"forget by {row['modality']}"] for row in forget)
    assert " - " in asked["retain by text"]  # a sham is not read on retain


@pytest.mark.slow
def test_a_saved_edit_is_evaluated_to_the_same_rows(unlearned):
    content, edit, _ = unlearned
    _, again = pipeline.run_evaluation("pocket", "A", 5, edit)
    strengths = {"vanilla": None, "edited": STRENGTH}
    assert [row | {"strength": strengths[row["condition"]]} for row in again["rows"]] == [
        row for row in content["rows"] if row["condition"] in strengths
    ]


@pytest.fixture
def strange(monkeypatch, tmp_path):
    """Another home, user and host, and words that may not stand in what is written."""
    words = ["quixote", "rocinante", "mancha.example"]
    home = tmp_path / words[0] / words[1]
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, words[2] if name == "HOSTNAME" else words[0])
    monkeypatch.setattr("socket.gethostname", lambda: words[2])
    monkeypatch.setattr("platform.node", lambda: words[2])
    own = {socket.gethostname(), getpass.getuser(), os.environ["HOME"], str(Path.cwd())}
    return home, [*words, str(tmp_path), *own]


def test_one_file_holds_no_edits_of_several_strengths(tmp_path):
    """Neither those of the command line nor those of an earlier run."""
    settings = [KVW(strength).settings for strength in (1.0, 2.0)]
    earlier = {"asked": {}, "method": KVW.name, "settings": settings}
    (tmp_path / "rows.json").write_text(json.dumps({"provenance": earlier}))
    for words in (["--strength", "1,2"], ["--config", tmp_path / "rows.json"]):
        done = invoke("unlearn", *words, "--save-edit", tmp_path / "edit")
        assert done.exit_code == 2 and "--save-edit holds one edit" in done.output


@pytest.mark.slow
def test_nothing_that_is_written_tells_whose_machine_it_was(strange, monkeypatch):
    home, words = strange
    rows, edit, model = home / "rows.json", home / "edit", home / "model"
    model.symlink_to(MODELS / "pocket")
    arguments = [
        "unlearn",
        "--model",
        model,
        "--no-oracle",
        "--sham-draws",
        "1",
        f"--json={rows}",
        "--save-edit",
        edit,
    ]
    monkeypatch.setattr("sys.argv", ["kvw", *map(str, arguments)])
    monkeypatch.setattr(pipeline, "request_of", small.little_of(lambda *_, **__: small.case()))
    assert invoke(*arguments).exit_code == 0
    table = home / "small.parquet"
    with small.planned(small.plan()):
        assert invoke("book", "run", "small", "strength", "--save", table).exit_code == 0
        _, made = read_rows("small", table)
    for content in (
        rows.read_bytes(),
        edit.read_bytes(),
        table.read_bytes(),
        json.dumps(made).encode(),
    ):
        assert [word for word in words if word.encode() in content] == []
    assert "--model model --no-oracle --sham-draws 1 --json=rows.json" in rows.read_text()


def test_what_cannot_be_written_does_not_lose_the_rest(monkeypatch, tmp_path):
    def fail(path):
        raise OSError(28, "No space left on device")

    edit = SimpleNamespace(save=fail)
    result = {"rows": [], "provenance": {}}
    monkeypatch.setattr(pipeline, "run_unlearning", lambda *_, **__: (result, [edit]))
    monkeypatch.setattr(pipeline, "results_text", lambda *_: "the edit")
    done = invoke("unlearn", "--save-edit", tmp_path / "x", "--json", tmp_path / "x.json")
    assert isinstance(done.exception, OSError) and "the edit" in done.output
    assert json.loads((tmp_path / "x.json").read_text()) == result
    edit.save = Path.touch
    monkeypatch.setattr("kvw_minimal.evaluation.options.write_json", lambda path, _: fail(path))
    done = invoke("unlearn", "--save-edit", tmp_path / "x", "--json", tmp_path / "y.json")
    assert isinstance(done.exception, OSError) and (tmp_path / "x").is_file()


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("no group\n 'Z'"), "no group 'Z'"),
        (ValueError(), "ValueError"),
        (PermissionError(13, "Permission denied", "x"), "Permission denied: x"),
        (OSError("cannot load 'x'"), "cannot load 'x'"),
        (BrokenPipeError(32, "x"), "nobody reads"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), "No module named 'peft'"),
        (KeyboardInterrupt(), "interrupted; a command with --save keeps its rows"),
    ],
)
def test_what_was_to_be_expected_is_one_sentence(monkeypatch, capsys, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "run_evaluation", fail)
    monkeypatch.setattr("sys.argv", ["kvw", "evaluate"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {said}") and printed.count("\n") == 1


@pytest.mark.parametrize("library", ["sklearn", "peft"])
def test_what_an_audit_needs_is_asked_for_before_the_work(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(pipeline, "build_request", lambda *_, **__: pytest.fail("after the work"))
    done = invoke("audit")
    assert isinstance(done.exception, ModuleNotFoundError) and library in str(done.exception)


def test_what_a_check_of_an_adapter_needs_is_asked_for_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    edit = tmp_path / "edit"
    edit.touch()
    given = ("--edit", edit, "--format", "peft", "--check", "x.jsonl", tmp_path / "adapter")
    done = invoke("export", *given)
    assert isinstance(done.exception, ModuleNotFoundError) and "peft" in str(done.exception)
    assert list(tmp_path.iterdir()) == [edit]


def test_a_job_queue_ends_a_command_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(
        pipeline, "run_evaluation", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    monkeypatch.setattr("sys.argv", ["kvw", "evaluate"])
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 143 and signal.getsignal(signal.SIGTERM) == former
    assert capsys.readouterr().err.startswith("error: ended from outside; a command with --save")


def test_a_folder_is_for_one_process(tmp_path):
    with resume.only_process(tmp_path / "new") as take:
        (tmp_path / "new").mkdir()
        take()
        with pytest.raises(ValueError, match="another process works in"):
            resume.check_folder(tmp_path / "new")
    half = tmp_path / "new" / ".rows.json.1234.part"
    half.touch()
    resume.check_folder(tmp_path / "new")
    assert not half.exists()


def test_a_folder_for_others_is_not_written_into(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(ValueError, match=r"a model or an export \(adapter_config.json\)"):
        resume.check_folder(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RuntimeError("x"),
        ModuleNotFoundError("No module named 'kvw_minimal.x'", name="kvw_minimal.x"),
    ],
)
def test_a_fault_of_the_program_is_not_hidden(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "run_evaluation", fail)
    monkeypatch.setattr("sys.argv", ["kvw", "evaluate"])
    with pytest.raises(type(error)):
        main()


REFUSED = [
    (["--strength", "-1"], "strength"),
    (["--layers", "0:9"], "layers"),
    (["--method", "never"], "method"),
    (["--method", "SSD", "--settings", '{"alpha": -1}'], "the setting alpha cannot be -1"),
    (["--model", "no/such-model"], "--no-oracle"),
    (["--model", "no/such-model", "--no-oracle"], "no/such-model"),
    (["--group", "B", "--forget-percent", "15"], "--no-oracle"),
]


@pytest.fixture
def offline(monkeypatch):
    """As `HF_HUB_OFFLINE=1`, in this process."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("arguments, word", REFUSED)
def test_a_refusal_is_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capsys, offline, arguments, word
):
    path = tmp_path / "rows.json"
    if "--model" not in arguments:  # pocket would measure first, half a minute
        monkeypatch.setattr(pipeline, "request_of", lambda *_, **__: small.case())
    monkeypatch.setattr("sys.argv", ["kvw", "unlearn", *arguments, "--json", str(path)])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error:") and word in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--layers", "first"], "write 0:3 or 0.0:1.0"),
        (["--settings", "{rate"], "is not JSON"),
        (["--settings", "[1]"], "is an object"),
        (["--sham-draws", "0"], "draws"),
        (["--strength", "8,x"], "write 24 or 8,32,64"),
        (["--strength", "8,32", "--save-edit", "x"], "--save FOLDER holds several"),
        (["--questions", "x", "--group", "A"], "--group is for groups of strangers"),
        (
            ["--questions", "x", "--forget-percent", "5"],
            "--forget-percent is for groups of strangers",
        ),
        (["--questions", "x", "--oracle"], "'--oracle' requires an argument"),
        (["--people", "p001", "--group", "A"], "leave it out, --people says who is forgotten"),
        (["--schedule", "never"], "No such option"),
        (["--method", "rewrite", "--strength", "2"], "--strength is for KVW"),
        (["--settings", '{"strength": 2.0}', "--layers", "0:1"], "--layers is for KVW"),
    ],
)
def test_options_that_cannot_be_read_are_refused(monkeypatch, arguments, word):
    monkeypatch.setattr(
        pipeline, "run_unlearning", lambda *_: pytest.fail("noticed after the work")
    )
    done = invoke("unlearn", *arguments)
    assert done.exit_code == 2 and word in " ".join(done.output.replace("│", " ").split())


@pytest.mark.parametrize(
    "arguments, methods",
    [
        ([], [KVW(STRENGTH)]),
        (["--method", "rewrite"], [Rewrite()]),
        (["--method", "KVW published"], [PublishedKVW()]),
        (["--layers", "1:2", "--strength", "3"], [KVW(3.0, (1, 2))]),
        (["--strength", "3,0.5"], [KVW(3.0), KVW(0.5)]),
        (
            ["--method", "SSD", "--settings", '{"limit": 1.0, "alpha": 2.0}'],
            [METHODS["SSD"](limit=1.0, alpha=2.0)],
        ),
    ],
)
def test_settings_reach_the_method(monkeypatch, arguments, methods):
    seen = []

    def unlearn(**given):
        seen.append(given)
        raise ValueError("enough")

    monkeypatch.setattr(pipeline, "run_unlearning", unlearn)
    invoke(
        "unlearn",
        "--group",
        "B",
        "--forget-percent",
        10,
        "--sham-draws",
        3,
        "--no-oracle",
        *arguments,
    )
    wanted = {"group": "B", "percent": 10, "methods": methods, "draws": 3, "oracle": False}
    assert seen[0] | wanted == seen[0] and seen[0]["people"] == []
    ends = [
        [type(end) for method in made for end in method.settings.get("layers", [])]
        for made in (seen[0]["methods"], methods)
    ]
    assert ends[0] == ends[1]  # layers (0, 1) are two, (0.0, 1.0) all of them


@pytest.mark.parametrize(
    "command, words",
    [
        ("unlearn --json folder", "name a file"),
        ("unlearn --save-edit folder", "name a file"),
        ("evaluate --json folder", "name a file"),
        ("book demo --picture folder", "name a file"),
        ("book run precision --save folder", "name a file"),
        ("replicate --benchmark mllmu --data x --model x --json folder", "name a file"),
        ("unlearn --json none/rows.json", "does not exist"),
        ("evaluate --edit edit --json link", "one file"),
        ("evaluate --edit none.safetensors", "--edit"),
        ("evaluate --edit .", "--edit"),
    ],
)
def test_places_that_cannot_be_are_refused_before_the_work(tmp_path, monkeypatch, command, words):
    for module, work in (
        (pipeline, "run_unlearning"),
        (pipeline, "run_evaluation"),
        (demo, "demo"),
        (replicate, "replicate"),
        (runner, "run"),
    ):
        monkeypatch.setattr(module, work, lambda *_, **__: pytest.fail("after the work"))
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("edit").touch()
    Path("link").symlink_to("edit")
    before = sorted(tmp_path.rglob("*"))
    done = invoke(*command.split())
    assert done.exit_code in (1, 2) and words in f"{done.output} {done.exception}"
    assert isinstance(done.exception, (OSError, ValueError, SystemExit))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_edit_and_a_request_reach_the_evaluation(monkeypatch, tmp_path):
    file, seen, result = tmp_path / "edit", [], {"rows": [], "provenance": {}}
    file.touch()
    monkeypatch.setattr(
        pipeline, "run_evaluation", lambda *given, **_: seen.append(given) or ("", result)
    )
    path = tmp_path / "rows.json"
    assert invoke("evaluate", "--edit", file, "--group", "B", "--json", path).exit_code == 0
    assert invoke("evaluate", "--model", "smol", "--forget-percent", 10).exit_code == 0
    assert seen == [("pocket", "B", 5, file), ("smol", "A", 10, None)]
    assert json.loads(path.read_text()) == result


def test_validate_names_what_is_wrong_with_a_file(tmp_path):
    row = {
        "set": "forget",
        "person": "Ann",
        "fact": "pet",
        "prompt": "Which pet has Ann?",
        "answer": "A cat.",
    }
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    rows = [row, row | {"set": "retain", "person": "Ben", "prompt": "Which pet has Ben?"}]
    good.write_text("".join(json.dumps(each) + "\n" for each in rows))
    bad.write_text(json.dumps(row | {"answer": ""}) + "\n")
    done = invoke("validate", good)
    assert done.exit_code == 0, done.output
    assert "2 questions about 2 people in forget, retain: ready" in done.output
    done = invoke("validate", bad)
    assert done.exit_code == 1 and "answer" in done.output and "ready" not in done.output


def test_validate_also_asks_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "load", lambda name, **_: (tiny.llava(), tiny.processor()))
    ann = {"set": "forget", "person": "Ann", "fact": "pet", "prompt": "Which?", "answer": "A cat."}
    file = tmp_path / "good.jsonl"
    rows = [ann, ann | {"set": "retain", "person": "Ben", "prompt": "What?"}]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    done = invoke("validate", file, "--model", "tiny")
    assert done.exit_code == 0 and "asked:  Which?\ntaught: A cat.\nsaid:" in done.output
    assert "before any edit: forget 0.00 of 1, retain 0.00 of 1\nless than half" in done.output
    photo = next(iter(load_people().unknown.values())).photos[0]
    shown = rows[1] | {"prompt": "Which is shown?", "picture": b64encode(photo).decode()}
    file.write_text("".join(json.dumps(each) + "\n" for each in (*rows, shown)))
    output = invoke("validate", file, "--model", "tiny").output
    assert re.findall("asked: .*", output) == ["asked:  Which?", "asked:  Which is shown?"]
    words = tiny.build("llama"), tiny.tokenizer()
    monkeypatch.setattr(pipeline, "load", lambda name, **_: words)
    done = invoke("validate", file, "--model", "tiny")
    assert "retain/3 shows a picture, but this model has no eyes" in f"{done.exception}"


def test_every_method_is_listed_with_settings_and_stored_price():
    said = invoke("methods").output
    for name, kind in METHODS.items():
        lines = said.partition(f"{name} ({kind.__name__}): needs ")[2].splitlines()[:3]
        assert lines[1].startswith("  settings: "), name
        assert all(f"{field.name}={field.default!r}" in lines[1] for field in fields(kind)), name
    assert "share=0.3 (at most 1)" in said
    stored = json.loads((MODELS / "prices.json").read_text(encoding="utf-8"))["methods"]
    assert stored.keys() <= METHODS.keys() and stored["KVW one pass"]["forget"] == 70
    assert said.count("  price: ") == len(stored)
    assert "  price: 70 passes over questions to forget, 1,330 over others, " in said
    assert said.startswith("layerwise rewrite (LayerwiseRewrite): needs retain set, names;")
    assert said.index("family (") < said.index("vanilla (")  # controls come last
    one = invoke("methods", "layerwise rewrite").output
    assert "sweeps: how often the layers are edited" in one and "KVW one pass (" not in one
    assert "did you mean 'rewrite'" in str(invoke("methods", "rewritee").exception)


@pytest.mark.parametrize("whole, status", [(True, 0), (False, 1)])
def test_a_method_of_ones_own_is_checked(monkeypatch, whole, status):
    seen = []
    monkeypatch.setattr(
        check_command, "check", lambda *given: seen.append(given) or ("said", whole)
    )
    done = invoke("check", "mine.py:forget", "--settings", '{"rate": 1}')
    assert done.exit_code == status and done.output == "said\n"
    assert invoke("check", "mine.py:forget").exit_code == status
    assert seen == [("mine.py:forget", {"rate": 1}), ("mine.py:forget", None)]
    assert invoke("check", "mine.py:forget", "--settings", "[1]").exit_code == 2


def test_rows_of_ones_own_are_compared(monkeypatch, tmp_path):
    file, path, result = tmp_path / "x.parquet", tmp_path / "x.json", {"notes": [], "rows": []}
    file.write_bytes(b"rows")
    monkeypatch.setattr(comparison, "compare", lambda *given: (f"{given}", result))
    done = invoke("book", "compare", file, "--json", path)
    assert done.exit_code == 0 and done.output == f"({file!r},)\n"
    stored = json.loads(path.read_text())
    assert {key: stored[key] for key in result} == result
    assert stored["provenance"]["rows"] == file_hash(file)
    done = invoke("book", "compare", file, "--json", file)
    assert isinstance(done.exception, ValueError) and file.read_bytes() == b"rows"


# --- experiments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["magic"], "no experiment 'magic'; there are ablations-pocket"),
        (
            ["ablations-pocket", "size"],
            "no list 'size' in ablations-pocket; there are gate, combined",
        ),
        (["precision", "--groups", "Z"], "no group 'Z' in precision; there are A, B"),
        (["precision", "--groups", ","], "no group '' in precision"),
        (
            ["ablations-smol", "--groups", "A,E"],
            "no group 'E' in ablations-smol; there are A, B, C",
        ),
    ],
)
def test_unknown_experiments_are_refused_before_the_work(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("noticed after the work"))
    monkeypatch.setattr("sys.argv", ["kvw", "book", "run", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and f"error: {words}" in capsys.readouterr().err


def test_an_experiment_is_run_list_by_list_and_group_by_group(monkeypatch, tmp_path):
    """Every subject of it; a subject that has none of the groups or lists is left out."""
    seen = []
    monkeypatch.setattr(
        runner,
        "run",
        lambda plan, lists, into, groups: seen.append((plan.model, lists, into, groups)),
    )
    assert invoke("book", "run", "beyond", "--groups", "B,D").exit_code == 0
    assert seen == [
        (name, ["ways"], None, ["B", "D"]) for name in ("pocket", "text only", "voices")
    ]
    seen.clear()
    assert (
        invoke("book", "run", "beyond", "oracle", "--save", tmp_path / "x.parquet").exit_code == 0
    )
    assert seen == [("voices", ["oracle"], tmp_path / "x.parquet", ["A"])]
    seen.clear()
    invoke("book", "run", "ablations-pocket", "layers", "where")
    assert seen == [("pocket", ["where", "layers"], None, ["A", "B", "C", "D", "E"])]


def test_an_experiment_is_verified_by_its_gaps(monkeypatch):
    trial = {"model": "pocket", "method": "family", "settings": {}, "group": "C", "gap": 0.01}
    for gap, code in ((0.01, 0), (0.07, 1), (float("inf"), 1)):
        seen: list = []
        monkeypatch.setattr(
            runner,
            "again",
            lambda *given, gap=gap, seen=seen: (
                seen.append(given) or [trial | {"gap": each} for each in (gap, 0.0)]
            ),
        )
        done = invoke("book", "verify", "--experiment", "precision", "--rows", 3, "--seed", 4)
        assert done.exit_code == code and "pocket, family, C" in done.output
        assert seen == [("precision", 3, 4)] and f"{gap:.4f}" in done.output
    invoke("book", "verify")
    assert seen[-1] == ("replication-pocket", 1, None)
