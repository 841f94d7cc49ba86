"""What many tests share and none changes: the world, a benchmark's files, tiny models."""

import sys
from pathlib import Path

import pytest
import tiny
from exports import export_clear, export_mllmu, few_people

from kvw_minimal.strangers.people import PeopleDataset, load_people

#: the Sphinx extensions can be imported, by tests of the book
sys.path.append(str(Path(__file__).resolve().parent.parent / "book" / "_ext"))


@pytest.fixture(scope="session")
def world() -> PeopleDataset:
    return load_people()


@pytest.fixture(scope="session")
def mllmu(tmp_path_factory) -> Path:
    """Eleven strangers in the schema of MLLMU-Bench."""
    return export_mllmu(few_people(), tmp_path_factory.mktemp("hub") / "mllmu")


@pytest.fixture(scope="session")
def clear(tmp_path_factory) -> Path:
    """Eleven strangers in the schema of CLEAR."""
    return export_clear(few_people(), tmp_path_factory.mktemp("hub") / "clear")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A random LLaVA in a folder: it knows nobody."""
    folder = tmp_path_factory.mktemp("model")
    tiny.llava().save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return str(folder)
