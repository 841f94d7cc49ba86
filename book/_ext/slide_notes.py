"""What a speaker reads beside each slide: say, ask, the expected answer.

Most of it is in the chapter already. A prediction asks, and the paragraph in bold type below the
cell answers; the prose asks and answers itself; a paragraph on a slide is shortened, and what was
left out is said; a figure has a text for those who do not see it; a table has lines to read aloud.
Of all candidates a slide gets the first that was not used before it.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

CONTROL = re.compile(r"\b(?:shams?|oracles?|untaught|placebos?|controls?|vanilla)\b", re.I)
MINUTES = 2  # that a slide takes; a block with more slides than that allows may lose some
LONG, SHORT = 330, 40  # characters of what is said or expected
GOES = 4  # the rank of a slide that the typed notes let go


@dataclass(frozen=True)
class Piece:
    """Something that is shown whole.

    Attributes:
        body: HTML.
        lines: of prose that it takes.
        last: whether what follows must wait for the next slide, as after a prediction.
        kind: "prose", "figure", "table", "code", "printed", or "" for what needs no words.
        source: what the notes are made from: the whole paragraph; of a figure the text for who
            does not see it; of code its docstring.
        shown: of a paragraph, what is left of it on the slide; of a figure its caption.
    """

    body: str
    lines: float
    last: bool = False
    kind: str = ""
    source: str = ""
    shown: str = ""


@dataclass(frozen=True)
class Note:
    """What the speaker says and asks, and what should be answered, as Markdown.

    Attributes:
        goes: whether the slide may be left out when time is short.
    """

    say: str
    ask: str
    expected: str
    goes: bool = False


def sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph; none ends within a formula, code, brackets or bold type.

    >>> list(sentences("A rule. It is $a. B$ (see 1. X). **So. It** is."))
    ['A rule.', 'It is $a. B$ (see 1. X).', '**So. It** is.']
    """
    start = 0
    for end in re.finditer(r"[.?!:][\"*)]*\s+(?=[A-Z*$\"\[`(])", paragraph):
        piece = paragraph[start : end.end()]
        balanced = all(piece.count(mark) % 2 == 0 for mark in ("$", "`", "**", '"'))
        if balanced and piece.count("(") == piece.count(")") and not piece.rstrip().endswith(":"):
            yield piece.strip()
            start = end.end()
    yield paragraph[start:].strip()


# --- what a piece says -----------------------------------------------------------------------


def spoken(text: str) -> str:
    """Markdown without links, bold type and line breaks.

    >>> spoken("**Yes: [it](a.md)\\nis.** So")
    'Yes: it is. So'
    """
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
    return re.sub(r"^(?:>|-|\d+\.) +", "", " ".join(text.split()))


def lines_of(text: str) -> list[str]:
    """The sentences of a paragraph, or of the items of a list, as they are spoken."""
    parts = [text] if text.startswith("|") else re.split(r"\n(?=(?:-|\d+\.) )", text)
    if re.match(r"\||```|\$\$", text) or re.fullmatch(r"\*\*[^*]+[^*.?!:]\*\*", text):
        return []  # nothing to say, or a heading
    lines = [spoken(line) for part in parts for line in sentences(" ".join(part.split()))]
    return [line for line in lines if line]


def first_of(lines: list[str], count: int = 2) -> str:
    """The first sentences that are no questions, and no more than can be read at a glance.

    >>> first_of(["Why?", "It is so.", "The formula:"])
    'It is so.'
    """
    text: list[str] = []
    for line in lines:
        if line.endswith("?") or line.startswith("("):
            continue
        if count == 0 or (text and len(" ".join(text)) + len(line) > LONG):
            break
        text.append(line)
        count -= len(line) > SHORT // 2  # a "No." is not all
    if text and text[-1].endswith(":"):  # what it leads to is not said
        text.pop()
    return " ".join(text)


def question_in(piece: Piece) -> str:
    """What a prediction asks."""
    return spoken(piece.source.partition("**Your prediction.**")[2])


def emphasised(piece: Piece) -> str:
    """The sentences in bold type with which a paragraph answers, or nothing."""
    match = re.match(r"\*\*(.+?)\*\*", piece.source, re.S)
    if not match or piece.last or piece.kind != "prose" or not (lines := lines_of(piece.source)):
        return ""
    return (spoken(match[1]) if match[1][-1] in ".?!" else lines[0]).rstrip(":")


def beyond(piece: Piece) -> list[str]:
    """What the answer's paragraph says besides its bold type."""
    return [line for line in lines_of(piece.source) if line not in emphasised(piece)]


def left_out(piece: Piece) -> list[str]:
    """What a slide does not show of a paragraph."""
    shown, whole = spoken(piece.shown), piece.source.partition("**Your prediction.**")[0]
    return [line for line in lines_of(whole) if line not in shown]


def line_of(table: str) -> str:
    """The first line of a table, as it is read aloud.

    >>> line_of("<table><tr><th></th><th>left</th></tr><tr><th>a</th><td>1</td></tr></table>")
    '*a*: left 1.'
    """
    rows = [
        [
            html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        ]
        for row in re.findall(r"<tr.*?</tr>", table, re.S)
    ]
    if len(rows) < 2:
        return ""
    (_, *names), (first, *values) = rows[0], rows[1]
    pairs = [
        f"{name} {value.rstrip('.')}"
        for name, value in zip(names, values, strict=False)
        if value and name
    ]
    worded = any(re.search(r"\w", value) for value in values)
    return f"*{first}*: {'; '.join(pairs)}." if first and pairs and worded else ""


# --- candidates of a slide -------------------------------------------------------------------


def following(pieces: list[Piece], at: int) -> Piece | None:
    """The next paragraph at or behind a place, before the next prediction."""
    for piece in pieces[at:]:
        if piece.last:
            return None
        if piece.kind == "prose" and lines_of(piece.source):
            return piece
    return None


def answer_to(pieces: list[Piece], at: int) -> Piece | None:
    """The paragraph in bold type that answers the prediction at a place."""
    for piece in pieces[at + 1 :]:
        if piece.last:
            return None
        if emphasised(piece):
            return piece
    return None


def waiting(pieces: list[Piece], start: int) -> int | None:
    """Where the prediction stands that is open when a slide begins, or None."""
    for at in range(start - 1, -1, -1):
        if pieces[at].last:
            return at
        if emphasised(pieces[at]):
            return None
    return None


def asked_in_prose(pieces: list[Piece], start: int, end: int) -> Iterator[tuple[str, str]]:
    """Questions of captions and paragraphs, with the sentences that follow."""
    for at in range(start, end):
        piece = pieces[at]
        lines = lines_of(piece.shown if piece.kind == "figure" else piece.source)
        if piece.last:
            lines = lines_of(piece.source.partition("**Your prediction.**")[0])
        for place, line in enumerate(lines):
            later = following(pieces, at + 1)
            reply = first_of(lines[place + 1 :])
            if not reply and later and not piece.last:
                reply = emphasised(later) or first_of(lines_of(later.source))
            if line.endswith("?") and reply:
                yield line, reply


def questions(pieces: list[Piece], start: int, end: int) -> Iterator[tuple[str, str]]:
    """What may be asked beside a slide, with the expected answer, the best first."""
    here = pieces[start:end]
    nearby = [*here, *([later] if (later := following(pieces, end)) else [])]
    for at in range(start, end):
        if pieces[at].last and (answer := answer_to(pieces, at)):
            yield question_in(pieces[at]), f"All write down a guess; later: {emphasised(answer)}"
    opened = waiting(pieces, start)
    outputs = [piece for piece in here if piece.kind in ("figure", "table", "printed")]
    if opened is not None and outputs and (answer := answer_to(pieces, opened)):
        where = {"figure": "in the figure", "table": "in the table"}.get(
            outputs[0].kind, "on the slide"
        )
        reply = first_of([emphasised(answer), *beyond(answer)])
        yield f"Where {where} is the answer to the prediction? {question_in(pieces[opened])}", reply
    yield from asked_in_prose(pieces, start, end)
    shown = [line for piece in here if not piece.last for line in lines_of(piece.source)]
    lines = shown or [line for piece in nearby if not piece.last for line in lines_of(piece.source)]
    numbers = [line for line in lines if re.search(r"\d\.\d|\d of \d", line)]
    if control := [line for line in numbers if CONTROL.search(line)]:
        yield "What does the control say?", first_of(control)
    for piece in here:
        if piece.kind == "table" and numbers:
            yield "Which two cells of the table should be compared?", first_of(numbers)
        if piece.kind == "code" and piece.source:
            yield "What does the code compute?", first_of(lines_of(piece.source))
    if numbers:
        yield "Which number on the slide says most, and what does it count?", first_of(numbers, 1)
    if follows := [line for line in shown if line.startswith("So ")]:
        yield "What follows, in a sentence of your own?", follows[-1]


def sayings(pieces: list[Piece], start: int, end: int) -> Iterator[str]:
    """What may be said beside a slide, the best first."""
    here = pieces[start:end]
    for piece in here:
        if piece.kind == "figure" and piece.source:
            yield f"How to read the picture: {first_of(lines_of(piece.source))}"
        if piece.kind == "table" and (line := line_of(piece.body)):
            yield f"Read a line of the table aloud: {line}"
    for piece in here:
        if piece.kind == "prose" and len(text := first_of(left_out(piece))) > SHORT:
            yield text
        if piece.kind == "code" and piece.source:
            yield f"The function: {first_of(lines_of(piece.source), 1)}"
    for piece in here:
        if piece.kind == "prose" and (
            text := emphasised(piece)
            or first_of(lines_of(piece.source.partition("**Your prediction.**")[0]))
        ):
            yield text
    for piece in [*here, *pieces[end : end + 2], *pieces[max(0, start - 2) : start]]:
        if piece.kind == "prose" and not piece.last and (text := first_of(lines_of(piece.source))):
            yield text


def note_of(
    pieces: list[Piece], start: int, end: int, before: list[Note], typed: Note | None
) -> Note:
    """The note of the slide that shows a stretch of the pieces.

    What nothing gives stays empty: the book can be built after a chapter has changed. A test of the
    course asks for a note on each slide.

    Args:
        pieces: all of the deck.
        before: the notes of the slides before this one.
        typed: what the plan has for this slide; empty parts are derived.
    """
    used = {(note.ask, note.expected) for note in before}
    earlier = {note.say for note in before}
    last = before[-1] if before else Note("", "", "")
    ask, expected = (typed.ask, typed.expected) if typed else ("", "")
    for question, reply in questions(pieces, start, end):
        fresh = (question, reply) not in used and question != last.ask and reply != last.expected
        if not ask and fresh and reply:
            ask, expected = question, reply
    say = typed.say if typed else ""
    for text in sayings(pieces, start, end):
        if not say and text not in earlier and text not in expected and expected not in text:
            say = text
    return Note(say, ask, expected)


# --- what may be left out --------------------------------------------------------------------


def skipped(ranks: list[int], minutes: int) -> set[int]:
    """Which slides of a block may go when time is short: the least needed, later ones first.

    Args:
        ranks: of each slide, how little it is needed; none of rank 0 goes, and all of rank `GOES`.

    >>> sorted(skipped([0, 3, 2, 3, 1], 6)), sorted(skipped([0, 4, 0, 4, 1], 8))
    ([1, 3], [1, 3])
    """
    most = max(1, minutes // MINUTES)
    order = sorted(range(len(ranks)), key=lambda at: (-ranks[at], -at))
    return {at for at in order[: max(ranks.count(GOES), len(ranks) - most)] if ranks[at]}


def rank(pieces: list[Piece], start: int, end: int, plan: str) -> int:
    """How little a slide is needed, from 0 to 3.

    Predictions, what answers them, and questions that the plan of the block names have 0.
    """
    here = pieces[start:end]
    kinds = {piece.kind for piece in here}
    shows = bool(kinds & {"figure", "table", "printed"})
    named = any(ask.rstrip("?") in plan for ask, _ in asked_in_prose(pieces, start, end))
    if named or any(piece.last for piece in here) or (shows and waiting(pieces, start) is not None):
        return 0
    return 1 if kinds & {"figure", "table"} else 2 if any(map(emphasised, here)) else 3
