"""What questions have in common is read once: a photo, what stands before the words, a prompt.

In a causal model no token sees those behind it. What is computed for a beginning is therefore the
same whatever follows, and all that follows needs of it are its keys and values: the model's own
cache. Here each beginning is read once, its cache is given to all questions that begin so, and of
them only the rest is read. Nothing is approximated; only sums are rounded in another order.

Nothing is kept from one call to the next: between two calls the weights may have changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from os.path import commonprefix

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from .batches import IGNORED, Batch
from .models import backbone

#: model types, and types of their decoders, for which the tests show equality
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
#: rotations that do not depend on how much is read at a time
ROPES = ("default", "linear", "llama3")
#: inputs with one number a token; all others are pictures
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
LEAST = 1 / 8  # of the tokens: to save fewer does not pay for one more pass
_plain = ContextVar("plain", default=False)


class Rest(Batch):
    """What is left of questions whose beginnings were read: the mask reaches further back."""

    def _before(self, tokens: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(tokens[:, 1:], (0, 1))


@dataclass
class Row:
    """One question in its batch.

    Attributes:
        number: where it stood in the list that was asked for.
        ids: its tokens, without padding.
        first: which token predicts the first of the answer; of a prompt alone the last.
        tokens: of each token what the batch says of it, `[T]`; its position is `[T, 1]`, or
            `[T, 3]` in a model that counts time, height and width.
        pictures: what the model takes besides tokens, with a first axis of one question.
        seen: tells these pictures from others.
    """

    number: int
    ids: list[int]
    first: int
    tokens: dict[str, torch.Tensor]
    pictures: dict[str, torch.Tensor]
    seen: bytes

    @property
    def alone(self) -> bool:
        """Whether this is a prompt alone, to which an answer is to be said."""
        return self.first == len(self.ids) - 1

    def behind(self, token: int | None) -> int:
        """How many tokens there are up to the last one of a kind; 0 if there is none."""
        return len(self.ids) - self.ids[::-1].index(token) if token in self.ids else 0


#: questions that begin alike, and how many tokens they have in common
Group = tuple[int, list[Row]]


@contextmanager
def plainly() -> Iterator[None]:
    """Inside the block every question is read from its first token on: to compare the two ways."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


def can_share(model: nn.Module) -> bool:
    """Whether beginnings may be read apart: the tests show that kind of model to give the same.

    Not in half precision or quantised, where another order of sums is another number; not where
    a cache forgets (a window); not where hooks look on, which would see the rest alone.
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
    """Whether anybody but transformers itself looks at what this module reads or says."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not hook.__module__.startswith("transformers.") for hook in hooks)


def _counts_words(model: nn.Module) -> bool:
    """Whether decoding looks at the words of the prompt, which a cache does not hold."""
    how = model.generation_config
    return how.repetition_penalty not in (None, 1.0) or bool(how.no_repeat_ngram_size)


def share(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same questions in other batches: of those that begin alike, the rest alone.

    A batch holds what is left to read (`input_ids [B, T]`, `labels [B, T]`) and, among its inputs,
    the cache of what was read before and an `attention_mask [B, before + T]`. It goes to the model,
    or to its `generate`, like any other. Where nothing can be shared, batches come as they are.

    Args:
        batches: all from `answer_batches`, or all from `prompt_batches`. An iterator is passed on
            batch by batch, as it is: who hands one in wants few batches in memory.
    """
    if not isinstance(batches, list) or _plain.get() or not can_share(model):
        yield from batches
        return
    if any(type(batch) is not Batch for batch in batches):  # it may ask for other positions
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
    """Whether each question shows one picture, or none does, so that they can be taken apart."""
    pictures = _pictures(batch)
    if "image_grid_thw" in pictures:  # Qwen: pieces of all pictures stand in one list
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
        named = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        given = {name: batch.inputs[name] for name in named if name in batch.inputs}
        tokens["position_ids"] = (
            backbone(model).get_rope_index(**given)[0].movedim(0, -1)
        )  # [B, T, 3]
    starts, counts = mask.argmax(1).tolist(), mask.sum(1).tolist()
    labelled = (batch.labels != IGNORED).int().argmax(1).tolist()  # 0 where nothing is
    for i, (number, start, count) in enumerate(zip(batch.rows, starts, counts, strict=True)):
        here, own = slice(start, start + count), {name: each[i] for name, each in pieces.items()}
        yield Row(
            number,
            batch.inputs["input_ids"][i, here].tolist(),
            (labelled[i] - start if labelled[i] else count) - 1,
            {name: x[i, here] for name, x in tokens.items()},
            own,
            sha256(b"".join(x.cpu().contiguous().numpy().data for x in own.values())).digest(),
        )


def _grouped(model: nn.Module, batches: list[Batch]) -> list[Group]:
    """Questions that begin alike together, those with short beginnings first; or none at all.

    A beginning ends behind the photo (or where the first question differs from another), or where
    the answer is said: whichever saves more.
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
    return sorted(((key[0], some) for key, some in groups.items()), key=lambda group: group[0])


def _saved(groups: list[Group]) -> int:
    """How many tokens need not be read."""
    return sum(end * (len(rows) - 1) for end, rows in groups)


def _rests(model: nn.Module, groups: list[Group], size: int) -> Iterator[Batch]:
    """Read beginnings, `size` at a time, then yield what follows them, rests of a length together.

    Prompts are padded on the left, so that the next word stands behind the last one.
    """
    from transformers.cache_utils import DynamicCache

    for i in range(0, len(groups), size):
        now = groups[i : i + size]
        begun = _padded([(rows[0], 0, end) for end, rows in now], "right")
        cache = _read(model, begun, [rows[0].pictures for _, rows in now])
        asked = [(k, row, end) for k, (end, rows) in enumerate(now) for row in rows]
        asked.sort(key=lambda each: len(each[1].ids) - each[2])
        for some in (asked[j : j + size] for j in range(0, len(asked), size)):
            parts = [(row, end, len(row.ids)) for _, row, end in some]
            rest = _padded(parts, "left" if some[0][1].alone else "right")
            which = torch.tensor([k for k, *_ in some])
            mask = torch.cat([begun["attention_mask"][which], rest["attention_mask"]], 1)
            inputs = {
                "input_ids": rest["input_ids"],
                "attention_mask": mask,
                "position_ids": _as_given(rest["position_ids"]),
                "past_key_values": DynamicCache([(x.keys[which], x.values[which]) for x in cache]),
            }
            yield Rest(inputs, rest["labels"], [row.number for _, row, _ in some], rest.get("ends"))


def _padded(parts: list[tuple[Row, int, int]], side: str) -> dict[str, torch.Tensor]:
    """Some tokens of each question, from one to another, `[B, T]` each."""
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
    """`[B, T, 1]` or `[B, T, 3]` as models take it: `[B, T]` or `[3, B, T]`."""
    return positions[..., 0] if positions.shape[-1] == 1 else positions.movedim(-1, 0)


@torch.no_grad()
def _read(model: nn.Module, begun: dict[str, torch.Tensor], pictures: list[dict]) -> list:
    """The layers of the cache, each with `keys` and `values [B, heads, T, d]`, of beginnings."""
    inputs = {name: begun[name] for name in ("input_ids", "attention_mask")}
    inputs["position_ids"] = _as_given(begun["position_ids"])
    inputs |= {name: torch.cat([own[name] for own in pictures]) for name in pictures[0]}
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in inputs.items()}
    return backbone(model)(**inputs, use_cache=True).past_key_values.layers
