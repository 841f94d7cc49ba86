"""Sphinx extension: an `Explorer` of a notebook becomes sliders and pictures of this book.

Its output holds the data, as `kvw_experiments.explorer` says. `_static/explorer.js` moves
between the pictures; without JavaScript the one that the explorer starts with is shown.
"""

import html
import itertools
import json

DATA = "application/vnd.kvw.explorer+json"


def attribute(value: object) -> str:
    """Text for an attribute; what is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return html.escape(text, quote=True)


def control(name: str, labels: list[str], shown: str, place: str) -> str:
    """One slider with its name before it and its value behind."""
    return (
        f'<p><label for="{place}">{attribute(name)}</label>'
        f'<input type="range" id="{place}" min="0" max="{len(labels) - 1}" step="1" '
        f'value="{labels.index(shown)}" aria-valuetext="{attribute(shown)}" autocomplete="off" '
        f'data-labels="{attribute(labels)}">'
        f'<output for="{place}" aria-live="off">{attribute(shown)}</output></p>'
    )


def component(data: dict, place: str) -> str:
    """All pictures under their controls; `hidden` are those that are not chosen at the start.

    Args:
        data: of an explorer: `controls`, `order` (of several controls), `start` and `pictures`.
        place: begins the ids of the controls; no other explorer of the page may have it.
    """
    names = data["order"] if len(data["controls"]) > 1 else list(data["controls"])
    controls, start = {name: data["controls"][name] for name in names}, tuple(data["start"])
    sliders = "".join(
        control(name, labels, shown, f"{place}-{number}")
        for number, ((name, labels), shown) in enumerate(zip(controls.items(), start, strict=True))
    )
    steps = itertools.product(*(range(len(labels)) for labels in controls.values()))
    chosen = itertools.product(*controls.values())
    frames = "".join(
        f'<div data-at="{",".join(map(str, step))}"'
        f"{' hidden' if labels != start else ''}>{picture}</div>"
        for step, labels, picture in zip(steps, chosen, data["pictures"], strict=True)
    )
    return (
        f'<div class="explorer" role="group" aria-label="Explorer: {attribute(", ".join(names))}">'
        f'<div class="controls" hidden>{sliders}</div>{frames}'
        '<p class="told" aria-live="polite"></p></div>'
    )


def with_components(notebook: str) -> str:
    """The JSON of a notebook; each output that is an explorer holds nothing but the component."""
    parsed, number = json.loads(notebook), 0
    for cell in parsed["cells"]:
        for output in cell.get("outputs", []):
            if DATA in output.get("data", {}):
                number += 1
                made = component(output["data"][DATA], f"explorer-{number}")
                output["data"] = {"text/html": made}
                output["metadata"] = {}
    return json.dumps(parsed)


def read(app, docname, source) -> None:
    """Put the components into a notebook that Sphinx is about to read."""
    if str(app.env.doc2path(docname)).endswith(".ipynb") and DATA in source[0]:
        source[0] = with_components(source[0])


def add_script(app, pagename, templatename, context, doctree) -> None:
    """Load the script where there is an explorer."""
    if '<div class="explorer"' in context.get("body", ""):
        app.add_js_file("explorer.js", loading_method="defer")


def setup(app) -> dict:
    app.connect("source-read", read)
    app.connect("html-page-context", add_script, priority=400)  # plain_pages copies the list
    return {"parallel_read_safe": True}
