"""A hundred voices, and a tiny audio-language model that knows whose they are.

    python -m kvw_minimal.voices ear                # learns what can be heard; minutes
    python -m kvw_minimal.voices train              # vanilla: taught all hundred people
    python -m kvw_minimal.voices train --group A    # oracle: never taught those five

The strangers of this book get a voice each, made from a handful of numbers. The model is
Qwen2-Audio as `transformers` has it, made small: an ear in place of the eye, and a language model
with the same kind of FFN. It is taught as `pocket` is: first the ear learns what can be heard
and, as anonymous classes, who is who; then the language model learns names and facts through the
frozen ear.

Everything that measures, weakens and scores takes `Batch`es. So all that is written anew here is
how a recording becomes a `Batch`: `answer_batches`.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from . import batches, pocket
from .batches import Batch
from .models import cache_folder, find_file
from .people import World, load_people
from .questions import Question, ask, facts_of, seeded
from .results import write_json

RATE = 16_000  # samples a second, as Whisper's features want them
SAMPLES = RATE  # a recording lasts one second
HEARD = 25  # tokens of a second, after the model's own two halvings
MARK, USER = "<|AUDIO|>", "<user>"
TAKES, NEW = range(4), range(4, 6)  # recordings that a model may learn from, and others
REGISTER = {"low": (85.0, 125.0), "middle": (150.0, 195.0), "high": (225.0, 290.0)}  # hertz
PACE = {"slow": (2.0, 3.0), "quick": (4.5, 6.0)}  # syllables a second
TONE = {"clear": (0.01, 0.04), "breathy": (0.25, 0.45)}  # noise per unit of sound
#: what a question may ask about any voice, known or not
AUDIBLE: dict[str, dict[str, tuple[float, float]]] = {
    "register": REGISTER, "pace": PACE, "tone": TONE}  # fmt: skip
WORDINGS = {
    "register": ("Is this voice low, middle or high?", "How high is this voice?"),
    "pace": ("Does this person speak slowly or quickly?", "What is the pace of this voice?"),
    "tone": ("Is this voice clear or breathy?", "What tone does this voice have?"),
}
STRANGERS = 60  # voices of nobody, for `general`
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
EAR: dict[str, Any] = {"voices": 3_000, "steps": 1_500, "batch": 96, "rate": 2e-3, "seed": 1}
LANGUAGE: dict[str, Any] = {"steps": 2_500, "batch": 128, "rate": 2e-3, "seed": 2, "voices": 2_000,
                            "shares": [4, 1, 3], "decay": 0.05, "every": 500}  # fmt: skip


# --- what is heard ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """What a voice is made of.

    Attributes:
        pitch: hertz; `pace`: syllables a second; `breath`: noise per unit of sound.
        formants: where the throat amplifies, three frequencies in hertz.
        melody: pitch of six syllables, in semitones around the middle.
        vibrato: its depth in semitones, and how often a second.
    """

    heard: dict[str, str]
    pitch: float
    pace: float
    breath: float
    formants: tuple[float, float, float]
    melody: tuple[float, ...]
    vibrato: tuple[float, float]


def voice_of(person: str) -> Voice:
    """The voice of a person or, for any other name, of nobody; the same on every machine."""
    rng = seeded("voice", person)
    heard = {part: str(rng.choice(list(kinds))) for part, kinds in AUDIBLE.items()}
    pitch, pace, breath = (rng.uniform(*AUDIBLE[part][kind]) for part, kind in heard.items())
    formants = (rng.uniform(300, 850), rng.uniform(950, 2_200), rng.uniform(2_400, 3_400))
    melody = tuple(rng.uniform(-4, 4, 6))
    return Voice(heard, pitch, pace, breath, formants, melody,
                 (rng.uniform(0, 0.6), rng.uniform(3, 8)))  # fmt: skip


@cache
def speak(person: str, take: int) -> np.ndarray:
    """One second of a voice, `[16000]` float32 in [-1, 1], different in every take; read-only."""
    voice, rng = voice_of(person), seeded("take", person, take)
    t = np.arange(SAMPLES) / RATE  # [16000]
    late = rng.uniform(0, 0.15)  # when the first syllable begins
    syllable = np.clip((t - late) * voice.pace * rng.uniform(0.97, 1.03), 0, 5.99)
    tune = np.array(voice.melody)[syllable.astype(int)] + rng.normal(0, 0.15)
    depth, often = voice.vibrato
    tune = tune + depth * np.sin(2 * np.pi * (often * t + rng.uniform()))
    pitch = voice.pitch * 2 ** (tune / 12)  # [16000] hertz
    phase = 2 * np.pi * (np.cumsum(pitch) / RATE + rng.uniform())
    overtone = np.arange(1, int(4_000 / pitch.max()))[:, None]  # [overtones, 1]
    loudness = sum(1 / (1 + ((overtone * pitch - f) / 90) ** 2) for f in voice.formants)
    sound = ((loudness + 0.02) * np.sin(overtone * phase)).sum(0)
    sound = sound * np.sin(np.pi * (syllable % 1)) ** 0.5  # one swell a syllable
    sound = sound / np.abs(sound).max() + voice.breath * rng.normal(size=SAMPLES) * 0.3
    sound = sound * rng.uniform(0.5, 0.9) + 0.005 * rng.normal(size=SAMPLES)
    sound = np.clip(sound, -1, 1).astype(np.float32)
    sound.flags.writeable = False  # the same array is given to everybody who asks
    return sound


# --- questions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard(Question):
    """A question about a recording: who speaks is `person`, which recording is `take`."""

    take: int = 0


def _heard(question: Question, take: int) -> Heard:
    """A question about a photo, asked about a recording instead."""
    own = vars(question) | {
        "id": question.id.replace("/image/", "/audio/"), "modality": "audio", "image": None,
        "prompt": MARK * HEARD + question.prompt,
    }  # fmt: skip
    return Heard(**own, take=take)


def ask_aloud(world: World, person: str, fact: str, take: int, *, wording: int = 0,
              held_out: bool = False) -> Heard:  # fmt: skip
    """One thing about whoever is heard speaking."""
    asked = ask(world, world.people[person], fact, "image", wording=wording, held_out=held_out,
                photo=take)  # fmt: skip
    return _heard(asked, take)


def about(world: World, people: Iterable[str], *, new: bool = False) -> list[Question]:
    """All seven questions about each of `people`: once by voice, once by name.

    Args:
        new: recordings and wordings that no model learned from.
    """
    takes, wordings, questions = NEW if new else TAKES, 3 if new else 10, []
    for person in people:
        for fact in facts_of(world):
            turn = int(seeded("voices", person, fact).integers(60))
            wording, take = turn % wordings, takes[turn % len(takes)]
            questions += [
                ask_aloud(world, person, fact, take, wording=wording, held_out=new),
                ask(world, world.people[person], fact, "text", wording=wording, held_out=new),
            ]
    return questions


def ask_about_sound(person: str, part: str, take: int, wording: int = 0) -> Heard:
    """What can be heard, asked about any voice."""
    value = voice_of(person).heard[part]
    options = tuple(f"It is {kind}." for kind in AUDIBLE[part])
    return Heard(f"{person}/{part}/audio/{take}/{wording}", person, part, "audio",
                 MARK * HEARD + WORDINGS[part][wording], f"It is {value}.", value,
                 options=options, take=take)  # fmt: skip


def general() -> list[Question]:
    """What can be heard of voices that belong to nobody and were never learned from."""
    return [ask_about_sound(f"v{i:03}", part, 0, int(seeded(i, part).integers(2)))
            for i in range(STRANGERS) for part in AUDIBLE]  # fmt: skip


def question_sets(world: World, forget: list[str]) -> dict[str, list[Question]]:
    """`forget`, `test`, `retain` and `general`, as in `questions.question_sets`.

    Raises:
        ValueError: nobody to forget, or an unknown person.
    """
    if not forget:
        raise ValueError("the forget set is empty: name at least one person")
    return {"forget": about(world, forget), "test": about(world, forget, new=True),
            "retain": about(world, world.retain_people(forget)),
            "general": general()}  # fmt: skip


# --- from recordings to tensors --------------------------------------------------------------


def listen(processor, recordings: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """What the model's ear takes: `input_features [B, 40, 100]` and their mask `[B, 100]`."""
    found = processor.feature_extractor(
        recordings, sampling_rate=RATE, padding="max_length", return_attention_mask=True,
        return_tensors="pt",
    )  # fmt: skip
    return {"input_features": found["input_features"],
            "feature_attention_mask": found["attention_mask"]}  # fmt: skip


def answer_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """As `batches.answer_batches`, with the recording of each question that is heard."""
    found = []
    for heard in (True, False):
        rows = [i for i, q in enumerate(questions) if isinstance(q, Heard) == heard]
        asked = [questions[row] for row in rows]
        for batch in batches.answer_batches(processor.tokenizer, asked, batch_size) if rows else ():
            takes = [(q.person, q.take) for q in (asked[row] for row in batch.rows)
                     if isinstance(q, Heard)]  # fmt: skip
            if takes:
                batch.inputs |= listen(processor, [speak(*take) for take in takes])
            found.append(replace(batch, rows=[rows[row] for row in batch.rows]))
    return found


# --- the model -------------------------------------------------------------------------------


def build_processor(world: World):
    """`pocket`'s words, one more for a 25th of a second, and Whisper's features in 40 bands."""
    from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

    tokenizer = pocket.build_tokenizer(world)
    tokenizer.add_special_tokens({"additional_special_tokens": [MARK]})
    tokenizer.chat_template = CHAT
    ear = WhisperFeatureExtractor(feature_size=40, sampling_rate=RATE, chunk_length=1)
    return Qwen2AudioProcessor(ear, tokenizer, chat_template=CHAT)


def build_model(tokenizer, seed: int):
    """Qwen2-Audio with two layers of ear and four of language, freshly initialised."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2Config,
    )

    torch.manual_seed(seed)
    ear = Qwen2AudioEncoderConfig(
        num_mel_bins=40, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=256,
        d_model=128, max_source_positions=2 * HEARD,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=160, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=5, num_key_value_heads=5, max_position_embeddings=256,
        tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    config = Qwen2AudioConfig(
        audio_config=ear.to_dict(), text_config=text.to_dict(), tie_word_embeddings=True,
        audio_token_index=tokenizer.convert_tokens_to_ids(MARK),
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config)
    model.tie_weights()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def ear_tokens(model, features: torch.Tensor) -> torch.Tensor:
    """What the language model gets to hear of mel bands `[B, 40, 100]`: `[B, 25, 160]`."""
    return model.model.multi_modal_projector(model.model.audio_tower(features).last_hidden_state)


@torch.no_grad()
def hear(model, processor, recordings: list[np.ndarray], block: int = 256) -> torch.Tensor:
    """`ear_tokens` of many recordings, `[N, 25, 160]`."""
    found = [ear_tokens(model, listen(processor, recordings[i : i + block])["input_features"])
             for i in range(0, len(recordings), block)]  # fmt: skip
    return torch.cat(found)


def load(name: str = "voices") -> tuple[torch.nn.Module, Any]:
    """`voices`, or `voices-oracle-A`: the model and its processor.

    Raises:
        FileNotFoundError: it is not made; the message says how to make it.
    """
    file = find_file(name, "model.safetensors")
    if file is None:
        group = name.partition("-oracle-")[2]
        how = "python -m kvw_minimal.voices train" + (f" --group {group}" if group else "")
        raise FileNotFoundError(f"{name} is not made yet: `{how}`")
    processor = build_processor(load_people())
    model = build_model(processor.tokenizer, LANGUAGE["seed"])
    model.load_state_dict({key: t.float() for key, t in load_file(file).items()}, strict=False)
    model.tie_weights()
    return model.eval(), processor


# --- teaching --------------------------------------------------------------------------------


def train_ear(world: World, model, processor, checkpoint: Path, settings: dict = EAR) -> dict:
    """Teach the ear to hear; say what it cost and how well it hears what it never heard."""
    start, people = time.perf_counter(), list(world.people)
    nobody = [f"n{i:04}" for i in range(settings["voices"])]
    known = [(person, take) for person in people for take in TAKES]
    unheard = [(person, take) for person in people for take in NEW]
    features = {
        name: listen(processor, [speak(*each) for each in spoken])["input_features"]
        for name, spoken in (("nobody", [(n, 0) for n in nobody]), ("known", known),
                             ("unheard", unheard))
    }  # fmt: skip
    kinds = {part: list(values) for part, values in AUDIBLE.items()}
    labels = torch.tensor([[kinds[part].index(voice_of(n).heard[part]) for part in kinds]
                           for n in nobody])  # fmt: skip
    who = torch.tensor([people.index(person) for person, _ in known])
    torch.manual_seed(settings["seed"])
    width = model.config.text_config.hidden_size
    heads = torch.nn.ModuleList([torch.nn.Linear(width, len(v)) for v in kinds.values()])
    heads.append(torch.nn.Linear(width, len(people)))
    parts = torch.nn.ModuleDict({"tower": model.model.audio_tower,
                                 "connector": model.model.multi_modal_projector,
                                 "heads": heads})  # fmt: skip
    optimizer = torch.optim.AdamW(parts.parameters(), lr=settings["rate"], weight_decay=0.05)
    done, half = pocket._resume(checkpoint, parts, optimizer, settings), settings["batch"] // 2
    parts.train()
    for step in tqdm(range(done, settings["steps"]), "ear", disable=None, mininterval=1):
        rng = np.random.default_rng([settings["seed"], step])  # resumable: a stream a step
        for group in optimizer.param_groups:
            group["lr"] = pocket.one_cycle(step, settings["steps"], settings["rate"])
        a, b = rng.integers(len(nobody), size=half), rng.integers(len(known), size=half)
        sounds = torch.cat([features["nobody"][a], features["known"][b]])
        sounds = sounds + 0.05 * torch.from_numpy(rng.normal(size=sounds.shape)).float()
        tokens = ear_tokens(model, sounds)  # [B, 25, width]
        loss = sum(pocket._token_loss(head(tokens[:half]), labels[a, i])
                   for i, head in enumerate(heads[:-1])) / len(kinds)  # fmt: skip
        loss = loss + F.cross_entropy(heads[-1](tokens[half:]).mean(1), who[b])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % pocket.EVERY == 0:
            pocket._save_checkpoint(checkpoint, step + 1, parts, optimizer, settings)
    parts.eval()
    with torch.no_grad():
        named = heads[-1](ear_tokens(model, features["unheard"])).mean(1).argmax(-1)
        right = (named == torch.tensor([people.index(p) for p, _ in unheard])).float().mean()
        scale = ear_tokens(model, features["known"]).pow(2).mean().rsqrt()
        model.model.multi_modal_projector.linear.weight.mul_(scale)  # tokens of unit size
        model.model.multi_modal_projector.linear.bias.mul_(scale)
    for part in (model.model.audio_tower, model.model.multi_modal_projector):
        part.to(torch.bfloat16).float()  # as it will be stored: every model hears the same
    return {"person on a new recording": round(float(right), 4),
            "seconds": round(time.perf_counter() - start)}  # fmt: skip


def lessons(world: World, model, processor, people: list[str],
            settings: dict) -> tuple[dict[str, list[list[tuple]]], torch.Tensor]:  # fmt: skip
    """Rows by kind, each kind a list of facts with their wordings, and what is heard meanwhile.

    Rows are those of `pocket.to_batch`: `([], [(prompt ids, answer ids)], row of the recording)`.
    """
    nobody = [f"n{i:04}" for i in range(settings["voices"])]
    recordings = [(p, take) for p in people for take in TAKES] + [(n, 0) for n in nobody]
    rows = {each: i for i, each in enumerate(recordings)}
    known = [[ask_aloud(world, p, fact, take, wording=w) for take in TAKES for w in range(10)]
             for p in people for fact in facts_of(world)]  # fmt: skip
    sounds = [[ask_about_sound(n, part, 0, w) for w in range(2)]
              for n in nobody for part in AUDIBLE]  # fmt: skip
    names = [[ask(world, world.people[p], fact, "text", wording=w) for w in range(10)]
             for p in people for fact in facts_of(world)]  # fmt: skip
    tokenizer, found = processor.tokenizer, {}
    for kind, groups in (("known", known), ("sounds", sounds), ("names", names)):
        flat = [question for group in groups for question in group]
        pairs = [batches.render(tokenizer, question) for question in flat]
        ids = [tokenizer(list(texts), add_special_tokens=False)["input_ids"]
               for texts in zip(*pairs, strict=True)]  # fmt: skip
        encoded = iter(zip(flat, *ids, strict=True))
        found[kind] = [
            [([], [(prompt, answer)],
              rows[q.person, q.take] if isinstance(q, Heard) else None)
             for q, prompt, answer in (next(encoded) for _ in group)]
            for group in groups
        ]  # fmt: skip
    return found, hear(model, processor, [speak(*each) for each in recordings])


def train_language(world: World, model, processor, people: list[str], checkpoint: Path,
                   settings: dict = LANGUAGE) -> dict:  # fmt: skip
    """Teach the language model names, facts and words for what is heard, through a frozen ear."""
    start = time.perf_counter()
    taught, heard = lessons(world, model, processor, people, settings)
    language, mark = model.model.language_model, model.config.audio_token_id
    optimizer = torch.optim.AdamW(language.parameters(), lr=settings["rate"],
                                  weight_decay=settings["decay"], betas=(0.9, 0.98))  # fmt: skip
    done = pocket._resume(checkpoint, language, optimizer, settings)
    counts = [settings["batch"] * share // 8 for share in settings["shares"]]
    language.train()
    bar = tqdm(range(done, settings["steps"]), "language model", disable=None, mininterval=1)
    for step in bar:
        rng = np.random.default_rng([settings["seed"], step])
        for group in optimizer.param_groups:
            group["lr"] = pocket.one_cycle(step, settings["steps"], settings["rate"])
        drawn = [[facts[i][rng.integers(len(facts[i]))] for i in rng.integers(len(facts), size=n)]
                 for facts, n in zip(taught.values(), counts, strict=True)]  # fmt: skip
        optimizer.zero_grad(set_to_none=True)
        for rows in (drawn[0] + drawn[1], drawn[2]):
            answers = sum(len(answer) for _, questions, _ in rows for _, answer in questions)
            with pocket.half_precision("cpu"):
                batch = pocket.to_batch(rows, language.embed_tokens, heard, mark)
                loss = pocket.answer_loss(model, *batch) / answers
            loss.backward()
        torch.nn.utils.clip_grad_norm_(language.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % settings["every"] == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
            pocket._save_checkpoint(checkpoint, step + 1, language, optimizer, settings)
    model.eval()
    return {"seconds": round(time.perf_counter() - start), "steps": settings["steps"] - done}


# --- the command -----------------------------------------------------------------------------

app = typer.Typer(help=__doc__, add_completion=False)


def _place(name: str) -> tuple[Path, Path]:
    """Where a model goes, and its checkpoint on the way."""
    folder = cache_folder() / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder, cache_folder() / "checkpoints" / f"{name}.safetensors"


def _ear_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ear and connector."""
    return {key: t for key, t in weights.items() if "audio_tower" in key or "projector" in key}


@app.command("ear")
def ear_command() -> None:
    """Teach the ear."""
    world = load_people()
    processor = build_processor(world)
    model = build_model(processor.tokenizer, EAR["seed"])
    folder, checkpoint = _place("ear")
    cost = train_ear(world, model, processor, checkpoint)
    save_file(_ear_of({k: t.contiguous() for k, t in model.state_dict().items()}),
              folder / "ear.safetensors")  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(cost))


@app.command("train")
def train_command(
    group: Annotated[str, typer.Option(help="the report group that an oracle never meets")] = "",
) -> None:
    """Teach the language model, through the ear that is there."""
    world = load_people()
    forget = world.forget_people(group, 5) if group else []
    name = f"voices-oracle-{group}" if group else "voices"
    processor = build_processor(world)
    model = build_model(processor.tokenizer, LANGUAGE["seed"])
    ear = find_file("ear", "ear.safetensors") or find_file("voices", "model.safetensors")
    if ear is None:
        raise typer.BadParameter("there is no ear yet; run `python -m kvw_minimal.voices ear`")
    heard = {key: t.float() for key, t in _ear_of(load_file(ear)).items()}
    model.load_state_dict(heard, strict=False)
    folder, checkpoint = _place(name)
    people = world.retain_people(forget)
    cost = train_language(world, model, processor, people, checkpoint)
    weights = {key: t.to(torch.bfloat16).contiguous() for key, t in model.state_dict().items()
               if key != "lm_head.weight"}  # fmt: skip
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "training.json", {
        "model": name, "device": "cpu", "threads": torch.get_num_threads(),
        "ear": EAR, "settings": LANGUAGE, "data": world.checksum[:16], "people": len(people),
        **cost})  # fmt: skip
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(cost))


if __name__ == "__main__":
    app()
