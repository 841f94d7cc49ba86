"""Files are there whole or not at all, whoever else writes at the same time."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from kvw_minimal.files import check_place, file_hash, read_json, replacing, write_json


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new.txt"
    with replacing(path) as half:
        assert half.parent == path.parent and half != path
        half.write_text("first, ")
        assert not path.exists()
        half.write_text("first, second")
    assert path.read_text() == "first, second"
    assert [file.name for file in tmp_path.iterdir()] == ["new.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_when_writing_fails_the_old_file_stays(tmp_path, error):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as half:
        half.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["old.txt"]


def test_a_block_that_removes_its_own_file_fails_and_leaves_nothing(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path) as half:
        half.unlink()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_every_temporary_name_is_its_own(tmp_path):
    """Two writers of the same file must not write into each other's half."""
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # whose block ends last
    names = set()
    for _ in range(50):
        with replacing(path) as half:
            names.add(half.name)
            half.touch()
    assert len(names) == 50


def test_the_temporary_file_is_hidden_and_beside(tmp_path):
    """On the same disk, or it could not take the place in one move."""
    with replacing(tmp_path / "edit.safetensors") as half:
        assert half.parent == tmp_path and half.name.startswith(".edit.safetensors.")
        assert half.read_bytes() == b""


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_rights_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "file") as half:
            half.write_text("x")
        (tmp_path / "plain").write_text("x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    rights = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "plain")}
    assert rights == {0o666 & ~mask}


def test_many_writers_at_once(tmp_path):
    """None lost, none half, nothing left over, and the rights of new files as they were."""
    writers, rounds, start = 8, 25, Barrier(8)
    mask = os.umask(0o022)

    def write(number: int) -> None:
        start.wait()
        for turn in range(rounds):
            content = {"writer": number, "turn": turn, "long": [number] * 5_000}
            write_json(tmp_path / f"own-{number}.json", content)
            write_json(tmp_path / "shared.json", content)
            seen = read_json(tmp_path / "shared.json", "writer", "long")  # of anybody, but whole
            assert seen["long"] == [seen["writer"]] * 5_000

    try:
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(write, range(writers)))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    for number in range(writers):
        own = read_json(tmp_path / f"own-{number}.json")
        assert (own["writer"], own["turn"]) == (number, rounds - 1)
    assert read_json(tmp_path / "shared.json")["turn"] == rounds - 1
    assert len(list(tmp_path.iterdir())) == writers + 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o644}


# --- places and JSON


def test_places_where_nothing_can_be_written(tmp_path):
    check_place(None, tmp_path / "new", None)
    with pytest.raises(FileNotFoundError, match="folder of .*nowhere.* does not exist"):
        check_place(tmp_path / "nowhere" / "file")
    with pytest.raises(IsADirectoryError, match="name a file"):
        check_place(tmp_path / "new", tmp_path)
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "nowhere" / "file"):
        raise AssertionError("never reached")
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        raise AssertionError("never reached")


def test_json_comes_back(tmp_path):
    content = {"who": "José", "numbers": [0.1, 1e-300, 3], "none": None}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json", "who", "none") == content
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert text == json.dumps(content, indent=1) + "\n"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}])
def test_what_is_not_json_is_not_written(tmp_path, bad):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"new": bad})
    assert read_json(path) == {"old": 1} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "file.json"
    with pytest.raises(FileNotFoundError, match=r"file\.json does not exist"):
        read_json(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.json"):
        read_json(path)


def test_a_missing_key_is_named(tmp_path):
    write_json(tmp_path / "file.json", {"rows": []})
    with pytest.raises(ValueError, match="has no rows and provenance"):
        read_json(tmp_path / "file.json", "rows", "provenance")


def test_the_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "empty").touch()
    assert file_hash(tmp_path / "empty") == "e3b0c44298fc1c14"
    hashes = set()
    for end in (b"", b"y", b"z"):  # to the last byte
        (tmp_path / "other").write_bytes(b"x" * 3_000_000 + end)
        hashes.add(file_hash(tmp_path / "other"))
    assert len(hashes | {"e3b0c44298fc1c14"}) == 4
