"""Run notebooks and store their outputs so that a second run gives the same bytes.

    python tests/execute.py                                # all of them
    python tests/execute.py notebooks/03_who_fires.ipynb   # one

A diff then shows what a change did to the results and nothing else: no timings, no random cell
or widget ids, no version of the interpreter.
"""

import json
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGETS = "application/vnd.jupyter.widget-state+json"


def notebooks() -> list[Path]:
    """Every notebook of the book, solutions too."""
    found = sorted((ROOT / "notebooks").rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def tidy(notebook: dict) -> dict:
    """Keep what readers and tests need; replace random ids by counters.

    Args:
        notebook: parsed JSON of a notebook, format 4.5. Not changed.

    Returns:
        A new dict: metadata reduced to `kernelspec` and `widgets`, cell metadata to `tags`, cells
        named `cell-00`, `cell-01`, ..., widget models numbered in the order of their creation.
    """
    notebook = json.loads(json.dumps(notebook))
    widgets = notebook["metadata"].get("widgets")
    notebook["metadata"] = {"kernelspec": KERNEL} | ({"widgets": widgets} if widgets else {})
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number:02d}"
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    text = json.dumps(notebook)
    for number, model in enumerate((widgets or {}).get(WIDGETS, {}).get("state", {})):
        text = text.replace(model, f"{number:032x}")
    return json.loads(text)


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
    half = path.with_name(path.name + ".part")
    # the bytes that nbformat, and so JupyterLab, would write
    nbformat.write(nbformat.from_dict(tidy(notebook)), half)
    half.replace(path)


def main(arguments: list[str]) -> None:
    for path in [Path(a).resolve() for a in arguments] or notebooks():
        start = time.perf_counter()
        execute(path)
        print(f"{path.relative_to(ROOT)}  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
