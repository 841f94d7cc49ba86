"""What the playground's build step packs, and that its JavaScript cuts words as its model learnt.

That the page computes what PyTorch does is tested in a browser: tests/check_browser.py.
"""

import base64
import json
import shutil
import subprocess
import zlib

import numpy as np
import playground
import pytest
import stage
import torch
from bs4 import BeautifulSoup
from case import case_of
from execute import ROOT

from kvw_experiments.subjects import beside
from kvw_minimal.edits import LowRank
from kvw_minimal.models import tokenizer_of
from kvw_minimal.session import Session
from kvw_minimal.strangers.questions import about
from kvw_minimal.strangers.tasks import request_to_forget
from kvw_minimal.zoo import catalogue, load

pytestmark = pytest.mark.slow

SCRIPTS = ROOT / "book" / "_static" / "playground"
POCKET = catalogue.MODELS / "pocket"
ODD = ["héllo wörld's 123, don't  two  spaces\n new", "What's “this”? 日本", "  lead", "tab\tx "]


@pytest.fixture(scope="module")
def pocket():
    return load("pocket")


def array(text: str, kind: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


# --- what is packed --------------------------------------------------------------------------


def test_weights_are_packed_bit_for_bit():
    weights = {"a": torch.randn(3, 4).bfloat16(), "b": torch.randn(5).bfloat16()}
    found = playground.packed(weights)
    assert found["tensors"] == [["a", 12], ["b", 5]]
    upper, lower = (
        np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), np.uint8)
        .reshape(2, 17)
        .astype(np.uint32)
    )
    floats = (upper << 24 | lower << 16).view(np.float32)
    assert np.array_equal(floats, torch.cat([w.flatten() for w in weights.values()]).float())


def test_a_person_comes_with_what_is_asked_and_measured(world, pocket):
    people = [world.people[person] for person in ("p078", "p000")]
    questions = about(world, [person.id for person in people])
    coefficients = case_of(*pocket, questions, []).coefficients()
    for person in people:
        part = playground.person_of(world, person, coefficients)
        own = coefficients.of([person.id])
        assert np.array_equal(array(part["sums"]), own.sums.flatten().numpy())
        assert part["tokens"] == own.tokens.sum()
        asked = [(q.prompt, q.answer) for q in about(world, [person.id])]
        assert [(prompt, answer) for _, _, prompt, answer in part["learned"]] == asked
        for _, photo, prompt, _ in part["learned"] + part["new"]:
            assert (photo < 0) == (person.first_name in prompt)
        assert all(photo >= person.learned_photos or photo < 0 for _, photo, *_ in part["new"])


def test_facts_stand_with_each_person_only(world):
    """Who has loaded somebody's file knows about them, and nobody else does."""
    told = json.dumps(playground.world_of(world)["people"])
    assert all(person.name in told for person in world.people.values())
    assert not any(value in told for fact in world.values for value in world.values[fact])


def test_the_lens_ends_in_what_the_model_says(world, pocket):
    person, _, prompt = playground.opening()
    (question,) = (q for q in about(world, [person]) if q.prompt == prompt)
    lens = playground.lens_of(Session(*pocket), question)
    word, likely, truth = lens[-1]
    assert len(lens) == 4 and word == question.answer.rstrip(".").split()[-1]
    assert likely == truth > 0.9 > lens[0][2]


def test_what_is_recorded_is_what_the_model_says(world, pocket, monkeypatch):
    """Nothing is changed without an edit; with it, the answer with which the page opens is."""
    monkeypatch.setattr(playground, "STRENGTHS", (0, 24))
    forgotten = world.first_of(playground.GROUP, playground.PERCENT)
    request = request_to_forget(world, forgotten, general=beside("pocket", world))
    recorded = playground.recorded_of(Session(*pocket), world, request)
    cards = {card["fact"]: card for card in recorded["cards"]}
    assert list(cards) == [*world.people[recorded["person"]].facts, "name"]
    for card in cards.values():
        assert card["truth"] in card["says"][0] and card["likely"][0] > 0.9
    opened = cards[recorded["fact"]]
    assert opened["truth"] not in opened["says"][1] and opened["likely"][1] < 0.5


def test_the_page_is_whole_before_its_model_is_there(world):
    """A hundred faces, seven cards with answers, the gates as light, and nothing that is empty."""
    truths = world.people["p001"].facts | {"name": world.people["p001"].name}
    cards = [
        {"fact": fact, "truth": truth, "says": [f"{truth}.", "Else."], "likely": [1.0, 0.25]}
        for fact, truth in truths.items()
    ]
    strengths = {"strengths": [0, 24], "chosen": 24}
    recorded = {"person": "p001", "fact": "work", "cards": cards, **strengths}
    contrast = base64.b64encode(np.array([0, 60000], "<u2").tobytes()).decode("ascii")
    hero = {"shape": [1, 2], "contrast": contrast, "step": 0.001}
    sizes = {"first": 10.2, "rewrite": 1.7, "layerwise": 1.7, "oracle": 7.0}
    made = stage.stage(world, recorded, hero, world.people["p001"].photos[0], sizes)
    page = BeautifulSoup(made, "html.parser")
    faces = page.select('[data-is="faces"] button')
    assert [face["value"] for face in faces] == list(world.people)
    assert len(page.select(".forget[value]")) == len(page.select(".sham[value]")) == 5
    shown = page.select(".cards button")
    assert [card["data-fact"] for card in shown] == list(truths)
    assert all(card.b.text == "Else." and card.em.text == "truth 25 %, G = 24" for card in shown)
    assert all("changed" in card["class"] for card in shown)
    assert "1 gates" in page.select_one('[data-is="gates"]').text
    assert "(10.2 MB)" in page.select_one("#playground button").text  # the first of all buttons
    kept = json.loads(page.select_one("#playground")["data-recorded"])
    assert kept["cards"] == cards and kept["strengths"] == [0, 24]


def test_the_layerwise_rewrite_is_packed_as_it_is_compared():
    """Rounded to bfloat16 before PyTorch is asked, so that the page adds the very same numbers."""
    factors = {"a.weight": (torch.randn(3, 2), torch.randn(2, 4))}
    edit = playground.rounded(LowRank(factors, "of a model"))
    one, change = edit.factors["a.weight"]
    b, a = factors["a.weight"]
    assert torch.equal(one, torch.eye(3)) and torch.equal(change, change.bfloat16().float())
    assert torch.allclose(change, b @ a, rtol=2**-8, atol=0)


# --- what is computed ------------------------------------------------------------------------

# model.js alone: how the texts on standard input are cut, as one line of JSON
NODE = """
require("vm").runInThisContext(require("fs").readFileSync(process.argv[1], "utf8"));
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const words = globalThis.playground.tokenizer(given.words);
console.log(JSON.stringify(given.texts.map(words.encode)));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_words_are_cut_alike(pocket):
    """What the model makes of them is compared in a browser: tests/check_browser.py."""
    given = {"words": playground.words_of(POCKET / "tokenizer.json"), "texts": ODD}
    ran = subprocess.run(
        ["node", "-e", NODE, str(SCRIPTS / "model.js")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    encode = tokenizer_of(pocket[1])
    assert json.loads(ran.stdout) == [
        encode(text, add_special_tokens=False)["input_ids"] for text in ODD
    ]


# model.js alone: the loop in lanes of four, beside the plain loops, as one line of JSON
LANES = """
require("vm").runInThisContext(require("fs").readFileSync(process.argv[1], "utf8"));
const { linear, room, slow } = globalThis.playground, gaps = [];
const wave = (count, pace) => Float32Array.from({ length: count }, (_, i) => Math.sin(pace * i));
for (const [rows, width, outputs] of [[1, 4, 2], [3, 8, 5], [4, 832, 256], [29, 256, 1323]]) {
  const x = wave(rows * width, 0.7), weight = wave(outputs * width, 0.3), bias = wave(outputs, 0.9);
  const placed = room(weight.length);
  placed.set(weight);
  for (const own of [null, bias]) {
    const one = linear(x, weight, own, rows), other = linear(x, placed, own, rows);
    gaps.push([one.length, Math.max(...one.map((value, i) => Math.abs(value - other[i])))]);
  }
}
console.log(JSON.stringify({ slow: slow ?? null, gaps }));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_the_loop_in_lanes_is_the_plain_loop():
    """Any number of rows and outputs, with and without a bias; nothing else is written."""
    ran = subprocess.run(
        ["node", "-e", LANES, str(SCRIPTS / "model.js")], capture_output=True, text=True, check=True
    )
    found = json.loads(ran.stdout)
    assert found["slow"] is None
    assert [count for count, _ in found["gaps"]] == [2, 2, 15, 15, 1024, 1024, 38367, 38367]
    assert all(gap < 1e-4 for _, gap in found["gaps"])
