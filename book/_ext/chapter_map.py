"""`{chapter-map}`: which chapter needs which, drawn from the table on the same page.

A chapter stands one row below the last of those that it needs. Boxes are links; the core path has
a thick edge. What a chapter needs through another one has no line of its own. On a phone the map is
a list. Each chapter says below its title which of them it is, and which it needs.
"""

import html
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROW = re.compile(
    r"^\| (\*\*)?\[(\d+) ([^\]]+)\]\(([^)]+)\.ipynb\)(?:\*\*)? \| ([^|]*) \|", re.MULTILINE
)
WIDTH, ROW_HEIGHT, BOX_WIDTH, BOX_HEIGHT, LINE = 760, 92, 170, 58, 17
MAP = "book/how_to_read"  # the page with the table
LETTERS = 20  # of a title on one line of a box


@dataclass(frozen=True)
class Chapter:
    """A row of the table: `needs` are the numbers of the chapters that come before it."""

    title: str
    page: str
    needs: frozenset[int]
    core: bool


def chapters_of(text: str) -> dict[int, Chapter]:
    """The chapters of a table in Markdown, by number.

    >>> chapters_of("| **[2 Two](a/02.ipynb)** | 1, 4 | much | 5 |")[2].needs == {1, 4}
    True
    """
    return {
        int(number): Chapter(
            title, page, frozenset(map(int, re.findall(r"\d+", needs))), bool(core)
        )
        for core, number, title, page, needs in ROW.findall(text)
    }


def all_needs(chapters: dict[int, Chapter], number: int) -> set[int]:
    """What a chapter needs, directly or through others."""
    direct = chapters[number].needs
    return set(direct).union(*(all_needs(chapters, need) for need in direct))


def level(chapters: dict[int, Chapter], number: int) -> int:
    """The row of a chapter: 0 if it needs nothing."""
    return max((1 + level(chapters, need) for need in chapters[number].needs), default=0)


def lines_of(chapters: dict[int, Chapter]) -> list[tuple[int, int]]:
    """Pairs of a chapter and one that needs it, without what others bring already."""
    return [
        (need, number)
        for number, chapter in chapters.items()
        for need in sorted(chapter.needs)
        if not any(need in all_needs(chapters, other) for other in chapter.needs)
    ]


def chain(chapters: dict[int, Chapter], need: int, number: int) -> list[tuple]:
    """A line's points: a chapter, a bend in each row that the line crosses, and the other one."""
    crossed = range(level(chapters, need) + 1, level(chapters, number))
    return [(need,), *((need, number, row) for row in crossed), (number,)]


def places_of(chapters: dict[int, Chapter]) -> dict[tuple, tuple[float, float]]:
    """The middle of each box, `(number,)`, and of each bend: in a row as those above them stand."""
    chains = [chain(chapters, *line) for line in lines_of(chapters)]
    above: dict[tuple, list[tuple]] = {(number,): [] for number in chapters}
    for points in chains:
        for upper, lower in pairwise(points):
            above.setdefault(lower, []).append(upper)
    rows: dict[int, list[tuple]] = {}
    for point in above:
        rows.setdefault(point[2] if len(point) > 1 else level(chapters, point[0]), []).append(point)
    places: dict[tuple, tuple[float, float]] = {}
    for depth, row in sorted(rows.items()):
        means = {
            point: sum(places[upper][0] for upper in above[point]) / max(1, len(above[point]))
            for point in row
        }
        for i, point in enumerate(sorted(row, key=lambda point: (means[point], point))):
            x = WIDTH * (2 * i + 1) / (2 * len(row))
            places[point] = (x, ROW_HEIGHT * depth + BOX_HEIGHT / 2 + 4)
    return places


def needs_of(chapters: dict[int, Chapter], number: int) -> str:
    """What a chapter needs, as links.

    >>> one = {1: Chapter("One", "01", frozenset(), True)}
    >>> needs_of(one | {2: Chapter("Two", "02", frozenset({1}), True)}, 2)
    'needs <a href="01.html" title="One">1</a>'
    """
    links = ", ".join(
        f'<a href="{chapters[need].page}.html" title="{html.escape(chapters[need].title)}">'
        f"{need}</a>"
        for need in sorted(chapters[number].needs)
    )
    return f"needs {links}" if links else "needs no other"


def listed(chapters: dict[int, Chapter]) -> str:
    """The map as a list, for a narrow screen."""
    entries = "".join(
        f'<li{" class=core" if chapter.core else ""}><a href="{chapter.page}.html">{number} '
        f"{html.escape(chapter.title)}</a> <small>{needs_of(chapters, number)}</small></li>"
        for number, chapter in chapters.items()
    )
    return f"<ul>{entries}</ul>"


def name_chapter(app, pagename, templatename, context, doctree) -> None:
    """Say below the title of a chapter which of all chapters it is."""
    table = Path(app.srcdir, f"{MAP}.md")
    if doctree is None or not pagename.startswith("notebooks/") or not table.is_file():
        return
    chapters = chapters_of(table.read_text(encoding="utf-8"))
    for number, chapter in chapters.items():
        if Path(chapter.page).name == pagename.removeprefix("notebooks/"):
            line = f"Chapter {number} of {len(chapters)}, {needs_of(chapters, number)}"
            place = f'</h1>\n<p class="where">{line} (<a href="../{MAP}.html">the map</a>).</p>'
            context["body"] = context["body"].replace("</h1>", place, 1)


def drawing(chapters: dict[int, Chapter]) -> str:
    """The map as SVG; its colours are those of the theme, light and dark."""
    places, lines, boxes = places_of(chapters), [], []
    for line in lines_of(chapters):
        for upper, lower in pairwise(chain(chapters, *line)):
            (x, y), (to_x, to_y) = places[upper], places[lower]
            y += BOX_HEIGHT / 2 if len(upper) == 1 else 0
            to_y -= BOX_HEIGHT / 2 if len(lower) == 1 else 0
            half = (y + to_y) / 2
            lines.append(f"M{x:g} {y:g}C{x:g} {half:g} {to_x:g} {half:g} {to_x:g} {to_y:g}")
    for number, chapter in chapters.items():
        x, y = places[(number,)]
        words = wrap(f"{number} {chapter.title}", LETTERS)
        first = y - LINE * (len(words) - 1) / 2 + 5
        text = "".join(
            f'<tspan x="{x:g}" y="{first + LINE * i:g}">{html.escape(line)}</tspan>'
            for i, line in enumerate(words)
        )
        boxes.append(
            f'<a href="{chapter.page}.html" class="{"core" if chapter.core else "side"}">'
            f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="8"/><text>{text}</text></a>'
        )
    height = max(y for _, y in places.values()) + BOX_HEIGHT / 2 + 4
    return (
        f'<figure class="chapter-map"><svg viewBox="0 0 {WIDTH} {height:g}" role="group" '
        'aria-label="The chapters, and lines from each to those that need it">'
        f'<path d="{"".join(lines)}"/>{"".join(boxes)}</svg>{listed(chapters)}'
        "<figcaption>A line leads from a chapter to one that needs it. The core path has thick "
        "edges.</figcaption></figure>"
    )


class ChapterMap(SphinxDirective):
    def run(self) -> list:
        text = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        return [nodes.raw("", drawing(chapters_of(text)), format="html")]


def setup(app) -> dict:
    app.add_directive("chapter-map", ChapterMap)
    app.connect("html-page-context", name_chapter)
    return {"parallel_read_safe": True}
