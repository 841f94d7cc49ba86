"""One question with a picture, from finding the FFNs to generating, in each architecture."""

import pytest
import tiny
import torch

from kvw_minimal.batches import Batch, answer_batches, prompt_batches
from kvw_minimal.coefficients import hook_inputs, measure
from kvw_minimal.models import find_projections
from kvw_minimal.strangers.people import load_people

TEXT_ONLY = ("llama", "gpt2", "opt", "phi")
PER_TOKEN = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "mm_token_type_ids",
    "cross_attention_mask",
)
every = pytest.mark.parametrize("architecture", [*tiny.KINDS, *TEXT_ONLY])
seeing = pytest.mark.parametrize("architecture", tiny.KINDS)


def some_batch(architecture: str, rows: int = 4, seed: int = 0):
    if architecture in TEXT_ONLY:
        return tiny.random_batch(rows, seed=seed)
    return tiny.picture_batch(architecture, rows, seed=seed)


def alone(batch, row: int) -> dict[str, torch.Tensor]:
    """What one question looks like to the model without the others and their padding."""
    length = int(batch.inputs["attention_mask"][row].sum())
    inputs = {name: x.chunk(len(batch.rows))[row] for name, x in batch.inputs.items()}
    return {name: x[:, :length] if name in PER_TOKEN else x for name, x in inputs.items()}


@seeing
def test_the_picture_is_seen(architecture):
    """Another picture, other coefficients; in layer 0 a LLaVA's answer hears of it already."""
    model, batch = tiny.build(architecture), some_batch(architecture)
    with torch.no_grad():  # Mllama and Gemma 3 begin with the eye closed: all zeros
        for name, parameter in model.named_parameters():
            if name.endswith(("cross_attn_attn_gate", "mm_input_projection_weight")):
                parameter.fill_(0.5)
    one = measure(model, [batch], list("abac")).pooled()
    batch.inputs["pixel_values"] = batch.inputs["pixel_values"].flip(0)
    other = measure(model, [batch], list("abac")).pooled()
    change = ((one - other).abs() / one.amax(-1, keepdim=True)).amax(-1)  # [layers]
    assert (change[1:] > 1e-5).all()


@torch.no_grad()
def called(model, ask) -> torch.Tensor:
    """What goes into each output projection while something is asked, `[layers, T, d_ff]`."""
    seen: list[list[torch.Tensor]] = [[] for _ in range(tiny.LAYERS)]
    with hook_inputs(find_projections(model), lambda row, h: seen[row].append(h.flatten(0, -2))):
        ask()
    return torch.stack([torch.cat(each) for each in seen])


def continued(architecture: str, prompt: dict, said: torch.Tensor) -> dict[str, torch.Tensor]:
    """The inputs of a prompt with an answer behind it, as somebody would write them who knows."""
    later = {
        "input_ids": said,
        "attention_mask": 1,
        "cross_attention_mask": 1,
        "mm_token_type_ids": 0,
        "token_type_ids": int(architecture == "paligemma"),
    }
    whole = dict(prompt)
    for name, tensor in prompt.items():
        if name in PER_TOKEN:
            more = tensor[:, -1:].expand(-1, said.shape[1], *tensor.shape[2:]).clone()
            more[:] = later[name]
            whole[name] = torch.cat([tensor, more], 1)
    return whole


@every
def test_coefficients_are_those_of_generation(architecture):
    """Read behind the question, or said by the model itself from its cache: the same vectors."""
    model = tiny.loud(tiny.build(architecture, seed=1))
    inputs = alone(some_batch(architecture, rows=1), 0)
    prompt = {name: x[:, :-2] if name in PER_TOKEN else x for name, x in inputs.items()}
    length, said = prompt["input_ids"].shape[1], []

    def generate():
        made = model.generate(
            **prompt,
            max_new_tokens=3,
            do_sample=False,
            pad_token_id=0,
            suppress_tokens=[0, tiny.PICTURE],
            eos_token_id=None,
        )
        said.append(made[:, length:])

    saying = called(model, generate)
    given = continued(architecture, prompt, said[0])
    reading = called(model, lambda: model(**given))
    assert said[0].shape == (1, 3) and saying.shape[1] == length + 2
    torch.testing.assert_close(saying, reading[:, : length + 2], rtol=1e-4, atol=1e-4)
    labels = torch.full_like(given["input_ids"], -100)
    labels[0, length:] = said[0]
    measured = measure(model, [Batch(given, labels, [0])], ["a"])
    wanted = saying[:, length - 1 :].abs().sum(1)
    torch.testing.assert_close(measured.sums[0], wanted, rtol=1e-4, atol=1e-4)


def test_without_marks_a_prompt_that_is_read_as_a_whole_is_refused():
    """PaliGemma would let the question see the answer; with marks it is measured as above."""
    model, batch = tiny.build("paligemma"), tiny.picture_batch("paligemma")
    whole = measure(model, [batch], list("abac"))
    assert (whole.tokens == torch.tensor([4.0, 2, 2])).all()
    del batch.inputs["token_type_ids"]
    with pytest.raises(ValueError, match="PaliGemma.* lets a token see those behind it"):
        measure(model, [batch], list("abac"))


def test_a_processor_of_such_prompts_is_refused(monkeypatch):
    processor = tiny.processor()
    names = property(lambda self: ["input_ids", "token_type_ids", "labels"])
    monkeypatch.setattr(type(processor), "model_input_names", names)
    for encode in (answer_batches, prompt_batches):
        with pytest.raises(ValueError, match="PaliGemma reads a prompt as a whole"):
            encode(processor, tiny.some_questions(load_people(), 1))


def test_pieces_of_a_picture_see_each_other():
    """Gemma 3: the marks of its processor reach the model, in the prompt and behind it."""
    model, processor = tiny.gemma3()
    questions = [q for q in tiny.some_questions(load_people(), 2) if q.pictures]
    for encode in (answer_batches, prompt_batches):
        for batch in encode(processor, questions, 3):
            pieces = batch.inputs["input_ids"] == processor.tokenizer.image_token_id
            assert torch.equal(batch.inputs["token_type_ids"] == 1, pieces)
            assert (pieces.sum(1) == 4).all()
    people = [q.person for q in questions]
    whole = measure(model, answer_batches(processor, questions, 3), people)
    alone = measure(model, answer_batches(processor, questions, 1), people)
    torch.testing.assert_close(whole.sums, alone.sums, rtol=1e-4, atol=1e-4)
    blind = answer_batches(processor, questions, 3)
    for batch in blind:
        del batch.inputs["token_type_ids"]
    gap = (measure(model, blind, people).sums - whole.sums).abs() / whole.sums.abs().amax(-1, True)
    assert gap[:, 1:].max() > 1e-3
    words = [q for q in tiny.some_questions(load_people(), 1) if not q.pictures]
    assert "token_type_ids" not in answer_batches(processor, words)[0].inputs


def test_cross_attention_layers_are_layers_like_others():
    """Mllama skips them where there is no picture: there their vectors are never called."""
    model = tiny.build("mllama")
    assert [type(layer).__name__ for layer in model.model.language_model.layers] == [
        "MllamaSelfAttentionDecoderLayer",
        "MllamaCrossAttentionDecoderLayer",
        "MllamaSelfAttentionDecoderLayer",
    ]
    read = measure(model, [tiny.random_batch()], list("abac"))
    seen = measure(model, [tiny.picture_batch("mllama")], list("abac"))
    assert (read.pooled().amax(-1) > 0).tolist() == [True, False, True]
    assert (seen.pooled().amax(-1) > 0).all()
