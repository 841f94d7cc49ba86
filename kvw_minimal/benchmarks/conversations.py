"""Questions with something said and shown before them: several turns, several pictures.

A row of a file may hold `messages`, a list of turns as chat templates and their users write them:

    {"role": "user", "content": [{"type": "image", "image": "photos/ada.png"},
                                 {"type": "text", "text": "Who is this?"}]}

The last turn is the assistant's, and its text is the answer; only there are coefficients measured.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from ..batches import render
from ..questions import Question

BETWEEN = "\x1e"  # between the texts of a prompt: the "record separator" of ASCII
ROLES = ("system", "user", "assistant")
SOURCES = ("image", "image_url", "url", "path", "base64")  # keys under which a picture may stand


@dataclass(frozen=True)
class Conversation(Question):
    """A question at the end of a conversation.

    `prompt` holds all texts before the answer, with `BETWEEN` between them, and `image` the first
    picture: whoever puts another name or another face in their place, as the rewrite does, does so
    in every turn.

    Attributes:
        turns: role and kinds of each turn, such as `("user", ("image", "text"))`.
        more: the pictures after the first, PNG or JPEG bytes.
    """

    turns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    more: tuple[bytes, ...] = ()

    @property
    def pictures(self) -> list[bytes]:
        """As of a `Question`."""
        return [*super().pictures, *self.more]

    def messages(self, eyes: bool = True) -> list[dict]:
        """As of a `Question`."""
        texts, told = iter(self.prompt.split(BETWEEN)), []
        for role, kinds in self.turns:
            parts = [
                {"type": kind} | ({"text": next(texts)} if kind == "text" else {}) for kind in kinds
            ]
            plain = "\n".join(part["text"] for part in parts if "text" in part)
            told.append({"role": role, "content": parts if eyes else plain})
        return told


def shown(word: Any) -> str:
    """A word of somebody's file as it may stand in a message: on one line, and not long."""
    return repr(str(word))[1:-1][:40]


def _part(part: Any, images: Iterator, read: Callable[[Any], bytes]) -> str | bytes:
    """The text or the picture of one part."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise ValueError(f"a part of a content is {part!r:.40}; write a text or an object")
    part = {name: value for name, value in part.items() if value is not None}
    kind = part.pop("type", "text" if "text" in part else None)
    if kind == "text" and isinstance(part.get("text"), str) and set(part) == {"text"}:
        if not part["text"].strip() or BETWEEN in part["text"]:
            raise ValueError(f"a text is {part['text']!r:.40}; fill it, without {BETWEEN!r}")
        return part["text"]
    if kind not in ("image", "image_url") or len(part) > 1 or set(part) - set(SOURCES):
        held = ", ".join(map(shown, [kind, *sorted(part)]))
        raise ValueError(
            f"a part holds {held}; write a text, or an image with its path, its base64 or its bytes"
        )
    source = next(iter(part.values()), None)
    if isinstance(source, dict) and set(source) == {"url"}:  # as OpenAI writes it
        source = source["url"]
    source = next(images, None) if source is None else source
    if not isinstance(source, str | bytes | dict):
        raise ValueError(
            "an image is missing; write its path, its base64 or its bytes, or add it "
            "to the list images"
        )
    return read(source)


def conversation(messages: list, images: list, read: Callable[[Any], bytes]) -> dict:
    """The fields of a `Conversation` that messages decide, and its `answer`.

    Args:
        messages: turns, of which the first may be the system's; user and assistant take turns, and
            the assistant has the last word, in one text.
        images: pictures of the parts that hold none, in order.
        read: makes bytes of a picture.

    Raises:
        ValueError: anything else; the message says what to write.
    """
    turns, texts, pictures, rest = [], list[str](), list[bytes](), iter(images)
    for turn in messages:
        own = turn if isinstance(turn, dict) else {}
        if {name for name, value in own.items() if value is not None} != {"role", "content"}:
            raise ValueError("a turn is no object with role and content; write both")
        content = turn["content"]
        content = content if isinstance(content, list) else [content]
        parts = [_part(part, rest, read) for part in content]
        turns.append(
            (turn["role"], tuple("text" if isinstance(part, str) else "image" for part in parts))
        )
        texts += [part for part in parts if isinstance(part, str)]
        pictures += [part for part in parts if isinstance(part, bytes)]
    roles = [role for role, _ in turns]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if talk != ["user", "assistant"] * max(1, len(talk) // 2):
        said = ", ".join(map(shown, roles))
        raise ValueError(
            f"the roles are {said}; write user and assistant in turn, a system before "
            "them if you like, the answer last"
        )
    if turns[-1][1] != ("text",) or "text" not in turns[-2][1]:
        raise ValueError(
            "the answer is one text, and the turn before it says something; write them so"
        )
    if next(rest, None) is not None:
        raise ValueError("there are more images than parts to show them; take them out")
    return {
        "prompt": BETWEEN.join(texts[:-1]),
        "answer": texts[-1],
        "turns": tuple(turns[:-1]),
        "image": pictures[0] if pictures else None,
        "more": tuple(pictures[1:]),
    }


def as_messages(question: Conversation, table: bool) -> list[dict]:
    """The `messages` of a row.

    Args:
        table: pictures as bytes; else as base64.
    """
    pictures, told = iter(question.pictures), question.messages()
    for part in (part for turn in told for part in turn["content"] if part["type"] == "image"):
        png = next(pictures)
        part["image"] = png if table else base64.b64encode(png).decode()
    answer = [{"type": "text", "text": question.answer}]
    return [*told, {"role": "assistant", "content": answer}]


def check_rendered(processor, questions: Iterable[Question]) -> None:
    """Refuse what the chat template of a model cannot take, before anything is measured.

    Raises:
        ValueError: as `render`; or roles, or a number of turns, that it does not know.
    """
    for question in questions:
        try:
            render(processor, question)
        except (TemplateError, TypeError) as error:  # the latter in what a template computes
            raise ValueError(
                f"the chat template of this model refuses {question.id}: {error}"
            ) from error
        if isinstance(question, Conversation) and not getattr(processor, "chat_template", None):
            raise ValueError(
                f"{question.id} is a conversation, and this model has no chat "
                "template to tell its turns apart"
            )
