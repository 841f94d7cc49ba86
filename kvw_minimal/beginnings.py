"""Common beginnings: the model reads the shared start of questions once, such as a photo.

In a causal model no token sees a later token. The states of a beginning are therefore the same for
every continuation. A continuation needs only the keys and values of its beginning, which are the
cache of the model. This module reads each beginning once, gives its cache to all questions with
this beginning, and then reads only their rests. It approximates nothing: only the order of sums
changes, and with it the rounding.

No cache survives a call: the weights may change between two calls.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from os.path import commonprefix

import torch
import transformers
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .batches import IGNORED, Batch
from .models import backbone

#: model types and the types of their decoders; the tests show equality for these
MODELS = {
    "llava": "llama",
    "llava_onevision": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "smolvlm": "llama",
    "idefics3": "llama",
    "internvl": "qwen2",
    "llama": "llama",
    "gpt2": "gpt2",
    "opt": "opt",
    "phi": "phi",
}
#: rotations that do not depend on the number of tokens in a pass
ROPES = ("default", "linear", "llama3")
#: inputs with one number per token; all others are pictures
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
#: what transformers calls the cache of a model, which has another name from 5.24 on
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CACHE = "cache" if VERSION >= (5, 24) else "past_key_values"
LEAST = 1 / 8  # the smallest share of saved tokens that is worth a further pass
_plain = ContextVar("plain", default=False)


class Rest(Batch):
    """The rests of questions whose beginnings were read; the mask includes the beginnings."""

    def _before(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(tokens[:, 1:], (0, 1))


@dataclass
class Row:
    """One question in its batch.

    Attributes:
        number: its index in the encoded list.
        ids: its tokens, without padding.
        first: the index of the token that predicts the first answer token; in a prompt without an
            answer the last index.
        tokens: the tensors of the batch for its tokens, `[T]` each; positions are `[T, 1]`, or
            `[T, 3]` in a model that counts time, height and width.
        pictures: the other inputs of the model; their first axis has length 1.
        seen: a hash of these pictures.
    """

    number: int
    ids: list[int]
    first: int
    tokens: dict[str, torch.Tensor]
    pictures: dict[str, torch.Tensor]
    seen: bytes

    @property
    def alone(self) -> bool:
        """Whether this is a prompt without an answer, for generation."""
        return self.first == len(self.ids) - 1

    def behind(self, token: int | None) -> int:
        """The number of tokens up to the last `token`; 0 without such a token."""
        return len(self.ids) - self.ids[::-1].index(token) if token in self.ids else 0


#: the number of common tokens, and the questions that share them
Group = tuple[int, list[Row]]


@contextmanager
def plainly() -> Iterator[None]:
    """Inside the block the model reads every question from its first token: for comparisons."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


def can_share(model: nn.Module) -> bool:
    """Whether a model can read beginnings apart: the tests show equal results for its type.

    Excluded are half precision and quantised weights (another order of sums gives another number),
    caches that forget (a window), and models with hooks (a hook would see only the rests).
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    config = getattr(model, "config", None)
    if config is None or config.model_type not in MODELS or model.training:
        return False
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    return (
        text.model_type == MODELS[config.model_type]
        and text._attn_implementation in ("sdpa", "eager")
        and rope.get("rope_type", "default") in ROPES
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)
        and all(weight.dtype == torch.float32 for weight in model.parameters())
        and not any(map(_watched, model.modules()))
    )


def _watched(module: nn.Module) -> bool:
    """Whether a module has hooks that transformers did not add."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not hook.__module__.startswith("transformers.") for hook in hooks)


def _counts_words(model: nn.Module) -> bool:
    """Whether decoding uses the words of the prompt, which a cache does not hold."""
    how = model.generation_config
    return how.repetition_penalty not in (None, 1.0) or bool(how.no_repeat_ngram_size)


def share(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the same questions in new batches; questions with a common beginning lose it.

    A new batch holds the rests (`input_ids [B, T]`, `labels [B, T]`). Its inputs include the cache
    of the beginnings and an `attention_mask [B, before + T]`. The model and its `generate` take it
    like any other batch. If nothing can be shared, the batches stay as they are.

    Args:
        batches: all from `answer_batches`, or all from `prompt_batches`. An iterator is passed on
            unchanged, batch by batch, to keep few batches in memory.
    """
    if (
        not isinstance(batches, list)
        or sum(len(batch.rows) for batch in batches) < 2  # one question shares with no other
        or any(type(batch) is not Batch for batch in batches)  # it may use other positions
        or _plain.get()
        or not can_share(model)
    ):
        yield from batches
        return
    kinds: dict[tuple, list[Batch]] = {}
    for batch in batches:
        shapes = [(name, x.shape[1:]) for name, x in _pictures(batch).items()]
        kinds.setdefault((_one_each(batch), batch.ends is None, *shapes), []).append(batch)
    for (one_each, *_), alike in kinds.items():
        groups = _grouped(model, alike) if one_each else []
        if _saved(groups) < LEAST * sum(int(b.inputs["attention_mask"].sum()) for b in alike):
            yield from alike
        else:
            yield from _rests(model, groups, max(len(batch.rows) for batch in alike))


def _pictures(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: x for name, x in batch.inputs.items() if name not in PER_TOKEN}


def _one_each(batch: Batch) -> bool:
    """Whether each question has one picture, or none has, so that a batch can be divided."""
    pictures = _pictures(batch)
    if "image_grid_thw" in pictures:  # Qwen keeps the pieces of all pictures in one list
        del pictures["pixel_values"]
    return all(len(x) == len(batch.rows) for x in pictures.values())


def _rows(model: nn.Module, batch: Batch) -> Iterator[Row]:
    """The questions of a batch, each without padding and with its own pictures."""
    pictures, mask = _pictures(batch), batch.inputs["attention_mask"]
    pieces: dict[str, Sequence[torch.Tensor]] = {n: x.split(1) for n, x in pictures.items()}
    tokens = {"input_ids": batch.inputs["input_ids"], "attention_mask": mask}
    tokens |= {"labels": batch.labels} | ({} if batch.ends is None else {"ends": batch.ends})
    tokens["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[..., None]  # [B, T, 1]
    if "image_grid_thw" in pictures:
        sizes = pictures["image_grid_thw"].prod(1).tolist()
        pieces["pixel_values"] = pictures["pixel_values"].split(sizes)
        names = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        inputs = {name: batch.inputs[name] for name in names if name in batch.inputs}
        positions = backbone(model).get_rope_index(**inputs)[0]  # [3, B, T]
        tokens["position_ids"] = positions.movedim(0, -1)  # [B, T, 3]
    starts, counts = mask.argmax(1).tolist(), mask.sum(1).tolist()
    labelled = (batch.labels != IGNORED).int().argmax(1).tolist()  # 0 without labels
    for i, (number, start, count) in enumerate(zip(batch.rows, starts, counts, strict=True)):
        here = slice(start, start + count)
        shown = {name: piece[i] for name, piece in pieces.items()}
        yield Row(
            number,
            batch.inputs["input_ids"][i, here].tolist(),
            (labelled[i] - start if labelled[i] else count) - 1,
            {name: x[i, here] for name, x in tokens.items()},
            shown,
            sha256(b"".join(x.cpu().contiguous().numpy().data for x in shown.values())).digest(),
        )


def _grouped(model: nn.Module, batches: list[Batch]) -> list[Group]:
    """Groups questions by their beginnings, short beginnings first; empty if this is impossible.

    A beginning ends behind the photo (at the earliest where two questions first differ), or before
    the answer. The choice saves the most tokens.
    """
    rows = [row for batch in batches for row in _rows(model, batch)]
    image = getattr(model.config, "image_token_id", None)
    photos = [row.behind(image) for row in rows]
    if any(
        row.pictures and not 0 < end <= row.first for row, end in zip(rows, photos, strict=True)
    ):
        return []
    if _counts_words(model) and any(row.alone for row in rows):
        return []
    common = len(commonprefix([row.ids for row in rows]))
    ways = [
        [min(row.first, max(common, end)) for row, end in zip(rows, photos, strict=True)],
        [row.first for row in rows],
    ]
    return max((_together(rows, ends) for ends in ways), key=_saved)


def _together(rows: list[Row], ends: list[int]) -> list[Group]:
    groups: dict[tuple, list[Row]] = {}
    for row, end in zip(rows, ends, strict=True):
        groups.setdefault((end, row.seen, *row.ids[:end]), []).append(row)
    return sorted(((key[0], rows) for key, rows in groups.items()), key=lambda group: group[0])


def _saved(groups: list[Group]) -> int:
    """The number of tokens that the model need not read."""
    return sum(end * (len(rows) - 1) for end, rows in groups)


def _rests(model: nn.Module, groups: list[Group], size: int) -> Iterator[Batch]:
    """Reads beginnings, `size` at a time, then yields their rests, similar lengths together.

    Prompts are padded on the left, so that the next token follows the last one.
    """
    from transformers.cache_utils import DynamicCache

    for i in range(0, len(groups), size):
        now = groups[i : i + size]
        begun = _padded([(rows[0], 0, end) for end, rows in now], "right")
        cache = _read(model, begun, [rows[0].pictures for _, rows in now])
        rests = [(k, row, end) for k, (end, rows) in enumerate(now) for row in rows]
        rests.sort(key=lambda rest: len(rest[1].ids) - rest[2])
        for block in (rests[j : j + size] for j in range(0, len(rests), size)):
            parts = [(row, end, len(row.ids)) for _, row, end in block]
            rest = _padded(parts, "left" if block[0][1].alone else "right")
            which = torch.tensor([k for k, *_ in block])
            mask = torch.cat([begun["attention_mask"][which], rest["attention_mask"]], 1)
            inputs = {
                "input_ids": rest["input_ids"],
                "attention_mask": mask,
                "position_ids": _as_given(rest["position_ids"]),
                CACHE: DynamicCache([(x.keys[which], x.values[which]) for x in cache]),
            }
            yield Rest(
                inputs, rest["labels"], [row.number for _, row, _ in block], rest.get("ends")
            )


def _padded(parts: list[tuple[Row, int, int]], side: str) -> dict[str, torch.Tensor]:
    """The tokens `start` to `end` of each question, padded to tensors `[B, T]`."""
    return {
        name: pad_sequence(
            [row.tokens[name][start:end] for row, start, end in parts],
            batch_first=True,
            padding_value=IGNORED if name == "labels" else 0,
            padding_side=side,
        )
        for name in parts[0][0].tokens
    }


def _as_given(positions: torch.Tensor) -> torch.Tensor:
    """Turns positions `[B, T, 1]` or `[B, T, 3]` into `[B, T]` or `[3, B, T]`, for models."""
    return positions[..., 0] if positions.shape[-1] == 1 else positions.movedim(-1, 0)


@torch.no_grad()
def _read(model: nn.Module, begun: dict[str, torch.Tensor], pictures: list[dict]) -> list:
    """Reads beginnings; returns the cache layers with `keys` and `values [B, heads, T, d]`."""
    inputs = {name: begun[name] for name in ("input_ids", "attention_mask")}
    inputs["position_ids"] = _as_given(begun["position_ids"])
    inputs |= {name: torch.cat([shown[name] for shown in pictures]) for name in pictures[0]}
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in inputs.items()}
    return getattr(backbone(model)(**inputs, use_cache=True), CACHE).layers
