"""Small drawings for explorers: they hold what they are given, and each says what it shows."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from kvw_experiments import drawings
from kvw_experiments.explorer import Explorer
from kvw_minimal.bootstrap import DRAWS, interval

pytestmark = pytest.mark.slow

SAID = {"caption": "Look at it.", "alt": "It is <there>."}
LAYERS = {"layer 0": 0.25, "said": 1.0}


def elements(drawing: drawings.Drawing, tag: str) -> list[ElementTree.Element]:
    """Every element of a kind; the drawing must be well-formed XML."""
    return list(ElementTree.fromstring(drawing.svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def texts(drawing: drawings.Drawing) -> list[str]:
    return [each.text or "" for each in elements(drawing, "text")]


def test_the_gate_is_that_of_the_book_and_its_limit_a_step():
    c_f, c_r = torch.tensor([[0.5, 1.0, 2.0, 2.0]]), torch.ones(1, 4)
    explorer = drawings.gates_by_strength(c_f, c_r, (1, 2))
    assert explorer.controls == {"strength G": ["1", "2", "without limit"]}
    gates = [
        [text for text in texts(shown) if text.startswith("gate")]
        for shown in explorer.pictures.values()
    ]
    assert gates[0][:2] == ["gate 1.00", "gate 0.50"]
    assert gates[1][:2] == ["gate 1.00", "gate 0.25"]
    assert gates[2] == ["gate 1.00", "gate 0.00", "gate 0.00"]


def test_a_mask_that_is_moved_measures_other_tokens():
    h = torch.tensor([[[1.0], [-3.0], [5.0], [9.0]]])
    answers = torch.tensor([[False, True, True, False]])
    explorer = drawings.mask_moved(h, answers, ["a", "b", "c", "d"])
    assert isinstance(explorer, Explorer) and explorer.start == ("right",)
    found = {label: texts(shown)[-1] for (label,), shown in explorer.pictures.items()}
    assert found == {"one too early": "2", "right": "4", "one too late": "7"}


def test_people_are_drawn_as_for_the_interval_of_the_book():
    """The last picture has that interval; who is not drawn is dashed, and a wrong answer is red."""
    people = [f"p{i % 5}" for i in range(20)]
    values = np.array([0.0, *[1.0] * 19])
    explorer = drawings.people_drawn(values, people, (1, 2, DRAWS))
    assert explorer.controls == {"draws": ["1", "2", f"{DRAWS:,}"]}
    first, _, last = explorer.pictures.values()
    _, low, high = interval(values, people)
    assert f"the middle 95 %: [{low:.3f}, {high:.3f}]" in texts(last)
    assert not any("95 %" in text for text in texts(first))
    drawn = np.bincount(np.random.default_rng(0).integers(5, size=(DRAWS, 5))[0], minlength=5)
    assert first.svg.count('class="off"') == (drawn == 0).sum()
    assert first.svg.count('class="dot"') == int(drawn[0] > 0)
    assert f"this draw: {(drawn > 0).sum()} people" in texts(first)


def test_states_are_filled_where_they_are_led_and_the_first_layer_stands_below():
    rows = {"layer 0": ["", "1/2"], "layer 1": ["", "all"]}
    drawing = drawings.states_led(["photo", "In"], rows, **SAID)
    assert (drawing.svg.count('class="cell"'), drawing.svg.count('class="off"')) == (2, 2)
    height = {each.text: float(each.get("y")) for each in elements(drawing, "text")}
    assert height["layer 1"] < height["layer 0"] < height["photo"]
    assert height["1/2"] == height["layer 0"]


def test_a_way_is_filled_as_far_as_the_state_has_come_and_the_first_layer_stands_below():
    drawing = drawings.ways(
        {"layer 0": 10.0, "layer 1": 40.0},
        {"layer 0": (0.0, 0.5), "layer 1": (0.25, 1.25)},
        {"layer 0": "asked", "layer 1": "more"},
        **SAID,
    )
    bars = [each for each in elements(drawing, "rect") if each.get("height") == "24"]
    widths = [float(each.get("width")) for each in bars]
    assert widths == pytest.approx([58, 232, 232, 0, 29, 58])  # before, by its edit, whole
    assert {"0.50", "1.25", "asked", "more"} <= set(texts(drawing))


def test_what_is_left_stands_beside_the_sham_and_what_is_kept():
    rows = {"edit": (0.25, 0.9, 1.0), "oracle": (0.0, None, 1.0)}
    drawing = drawings.left_beside_sham(rows, **SAID)
    assert texts(drawing)[-7:] == ["edit", "0.25", "1.00", "0.90", "oracle", "0.00", "1.00"]
    bars = [
        (bar.get("class"), float(bar.get("width", "nan")))
        for bar in ElementTree.fromstring(drawing.svg).iter("{http://www.w3.org/2000/svg}rect")
    ][4:]  # after the paper and what explains the colours
    assert [kind for kind, _ in bars] == ["on", "on", "off", "s", "s"]
    assert bars[0][1] / bars[2][1] == pytest.approx(0.25 / 0.9)
