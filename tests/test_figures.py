"""Figures draw what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from kvw_minimal import figures
from kvw_minimal.people import load_people

ROWS = [
    {"state": state, "set": name, "modality": "image", "metric": "exact_match", "value": value,
     "low": value - 0.05, "high": value + 0.05, "n": 10}
    for state, value in (("vanilla", 0.9), ("edited", 0.4))
    for name in ("forget", "retain")
]  # fmt: skip


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_bars_have_the_height_of_the_values():
    figure = figures.bars(ROWS)
    heights = sorted(round(patch.get_height(), 6) for patch in figure.axes[0].patches)
    assert heights == [0.4, 0.4, 0.9, 0.9]


def test_the_table_says_what_the_bars_show():
    table = figures.table(ROWS)
    assert table.loc[("forget", "image"), "vanilla"] == "0.90 [0.85, 0.95]"
    assert list(table.columns) == ["vanilla", "edited"]


def test_frontier_rings_the_marked_strength():
    points = pd.DataFrame({"schedule": "one pass", "strength": [1.0, 8.0], "forget": [0.9, 0.3],
                           "retain": [1.0, 0.8]})  # fmt: skip
    figure = figures.frontier(points, mark=8.0)
    line, ring = figure.axes[0].lines[0], figure.axes[0].collections[-1]
    assert line.get_xydata().tolist() == [[0.9, 1.0], [0.3, 0.8]]
    assert ring.get_offsets().tolist() == [[0.3, 0.8]]


def test_photos_show_every_person():
    world = load_people()
    people = [world.people[person] for person in world.groups["A"][:2]]
    figure = figures.photos(people)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("new") == 4 and people[1].name in titles


def test_to_png_is_a_png_and_closes():
    figure = figures.gate_curves(np.logspace(-1, 1, 5), {2.0: np.ones(5)})
    assert figures.to_png(figure).startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_the_field_shows_every_contender_where_it_stands():
    points = pd.DataFrame({"contender": ["a", "b"], "family": ["kvw", "control"],
                           "forget": [0.3, 0.9], "retain": [0.8, 1.0], "low": [0.2, 0.8],
                           "high": [0.4, 1.0]})  # fmt: skip
    axis = figures.field(points, {"sham": 0.95}).axes[0]
    lines = [line.get_xydata().tolist() for line in axis.lines]
    assert [[0.3, 0.8]] in lines and [[0.9, 1.0]] in lines
    assert [[0.2, 0.8], [0.4, 0.8]] in lines
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b", "sham"]


def test_the_forest_has_a_panel_a_set_and_a_line_a_contender():
    rows = pd.DataFrame({"contender": ["a", "b", "a"], "set": ["forget", "forget", "retain"],
                         "value": [0.1, -0.2, 0.0], "low": [0.0, -0.3, -0.1],
                         "high": [0.2, -0.1, 0.1]})  # fmt: skip
    figure = figures.forest(rows, "difference")
    assert [axis.get_title() for axis in figure.axes] == ["forget", "retain"]
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["a", "b"]


def test_ways_to_forget_are_lines_in_the_order_of_their_settings():
    points = pd.DataFrame({"method": ["GA", "GA", "NPO"], "forget": [0.9, 0.2, 0.5],
                           "retain": [1.0, 0.3, 0.9]})  # fmt: skip
    lines = figures.contenders(points).axes[0].lines
    assert lines[0].get_xydata().tolist() == [[0.9, 1.0], [0.2, 0.3]]
    assert lines[1].get_xydata().tolist() == [[0.5, 0.9]]


def test_one_person_shows_who_moved_and_what_is_wrong():
    person = next(iter(load_people().people.values()))
    said = pd.Series({"birthplace": "Turin", "work": "plumber"})
    right = pd.Series({"birthplace": False, "work": True})
    moved = pd.Series({person.name: 0.8, "Somebody Else": 0.1})
    figure = figures.one_person(person, "G = 8", said, right, moved)
    _, words, others = figure.axes
    assert [(t.get_text(), t.get_color()) for t in words.texts] == [
        ("birthplace: Turin", "firebrick"), ("work: plumber", "black")]  # fmt: skip
    assert [round(bar.get_width(), 6) for bar in others.patches] == [0.8, 0.1]


def test_spectrograms_have_low_bands_at_the_bottom():
    features = np.zeros((2, 4, 10))
    features[1, 0] = 1  # the second recording hums
    figure = figures.spectrograms(features, ["quiet", "hum"])
    assert [axis.get_title() for axis in figure.axes] == ["quiet", "hum"]
    image = figure.axes[1].images[0]
    assert image.origin == "lower" and image.get_array()[0].min() == 1
    assert list(image.get_extent()) == [0, 1.0, 0, 4]
    plt.close(figure)


def test_one_setting_writes_its_numbers():
    figure = figures.one_setting("power law", {"forget image": 0.25, "retain": 1.0})
    [axis] = figure.axes
    assert [text.get_text() for text in axis.texts] == ["0.25", "1.00"]
    assert [bar.get_width() for bar in axis.patches] == [0.25, 1.0]
