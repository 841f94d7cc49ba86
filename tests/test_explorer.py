"""The explorer's contract: what it shows, what nbval compares, what the book makes of it."""

import itertools
import json

import explorers
import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup
from execute import WIDGET, tidy

from kvw_experiments.explorer import DATA, Explorer, live
from kvw_experiments.figures import Picture

pytestmark = pytest.mark.slow

LABELS = ["0", "4", "8"]


def picture(colour: str) -> Picture:
    """A picture of one colour."""
    figure, axis = plt.subplots(figsize=(0.4, 0.3))
    axis.set(facecolor=colour, xticks=[], yticks=[])
    return Picture(figure, "How it looks.", f"All {colour}.")


PICTURES = [picture("red"), picture("green"), picture("blue")]
BY_LABEL = {(label,): shown for label, shown in zip(LABELS, PICTURES, strict=True)}


@pytest.fixture
def explorer() -> Explorer:
    return Explorer({"strength G": LABELS}, BY_LABEL, ("4",))


def test_nbval_compares_the_repr_and_plain_viewers_get_the_picture(explorer: Explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer)
    assert bundle["image/png"] == PICTURES[1].png
    assert bundle["text/html"] == PICTURES[1].html
    assert bundle[WIDGET]["model_id"] == explorer.box.model_id
    assert metadata["image/png"]["alt"] == "All green."


@pytest.mark.parametrize(
    ("labels", "pictures", "start"),
    [
        ([], {}, None),
        (LABELS, {}, None),
        (LABELS[:2], BY_LABEL, None),
        (LABELS, {("0",): PICTURES[0], ("4",): PICTURES[1]}, None),
        (LABELS, BY_LABEL, ("9",)),
        (LABELS, BY_LABEL, ("0", "4")),
    ],
    ids=[
        "nothing",
        "no pictures",
        "a label short",
        "a picture short",
        "no such label",
        "a control too many",
    ],
)
def test_what_does_not_fit_is_refused(labels: list[str], pictures: dict, start: tuple | None):
    with pytest.raises(ValueError, match="picture"):
        Explorer({"G": labels}, pictures, start)


# --- several controls ------------------------------------------------------------------------

CONTROLS = {"the gate": ["soft", "hard"], "strength G": ["1", "4", "8"]}
COLOURS = dict(
    zip(
        itertools.product(*CONTROLS.values()),
        ("red", "green", "blue", "white", "black", "grey"),
        strict=True,
    )
)
MANY = {chosen: picture(colour) for chosen, colour in COLOURS.items()}


def test_every_combination_leads_to_its_picture():
    explorer = Explorer(CONTROLS, MANY)
    gate, strength, shown, _ = explorer.box.children
    for chosen in MANY:
        gate.value, strength.value = chosen
        assert shown.value == MANY[chosen].html
    first = repr(explorer).splitlines()[0]
    assert first == "Explorer(the gate: soft, hard; strength G: 1, 4, 8; shown: soft, 1)"


def test_live_draws_again_when_a_control_moves():
    def draw(colour, size):
        if size > 3:
            raise ValueError("too large")
        drawn.append((colour, size))
        return PICTURES[["red", "green", "blue"].index(colour)]

    drawn: list = []
    colour = widgets.Dropdown(options=["red", "blue"])
    size = widgets.IntSlider(value=1, max=9)
    box = live(draw, colour=colour, size=size)
    *_, image, trouble = box.children
    assert drawn == [("red", 1)] and image.value == PICTURES[0].html
    colour.value = "blue"
    assert drawn[-1] == ("blue", 1) and image.value == PICTURES[2].html
    size.value = 5
    assert trouble.value == "too large" and image.value == PICTURES[2].html
    size.value = 2
    assert trouble.value == "" and drawn[-1] == ("blue", 2)


# --- in the built book -----------------------------------------------------------------------


def test_the_book_shows_every_picture_under_its_labels():
    explorer = Explorer(CONTROLS, MANY, ("hard", "4"))
    stored = json.loads(json.dumps(explorer.data, sort_keys=True))  # as a notebook is
    page = BeautifulSoup(explorers.component(stored, "e"), "html.parser")
    labelled = [attrs["for"] for attrs in page.find_all("label")]
    sliders = page.find_all("input")
    assert [each["id"] for each in sliders] == labelled and len(set(labelled)) == 2
    assert [json.loads(each["data-labels"]) for each in sliders] == list(CONTROLS.values())
    assert [each["value"] for each in sliders] == ["1", "1"]
    assert [each["aria-valuetext"] for each in sliders] == ["hard", "4"]
    frames = page.select("div[data-at]")
    pictures = page.find_all("img")
    for frame, picture in zip(frames, pictures, strict=True):
        steps = frame["data-at"].split(",")
        chosen = tuple(labels[int(i)] for labels, i in zip(CONTROLS.values(), steps, strict=True))
        assert picture["alt"] == MANY[chosen].alt and picture["src"] in MANY[chosen].html
        assert frame.has_attr("hidden") == (chosen != ("hard", "4"))
    assert len(frames) == 6


def test_only_explorers_become_components(explorer: Explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    bundle |= {"image/png": "iVBORw0KGgo="}
    plain = {"text/plain": "1", "text/html": "<b>1</b>"}
    outputs = [
        {"output_type": "display_data", "metadata": metadata, "data": bundle},
        {"output_type": "display_data", "metadata": {}, "data": dict(plain)},
    ]
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "", "outputs": outputs}
    stored = tidy({"metadata": {}, "cells": [cell]})
    assert WIDGET not in stored["cells"][0]["outputs"][0]["data"]
    made = json.loads(explorers.with_components(json.dumps(stored)))
    first, second = (output["data"] for output in made["cells"][0]["outputs"])
    assert first["text/html"].startswith('<div class="explorer"') and DATA not in first
    assert second == plain
