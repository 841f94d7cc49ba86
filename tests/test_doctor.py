"""The doctor: what is in its place, and which targets are reached."""

import importlib
import itertools

import pytest

from kvw_experiments import doctor
from kvw_minimal.strangers.people import REPORT_GROUPS

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
