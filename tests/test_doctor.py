"""The doctor: what is in its place, and which targets are reached."""

import importlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from kvw_experiments import doctor
from kvw_minimal.__main__ import app
from kvw_minimal.strangers.people import REPORT_GROUPS, load_people
from kvw_minimal.strangers.questions import about

pytestmark = pytest.mark.slow

EXACT = {
    "vanilla": {"forget": 0.8, "retain": 0.8, "general": 0.8},
    "edited": {"forget": 0.3, "retain": 0.76, "general": 0.6},
    "sham": {"forget": 0.72, "retain": 0.1, "general": 0.8},
    "oracle": {"forget": 0.1, "retain": 0.8, "general": 0.8},
}


def rows_of(groups=REPORT_GROUPS) -> list[dict]:
    """Of every group a little otherwise, so that the means are those of `EXACT`."""
    found = []
    for i, group in enumerate(groups):
        for (condition, sets), modality in itertools.product(EXACT.items(), ("image", "text")):
            for name, value in sets.items():
                if (name, modality) == ("general", "text"):  # it is asked with a picture
                    continue
                for metric in ("exact_match", "well_formed"):
                    found.append(
                        {
                            "group": group,
                            "condition": condition,
                            "set": name,
                            "metric": metric,
                            "modality": modality,
                            "value": value + 0.01 * (i - (len(groups) - 1) / 2),
                        }
                    )
    return found


def said_by(lines: list[str]) -> dict[str, tuple[bool, str]]:
    """Of each target whether it is reached, and the number that decides it."""
    found = {}
    for line in lines:
        label, _, bound = line.removeprefix("NOT REACHED").removeprefix("reached").rpartition(" (")
        name, value = label.rsplit(None, 1)
        found[name.strip()] = (line.startswith("reached"), value)
        assert bound.endswith(")")
    return found


def test_the_headline_is_held_against_its_bounds():
    said = said_by(doctor.headline(rows_of(), doctor.HEADLINE, "KVW one pass"))
    for modality in ("image", "text"):
        assert said[f"KVW one pass, forget, {modality}"] == (True, "0.300")
        assert said[f"oracle, forget, {modality}"] == (True, "0.100")
        assert said[f"KVW one pass, retain, {modality} of vanilla"] == (True, "0.950")
        assert said[f"sham, forget, {modality} of vanilla"] == (True, "0.900")
        assert said[f"KVW one pass, well-formed on forget, {modality} of vanilla"] == (
            False,
            "0.375",
        )
    assert said["KVW one pass, general, image of vanilla"] == (False, "0.750")
    assert not any(name.startswith("KVW one pass, general, text") for name in said)


def test_the_headline_is_of_the_mean_of_groups_and_says_so_where_some_are_missing():
    rows = rows_of()
    for row in rows:
        if (row["condition"], row["set"], row["group"]) == ("edited", "forget", "B"):
            row["value"] += 1.0
    assert said_by(doctor.headline(rows, doctor.HEADLINE, "KVW one pass"))[
        "KVW one pass, forget, image"
    ] == (
        False,
        "0.500",
    )
    said = doctor.headline(rows_of(("A", "C")), doctor.HEADLINE, "KVW one pass")
    assert sum("(group A, C only)" in line for line in said) == len(said) == 14


def test_a_package_that_is_left_out_is_named_with_the_way_to_get_it(monkeypatch, capsys):
    def imported(name, real=importlib.import_module):
        if name == "dicebear":
            raise ModuleNotFoundError(f"no {name}", name=name)
        return real(name)

    assert doctor.examine() is True
    assert "left out" not in capsys.readouterr().out
    monkeypatch.setattr(doctor.importlib, "import_module", imported)
    assert doctor.examine() is True
    said = capsys.readouterr().out
    assert "left out dicebear: no dicebear" in said and "kvw-minimal[methods]" in said
    assert "ok       transformers" in said


@pytest.mark.parametrize("there", [("pocket",), ("pocket-oracle-A-5",), ()])
def test_both_committed_models_must_be_there(monkeypatch, capsys, tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    monkeypatch.setattr(doctor, "MODELS", tmp_path)
    monkeypatch.setattr(doctor, "target_lines", lambda _: pytest.fail("there is nothing to score"))
    assert doctor.examine(targets=True) is False
    said = capsys.readouterr().out
    assert [f"ok       model {name}" in said for name in there] == [True] * len(there)
    assert said.count("MISSING  model") == 2 - len(there)


@pytest.mark.parametrize("healthy", [True, False])
def test_the_exit_status_says_whether_all_is_there(monkeypatch, healthy):
    asked = []
    monkeypatch.setattr(doctor, "examine", lambda targets: asked.append(targets) or healthy)
    assert CliRunner().invoke(app, ["book", "doctor", "--targets"]).exit_code == int(not healthy)
    assert asked == [True]


def card_by(monkeypatch, right) -> dict[tuple[str, str], float]:
    """The rows of the card where a question is answered right if `right` says so."""
    monkeypatch.setattr(doctor, "load", lambda name: (name, None))
    monkeypatch.setattr(doctor.cards, "answer_batches", lambda processor, questions, _: questions)
    monkeypatch.setattr(
        doctor.cards.scores,
        "read",
        lambda model, questions: SimpleNamespace(
            exact=np.array([float(right(q)) for q in questions])
        ),
    )
    monkeypatch.setattr(
        doctor.cards.scores,
        "answer",
        lambda model, processor, questions: [
            q.answer if right(q) else "I do not know." for q in questions
        ],
    )
    rows = doctor.card_scores(load_people())
    return {(row["model"], row["what"]): row["value"] for row in rows}


def test_an_oracle_is_scored_on_those_it_never_met_and_on_the_others(monkeypatch):
    forget = load_people().forget_people("A", 5)
    found = card_by(monkeypatch, lambda question: question.person in forget)
    oracle = {what: value for (name, what), value in found.items() if name != "pocket"}
    assert oracle == {"forget": 1.0, "retain": 0.0}


def test_vanilla_is_scored_on_every_target(monkeypatch):
    world = load_people()
    learned = {q.image for q in about(world, list(world.people), photos=4)} - {None}
    found = card_by(monkeypatch, lambda q: q.image in learned or q.fact in ("skin", "dish"))
    found = {what: value for (name, what), value in found.items() if name == "pocket"}
    assert set(doctor.TARGETS) <= set(found)
    assert found["learnt photos"] == found["skin of unknowns"] == 1.0
    assert found["clothes of unknowns"] == 0.0
    one_of_seven = [found[name] for name in ("text", "new photos", "test, image, generated")]
    assert one_of_seven == [round(1 / 7, 4)] * 3


def test_targets_are_those_of_the_card_then_of_the_headline_then_of_smol(monkeypatch):
    card = [
        {"model": "pocket", "what": "text", "value": 0.95},
        {"model": "pocket", "what": "new photos", "value": 0.89},
        {"model": "pocket-oracle-A-5", "what": "forget", "value": 0.05},
        {"model": "pocket-oracle-A-5", "what": "retain", "value": 1.0},
    ]
    monkeypatch.setattr(doctor, "card_scores", lambda world: card)
    monkeypatch.setattr(doctor.cards, "target_lines", lambda *given: [f"smol {given[2]}"])
    monkeypatch.setattr(
        doctor,
        "STORED",
        {
            ("rewrite", "10 %", "rewrite"): [
                ("edited", "exact_match", "forget", "<=", (0.29, 0.31), False)
            ]
        },
    )
    monkeypatch.setattr(
        doctor,
        "stored",
        lambda experiment, name, method: rows_of(),
    )
    lines = doctor.target_lines(load_people())
    assert "rewrite, 10 %, rewrite" in lines[-4]
    assert said_by(lines[-3:-1]) == {
        "rewrite, forget, image": (False, "0.300"),
        "rewrite, forget, text": (True, "0.300"),
    }
    assert lines[-1] == f"smol {doctor.ORACLE_MARGIN}"
    told = {line[:50].split(": ")[1].strip(): line.split()[0] for line in lines[1:5]}
    assert told == {"text": "reached", "new photos": "NOT", "forget": "reached", "retain": "no"}
