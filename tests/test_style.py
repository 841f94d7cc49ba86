"""The house's short list of words and turns that docstrings and comments do without.

Many readers have English as their second or third language: a sentence without them is longer by a
word and easier by a minute. CONTRIBUTING has ten pairs of before and after.

Two rules for code stand here, too: a local name says what it holds, and no text is multiplied by a
truth value.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: the turn, and what to write in its place
AVOIDED = {
    r"\bwhom\b": "name the person: 'the person who is asked about', 'the people to forget'",
    r"\bwhoever\b": "say who: 'an attacker who', 'a user who'",
    r"\bsomebody(?: else)?\b": "'another person', 'a counterfactual person'",
    r"\banybody\b": "'a user', 'any person'",
    r"\bso (?:many|much)\b": "name the number: 'at most `limit` questions'",
    r"\ball that\b": "'everything that', or the noun",
    r"\b(?:worn|put on|take off|taken off)\b": "'applied', 'apply', 'revert'",
    r"\b(?:is|are|was|were) told\b": "'is taught', 'is given', 'is printed'",
    r"\bthere is none\b": "'it does not exist', 'none exists'",
}
CODE = sorted(
    path
    for folder in ("kvw_minimal", "notebooks")
    for path in (ROOT / folder).rglob("*.py")
    if ".ipynb_checkpoints" not in path.parts
)
BOOK = sorted((ROOT / "book" / "_ext").glob("*.py"))
#: in exercises some functions have the parameters of what the reader writes in the chapter
NAMED = [path for path in CODE + BOOK if path.parent.name != "kvw_exercises"]
#: participles and the like that say nothing of what a variable holds
VAGUE = {"found", "own", "each", "said", "told", "kept", "asked"}
#: files that still have such names; this list only gets shorter
VAGUE_IN: set[str] = set()


def sentences(source: str) -> list[tuple[int, str]]:
    """Docstrings and comments of a file with the line on which each begins."""
    texts = [
        (node.body[0].lineno, docstring)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and (docstring := ast.get_docstring(node, clean=False))
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return texts + [
        (token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT
    ]


def avoided(source: str) -> list[str]:
    """Each turn of the list that a file uses, as `line: turn; what to write in its place`."""
    return [
        f"{line + text[: match.start()].count(chr(10))}: {match[0]!r}; write {instead}"
        for line, text in sentences(source)
        for turn, instead in AVOIDED.items()
        for match in re.finditer(turn, text, re.IGNORECASE)
    ]


def test_docstrings_and_comments_are_in_plain_english():
    turns = {
        str(path.relative_to(ROOT)): avoided(path.read_text(encoding="utf-8")) for path in CODE
    }
    assert {path: lines for path, lines in turns.items() if lines} == {}


def vague(source: str) -> list[str]:
    """Variables and parameters of a file with a name from `VAGUE`, as `line: name`.

    Fields of a class are allowed: they are keys and columns of stored data.
    """
    tree = ast.parse(source)
    fields = {
        statement.target
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    names = [
        (node.lineno, node.arg if isinstance(node, ast.arg) else node.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields)
    ]
    return [f"{line}: {name}" for line, name in sorted(names) if name in VAGUE]


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def is_number(node: ast.expr) -> bool:
    """Whether an expression is surely no truth value: a number, a CONSTANT, a length, a sum."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "len"
    if isinstance(node, ast.Name):
        return node.id.isupper()
    return isinstance(node, ast.BinOp) or (
        isinstance(node, ast.Constant) and type(node.value) is int
    )


def golf(source: str) -> list[str]:
    """Each text of a file that is multiplied by what may be a truth value, as `line: code`."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
        for text, factor in ((node.left, node.right), (node.right, node.left))
        if is_text(text) and not is_number(factor)
    ]


def test_names_say_what_they_hold():
    names_of = {
        str(path.relative_to(ROOT)): vague(path.read_text(encoding="utf-8")) for path in NAMED
    }
    assert {path: names for path, names in names_of.items() if names and path not in VAGUE_IN} == {}


def test_no_text_is_multiplied_by_a_truth_value():
    lines_of = {
        str(path.relative_to(ROOT)): golf(path.read_text(encoding="utf-8")) for path in CODE + BOOK
    }
    assert {path: lines for path, lines in lines_of.items() if lines} == {}
