"""What a learner's notebook has solved: its functions are run, the rest of the chapter is not."""

import ast
from importlib import import_module
from inspect import signature
from pathlib import Path

import nbformat
from nbclient import NotebookClient

IMPORT = "from kvw_exercises import chapter_"


def parsed(source: str) -> ast.Module:
    """The code of a cell; a cell that cannot be read counts as empty."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def kept(source: str) -> str:
    """A cell's imports and functions, on the lines on which they stood."""
    found = set()
    for node in parsed(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef):
            first = min(part.lineno for part in [node, *getattr(node, "decorator_list", [])])
            found |= set(range(first, node.end_lineno + 1))
    lines = enumerate(source.splitlines(), 1)
    return "\n".join(line if place in found else "" for place, line in lines)


def steps(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Every check of a notebook's chapter, and what to run: (check or "", code), in order.

    Raises:
        ValueError: it is no notebook, or none of a chapter with exercises.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception as error:  # noqa: BLE001 - the message of nbformat about a broken file is printed
        problem = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise ValueError(f"cannot be read as a notebook ({problem})") from error
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    start = next((text for text in sources if IMPORT in text), None)
    if start is None:
        raise ValueError("no chapter of kvw_exercises is imported in it")
    chapter = f"kvw_exercises.chapter_{start.split(IMPORT)[1][:2]}"
    try:
        members = vars(import_module(chapter)).items()
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no {chapter}") from error
    checks = {name: check for name, check in members if name.startswith("check_")}
    found = [("", kept(start))]
    for text in sources:
        calls = [
            node
            for node in ast.walk(parsed(text))
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in checks
        ]
        found += [("", kept(text))] if calls else []
        for node in calls:
            name = node.func.attr
            parameters = signature(checks[name]).parameters.values()
            needed = sum(each.default is each.empty for each in parameters)
            given = ", ".join(map(ast.unparse, node.args[:needed]))  # the learner's functions
            found.append((name, f"bool(__import__('{chapter}', fromlist=['*']).{name}({given}))"))
    return list(checks), found


def _said(outputs: list, seconds: int) -> str:
    texts = []
    for output in outputs:
        if output.get("ename") == "KeyboardInterrupt":
            texts.append(f"stopped after {seconds} seconds")
        elif "ename" in output:
            texts.append(f"{output.ename}: {output.evalue}")
        else:
            texts += output.get("text", "").splitlines()
    return " / ".join(texts)


def grade_notebook(path: Path, seconds: int = 60) -> list[dict]:
    """One row an exercise: whether it passed, and what its check said.

    A check that is called more than once passes if one call does; the last result is printed.

    Args:
        path: a chapter in which a learner wrote.
        seconds: the time limit of a cell.

    Raises:
        ValueError: it is no notebook, or none of a chapter with exercises, or its kernel died.
    """
    checks, found = steps(path)
    cells = [nbformat.v4.new_code_cell(code) for _, code in found]
    client = NotebookClient(
        nbformat.v4.new_notebook(cells=cells),
        timeout=seconds,
        kernel_name="python3",
        interrupt_on_timeout=True,
        allow_errors=True,
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except (RuntimeError, TimeoutError) as error:
        raise ValueError(f"its functions could not be run ({error})") from error
    rows = {
        name: {
            "notebook": str(path),
            "exercise": name,
            "passed": False,
            "said": "its check is called in no cell that can be read",
        }
        for name in checks
    }
    for (name, _), cell in zip(found, client.nb.cells, strict=True):
        if name:
            rows[name]["said"] = _said(cell.outputs, seconds)
            rows[name]["passed"] |= any(
                each.get("data", {}).get("text/plain") == "True" for each in cell.outputs
            )
    return list(rows.values())
