"""Sliders over pre-drawn pictures that work with a kernel, without one, and without network.

`live` is for a kernel only: it draws what nobody has drawn before.
"""

import itertools
from collections.abc import Callable

import ipywidgets as widgets


def _slider(name: str, labels: list[str], index: int) -> widgets.SelectionSlider:
    """A slider over labels, wide enough for its name."""
    return widgets.SelectionSlider(
        options=[(label, i) for i, label in enumerate(labels)], index=index, description=name,
        continuous_update=True, style={"description_width": "initial"}, layout={"width": "95%"},
    )  # fmt: skip


def _bundle(box: widgets.VBox, text: str, picture: bytes, **kwargs) -> dict:
    """The widget; with what nbval compares, and what plain viewers show."""
    return box._repr_mimebundle_(**kwargs) | {"text/plain": text, "image/png": picture}


class Explorer:
    """Show one picture for each setting; the browser, not the kernel, switches between them.

    Keyboard: tab to the slider, then the arrow keys.

    Args:
        name: what the slider changes, such as `strength G`.
        labels: one for each picture.
        pictures: PNG bytes, drawn by a pure function.
        start: index of the picture that is shown first.

    Raises:
        ValueError: not one label for each picture, or a start that is out of range.
    """

    def __init__(self, name: str, labels: list[str], pictures: list[bytes], start: int = 0):
        if not pictures or len(labels) != len(pictures) or not 0 <= start < len(pictures):
            raise ValueError("an explorer needs one label a picture and a start among them")
        self.name, self.labels, self.pictures, self.start = (
            name,
            list(labels),
            list(pictures),
            start,
        )
        slider = _slider(name, labels, start)
        stack = widgets.Stack([widgets.Image(value=png) for png in pictures], selected_index=start)
        widgets.jslink((slider, "index"), (stack, "selected_index"))
        self.box = widgets.VBox([slider, stack])

    def __repr__(self) -> str:
        return f"Explorer({self.name}: {', '.join(self.labels)}; shown: {self.labels[self.start]})"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return _bundle(self.box, repr(self), self.pictures[self.start], **kwargs)


class Panels:
    """Several controls over pre-drawn pictures, one picture for each combination of settings.

    As in `Explorer` the browser does the switching, so it works without a kernel. Keyboard: tab
    from control to control, then the arrow keys.

    Args:
        controls: what each control changes, and its labels: `{"strength": ["4", "8"], ...}`.
        pictures: PNG bytes by one label of each control, in their order.
        start: the combination that is shown first; the first of each unless given.

    Raises:
        ValueError: no control, a picture that is missing or that no control can reach.
    """

    def __init__(self, controls: dict[str, list[str]], pictures: dict[tuple[str, ...], bytes],
                 start: tuple[str, ...] | None = None):  # fmt: skip
        combinations = list(itertools.product(*controls.values()))
        if not controls or set(combinations) != set(pictures):
            raise ValueError("one picture is needed for each combination of labels, and no other")
        self.controls, self.pictures = controls, pictures
        self.start = start or combinations[0]
        if self.start not in pictures:
            raise ValueError(f"there is no picture of {self.start}")
        sliders = [_slider(name, labels, labels.index(first)) for (name, labels), first in
                   zip(controls.items(), self.start, strict=True)]  # fmt: skip
        self.box = widgets.VBox([*sliders, self._stack((), sliders)])

    def _stack(self, chosen: tuple[str, ...], sliders: list) -> widgets.Widget:
        """What is shown once the first controls have been set: a picture, or a stack of stacks."""
        depth = len(chosen)
        if depth == len(sliders):
            return widgets.Image(value=self.pictures[chosen])
        labels = list(self.controls.values())[depth]
        stack = widgets.Stack([self._stack((*chosen, label), sliders) for label in labels],
                              selected_index=sliders[depth].index)  # fmt: skip
        widgets.jslink((sliders[depth], "index"), (stack, "selected_index"))
        return stack

    def __repr__(self) -> str:
        listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in self.controls.items())
        return f"Panels({listed}; shown: {', '.join(self.start)})"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return _bundle(self.box, repr(self), self.pictures[self.start], **kwargs)


def live(draw: Callable[..., bytes], **controls: widgets.Widget) -> widgets.VBox:
    """The same picture, drawn anew by the kernel whenever a control is moved.

    Args:
        draw: takes the value of each control by name and returns PNG bytes: the function that
            drew the pictures of `Panels`, so that both show the same.
        controls: widgets with a `value`, such as `ipywidgets.FloatLogSlider`. Let those that are
            dragged wait for the release (`continuous_update=False`).

    Returns:
        The controls and the picture. A ValueError of `draw` is shown below the last picture.
    """
    picture, trouble = widgets.Image(), widgets.Label()

    def update(_change=None) -> None:
        try:
            png = draw(**{name: control.value for name, control in controls.items()})
        except ValueError as error:
            trouble.value = str(error)
            return
        picture.value, trouble.value = png, ""

    for control in controls.values():
        control.observe(update, "value")
    update()
    return widgets.VBox([*controls.values(), picture, trouble])
