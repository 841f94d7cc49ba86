"""Arguments of the command line that are more than a word; quick to import."""

import json

import typer


def read_layers(text: str) -> list:
    """`0:3` is layers 0 to 3, `0.0:1.0` fractions of the depth."""
    try:
        first, last = text.split(":")
        return [float(first), float(last)] if "." in text else [int(first), int(last)]
    except ValueError as error:
        raise typer.BadParameter(f"--layers {text!r}: write 0:3 or 0.0:1.0") from error


def read_strengths(text: str | None) -> list[float]:
    """`8,32,64`; the tuned one unless something is said."""
    from ..methods.kvw import STRENGTH

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
