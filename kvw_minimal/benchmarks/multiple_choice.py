"""Multiple choice: options behind a question, and which of them an answer names."""

import re
from collections.abc import Iterable
from dataclasses import replace

from ..questions import Question
from ..scores import mentions, metric

LETTERS = "ABCD"
EMPHASIS = re.compile(r"[*_`]+")
#: "A" before a word that no article stands before, or after "option", is the letter: "Option A is"
ARTICLE = re.compile(
    r"(?i:(?<!option )(?<!choice ))\bA(?= [a-z])"
    r"(?! (?:and|as|because|for|is|or|since|was|which|with)\b)"
)


def whole_words(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of some texts where they are no part of a longer word."""
    longest = sorted(texts, key=len, reverse=True)  # first, or "Ann Lee" hides "Ann Lee Vik"
    return re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in longest))


def letter_question(question: Question) -> Question:
    """The same question with options A to D behind it, to be answered by a letter."""
    options = zip(LETTERS, question.options, strict=True)
    lines = [
        question.prompt,
        *(f"{letter}: {option}" for letter, option in options),
        "Just give ONE letter representing the answer directly.",
    ]
    letter = LETTERS[question.options.index(question.answer)]
    return replace(question, prompt="\n".join(lines), answer=letter, value=letter, options=())


def with_options(question: Question) -> Question:
    """CLEAR's way to offer options: `A. ...`, one a line, behind the question."""
    lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options)]
    return replace(question, prompt="\n".join([question.prompt, *lines]))


def parse_letter(said: str) -> str | None:
    """The letter that an answer names, or None.

    Marks of emphasis are no part of an answer, and a capital A before a lower-case word is an
    article.

    >>> [parse_letter(said) for said in ("C", "Correct answer: C", "**C**", "(b)", "A man", "")]
    ['C', 'C', 'C', 'B', None, None]
    >>> [parse_letter(said) for said in ("Option A is right.", "The answer is A man in a hat")]
    ['A', None]
    """
    said = ARTICLE.sub("a", EMPHASIS.sub("", said)).strip()
    alone = re.fullmatch(r"[(\[]?([A-Da-d])[)\].:]?", said)
    if alone:
        return alone[1].upper()
    named = re.findall(r"(?i:answer|option|choice)(?i: is)?\s*:?\s*[(\[]?([A-D])\b", said)
    named += re.findall(r"^[(\[]?([A-D])[)\].:](?=\s)", said)
    return named[-1].upper() if named else None


def parse_choice(said: str, options: tuple[str, ...]) -> int | None:
    """Which option an answer names, by its letter or by its words; None if none or several.

    >>> options = ("Ann Lee", "Ann Lee Vik", "José Vik")
    >>> [parse_choice(said, options) for said in ("B", "It is José Vik.", "Ann Lee Vik", "A man")]
    [1, 2, 1, None]
    """
    alone = re.fullmatch(r"\W*([A-Z])\W*", said)
    letter = parse_letter(said) or (alone[1] if alone else None)
    if letter and ord(letter) - ord("A") < len(options):
        return ord(letter) - ord("A")
    named = [i for i, option in enumerate(options) if mentions(said, option)]
    whole = [
        i
        for i in named  # "Ann Lee" is also a part of "Ann Lee Vik"
        if not any(i != k and mentions(options[k], options[i]) for k in named)
    ]
    return whole[0] if len(whole) == 1 else None


def chosen(said: str, question: Question) -> str | None:
    """What was chosen: one of the options, or of a `letter_question` the letter."""
    if not question.options:
        return parse_letter(said)
    number = parse_choice(said, question.options)
    return None if number is None else question.options[number]


@metric("choice")
def choice(said: str, question: Question) -> float:
    """1 if the right option was chosen, else 0; no option is wrong.

    >>> asked = Question("", "", "", "text", "Who?", "Bo", "Bo", options=("Al", "Bo", "Cy", "Di"))
    >>> [choice("B", q) for q in (asked, letter_question(asked))], choice("Nobody", asked)
    ([1.0, 1.0], 0.0)
    """
    return float(chosen(said, question) == question.answer)
