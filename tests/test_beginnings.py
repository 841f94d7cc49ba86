"""What questions have in common is read once, and every number stays as it was."""

import operator
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvw_experiments import bench
from kvw_minimal import beginnings, scores
from kvw_minimal.batches import IGNORED, Batch, answer_batches, prompt_batches
from kvw_minimal.beginnings import plainly
from kvw_minimal.coefficients import measure
from kvw_minimal.models import find_projections
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import load

WORDS_ONLY = ("llama", "gpt2", "opt", "phi")
PLAIN = ("mllama", "gemma3", "paligemma")  # read the plain way


def is_plain(model, batches: list[Batch]) -> bool:
    """Whether batches come out as they went in."""
    found = list(beginnings.share(model, batches))
    return len(found) == len(batches) and all(map(operator.is_, found, batches))


def tokens_read(model, work) -> tuple[object, int]:
    """What comes of some work, and how many tokens the first FFN is given, padding included."""
    read, projection = [], next(iter(find_projections(model).values()))
    forward = projection.forward
    projection.forward = lambda h: read.append(h.shape[:-1].numel()) or forward(h)
    try:
        return work(), sum(read)
    finally:
        projection.forward = forward


def check_same(model, processor, questions: list[Question]) -> None:
    """Read, said and measured in both ways, by far fewer tokens in one."""
    read, asked = answer_batches(processor, questions, 16), prompt_batches(processor, questions, 16)
    people = [question.person for question in questions]

    def work():
        forced = scores.read(model, read)
        said = scores.generate(model, asked, processor, 6)
        return forced, said, measure(model, read, people)

    (forced, said, measured), few = tokens_read(model, work)
    with plainly():
        (plain, told, known), many = tokens_read(model, work)
    assert np.abs(forced.logprob - plain.logprob).max() < 1e-5
    assert (forced.exact == plain.exact).all() and (forced.tokens == plain.tokens).all()
    assert said == told and any(told)
    assert bench.difference(measured, known) < 1e-5
    assert few < 0.75 * many


@pytest.fixture(scope="module")
def shown() -> list[Question]:
    """Six questions about each of eight photos."""
    return bench.question_sets(load_people(), 48)["image"]


def chosen_between(questions: list[Question]) -> list[Question]:
    """Each question with each of its options for an answer."""
    return [replace(q, id=o, answer=o) for q in questions for o in q.options]


# --- equal -------------------------------------------------------------------------------------


def test_the_same_on_pocket(shown):
    model, processor = load("pocket")
    known = about(load_people(), list(load_people().people)[:1], modalities=("text",))
    check_same(model, processor, shown[:24] + chosen_between(known[:7]))


@pytest.mark.slow
def test_the_same_on_smol(shown):
    check_same(*load("smol"), shown[:6])


@pytest.mark.parametrize("make", [lambda: (tiny.llava(), tiny.processor()), tiny.qwen2_vl])
def test_the_same_through_a_processor(make, shown):
    model, processor = make()
    check_same(tiny.loud(model), processor, shown[:24])


def test_the_same_without_eyes():
    words = tiny.tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **tiny.LANGUAGE)).eval()
    model.generation_config.pad_token_id = words.pad_token_id
    known = about(load_people(), list(load_people().people)[:1], modalities=("text",))
    check_same(tiny.loud(model), words, chosen_between(known))


def test_the_same_words_about_another_photo_are_another_beginning(shown):
    first, other = shown[0], shown[-1]
    twins = [first, replace(first, id="twin", image=other.image)] * 8
    model, batches = tiny.llava(), answer_batches(tiny.processor(), twins)
    forced = scores.read(model, batches)
    with plainly():
        assert forced.logprob == pytest.approx(scores.read(model, batches).logprob, abs=1e-5)
    assert forced.logprob[0] != pytest.approx(forced.logprob[1], abs=1e-4)


def family(architecture: str) -> list[Batch]:
    """Two photos (or none) with six questions each, of 9 to 14 tokens that begin alike."""
    batches = []
    for photo in range(2):
        kind = () if architecture in WORDS_ONLY else (architecture,)
        make = tiny.picture_batch if kind else tiny.random_batch
        one, several = make(*kind, 1, 14, seed=photo * len(kind)), make(*kind, 6, 14)
        inputs = {
            name: torch.cat([x] * 6) if name != "attention_mask" else several.inputs[name]
            for name, x in one.inputs.items()
        }
        for row, ids in enumerate(inputs["input_ids"]):
            end = int(inputs["attention_mask"][row].sum())
            ids[end:] = 0
            ids[end - 4 : end] = torch.arange(5, 9) + 4 * row + 24 * photo
            several.labels[row, end - 2 : end] = ids[end - 2 : end]
        batches.append(Batch(inputs, several.labels, list(range(6 * photo, 6 * photo + 6))))
    return batches


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", [*WORDS_ONLY, *tiny.KINDS])
def test_each_architecture_is_equal_or_read_plainly(architecture, attention):
    model, batches = tiny.build(architecture), family(architecture)
    model.set_attn_implementation(attention)
    assert is_plain(model, batches) == (architecture in PLAIN)
    if architecture in PLAIN:
        return
    forced = scores.read(model, batches)
    with plainly():
        plain = scores.read(model, batches)
    assert np.abs(forced.logprob - plain.logprob).max() < 1e-5
    assert len(set(plain.logprob.round(4))) == 12


def test_every_listed_model_is_tested():
    tested = {tiny.build(name).config.model_type for name in (*WORDS_ONLY, *tiny.KINDS)}
    assert set(beginnings.MODELS) <= tested


# --- what is saved -----------------------------------------------------------------------------


def test_of_several_answers_the_whole_prompt_is_read_once(shown):
    model, asked = tiny.llava(), chosen_between(shown[:6])
    batches = answer_batches(tiny.processor(), asked)
    (batch,) = beginnings.share(model, batches)
    assert batch.inputs[beginnings.CACHE].get_seq_length() > 20
    assert batch.labels.shape[1] == batch.predicts.sum(1).max() + 1
    assert batch.predicts[:, 0].all() and sorted(batch.rows) == list(range(24))


def test_prompts_that_differ_in_one_token_are_two_beginnings():
    """Two answers to each of two prompts, of which the last token but one tells them apart."""
    model = tiny.loud(tiny.build("llama"))
    prompt = torch.arange(5, 25)
    ids = torch.stack(
        [torch.cat([prompt, torch.tensor([40 + i // 2, 30, 60 + i])]) for i in range(4)]
    )
    labels = torch.full_like(ids, IGNORED)
    labels[:, -1] = ids[:, -1]
    batch = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, [0, 1, 2, 3])
    (rest,) = beginnings.share(model, [batch])
    assert rest.labels.shape[1] < 4  # hardly anything but the answer is left to read
    with plainly():
        plain = scores.read(model, [batch]).logprob
    np.testing.assert_allclose(scores.read(model, [batch]).logprob, plain, atol=1e-5)


# --- when it is read plainly -------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.bfloat16(),
        lambda model: model.train(),
        lambda model: model.lm_head.register_forward_hook(lambda *_: None),
        lambda model: model.model.language_model.register_forward_pre_hook(lambda *_: None),
        lambda model: model.config.text_config.update(
            {"rope_parameters": {"rope_type": "dynamic"}}
        ),
        lambda model: model.config.text_config.update(
            {"layer_types": ["sliding_attention"] * 3, "sliding_window": 4}
        ),
        lambda model: model.config.text_config.update({"model_type": "mistral"}),
    ],
    ids=["half", "training", "hook", "hook before", "rope", "window", "another decoder"],
)
def test_what_is_not_shown_to_be_equal_is_read_plainly(shown, change):
    model, batches = tiny.llava(), answer_batches(tiny.processor(), shown[:6])
    assert not is_plain(model, batches)
    change(model)
    assert is_plain(model, batches)


def test_batches_of_another_kind_are_read_plainly(shown):
    """They may ask for other positions than those of answers: chapter 4 makes such."""

    class Whole(Batch):
        answers = property(lambda self: self.inputs["attention_mask"].bool())

    batches = answer_batches(tiny.processor(), shown[:6])
    assert not is_plain(tiny.llava(), batches)
    assert is_plain(tiny.llava(), [Whole(**vars(batch)) for batch in batches])


def test_edits_between_two_calls_are_read(shown):
    """Nothing is kept: what was read of a photo before its weights changed is read again."""
    model, batches = tiny.loud(tiny.llava()), answer_batches(tiny.processor(), shown)
    before = scores.read(model, batches).logprob
    next(iter(find_projections(model).values())).weight.data.mul_(-1)
    after = scores.read(model, batches).logprob
    with plainly():
        assert after == pytest.approx(scores.read(model, batches).logprob, abs=1e-5)
    assert not np.allclose(before, after, atol=1e-2)


def test_two_pictures_a_question_are_read_plainly(shown):

    class Two(Question):
        pictures = property(lambda self: [self.image, shown[-1].image])

    asked = [Two(**vars(question)) for question in shown[:6]]
    batches = answer_batches(tiny.processor(), asked)
    assert is_plain(tiny.llava(), batches)


def test_a_picture_that_ends_the_prompt_is_read_plainly():
    """The first word of the answer is predicted by the picture's last piece."""
    model, batches = tiny.build("llava_clip"), family("llava_clip")
    assert not is_plain(model, batches)
    for batch in batches:
        batch.labels[:, 17:] = batch.inputs["input_ids"][:, 17:]
    assert is_plain(model, batches)


def test_a_picture_without_a_place_is_read_plainly():
    """Where no token stands for the picture, nobody knows behind which one it ends."""
    model, batches = tiny.build("llava_clip"), family("llava_clip")[:1]
    assert not is_plain(model, batches)
    model.config.image_token_id = None
    assert is_plain(model, batches)


@pytest.mark.parametrize("how", [{"repetition_penalty": 1.05}, {"no_repeat_ngram_size": 3}])
def test_decoding_that_looks_at_the_prompt_is_plain(shown, how):
    model, processor = tiny.llava(), tiny.processor()
    assert not is_plain(model, prompt_batches(processor, shown))
    model.generation_config.update(**how)
    assert is_plain(model, prompt_batches(processor, shown))
    assert not is_plain(model, answer_batches(processor, shown))
