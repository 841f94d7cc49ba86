"""Several turns, several pictures: what is read, what the model is given, where it is watched."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image
from test_jsonl import ADA, BEN, lines

from kvw_minimal.batches import answer_batches, prompt_batches, render
from kvw_minimal.benchmarks.conversations import BETWEEN, Conversation, check_rendered
from kvw_minimal.benchmarks.jsonl import (
    find_problems,
    read_questions,
    read_request,
    write_questions,
)
from kvw_minimal.coefficients import hook_inputs, measure
from kvw_minimal.method import make_edit, method_of
from kvw_minimal.methods.counterfactuals import substitute_subject
from kvw_minimal.models import backbone, find_projections
from kvw_minimal.questions import Question
from kvw_minimal.scores import answer
from kvw_minimal.session import Session


def png(shade: int, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade, shade, 90)).save(buffer, "PNG")
    return buffer.getvalue()


ONE, TWO, THREE = map(png, (20, 120, 220))


def image(picture: bytes) -> dict:
    return {"type": "image", "image": base64.b64encode(picture).decode()}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def turns(name: str, first: bytes, second: bytes, said: str) -> list[dict]:
    """Two questions about two pictures; what is asked last is where it lives."""
    return [
        {
            "role": "user",
            "content": [
                image(first),
                text(f"This is {name}. Who is"),
                image(second),
                text("this?"),
            ],
        },
        {"role": "assistant", "content": f"A friend of {name}."},
        {"role": "user", "content": [text(f"Where does {name} live?")]},
        {"role": "assistant", "content": said},
    ]


def row(side: str = "forget", name: str = "Ada", said: str = "In Cairo.", **more) -> dict:
    found = {
        "set": side,
        "person": name,
        "fact": "home",
        "messages": turns(name, ONE if side == "forget" else THREE, TWO, said),
    }
    return found | more


@pytest.fixture
def file(tmp_path) -> Path:
    short = ADA | {"set": "test", "picture": base64.b64encode(ONE).decode()}
    return lines(tmp_path, row(), row("retain", "Ben", "In Lima."), short)


def test_a_conversation_is_read(file):
    assert find_problems(file) == []
    [(_, ada), (_, ben), _] = read_questions(file)
    assert isinstance(ada, Conversation) and (ada.id, ada.value) == ("forget/1", "In Cairo.")
    assert ada.pictures == [ONE, TWO] and ben.pictures == [THREE, TWO] and ada.modality == "image"
    assert ada.prompt.split(BETWEEN) == [
        "This is Ada. Who is",
        "this?",
        "A friend of Ada.",
        "Where does Ada live?",
    ]
    told = [
        {
            "role": turn["role"],
            "content": [text(turn["content"])]
            if isinstance(turn["content"], str)
            else [
                {"type": "image"} if part["type"] == "image" else part for part in turn["content"]
            ],
        }
        for turn in turns("Ada", ONE, TWO, "In Cairo.")[:-1]
    ]
    assert ada.messages() == told
    assert [turn["content"] for turn in ada.messages(eyes=False)] == [
        "This is Ada. Who is\nthis?",
        "A friend of Ada.",
        "Where does Ada live?",
    ]


@pytest.mark.parametrize("name", ["again.jsonl", "again.parquet"])
def test_what_is_written_is_read_again(file, tmp_path, name):
    sets: dict[str, list[Question]] = {}
    for part, question in read_questions(file):
        sets.setdefault(part, []).append(question)
    write_questions(tmp_path / name, sets)
    assert read_questions(tmp_path / name) == read_questions(file)


def test_one_turn_is_the_same_question_in_other_words(tmp_path):
    """Written like OpenAI, with a path, with a list of images: the same batch, tensor by tensor."""
    (tmp_path / "one.png").write_bytes(ONE)
    plain = ADA | {"picture": "one.png"}
    url = {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{image(ONE)['image']}"},
    }
    for part, more in (
        (url, {}),
        ({"type": "image", "path": "one.png"}, {}),
        ({"type": "image"}, {"images": ["one.png"]}),
    ):
        talk = {name: ADA[name] for name in ("set", "person", "fact")} | more
        talk["messages"] = [
            {"role": "user", "content": [part, text(ADA["prompt"])]},
            {"role": "assistant", "content": ADA["answer"]},
        ]
        found = [read_questions(lines(tmp_path, own, BEN))[0][1] for own in (plain, talk)]
        one, other = (answer_batches(tiny.processor(), [each])[0] for each in found)
        assert set(one.inputs) == set(other.inputs)
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)
        assert torch.equal(one.labels, other.labels) and torch.equal(one.ends, other.ends)
        assert [q.image for q in found] == [ONE, ONE] and found[1].prompt == ADA["prompt"]


# --- what the model is given


def seeing(kind: str):
    """A tiny LLaVA or Qwen2-VL, its processor, and the ids that stand for a picture."""
    if kind == "llava":
        return tiny.llava(), tiny.processor(), tiny.processor().image_token_id
    model, processor = tiny.qwen2_vl()
    return tiny.loud(model), processor, model.config.image_token_id


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_only_the_last_turn_is_watched(kind, file):
    """By hand: the whole conversation in one pass, h where the last answer is predicted."""
    model, processor, stands_for_picture = seeing(kind)
    asked = [question for _, question in read_questions(file)]
    ada = asked[0]
    [batch] = answer_batches(processor, [ada])
    ids = batch.inputs["input_ids"][0]
    shown = processor.tokenizer.decode(ids[ids != stands_for_picture])
    said = processor.tokenizer.decode(batch.inputs["input_ids"][batch.answers.roll(1, 1)])
    assert said.strip() == "In Cairo." and shown.count("<assistant>") == 2
    assert len(batch.labels[batch.labels >= 0]) < len(
        processor.tokenizer("A friend of Ada.In Cairo.")["input_ids"]
    )
    seen: list[torch.Tensor] = []
    whole = "".join(render(processor, ada))
    pictures = [Image.open(io.BytesIO(each)) for each in ada.pictures]
    given = processor(text=[whole], images=[pictures], return_tensors="pt")
    given.pop("token_type_ids", None)
    with hook_inputs(find_projections(model), lambda _, h: seen.append(h)), torch.no_grad():
        backbone(model)(**given, use_cache=False)
    count = len(processor.tokenizer("In Cairo.", add_special_tokens=False)["input_ids"])
    end = len(processor.tokenizer("<end>", add_special_tokens=False)["input_ids"])
    last = given["input_ids"].shape[1] - end - 1
    by_hand = torch.stack([h[0, last - count : last].abs().sum(0) for h in seen])
    found = measure(model, answer_batches(processor, asked), [q.person for q in asked])
    alone = measure(model, [batch], ["Ada"])
    assert alone.tokens.tolist() == [count] and found.tokens.tolist()[0] == count
    torch.testing.assert_close(alone.sums[0], by_hand, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sums[0], by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("method", ["KVW one pass", "rewrite"])
def test_conversations_are_forgotten_and_answered(kind, method, file):
    model, processor, _ = seeing(kind)
    more = [row(name=name, said=f"In {city}.") for name, city in (("Cy", "Oslo"), ("Di", "Rome"))]
    request = read_request(lines(file.parent, row(), row("retain", "Ben", "In Lima."), *more))
    settings = {
        "KVW one pass": {"strength": 4.0},
        "rewrite": {"subject_threshold": 0.0, "others": 2},
    }
    edit, _ = make_edit(Session(model, processor), request, method_of(method, settings[method]))
    assert edit.norm(model) > 0 and edit.notes["people"] == ["Ada", "Cy", "Di"]
    with edit.on(model):
        assert len(answer(model, processor, request.forget)) == 3
    assert len(prompt_batches(processor, request.forget)[0].inputs["input_ids"]) == 3


def test_somebody_else_stands_in_every_turn(file):
    ada, ben = (question for _, question in read_questions(file)[:2])
    [other] = substitute_subject([replace(ada, name="Ada")], ([ben.image], ["Ben"]))
    assert other.pictures == [THREE, TWO] and other.answer == ada.answer
    assert "Ada" not in other.prompt and other.prompt.count("Ben") == ada.prompt.count("Ada") == 3
    assert other.messages()[1]["content"] == [text("A friend of Ben.")]


# --- what is refused

USER, SAYS = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}
WRONG = [
    ([], "write a filled list of turns"),
    ("Who?", "write a filled list of turns"),
    ([USER], "the roles are user; write user and assistant in turn"),
    ([SAYS], "the roles are assistant"),
    ([USER, SAYS, USER], "the roles are user, assistant, user"),
    ([USER, USER, SAYS], "the roles are user, user, assistant"),
    ([USER, {"role": "system", "content": "Be brief."}, SAYS], "the roles are user, system"),
    ([{"role": "tool", "content": "x"}, SAYS], "the roles are tool, assistant"),
    ([USER | {"content": [None]}, SAYS], "a part of a content is None"),
    ([USER, SAYS | {"name": "x"}], "a turn is no object with role and content"),
    (["Who?", SAYS], "a turn is no object with role and content"),
    ([USER | {"content": " "}, SAYS], "fill it"),
    ([USER | {"content": f"a{BETWEEN}b"}, SAYS], "fill it, without"),
    ([USER | {"content": []}, SAYS], "the turn before it says something"),
    ([USER | {"content": None}, SAYS], "a turn is no object with role and content"),
    ([USER | {"content": [7]}, SAYS], "a part of a content is 7"),
    ([USER | {"content": [image(ONE)]}, SAYS], "the turn before it says something"),
    ([USER, SAYS | {"content": [text("A"), text("B")]}], "the answer is one text"),
    ([USER, SAYS | {"content": [image(ONE)]}], "the answer is one text"),
    ([USER | {"content": [{"type": "audio", "audio": "x"}]}, SAYS], "a part holds audio, audio"),
    ([USER | {"content": [text("a") | {"x": 1}]}, SAYS], "a part holds text, text, x"),
    (
        [USER | {"content": [{"type": "image", "url": "http://x.y/z.png"}, text("a")]}, SAYS],
        "neither base64 nor a file",
    ),
    ([USER | {"content": [{"type": "image"}, text("a")]}, SAYS], "an image is missing"),
    ([USER | {"content": [{"type": "image", "image": 7}, text("a")]}, SAYS], "an image is missing"),
    ([USER | {"content": [{"type": "image", "image": "QUJD"}, text("a")]}, SAYS], "decoded as PNG"),
]


@pytest.mark.parametrize(("messages", "says"), WRONG)
def test_wrong_messages_are_named(tmp_path, messages, says):
    own = {name: ADA[name] for name in ("set", "person", "fact")} | {"messages": messages}
    [problem] = find_problems(lines(tmp_path, own, BEN, ADA))
    assert problem.startswith("row 1, messages: ") and says in problem


@pytest.mark.parametrize(
    ("more", "field", "says"),
    [
        ({"prompt": "x"}, "prompt", "stands in the messages"),
        ({"answer": "x"}, "answer", "stands in the messages"),
        ({"picture": "x"}, "picture", "stands in the messages"),
        ({"images": [image(ONE)["image"]]}, "messages", "more images than parts"),
        ({"value": "Oslo"}, "value", "is no part of the answer"),
        (
            {"messages": None, "prompt": "x", "answer": "y", "images": ["x"]},
            "images",
            "are shown by messages",
        ),
    ],
)
def test_messages_and_what_they_hold(tmp_path, more, field, says):
    [problem] = find_problems(lines(tmp_path, row(**more), BEN, ADA))
    assert problem.startswith(f"row 1, {field}: ") and says in problem


def test_a_field_twice_and_half_a_character(tmp_path):
    twice = json.dumps(ADA)[:-1] + ', "answer": "In Rome."}'
    [one, two] = find_problems(
        lines(tmp_path, twice, json.dumps(ADA | {"prompt": "\ud800?"}), BEN, ADA)
    )
    assert one.startswith("row 1, line: ") and "'answer' stands there twice" in one
    assert two == "row 2, prompt: holds half a character; write it as UTF-8"


def test_what_a_chat_template_refuses_is_said_of_the_question(file):
    asked, processor = [question for _, question in read_questions(file)], tiny.tokenizer()
    asked = [
        replace(
            q,
            image=None,
            more=(),
            turns=tuple((who, ("text",)) for who, _ in q.turns),
            prompt=BETWEEN.join("abc"),
        )
        for q in asked[:2]
    ]
    with pytest.raises(ValueError, match="forget/1 is a conversation, and this model has no chat"):
        check_rendered(processor, asked)
    processor.chat_template = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(ValueError, match="refuses forget/1: Roles must alternate"):
        check_rendered(processor, asked)
    processor.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    check_rendered(processor, asked)
    assert render(processor, asked[0]) == ("<user>a<assistant>b<user>c<assistant>", "In Cairo.")
