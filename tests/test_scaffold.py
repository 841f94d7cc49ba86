"""A folder to fork: what is in it, what is refused, and that its notebook runs."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import tiny

from kvw_experiments.comparison import compare
from kvw_experiments.scaffold import NOTEBOOKS, WHAT, forked, new
from kvw_minimal.benchmarks.jsonl import find_problems

FILES = ["Makefile", "README.md", "pytest.ini", "questions.jsonl", "requirements.txt"]


@pytest.mark.parametrize("kind", WHAT)
def test_a_folder_has_all_that_it_needs(tmp_path: Path, kind: str):
    made = new("mine", kind, tmp_path)
    assert made == tmp_path / "mine" and [made] == list(tmp_path.iterdir())
    assert sorted(path.name for path in made.iterdir()) == sorted([*FILES, f"{kind}.ipynb"])
    assert find_problems(made / "questions.jsonl") == []
    told = (made / "README.md").read_text(encoding="utf-8")
    assert told.startswith("# mine\n") and f"{kind}.ipynb" in told and "{" not in told
    assert "kvw-minimal[book,test]==" in (made / "requirements.txt").read_text(encoding="utf-8")
    (tmp_path / "plain").mkdir()
    assert made.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", WHAT)
def test_a_notebook_to_fork_has_no_outputs_and_needs_no_repository(tmp_path: Path, kind: str):
    notebook = nbformat.read(new("mine", kind, tmp_path) / f"{kind}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 4 and not any(cell.outputs or cell.execution_count for cell in code)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "read_rows" not in text and "](" not in text.replace('"](', "")


def test_what_needs_the_repository_is_left_out():
    template = json.loads((NOTEBOOKS / "experiment_template.ipynb").read_text(encoding="utf-8"))
    tagged = [cell for cell in template["cells"] if "book" in cell["metadata"].get("tags", [])]
    assert any("read_rows" in "".join(cell["source"]) for cell in tagged)
    assert len(forked(template)["cells"]) == len(template["cells"]) - len(tagged)
    assert any(cell.get("outputs") for cell in template["cells"])  # the template keeps its own


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "1st", "-m", "a b", "a\n", "ä", "x" * 65]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="is no name: take"):
        new(name, parent=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    (tmp_path / "link").symlink_to("none")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name in ("full", "file", "link"):
        with pytest.raises(ValueError, match="is there already"):
            new(name, parent=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (new("empty", parent=tmp_path) / "README.md").is_file()


@pytest.mark.nightly
def test_a_forked_notebook_runs(tmp_path: Path):
    """Under its own settings of pytest; of two groups one, which takes half the time."""
    made = new("mine", parent=tmp_path)
    path = made / "experiment.ipynb"
    text = path.read_text(encoding="utf-8")
    assert text.count(r"GROUPS = (\"A\", \"B\")") == 1
    path.write_text(text.replace(r"(\"A\", \"B\")", r"(\"A\",)"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=made,
        env=tiny.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    _, beside = compare(made / "mine.parquet")
    assert len(beside["rows"]) == 20 and beside["without_counterpart"] == []
