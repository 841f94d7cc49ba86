"""The chapters as slides: one deck for each session of the course, offline.

    python book/_ext/slides.py [FOLDER]     # `make slides`: into _build/slides

As a Sphinx extension it writes the decks into the site, where they share pictures with the pages.
The notebooks stay as they are; a rule says what of them becomes a slide. Headings start a slide.
Figures, formulas, short tables, short outputs and code of a few lines are kept; of a paragraph the
first sentences, of a long table the first rows; folded code, lines that only draw, exercises and
what speaks to a reader at the keyboard are left out. Each deck opens with the aim of its session
and has its vote, both from `book/teaching.md`, the vote in front of the heading that answers it.
Each slide belongs to a block of the session's plan, and a block without a slide gets its own: what
the class does. The notes of a slide name its block, with the minutes, and say what to say, what to
ask and what to expect (`slide_notes.py`).
Everything else that a deck loads lies beside it: reveal.js, as it is vendored in
`book/_static/vendor`, and the font of formulas.
"""

import argparse
import ast
import html
import json
import math
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from formulas import mathml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from plain_pages import HELD, with_files
from slide_notes import GOES, Note, Piece, note_of, rank, sentences, skipped

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "book" / "teaching.md"
STYLE = Path(__file__).with_name("slides.css")
TYPED = Path(__file__).with_name("slide_notes.toml")
VENDORED = ("reveal/reveal.js", "reveal/reveal.css", "reveal/reveal.js.LICENSE.txt")
FONT = ("math.woff2", "math.woff2.LICENSE.txt")  # of formulas
FULL = 14.4  # lines of prose that a slide holds below its title
WIDE, MONO, CAPTION = 74, 80, 92  # characters of a line of prose, of code, of a caption
CELL, PAD = 86, 2  # characters of a row of a table, and what is beside each cell
PROSE, ITEM = 250, 200  # characters that are kept of a paragraph, of an item of a list
CODE, PRINTED, ROWS, COLUMNS = 12, 14, 9, 8  # lines, lines, rows, columns that are kept
FIRST_ROWS = 7  # of a longer table
FIGURE, SMALL, ROW = 9.5, 0.84, 1.15  # lines of prose that these take: one, a line, a row
MARGIN, FORMULA = 0.5, 2.3  # below a paragraph; of a formula in a line of its own
HEADING = 1.8  # that a second heading on a slide takes
ALONE = (
    60.0  # what a prediction without its reasons costs, as lines that a slide leaves empty, squared
)
DRAWS = re.compile(
    r"alt=|\bload\(|load_people|getsource|exhibits\.|figures\.|drawings\."
)  # code for a figure or a start
CELLS = re.compile(r"<t[hd][^>]*>(.*?)</t[hd]>", re.DOTALL)
EXPLORED = "application/vnd.kvw.explorer+json"  # a slider: for hands, not for a wall
KEYBOARD = re.compile(r"change these two lines|^Next: |solutions/", re.IGNORECASE)
COMMANDED = re.compile(
    r"\*Slides:\* `make slides`, then open `_build/slides/session_(\d+)\.html`\."
)
IN_TABLE = re.compile(r"`session_(\d+)\.html`(?= \|)")
CREDITS = """Text, tables and drawings of this deck: *Knowledge Vector Weakening*, The KVW-book
contributors, CC BY 4.0, shortened. Code: MIT. Portraits: "Personas by Draftbit", CC BY 4.0,
remixed by DiceBear."""


@dataclass(frozen=True)
class Deck:
    """Which part of which chapter a session shows.

    Attributes:
        chapter: name of the notebook.
        vote: the heading in front of which the room votes.
        blocks: by heading, the first minute of the block of the plan that begins there, or None to
            leave it out. A heading that is not named is treated as the one before it.
        since, until: headings of the first part that is shown, and of the first that is not.
    """

    chapter: str
    vote: str
    blocks: dict[str, int | None] = field(default_factory=dict)
    since: str = ""
    until: str = "Names in the literature"


FIRST, SECOND = "1.1 Meet the strangers", "1.6 How sure are we? Draw people, not questions"
DECKS = (
    Deck(
        "01_what_would_it_mean_to_forget",
        "1.3 The oracle: what forgetting would look like",
        {
            FIRST: 10,
            "1.3 The oracle: what forgetting would look like": 45,
            "1.4 Four sets of questions": 65,
        },
        FIRST,
        SECOND,
    ),
    Deck(
        "01_what_would_it_mean_to_forget",
        "1.8 What fools us: the wording",
        {
            SECOND: 15,
            "1.7 What fools us: the picture that nobody needs": 50,
            "1.9 What fools us: chance": 65,
            "1.11 What a good edit must do": 80,
        },
        SECOND,
    ),
    Deck(
        "02_the_ffn_is_a_memory",
        "Knock them out",
        {
            "By hand: three vectors": 10,
            "Watching one question per person": 30,
            "What does a vector say?": 40,
            "Which vectors speak which fact?": 55,
            "Knock them out": 65,
            "Whose words are these?": 77,
            "What this does not show": None,
        },
    ),
    Deck(
        "04_who_fires",
        "Noise or signal? The sham first",
        {
            "Forget against retain": 20,
            "Noise or signal? The sham first": 40,
            "Called, but needed?": 50,
            "Why do names forget birthplaces?": 60,
            "Everybody has a profile": 75,
            "What was found": 85,
        },
    ),
    Deck(
        "05_turning_it_down",
        "The frontier",
        {
            "From a ratio to a gate": 0,
            "What scaling leaves unchanged": 15,
            "The frontier": 40,
            "Does it hold for other people?": 55,
            "The published schedule": 70,
            "Into a file": None,
            "What was found": 85,
        },
    ),
    Deck(
        "07_the_gradient_way",
        "Live, on `pocket`",
        {
            "Uphill, and how far": 10,
            "Live, on `pocket`": 30,
            "Five more ways: what may move, and where to?": 50,
            "Beside KVW": None,
            "Which false answer do they give?": 70,
            "What does it cost?": 85,
        },
    ),
    Deck(
        "08_the_replication",
        "At equal retain",
        {
            "At equal retain": 10,
            "One edit, two people": 25,
            "In pairs: is it more than luck?": 40,
            "As published: what does a batch hold?": 60,
            "What else goes?": None,
            "Five verdicts": 75,
        },
    ),
    Deck(
        "11_beyond_the_gate",
        "Natural, or a tell-tale?",
        {
            "": None,
            "What would a gate have to know?": 0,
            "Least squares on columns": None,
            "Somebody else": 10,
            "Does each layer make its share?": 25,
            "Natural, or a tell-tale?": 45,
        },
        until="Which edit should you take?",
    ),
    Deck(
        "13_gone_or_only_quiet",
        "Which attack would have fooled you?",
        {
            "": 15,
            "Where is the answer still?": 25,
            "Which attack would have fooled you?": 40,
            "Locked, or erased?": 55,
            "When is an edit quiet?": 65,
            "Groups and draws": 80,
        },
        until="And on an open model?",
    ),
    Deck(
        "14_can_the_test_be_trusted",
        "Do edits silence it?",
        {
            "By hand": 0,
            "A planting": 15,
            "Does the audit tell quiet from gone?": 30,
            "An exam for scores": 45,
            "How often does the rule err?": None,
            "Do scores find the columns?": 60,
            "Do edits silence it?": 75,
            "What was found": 75,
        },
        until="Exercises",
    ),
)


@dataclass(frozen=True)
class Session:
    """What the teacher's page says of one session, as Markdown.

    Attributes:
        plan: first and last minute, and what happens in between.
        found: what comes of the vote.
    """

    title: str
    aim: str
    vote: str
    homework: str
    wrong: str
    found: str
    plan: tuple[tuple[int, int, str], ...]


# --- the teacher's page ----------------------------------------------------------------------


def part_of(text: str, name: str) -> str:
    """What stands behind a name in bold, up to the next one, a fold or a heading."""
    match = re.search(rf"^\*\*{name}\.\*\*(.*?)(?=^\*\*|^:::|^##|\Z)", text, re.M | re.S)
    if not match:
        raise ValueError(f"a session without {name!r}")
    return match[1].strip()


def sessions_of(page: str) -> list[Session]:
    """The sessions of the teacher's page, in their order.

    Raises:
        ValueError: one without an aim, a vote or homework.
    """
    pieces = re.split(r"^## Session \d+: (.+)$", page, flags=re.M)[1:]
    bodies = [body.partition("\n## ")[0] for body in pieces[1::2]]
    names = ("Aim", "Vote", "Homework", "What goes wrong")
    return [
        Session(title, *(part_of(body, name) for name in names), found_in(body), plan_of(body))
        for title, body in zip(pieces[::2], bodies, strict=True)
    ]


def found_in(body: str) -> str:
    """What the fold of a session says."""
    return re.search(r"^:::\{dropdown\} What is found\n(.*?)^:::", body, re.M | re.S)[1].strip()


def plan_of(body: str) -> tuple[tuple[int, int, str], ...]:
    """The minutes of a session.

    >>> plan_of("- **0-10** who is here\\n- **10-30** ten portraits\\n")
    ((0, 10, 'who is here'), (10, 30, 'ten portraits'))
    """
    rows = re.findall(r"^- \*\*(\d+)-(\d+)\*\* (.+)$", body, re.M)
    return tuple((int(first), int(last), what) for first, last, what in rows)


# --- from Markdown to pieces -----------------------------------------------------------------


class WithFormulas(IPythonRenderer):
    """Writes HTML with formulas that are set already."""

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, display=True)


def marked_up(markdown: str) -> str:
    """Markdown as HTML, links as their text alone: a deck leads nowhere.

    Raises:
        ValueError: a formula that cannot be set.
    """
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    body = MarkdownWithMath(renderer=WithFormulas(escape=False)).render(plain)
    return re.sub(r"</?a\b[^>]*>|¶", "", body)


def line(markdown: str) -> str:
    """One line of Markdown as HTML, without a paragraph around it."""
    body = marked_up(re.sub(r"^(\d+)\. ", r"\1\\. ", markdown))  # a number, not a list
    return re.sub(r"^<p>|</p>$", "", body.strip())


def shortened(paragraph: str, most: int) -> str:
    """The first sentences of a paragraph: at least one, and no more characters than asked for.

    >>> shortened("One. Two is longer. Three.", 20)
    'One. Two is longer.'
    """
    text = ""
    for sentence in sentences(" ".join(paragraph.split())):
        if text and len(text) + len(sentence) > most:
            break
        text = f"{text} {sentence}".strip()
    return text


def blocks(markdown: str) -> list[str]:
    """Paragraphs, lists, tables, formulas; fences whole, folds left out."""
    markdown = re.sub(r"<details>.*?</details>", "", markdown, flags=re.S)
    markdown = re.sub(r"^(#+ .+)$", r"\n\1\n", markdown, flags=re.M)
    markdown = re.sub(
        r"(\$\$.+?\$\$)",
        lambda m: "\n\n" + m[1].replace("\n\n", "\n") + "\n\n",
        markdown,
        flags=re.S,
    )
    fences = re.split(r"^(```.*?^```)", markdown, flags=re.M | re.S)
    parts = []
    for place, text in enumerate(fences):
        parts += [text] if place % 2 else re.split(r"\n\s*\n", text)
    return [block.strip() for block in parts if block.strip()]


def items(block: str) -> list[str]:
    """The items of a list, each with its mark."""
    return [item.strip() for item in re.split(r"\n(?=(?:[-*]|\d+\.) )", block)]


def folded(text: str, wide: int) -> int:
    """Lines that a text takes, of HTML its words."""
    return max(1, math.ceil(len(re.sub(r"<[^>]+>", "", text)) / wide))


def table_lines(table: str) -> float:
    """Lines of prose that a table takes: a browser folds wide cells, and the caption."""
    rows = [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(CELLS, row)]
        for row in re.findall(r"<tr.*?</tr>", table, flags=re.S)
    ]
    cells = list(zip(*rows, strict=False))
    least = [
        max(len(word) for cell in column for word in (cell.split() or [""])) for column in cells
    ]
    most = [max(map(len, column)) for column in cells]
    room = CELL - PAD * len(cells)
    share = min(1.0, max(0, room - sum(least)) / max(1, sum(most) - sum(least)))
    widths = [low + share * (high - low) for low, high in zip(least, most, strict=True)]
    tall = [
        max(
            math.ceil(len(cell) / max(1.0, width)) for cell, width in zip(row, widths, strict=False)
        )
        for row in rows
    ]
    title = re.search(r"<caption.*?</caption>", table, re.S)
    over = folded(title[0], int(sum(widths)) + PAD * len(cells)) if title else 0
    return MARGIN + over + sum(ROW + SMALL * (lines - 1) for lines in tall)


def from_prose(block: str) -> Piece | None:
    """A block of Markdown, shortened; None where it is not for a wall."""
    if KEYBOARD.search(block) or re.match(r"\*.*\*$|---$|<", block, re.S) and "**" not in block:
        return None
    if block.startswith("$$"):
        return Piece(marked_up(block), FORMULA + 1.3 * block.count(r"\\"))
    if block.startswith("|"):
        rows = block.count("\n") - 1
        if rows > ROWS:
            return noted(f"a table of {rows} rows")
        table = marked_up(block)
        return Piece(table, table_lines(table), kind="table")
    if re.match(r"(?:-|\d+\.) ", block):
        shortened_items = [
            re.sub(
                r"^(-|\d+\.) (.*)", lambda m: f"{m[1]} {shortened(m[2], ITEM)}", item, flags=re.S
            )
            for item in items(block)
        ]
        text = "\n".join(shortened_items)
        body = marked_up(text)
        high = [0.2 + folded(item, WIDE) for item in body.split("</li>")[:-1]]
        return Piece(body, MARGIN + sum(high), kind="prose", source=block, shown=text)
    asks = "**Your prediction" in block
    most = 10**6 if asks else PROSE
    text = block if block.startswith((">", "```")) else shortened(block, most)
    body = marked_up(text)
    parts = text.split("\n") if text.startswith((">", "```")) else [body]
    high = MARGIN + sum(folded(part, WIDE) for part in parts)
    return Piece(body, high, asks, kind="prose", source=block, shown=text)


def listed(block: str) -> list[Piece]:
    """A block of Markdown; of a list each item, so that it may go on on the next slide."""
    parts = items(block) if re.match(r"(?:-|\d+\.) ", block) else [block]
    return [piece for part in parts if (piece := from_prose(part))]


def noted(what: str) -> Piece:
    """A word in place of what is too long for a wall."""
    return Piece(f'<p class="noted">{html.escape(what)}: in the chapter</p>', 0.8)


# --- from code cells to pieces ---------------------------------------------------------------


def text_of(value) -> str:
    return value if isinstance(value, str) else "".join(value)


def set_small(text: str, kind: str, source: str = "") -> Piece:
    text = text.rstrip()
    return Piece(
        f'<pre class="{kind}">{html.escape(text)}</pre>',
        1.0 + SMALL * sum(folded(row, MONO) for row in text.split("\n")),
        kind={"said": "printed"}.get(kind, kind),
        source=source,
    )


def shown_lines(code: str) -> str:
    """Code without what imports, draws or starts: the lines of whole statements go.

    >>> shown_lines("import torch\\nx = 1\\nfigures.lines(x)\\n")
    'x = 1'
    """
    lines: list[str] = code.splitlines()
    for node in reversed(ast.parse(code).body):
        statement = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.Import | ast.ImportFrom) or DRAWS.search(statement):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip("\n")


def from_code(code: str) -> Piece | None:
    """Code of a few lines, without docstrings; None for other code."""
    docstring = re.search(r'^ *"""(.+?)(?:\n\n|""")', code, re.M | re.S)
    code = re.sub(r'^ *"""(?:.|\n)*?"""\n', "", code, flags=re.M).strip("\n")
    if "class " not in code and "def " not in code:  # what defines is shown whole or not at all
        code = shown_lines(code)
    elif re.match(r"(?:import|from) ", code) or DRAWS.search(code):
        return None
    if not code or code.count("\n") + 1 > CODE:
        return None
    return set_small(code, "code", docstring[1] if docstring else "")


def figure(data: dict) -> Piece:
    """A picture with its caption; what it shows is said to those who cannot see it."""
    text = text_of(data.get("text/plain", ""))
    caption = re.search(r"^Figure: (.*?)(?=\nIt shows: |\Z)", text, re.M | re.S)
    alt = re.search(r"^It shows: (.*)", text, re.M | re.S)
    words = " ".join(caption[1].split()) if caption else ""
    caption, shows = html.escape(words), alt[1].strip() if alt else ""
    _, kind, picture = HELD.search(text_of(data["text/html"])).groups()  # as on the page, smaller
    return Piece(
        f'<figure><img alt="{html.escape(shows)}" '
        f'src="data:image/{kind};base64,{picture}"><figcaption>{caption}</figcaption></figure>',
        FIGURE + SMALL * folded(caption, CAPTION),
        kind="figure",
        source=shows,
        shown=words,
    )


def from_output(output: dict) -> Piece | None:
    """One output of a cell; long ones become a word that they are there."""
    data = output.get("data", {})
    if EXPLORED in data:
        return None
    if "image/png" in data or "image/svg+xml" in data:
        return figure(data)
    text = text_of(output.get("text", data.get("text/plain", "")))
    if "text/latex" in data:  # highlighted code
        return from_code(text) or noted("the function")
    if "<table" in text_of(data.get("text/html", "")):
        table = re.sub(r"<style.*?</style>", "", text_of(data["text/html"]), flags=re.S)
        head, *rows = re.findall(r"<tr.*?</tr>", table.partition("<tbody")[2], flags=re.S)
        rows, columns = [head, *rows], len(re.findall("<t[hd]", head))
        if columns > COLUMNS:
            return noted(f"a table of {columns} columns")
        if len(rows) > ROWS:
            for row in rows[FIRST_ROWS:]:
                table = table.replace(row, "")
            table += noted(f"{FIRST_ROWS} of {len(rows)} rows; all of them").body
        return Piece(table, table_lines(table), kind="table")
    if not text.strip() or text.strip() == "not yet":
        return None
    rows = text.rstrip().count("\n") + 1
    return set_small(text, "said") if rows <= PRINTED else noted(f"{rows} printed lines")


def halves(piece: Piece) -> list[Piece]:
    """A table or a list that no slide holds, as two; a table with its head on both.

    >>> [half.body for half in halves(Piece("<ol><li>a</li><li>b</li></ol>", 20))]
    ['<ol><li>a</li></ol>', '<ol start="2"><li>b</li></ol>']
    """
    rows = re.findall(r"<tr.*?</tr>", piece.body.partition("<tbody")[2], re.S)
    parts = rows or re.findall(r"<li>.*?</li>", piece.body, re.S)
    if piece.lines <= FULL or len(parts) < 2:
        return [piece]
    middle, bodies = len(parts) // 2, []
    for left_out in (parts[middle:], parts[:middle]):
        body = piece.body
        for part in left_out:
            body = body.replace(part, "", 1)
        bodies.append(body)
    bodies[1] = bodies[1].replace("<ol>", f'<ol start="{middle + 1}">')
    if rows:
        return [replace(piece, body=body, lines=table_lines(body)) for body in bodies]
    texts = [
        [lines[:middle], lines[middle:]] for lines in (items(piece.source), items(piece.shown))
    ]
    return [
        replace(
            piece,
            body=body,
            lines=piece.lines / 2,
            source="\n".join(source),
            shown="\n".join(shown),
        )
        for body, source, shown in zip(bodies, *texts, strict=True)
    ]


def pieces_of(cell: dict) -> Iterator[Piece | str]:
    """What a cell gives to the wall: pieces, and headings as text."""
    tags = cell["metadata"].get("tags", [])
    if cell["cell_type"] == "markdown":
        for block in blocks(text_of(cell["source"])):
            heading = re.match(r"#+ (.+)", block)
            yield heading[1] if heading else from_prose(block)
    elif "hide-cell" not in tags:
        if "hide-input" not in tags:
            yield from_code(text_of(cell["source"]))
        if "hide-output" not in tags:
            yield from map(from_output, cell.get("outputs", []))


# --- slides ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slide:
    """One slide: HTML without notes, its heading, the pieces of the chapter on it, or its note."""

    body: str
    heading: str = ""
    pieces: list[Piece] = field(default_factory=list)
    note: Note | None = None


def slide(title: str, body: str, kind: str = "") -> str:
    heading = f"<h2>{line(title)}</h2>" if title else ""
    return f'<section class="{kind}">{heading}\n{body}\n</section>'


def lines(pieces: list[Piece]) -> float:
    return sum(piece.lines for piece in pieces)


def packed(title: str, pieces: list[Piece]) -> list[Slide]:
    """The pieces below one heading, on as many slides as they need, about equally full.

    The cost of a slide is the square of the lines that it leaves empty.
    """
    best: list[tuple[float, list[list[Piece]]]] = [(0.0, [])]  # of the first pieces
    for end in range(1, len(pieces) + 1):
        choices = []
        for start in range(end - 1, -1, -1):
            part = pieces[start:end]
            if any(piece.last for piece in part[:-1]) or (len(part) > 1 and lines(part) > FULL):
                break
            alone = ALONE * (len(part) == 1 and part[0].last)
            cost, before = best[start]
            cost += max(0.0, FULL - lines(part)) ** 2 + alone
            choices.append((cost, [*before, part]))
        best.append(min(choices, key=lambda choice: choice[0]))
    return [
        Slide(slide(title, "\n".join(item.body for item in part)), title, part)
        for part in best[-1][1]
    ]


def parts_of(cells: list[dict], deck: Deck) -> Iterator[tuple[str, list[Piece]]]:
    """Headings of the shown part of a chapter, each with what stands below it.

    Raises:
        ValueError: a heading of the deck is not in the chapter.
    """
    title, pieces, shown, out = "", [], not deck.since, deck.blocks.get("", 0) is None
    sought = {deck.vote, deck.until, deck.since, *deck.blocks} - {""}
    for piece in [part for cell in cells[1:] for part in pieces_of(cell) if part]:
        if isinstance(piece, str):
            sought.discard(piece)
            if pieces and shown:
                yield title, pieces
            shown = (shown or piece == deck.since) and piece != deck.until
            title, pieces, out = piece, [], deck.blocks.get(piece, None if out else 0) is None
        elif shown and not out:
            pieces += halves(piece)
    if sought:
        raise ValueError(f"{deck.chapter} has no heading {', '.join(sorted(sought))}")


def joined(groups: list[tuple[str, list[Piece]]], first: set[str]) -> list[tuple[str, list[Piece]]]:
    """What fits on one slide with what stands before it is put there, under a heading of its own.

    Args:
        first: headings that stay at the top of a slide, as does what a prediction waits for.
    """
    merged: list[tuple[str, list[Piece]]] = []
    for heading, pieces in groups:
        before = merged[-1] if merged else ("", [])
        fits = lines(before[1]) + HEADING + lines(pieces) <= FULL
        if before[1] and fits and heading not in first and not before[1][-1].last:
            second = [Piece(f"<h3>{line(heading)}</h3>", HEADING)] if heading else []
            merged[-1] = (before[0], [*before[1], *second, *pieces])
        else:
            merged.append((heading, pieces))
    return merged


def of_the_class(what: str) -> Slide:
    """A slide for a block of the plan that has none in the chapter: what the class does.

    >>> of_the_class("in pairs: find an input; show it").heading
    'In pairs'
    """
    title, *rest = (text[0].upper() + text[1:] for text in re.split("[:;] ", what))
    return Slide(slide(title, marked_up("\n".join(f"- {text}" for text in rest)), "board"), title)


def with_notes(page: str, paragraphs: list[str]) -> str:
    """A slide with what its speaker reads."""
    notes = marked_up("\n\n".join(paragraphs))
    return page.replace("</section>", f'<aside class="notes">{notes}</aside>\n</section>')


def from_the_beginning(cell: str) -> Iterator[Slide]:
    """What the class should be able to answer, and the words that it needs for that."""
    name, words = "After this chapter you can answer", "**Words from earlier chapters**"
    named = {
        "After the chapter you can answer": cell.partition(name)[2].partition(words)[0].lstrip(":"),
        "Words from earlier chapters": cell.partition(words)[2],
    }
    for title, text in named.items():
        pieces = [piece for block in blocks(text) for piece in listed(block)]
        for page in packed(title, pieces):
            starts = [re.match(r"- \*\*(.+?)\*\*", piece.source) for piece in page.pieces]
            first = page.pieces[0].source.strip().removeprefix("- ")
            term, _, meaning = first.replace("**", "").partition(": ")
            note = Note(
                f"Words for today: {', '.join(start[1] for start in starts if start)}. "
                "Explain what the class asks for. Then press B: the wall goes dark until B again.",
                f"What is meant by *{term}*? All write a sentence.",
                f"{meaning[:1].upper()}{shortened(meaning[1:], ITEM)}",
            )
            if title not in words:
                note = Note(
                    "Read the questions aloud. At the end each pair answers one of them.",
                    f"What would you guess: {re.sub(r'^[0-9]+[.] ', '', first)}",
                    "A guess only. Write the guesses on the board, and come back to them.",
                )
            yield Slide(page.body, title, note=note)


def words_of(page: str) -> str:
    """What stands on a slide, without marks and formulas."""
    bare = re.sub(r"<math.*?</math>|<[^>]+>", " ", page, flags=re.S)
    return " ".join(html.unescape(bare).split())


def typed_notes(number: int) -> dict[str, Note]:
    """By words on a slide, its note, where the chapter gives none; what is empty is derived."""
    entries = tomllib.loads(TYPED.read_text(encoding="utf-8"))[f"session_{number}"]
    return {
        entry["slide"]: Note(
            *(entry.get(name, "") for name in ("say", "ask", "expected")), entry.get("goes", False)
        )
        for entry in entries
    }


def opening_of(number: int, session: Session, title: str) -> Slide:
    """The first slide: the aim."""
    body = (
        f'<p class="aim">{line(session.aim)}</p>\n<p class="chapter">{line("Chapter " + title)}</p>'
    )
    note = Note(
        f"The aim: {session.aim}",
        "Who has done what was set for today? What is still unclear?",
        "Two or three points, half a minute each. Write them down for the end.\n\n"
        "N hides or shows these notes, S opens them in a second window.\n\n"
        f"What goes wrong: {session.wrong}",
    )
    return Slide(slide(f"Session {number}: {session.title}", body, "opening"), note=note)


def vote_of(session: Session) -> Slide:
    note = Note(
        "Read the question and the letters aloud. All write down a letter, then show hands.",
        "Who has A, who has B, who has C? One voice for each letter: why?",
        f"Keep until all have voted: {session.found}",
    )
    return Slide(slide("Vote", marked_up(session.vote), "vote"), note=note)


def by_block(number: int, session: Session, deck: Deck, cells: list[dict]) -> list[list[Slide]]:
    """The slides of each block of the plan.

    Raises:
        ValueError: the deck's blocks are not those of the plan, or stand in another order.
    """
    beginning = text_of(cells[0]["source"])
    title = re.match(r"# (.+)", beginning)[1]
    shown: dict[int, list[Slide]] = {first: [] for first, _, _ in session.plan}
    vote = next(first for first, _, what in session.plan if "vote" in what.lower())
    groups = [  # without what is only a start
        (heading, pieces)
        for heading, pieces in parts_of(cells, deck)
        if heading or any("<figure" in piece.body for piece in pieces)
    ]
    block = now = min(shown)
    for heading, pieces in joined(groups, {deck.vote, *deck.blocks}):
        if heading == deck.vote:
            shown[vote].append(vote_of(session))
        block = deck.blocks.get(heading, block)
        if block not in shown or block < now:
            raise ValueError(f"session {number}: no block from minute {block} for {heading!r}")
        now = block
        shown[block] += packed(heading or title, pieces)
    for first, _, what in session.plan:
        remember = re.search("to remember: (.+)", what)
        if remember and shown[first]:
            shown[first].append(Slide(slide("To remember", marked_up(f"- {remember[1]}"), "board")))
        start = [] if shown[first] else [of_the_class(what)]
        if first == min(shown):
            start = [opening_of(number, session, title), *start, *from_the_beginning(beginning)]
        shown[first] = start + shown[first]
    return list(shown.values())


def slides_of(number: int, session: Session, deck: Deck) -> list[str]:
    """All slides of a session, its aim first, each with notes.

    Raises:
        ValueError: the deck's blocks are not those of the plan, or stand in another order.
    """
    notebook = ROOT / "notebooks" / f"{deck.chapter}.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = by_block(number, session, deck, cells)
    pieces = [piece for here in parts for page in here for piece in page.pieces]
    slides: list[str] = []
    notes: list[Note] = []
    typed = typed_notes(number)
    start = 0
    for here, (first, last, what) in zip(parts, session.plan, strict=True):
        ranks = []
        for page in here:
            key = next((words for words in typed if words in words_of(page.body)), "")
            note, end = typed.pop(key, page.note), start + len(page.pieces)
            needed = rank(pieces, start, end, what) if page.pieces else 0
            ranks.append(GOES if note and note.goes else needed)
            if not note or not note.say:
                note = note_of(pieces, start, end, notes, note)
            notes.append(note)
            start = end
        out = skipped(ranks, last - first)
        name = re.split(r"[,:;.] ", what)[0]
        for at, (page, note) in enumerate(zip(here, notes[len(slides) :], strict=True)):
            block = name if at else what
            head = f"**Minutes {first} to {last}**, slide {at + 1} of {len(here)}: {block}."
            paragraphs = [head.replace("?.", "?")]
            if at in out:
                paragraphs += ["*May be left out.*"]
            if at == 0 and out:
                gone = ", ".join(str(len(slides) + 1 + place) for place in sorted(out))
                paragraphs += [f"Short of time, these slides may go: {gone}."]
            written = {"Say": note.say, "Ask": note.ask, "Expected": note.expected}
            paragraphs += [f"**{part}.** {text}" for part, text in written.items() if text]
            slides.append(with_notes(page.body, paragraphs))
    homework = f'{marked_up(session.homework)}\n<div class="noted">{marked_up(CREDITS)}</div>'
    paragraphs = [f"**Minutes {first} to {last}**, the end.", f"**Say.** {session.homework}"]
    return [*slides, with_notes(slide("Homework", homework), paragraphs)]


DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/reveal.css">
<link rel="stylesheet" href="slides.css">
<style>@font-face {{ font-family: "Book Math"; src: url("{font}") format("woff2"); }}</style>
<script>
// what is short is set larger: it is read from the last row
function fit(slide) {{
  const high = size => {{
    slide.style.fontSize = `${{size}}%`;
    return slide.scrollHeight;
  }};
  let size = 130;
  while (size > 60 && (high(size) > 700 || slide.scrollWidth > slide.clientWidth + 1)) size -= 2;
}}
// a sheet to print: the vote, twice, with room to write
function sheet() {{
  const vote = document.querySelector(".vote");
  document.documentElement.classList.add("flow");
  vote.querySelector(".notes").remove();
  for (const line of ["My letter", "Because", "Now that I have seen the answer"])
    vote.insertAdjacentHTML("beforeend", `<p class="line">${{line}}:</p>`);
  document.querySelector(".slides").replaceChildren(vote, vote.cloneNode(true));
}}
addEventListener("DOMContentLoaded", () => {{
  const second = location.search === "?notes";
  if (location.search === "?vote") return sheet();
  const narrow = matchMedia("screen and (max-width: 600px)"); // a phone held upright: to scroll
  narrow.addEventListener("change", () => location.reload());
  if (narrow.matches && !second) return document.documentElement.classList.add("flow", "narrow");
  let notes = null; // the window with the notes, which follows this one
  const follow = () => notes && notes.postMessage(Reveal.getIndices().h, "*");
  Reveal.on("slidechanged", event => {{ fit(event.currentSlide); follow(); }});
  Reveal.initialize({{width: 1280, height: 720, margin: 0.03, center: false, hash: true,
    slideNumber: "c/t", transition: "none", showNotes: second, scrollActivationWidth: 0}})
    .then(() => fit(Reveal.getCurrentSlide()));
  if (second) addEventListener("message", event => Reveal.slide(Number(event.data)));
  Reveal.addKeyBinding({{keyCode: 78, key: "N", description: "Notes"}},
    () => {{
      Reveal.configure({{showNotes: !Reveal.getConfig().showNotes}});
      Reveal.layout(); // the notes take a quarter of the width, or give it back
      fit(Reveal.getCurrentSlide());
    }});
  Reveal.addKeyBinding({{keyCode: 83, key: "S", description: "Notes in a second window"}}, () => {{
    notes = open(`${{location.pathname}}?notes`, "notes", "width=1000,height=600");
    setTimeout(follow, 1000);
  }});
}});
</script>
<script defer src="reveal/reveal.js"></script>
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
</body>
</html>
"""


def build(folder: Path, font: str = FONT[0]) -> list[Path]:
    """Write all decks and what they load.

    Args:
        font: where the font of formulas is, seen from the decks; unless given it is put there.

    Raises:
        ValueError: the page has another number of sessions than there are decks.
    """
    sessions = sessions_of(PAGE.read_text(encoding="utf-8"))
    if len(sessions) != len(DECKS):
        raise ValueError(f"{len(sessions)} sessions on the page, {len(DECKS)} decks")
    (folder / "reveal").mkdir(parents=True, exist_ok=True)
    for name in VENDORED:
        shutil.copyfile(ROOT / "book" / "_static" / "vendor" / name, folder / name)
    for name in FONT if font == FONT[0] else ():
        shutil.copyfile(ROOT / "book" / "_static" / "fonts" / name, folder / name)
    shutil.copyfile(STYLE, folder / "slides.css")
    files = []
    for number, (session, deck) in enumerate(zip(sessions, DECKS, strict=True), 1):
        slides = slides_of(number, session, deck)
        chapter = int(deck.chapter[:2])
        title = html.escape(f"Session {number}, chapter {chapter}: {session.title}")
        files.append(folder / f"session_{number}.html")
        files[-1].write_text(
            DOCUMENT.format(title=title, slides="\n".join(slides), font=font), "utf-8"
        )
    return files


def link(app, docname: str, source: list[str]) -> None:
    """Where the page names the command that makes a deck, the site links to the deck."""
    if docname == "book/teaching":
        deck = r'<a href="../slides/session_\1.html">'
        sheet = deck.replace(".html", ".html?vote")
        both = rf"{deck}Slides of session \1</a> · {sheet}its vote, to print</a>."
        text = COMMANDED.sub(both, source[0])
        source[0] = IN_TABLE.sub(rf"{deck}slides \1</a>", text)


def write_into_site(app, error) -> None:
    """The decks beside the pages; a book without the teacher's page, as for students, has none."""
    if error or app.builder.format != "html" or "book/teaching" not in app.env.found_docs:
        return
    site = Path(app.outdir)
    for path in build(site / "slides", f"../_static/fonts/{FONT[0]}"):
        deck = with_files(path.read_text(encoding="utf-8"), site / "_images", "../")
        path.write_text(deck, encoding="utf-8")


def setup(app) -> dict:
    app.connect("source-read", link)
    app.connect("build-finished", write_into_site, priority=900)  # plain_pages mends pages alone
    return {"parallel_read_safe": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "_build" / "slides")
    for path in build(parser.parse_args().folder):
        print(f"{path}: {path.read_text(encoding='utf-8').count('<section')} slides")


if __name__ == "__main__":
    main()
