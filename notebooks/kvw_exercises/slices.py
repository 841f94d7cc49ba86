"""Which lines of a learner's notebook an exercise needs: the call of its check, and what that uses.

A chapter is never run as a whole. A check is given functions; what these use is looked up, in any
cell: other functions, imports, constants. Lines of IPython such as `%time` are read as Python.
"""

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

CHAPTER = re.compile(r"\bkvw_exercises(?:\.| import )(chapter_\d\d)\b")
#: magics that run the code behind them; all others are left out
RUNNING = ("time", "timeit", "prun", "capture", "memit")
OPTIONS = re.compile(r"(?:\s*-\w+(?:\s+\d+)?\s)*")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Statement:
    """One statement of a cell; its lines are counted from the start of the cell.

    Attributes:
        cell: number of the cell, from 1, among those with code.
        binds: names of the notebook that it gives a value, or changes.
        uses: names of the notebook that it, or a function in it, looks up.
    """

    cell: int
    node: ast.stmt
    binds: frozenset[str]
    uses: frozenset[str]


@dataclass(frozen=True)
class Job:
    """One call of a check, and what has to be run before it.

    Attributes:
        chapter, check: module and function.
        needed: statements, in the order of the notebook.
        given: an expression, the tuple of what the check is given.
        sources: the text of the cells, by number, to quote a line from.
    """

    chapter: str
    check: str
    needed: tuple[Statement, ...]
    given: ast.Expression
    sources: dict[int, str]


# --- from cells to statements ----------------------------------------------------------------


def magic_of(node: ast.AST) -> tuple[str, list[str]] | None:
    """Name and texts of a magic, as IPython writes it in Python; None for other code."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    if not (isinstance(node.func.value, ast.Call) and node.args):
        return None
    if getattr(node.func.value.func, "id", "") != "get_ipython":
        return None
    texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return (node.func.attr, list(map(str, texts))) if texts else None


class Plain(ast.NodeTransformer):
    """Code without magics: what they run stands in their place, or None."""

    def visit_Expr(self, node: ast.Expr) -> list[ast.stmt]:
        magic = magic_of(node.value)
        if magic is None:
            self.generic_visit(node)
            return [node]
        kind, (name, *texts) = magic
        if name not in RUNNING or kind not in ("run_line_magic", "run_cell_magic"):
            return []
        text = texts[-1] if kind == "run_cell_magic" else OPTIONS.sub("", f"{texts[0]} ", count=1)
        made = ast.Module(parsed(text.strip() if kind == "run_line_magic" else text), [])
        first = node.lineno - (kind == "run_line_magic")  # the body of a cell begins below
        return ast.increment_lineno(made, first).body

    def visit_Call(self, node: ast.Call) -> ast.AST:
        magic = magic_of(node)
        if magic is None:
            self.generic_visit(node)
            return node
        kind, (name, *texts) = magic
        body = []
        if kind == "run_line_magic" and name in RUNNING:
            body = parsed(OPTIONS.sub("", f"{texts[0]} ", count=1).strip())
        if len(body) == 1 and isinstance(body[0], ast.Expr):
            return ast.increment_lineno(body[0].value, node.lineno - 1)
        return ast.copy_location(ast.Constant(None), node)


def parsed(source: str) -> list[ast.stmt]:
    """The statements of a cell.

    Raises:
        SyntaxError: it is neither Python nor IPython.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        tree = ast.parse(TransformerManager().transform_cell(source))
        blank = len(source) - len(source.lstrip())  # which IPython takes away at the start
        ast.increment_lineno(tree, source[:blank].count("\n"))
    return Plain().visit(tree).body


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a part of the code looks up in the notebook, in its functions, too."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals_of(child)


def uses_of(node: ast.AST) -> frozenset[str]:
    """Names of the notebook that some code looks up.

    >>> sorted(uses_of(ast.parse("def f(x): y = g(x); return y + EPSILON")))
    ['EPSILON', 'g']
    """
    return frozenset(_globals_of(symtable.symtable(ast.unparse(node), "cell", "exec")))


def binds_of(node: ast.stmt) -> frozenset[str]:
    """Names that a statement gives a value, and those of which it changes a part.

    >>> sorted(binds_of(ast.parse("a, b['x'] = 1, 2").body[0]))
    ['a', 'b']
    """
    table = symtable.symtable(ast.unparse(node), "cell", "exec")
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}
    if isinstance(node, DEFINITIONS):
        return frozenset(names)
    for part in ast.walk(node):
        root = part
        while isinstance(root, ast.Subscript | ast.Attribute):
            root = root.value
        if isinstance(getattr(part, "ctx", None), ast.Store) and isinstance(root, ast.Name):
            names.add(root.id)
    return frozenset(names)


def statements(sources: dict[int, str]) -> tuple[list[Statement], dict[int, SyntaxError]]:
    """All statements of a notebook, and what is wrong with cells that cannot be read."""
    readable, unread = [], {}
    for cell, source in sources.items():
        try:
            nodes = parsed(source)
            readable += [Statement(cell, node, binds_of(node), uses_of(node)) for node in nodes]
        except SyntaxError as error:
            unread[cell] = error
    return readable, unread


# --- what a call needs -----------------------------------------------------------------------


def _anew(statement: Statement, name: str) -> bool:
    """Whether a name has a value of its own after a statement, whatever it was before."""
    node = statement.node
    if isinstance(node, (*DEFINITIONS, *IMPORTS)):
        return True
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    plain = isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
    return (
        plain
        and name not in statement.uses
        and any(
            isinstance(part, ast.Name) and part.id == name and isinstance(part.ctx, ast.Store)
            for target in targets
            for part in ast.walk(target)
        )
    )


def needed(every: list[Statement], place: int, names: frozenset[str]) -> list[int]:
    """Which statements have to be run so that some names have the values that they have at a place.

    A name that is bound only later (a learner can run a lower cell first) is taken from there.
    """
    chosen = {
        at
        for at, statement in enumerate(every)
        if isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*"
    }
    waiting, known = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        binding = [at for at, statement in enumerate(every) if name in statement.binds]
        binding = [at for at in binding if at < place] or binding
        last = max((at for at in binding if _anew(every[at], name)), default=-1)
        for at in binding:
            if at >= last:
                chosen.add(at)
                waiting += every[at].uses
    return sorted(chosen)


def _calls(node: ast.stmt, checks: dict) -> Iterator[tuple[str, ast.Call]]:
    """Calls of checks, by whatever name the module goes."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            name = getattr(part.func, "attr", getattr(part.func, "id", ""))
            if name in checks:
                yield name, part


def given_to(call: ast.Call, check) -> ast.Expression:
    """What a check is given, as an expression: a learner's functions, and no settings."""
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    required = [
        parameter
        for parameter in signature(check).parameters.values()
        if parameter.default is parameter.empty
    ]
    values = list(call.args[: len(required)])
    values += [
        named[parameter.name] for parameter in required[len(values) :] if parameter.name in named
    ]
    return ast.fix_missing_locations(ast.Expression(ast.Tuple(values, ast.Load())))


def sources_of(path: Path) -> dict[int, str]:
    """The cells with code of a notebook, by number from 1.

    Raises:
        ValueError: it is no notebook.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
        texts = [str(cell.source) for cell in cells if cell.cell_type == "code"]
    except Exception as error:  # noqa: BLE001 - the message of nbformat about a broken file is printed
        problem = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise ValueError(f"cannot be read as a notebook ({problem})") from error
    return dict(enumerate(texts, 1))


def checks_of(chapter: str) -> dict:
    """The checks of a chapter, by name.

    Raises:
        ValueError: there is no such chapter.
    """
    try:
        members = vars(import_module(f"kvw_exercises.{chapter}")).items()
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no kvw_exercises.{chapter}") from error
    return {name: check for name, check in members if name.startswith("check_")}


def jobs_of(path: Path) -> tuple[str, dict[str, list[Job] | str]]:
    """The chapter of a notebook, and each of its checks with its calls, or with why it has none.

    Raises:
        ValueError: it is no notebook, or none of a chapter with exercises.
    """
    sources = sources_of(path)
    chapter = next((match[1] for text in sources.values() if (match := CHAPTER.search(text))), None)
    if chapter is None:
        raise ValueError("no chapter of kvw_exercises is imported in it")
    checks = checks_of(chapter)
    every, unread = statements(sources)
    jobs_of_check: dict[str, list[Job]] = {name: [] for name in checks}
    for place, statement in enumerate(every):
        for name, call in _calls(statement.node, checks):
            given = given_to(call, checks[name])
            before = needed(every, place, uses_of(given))
            needs = tuple(every[at] for at in before)
            cells = {part.cell: sources[part.cell] for part in (*needs, statement)}
            jobs_of_check[name].append(Job(chapter, name, needs, given, cells))
    why = {name: _why(name, sources, unread) for name in checks}
    return chapter, {name: jobs or why[name] for name, jobs in jobs_of_check.items()}


def _why(check: str, sources: dict[int, str], unread: dict[int, SyntaxError]) -> str:
    """Why a check is not called, with the line that cannot be read if there is one."""
    for cell, error in unread.items():
        if check in sources[cell]:
            text = (error.text or "").strip()
            return f"its cell cannot be read: line {error.lineno}, `{text}`: {error.msg}"
    return "its check is called in no cell that can be read"
