"""The house's short list of words and turns that docstrings and comments do without.

Many readers have English as their second or third language: a sentence without them is longer by a
word and easier by a minute. CONTRIBUTING has ten pairs of before and after.
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


def sentences(source: str) -> list[tuple[int, str]]:
    """Docstrings and comments of a file with the line on which each begins."""
    found = [
        (node.body[0].lineno, docstring)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and (docstring := ast.get_docstring(node, clean=False))
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return found + [
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


def test_a_turn_of_the_list_is_found_in_docstrings_and_comments_only():
    source = '"""About whom?"""\nword = "whom"\n# so many\n'
    assert [line.partition(":")[0] for line in avoided(source)] == ["1", "3"]


def test_docstrings_and_comments_are_in_plain_english():
    found = {
        str(path.relative_to(ROOT)): avoided(path.read_text(encoding="utf-8")) for path in CODE
    }
    assert {path: lines for path, lines in found.items() if lines} == {}
