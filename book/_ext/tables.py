"""Marks in the tables of a page: heads above their numbers, captions in sight, rows for a phone.

A table of sentences (`stacked`) has the head of its column in each cell: on a phone its cells stand
below each other, each under its head. Other tables are moved sideways there. A table that is wider
than a page (`wide`) has smaller letters, and intervals below their numbers. One with pairs of
numbers (`pairs`) has the second below the first on a phone, so that all its columns are seen.
What a cell prints wraps on a phone, unless it is a table itself (`aligned`).
Used by `plain_pages`, when a page is written.
"""

import html
import re

TABLE = re.compile(r'<table class="(table|dataframe)".*?</table>', re.DOTALL)
HEAD = re.compile(r"<thead>.*?</thead>", re.DOTALL)
ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<(t[hd])\b([^>]*)>(.*?)</\1>", re.DOTALL)
CAPTION = re.compile(r"(<caption\b[^>]*>)(.*?)(</caption>)", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
CLASS = re.compile(r'class="([^"]*)"')
INTERVAL = re.compile(r"(<td\b[^>]*>[^<\[]+) (\[[^<\]]*\](?: \*)?)(?=</td>)")
PRINTED = re.compile(
    r'(<div class="output stream)([^>]*>\s*<div class="highlight"><pre>)(.*?)</pre>', re.S
)
GAP = re.compile(r"(?<=\S)  +(?=\S)")
NOTHING = ("", "–", "-")
SENTENCE, SHORT = 30, 13  # characters: more of them are a sentence, fewer stay on one line
PAGE = 80  # characters of a table that a page has room for, two between the columns


def text_of(cell: str) -> str:
    """What is read in a cell.

    >>> text_of("<p>a <em>b</em> &lt; c</p>")
    'a b < c'
    """
    return html.unescape(TAG.sub("", cell)).strip()


def with_class(attributes: str, name: str) -> str:
    """Attributes of an element that has one class more.

    >>> with_class(' class="head"', "num"), with_class("", "num")
    (' class="head num"', ' class="num"')
    """
    if CLASS.search(attributes):
        return CLASS.sub(rf'class="\1 {name}"', attributes, count=1)
    return f'{attributes} class="{name}"'


def in_cells(part: str, change) -> str:
    """A part of a table; `change(row, column, tag, attributes, text)` gives new attributes."""
    rows = iter(range(part.count("<tr")))

    def in_row(row: re.Match) -> str:
        number, columns = next(rows), iter(range(row[0].count("<t")))
        return CELL.sub(
            lambda cell: (
                f"<{cell[1]}{change(number, next(columns), cell[1], cell[2], text_of(cell[3]))}>"
                f"{cell[3]}</{cell[1]}>"
            ),
            row[0],
        )

    return ROW.sub(in_row, part)


def marked_table(table: re.Match) -> str:
    """One table; one whose heads span columns or rows keeps its cells as they are."""
    whole = CAPTION.sub(r"\1<span>\2</span>\3", table[0])
    head = HEAD.search(whole)
    if head is None or head[0].count("<tr") != 1 or re.search(r"(?:col|row)span=", whole):
        return whole
    heads = [text_of(cell[3]) for cell in CELL.finditer(head[0])]
    before, body = whole[: head.start()], whole[head.end() :]
    rows = [CELL.findall(row[0]) for row in ROW.finditer(body)]
    if any(len(row) != len(heads) for row in rows):
        return whole
    columns = [
        [("num" in attributes, text_of(cell)) for _, attributes, cell in column]
        for column in zip(*rows, strict=True)
    ]
    numbers = [
        any(is_number for is_number, _ in column)
        and all(is_number or text in NOTHING for is_number, text in column)
        for column in columns
    ]
    longest = [
        max(map(len, [*head.split(), *(text for _, text in column)])) + 2
        for head, column in zip(heads, columns, strict=True)
    ]
    stacked = table[1] == "table" and any(
        len(text) > SENTENCE for column in columns[1:] for _, text in column
    )
    wide = sum(longest) > PAGE and not stacked
    pairs = table[1] == "table" and any(
        is_number and " / " in text for column in columns for is_number, text in column
    )

    def in_head(_, column: int, __, attributes: str, ___) -> str:
        return with_class(attributes, "num") if numbers[column] else attributes

    def in_body(_, column: int, tag: str, attributes: str, text: str) -> str:
        if numbers[column] and text in NOTHING:
            attributes = with_class(attributes, "num")
        if tag == "th" and len(text) <= SHORT:
            attributes = with_class(attributes, "short")
        if stacked and column and heads[column]:
            attributes += f' data-title="{html.escape(heads[column])}"'
        return attributes

    if stacked:
        before = before.replace('<table class="table"', '<table class="table stacked"', 1)
    if pairs and not stacked:
        before = before.replace('<table class="table"', '<table class="table pairs"', 1)
    if wide:
        before = before.replace(f'<table class="{table[1]}', f'<table class="{table[1]} wide', 1)
    body = INTERVAL.sub(r'\1 <span class="interval">\2</span>', in_cells(body, in_body))
    return before + in_cells(head[0], in_head) + body


def marked_output(output: re.Match) -> str:
    """What a cell printed: a table where several lines have three columns or more."""
    columns = [len(GAP.split(line)) for line in text_of(output[3]).splitlines()]
    aligned = " aligned" if sum(count > 2 for count in columns) > 1 else ""
    return f"{output[1]}{aligned}{output[2]}{output[3]}</pre>"


def marked(page: str) -> str:
    """A page whose tables have their marks.

    >>> start = '<div class="output stream"><div class="highlight"><pre>'
    >>> marked(f"{start}G  0.0   6.0\\nx  1.0  1.00\\n</pre>")[:35]
    '<div class="output stream aligned">'
    >>> marked(f"{start}left   0.50, kept 1.00\\nlost   none\\n</pre>")[:27]
    '<div class="output stream">'

    >>> head, row = "<thead><tr><th>a</th><th>b</th></tr></thead>", '<td class="num">1</td></tr>'
    >>> print(marked(f'<table class="dataframe">{head}<tr><th>x</th>{row}</table>'))
    ... # doctest: +NORMALIZE_WHITESPACE
    <table class="dataframe"><thead><tr><th>a</th><th class="num">b</th></tr></thead><tr><th
    class="short">x</th><td class="num">1</td></tr></table>
    >>> long = "a sentence that is longer than thirty"
    >>> marked(f'<table class="table">{head}<tr><td>x</td><td>{long}</td></tr></table>')[-74:]
    '<td data-title="b">a sentence that is longer than thirty</td></tr></table>'
    >>> row = f'<th>x</th><td class="num">{"9" * 80} [0, 1]</td></tr>'
    >>> wide = marked(f'<table class="dataframe">{head}<tr>{row}</table>')
    >>> wide[:28], wide[-56:]
    ('<table class="dataframe wide', '9 <span class="interval">[0, 1]</span></td></tr></table>')
    >>> row = '<th>x</th><td class="num">1 / 0</td></tr>'
    >>> marked(f'<table class="table">{head}<tr>{row}</table>')[:27]
    '<table class="table pairs">'
    """
    return PRINTED.sub(marked_output, TABLE.sub(marked_table, page))
