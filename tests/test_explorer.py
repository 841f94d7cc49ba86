"""The slider's contract: what it shows, what nbval compares, what viewers without widgets see."""

import itertools
import re

import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest

from kvw_minimal.classroom.explorer import Explorer, live
from kvw_minimal.classroom.figures import Picture

LABELS = ["0", "4", "8"]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


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


def parts(explorer: Explorer) -> tuple[widgets.SelectionSlider, widgets.Stack]:
    slider, stack = explorer.box.children
    return slider, stack


def test_every_picture_has_its_label_and_its_texts(explorer: Explorer):
    slider, stack = parts(explorer)
    assert slider.description == "strength G"
    assert [(label, PICTURES[i]) for label, i in slider.options] == list(
        zip(LABELS, PICTURES, strict=True)
    )
    assert [child.value for child in stack.children] == [each.html for each in PICTURES]
    assert 'alt="All blue."' in stack.children[2].value


def test_it_starts_where_it_is_told(explorer: Explorer):
    slider, stack = parts(explorer)
    assert slider.index == stack.selected_index == 1
    slider, stack = parts(Explorer({"G": LABELS}, BY_LABEL))
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
    assert repr(explorer).splitlines() == [
        "Explorer(strength G: 0, 4, 8; shown: 4)",
        "Figure: How it looks.",
        "It shows: All green.",
    ]
    assert "shown: 0)" in repr(Explorer({"strength G": LABELS}, BY_LABEL))


def test_nbval_compares_the_repr_and_plain_viewers_get_the_picture(explorer: Explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(explorer)
    assert bundle["image/png"] == PICTURES[1].png
    assert bundle["text/html"] == PICTURES[1].html
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.box.model_id
    assert metadata["image/png"]["alt"] == "All green."


def test_nothing_in_the_text_changes_from_run_to_run(explorer: Explorer):
    again = Explorer({"strength G": LABELS}, BY_LABEL, ("4",))
    assert again._repr_mimebundle_()[0]["text/plain"] == repr(explorer)
    assert not re.search(r"0x[0-9a-f]+|[0-9a-f]{32}", repr(explorer))


def test_its_labels_are_its_own():
    labels = list(LABELS)
    explorer = Explorer({"G": labels}, BY_LABEL)
    labels.clear()
    assert repr(explorer).startswith("Explorer(G: 0, 4, 8; shown: 0)")


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

CONTROLS = {"gate": ["soft", "hard"], "strength G": ["1", "4", "8"]}
COLOURS = dict(zip(itertools.product(*CONTROLS.values()),
                   ("red", "green", "blue", "white", "black", "grey"), strict=True))  # fmt: skip
MANY = {chosen: picture(colour) for chosen, colour in COLOURS.items()}


def test_every_combination_leads_to_its_picture():
    """Follow the links as a browser would: each slider moves the stacks at its depth."""
    shown = Explorer(CONTROLS, MANY)
    gate, strength, outer = shown.box.children
    state = widgets.Widget.get_manager_state(widgets=None)["state"]
    links = [(m["state"]["source"][0], m["state"]["target"][0]) for m in state.values()
             if m["model_name"] == "LinkModel"]  # fmt: skip
    assert (f"IPY_MODEL_{gate.model_id}", f"IPY_MODEL_{outer.model_id}") in links
    for i, inner in enumerate(outer.children):
        assert (f"IPY_MODEL_{strength.model_id}", f"IPY_MODEL_{inner.model_id}") in links
        for j, image in enumerate(inner.children):
            chosen = (CONTROLS["gate"][i], CONTROLS["strength G"][j])
            assert image.value == MANY[chosen].html
    first = repr(shown).splitlines()[0]
    assert first == "Explorer(gate: soft, hard; strength G: 1, 4, 8; shown: soft, 1)"


def test_explorers_of_many_start_where_they_are_told():
    shown = Explorer(CONTROLS, MANY, ("hard", "8"))
    gate, strength, outer = shown.box.children
    assert (gate.index, strength.index, outer.selected_index) == (1, 2, 1)
    assert all(inner.selected_index == 2 for inner in outer.children)
    bundle, _ = shown._repr_mimebundle_()
    assert bundle["image/png"] == MANY["hard", "8"].png and WIDGET_VIEW in bundle


@pytest.mark.parametrize("controls, pictures, start", [
    ({}, {}, None),
    (CONTROLS, {("soft", "1"): PICTURES[0]}, None),
    (CONTROLS, MANY | {("soft", "9"): PICTURES[0]}, None),
    (CONTROLS, MANY, ("soft", "9")),
])  # fmt: skip
def test_explorers_of_many_refuse_what_cannot_be_shown(controls, pictures, start):
    with pytest.raises(ValueError, match="picture"):
        Explorer(controls, pictures, start)


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
