"""Which families of models work: a few are tried here, the others as they were when last tried."""

import json
from importlib.metadata import version

import families
import pytest
import tiny
from families import AHEAD, FAMILIES, OUTCOME, PAGE, RESULTS, Family, check, known, others, outcome

from kvw_minimal.coefficients import measure
from kvw_minimal.models import find_projections

#: plain maps that are turned, experts that are turned and have a bias, two kinds of experts in one
#: layer of an LVLM, an FFN beside other maps of its size
FEW = ("gpt2", "gpt_oss", "ernie4_5_vl_moe", "gemma4")
STORED = json.loads(OUTCOME.read_text(encoding="utf-8"))
by_name = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize("name", FEW)
def test_a_family_works(name: str):
    """Coefficients as a loop finds them, an edit of exactly the columns that it names."""
    assert check(by_name[name]) == "" and STORED["families"][name]["outcome"] == "works"


REFUSED = ("jetmoe", "llama4_text", "falcon_mamba", "t5gemma2", "evolla", "prophetnet")


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_is_refused_in_the_words_of_the_page(name: str):
    found = outcome(name)
    assert found["outcome"] == "refused" and found == STORED["families"][name]


def test_a_stack_beside_the_language_model_is_not_taken_for_it():
    """The eye of BLIP-2 is followed by layers that no word tells from those of a decoder."""
    found = find_projections(families.build("blip-2"))
    assert [path.split(".")[0] for path in found] == ["language_model"] * 2


def test_a_wrong_line_would_be_found():
    """Another map, the layers of the eye, a model that sees ahead."""
    llava = by_name["llava"]
    wrong = {
        "up_proj": llava.path.replace("down_proj", "up_proj"),
        "eye": "model.vision_tower.encoder.layers.{}.mlp.fc2",
        "gate_proj": llava.path.replace("down_proj", "gate_proj"),
    }
    assert "by hand" in check(Family("llava", wrong["up_proj"]))
    assert "by hand" in check(Family("llava", wrong["gate_proj"]))
    with pytest.raises((KeyError, StopIteration)):  # the eye is not asked
        check(Family("llava", wrong["eye"]))
    assert check(Family("bert", by_name["bert"].path, {"is_decoder": False})) == AHEAD


@pytest.mark.parametrize("name", ["bert", "electra", "roberta"])
def test_what_reads_from_both_sides_is_refused_unless_it_is_a_decoder(name):
    """As `AutoModelForCausalLM` loads it, unless its config says otherwise."""
    model, batch = families.build(name, {"is_decoder": False}), tiny.random_batch()
    with pytest.raises(ValueError, match="lets a token see those behind it"):
        measure(model, [batch], ["ann"] * 4)
    measure(families.build(name, {"is_decoder": True}), [batch], ["ann"] * 4)


def test_a_family_without_a_line_would_be_found(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", ())
    assert others("llama")[0] == "no line" and outcome("llama")["outcome"] == "no line"


def test_the_table_is_as_large_as_it_says():
    names = [family.name for family in FAMILIES]
    eyes = [name for name in names if known()[name][0] == "multimodal"]
    assert len(set(names)) == len(names)
    assert len(eyes) >= 18 and len(names) - len(eyes) >= 12


def test_every_family_was_tried():
    """With the `transformers` that is pinned; with another there may be others."""
    every = STORED["families"]
    works = {name for name, each in every.items() if each["outcome"] == "works"}
    assert works == {family.name for family in FAMILIES}
    assert not {each["outcome"] for each in every.values()} & {"wrong", "no line"}
    assert all(each["why"] for name, each in every.items() if name not in works)
    if STORED["transformers"] == version("transformers"):
        assert set(every) == set(known())


def test_the_page_says_what_was_found():
    """`python tests/families.py` writes it again."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == families.filled(PAGE, families.page(STORED))
    every = STORED["families"]
    assert all(families.cell(name) in text for name in every)
    found = {RESULTS[each["outcome"]] for each in every.values() if each["outcome"] != "works"}
    assert found == {words for words in RESULTS.values() if f"## {words}" in text}
