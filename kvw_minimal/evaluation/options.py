"""Options of the command line and their parsers; quick to import."""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from functools import cache
from importlib.metadata import requires
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any

import typer

from ..atomic_io import read_json, write_json

Group = Annotated[str, typer.Option(help="A to E, or tuning-1, tuning-2")]
ForgetPercent = Annotated[
    int, typer.Option("--forget-percent", help="percent of the people: 5, 10 or 15")
]
ModelName = Annotated[str, typer.Option(help="pocket, a folder, or a hub id")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16")]
Questions = Annotated[
    str | None,
    typer.Option(
        help="a file of questions, a folder or a hub id "
        "of MLLMU-Bench or CLEAR: its rows say who is forgotten"
    ),
]
People = Annotated[str | None, typer.Option(help="who is forgotten instead, such as ada,ben")]
Json = Annotated[Path | None, typer.Option("--json", help="write rows here")]


PRICES = "prices.json"  # the stored prices of methods, beside the models
PRICE = "{forget:,} passes over questions to forget, {retain:,} over others, {seconds:g} s"
LEGEND = (
    "A number with a point is at least 0, a whole number at least 1, unless a limit is named.\n"
    "A price is that of one edit with the settings of the book: 5 of 100 people of `pocket`, "
    "70 and 1,330 questions,\non {processor}, stored on {date}. A backward pass counts as two. "
    "Of your own questions: `unlearn --dry-run`.\n"
    "`methods NAME` explains the settings of one method."
)


def read_people(text: str | None) -> list[str]:
    """Parses people such as `ada,ben`; none for None."""
    return [] if text is None else [name.strip() for name in text.split(",")]


def read_layers(text: str) -> list:
    """Parses layers: `0:3` means layers 0 to 3, `0.0:1.0` fractions of the depth."""
    try:
        first, last = text.split(":")
        return [float(first), float(last)] if "." in text else [int(first), int(last)]
    except ValueError as error:
        raise typer.BadParameter(f"--layers {text!r}: write 0:3 or 0.0:1.0") from error


def read_strengths(text: str | None, tuned: float) -> list[float]:
    """Parses strengths such as `8,32,64`; the tuned strength for None."""
    try:
        return [tuned] if text is None else [float(number) for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--strength {text!r}: write 24 or 8,32,64") from error


def read_settings(text: str) -> dict:
    """Parses a JSON object; an empty text gives an empty dict."""
    try:
        settings = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"--settings is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise typer.BadParameter(f"--settings is an object such as {{}}, not {text}")
    return settings


@cache
def _prices() -> dict:
    """The stored prices of methods, and on which processor and when they were measured."""
    from ..strangers.people import DATA

    return read_json(DATA / "models" / PRICES, "methods")


def _rank(kind: Any) -> int:
    """0 and more for a recommended method; then those of this package, of others, controls."""
    from ..method import RECOMMENDED

    if kind.name in RECOMMENDED:
        return RECOMMENDED.index(kind.name)
    later = len(RECOMMENDED)
    if kind.settings_from or not kind.requires:
        return later + 2
    return later + (not kind.__module__.startswith("kvw_minimal."))


def list_methods() -> list[dict[str, Any]]:
    """All methods, a dict each: one row of a table. Recommended ones first, controls last.

    Returns:
        Dicts with `name`, `class` (in `kvw_minimal.methods`), `settings` (their defaults by name),
        `needs`, and the stored `price` of one edit as a text, empty where none is stored.
    """
    from ..methods import METHODS

    prices = _prices()["methods"]
    return [
        {
            "name": name,
            "class": kind.__name__,
            "settings": {field.name: field.default for field in fields(kind)},
            "needs": ["peft"] * getattr(kind, "lora", False)
            + [need for need in kind.requires if need != "images"],  # used where there are some
            "price": PRICE.format(**prices[name]) if name in prices else "",
        }
        for name, kind in sorted(METHODS.items(), key=lambda item: _rank(item[1]))
    ]


def methods_table(name: str | None = None) -> str:
    """Three lines for each method: class and needs, settings with defaults and ranges, price.

    Args:
        name: the one method to list; then the meaning of its settings follows.

    Raises:
        ValueError: no such method.
    """
    from ..method import RECOMMENDED
    from ..methods import METHODS, method_of

    meaning = "" if name is None else f"\n{getdoc(type(method_of(name)))}\n"
    lines = []
    for method in list_methods():
        if name not in (None, method["name"]):
            continue
        limits = {field.name: _range(field.metadata) for field in fields(METHODS[method["name"]])}
        settings = [f"{key}={value!r}{limits[key]}" for key, value in method["settings"].items()]
        needs = ", ".join(method["needs"]) or "nothing"
        mark = "; recommended" if method["name"] in RECOMMENDED else ""
        lines.append(f"{method['name']} ({method['class']}): needs {needs}{mark}")
        lines.append(f"  settings: {', '.join(settings) or 'none'}")
        if method["price"]:
            lines.append(f"  price: {method['price']}")
    if meaning:
        lines.append(meaning)
    return "\n".join([*lines, LEGEND.format(**_prices())])


def _range(limits: Mapping[str, float]) -> str:
    """The limits of a setting, where they are not the usual: at least 0, of a whole number 1."""
    words = {"at_least": "at least", "at_most": "at most"}
    phrases = [f"{words[name]} {limits[name]:g}" for name in words if name in limits]
    return f" ({', '.join(phrases)})" if phrases else ""


def write_outputs(
    text: str, result: dict, json_file: Path | None, edit: Any = None, edit_file: Path | None = None
) -> None:
    """Writes the rows and the edit, then prints the text; if one fails, the others still run."""
    with ExitStack() as rest:  # runs from the last to the first
        rest.callback(typer.echo, text)
        if edit_file is not None:
            rest.callback(edit.save, edit_file)
        if json_file is not None:
            rest.callback(write_json, json_file, result)


def how_to_install(module: str) -> str:
    """The end of "No module named ...": the extra with this module; empty without one."""
    name = module.partition(".")[0].replace("_", "-").replace("sklearn", "scikit-learn")
    for line in requires("kvw-minimal") or ():
        extra = re.fullmatch(rf'{re.escape(name)}[^\w[].*extra == "(\w+)"', line)
        if extra:
            return f'; `pip install "kvw-minimal[{extra[1]}]"` installs it'
    return ""
