"""Run notebooks and store their outputs so that a second run gives the same bytes.

    python tests/execute.py                                # all of them
    python tests/execute.py notebooks/04_who_fires.ipynb   # one

A diff then shows what a change did to the results and nothing else: no timings, no random ids, no
version of the interpreter.
"""

import json
import sys
import time
from itertools import count
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
COLAB = "colab"  # the id of the cell that `colab.py` writes
WIDGET = "application/vnd.jupyter.widget-view+json"


def notebooks() -> list[Path]:
    """Every notebook of the book, solutions too."""
    found = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def tidy(notebook: dict) -> dict:
    """Keep what readers and tests need; replace random ids of cells by counters.

    Args:
        notebook: parsed JSON of a notebook, format 4.5. Not changed.

    Returns:
        A new dict: metadata reduced to `kernelspec`, cell metadata to `tags`, cells named
        `cell-00`, `cell-01`, ..., but for that of Colab; no widget, which is nothing without a
        kernel: what a viewer shows instead stands beside it.
    """
    notebook = json.loads(json.dumps(notebook))
    notebook["metadata"] = {"kernelspec": KERNEL}
    numbers = count()
    for cell in notebook["cells"]:
        if cell["id"] != COLAB:
            cell["id"] = f"cell-{next(numbers):02d}"
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            output.get("data", {}).pop(WIDGET, None)
    return notebook


def store(notebook: dict, path: Path) -> None:
    """Write a notebook in one move, with the bytes that nbformat and JupyterLab would write."""
    half = path.with_name(path.name + ".part")
    nbformat.write(nbformat.from_dict(notebook), half)
    half.replace(path)


def execute(path: Path, timeout: int = 600) -> None:
    """Run one notebook top to bottom in its own folder and rewrite it in one move.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the file is left as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    store(tidy(notebook), path)


def main(arguments: list[str]) -> None:
    for path in [Path(a).resolve() for a in arguments] or notebooks():
        start = time.perf_counter()
        execute(path)
        print(f"{path.relative_to(ROOT)}  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
