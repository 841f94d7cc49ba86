"""Figures draw what they are given, and none goes without a caption and an alternative text."""

import functools
import inspect
import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from PIL import Image

import kvw_exhibits as exhibits
from kvw_experiments import figures
from kvw_minimal.strangers.people import load_people

pytestmark = pytest.mark.slow

ROWS = [
    {
        "condition": state,
        "set": name,
        "modality": "image",
        "metric": "exact_match",
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
        "n": 10,
    }
    for state, value in (("vanilla", 0.9), ("edited", 0.4))
    for name in ("forget", "retain")
]

TEXTS = {"caption": "Look at the left.", "alt": "A <bold> line & a point."}


def drawn(draw, *given, **options):
    """The axes of a figure, and that none is left open to be shown a second time."""
    picture = draw(*given, **options, **TEXTS)
    assert not plt.get_fignums()
    return picture.figure.axes


LINE = functools.partial(
    figures.lines, pd.DataFrame({"x": [0, 1], "y": [1, 0], "of": ["a", "a"]}), "x", "y", "of"
)


@pytest.mark.parametrize(
    "texts", [{}, {"caption": "c"}, {"alt": "a"}, {"caption": " ", "alt": "a"}]
)
def test_a_figure_without_its_texts_is_refused(texts):
    with pytest.raises(ValueError, match="caption.*alternative text"):
        LINE(**texts)
    assert not plt.get_fignums()


def test_every_figure_demands_its_texts():
    """All public functions that draw, but for the one that makes a file for the README."""
    own = {
        name: draw
        for name, draw in (vars(figures) | vars(exhibits)).items()
        if inspect.isfunction(draw)
        and inspect.signature(inspect.unwrap(draw)).return_annotation is figures.Figure
    }
    captioned = {name for name, draw in own.items() if "alt" in inspect.signature(draw).parameters}
    assert {name for name in own if not name.startswith("_")} - captioned == {"before_after"}
    assert len(captioned) > 8


def test_what_is_shown_where():
    picture = LINE(**TEXTS)
    shown, metadata = DisplayFormatter().format(picture)
    assert shown["text/plain"] == ("Figure: Look at the left.\nIt shows: A <bold> line & a point.")
    assert shown["text/html"].startswith("<figure ")
    assert 'alt="A &lt;bold&gt; line &amp; a point."' in shown["text/html"]
    assert "<figcaption>Look at the left.</figcaption>" in shown["text/html"]
    unsafe = LINE(caption="Is a < b & c?", alt="It is.").html
    assert "<figcaption>Is a &lt; b &amp; c?</figcaption>" in unsafe
    assert Image.open(io.BytesIO(shown["image/png"])).format == "PNG"
    assert metadata["image/png"]["alt"] == TEXTS["alt"]
    assert LINE(**TEXTS).html == picture.html  # the same bytes from run to run


def test_bars_are_of_exact_match_and_their_whiskers_are_the_interval():
    rows = [row | {"low": row["value"] - 0.2, "high": row["value"] + 0.05} for row in ROWS]
    other = [row | {"metric": "probability", "value": 0.1, "low": 0.1, "high": 0.1} for row in rows]
    (axis,) = drawn(figures.bars, other + rows)
    assert len(axis.patches) == len(ROWS)
    ends = [
        sorted(segment[:, 1].round(6))
        for whiskers in axis.containers
        if isinstance(whiskers, ErrorbarContainer)
        for segment in whiskers.lines[2][0].get_segments()
    ]
    assert sorted(ends) == sorted([round(r["low"], 6), round(r["high"], 6)] for r in rows)
    assert figures.table(other + rows).equals(figures.table(rows))


@pytest.mark.parametrize(("groups", "columns", "written"), [(3, 2, 6), (6, 2, 12), (9, 2, 0)])
def test_each_of_a_few_bars_has_its_value_at_its_end(groups, columns, written):
    shares = np.linspace(0, 1, groups * columns).reshape(groups, columns)
    table = pd.DataFrame(shares, columns=list("abcd"[:columns]))
    (axis,) = drawn(figures.shares, table, "x")
    assert len(axis.patches) == groups * columns
    texts = [f"{bar.get_height():.2f}" for bar in axis.patches]
    assert [text.get_text() for text in axis.texts] == texts[:written]
    (axis,) = drawn(figures.shares, pd.DataFrame(np.ones((8, 2))), "x")  # texts would meet
    assert not axis.texts


def test_the_table_says_what_the_bars_show():
    table = figures.table(ROWS)
    assert table.loc[("forget", "image"), "vanilla"] == "0.90 [0.85, 0.95]"
    assert list(table.columns) == ["vanilla", "edited"]


@pytest.mark.parametrize("name", ["US$", r"$\frac$", "a_b^c"])
def test_a_name_is_shown_as_it_is_spelt(name):
    """A dollar sign is no mathematics: not in a title, a legend, a label or beside a matrix."""
    person = replace(load_people().people["p000"], first_name=name, last_name="")
    table = pd.DataFrame({"x": [1, 100], "y": [1, 0], "of": [name] * 2})
    figures.to_png(figures.before_after([person, person], [name], [[name]] * 2, [["b"]] * 2, set()))
    shown = [
        drawn(figures.heatmap, np.zeros((1, 2)), [name], ["a", name], name),
        drawn(figures.lines, table, "x", "y", "of", log_x=True),
    ]
    texts = [text for axes in shown for text in axes[0].figure.findobj(Text) if text.get_visible()]
    own = [text for text in texts if name in text.get_text()]
    assert len(own) >= 4 and not any(text.get_parse_math() for text in own)


@pytest.mark.parametrize(("together", "gaps"), [(0, []), (2, [2, 4]), (3, [3])])
def test_columns_of_a_heatmap_stand_together(together, gaps):
    axis, *_ = drawn(
        figures.heatmap, np.zeros((1, 5)), ["a"], list("abcde"), "of", together=together
    )
    assert [line.get_xdata()[0] for line in axis.lines] == gaps


FRAME = pd.DataFrame(
    {
        "left": ["0.77 [0.70, 0.84]", "not reached", "0.55 [0.50, 0.60]"],
        "people": [5, 25, 1400],
        "gap": [0.125, np.nan, -0.001],
        "kept": [True, False, None],
    },
    index=pd.Index(["ascent", "a < b", "mask"], name="method"),
)


def test_tables_are_numbered_in_the_order_in_which_they_are_first_shown():
    table = figures.Tables(4)
    first, second, again = (table(FRAME, caption) for caption in ("One.", "Two.", "One."))
    assert [each.number for each in (first, second, again)] == ["4.1", "4.2", "4.1"]
    assert repr(second).startswith("Table 4.2. Two.\n")


def test_a_table_is_shown_as_html_and_as_text():
    shown, _ = DisplayFormatter().format(figures.Tables(4)(FRAME, "Which is < 1?", by="left"))
    assert set(shown) == {"text/plain", "text/html"}
    page = shown["text/html"]
    assert page.count("<tr>") == 4 and ">Table 4.1. Which is &lt; 1?</caption>" in page
    assert '<th scope="col">method</th>' in page and '<th scope="row">a &lt; b</th>' in page
    assert "nan" not in page.lower() and "None" not in page
    order = [page.index(f">{name}</th>") for name in ("mask", "ascent", "a &lt; b")]
    assert order == sorted(order)  # by what is left; a row without a number stands last
    assert "0.77 [0.70, 0.84]" in shown["text/plain"] and "NaN" not in shown["text/plain"]


def test_a_cell_reads_as_a_person_would_write_it():
    cells = figures.Tables(1)(FRAME, "Cells.").cells
    assert cells["people"].tolist() == ["5", "25", "1,400"]
    assert cells["gap"].tolist() == ["0.12", figures.MISSING, "0.00"]
    assert cells["kept"].tolist() == ["yes", "no", figures.MISSING]
    assert figures.as_text(0.6149, 3) == "0.615" and figures.as_text("") == figures.MISSING


def test_an_interval_over_people_is_exact_at_its_ends_and_a_bootstrap_between():
    people = ["a", "a", "b", "b"]
    assert figures.over_people([1, 1, 1, 1], people) == "1.00 [0.16, 1.00]"  # 0.025 ** (1 / 2)
    assert figures.over_people([0, 0, 0, 0], people) == "0.00 [0.00, 0.84]"
    assert figures.over_people([1, 1, 0, 0], people) == "0.50 [0.00, 1.00]"


def test_a_column_of_numbers_is_sorted_by_what_they_are_worth():
    table = figures.Tables(1)(FRAME, "Sorted.", by="people")
    assert table.cells["people"].tolist() == ["5", "25", "1,400"]
    signed = pd.DataFrame({"gap": ["+0.10 [0, 1]", "", "-0.30 [-1, 0]", "0.05"]})
    assert figures.Tables(1)(signed, "Signed.", by="gap").cells["gap"].tolist() == [
        "-0.30 [-1, 0]",
        "0.05",
        "+0.10 [0, 1]",
        figures.MISSING,
    ]


@pytest.mark.parametrize(("frame", "caption"), [(FRAME, " "), (FRAME.iloc[:0], "Empty.")])
def test_a_table_without_caption_or_rows_is_refused(frame, caption):
    with pytest.raises(ValueError, match="caption and at least one row"):
        figures.Tables(1)(frame, caption)


def test_a_condition_has_its_colour_in_every_figure_and_no_two_lines_share_one():
    names = ["KVW", "rewrite", "oracle", *"abcd"]
    colours = figures.colours_of(names)
    assert colours["oracle"] == figures.colours_of(["x", "oracle"])["oracle"]
    assert len(set(colours.values())) == len(names)


def test_a_forest_is_sorted_and_a_difference_is_coloured_where_its_interval_leaves_out_0():
    ends = ["value", "low", "high"]
    values = pd.DataFrame([[0.2, 0.1, 0.3, 1.0], [0.5, 0.4, 0.6, 0.9]], ["a", "b"], [*ends, "sham"])
    gaps = pd.DataFrame([[-0.3, -0.4, -0.2], [0.1, -0.1, 0.3]], ["a", "b"], ends)
    left, right = drawn(figures.forest, values, gaps, ("left", "minus"))
    assert [text.get_text() for text in left.get_yticklabels()] == ["b", "a"]  # a stands on top
    colour = {
        line.get_ydata()[0]: line.get_color() for line in right.lines if line.get_marker() == "o"
    }
    assert colour[0] == "grey" and colour[1] != "grey"


def test_a_wrong_verdict_is_crossed():
    rows = {"knows": {"quiet": 2, "gone": 3}, "its twin": {"quiet": 1, "not decided": 4}}
    [axis] = drawn(exhibits.verdict_squares, rows)
    assert len(axis.patches) == 10
    assert len([text for text in axis.texts if text.get_text() == "×"]) == 3 + 1
