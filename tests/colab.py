"""Print the first cell for Colab, and what must work after it, as a program: `.ci/colab` runs it.

python tests/colab.py ADDRESS
"""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "book" / "how_to_read.md"
ADDRESS = "https://ADDRESS-OF-THE-REPOSITORY"
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
    cells = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (cell,) = [cell for cell in cells if ADDRESS in cell]
    return cell.replace(ADDRESS, address)


if __name__ == "__main__":
    print(first_cell(sys.argv[1]) + AFTER)
