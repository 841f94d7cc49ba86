"""Stored numbers are known by behaviour: what changes a number is seen, all else is not."""

import ast
import copy
import json
import shutil
import subprocess
from dataclasses import asdict
from types import SimpleNamespace

import behaviour
import pandas as pd
import pytest
import vectors
from copies import change, copy_of_the_package, moved_in

from kvw_experiments import dependencies, design_space, freshness, plans, summary_files
from kvw_minimal import scores
from kvw_minimal.evaluation.provenance import commit, provenance
from kvw_minimal.kvw import SCHEDULES
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.positions import POSITIONS
from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people

SCORED = (
    "metric:",
    "spoken:",
    "read",
    "reading",
    "generation",
    "free answers",
    "data: aloud",
    "quality and utility",
    "interval",
)
REGISTRIES = ("contrast:", "shape:", "method: family", "method: KVW one pass")
#: what a reader may add, and where
ADDED = {
    "kvw_experiments/design_space.py": "\n\n"
    'CONTRASTS["root"] = lambda f, r: log_ratio(f, r).sqrt()\n'
    'SHAPES["half"] = lambda contrasts, share: contrasts / 2\n',
    "kvw_minimal/scores.py": '\n\n@metric("first_letter")\n'
    "def first_letter(text: str, gold: str) -> float:\n"
    "    return float(text[:1] == gold[:1])\n",
    "kvw_minimal/methods/mine.py": "from dataclasses import dataclass\n\n"
    "from ..kvw import KVW\nfrom ..method import parameter_grid, register\n\n\n"
    '@register("mine", source="a reader", grid=parameter_grid(strength=(1.0, 2.0)))\n'
    "@dataclass(frozen=True)\nclass Mine(KVW):\n    pass\n",
}
NEW = ["method: mine", "cost: mine", "metric: first_letter", "contrast: root", "shape: half"]


ROUGE = {"metric: rouge_l", "metric: rouge_l_recall"}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, set[str]]:
    """What moves in two copies of the package: unparsed, and with a fault and what was added."""
    root = tmp_path_factory.mktemp("copies").resolve()
    names = {"unparsed": (), "changed": (*SCORED, *REGISTRIES, *NEW)}
    copies = {}
    for name in names:
        (root / name).mkdir()
        copies[name] = copy_of_the_package(root / name)
    for package in ("kvw_minimal", "kvw_experiments"):
        for path in (copies["unparsed"] / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            path.write_text(ast.unparse(tree), encoding="utf-8")
    file = copies["changed"] / "kvw_minimal" / "benchmarks" / "protocols.py"
    change(file, "use_stemmer=True", "use_stemmer=False")
    for added, text in ADDED.items():
        with (copies["changed"] / added).open("a", encoding="utf-8") as source:
            source.write(text)
    moved = moved_in({copies[name]: names[name] for name in names})
    return {name: set(moved[copies[name]]) for name in names}


def row(**other) -> dict:
    """A row of an experiment with everything that is usual."""
    trial = plans.KVW
    text = json.dumps(
        {"data": {"people": 5, "aloud": False, "proxy": "everyone else"}}
        | asdict(trial)
        | {"mass": 0.0}
    )
    return {
        "experiment": "ablations-pocket",
        "model": "pocket",
        "method": "family",
        "settings": text,
        "group": "A",
        "condition": "edited",
        "draw": 0,
        "edit_scale": 1.0,
        "set": "forget",
        "question": None,
        "person": "p078",
        "modality": "text",
        "metric": "exact_match",
        "score_sum": 1.0,
        "n": 7,
    } | other


def with_setting(**other) -> dict:
    return row(settings=json.dumps(json.loads(row()["settings"]) | other))


def made(rows: pd.DataFrame, **other) -> dict:
    """Their provenance, made just now."""
    return {
        "data": load_people().checksum[:16],
        "models": {"pocket": "1", "smol": "2"},
        "behaviour": freshness.digests_for(rows),
        "command": "run it",
    } | other


def stale(rows: pd.DataFrame, provenance: dict | None = None, **how) -> list[bool]:
    return freshness.stale(rows, provenance or made(rows), **how)[0].tolist()


# --- behaviour ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_behaviour_is_as_stored_in_whatever_shape_the_code_is(found):
    assert found["unparsed"] == set()


@pytest.mark.slow
def test_rouge_moves_what_is_scored_by_rouge_and_whoever_adds_something_moves_nothing(found):
    assert found["changed"] == ROUGE | {*NEW}
    content = summary_files.read_summary("oracles", fresh=False)
    rows = dependencies.as_rows("oracles", content)
    marked = stale(rows, moved=found["changed"])
    assert marked == (rows["metric"] == "rouge_l").tolist()
    assert any(marked)


def test_every_entry_of_a_registry_has_its_vector_and_it_is_stored():
    names = set(vectors.registered())
    for kind, entries in (
        ("method", METHODS),
        ("cost", METHODS),
        ("metric", scores.METRICS),
        ("score", design_space.SCORES),
        ("contrast", design_space.CONTRASTS),
        ("shape", design_space.SHAPES),
        ("positions", POSITIONS),
        ("schedule", SCHEDULES),
    ):
        assert {f"{kind}: {entry}" for entry in entries} <= names
    axes = ("score", "positions", "contrast", "shape")
    settings = {*vars(plans.KVW), "mass"} - {*axes, "against"}
    settings |= {f"against, {name}" for name in design_space.AGAINST[1:]} | {"batch, person"}
    assert {f"setting: {name}" for name in settings} <= names
    assert names == set(freshness.stored())


def test_an_entry_without_a_stored_vector_is_found(monkeypatch):
    monkeypatch.setitem(scores.METRICS, "new", lambda text, gold: 1.0)
    assert behaviour.moved(["metric: new"]) == ["metric: new"]
    with pytest.raises(ValueError, match="behaviour.py renew"):
        freshness.digests_for(pd.DataFrame([row(metric="new")]))
    monkeypatch.setitem(scores.METRICS, "odd", lambda tea, leaves: 1.0)
    with pytest.raises(ValueError, match="takes tea, leaves"):
        behaviour.moved(["metric: odd"])


def test_integers_and_texts_are_compared_to_the_letter_and_floats_are_not():
    assert behaviour.same({"a": [1, "x", 0.5]}, {"a": [1, "x", 0.50004]})
    for other in (
        {"a": [2, "x", 0.5]},
        {"a": [1, "y", 0.5]},
        {"a": [1, "x", 0.501]},
        {"a": [1, "x"]},
        {"b": [1, "x", 0.5]},
        {"a": [1.0, "x", 0.5]},
    ):
        assert not behaviour.same({"a": [1, "x", 0.5]}, other)


# --- what is stale -----------------------------------------------------------------------------


def test_a_row_needs_the_parts_that_its_setting_is_made_of():
    own = dependencies.needs(
        with_setting(shape="top", layers=[0, 1], data={"proxy": "twenty others"})
    )
    assert {
        "shape: top",
        "setting: layers",
        "data: proxy",
        "metric: exact_match",
        "panel: pocket",
    } <= own
    assert not {"shape: power law", "setting: batch", "data: seed", "sham", "method: SSD"} & own
    assert "method: SSD" in dependencies.needs(
        row(method="SSD", settings='{"alpha": 2.0, "limit": 1.0}')
    )
    for settings, apart in (
        ({}, set()),
        ({"refusal": True}, {"towards a refusal"}),
        ({"divided": False}, {"the whole way"}),
    ):
        led = dependencies.needs(row(method="rewrite", settings=json.dumps(settings)))
        assert "method: rewrite" in led
        assert {"towards a refusal", "the whole way"} & led == apart
    vanilla = dependencies.needs(with_setting(strength=0.0))
    assert not any(name.startswith(("method", "shape", "setting")) for name in vanilla)


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("shape: top", [False, True, False, False, False, False]),
        ("sham", [False, False, True, False, False, False]),
        ("panel: smol", [False, False, False, True, False, False]),
        ("metric: well_formed", [False, False, False, False, True, False]),
        ("method: SSD", [False, False, False, False, False, True]),
        ("answer mask", [True] * 6),
        ("metric: choice", [False] * 6),
    ],
)
def test_a_moved_vector_makes_those_rows_stale_that_need_it(vector: str, expected: list[bool]):
    rows = pd.DataFrame(
        [
            row(),
            with_setting(shape="top"),
            row(condition="sham"),
            row(experiment="ablations-smol", model="smol"),
            row(metric="well_formed"),
            row(method="SSD", settings="{}"),
        ]
    )
    assert stale(rows) == [False] * 6
    assert stale(rows, moved=[vector]) == expected
    older = made(rows)
    older["behaviour"] = {
        name: "0" if name == vector else digest for name, digest in older["behaviour"].items()
    }
    assert stale(rows, older) == expected
    if any(expected):
        some = ", ".join(sorted(set(rows["experiment"][expected])))
        said = f"{sum(expected)} of 6 rows are stale, of {some}: .*{vector!r} has moved.*`run it`"
        with pytest.raises(ValueError, match=said):
            freshness.check_rows(rows, older)
    else:
        freshness.check_rows(rows, older)


@pytest.mark.parametrize("part", ["vision_tower", "multi_modal_projector", "self_attn.q_proj"])
def test_another_model_makes_its_rows_stale_whichever_part_is_another(part: str):
    model = copy.deepcopy(vectors.tiny()[0])
    prints = {"pocket": fingerprint(model), "smol": "2"}
    rows = pd.DataFrame(
        [
            row(),
            row(experiment="ablations-smol", model="smol"),
            row(experiment="precision", model="pocket, bfloat16"),
        ]
    )
    own = made(rows, models=prints)
    assert stale(rows, own, models=prints) == [False] * 3
    for name, weight in model.named_parameters():
        if part in name:
            weight.data.zero_()
    assert stale(rows, own, models=prints | {"pocket": fingerprint(model)}) == [True, False, True]


def test_other_data_make_everything_stale():
    rows = pd.DataFrame([row(), row(metric="probability")])
    assert stale(rows, made(rows, data="0")) == [True, True]


def test_data_are_named_as_long_as_they_are_compared():
    own = provenance(seconds=1.0, seed=0, models={}, data=load_people().checksum)
    rows = pd.DataFrame([row()])
    assert stale(rows, made(rows, data=own["data"])) == [False]


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_changed_file_shows_in_the_commit(tmp_path):
    file = tmp_path / "kvw_minimal" / "__init__.py"
    file.parent.mkdir()
    file.touch()

    def git(*command: str) -> str:
        name = ["-c", "user.name=x", "-c", "user.email=x"]
        return subprocess.run(
            ["git", *name, *command], cwd=tmp_path, check=True, text=True, capture_output=True
        ).stdout.strip()

    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        git(*command)
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit.__wrapped__(tmp_path) == head
    file.write_text("changed = True\n", encoding="utf-8")
    assert commit.__wrapped__(tmp_path) == f"{head}+"
    assert commit.__wrapped__(tmp_path / "kvw_minimal") is None  # inside of another's repository
    git("rm", "-q", "--cached", "-f", "kvw_minimal/__init__.py")
    assert commit.__wrapped__(tmp_path) is None  # beside it: the package is no part of it


def test_another_plan_makes_its_part_stale():
    text = plans.plan_of("ablations-smol").text()
    keys = [trials[0] for trials in text["lists"]["parts"].values()][:3]
    rows = pd.DataFrame(
        [
            row(
                experiment="ablations-smol",
                model="smol",
                settings=key.partition(" ")[2],
                set=part,
            )
            for key in keys
            for part in ("forget", "retain")
        ]
    )
    own = made(rows, plan=[text])
    assert stale(rows, own, plans=[text]) == [False] * 6

    def changed(change) -> list[bool]:
        other = copy.deepcopy(text)
        change(other)
        return stale(rows, own, plans=[other])

    def another_grid(plan: dict) -> None:
        for trials in plan["lists"].values():
            for label, each in trials.items():
                trials[label] = [key for key in each if key != keys[1]]

    def fewer_asked(plan: dict) -> None:
        plan["sets"]["A"]["retain"] = [60, "0"]

    assert changed(another_grid) == [False, False, True, True, False, False]
    assert changed(fewer_asked) == [False, True] * 3
    assert changed(lambda plan: plan.update(free_tokens=3)) == [True] * 6
    assert changed(lambda plan: plan["rule"].update(kept=0.5)) == [False] * 6  # nothing is tuned


def test_another_rule_of_choice_concerns_what_it_chose():
    text = plans.plan_of("beyond", "voices").text()
    several, one = text["lists"]["ways"]["KVW one pass"][0], text["lists"]["ways"]["vanilla"][0]
    rows = pd.DataFrame(
        [
            row(
                experiment="beyond",
                model="voices",
                method=key.partition(" {")[0],
                settings=key[key.index("{") :],
                group=group,
            )
            for key in (several, one)
            for group in ("A", "tuning-1")
        ]
    )
    other = copy.deepcopy(text)
    other["rule"]["kept"] = 0.5
    own = made(rows, plan=[text])
    assert stale(rows, own, plans=[other]) == [True, False, False, False]


def test_the_ledger_knows_every_summary_and_none_is_stale():
    ledger = json.loads(freshness.LEDGER.read_text(encoding="utf-8"))
    assert set(ledger) == set(summary_files.FILES) == set(dependencies.SUMMARIES)
    for name in summary_files.FILES:
        summary_files.read_summary(name)


def test_a_summary_of_other_data_is_refused_even_if_its_age_does_not_matter(monkeypatch):
    assert summary_files.read_summary("oracles", fresh=False)["rows"]
    world = SimpleNamespace(checksum="0" * 64)
    monkeypatch.setattr(summary_files, "load_people", lambda: world)
    with pytest.raises(ValueError, match=r"oracles\.json was made from other data"):
        summary_files.read_summary("oracles", fresh=False)
