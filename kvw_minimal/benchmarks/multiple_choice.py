"""Multiple choice: questions with options, and the option that an answer names."""

import re
from collections.abc import Iterable
from dataclasses import replace

from ..questions import Question
from ..scores import mentions, metric

LETTERS = "ABCD"
EMPHASIS = re.compile(r"[*_`]+")
#: the article "A"; after "option", or before a word such as "is", "A" is a letter: "Option A is"
ARTICLE = re.compile(
    r"(?i:(?<!option )(?<!choice ))\bA(?= [a-z])"
    r"(?! (?:and|as|because|for|is|or|since|was|which|with)\b)"
)


def whole_words(texts: Iterable[str]) -> re.Pattern[str]:
    """Pattern that finds any of the texts as whole words."""
    longest = sorted(texts, key=len, reverse=True)  # otherwise "Ann Lee" hides "Ann Lee Vik"
    return re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in longest))


def letter_question(question: Question) -> Question:
    """The question with its options A to D appended, and a letter as its answer."""
    options = zip(LETTERS, question.options, strict=True)
    lines = [
        question.prompt,
        *(f"{letter}: {option}" for letter, option in options),
        "Just give ONE letter representing the answer directly.",
    ]
    letter = LETTERS[question.options.index(question.answer)]
    return replace(question, prompt="\n".join(lines), answer=letter, value=letter, options=())


def with_options(question: Question) -> Question:
    """The question with its options appended as in CLEAR: `A. ...`, one per line."""
    lines = [f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(question.options)]
    return replace(question, prompt="\n".join([question.prompt, *lines]))


def parse_letter(text: str) -> str | None:
    """The letter that an answer names, or None.

    Marks of emphasis are ignored. A capital A before a lower-case word is an article.

    >>> [parse_letter(text) for text in ("C", "Correct answer: C", "**C**", "(b)", "A man", "")]
    ['C', 'C', 'C', 'B', None, None]
    >>> [parse_letter(text) for text in ("Option A is right.", "The answer is A man in a hat")]
    ['A', None]
    """
    text = ARTICLE.sub("a", EMPHASIS.sub("", text)).strip()
    single = re.fullmatch(r"[(\[]?([A-Da-d])[)\].:]?", text)
    if single:
        return single[1].upper()
    letters = re.findall(r"(?i:answer|option|choice)(?i: is)?\s*:?\s*[(\[]?([A-D])\b", text)
    letters += re.findall(r"^[(\[]?([A-D])[)\].:](?=\s)", text)
    return letters[-1].upper() if letters else None


def parse_choice(text: str, options: tuple[str, ...]) -> int | None:
    """Index of the option that an answer names by letter or by text; None if none or several.

    >>> options = ("Ann Lee", "Ann Lee Vik", "José Vik")
    >>> [parse_choice(text, options) for text in ("B", "It is José Vik.", "Ann Lee Vik", "A man")]
    [1, 2, 1, None]
    """
    single = re.fullmatch(r"\W*([A-Z])\W*", text)
    letter = parse_letter(text) or (single[1] if single else None)
    if letter and ord(letter) - ord("A") < len(options):
        return ord(letter) - ord("A")
    mentioned = [i for i, option in enumerate(options) if mentions(text, option)]
    unambiguous = [
        i
        for i in mentioned  # "Ann Lee" is also a part of "Ann Lee Vik"
        if not any(i != k and mentions(options[k], options[i]) for k in mentioned)
    ]
    return unambiguous[0] if len(unambiguous) == 1 else None


def chosen_option(text: str, question: Question) -> str | None:
    """The chosen option; for a `letter_question`, the chosen letter; None if neither is named."""
    if not question.options:
        return parse_letter(text)
    number = parse_choice(text, question.options)
    return None if number is None else question.options[number]


@metric("choice")
def choice(text: str, question: Question) -> float:
    """1 if the answer names the right option, else 0, also if it names none.

    >>> bo = Question("", "", "", "text", "Who?", "Bo", "Bo", options=("Al", "Bo", "Cy", "Di"))
    >>> [choice("B", q) for q in (bo, letter_question(bo))], choice("Nobody", bo)
    ([1.0, 1.0], 0.0)
    """
    return float(chosen_option(text, question) == question.answer)
