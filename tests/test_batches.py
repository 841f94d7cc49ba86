"""Tokens, padding, and the mask of positions that predict an answer (off by one, on purpose)."""

from collections import Counter
from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kvw_experiments.recipes import pocket
from kvw_experiments.recipes.portraits import to_pixels
from kvw_minimal.batches import (
    IGNORED,
    Batch,
    answer_batches,
    prompt_batches,
    render,
    without_photo,
)
from kvw_minimal.methods.positions import kinds_of_positions
from kvw_minimal.zoo import assembly


@pytest.fixture(scope="module")
def processor():
    return tiny.processor()


@pytest.fixture(scope="module")
def questions(world):
    return tiny.some_questions(world)


# --- the mask


def test_predicts_is_one_position_before_the_answer():
    labels = torch.tensor(
        [[IGNORED, IGNORED, 7, 8, IGNORED, IGNORED], [IGNORED, 5, 6, IGNORED, 9, 3]]
    )
    attention = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    batch = Batch({"input_ids": labels, "attention_mask": attention}, labels, [0, 1])
    assert batch.predicts.tolist() == [
        [False, True, True, False, False, False],
        [True, True, False, True, True, False],
    ]


def test_predicts_sees_from_the_start_of_answer_to_before_the_end_of_turn(processor, questions):
    """The token at each of these positions is followed by a token of answer or end of turn."""
    tokenizer = processor.tokenizer
    for batch in answer_batches(processor, questions, batch_size=5):
        ids = batch.inputs["input_ids"]
        for i, row in enumerate(batch.rows):
            where = batch.predicts[i].nonzero().flatten()
            assert where.tolist() == list(range(where[0], where[-1] + 1))
            assert tokenizer.decode(ids[i, where[0]]) == "<assistant>"
            followers = tokenizer.decode(ids[i, where + 1])
            assert followers.strip() == f"{questions[row].answer}<end>"


def test_answers_see_the_answer_without_its_end(processor, questions):
    """The mask of the coefficients: of the labels all but the end of turn, as the authors'."""
    for batch in answer_batches(processor, questions, batch_size=5):
        for i, row in enumerate(batch.rows):
            said = batch.inputs["input_ids"][i, batch.answers[i].nonzero().flatten() + 1]
            assert processor.tokenizer.decode(said).strip() == questions[row].answer
        assert not (batch.answers & ~batch.predicts).any()
        assert torch.equal(replace(batch, ends=None).answers, batch.predicts)


def test_an_answer_that_the_template_changes_is_refused(processor, questions):
    whole = processor.chat_template
    processor.chat_template = whole.replace("part['text'] }}", "part['text'] | upper }}")
    assert processor.chat_template != whole
    try:
        with pytest.raises(ValueError, match=f"no answer token found for {questions[0].id}"):
            answer_batches(processor, questions[:1])
    finally:
        processor.chat_template = whole


# --- batches


def test_answers_are_padded_on_the_right_and_prompts_on_the_left(processor, questions):
    for batch in answer_batches(processor, questions):
        mask = batch.inputs["attention_mask"]
        assert (mask[:, 0] == 1).all() and (mask.diff(dim=1) <= 0).all()
    for batch in prompt_batches(processor, questions):
        mask = batch.inputs["attention_mask"]
        assert (mask[:, -1] == 1).all() and (mask.diff(dim=1) >= 0).all()
        last = processor.tokenizer.convert_tokens_to_ids("<assistant>")
        assert (batch.inputs["input_ids"][:, -1] == last).all()
        assert not batch.predicts.any()


@pytest.mark.parametrize("encode", [answer_batches, prompt_batches])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_every_question_is_in_one_batch_of_its_modality(processor, questions, encode, batch_size):
    batches = encode(processor, questions, batch_size)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(questions)))
    for batch in batches:
        assert 0 < len(batch.rows) <= batch_size
        assert len(batch.rows) == len(batch.labels) == len(batch.inputs["input_ids"])
        assert len({questions[row].modality for row in batch.rows}) == 1
        assert ("pixel_values" in batch.inputs) == (questions[batch.rows[0]].modality == "image")


def test_each_question_gets_its_own_picture(processor, questions):
    by_row = {}
    for batch in answer_batches(processor, questions, 5):
        if "pixel_values" in batch.inputs:
            by_row |= dict(zip(batch.rows, batch.inputs["pixel_values"], strict=True))
    assert set(by_row) == {row for row, q in enumerate(questions) if q.modality == "image"}
    for row, pixels in by_row.items():
        picture = to_pixels(questions[row].image)
        alone = processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(pixels, alone)


def test_without_photo_shows_the_same_grey_picture_to_image_questions_only(questions):
    blank = without_photo(questions)
    assert len(blank) == sum(q.modality == "image" for q in questions)
    assert len({q.image for q in blank}) == 1
    assert set(to_pixels(blank[0].image).ravel().tolist()) == {128}
    assert {q.id for q in blank} == {q.id for q in questions if q.image is not None}


# --- other models


def test_a_plain_tokenizer_gets_plain_text(questions):
    plain = tiny.tokenizer()
    text = [q for q in questions if q.modality == "text"]
    assert render(plain, text[0]) == (f"{text[0].prompt} ", f"{text[0].answer}<end>")


def test_a_model_without_eyes_refuses_pictures(processor, questions):
    shown = next(q for q in questions if q.modality == "image")
    with pytest.raises(ValueError, match=f"{shown.id} shows a picture, but this model has no eyes"):
        answer_batches(processor.tokenizer, [shown])


def test_a_text_model_with_a_template_of_its_own(questions):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    text = [q for q in questions if q.modality == "text"]
    for batch in answer_batches(tokenizer, text):
        for i, row in enumerate(batch.rows):
            answer = batch.labels[i][batch.labels[i] != IGNORED]
            assert tokenizer.decode(answer).strip() == f"{text[row].answer}<end>"


def test_a_beginning_of_text_that_the_template_writes_is_not_written_twice(questions):
    """A tokenizer that adds <s> by itself meets a template that has it: one is enough."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    start = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", start)]
    )
    assert tokenizer("Who?")["input_ids"][0] == start
    tokenizer.chat_template = (
        "<s>{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    text = [q for q in questions if q.modality == "text"]
    for encode in (answer_batches, prompt_batches):
        for batch in encode(tokenizer, text):
            assert Counter((batch.inputs["input_ids"] == start).sum(1).tolist()) == {1: len(text)}


BORDER = (
    "{% for m in messages %}{{ m.role + ': ' if m.role == 'assistant' else '' }}{{ m.content }}"
)
BORDER += "{{ '</s>' if m.role == 'assistant' else ' ' }}{% endfor %}"
BORDER += "{{ 'assistant: ' if add_generation_prompt else '' }}"


def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE: a space belongs to the word behind it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["</s>"])
    made.train_from_iterator(["assistant: In Delhi. Where? x In Delhi."] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", chat_template=BORDER
    )


def test_a_template_may_end_in_a_space(questions):
    """The space then belongs to the first token of the answer, in whatever way they merge."""
    tokenizer = byte_level()
    asked = replace(questions[1], image=None, prompt="Where?", answer="In Delhi.", value="Delhi")
    [batch] = answer_batches(tokenizer, [asked])
    ids = batch.inputs["input_ids"][0]
    said = tokenizer.convert_ids_to_tokens(ids[batch.answers[0].nonzero().flatten() + 1].tolist())
    assert said[0] == "ĠIn" and "".join(said) == "ĠInĠDelhi."
    fact = kinds_of_positions(tiny.llava(), tokenizer, batch, [asked])["fact"][0]
    assert tokenizer.decode(ids[fact.nonzero().flatten() + 1]).startswith(" Delhi")
    tokenizer.chat_template = BORDER.replace("': '", "': In De'").replace(
        "assistant: '", "assistant: In De'"
    )
    with pytest.raises(ValueError, match="' Delhi' crosses the border"):
        answer_batches(tokenizer, [replace(asked, answer="lhi.", value="lhi")])


# --- bad input


@pytest.mark.parametrize("encode", [answer_batches, prompt_batches])
def test_no_questions(processor, encode):
    with pytest.raises(ValueError, match="no questions"):
        encode(processor, [])


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
def test_an_empty_answer_is_named(processor, questions, answer):
    broken = replace(questions[1], answer=answer)
    with pytest.raises(ValueError, match=f"no answer token found for {broken.id}"):
        answer_batches(processor, [questions[0], broken])


def test_a_template_that_rewrites_the_prompt_is_refused(questions):
    processor = pocket.build_processor(tiny.tokenizer())
    processor.chat_template = "{{ messages | length }}" + assembly.CHAT
    with pytest.raises(ValueError, match=f"changes the prompt of {questions[1].id}"):
        answer_batches(processor, [questions[1]])


@pytest.mark.parametrize("encode", [answer_batches, prompt_batches])
@pytest.mark.parametrize("end", [0, 30, -300])
def test_a_corrupt_picture_is_named(processor, questions, encode, end):
    broken = replace(questions[0], image=questions[0].image[:end])
    with pytest.raises(ValueError, match=f"the picture of {broken.id} cannot be decoded"):
        encode(processor, [questions[2], broken])
