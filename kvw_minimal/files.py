"""Files that are there whole or not at all."""

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_place(*paths: str | Path | None) -> None:
    """Refuse places where no file can be written; ask before the work, not after. None is skipped.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: a folder has that name.
    """
    for path in [Path(path) for path in paths if path is not None]:
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder of {path} does not exist; make it first")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, of a name that nobody else has, to be written in the block.

    When the block ends it takes the place of `path` in one move; when it fails, nothing changes.

    Raises:
        FileNotFoundError, IsADirectoryError: as `check_place`.
    """
    path = Path(path)
    check_place(path)
    half = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    half.touch(exist_ok=False)  # with the rights of a file that is made plainly
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def write_json(path: str | Path, content: object, indent: int = 1) -> None:
    """Write JSON in one move.

    Raises:
        FileNotFoundError, IsADirectoryError: as `check_place`.
        ValueError: the content holds NaN or infinity.
    """
    text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
    with replacing(path) as half:
        half.write_text(text, encoding="utf-8")


def read_json(path: str | Path, *keys: str) -> dict:
    """Read a JSON object.

    Args:
        keys: what it must have.

    Raises:
        FileNotFoundError, ValueError: missing, or not such an object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ValueError(f"{path} has no {' and '.join(keys) or 'object'}")
    return content


def file_hash(path: str | Path) -> str:
    """16 hexadecimal digits of the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
