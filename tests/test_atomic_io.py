"""Files are there whole or not at all, whoever else writes at the same time."""

import json
import os
import stat
from functools import partial
from pathlib import Path

import pytest

from kvw_minimal.atomic_io import check_place, read_json, replacing, write_json
from kvw_minimal.evaluation.provenance import file_hash


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


def test_two_results_need_two_files(tmp_path):
    (tmp_path / "one").touch()
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "folder").mkdir()
    for other in ("one", "link", "folder/../one"):
        with pytest.raises(ValueError, match="one file"):
            check_place(tmp_path / "one", None, tmp_path / other)
    check_place(tmp_path / "one", tmp_path / "folder" / "one")


@pytest.mark.parametrize("kind", ["pipe", "circle", "device", "link to a device"])
def test_what_is_no_file_is_never_replaced(tmp_path, kind):
    place = Path("/dev/null") if kind == "device" else tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind != "device":
        place.symlink_to(place if kind == "circle" else "/dev/null")
    before = place.lstat()
    for write in (check_place, partial(write_json, content={})):
        with pytest.raises(ValueError, match="no ordinary file"):
            write(place)
    assert place.lstat() == before


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/new.json")
    for content in ({"first": 1}, {"second": 2}):
        write_json(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert read_json(tmp_path / "folder" / "new.json") == content
    (tmp_path / "nowhere").symlink_to("none/new.json")
    with pytest.raises(FileNotFoundError, match="make it first"):
        write_json(tmp_path / "nowhere", {})


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
