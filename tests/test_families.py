"""Which families of models work: a few are tried here; `python tests/families.py` tries all."""

import json
from importlib.metadata import version

import families
import pytest
import tiny
from families import OUTCOME, PATH_OF, check, known, outcome

from kvw_minimal.coefficients import measure
from kvw_minimal.models import find_projections

STORED = json.loads(OUTCOME.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["gpt2", "gpt_oss", "ernie4_5_vl_moe", "gemma4"])
def test_a_family_works(name: str):
    """Maps that are turned, experts that are turned and have a bias, two kinds of experts in a
    layer of an LVLM, an FFN beside other maps of its size: coefficients as a loop finds them, an
    edit of exactly the columns that it names."""
    assert check(name) == "" and STORED["families"][name]["outcome"] == "works"


REFUSED = ("jetmoe", "llama4_text", "falcon_mamba", "t5gemma2", "evolla", "prophetnet")


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_is_refused_in_the_words_of_the_page(name: str):
    found = outcome(name)
    assert found["outcome"] == "refused" and found == STORED["families"][name]


def test_a_stack_beside_the_language_model_is_not_taken_for_it():
    """The eye of BLIP-2 is followed by layers that no word tells from those of a decoder."""
    found = find_projections(families.build("blip-2"))
    assert [path.split(".")[0] for path in found] == ["language_model"] * 2


@pytest.mark.parametrize("name", ["bert", "electra"])
def test_what_reads_from_both_sides_is_refused_unless_it_is_a_decoder(name):
    """As `AutoModelForCausalLM` loads it, unless its config says otherwise."""
    model, batch = families.build(name, {"is_decoder": False}), tiny.random_batch()
    with pytest.raises(ValueError, match="lets a token see those behind it"):
        measure(model, [batch], ["ann"] * 4)
    measure(families.build(name, {"is_decoder": True}), [batch], ["ann"] * 4)


def test_every_family_was_tried():
    """With the `transformers` that is pinned; with another there may be others."""
    every = STORED["families"]
    works = {name for name, each in every.items() if each["outcome"] == "works"}
    assert works == set(PATH_OF)
    assert not {each["outcome"] for each in every.values()} & {"wrong", "no line"}
    assert STORED["transformers"] != version("transformers") or set(every) == set(known())
