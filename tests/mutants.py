"""Mutants: small changes of the package that a library made, not we, for the tests to notice.

    python tests/mutants.py draw           # draw them anew (needs `pip install cosmic-ray==8.7.0`)
    python tests/break_things.py --mutants # try them: the tests must notice

`cosmic-ray` knows where an operator, a number, a comparison, a decorator or a loop may be changed.
From each room the same number of places is drawn by a seed, and at each place one change. What
stands in an annotation, what ruff would not parse and what cannot be imported any more is passed
over: an import error would be noticed by any test. The list is committed (`tests/mutants.json`).
"""

import ast
import json
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from break_things import SHARED, copy_of_the_package
from faults import Break
from numpy.random import default_rng

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants.json"
SEED = 27
EACH = 30  # mutants of a room
ROOMS = ("core", "methods", "audit", "requests", "benchmarks")


def modules(room: str) -> list[Path]:
    """Modules of a room of the package; the command line is no part of the core."""
    folder = ROOT / "kvw_minimal" / ("" if room == "core" else room)
    return sorted(path for path in folder.glob("*.py") if path.name != "__main__.py")


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations stand: begin and end, as (line, column)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        named = (getattr(node, name, None) for name in ("annotation", "returns"))
        found += [
            ((a.lineno, a.col_offset), (a.end_lineno or 0, a.end_col_offset or 0))
            for a in named
            if isinstance(a, ast.expr)
        ]
    return found


def hunk(source: str, changed: str) -> tuple[str, str]:
    """The lines that differ, with as many before them as make them unique in the source."""
    before, after = source.splitlines(True), changed.splitlines(True)
    first = next(i for i, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1)
    last = 0
    while before[-1 - last] == after[-1 - last]:
        last += 1
    start = first
    while True:
        old = "".join(before[start : len(before) - last])
        if old and source.count(old) == 1:
            return old, "".join(after[start : len(after) - last])
        start -= 1


def imports(module: Path, changed: str) -> bool:
    """Whether the package can still be imported when a module is this text: tried in a fork."""
    with tempfile.TemporaryDirectory(prefix="kvw-mutant-") as name:
        folder = copy_of_the_package(Path(name).resolve(), tests=False)
        (folder / module.relative_to(ROOT)).write_text(changed, encoding="utf-8")
        dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        child = os.fork()
        if child == 0:
            try:
                sys.path.insert(0, str(folder))
                for each in (dotted, "kvw_minimal.__main__", "kvw_experiments.plans"):
                    import_module(each)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - whatever a mutant raises says no
                os._exit(1)
        return os.waitpid(child, 0)[1] == 0


def draw() -> list[dict[str, Any]]:
    """The list: of each mutant its room, file, operator, place, and the lines that it changes."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    # those that must be told which variables are meant would be chosen by hand
    known = [name for name in operator_names() if not name.startswith("core/Variable")]
    for name in SHARED:
        import_module(name)
    rng, found = default_rng(SEED), []
    for room in ROOMS:
        places: dict[tuple, list[tuple[str, int]]] = {}
        for path in modules(room):
            source = path.read_text(encoding="utf-8")
            tree, annotated = get_ast(source), annotations(source)
            for name in known:
                operator, occurrence = get_operator(name)(), 0
                for node in ast_nodes(tree):
                    for start, stop in operator.mutation_positions(node):
                        if not any(a <= start and stop <= b for a, b in annotated):
                            key = (str(path.relative_to(ROOT)), start, stop)
                            places.setdefault(key, []).append((name, occurrence))
                        occurrence += 1
        order = sorted(places)
        count = 0
        for i in rng.permutation(len(order)):
            file, start, _ = order[i]
            choices = places[order[i]]
            name, occurrence = choices[int(rng.integers(len(choices)))]
            source = (ROOT / file).read_text(encoding="utf-8")
            changed = mutate_code(source, get_operator(name)(), occurrence)
            if changed is None or changed == source or not imports(ROOT / file, changed):
                continue
            old, new = hunk(source, changed)
            found.append(
                {"room": room, "file": file.removeprefix("kvw_minimal/"), "line": start[0]}
                | {"operator": name.removeprefix("core/"), "old": old, "new": new}
            )
            count += 1
            if count == EACH:
                break
    return found


def breaks() -> tuple[Break, ...]:
    """The committed list, as what `break_things` tries.

    `changes nothing` says why nobody can see a mutant; `gone`, why there is no such line any more.
    """
    drawn = json.loads(LIST.read_text(encoding="utf-8"))
    return tuple(
        Break(
            f"{i:03d} {each['operator']}, {each['file']}",
            each["file"],
            each["old"],
            each["new"],
            (),
            why=each.get("changes nothing", ""),
        )
        for i, each in enumerate(drawn)
        if "gone" not in each
    )


if __name__ == "__main__":
    if sys.argv[1:] != ["draw"]:
        sys.exit(__doc__)
    LIST.write_text(json.dumps(draw(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
