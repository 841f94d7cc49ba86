"""The landing page: what its widget shows is what the model says, and it is whole without a script.

`python tests/landing.py` makes the data. That the slider works is tested by tests/check_browser.py.
"""

import importlib.util
import json
from html.parser import HTMLParser

import landing as recorded
import pytest
from execute import ROOT

from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.questions import SETS

STATIC = ROOT / "book" / "_static" / "landing"
VOID = {"input", "img"}
NEEDED = {"command", "commit", "models", "data", "versions", "date"}


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(recorded.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def extension():
    """The Sphinx extension; it has the name of the script that makes the data."""
    place = ROOT / "book" / "_ext" / "landing.py"
    spec = importlib.util.spec_from_file_location("landing_extension", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Page(HTMLParser):
    """Elements in their order: `(tag, attributes, text in it)`; what is open must be closed."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def all(self, tag: str, of: str = "") -> list[tuple[dict, str]]:
        """Attributes and text of every element of a kind, perhaps of one class."""
        found = [(attrs, "".join(text)) for name, attrs, text in self.elements if name == tag]
        return [each for each in found if not of or of in each[0].get("class", "").split()]


@pytest.fixture(scope="module")
def page(extension) -> Page:
    return Page(extension.widget(ROOT))


def state_at(stored: dict, strength: float, sham: int | None) -> dict:
    """What is stored of one edit; at strength 0 every one is vanilla."""
    (found,) = [
        each
        for each in stored["states"]
        if each["strength"] == strength and each["sham"] == (None if strength == 0 else sham)
    ]
    return found


# --- the data ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared():
    return recorded.prepared()


def test_a_slice_comes_out_the_same(stored, prepared):
    """KVW at the book's strength and the first sham at the greatest, on the real model."""
    task, world, sets, batches = prepared
    assert stored["provenance"]["models"]["pocket"] == fingerprint(task.model)
    assert stored["provenance"]["data"] == world.checksum[:16]
    shown = [person["id"] for person in stored["people"]]
    assert recorded.shown_people(task, world, recorded.edit_of(task, world)) == shown
    asked = recorded.asked_of(world, shown)
    assert [(q["person"], q["fact"], q["prompt"], q["taught"]) for q in stored["questions"]] == [
        (q.person, q.fact, q.prompt, q.answer) for q in asked
    ]
    few = {name: batches[name] for name in ("forget", "test", "general")}
    for draw, strength, read in (
        (None, stored["chosen"], batches),
        (0, stored["strengths"][-1], few),
    ):
        now = recorded.state(task, world, sets, read, asked, draw, strength)
        then = state_at(stored, strength, draw)
        assert now["answers"] == then["answers"]
        for name, (right, count) in now["scores"].items():
            assert count == then["scores"][name][1]
            assert abs(right - then["scores"][name][0]) <= 1, name  # processors round differently


def test_the_data_hold_every_state_with_its_sham(stored):
    assert stored["strengths"] == list(recorded.STRENGTHS) and stored["strengths"][0] == 0
    assert stored["chosen"] == recorded.STRENGTH and stored["chosen"] in stored["strengths"]
    there = [(each["sham"], each["strength"]) for each in stored["states"]]
    assert there == recorded.states() and len(there) == 1 + 6 * (1 + recorded.DRAWS)
    for each in stored["states"]:
        assert tuple(each["scores"]) == SETS
        assert len(each.get("answers", [])) == (0 if each["sham"] else len(stored["questions"]))
    assert NEEDED <= set(stored["provenance"])


# --- the page ------------------------------------------------------------------------------------


def test_all_that_the_page_shows_is_stored(page, stored, extension):
    """Strengths, people, answers, scores: each value of each place, against the file."""
    ((slider, _),) = page.all("input")
    values = stored["strengths"]
    assert json.loads(slider["data-names"]) == [f"{value:g}" for value in values]
    assert [text for _, text in page.all("div", "ticks")] == ["".join(f"{v:g}" for v in values)]
    assert (int(slider["max"]), int(slider["value"])) == (6, values.index(stored["chosen"]))
    names = [text for _, text in page.all("caption")][: len(stored["people"])]
    for person, name in zip(stored["people"], names, strict=True):
        assert name == f"{person['name']} {extension.STANDS[person['forgotten']][1]}"
    cells = [attributes for attributes, _ in page.all("td") if "data-at" in attributes]
    answers = [json.loads(cell["data-at"]) for cell in cells if "data-taught" in cell]
    wanted = [
        [state_at(stored, value, sham)["answers"][i] for value in values]
        for i in range(len(stored["questions"]))
        for sham in (None, 0)
    ]
    assert answers == wanted
    shares = [json.loads(cell["data-at"]) for cell in cells if "data-taught" not in cell]
    for i, name in enumerate(SETS):
        for side, draws in enumerate(([None], range(recorded.DRAWS))):
            for step, value in enumerate(values):
                counts = [
                    state_at(stored, value, draw)["scores"][name]
                    for draw in (draws if value else [None])
                ]
                right, count = (sum(part) for part in zip(*counts, strict=True))
                shown = shares[2 * i + side][step]
                assert shown == [f"{right / count:.3f}", f"{right} of {count}"]
    never = [text for attributes, text in page.all("td", "score") if "data-at" not in attributes]
    assert never == [f"{a / b:.3f} {a} of {b}" for a, b in stored["oracle"].values()]


def test_without_a_script_the_page_has_the_tables(page, stored):
    """The slider is hidden, and everything that it would show can be read."""
    ((dial, _),) = page.all("div", "dial")
    ((details, text),) = page.all("details")
    assert "hidden" in dial and "open" in details
    tables = [text for _, text in page.all("table")]
    assert len(tables) == len(stored["people"]) + 1 + 2
    cards = "".join(text for _, text in page.all("div", "person"))
    for value in stored["strengths"]:
        assert f"{value:g}" in text
    for state in stored["states"]:
        for answer, asked in zip(state.get("answers", []), stored["questions"], strict=False):
            assert answer in (cards if answer == asked["taught"] else text)
    assert all(
        f"{right / count:.3f}" in text
        for state in stored["states"]
        if state["sham"] is None
        for right, count in state["scores"].values()
    )


def test_forgotten_and_kept_differ_by_more_than_colour(page, extension):
    style = (STATIC / "landing.css").read_text(encoding="utf-8")
    marks = [mark for _, mark in extension.STANDS.values()]
    assert len(set(marks)) == len({mark[0] for mark in marks}) == 2
    assert ".person.forgotten { border: 3px dashed" in style
    assert all(attributes["alt"].startswith("Portrait of ") for attributes, _ in page.all("img"))
    people = page.all("div", "person")
    assert [text.count(marks[0]) + 2 * text.count(marks[1]) for _, text in people] == [1, 1, 2, 2]


def test_the_slider_has_a_name_and_tells_what_it_did(page):
    ((slider, _),) = page.all("input")
    assert slider["type"] == "range"
    assert [label["for"] for label, text in page.all("label") if text] == [slider["id"]]
    ((said, text),) = [each for each in page.all("p") if each[0].get("aria-live")]
    assert said["aria-live"] == "polite" and text in json.loads(said["data-at"])
    assert len(set(json.loads(said["data-at"]))) == 7
