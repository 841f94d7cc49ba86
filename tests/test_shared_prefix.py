"""Reading common beginnings once gives the coefficients of reading every question whole."""

from dataclasses import replace

import pytest
import tiny
import torch

from kvw_experiments import bench
from kvw_minimal.batches import IGNORED, Batch, answer_batches
from kvw_minimal.coefficients import Coefficients, measure, measure_questions
from kvw_minimal.files import read_json
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.speed import shared_prefix
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about
from kvw_minimal.taught import load

TEXT_ONLY = ("llama", "gpt2", "opt", "phi")
SETS = ("image", "text", "mixed", "rotating")


@pytest.fixture(scope="module")
def sets():
    return bench.question_sets(load_people(), 30)


@pytest.fixture(scope="module")
def model():
    return tiny.llava()


def same(one: Coefficients, other: Coefficients) -> bool:
    """The same people, tokens and model, and within 1e-5 of a layer's largest coefficient."""
    return bench.difference(one, other) <= 1e-5


def shared(model, questions, processor=None, **options) -> Coefficients:
    batches = answer_batches(processor or tiny.processor(), questions, 1)
    people, photos = [q.person for q in questions], [q.image for q in questions]
    return shared_prefix.measure(model, batches, people, photos, **options)


@pytest.mark.parametrize("kind", SETS)
def test_the_same_coefficients_of_each_set(model, sets, kind):
    one = shared(model, sets[kind])
    other = measure_questions(model, tiny.processor(), sets[kind])
    assert one.people == other.people and one.fingerprint == other.fingerprint
    assert torch.equal(one.tokens, other.tokens) and one.sums.shape == other.sums.shape
    assert same(one, other)


def test_the_same_coefficients_on_pocket(sets):
    model, processor = load("pocket")
    questions = sets["mixed"] + sets["rotating"][:10]
    one = shared(model, questions, processor)
    assert same(one, measure_questions(model, processor, questions))


def test_the_published_loop_of_the_benchmark_is_the_same_too(model, sets):
    questions = sets["mixed"]
    single = answer_batches(tiny.processor(), questions, 1)
    people = [question.person for question in questions]
    assert same(bench.published(model, single, people), shared(model, questions))


def test_how_questions_are_laid_out_changes_nothing(model, sets, monkeypatch):
    questions = sets["mixed"]
    plain = measure_questions(model, tiny.processor(), questions)
    for branches, pairs, batch_size in ((1, 1, 1), (3, 10**9, 7), (1000, 10**9, 1000)):
        monkeypatch.setattr(shared_prefix, "BRANCHES", branches)
        monkeypatch.setattr(shared_prefix, "PAIRS", pairs)
        assert same(shared(model, questions, batch_size=batch_size), plain)


def test_a_question_asked_twice_counts_twice_and_costs_nothing(model, sets):
    twice = sets["image"][:4] * 2
    assert same(shared(model, twice), measure_questions(model, tiny.processor(), twice))
    assert tokens_read(model, twice) == tokens_read(model, twice[:4])


def test_the_same_words_about_another_photo_are_other_tokens(model, sets):
    """Two people asked alike, answered alike: only the photo tells them apart."""
    first = sets["image"][0]
    other = next(q for q in sets["image"] if q.person != first.person)
    twins = [first, replace(first, id="twin", person=other.person, image=other.image)]
    one = shared(model, twins)
    assert same(one, measure_questions(model, tiny.processor(), twins))
    assert not torch.equal(one.sums[0], one.sums[1])


# --- what is saved ---------------------------------------------------------------------------


def tokens_read(model, questions) -> int:
    """Tokens that the first FFN is given by the shared way, padding included."""
    read = []
    projection = next(iter(find_projections(model).values()))
    handle = projection.register_forward_pre_hook(
        lambda module, inputs: read.append(inputs[0].shape[:-1].numel())
    )
    shared(model, questions)
    handle.remove()
    return sum(read)


def distinct_beginnings(processor, questions) -> int:
    """How many different (photo, beginning) there are: what must be read at the very least."""
    beginnings = set()
    for batch in answer_batches(processor, questions, 1):
        question = questions[batch.rows[0]]
        ids = batch.inputs["input_ids"][0].tolist()
        beginnings |= {(question.image, tuple(ids[: t + 1])) for t in range(len(ids))}
    return len(beginnings)


def test_few_tokens_are_read(model, sets):
    questions = sets["image"]  # six a photo: one tree each
    batches = answer_batches(tiny.processor(), questions, 1)
    everything = sum(batch.labels.numel() for batch in batches)
    least = distinct_beginnings(tiny.processor(), questions)
    trees = shared_prefix.plant(model, batches, [question.image for question in questions])
    assert sum(len(tree.ids) for tree in trees) == least
    assert least <= tokens_read(model, questions) < 1.2 * least < everything / 1.2


def test_the_eye_looks_once_a_photo(model, sets):
    looks = []
    handle = model.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: looks.append(len(kwargs.get("pixel_values", *args))),
        with_kwargs=True,
    )
    shared(model, sets["image"])
    handle.remove()
    assert sum(looks) == len({question.image for question in sets["image"]})


def test_nothing_is_computed_after_the_last_coefficients(model, sets):
    calls = []
    last = list(find_projections(model).values())[-1]
    handles = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for module in (last, model.model.language_model.norm, model.lm_head)
    ]
    shared(model, sets["mixed"])
    assert not calls
    measure(model, answer_batches(tiny.processor(), sets["text"][:2]), ["a", "b"])
    assert calls, "the counter itself does not count"
    for handle in handles:
        handle.remove()


def test_no_hook_stays_when_enough_was_seen(model, sets):
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    shared(model, sets["text"])
    assert [len(module._forward_pre_hooks) for module in model.modules()] == before


# --- each architecture, and what is refused --------------------------------------------------


def family(architecture: str) -> tuple[list[Batch], list[int | None]]:
    """Two photos (or none) with three questions each, alike at the beginning, unpadded."""
    batches: list[Batch] = []
    for photo in range(2):
        for ending in range(3):
            if architecture in TEXT_ONLY:
                batch = tiny.random_batch(1, 12, seed=photo)
            else:
                batch = tiny.picture_batch(architecture, 1, 12, seed=photo)
            end = batch.labels.shape[1] - ending  # of different lengths, too
            ids = batch.inputs["input_ids"][:, :end].clone()
            ids[0, end - 4 :] = torch.arange(5, 9) + 4 * ending
            labels = torch.full_like(ids, IGNORED)
            labels[0, end - 2 :] = ids[0, end - 2 :]
            inputs = {
                name: x[:, :end] if name in shared_prefix.PER_TOKEN else x
                for name, x in batch.inputs.items()
            }
            batches.append(Batch(inputs | {"input_ids": ids}, labels, [len(batches)]))
    photos = [None if architecture in TEXT_ONLY else row // 3 for row in range(6)]
    return batches, photos


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", [*TEXT_ONLY, *tiny.KINDS])
def test_each_architecture_is_equal_or_refused(architecture, attention):
    model = tiny.build(architecture)
    model.set_attn_implementation(attention)
    batches, photos = family(architecture)
    if architecture in ("mllama", "gemma3", "paligemma"):
        with pytest.raises(ValueError, match=f"not shown to be exact for {architecture}"):
            shared_prefix.measure(model, batches, list("abcabd"), photos)
        return
    one = shared_prefix.measure(model, batches, list("abcabd"), photos)
    assert same(one, measure(model, batches, list("abcabd")))
    trees = shared_prefix.plant(model, batches, photos)
    read = sum(len(tree.ids) for tree in trees)
    assert read < 0.7 * sum(batch.labels.numel() for batch in batches)


def test_every_listed_model_is_tested():
    tested = {tiny.build(name).config.model_type for name in (*TEXT_ONLY, *tiny.KINDS)}
    assert set(shared_prefix.MODELS) <= tested


def test_a_window_is_refused(model, monkeypatch):
    monkeypatch.setattr(
        model.config.text_config, "layer_types", ["sliding_attention"] * 3, raising=False
    )
    with pytest.raises(ValueError, match="not shown to be exact"):
        shared_prefix.check_sharing(model)


def test_padded_questions_are_refused(model, sets):
    batches = answer_batches(tiny.processor(), sets["text"][:4], 4)
    with pytest.raises(ValueError, match="one question a batch"):
        shared_prefix.measure(model, batches, list("abcd"), [None] * 4)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_activations_that_are_not_finite_name_the_layer(sets, layer, value):
    model = tiny.llava()
    with torch.no_grad():
        model.model.language_model.layers[layer].mlp.up_proj.weight[3, 3] = float(value)
    with pytest.raises(ValueError, match=rf"NaN or infinite activations in layer {layer}\b"):
        shared(model, sets["text"][:4])


# --- the benchmark ---------------------------------------------------------------------------


def test_the_benchmark_measures_the_same_thing_in_each_way(model, sets):
    row = bench.compare(model, tiny.processor(), sets["image"], runs=1)
    assert row["questions"] == 30 and row["difference"] <= 1e-5
    assert row["tokens, shared"] < 0.6 * row["tokens"]
    assert all(row[way] > 0 for way in ("published", "batched", "shared", "bare"))
    assert "published / shared" in bench.table({"image": row})
    assert row["tokens a second"] == row["tokens"] / row["batched"]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_difference_is_the_largest_in_units_of_its_layer(sign):
    sums = torch.tensor([[[4.0, 2.0], [400.0, 200.0]], [[1.0, 8.0], [3.0, 3.0]]])
    other = Coefficients(sums, torch.tensor([2.0, 1.0]), ("p", "q"), "a model")
    one = replace(
        other, sums=sums + sign * torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    )
    assert bench.difference(one, other) == pytest.approx(0.5 / 2)
    assert bench.difference(other, other) == 0
    for change in ({"people": ("q", "p")}, {"fingerprint": "b"}, {"tokens": other.tokens + 1}):
        with pytest.raises(ValueError, match="different things"):
            bench.difference(one, replace(other, **change))


def test_the_rotating_set_is_what_this_book_asks(sets):
    assert sets["rotating"] == about(load_people(), list(load_people().people)[:2])
    photos = [question.image for question in sets["image"]]
    assert {photos.count(photo) for photo in photos} == {bench.A_PHOTO}


def test_medians_are_of_interleaved_runs(model, sets, monkeypatch):
    """A fake clock says 1, 2, 3, ... seconds: the first way takes 1, 5, ..., 33; then the others
    are run more often, without it: 37, 38, 39, 40, ..."""
    ran = []
    monkeypatch.setattr(bench, "_seconds", lambda work: ran.append(work) or float(len(ran)))
    row = bench.compare(model, tiny.processor(), sets["text"][:6])
    published, batched, shared, bare = ran[:4]
    assert ran == ran[:4] * 9 + [bare, batched, shared] * 36 and len(set(map(id, ran))) == 4
    assert [row[way] for way in ("published", "batched", "shared", "bare")] == [17, 77, 78, 76]
    ratios = [(4 * i + 4) / (4 * i + 2) for i in range(9)]
    ratios += [(37 + 3 * i) / (38 + 3 * i) for i in range(36)]
    assert row["bare / batched"] == sorted(ratios)[22] and row["published / batched"] == 17 / 18


def test_the_benchmark_is_stored_with_provenance(model, tmp_path, capsys, monkeypatch):
    models = {
        "tiny": bench.Case(lambda: (model, tiny.processor()), 1, dict.fromkeys(SETS, 14)),
        "some": bench.Case(lambda: (model, tiny.processor()), 1, {"text": 6}),
        "huge": bench.Case(lambda: pytest.fail("made"), 1, {}, needs=2**60),
    }
    monkeypatch.setattr(bench, "provenance", lambda **known: known | {"command": "bench"})
    bench.main(tmp_path / "bench.json", models, {"layers": (1, 2)})
    stored = read_json(tmp_path / "bench.json", "provenance", "rows", "growth", "slopes")
    assert [(row["model"], row["set"], row["runs"]) for row in stored["rows"]] == [
        *(("tiny", kind, 1) for kind in SETS),
        ("some", "text", 1),
    ]
    assert [about["model"] for about in stored["models"]] == ["tiny", "some"]
    assert (stored["models"][0]["layers"], stored["models"][0]["d_ff"]) == (tiny.LAYERS, tiny.D_FF)
    assert stored["models"][0]["bytes"] > 4 * stored["models"][0]["weights"] > 0
    assert [(row["grows with"], row["value"]) for row in stored["growth"]] == [
        ("layers", 1),
        ("layers", 2),
    ]
    assert [row["grows with"] for row in stored["slopes"]] == ["layers"]
    assert (
        stored["joining"] > 1e6 and stored["models"][0]["weights"] > stored["models"][0]["decoder"]
    )
    assert all(row["published / shared"] > 0 for row in stored["rows"])
    assert all(row["read plainly / read"] > 0 for row in stored["rows"])
    source = stored["provenance"]
    assert source["models"] == dict.fromkeys(("tiny", "some"), fingerprint(model))
    assert source["threads"] >= 1 and len(source["load"]) == 3
    assert source["command"] == "bench"
    assert source["data"] == load_people().checksum and source["seconds"] > 0
    said = capsys.readouterr().out
    assert "published / shared" in said and "seconds grow with the power of: layers" in said
    assert "huge is left out: it needs 1152921505 GB of memory" in said
    monkeypatch.setattr(bench, "compare", lambda *_, **__: pytest.fail("refused after the work"))
    with pytest.raises(IsADirectoryError):
        bench.main(tmp_path, models)


def test_exponents_are_those_of_the_growth():
    rows = [
        {"grows with": what, "value": x, "seconds": 0.3 * x**power}
        for what, power in (("width", 2.0), ("questions", 1.0))
        for x in (2, 4, 8)
    ]
    found = {row["grows with"]: row["value"] for row in bench.slopes(rows)}
    assert found == pytest.approx({"width": 2.0, "questions": 1.0})


def test_random_weights_in_the_shape_of_smolvlm(monkeypatch):
    """A tenth as wide, which says the same of how it is put together."""
    language, eye, scale = bench.SMOLVLM["256M"]
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    monkeypatch.setitem(
        bench.SMOLVLM, "256M", (language | small | {"num_key_value_heads": 1}, eye | small, scale)
    )
    model, processor = bench.smolvlm_shaped()
    asked = bench.question_sets(load_people(), 6)["image"][:3]
    (batch,) = answer_batches(processor, asked)
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert ((batch.inputs["input_ids"] == image).sum(1) == 64).all()
    assert batch.inputs["pixel_values"].shape[-2:] == (512, 512)
    assert model.config.text_config.vocab_size == 49_280 and find_projections(model)
    assert all(weight.isfinite().all() for weight in model.parameters())
    one, other = (
        made(model, processor, asked)
        for made in (lambda m, p, q: shared(m, q, p), measure_questions)
    )
    assert same(one, other) and one.sums.min() > 0


def test_random_weights_in_the_shape_of_smollm2(monkeypatch):
    small = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    monkeypatch.setattr(bench, "SMOLLM2", bench.SMOLLM2 | small)
    model, _ = bench.smollm2_shaped()
    assert model.get_output_embeddings().weight.shape == (bench.SMOLLM2_WORDS, 64)
    assert len(find_projections(model)) == 2


def test_weights_of_a_shape_are_as_many_as_they_say():
    """In numbers alone: SmolVLM-256M has 256 million, SmolVLM-2.2B has 2.2 billion."""
    for size, count in (("256M", 2.56e8), ("2.2B", 2.25e9)):
        language, eye, scale = bench.SMOLVLM[size]
        width, inner, depth = (
            language[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
        )
        heads = language["num_key_value_heads"] / language["num_attention_heads"]
        text = depth * (width**2 * (2 + 2 * heads) + 3 * width * inner)
        words = 2 * width * language["vocab_size"]  # in and out
        seen, wide, deep = (
            eye[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
        )
        sight = deep * (4 * seen**2 + 2 * seen * wide) + seen * scale**2 * width
        assert text + words + sight == pytest.approx(count, rel=0.05)
