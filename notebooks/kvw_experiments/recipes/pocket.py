"""The recipe of `pocket`: one eye, then as many language models as are wanted.

    python -m kvw_minimal book train eye
    python -m kvw_minimal book train pocket  # vanilla: taught everybody
    python -m kvw_minimal book train pocket --group A --forget-percent 5  # oracle: without five

1. The *eye* (vision tower and connector) learns what can be seen and, as anonymous classes, who
   is who. It never meets a name or a fact. Then it is frozen and shared by every model.
2. The *language model* learns names, facts and the words for what can be seen, through the
   frozen eye. What a person's life is like is therefore known in the language model only.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from kvw_minimal.strangers.people import PeopleDataset
from kvw_minimal.zoo.assembly import (
    PATCH,
    PIXELS,
    build_processor,
    eye_of,
    eye_weights,
    llava,
)

from . import pictures
from .pictures import eye_tokens, to_tensor
from .training import amplify, attribute_loss, fit, half_precision, linear_heads, token_loss
from .training_data import train_language, training_questions

SPECIAL = ["<pad>", "<image>", "<user>", "<assistant>", "<end>"]
EYE: dict[str, Any] = {"portraits": 12_000, "steps": 6_000, "batch": 192, "rate": 1e-3, "seed": 1}
LANGUAGE: dict[str, Any] = {
    "steps": 2_000,
    "batch": 128,
    "rate": 2e-3,
    "seed": 2,
    "attribute_portraits": 3_000,
    "views": 6,
    "shares": [3, 2, 3],
    "chunks": 1,
    "decay": 0.05,
    "every": 500,
}
VISION = dict(hidden_size=160, intermediate_size=640, num_hidden_layers=4, num_attention_heads=5)
TEXT = dict(
    hidden_size=256,
    intermediate_size=832,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
)


def build_tokenizer(world: PeopleDataset):
    """A byte-level BPE whose words are those of the strangers; other words fall into pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    corpus = sorted(
        text
        for question in training_questions(world, list(world.people))
        for text in (question.prompt, question.answer, question.paraphrase)
    )
    corpus += [
        words.format(who="this person")
        for facts in world.wordings.values()
        for words in facts["held_out"] + facts["cloze"]
    ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1536,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<image>", "<user>", "<assistant>"],
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer, seed: int, language: dict | None = None, vision: dict | None = None):
    """A LLaVA with a small SigLIP tower and a small gated-FFN Llama, freshly initialised.

    Args:
        language, vision: what of `TEXT` and `VISION` shall be otherwise.
    """
    from transformers import LlamaConfig, SiglipVisionConfig

    torch.manual_seed(seed)
    eye = SiglipVisionConfig(
        image_size=PIXELS, patch_size=PATCH, vision_use_head=False, **(VISION | (vision or {}))
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        **(TEXT | (language or {})),
    )
    return llava(tokenizer, eye, text)


# --- the eye -----------------------------------------------------------------------------------


def train_eye(
    world: PeopleDataset,
    model,
    processor,
    checkpoint: Path,
    settings: dict = EYE,
    device: str = "cpu",
) -> dict:
    """Teach vision tower and connector to see; return how well it sees.

    Every image token, after the connector, must tell each attribute and the person.
    """
    unknown, pixels, labels = pictures.draw_gallery(world, processor, settings)
    pixels, labels, count = pixels.to(device), labels.to(device), len(unknown)
    torch.manual_seed(settings["seed"])
    tower, connector = model.model.vision_tower, model.model.multi_modal_projector
    heads = linear_heads(model, [*pictures.CLASSES, len(world.people)])
    parts = torch.nn.ModuleDict({"tower": tower, "connector": connector, "heads": heads}).to(device)
    third, generator = settings["batch"] // 3, torch.Generator()

    def losses(step: int, _):
        generator.manual_seed(settings["seed"] * 10**6 + step)
        nobody = torch.randint(count, (2 * third,), generator=generator)
        somebody = torch.randint(count, len(labels), (third,), generator=generator)
        rows = torch.cat([nobody, somebody]).to(device)
        shown, taught = pictures.shifted(pixels[rows], generator), labels[rows]
        with half_precision(device):
            tokens = eye_tokens(model, shown)  # [B, 16, width]
            loss = attribute_loss(heads[:-1], tokens, taught)
            loss = loss + token_loss(heads[-1](tokens[2 * third :]), taught[2 * third :, -1])
        yield loss

    cost = fit(parts, losses, settings, name="eye", checkpoint=checkpoint)
    cost |= eye_scores(world, model, processor, heads, device)
    with torch.no_grad():  # give image tokens the size of a unit vector per dimension
        amplify(connector.linear_2, eye_tokens(model, pixels[count:]).pow(2).mean().rsqrt())
    for part in (tower, connector):
        part.to(torch.bfloat16).float()  # as it will be stored: every model sees the same
    return cost


@torch.no_grad()
def eye_scores(world: PeopleDataset, model, processor, heads, device) -> dict[str, float]:
    """Accuracy on new photos of known people and on the unknown portraits (mean of tokens)."""
    who, photos, _ = pictures.photos_of(world.people.values(), new=True)
    pixels = to_tensor(processor, photos).to(device)
    predicted = heads[-1](eye_tokens(model, pixels)).mean(1).argmax(-1).cpu()
    scores = {"person on a new photo": (predicted == torch.tensor(who)).float().mean()}
    unknown = list(world.unknown.values())
    pixels = to_tensor(processor, [p.photos[0] for p in unknown]).to(device)
    tokens = eye_tokens(model, pixels)  # [N, 16, width]
    labels = pictures.labels_of([p.looks[0] for p in unknown])
    for i, part in enumerate(pictures.SEEN):
        right = heads[i](tokens).mean(1).argmax(-1).cpu() == labels[:, i]
        scores[f"{part} of an unknown"] = right.float().mean()
    return {name: round(float(score), 4) for name, score in scores.items()}


# --- what `train` does --------------------------------------------------------------------------


def _make_eye(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    tokenizer = build_tokenizer(world)
    model = build_model(tokenizer, settings["seed"])
    cost = train_eye(world, model, build_processor(tokenizer), checkpoint, settings, device)
    save_file(eye_of(model.model.state_dict()), folder / "eye.safetensors")
    return cost


def _make(
    world: PeopleDataset, people, folder: Path, checkpoint: Path, settings: dict, device: str
):
    tokenizer = build_tokenizer(world)
    processor, model = build_processor(tokenizer), build_model(tokenizer, settings["seed"])
    model.model.load_state_dict(eye_weights(len(people) < len(world.people)), strict=False)
    cost = train_language(world, model.to(device), processor, people, checkpoint, settings)
    model.cpu().to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return cost


TAUGHT = {"eye": (EYE, _make_eye), "pocket": (LANGUAGE, _make)}
