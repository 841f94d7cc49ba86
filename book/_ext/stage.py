"""Sphinx extension: the directive `{playground}`, its faces, cards and gates as they are at first.

They are laid out here with what was recorded (`playground.recorded_of`), so that the page is whole
before the model is loaded and without JavaScript; `page.js` then works on the same elements. In a
build without the model's weights the directive's own text stands in their place.
"""

import base64
import html
import io
import json
import math
import struct
from pathlib import Path

import playground
from docutils import nodes
from landing import attribute
from PIL import Image
from sphinx.util.docutils import SphinxDirective

DATA = Path("_static", "playground", "data")  # in the built book
FIRST = ("eye", "pocket", "world", "everyone", "unknown", "check")  # what page.js loads at once
MODELS = {
    "vanilla": "vanilla",
    "edited": "KVW",
    "sham": "sham",
    "rewrite": "last-layer rewrite",
    "layerwise": "layerwise rewrite",
    "oracle": "oracle",
}
LIT, DARK = (255, 205, 110), (20, 17, 11)  # a vector that counts in full, and one that does not
ROW, GAP = 5, 1  # pixels of a layer, and between two; as in page.js
COLUMNS = 10  # of the sheet of faces


def contrast_of(hero: dict) -> list[float]:
    """Of each knowledge vector, layer by layer: log(c_f / c_r), at least 0."""
    packed = base64.b64decode(hero["contrast"])
    return [value * hero["step"] for value in struct.unpack(f"<{len(packed) // 2}H", packed)]


def strip_of(gates: list[float], layers: int) -> str:
    """The gates as light, one row a layer, as the address of a PNG."""
    width = len(gates) // layers
    picture = Image.new("RGB", (width, layers * (ROW + GAP) - GAP), DARK)
    for i, gate in enumerate(gates):
        lit = gate**1.5
        colour = tuple(
            round(dark + (full - dark) * lit) for full, dark in zip(LIT, DARK, strict=True)
        )
        top = i // width * (ROW + GAP)
        picture.paste(colour, (i % width, top, i % width + 1, top + ROW))
    buffer = io.BytesIO()
    picture.quantize(32).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def place_of(place: int, count: int) -> str:
    """The style that shows one face of the sheet."""
    row, column = divmod(place, COLUMNS)
    across, down = 100 * column / (COLUMNS - 1), 100 * row / (-(-count // COLUMNS) - 1)
    return f"background-position:{across:.2f}% {down:.2f}%"


def face(place: int, count: int, person, shown: bool, forget: bool, sham: bool) -> str:
    """A button with a face, and which lists the person stands on."""
    marks = {"shown": shown, "forget": forget, "sham": sham}
    kinds = " ".join(name for name, on in marks.items() if on)
    name = html.escape(person.name)
    lists = {", to be forgotten": forget, ", in the sham": sham}
    label = name + "".join(words for words, on in lists.items() if on)
    return (
        f'<button type="button" value="{person.id}" title="{name}" aria-label="{label}" '
        f'aria-pressed="{str(shown).lower()}" tabindex="{0 if shown else -1}"'
        f"{f' class={chr(34)}{kinds}{chr(34)}' if kinds else ''} "
        f'style="{place_of(place, count)}"></button>'
    )


def card(fact: dict, step: int, strength: float, looked: bool) -> str:
    """What is said about one fact at one strength, and how likely the truth is."""
    says, likely = fact["says"][step], fact["likely"][step]
    changed = "" if fact["truth"] in says else ' class="changed"'
    return (
        f'<button type="button" data-fact="{fact["fact"]}" aria-pressed="{str(looked).lower()}"'
        f"{changed}><span>{fact['fact']}</span><b>{html.escape(says)}</b>"
        f"<small>true: {html.escape(fact['truth'])}</small>"
        f'<i style="--share:{100 * likely:.1f}%"></i>'
        f"<em>truth {100 * likely:.0f} %, G = {strength:g}</em></button>"
    )


def stage(world, recorded: dict, hero: dict, photo: bytes, megabytes: dict[str, float]) -> str:
    """The playground at the book's strength, before its model is there.

    Args:
        world: the hundred people.
        recorded: as `playground.recorded_of` makes it.
        hero: as `playground.hero_of` makes it.
        photo: a PNG of the person with whom the page opens.
        megabytes: of what the page loads at first, and of each further model.
    """
    from kvw_minimal.strangers.tasks import sham_people

    person, strength = world.people[recorded["person"]], recorded["chosen"]
    step = recorded["strengths"].index(strength)
    layers, width = hero["shape"]
    contrast = contrast_of(hero)
    gates = [math.exp(-strength * value) for value in contrast]
    below = sum(gate < 0.5 for gate in gates)
    group = playground.GROUP, playground.PERCENT
    forget, others = world.first_of(*group), sham_people(world, playground.PERCENT, 0)
    shown = list(world.people).index(person.id)
    faces = "".join(
        face(place, len(world.people), one, one is person, one.id in forget, one.id in others)
        for place, one in enumerate(world.people.values())
    )
    cards = "".join(
        card(fact, step, strength, fact["fact"] == recorded["fact"]) for fact in recorded["cards"]
    )
    switch = "".join(
        f'<button type="button" data-is="look-{name}" '
        f'aria-pressed="{str(name == "edited").lower()}">{title}'
        f"{f' ({megabytes[name]:.1f} MB)' if name in megabytes else ''}</button>"
        for name, title in MODELS.items()
    )
    states = {name: recorded[name] for name in ("fact", "strengths", "cards")}
    states |= {name: hero[name] for name in ("contrast", "step", "shape")}
    name = html.escape(person.name)
    return (
        f'<div id="playground" class="wanted" data-recorded="{attribute(states)}">'
        '<p class="state"><span data-is="source"><b>Recorded answers.</b> Drag the strength. '
        "The model itself is loaded when you click a face, a card or this button; it stays on "
        f'your machine.</span> <button type="button" data-is="first">Load the model '
        f"({megabytes['first']:.1f} MB)</button></p>"
        '<p data-is="trouble" role="alert"></p>'
        '<noscript><p class="state"><b>A still picture.</b> The model answers here with JavaScript '
        "only.</p><style>#playground > .state:first-child { display: none; }</style></noscript>"
        '<div class="hand"><div class="dial"><span class="whose"><i data-is="whose" '
        f'style="{place_of(shown, len(world.people))}"></i>'
        f'<b data-is="whose-name">{name}</b></span>'
        "<label>Strength <span>of KVW and sham</span> "
        f'<output data-is="written">G = {strength:g}</output>'
        '<input data-is="strength" aria-label="strength" type="range" min="0" '
        f'max="{recorded["strengths"][-1]}" step="4" value="{strength:g}" autocomplete="off">'
        '</label><button type="button" data-is="undo">Undo<span> all edits</span></button>'
        f'<canvas data-is="strip" width="{width}" height="{layers * (ROW + GAP) - GAP}" '
        f'role="img" aria-label="The gates of all knowledge vectors, a row for each layer: lit '
        f'where a vector counts in full" style="background-image:url({strip_of(gates, layers)})">'
        "</canvas></div>"
        f'<p class="foot" data-is="gates">{layers} × {width} knowledge vectors, a gate for each: '
        f"{below} gates are below one half.</p>"
        '<div class="stage"><section class="wall" aria-label="The hundred people">'
        '<p>A click on a face <span class="switch" role="group" '
        'aria-label="What a click on a face does"><button type="button" data-click="ask" '
        'aria-pressed="true">shows them</button><button type="button" data-click="forget" '
        'aria-pressed="false">forgets them</button></span></p>'
        f'<div data-is="faces" role="group" aria-label="Faces of the hundred people">{faces}</div>'
        '<p class="legend"><span class="forget">to be forgotten</span> <span class="sham">in the '
        "sham</span></p></section>"
        '<section class="who" aria-label="Who is asked about"><div class="head">'
        f'<img data-is="picture" width="96" height="96" src="{playground.picture(photo)}" '
        f'alt="The drawn portrait of {name}, photo 1."><div><p data-is="answerer">{name}</p>'
        f'<label>Name <select data-is="name"><option>{name}</option></select></label>'
        '<label>Shown by <select data-is="by"><option value="photo">a photo</option>'
        '<option value="name">the name alone</option></select></label>'
        '<label>Photo <select data-is="photo"><option>photo 1, learned</option></select></label>'
        '</div></div><div class="switch" role="group" aria-label="Who answers on the cards">'
        f"Answered by {switch}</div>"
        f'<div class="cards" data-is="cards">{cards}</div>'
        '<p class="foot" data-is="rate">Drag the strength: the cards turn while you do.</p>'
        '<p class="beside"><label>Beside them <select data-is="beside"><option>nobody</option>'
        '</select></label><span data-is="second" style="display:none"></span></p>'
        '<div class="cards" data-is="besides" hidden></div>'
        "</section></div></div></div>"
    )


def size_of(folder: Path, names: tuple[str, ...]) -> float:
    """Megabytes of some parts."""
    return sum((folder / f"{name}.js").stat().st_size for name in names) / 1e6


class Playground(SphinxDirective):
    """`{playground}`: faces, cards and gates; its text where a build has no weights."""

    has_content = True

    def run(self) -> list:
        from kvw_minimal.strangers.people import load_people

        folder = Path(self.env.app.outdir) / DATA
        if not (folder / f"{playground.RECORDED}.json").is_file():
            return self.parse_content_to_nodes()
        parts = {}
        for name in (playground.RECORDED, playground.HERO):
            self.env.note_dependency(str(folder / f"{name}.json"))
            parts[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        world, recorded = load_people(), parts[playground.RECORDED]
        megabytes = {name: size_of(folder, (name,)) for name in ("rewrite", "layerwise", "oracle")}
        megabytes["first"] = size_of(folder, FIRST)
        photo = world.people[recorded["person"]].photos[0]
        screen = stage(world, recorded, parts[playground.HERO], photo, megabytes)
        return [nodes.raw("", screen, format="html")]


def setup(app) -> dict:
    app.add_directive("playground", Playground)
    return {"parallel_read_safe": True}
