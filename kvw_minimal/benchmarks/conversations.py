"""Conversations: questions after several turns, with several pictures.

A row of a file may hold `messages`, a list of turns in the form of chat templates:

    {"role": "user", "content": [{"type": "image", "image": "photos/ada.png"},
                                 {"type": "text", "text": "Who is this?"}]}

The last turn is the assistant's, and its text is the answer. Coefficients are measured on this
answer only.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from ..batches import render
from ..questions import Question

BETWEEN = "\x1e"  # separates the texts of a prompt: the "record separator" of ASCII
#: keys of a part that may hold a picture
PICTURE_KEYS = ("image", "image_url", "url", "path", "base64")


@dataclass(frozen=True)
class Conversation(Question):
    """A question at the end of a conversation.

    `prompt` holds all texts before the answer, separated by `BETWEEN`, and `image` holds the first
    picture. A method that replaces the name or the photo, such as the rewrite, replaces it in every
    turn.

    Attributes:
        turns: role and content types of each turn, such as `("user", ("image", "text"))`.
        more: the pictures after the first one, PNG or JPEG bytes.
    """

    turns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    more: tuple[bytes, ...] = ()

    @property
    def pictures(self) -> list[bytes]:
        """As in `Question`."""
        return [*super().pictures, *self.more]

    def messages(self, eyes: bool = True) -> list[dict]:
        """As in `Question`."""
        texts, turns = iter(self.prompt.split(BETWEEN)), []
        for role, kinds in self.turns:
            parts = [
                {"type": kind} | ({"text": next(texts)} if kind == "text" else {}) for kind in kinds
            ]
            text = "\n".join(part["text"] for part in parts if "text" in part)
            turns.append({"role": role, "content": parts if eyes else text})
        return turns


def shown(text: Any) -> str:
    """A text of a user's file for an error message: on one line, at most 40 characters."""
    return repr(str(text))[1:-1][:40]


def _part(part: Any, images: Iterator, load_picture: Callable[[Any], bytes]) -> str | bytes:
    """Text or picture of one part of a turn."""
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
    if kind not in ("image", "image_url") or len(part) > 1 or set(part) - set(PICTURE_KEYS):
        keys = ", ".join(map(shown, [kind, *sorted(part)]))
        raise ValueError(
            f"a part holds {keys}; write a text, or an image with its path, its base64 or its bytes"
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
    return load_picture(source)


def conversation(messages: list, images: list, load_picture: Callable[[Any], bytes]) -> dict:
    """Fields of a `Conversation` that follow from its messages, with the `answer`.

    Args:
        messages: turns of user and assistant in alternation, after an optional system turn. The
            last turn is the assistant's and holds one text.
        images: pictures for the parts without a picture, in order.
        load_picture: returns the bytes of a picture.

    Raises:
        ValueError: the messages have another form; the message says what to write.
    """
    turns, texts, pictures, extra_images = [], list[str](), list[bytes](), iter(images)
    for turn in messages:
        fields = turn if isinstance(turn, dict) else {}
        if {name for name, value in fields.items() if value is not None} != {"role", "content"}:
            raise ValueError("a turn is no object with role and content; write both")
        content = turn["content"]
        content = content if isinstance(content, list) else [content]
        parts = [_part(part, extra_images, load_picture) for part in content]
        turns.append(
            (turn["role"], tuple("text" if isinstance(part, str) else "image" for part in parts))
        )
        texts += [part for part in parts if isinstance(part, str)]
        pictures += [part for part in parts if isinstance(part, bytes)]
    roles = [role for role, _ in turns]
    speakers = roles[1:] if roles[:1] == ["system"] else roles
    if speakers != ["user", "assistant"] * max(1, len(speakers) // 2):
        listed = ", ".join(map(shown, roles))
        raise ValueError(
            f"the roles are {listed}; write user and assistant in turn, a system before "
            "them if you like, the answer last"
        )
    if turns[-1][1] != ("text",) or "text" not in turns[-2][1]:
        raise ValueError(
            "the answer is one text, and the turn before it says something; write them so"
        )
    if next(extra_images, None) is not None:
        raise ValueError("there are more images than parts to show them; take them out")
    return {
        "prompt": BETWEEN.join(texts[:-1]),
        "answer": texts[-1],
        "turns": tuple(turns[:-1]),
        "image": pictures[0] if pictures else None,
        "more": tuple(pictures[1:]),
    }


def as_messages(question: Conversation, table: bool) -> list[dict]:
    """Field `messages` of a row.

    Args:
        table: whether pictures are written as bytes; else as base64.
    """
    pictures, turns = iter(question.pictures), question.messages()
    for part in (part for turn in turns for part in turn["content"] if part["type"] == "image"):
        png = next(pictures)
        part["image"] = png if table else base64.b64encode(png).decode()
    answer = [{"type": "text", "text": question.answer}]
    return [*turns, {"role": "assistant", "content": answer}]


def check_rendered(processor, questions: Iterable[Question]) -> None:
    """Checks that the chat template of a model accepts the questions, before any measurement.

    Raises:
        ValueError: as in `render`; or the template refuses the roles or the number of turns.
    """
    for question in questions:
        try:
            render(processor, question)
        except (TemplateError, TypeError) as error:  # TypeError: from an expression in the template
            raise ValueError(
                f"the chat template of this model refuses {question.id}: {error}"
            ) from error
        if isinstance(question, Conversation) and not getattr(processor, "chat_template", None):
            raise ValueError(
                f"{question.id} is a conversation, and this model has no chat "
                "template to tell its turns apart"
            )
