"""The recipe of `voices`: a tiny audio-language model that knows whose voice it hears.

    python -m kvw_minimal book train ear                # learns what can be heard; minutes
    python -m kvw_minimal book train voices             # vanilla: taught all hundred people
    python -m kvw_minimal book train voices --group A   # oracle: never taught those five

The model is Qwen2-Audio as `transformers` has it, made small: an ear in place of the eye, and a
language model with the same kind of FFN. It is taught as `pocket` is: first the ear learns what can
be heard and, as anonymous classes, who is who; then the language model learns names and facts
through the frozen ear.

Everything that measures, weakens and scores takes `Batch`es. So this module only adds the way
from a recording to a `Batch`: `answer_batches`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kvw_minimal import batches
from kvw_minimal.batches import Batch
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.questions import facts_of, question_about
from kvw_minimal.zoo.catalogue import find_file, find_weights

from . import pocket
from . import recordings as aloud
from .pictures import look
from .recordings import AUDIBLE, HEARD, MARK, NEW, RATE, TAKES, Heard, speak
from .training import amplify, attribute_loss, fit, linear_heads, stored
from .training_data import Row, encode, teach

CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
EAR: dict[str, Any] = {"voices": 3_000, "steps": 1_500, "batch": 96, "rate": 2e-3, "seed": 1}
LANGUAGE: dict[str, Any] = {
    "steps": 2_500,
    "batch": 128,
    "rate": 2e-3,
    "seed": 2,
    "voices": 2_000,
    "shares": [4, 1, 3],
    "decay": 0.05,
    "every": 500,
}


# --- from recordings to tensors --------------------------------------------------------------


def listen(processor, recordings: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """What the model's ear takes: `input_features [B, 40, 100]` and their mask `[B, 100]`."""
    features = processor.feature_extractor(
        recordings,
        sampling_rate=RATE,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    return {
        "input_features": features["input_features"],
        "feature_attention_mask": features["attention_mask"],
    }


def answer_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """As `batches.answer_batches`, with the recording of each question that is heard."""
    encoded = []
    for heard in (True, False):
        rows = [row for row, q in enumerate(questions) if isinstance(q, Heard) == heard]
        alike = [questions[row] for row in rows]
        for batch in batches.answer_batches(processor.tokenizer, alike, batch_size) if rows else ():
            spoken = [q for row in batch.rows if isinstance(q := alike[row], Heard)]
            if spoken:
                batch.inputs |= listen(processor, [speak(q.person, q.take) for q in spoken])
            encoded.append(replace(batch, rows=[rows[row] for row in batch.rows]))
    return encoded


# --- the model -------------------------------------------------------------------------------


def build_processor(world: PeopleDataset):
    """`pocket`'s words, one more for a 25th of a second, and Whisper's features in 40 bands."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    tokenizer = pocket.build_tokenizer(world)
    tokenizer.add_special_tokens({"additional_special_tokens": [MARK]})
    tokenizer.chat_template = CHAT
    ear = WhisperFeatureExtractor(feature_size=40, sampling_rate=RATE, chunk_length=1)
    return Qwen2AudioProcessor(ear, tokenizer, chat_template=CHAT)


def build_model(tokenizer, seed: int):
    """Qwen2-Audio with two layers of ear and four of language, freshly initialised."""
    import transformers as t

    torch.manual_seed(seed)
    ear = t.Qwen2AudioEncoderConfig(
        num_mel_bins=40,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=256,
        d_model=128,
        max_source_positions=2 * HEARD,
    )
    text = t.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = t.Qwen2AudioConfig(
        audio_config=ear.to_dict(),
        text_config=text.to_dict(),
        tie_word_embeddings=True,
        audio_token_index=tokenizer.convert_tokens_to_ids(MARK),
    )
    model = t.Qwen2AudioForConditionalGeneration(config)
    model.tie_weights()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def ear_tokens(model, features: torch.Tensor) -> torch.Tensor:
    """What the language model gets to hear of mel bands `[B, 40, 100]`: `[B, 25, 160]`."""
    return model.model.multi_modal_projector(model.model.audio_tower(features).last_hidden_state)


def load(
    name: str = "voices", device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, Any]:
    """`voices`, or `voices-oracle-A`: the model and its processor.

    Raises:
        FileNotFoundError: it is not made; the message says how to make it.
    """
    weights = load_file(find_weights(name, "model.safetensors"))
    processor = build_processor(load_people())
    model = build_model(processor.tokenizer, LANGUAGE["seed"])
    model.load_state_dict({key: t.float() for key, t in weights.items()})
    return model.to(device, dtype).eval(), processor


# --- teaching --------------------------------------------------------------------------------


def train_ear(
    world: PeopleDataset, model, processor, checkpoint: Path, settings: dict = EAR
) -> dict:
    """Teach the ear to hear; say how well it hears what it never heard."""
    people = list(world.people)
    nobody = [f"n{i:04}" for i in range(settings["voices"])]
    known, unheard = (
        [(person, take) for person in people for take in takes] for takes in (TAKES, NEW)
    )
    of_nobody, of_known, of_unheard = (
        listen(processor, [speak(*recording) for recording in spoken])["input_features"]
        for spoken in ([(n, 0) for n in nobody], known, unheard)
    )  # each [N, 40, 100]
    labels = torch.tensor(
        [
            [list(kinds).index(aloud.voice_of(n).heard[part]) for part, kinds in AUDIBLE.items()]
            for n in nobody
        ]
    )
    who, who_unheard = (
        torch.tensor([people.index(person) for person, _ in spoken]) for spoken in (known, unheard)
    )
    torch.manual_seed(settings["seed"])
    tower, connector = model.model.audio_tower, model.model.multi_modal_projector
    heads = linear_heads(model, [*map(len, AUDIBLE.values()), len(people)])
    parts = torch.nn.ModuleDict({"tower": tower, "connector": connector, "heads": heads})
    half = settings["batch"] // 2

    def losses(step: int, rng: np.random.Generator):
        a, b = rng.integers(len(nobody), size=half), rng.integers(len(known), size=half)
        sounds = torch.cat([of_nobody[a], of_known[b]])
        sounds = sounds + 0.05 * torch.from_numpy(rng.normal(size=sounds.shape)).float()
        tokens = ear_tokens(model, sounds)  # [B, 25, width]
        loss = attribute_loss(heads[:-1], tokens[:half], labels[a])
        yield loss + F.cross_entropy(heads[-1](tokens[half:]).mean(1), who[b])

    cost = fit(parts, losses, settings, name="ear", checkpoint=checkpoint)
    with torch.no_grad():
        predicted = heads[-1](ear_tokens(model, of_unheard)).mean(1).argmax(-1)
        amplify(connector.linear, ear_tokens(model, of_known).pow(2).mean().rsqrt())  # unit size
    for part in (tower, connector):
        part.to(torch.bfloat16).float()  # as it will be stored: every model hears the same
    right = (predicted == who_unheard).float().mean()
    return cost | {"person on a new recording": round(float(right), 4)}


def lessons(
    world: PeopleDataset, model, processor, people: list[str], settings: dict
) -> tuple[list[list[list[Row]]], torch.Tensor]:
    """What is taught, and what is heard meanwhile.

    Returns:
        Of people, of sounds, and by name: facts, each a list of rows, one a wording. Then
        `ear_tokens` of all recordings.
    """
    nobody = [f"n{i:04}" for i in range(settings["voices"])]
    recordings = [(p, take) for p in people for take in TAKES] + [(n, 0) for n in nobody]
    places = {recording: i for i, recording in enumerate(recordings)}
    known = [
        [aloud.ask_aloud(world, p, fact, take, wording=w) for take in TAKES for w in range(10)]
        for p in people
        for fact in facts_of(world)
    ]
    sounds = [
        [aloud.ask_about_sound(n, part, 0, w) for w in range(2)] for n in nobody for part in AUDIBLE
    ]
    names = [
        [question_about(world, world.people[p], fact, "text", wording=w) for w in range(10)]
        for p in people
        for fact in facts_of(world)
    ]

    def rows_of(questions: Sequence[Question]) -> list[Row]:
        pairs = zip(questions, encode(processor.tokenizer, list(questions)), strict=True)
        return [
            ([], [pair], places[q.person, q.take] if isinstance(q, Heard) else None)
            for q, pair in pairs
        ]

    taught = [[rows_of(questions) for questions in facts] for facts in (known, sounds, names)]
    sound = listen(processor, [speak(*recording) for recording in recordings])["input_features"]
    return taught, look(model, sound, tokens=ear_tokens)


def train_language(
    world: PeopleDataset,
    model,
    processor,
    people: list[str],
    checkpoint: Path,
    settings: dict = LANGUAGE,
) -> dict:
    """Teach the language model names, facts and words for what is heard, through a frozen ear."""
    taught, heard = lessons(world, model, processor, people, settings)
    counts = [settings["batch"] * share // 8 for share in settings["shares"]]

    def parts(rng: np.random.Generator):
        known, sounds, names = (
            [facts[i][rng.integers(len(facts[i]))] for i in rng.integers(len(facts), size=count)]
            for facts, count in zip(taught, counts, strict=True)
        )
        yield [known + sounds]
        yield [names]

    return teach(model, parts, heard, model.config.audio_token_id, checkpoint, settings)


# --- what `train` does --------------------------------------------------------------------------


def ear_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ear and connector, float32."""
    return {
        key: t.float().contiguous()
        for key, t in weights.items()
        if "audio_tower" in key or "projector" in key
    }


def _begin(world: PeopleDataset, settings: dict, device: str):
    if device != "cpu":
        raise ValueError(f"voices are taught on the CPU, not on {device}: the model is small")
    processor = build_processor(world)
    return processor, build_model(processor.tokenizer, settings["seed"])


def _make_ear(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    processor, model = _begin(world, settings, device)
    cost = train_ear(world, model, processor, checkpoint, settings)
    save_file(ear_of(model.state_dict()), folder / "ear.safetensors")
    return cost


def _make(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    processor, model = _begin(world, settings, device)
    ear = find_file("ear", "ear.safetensors") or find_file("voices", "model.safetensors")
    if ear is None:
        raise FileNotFoundError(
            "there is no ear yet; run `python -m kvw_minimal book train ear` first"
        )
    model.load_state_dict(ear_of(load_file(ear)), strict=False)
    cost = train_language(world, model, processor, people, checkpoint, settings)
    # The head stays as it was drawn. Processors draw it with different rounding: all of it is kept.
    weights = stored(model.state_dict()) | {"lm_head.weight": model.lm_head.weight.detach()}
    save_file(weights, folder / "model.safetensors")
    return cost | {"ear": EAR}


TAUGHT = {"ear": (EAR, _make_ear), "voices": (LANGUAGE, _make)}
