"""Arguments of the command line that are more than a word; quick to import."""

import json
import re
from contextlib import ExitStack
from importlib.metadata import requires
from pathlib import Path
from typing import Annotated, Any

import typer

from ..atomic_io import write_json

Group = Annotated[str, typer.Option(help="A to E, or tuning-1, tuning-2")]
ForgetPercent = Annotated[
    int, typer.Option("--forget-percent", help="percent of the people: 5, 10 or 15")
]
ModelName = Annotated[str, typer.Option(help="pocket, a folder, or a hub id")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16")]
Json = Annotated[Path | None, typer.Option("--json", help="write rows here")]


def read_layers(text: str) -> list:
    """`0:3` is layers 0 to 3, `0.0:1.0` fractions of the depth."""
    try:
        first, last = text.split(":")
        return [float(first), float(last)] if "." in text else [int(first), int(last)]
    except ValueError as error:
        raise typer.BadParameter(f"--layers {text!r}: write 0:3 or 0.0:1.0") from error


def read_strengths(text: str | None) -> list[float]:
    """`8,32,64`; the tuned one unless something is said."""
    from ..kvw import STRENGTH

    try:
        return [STRENGTH] if text is None else [float(each) for each in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--strength {text!r}: write 24 or 8,32,64") from error


def read_settings(text: str) -> dict:
    """An object of JSON; empty for nothing."""
    try:
        own = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"--settings is not JSON: {error}") from error
    if not isinstance(own, dict):
        raise typer.BadParameter(f"--settings is an object such as {{}}, not {text}")
    return own


def write_outputs(
    said: str, result: dict, json_file: Path | None, edit: Any = None, edit_file: Path | None = None
) -> None:
    """Write rows, then the edit, then print: one that fails does not lose the others."""
    with ExitStack() as rest:  # from the last to the first
        rest.callback(typer.echo, said)
        if edit_file is not None:
            rest.callback(edit.save, edit_file)
        if json_file is not None:
            rest.callback(write_json, json_file, result)


def how_to_install(module: str) -> str:
    """What to say behind "No module named ..." if an extra of this package has it, else nothing."""
    name = module.partition(".")[0].replace("_", "-")
    for line in requires("kvw-minimal") or ():
        extra = re.fullmatch(rf'{re.escape(name)}[^\w[].*extra == "(\w+)"', line)
        if extra:
            return f'; `pip install "kvw-minimal[{extra[1]}]"` installs it'
    return ""
