"""What questions have in common is read once: a photo, what stands before the words, a prompt.

In a causal model no token sees those behind it. What is computed for a beginning is therefore the
same whatever follows, and all that follows needs of it are its keys and values: the model's own
cache. Here each beginning is read once, its cache is given to all questions that begin so, and of
them only the rest is read. Nothing is approximated; only sums are rounded in another order.

Nothing is kept from one call to the next: between two calls the weights may have changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os.path import commonprefix

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from .batches import IGNORED, Batch
from .models import body

#: model types, and types of their decoders, for which the tests show equality
MODELS = {
    "llava": ("llama",),
    "llava_onevision": ("qwen2",),
    "qwen2_vl": ("qwen2_vl_text",),
    "qwen2_5_vl": ("qwen2_5_vl_text",),
    "qwen3_vl": ("qwen3_vl_text",),
    "smolvlm": ("llama",),
    "idefics3": ("llama",),
    "internvl": ("qwen2",),
    "llama": ("llama",),
    "gpt2": ("gpt2",),
    "opt": ("opt",),
    "phi": ("phi",),
}
#: inputs with one number a token; all others are pictures
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
LEAST = 1 / 8  # of the tokens: saving fewer does not pay for one more pass


@dataclass
class Row:
    """One question without padding, taken out of its batch.

    Attributes:
        ids, labels: `[T]`.
        ends: `[T]` bool, or None.
        positions: `[T, 1]`, or `[T, 3]` in a model that counts time, height and width.
        pictures: what the model takes besides tokens, with a first axis of one question.
        seen: tells these pictures from others.
        number: where the question stood in the list that was asked for.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    ends: torch.Tensor | None
    positions: torch.Tensor
    pictures: dict[str, torch.Tensor]
    seen: bytes
    number: int

    def before_answer(self) -> int:
        """How many tokens stand before the first that predicts something: an answer, or a word."""
        said = (self.labels != IGNORED).nonzero()
        return (int(said[0]) if len(said) else len(self.ids)) - 1

    def behind(self, token: int | None) -> int:
        """How many tokens it is to the last of this kind and with it; 0 if there is none."""
        found = (self.ids == token).nonzero() if token is not None else ()
        return int(found[-1]) + 1 if len(found) else 0


def can_share(model: nn.Module) -> bool:
    """Whether beginnings may be read apart: the tests show that kind of model to give the same.

    Not in half precision or quantised, where another order of sums is another number; not where
    a cache forgets (a window); not where hooks look on, which would see the rest alone.
    """
    config = getattr(model, "config", None)
    text = config and config.get_text_config(decoder=True)
    return (
        config is not None
        and text.model_type in MODELS.get(config.model_type, ())
        and text._attn_implementation in ("sdpa", "eager")
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)
        and all(weight.dtype == torch.float32 for weight in model.parameters())
        and not model.training
        and not any(map(_watched, model.modules()))
    )


def _watched(module: nn.Module) -> bool:
    """Whether anybody but transformers itself looks at what this module reads or says."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(not hook.__module__.startswith("transformers.") for hook in hooks)


def share(model: nn.Module, batches: list[Batch], whole: bool = False) -> Iterator[Batch]:
    """The same questions in other batches: of those that begin alike, the rest alone.

    A batch holds what is read now (`input_ids [B, T]`, `labels [B, T]`) and, among its inputs,
    the cache of what was read before and an `attention_mask [B, before + T]`. It goes to the model
    like any other. Where nothing can be shared, the batches come as they are.

    Args:
        batches: all from `answer_batches`, or all from `prompt_batches`.
        whole: for `model.generate`, which takes `input_ids` from the first token on.
    """
    kinds: dict[tuple, list[Batch]] = {}
    for batch in batches:
        shapes = ((n, x.shape[2:]) for n, x in batch.inputs.items() if n not in PER_TOKEN)
        kinds.setdefault((*shapes, *_counts(batch)), []).append(batch)
    for alike in kinds.values():
        if can_share(model) and _counts(alike[0]) in ((), (1,)):
            yield from _shared(model, alike, whole)
        else:
            yield from alike


def _counts(batch: Batch) -> tuple[float, ...]:
    """The numbers of pictures a question: (1,), or none, where they can be taken apart."""
    return tuple(
        {
            len(x) / len(batch.rows)
            for name, x in batch.inputs.items()
            if name not in PER_TOKEN and not (name == "pixel_values" and _flat(batch))
        }
    )


def _flat(batch: Batch) -> bool:
    """Whether pieces of all pictures stand in one list, as in Qwen."""
    return "image_grid_thw" in batch.inputs


def _shared(model: nn.Module, batches: list[Batch], whole: bool) -> Iterator[Batch]:
    """`share` of batches with the same kind of picture, or none."""
    rows = [row for batch in batches for row in _apart(model, batch)]
    groups = _grouped(rows, _image_token(model))
    saved = sum(cut * (len(some) - 1) for cut, some in groups)
    if saved < LEAST * sum(len(row.ids) for row in rows):
        yield from batches
        return
    size, side = max(len(batch.rows) for batch in batches), "left" if whole else "right"
    for i in range(0, len(groups), size):
        now = groups[i : i + size]
        first = _padded([some[0] for _, some in now], [(0, cut) for cut, _ in now], "right")
        cache = _read(model, first, [some[0] for _, some in now])
        asked = [(k, cut, row) for k, (cut, some) in enumerate(now) for row in some]
        asked.sort(key=lambda each: len(each[2].ids) - each[1])
        for j in range(0, len(asked), size):
            which, cuts, some = zip(*asked[j : j + size], strict=True)
            rest = _padded(
                some, [(cut, len(row.ids)) for cut, row in zip(cuts, some, strict=True)], side
            )
            yield _joined(first, cache, torch.tensor(which), rest, some, whole).to(model.device)


def _apart(model: nn.Module, batch: Batch) -> list[Row]:
    """The questions of a batch, each without padding and with its own pictures."""
    positions, rows = _positions(model, batch), []
    pictures = {name: x for name, x in batch.inputs.items() if name not in PER_TOKEN}
    pieces = {name: x.split(1) for name, x in pictures.items()}
    if _flat(batch):
        sizes = pictures["image_grid_thw"].prod(1).tolist()
        pieces["pixel_values"] = pictures["pixel_values"].split(sizes)
    for i, number in enumerate(batch.rows):
        read = batch.inputs["attention_mask"][i].bool()
        own = {name: each[i] for name, each in pieces.items()}
        seen = sha256(b"".join(x.cpu().contiguous().numpy().data for x in own.values())).digest()
        ends = None if batch.ends is None else batch.ends[i, read]
        rows.append(
            Row(
                batch.inputs["input_ids"][i, read],
                batch.labels[i, read],
                ends,
                positions[i, read],
                own,
                seen,
                number,
            )
        )
    return rows


def _positions(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Where each token stands, `[B, T, 1]`; `[B, T, 3]` where Qwen counts in three dimensions."""
    if _flat(batch):
        named = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        given = {name: batch.inputs[name] for name in named if name in batch.inputs}
        return body(model).get_rope_index(**given)[0].movedim(0, -1)
    return (batch.inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)[..., None]


def _image_token(model: nn.Module) -> int | None:
    """The id that stands for a piece of a picture; None in a model without eyes."""
    return getattr(model.config, "image_token_id", None)


def _grouped(rows: list[Row], image: int | None) -> list[tuple[int, list[Row]]]:
    """How many tokens are common, and the questions that begin with them; shortest first.

    A beginning ends behind the photo (or where the first question differs from another), or
    before the answer: whichever saves more.
    """
    common = len(commonprefix([row.ids.tolist() for row in rows]))
    found = []
    for answers in (False, True):
        groups: dict[tuple, list[Row]] = {}
        for row in rows:
            last = row.before_answer()
            cut = last if answers else min(last, max(common, row.behind(image)))
            groups.setdefault((cut, row.seen, *row.ids[:cut].tolist()), []).append(row)
        found.append(sorted(((key[0], some) for key, some in groups.items()), key=lambda g: g[0]))
    return max(found, key=lambda groups: sum(cut * (len(some) - 1) for cut, some in groups))


def _padded(
    rows: Sequence[Row], parts: list[tuple[int, int]], side: str
) -> dict[str, torch.Tensor]:
    """Some tokens of each question, from one to another, padded on a side: `[B, T]` each."""

    def stacked(tensors: list[torch.Tensor], value: int | bool) -> torch.Tensor:
        return pad_sequence(tensors, True, value, padding_side=side)

    pairs = [(row, slice(*part)) for row, part in zip(rows, parts, strict=True)]
    found = {
        "input_ids": stacked([row.ids[part] for row, part in pairs], 0),
        "attention_mask": stacked([torch.ones_like(row.ids[part]) for row, part in pairs], 0),
        "position_ids": stacked([row.positions[part] for row, part in pairs], 0),  # [B, T, 1 or 3]
        "labels": stacked([row.labels[part] for row, part in pairs], IGNORED),
    }
    if rows[0].ends is not None:
        found["ends"] = stacked([row.ends[part] for row, part in pairs], False)
    return found


def _as_given(positions: torch.Tensor) -> torch.Tensor:
    """`[B, T, 1 or 3]` as models take it: `[B, T]` or `[3, B, T]`."""
    return positions[..., 0] if positions.shape[-1] == 1 else positions.movedim(-1, 0)


@torch.no_grad()
def _read(model: nn.Module, first: dict[str, torch.Tensor], rows: list[Row]) -> DynamicCache:
    """Keys and values of beginnings."""
    inputs = {name: first[name] for name in ("input_ids", "attention_mask")}
    inputs["position_ids"] = _as_given(first["position_ids"])
    inputs |= {n: torch.cat([row.pictures[n] for row in rows]) for n in rows[0].pictures}
    inputs = {name: x.to(model.device) for name, x in inputs.items()}
    return body(model)(**inputs, use_cache=True).past_key_values


def _joined(
    first: dict[str, torch.Tensor],
    cache: DynamicCache,
    which: torch.Tensor,
    rest: dict[str, torch.Tensor],
    rows: Sequence[Row],
    whole: bool,
) -> Batch:
    """A batch of rests behind their beginnings, `which` of those that were read."""
    both = {name: torch.cat([first[name][which], x], 1) for name, x in rest.items()}
    start = 0 if whole else first["input_ids"].shape[1]
    here = which.to(cache.layers[0].keys.device)
    inputs = {
        "input_ids": both["input_ids"][:, start:],
        "attention_mask": both["attention_mask"],
        "position_ids": _as_given(both["position_ids"][:, start:]),
        "past_key_values": DynamicCache([(x.keys[here], x.values[here]) for x in cache.layers]),
    }
    ends = both["ends"][:, start:] if "ends" in both else None
    return Batch(inputs, both["labels"][:, start:], [row.number for row in rows], ends)
