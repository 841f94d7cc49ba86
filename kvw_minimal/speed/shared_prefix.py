"""The same coefficients from fewer tokens: what several questions have in common is read once.

Questions about one photo begin alike: the turn of the user, the image tokens, often the first
words. While the weights stand still, a causal model computes the same for them every time. Here
the questions of a photo are laid out as one tree, in which a common beginning stands once, and
the tree is read as one sequence: a token sees its ancestors and nothing else, and its position is
its depth. Nothing is approximated, so `coefficients.measure` gives the same numbers; it is the one
to read first.

A sequence made of branches needs a mask of its own, `[B, 1, L, L]`. Which models take one and
attend causally to everything before is listed in `MODELS` and tested for each; the published
schedule, which changes the weights after every batch, has nothing to share between batches.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapreplace
from math import ceil

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from ..batches import Batch
from ..coefficients import Coefficients, shape_of, watch
from ..models import body, find_projections, fingerprint

#: model types for which the tests show equality
MODELS = (
    "llava",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "smolvlm",
    "idefics3",
    "internvl",
    "llama",
    "gpt2",
    "opt",
    "phi",
)
#: inputs with one number a token; all others are pictures
PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
BRANCHES = 8  # questions a tree at most: every token is compared with its whole row
PAIRS = 3000  # compared tokens that cost as much as one through the weights (at width 576)


@dataclass
class Tree:
    """Questions that begin alike, each common beginning once.

    Attributes:
        ids: `[L]`, a token id for each node; a parent stands before its children.
        positions: `[L]`, or `[L, 3]` in a model that counts time, height and width.
        sees: `[L, L]` bool, whether a node sees another: its ancestors and itself.
        predicts: nodes that predict an answer token, once for each question that needs it.
        rows: for each of `predicts`, the question that it belongs to.
        pictures: what the model takes besides tokens.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    predicts: torch.Tensor
    rows: list[int]
    pictures: dict[str, torch.Tensor]


class _Enough(Exception):
    """Raised inside a forward pass when the last coefficients have been seen."""


def check_sharing(model: nn.Module) -> None:
    """Raise ValueError unless the tests show this kind of model to give equal coefficients."""
    kind = model.config.model_type
    layers = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or []
    attention = model.config._attn_implementation
    if kind not in MODELS or set(layers) - {"full_attention"} or attention not in ("sdpa", "eager"):
        raise ValueError(
            f"sharing beginnings is not shown to be exact for {kind} with {attention} attention "
            "(or one that sees a window only); use coefficients.measure_questions"
        )


def _positions(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Where each token of one question stands, `[T]`; `[T, 3]` where Qwen counts in 3D."""
    if "image_grid_thw" in batch.inputs:
        named = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
        given = {name: batch.inputs[name] for name in named if name in batch.inputs}
        return body(model).get_rope_index(**given)[0][:, 0].T
    return torch.arange(batch.labels.shape[1])


def grow(model: nn.Module, batches: list[Batch], rows: list[int]) -> Tree:
    """Lay some questions out as one tree.

    Args:
        batches: one question each, not padded.
        rows: which of them; they show the same photo, or none.
    """
    nodes: dict[tuple[int, int], int] = {}
    ids, positions, paths, predicts, owners = [], [], [], [], []
    for row in rows:
        tokens, where = batches[row].inputs["input_ids"][0], _positions(model, batches[row])
        path: list[int] = []
        for t, token in enumerate(tokens.tolist()):
            branch = (path[-1] if path else -1, token)
            if branch not in nodes:
                nodes[branch] = len(nodes)
                ids.append(token)
                positions.append(where[t])
            path.append(nodes[branch])
        paths.append(torch.tensor(path))
        predicts.append(paths[-1][batches[row].answers[0]])
        owners += [row] * len(predicts[-1])
    sees = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for way in paths:  # each token sees what led to it
        sees[way[:, None], way] |= torch.ones(len(way), len(way), dtype=torch.bool).tril()
    pictures = {n: x for n, x in batches[rows[0]].inputs.items() if n not in PER_TOKEN}
    return Tree(
        torch.tensor(ids), torch.stack(positions), sees, torch.cat(predicts), owners, pictures
    )


def plant(model: nn.Module, batches: list[Batch], photos: Sequence[Hashable]) -> list[Tree]:
    """All trees: one or several a photo, neighbours in the alphabet together; longest first."""
    batches = sorted(batches, key=lambda batch: batch.rows)
    if any(len(batch.rows) > 1 for batch in batches):
        raise ValueError("sharing takes one question a batch: encode with batch_size=1")
    by_photo: dict[Hashable, list[int]] = {}
    for row, photo in enumerate(photos):
        by_photo.setdefault(photo, []).append(row)
    trees = []
    for rows in by_photo.values():
        rows = sorted(rows, key=lambda row: batches[row].inputs["input_ids"][0].tolist())
        trees += [
            grow(model, batches, rows[i : i + BRANCHES]) for i in range(0, len(rows), BRANCHES)
        ]
    return sorted(trees, key=lambda tree: -len(tree.ids))


def _filled(trees: list[Tree], count: int) -> list[list[Tree]]:
    """Trees, longest first, in `count` rows: each into the row that is shortest so far."""
    rows: list[list[Tree]] = [[] for _ in range(count)]
    shortest = [(0, i) for i in range(count)]
    for tree in trees:
        length, i = shortest[0]
        rows[i].append(tree)
        heapreplace(shortest, (length + len(tree.ids), i))
    return rows


def _cost(rows: list[list[Tree]]) -> int:
    """What a pass costs, padding included: weights for every token, attention for every pair."""
    longest = max(sum(len(tree.ids) for tree in row) for row in rows)
    return len(rows) * longest * (PAIRS + longest)


def arrange(trees: list[Tree], batch_size: int) -> list[list[list[Tree]]]:
    """Passes of rows of trees: rows of about one length leave little padding.

    A row holds one kind of picture; a pass about `batch_size` questions.
    """
    kinds: dict[Hashable, list[Tree]] = {}
    for tree in trees:
        kind = tuple((name, x.shape[1:]) for name, x in tree.pictures.items())
        kinds.setdefault(kind, []).append(tree)
    passes = []
    for alike in kinds.values():
        together, longest = sum(len(tree.ids) for tree in alike), len(alike[0].ids)
        counts = {ceil(together / (times * longest)) for times in (1, 1.5, 2, 3, 4)}
        rows = min((_filled(alike, count) for count in sorted(counts)), key=_cost)
        parts = ceil(sum(len(set(tree.rows)) for tree in alike) / batch_size)
        passes += [rows[i::parts] for i in range(min(parts, len(rows)))]
    return passes


def inputs_of(rows: list[list[Tree]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What the model takes: `input_ids [B, L]`, an additive mask `[B, 1, L, L]`, positions."""
    ids = [torch.cat([tree.ids for tree in row]) for row in rows]
    positions = [torch.cat([tree.positions for tree in row]) for row in rows]
    ids = pad_sequence(ids, batch_first=True)  # [B, L]
    sees = torch.eye(ids.shape[1], dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself
    for i, row in enumerate(rows):
        forest = torch.block_diag(*[tree.sees for tree in row]).bool()
        sees[i, : len(forest), : len(forest)] = forest
    mask = torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)
    where = pad_sequence(positions, batch_first=True)  # [B, L] or [B, L, 3]
    trees = [tree for row in rows for tree in row]
    return {
        "input_ids": ids,
        "attention_mask": mask[:, None],  # [B, 1, L, L]
        "position_ids": where.movedim(2, 0) if where.ndim == 3 else where,
        **{name: torch.cat([tree.pictures[name] for tree in trees]) for name in trees[0].pictures},
    }


def predicting(rows: list[list[Tree]], length: int) -> torch.Tensor:
    """Where in `B * length` tokens the nodes stand that predict an answer."""
    found = []
    for i, row in enumerate(rows):
        start = i * length
        for tree in row:
            found.append(tree.predicts + start)
            start += len(tree.ids)
    return torch.cat(found)


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: list[Batch],
    people: list[str],
    photos: Sequence[Hashable],
    batch_size: int = 64,
    mark: str | None = None,
) -> Coefficients:
    """`coefficients.measure` of the same questions, to rounding.

    Args:
        batches: one question each, not padded: from `answer_batches(..., batch_size=1)`.
        people: the person of each question, in the order in which they were encoded.
        photos: what tells the photo of each question from others, None for a text question.
        batch_size: about how many questions are read at a time.
        mark: fingerprint of the model, where it is known: every byte is read for it.

    Raises:
        ValueError: a model not in `MODELS`, a batch of several questions, or an activation that
            is not finite; the message names the layer.
    """
    check_sharing(model)
    projections, (layers, d_ff) = find_projections(model), shape_of(model)
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    names = tuple(dict.fromkeys(people))
    number = {name: i for i, name in enumerate(names)}
    sums = torch.zeros(layers, len(names), d_ff, device=device)  # a layer's in one piece
    tokens = torch.zeros(len(names), device=device)
    for rows in arrange(plant(model, batches, photos), batch_size):
        inputs = {name: x.to(device) for name, x in inputs_of(rows, dtype).items()}
        nodes = predicting(rows, inputs["input_ids"].shape[1]).to(device)  # [answer tokens]
        asked = [people[question] for row in rows for tree in row for question in tree.rows]
        owner = torch.tensor([number[person] for person in asked], device=device)
        tokens.index_add_(0, owner, torch.ones(len(owner), device=device))

        def see(layer, h, nodes=nodes, owner=owner):
            h = h.reshape(-1, d_ff).index_select(0, nodes)  # [answer tokens, d_ff]
            sums[layer].index_add_(0, owner, h.float().abs_())
            if layer == layers - 1:
                raise _Enough

        with suppress(_Enough), watch(projections, see):
            body(model)(**inputs, use_cache=False)
    bad = (~sums.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite activations in layer {bad[0]}; is the model broken?")
    sums = sums.movedim(0, 1).contiguous()  # [people, layers, d_ff]
    return Coefficients(sums, tokens, names, mark or fingerprint(model))
