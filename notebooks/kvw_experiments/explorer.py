"""Controls over pictures: those that are drawn already, and those that nobody has drawn before.

In a notebook both are widgets and ask the kernel. The built book has none: it gets the pictures of
an `Explorer` as data and shows them under controls of its own (book/_ext/explorers.py).
"""

import itertools
from collections.abc import Callable, Mapping

import ipywidgets as widgets

from .figures import Captioned

DATA = "application/vnd.kvw.explorer+json"


def _slider(name: str, labels: list[str], first: str) -> widgets.SelectionSlider:
    """A slider over labels, wide enough for its name."""
    return widgets.SelectionSlider(
        options=labels,
        value=first,
        description=name,
        style={"description_width": "initial"},
        layout={"width": "95%"},
    )


class Explorer:
    """Show one picture for each combination of settings.

    Each picture has a caption and an alternative text of its own, and both change with it.
    Keyboard: tab from control to control, then the arrow keys.

    Args:
        controls: what each control changes, and its labels: `{"strength G": ["4", "8"], ...}`.
        pictures: by one label of each control, in their order: `{("4",): ..., ("8",): ...}`.
        start: the combination that is shown first; the first of each unless given.

    Raises:
        ValueError: no control, a picture that is missing or that no control can reach.
    """

    def __init__(
        self,
        controls: dict[str, list[str]],
        pictures: Mapping[tuple[str, ...], Captioned],
        start: tuple[str, ...] | None = None,
    ):
        combinations = list(itertools.product(*controls.values()))
        if not controls or not combinations or set(combinations) != set(pictures):
            raise ValueError("one picture is needed for each combination of labels, and no other")
        self.controls = {name: list(labels) for name, labels in controls.items()}
        self.pictures, self.start = dict(pictures), start or combinations[0]
        if self.start not in pictures:
            raise ValueError(f"there is no picture of {self.start}")
        sliders = {
            name: _slider(name, labels, first)
            for (name, labels), first in zip(self.controls.items(), self.start, strict=True)
        }
        self.box = live(lambda **chosen: self.pictures[tuple(chosen.values())], **sliders)

    def __repr__(self) -> str:
        listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in self.controls.items())
        shown = f"shown: {', '.join(self.start)}"
        return f"Explorer({listed}; {shown})\n{self.pictures[self.start]!r}"

    @property
    def data(self) -> dict:
        """What the book shows: controls, their order, start, and all pictures as HTML.

        These in the order of their labels; the last control moves first. (A stored notebook sorts
        names, so that their order stands apart.)
        """
        every = itertools.product(*self.controls.values())
        return {
            "controls": self.controls,
            "order": list(self.controls),
            "start": list(self.start),
            "pictures": [self.pictures[chosen].html for chosen in every],
        }

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """The widget; what viewers without widgets show; what the book and nbval take."""
        shown, metadata = self.pictures[self.start]._repr_mimebundle_()
        widget = self.box._repr_mimebundle_(**options)
        return widget | shown | {DATA: self.data, "text/plain": repr(self)}, metadata


def live(draw: Callable[..., Captioned], /, **controls: widgets.Widget) -> widgets.VBox:
    """The same picture, drawn anew by the kernel whenever a control is moved.

    Args:
        draw: takes the value of each control by name: the function that drew the pictures of an
            `Explorer`, so that both show the same.
        controls: widgets with a `value`, such as `ipywidgets.FloatLogSlider`. Let those that are
            dragged wait for the release (`continuous_update=False`).

    Returns:
        The controls and the picture. A ValueError of `draw` is shown below the last picture.
    """
    shown, trouble = widgets.HTML(), widgets.Label()

    def update(_change=None) -> None:
        try:
            picture = draw(**{name: control.value for name, control in controls.items()})
        except ValueError as error:
            trouble.value = str(error)
            return
        shown.value, trouble.value = picture.html, ""

    for control in controls.values():
        control.observe(update, "value")
    update()
    return widgets.VBox([*controls.values(), shown, trouble])
