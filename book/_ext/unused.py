"""What the styles of the theme hold and no page asks for, and the other way round.

The theme brings all of Bootstrap: four fifths of its rules are for parts that this book has not.
A rule stays if each of its classes stands in a page or is a word of a script. A class of a page
stays if a style or a script names it. Used by `plain_pages`, when all pages are written.
"""

import re
from collections.abc import Iterable

import tinycss2

COMPOSED = ("bs-tooltip", "bs-popover")  # scripts put these classes together from parts
GROUPS = ("media", "supports", "layer")  # rules that hold rules
CLASS = re.compile(r'\sclass="([^"]*)"')
SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
TAG = re.compile(r"<[a-zA-Z][^<>]*>")
WORD = re.compile(r"[A-Za-z_][\w-]*")
NAMED = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
PARTS = re.compile(r"""\[class[*^$|~]=["']?([^"'\]]+)""")


def words_of(scripts: Iterable[str]) -> set[str]:
    """All words of some scripts, among them the classes that they set."""
    return {word for script in scripts for word in WORD.findall(script)}


def scripted(page: str) -> set[str]:
    """The words of the scripts within a page."""
    return words_of(SCRIPT.findall(page))


def classes_in(page: str) -> set[str]:
    """The classes that a page has, and the words of the scripts within it.

    >>> sorted(classes_in('<p class="a b"></p><script>show("c-d")</script>'))
    ['a', 'b', 'c-d', 'show']
    """
    classes = {name for value in CLASS.findall(page) for name in value.split()}
    return classes | scripted(page)


def _named(selector: list) -> set[str]:
    """Classes that an element, or one around it, must have; not those within brackets."""
    return {
        token.value
        for dot, token in zip(selector, selector[1:], strict=False)
        if dot.type == "literal" and dot.value == "." and token.type == "ident"
    }


def _selectors(prelude: list) -> list[list]:
    """The parts of a list of selectors."""
    parts: list[list] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        elif token.type != "comment":
            parts[-1].append(token)
    return parts


def _rules(rules: list, used: set[str]) -> str:
    """Some rules as text, without those that nothing asks for."""
    texts = []
    for rule in rules:
        if rule.type == "qualified-rule":
            parts = [
                part
                for part in _selectors(rule.prelude)
                if all(name in used or name.startswith(COMPOSED) for name in _named(part))
            ]
            if parts:
                names = ",".join(tinycss2.serialize(part).strip() for part in parts)
                texts.append(f"{names}{{{tinycss2.serialize(rule.content).strip()}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in GROUPS and rule.content:
            inner = _rules(tinycss2.parse_blocks_contents(rule.content), used)
            if inner:
                texts.append(f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}")
        elif rule.type == "at-rule" or rule.type == "comment" and rule.value.startswith("!"):
            texts.append(rule.serialize())  # a licence is such a comment
    return "\n".join(texts)


def pruned(style: str, used: set[str]) -> str:
    """A style sheet without rules for classes that are not used.

    >>> pruned(".a, .b .c { top: 0 } .d { top: 0 } @media print { .d { top: 0 } }", {"a", "b"})
    '.a{top: 0}'
    >>> pruned("/* a */ p:not(.x){top: 0}/*! MIT */ .bs-tooltip-top{top: 0}", set())
    'p:not(.x){top: 0}\\n/*! MIT */\\n.bs-tooltip-top{top: 0}'
    """
    return _rules(tinycss2.parse_stylesheet(style, skip_whitespace=True), used)


def classes_of(style: str) -> tuple[set[str], set[str]]:
    """Every class that a style sheet names, and every part of a class that it asks for.

    >>> sorted(classes_of("p.a:not(.b) { top: .5em } .c-d::after { content: '.e' }")[0])
    ['a', 'b', 'c-d', 'e']
    >>> classes_of('[class*="highlight-"], li[class^=toc] { top: 0 }')[1] == {"highlight-", "toc"}
    True
    """
    return set(NAMED.findall(style)), set(PARTS.findall(style))


def without_classes(page: str, wanted: set[str], parts: Iterable[str] = ()) -> str:
    """A page without classes that no style and no script names.

    Args:
        wanted: classes that stay.
        parts: a class that holds one of these stays, too.

    >>> page = '<p class="a b"></p><i class="b"></i><div class="c-d"></div><pre> class="b"</pre>'
    >>> without_classes(page, {"a"}, ["c-"])
    '<p class="a"></p><i></i><div class="c-d"></div><pre> class="b"</pre>'
    """
    parts = tuple(parts)

    def shorter(classes: re.Match) -> str:
        names = [
            name
            for name in classes[1].split()
            if name in wanted or any(part in name for part in parts)
        ]
        return f' class="{" ".join(names)}"' if names else ""

    return TAG.sub(lambda tag: CLASS.sub(shorter, tag[0]), page)
