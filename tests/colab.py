"""The cell with which a chapter runs on Colab: it fetches what is not there.

python tests/colab.py write ADDRESS    # into each chapter and `_config.yml`: after a fork
python tests/colab.py ADDRESS          # print it, and what must work after it: for `.ci/colab`
"""

import json
import re
import sys
from copy import deepcopy
from pathlib import Path

from execute import COLAB, ROOT, store

ADDRESS = "https://ADDRESS-OF-THE-REPOSITORY"
CELL = """\
# for Colab: fetches the book; beside the book's files it does nothing
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "https://ADDRESS-OF-THE-REPOSITORY"
NEEDED = ["./KVW-book[methods,benchmarks]", "pandas", "seaborn",
          "matplotlib", "ipywidgets"]
if not os.path.isdir("kvw_exhibits"):  # not in the folder of the notebooks
    if not os.path.isdir("KVW-book"):
        subprocess.run(["git", "clone", "--depth", "1", REPOSITORY,
                        "KVW-book"], check=True)
    if importlib.util.find_spec("kvw_minimal") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q",
                        *NEEDED], check=True)
    sys.path[:0] = [os.path.abspath("KVW-book"),
                    os.path.abspath("KVW-book/notebooks")]
    os.chdir("KVW-book/notebooks")
"""
#: as a notebook would: the package and what chapters import beside it, and all stored results
AFTER = """
from pathlib import Path

import kvw_exercises
import kvw_exhibits
from kvw_experiments import figures
from kvw_experiments.results_store import read_rows
from kvw_minimal.zoo import load

assert len(read_rows("precision")[0]) and Path("experiment_template.ipynb").is_file()
load("pocket")
print("ready, in", Path().resolve().name)
"""


def first_cell(address: str = ADDRESS) -> str:
    """The cell, of a repository."""
    return CELL.replace(ADDRESS, address)


def chapters() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def with_first_cell(notebook: dict, address: str) -> dict:
    """A notebook with the cell below its title, instead of the one that may be there."""
    cells = [deepcopy(cell) for cell in notebook["cells"] if cell["id"] != COLAB]
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": COLAB,
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": first_cell(address).rstrip().splitlines(keepends=True),
    }
    cells.insert(1, cell)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):  # as a kernel would count them
        for counted in (cell, *cell["outputs"]):
            if "execution_count" in counted:
                counted["execution_count"] = number
    return notebook | {"cells": cells}


def write(address: str) -> None:
    """Put an address into the cell of each chapter and into `_config.yml`."""
    for path in chapters():
        store(with_first_cell(json.loads(path.read_text(encoding="utf-8")), address), path)
    config = ROOT / "_config.yml"
    text = config.read_text(encoding="utf-8")
    url = "" if address == ADDRESS else address
    config.write_text(re.sub(r'(?m)^  url: ".*"$', f'  url: "{url}"', text), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2] if len(sys.argv) > 2 else ADDRESS)
    else:
        print(first_cell(sys.argv[1]) + AFTER)
