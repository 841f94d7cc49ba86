"""Files that are written as a whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def check_place(*paths: str | Path | None) -> None:
    """Checks that files can be written, with a trial file. Call it before the work, not after.

    Args:
        paths: paths of old or new files; None is skipped.

    Raises:
        ValueError: two paths of one file, a device, a pipe or a circle of links.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: a folder has this name.
        OSError: no permission, no space, or a name that is too long.
    """
    places = [_place(path) for path in paths if path is not None]
    if len(set(places)) < len(places):
        raise ValueError(f"two results cannot go to one file: {', '.join(map(str, places))}")
    for place in places:
        with _beside(place) as half:
            half.write_bytes(b"?")


def _place(path: str | Path) -> Path:
    """The real path of a file: a link is followed. Errors as `check_place`."""
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist; make it first")
    # first whether it exists, then its kind: another process may create it in between
    if (place.exists() or place.is_symlink()) and not place.is_file():
        wrong = IsADirectoryError if place.is_dir() else ValueError
        raise wrong(f"{path} is no ordinary file; name a file")
    return place


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """Creates an empty file beside a place, and removes it after the block."""
    half = place.with_name(f".{place.name[:50]}.{secrets.token_hex(8)}.part")
    try:
        half.touch(exist_ok=False)  # with the usual permissions of a new file
        yield half
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, with a unique name, to write inside the block.

    At the end of the block it replaces `path` in one step (a link stays: its target is replaced).
    If the block fails, nothing changes.

    Raises:
        ValueError, OSError: as `check_place`.
    """
    place = _place(path)
    with _beside(place) as half:
        yield half
        half.replace(place)


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """A scratch folder to write inside the block. At the end it takes the place of `folder`.

    If the block fails, nothing changes, so an incomplete folder never appears. If the new folder
    cannot be moved into place, the old one is restored.
    """
    place = Path(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise


def write_json(path: str | Path, content: object, indent: int = 1) -> None:
    """Writes JSON in one step.

    Raises:
        OSError: as `check_place`.
        ValueError: as `check_place`, or a content with NaN or infinity.
    """
    with replacing(path) as half:
        half.write_text(json.dumps(content, indent=indent, allow_nan=False) + "\n", "utf-8")


def read_json(path: str | Path, *keys: str) -> dict:
    """Reads a JSON object.

    Args:
        keys: the keys that it must have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON object, or one without these keys.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ValueError(f"{path} has no {' and '.join(keys) or 'object'}")
    return content
