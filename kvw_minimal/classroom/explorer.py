"""Controls over pre-drawn pictures that work with a kernel, without one, and without network.

`live` is for a kernel only: it draws what nobody has drawn before.
"""

import itertools
from collections.abc import Callable

import ipywidgets as widgets

from .figures import Picture


def _slider(name: str, labels: list[str], first: str) -> widgets.SelectionSlider:
    """A slider over labels, wide enough for its name."""
    return widgets.SelectionSlider(
        options=[(label, i) for i, label in enumerate(labels)], index=labels.index(first),
        description=name, continuous_update=True, style={"description_width": "initial"},
        layout={"width": "95%"},
    )  # fmt: skip


class Explorer:
    """Show one picture for each combination of settings; the browser switches between them.

    No kernel is asked, so that it works on a page. Each picture has a caption and an alternative
    text of its own, and both change with it. Keyboard: tab from control to control, then the arrow
    keys.

    Args:
        controls: what each control changes, and its labels: `{"strength G": ["4", "8"], ...}`.
        pictures: by one label of each control, in their order: `{("4",): ..., ("8",): ...}`.
        start: the combination that is shown first; the first of each unless given.

    Raises:
        ValueError: no control, a picture that is missing or that no control can reach.
    """

    def __init__(self, controls: dict[str, list[str]], pictures: dict[tuple[str, ...], Picture],
                 start: tuple[str, ...] | None = None):  # fmt: skip
        combinations = list(itertools.product(*controls.values()))
        if not controls or not combinations or set(combinations) != set(pictures):
            raise ValueError("one picture is needed for each combination of labels, and no other")
        self.controls = {name: list(labels) for name, labels in controls.items()}
        self.pictures, self.start = dict(pictures), start or combinations[0]
        if self.start not in pictures:
            raise ValueError(f"there is no picture of {self.start}")
        sliders = [_slider(name, labels, first) for (name, labels), first in
                   zip(self.controls.items(), self.start, strict=True)]  # fmt: skip
        self.box = widgets.VBox([*sliders, self._stack((), sliders)])

    def _stack(self, chosen: tuple[str, ...], sliders: list) -> widgets.Widget:
        """What is shown once the first controls have been set: a picture, or a stack of stacks."""
        depth = len(chosen)
        if depth == len(sliders):  # as HTML: an image widget has no alternative text
            return widgets.HTML(value=self.pictures[chosen].html)
        labels = list(self.controls.values())[depth]
        stack = widgets.Stack([self._stack((*chosen, label), sliders) for label in labels],
                              selected_index=sliders[depth].index)  # fmt: skip
        widgets.jslink((sliders[depth], "index"), (stack, "selected_index"))
        return stack

    def __repr__(self) -> str:
        listed = "; ".join(f"{name}: {', '.join(labels)}" for name, labels in self.controls.items())
        shown = f"shown: {', '.join(self.start)}"
        return f"Explorer({listed}; {shown})\n{self.pictures[self.start]!r}"

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """The widget; what viewers without widgets show; and what nbval compares."""
        shown, metadata = self.pictures[self.start]._repr_mimebundle_()
        widget = self.box._repr_mimebundle_(**options)
        return widget | shown | {"text/plain": repr(self)}, metadata


def live(draw: Callable[..., Picture], **controls: widgets.Widget) -> widgets.VBox:
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
