"""Files that are there whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_place(*paths: str | Path | None) -> None:
    """Refuse places where no file can be written, by trying; ask before the work, not after.

    Args:
        paths: of files that are there or not; None is skipped.

    Raises:
        ValueError: two of them are one file, or one is a device, a pipe or a circle of links.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: a folder has that name.
        OSError: nothing can be written there: no right to, no space, too long a name.
    """
    places = [_place(path) for path in paths if path is not None]
    if len(set(places)) < len(places):
        raise ValueError(f"two results cannot go to one file: {', '.join(map(str, places))}")
    for place in places:
        with _beside(place) as half:
            half.write_bytes(b"?")


def _place(path: str | Path) -> Path:
    """Where a file is written: of a link what it leads to. Errors as `check_place`."""
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(f"the folder of {path} does not exist; make it first")
    # whether it is there is asked first: another process may make it between the two
    if (place.exists() or place.is_symlink()) and not place.is_file():
        wrong = IsADirectoryError if place.is_dir() else ValueError
        raise wrong(f"{path} is no ordinary file; name a file")
    return place


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A new empty file beside a place, gone after the block."""
    half = place.with_name(f".{place.name[:50]}.{secrets.token_hex(8)}.part")
    try:
        half.touch(exist_ok=False)  # with the rights of a file that is made plainly
        yield half
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, of a name that nobody else has, to be written in the block.

    When the block ends it takes the place of `path` (of a link: of what it leads to) in one move;
    when it fails, nothing changes.

    Raises:
        ValueError, OSError: as `check_place`.
    """
    place = _place(path)
    with _beside(place) as half:
        yield half
        half.replace(place)


def write_json(path: str | Path, content: object, indent: int = 1) -> None:
    """Write JSON in one move.

    Raises:
        OSError: as `check_place`.
        ValueError: so, too; or the content holds NaN or infinity.
    """
    with replacing(path) as half:
        half.write_text(json.dumps(content, indent=indent, allow_nan=False) + "\n", "utf-8")


def read_json(path: str | Path, *keys: str) -> dict:
    """Read a JSON object.

    Args:
        keys: what it must have.

    Raises:
        FileNotFoundError, ValueError: missing, or not such an object.
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
