"""The command line: what it prints, what it refuses, and that a refusal writes nothing."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kvw_minimal.benchmarks import replicate
from kvw_minimal.laboratory import report
from kvw_minimal.__main__ import app


def run(*arguments, timeout=300):
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}  # else a hub id is tried again and again
    return subprocess.run([sys.executable, "-m", "kvw_minimal", *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout, env=offline)  # fmt: skip


def test_help_names_the_commands():
    said = run("--help").stdout
    assert all(command in said for command in ("demo", "unlearn", "evaluate", "doctor", "train"))


def test_unlearn_keeps_its_contract(tmp_path):
    path, edit = tmp_path / "rows.json", tmp_path / "edit.safetensors"
    done = run("unlearn", "--model", "pocket", "--forget", 5, "--draws", 1, "--json", path,
               "--save-edit", edit)  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert set(content) == {"provenance", "rows"}
    assert content["provenance"]["command"].startswith("python -m kvw_minimal unlearn")
    states = [row["state"] for row in content["rows"]]
    assert set(states) == {"vanilla", "edited", "sham", "oracle"}
    assert edit.is_file() and "strength G" in done.stdout


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--strength", "-1"], "strength"),
        (["--strength", "nan"], "strength"),
        (["--layers", "0:9"], "layers"),
        (["--layers", "3:1"], "layers"),
        (["--group", "Z"], "group"),
        (["--forget", "7"], "forget"),
        (["--schedule", "never"], "schedule"),
        (["--model", "no/such-model"], "--no-oracle"),
        (["--model", "no/such-model", "--no-oracle"], "no/such-model"),
        (["--group", "B", "--forget", "15"], "--no-oracle"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(tmp_path, arguments, word):
    path = tmp_path / "rows.json"
    done = run("unlearn", *arguments, "--json", path)
    assert done.returncode == 2
    assert done.stderr.startswith("error:") and word in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [
    ["unlearn", "--json"], ["unlearn", "--save-edit"], ["evaluate", "--json"],
    ["demo", "--picture"],
    ["replicate", "--benchmark", "mllmu", "--data", "x", "--model", "x", "--json"],
])  # fmt: skip
def test_a_folder_in_place_of_a_file_is_noticed_before_the_work(tmp_path, monkeypatch, command):
    for work in ("unlearn", "evaluate", "demo"):
        monkeypatch.setattr(report, work, lambda *_, **__: pytest.fail("noticed after the work"))
    monkeypatch.setattr(replicate, "replicate", lambda *_, **__: pytest.fail("after the work"))
    done = CliRunner().invoke(app, [*command, str(tmp_path)])
    assert isinstance(done.exception, IsADirectoryError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["none.safetensors", "."])
def test_an_edit_that_is_no_file_is_noticed_before_the_work(tmp_path, monkeypatch, name):
    monkeypatch.setattr(report, "evaluate", lambda *_: pytest.fail("noticed after the work"))
    done = CliRunner().invoke(app, ["evaluate", "--edit", str(tmp_path / name)])
    assert done.exit_code == 2 and "--edit" in done.output


def test_a_missing_folder_is_noticed_before_the_work(tmp_path):
    done = run("unlearn", "--json", tmp_path / "none" / "rows.json", timeout=60)
    assert done.returncode == 2 and "does not exist" in done.stderr
