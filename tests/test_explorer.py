"""The slider's contract: what it shows, what nbval compares, what viewers without widgets see."""

import io
import re

import ipywidgets as widgets
import pytest
from PIL import Image

from kvw_minimal.explorer import Explorer

LABELS = ["0", "4", "8"]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def picture(colour: str) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [picture("red"), picture("green"), picture("blue")]


@pytest.fixture
def explorer() -> Explorer:
    return Explorer("strength G", LABELS, PICTURES, start=1)


def parts(explorer: Explorer) -> tuple[widgets.SelectionSlider, widgets.Stack]:
    slider, stack = explorer.box.children
    return slider, stack


def test_every_picture_has_its_label(explorer: Explorer):
    slider, stack = parts(explorer)
    assert slider.description == "strength G"
    assert [(label, PICTURES[i]) for label, i in slider.options] == list(
        zip(LABELS, PICTURES, strict=True)
    )
    assert [child.value for child in stack.children] == PICTURES


def test_it_starts_where_it_is_told(explorer: Explorer):
    slider, stack = parts(explorer)
    assert slider.index == stack.selected_index == 1
    slider, stack = parts(Explorer("G", LABELS, PICTURES))
    assert slider.index == stack.selected_index == 0


def test_the_browser_links_slider_and_picture(explorer: Explorer):
    """The link is a widget of its own, so that a page without a kernel can follow it."""
    slider, stack = parts(explorer)
    state = widgets.Widget.get_manager_state(widgets=None)["state"]
    ends = [(model["state"]["source"], model["state"]["target"]) for model in state.values()
            if model["model_name"] == "LinkModel"]  # fmt: skip
    expected = ([f"IPY_MODEL_{slider.model_id}", "index"],
                [f"IPY_MODEL_{stack.model_id}", "selected_index"])  # fmt: skip
    assert expected in [(list(source), list(target)) for source, target in ends]


def test_the_repr_says_what_is_there(explorer: Explorer):
    assert repr(explorer) == "Explorer(strength G: 0, 4, 8; shown: 4)"
    assert repr(Explorer("strength G", LABELS, PICTURES)).endswith("shown: 0)")


def test_nbval_compares_the_repr_and_plain_viewers_get_the_picture(explorer: Explorer):
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer)
    assert bundle["image/png"] == PICTURES[1]
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.box.model_id


def test_nothing_in_the_text_changes_from_run_to_run(explorer: Explorer):
    again = Explorer("strength G", LABELS, PICTURES, start=1)
    assert again._repr_mimebundle_()["text/plain"] == explorer._repr_mimebundle_()["text/plain"]
    assert not re.search(r"0x[0-9a-f]+|[0-9a-f]{32}", repr(explorer))


def test_its_labels_are_its_own():
    labels = list(LABELS)
    explorer = Explorer("G", labels, PICTURES)
    labels.clear()
    assert repr(explorer) == "Explorer(G: 0, 4, 8; shown: 0)"


@pytest.mark.parametrize(
    ("labels", "pictures", "start"),
    [
        ([], [], 0),
        (LABELS, [], 0),
        (LABELS[:2], PICTURES, 0),
        (LABELS, PICTURES[:2], 0),
        (LABELS, PICTURES, 3),
        (LABELS, PICTURES, -1),
    ],
    ids=[
        "nothing",
        "no pictures",
        "a label short",
        "a picture short",
        "too far",
        "before the first",
    ],
)
def test_what_does_not_fit_is_refused(labels: list[str], pictures: list[bytes], start: int):
    with pytest.raises(ValueError, match="one label a picture"):
        Explorer("G", labels, pictures, start)
