"""A slider over pre-drawn pictures that works with a kernel, without one, and without network."""

import ipywidgets as widgets


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
        options = [(label, i) for i, label in enumerate(labels)]
        slider = widgets.SelectionSlider(
            options=options, index=start, description=name, continuous_update=True,
            style={"description_width": "initial"}, layout={"width": "95%"},
        )  # fmt: skip
        stack = widgets.Stack([widgets.Image(value=png) for png in pictures], selected_index=start)
        widgets.jslink((slider, "index"), (stack, "selected_index"))
        self.box = widgets.VBox([slider, stack])

    def __repr__(self) -> str:
        return f"Explorer({self.name}: {', '.join(self.labels)}; shown: {self.labels[self.start]})"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = self.box._repr_mimebundle_(**kwargs)
        bundle["text/plain"] = repr(self)  # what nbval compares
        bundle["image/png"] = self.pictures[self.start]  # what plain viewers show
        return bundle
