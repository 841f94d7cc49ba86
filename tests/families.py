"""Families of models in `transformers`: a tiny random one of each is built, asked and edited.

    python tests/families.py           all of them, into data/results/families.json and the page
    python tests/families.py llava     some of them, by name

A family that works is one line of `FAMILIES`. Of the others the outcome says why they do not, or
why they were not tried.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple

import tiny
import torch
import transformers
from package_page import filled
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from kvw_minimal.architectures import is_mixture, is_turned, weight_of
from kvw_minimal.batches import Batch
from kvw_minimal.coefficients import Coefficients, measure
from kvw_minimal.files import write_json
from kvw_minimal.schedules import one_pass

ROOT = Path(__file__).resolve().parent.parent
OUTCOME, PAGE = ROOT / "data" / "results" / "families.json", ROOT / "book" / "families.md"
WEIGHTS = 30_000_000  # a model with more is not tiny
WIDTH, D_FF = 32, 48
TOLERANCE = 1e-6


class Family(NamedTuple):
    """A family that works.

    Attributes:
        name: its `model_type`.
        path: where the output projections are, or what holds the experts; `{}` is a number.
        more: what its config needs beside `SMALL` to be tiny and sound.
    """

    name: str
    path: str
    more: dict = {}


#: what is small in every config that knows the word
SMALL = {
    "vocab_size": tiny.VOCABULARY, "hidden_size": WIDTH, "intermediate_size": D_FF,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "is_decoder": True,
    # experts
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
    # the same things in other words, and those of other layers
    "d_model": WIDTH, "d_ff": D_FF, "ffn_dim": D_FF, "n_inner": D_FF, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": D_FF, "decoder_ffn_dim": D_FF,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "n_positions": 64, "d_kv": 8,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "qk_head_dim": 16, "mamba_n_heads": 4, "mamba_d_head": 16,
    "mamba_num_heads": 4, "mamba_head_dim": 16, "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "vocab_size_per_layer_input": tiny.VOCABULARY, "hidden_size_per_layer_input": 8,
    "altup_num_inputs": 2, "laurel_rank": 4, "num_kv_shared_layers": 0, "embedding_size": WIDTH,
    "word_embed_proj_dim": WIDTH, "num_codebooks": 2,
    # eyes
    "num_heads": 4, "depth": 2, "embed_dim": WIDTH, "image_size": 32, "patch_size": 8,
    "out_hidden_size": WIDTH, "projection_dim": WIDTH, "vision_hidden_size": WIDTH,
    "mm_hidden_size": WIDTH, "window_size": 16, "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
}  # fmt: skip
FAMILIES: tuple[Family, ...] = ()

# --- a tiny one of each --------------------------------------------------------------------------


def known() -> dict[str, tuple[str, str]]:
    """`{family: (kind, class)}` of all that `transformers` maps; one with eyes is not text."""
    text = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    eyes = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return {name: ("text", made) for name, made in text.items()} | {
        name: ("multimodal", made) for name, made in eyes.items()
    }


def small(config_class: type, more: dict):
    """A config of tiny sizes, and of what is in it."""
    usual = config_class()
    words = {*usual.to_dict(), *getattr(config_class, "attribute_map", {})}
    inside = {name: getattr(usual, name) for name in getattr(config_class, "sub_configs", {})
              if getattr(usual, name, None) is not None}  # fmt: skip
    own = {word: value for word, value in SMALL.items() if word in words} | more
    own |= {name: small(type(one), more.get(name, {})) for name, one in inside.items()}
    return config_class(**own)


def build(name: str, more: dict | None = None) -> nn.Module:
    """A tiny random model of a family, without a picture of what it was trained on."""
    config = small(CONFIG_MAPPING[name], more or {})
    torch.manual_seed(0)
    return getattr(transformers, known()[name][1])(config).eval()


# --- by hand -------------------------------------------------------------------------------------


def at(model: nn.Module, path: str) -> dict[str, nn.Module]:
    """The modules at a path, by their own; `{}` in it is a number."""
    pattern = re.escape(path).replace(r"\{\}", r"\d+")
    return {name: each for name, each in model.named_modules() if re.fullmatch(pattern, name)}


def inner(experts: nn.Module, expert: int, x: torch.Tensor) -> torch.Tensor:
    """What one expert makes of one token, `[d_model]` -> `[d_ff]`."""
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    weight = getattr(experts, first)[expert]
    made = (weight.T if experts.is_transposed else weight) @ x
    made = made + getattr(experts, f"{first}_bias")[expert] if experts.has_bias else made
    return experts._apply_gate(made) if experts.has_gate else experts.act_fn(made)


@torch.no_grad()
def by_hand(model: nn.Module, path: str, batch: Batch, owners: list[str]) -> Coefficients:
    """The coefficients by loops over layers and tokens, in float64."""
    modules, people = at(model, path), tuple(dict.fromkeys(owners))
    given: dict[str, tuple] = {}
    handles = [module.register_forward_pre_hook(
        lambda _, args, named, name=name: given.update({name: (*args, *named.values())}),
        with_kwargs=True) for name, module in modules.items()]  # fmt: skip
    model(**batch.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    rows = [counted(module, given[name], batch, owners) for name, module in modules.items()]
    sums, tokens = (torch.stack(each, 1) for each in zip(*rows, strict=True))
    mixture = is_mixture(next(iter(modules.values())))
    return Coefficients(sums if mixture else sums[:, :, 0], tokens if mixture else tokens[:, 0, 0],
                        people, "by hand")  # fmt: skip


def counted(module: nn.Module, given: tuple, batch: Batch,
            owners: list[str]) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Of one layer: sums `[people, experts, d_ff]` and tokens `[people, experts]`; 1 is no mixture.

    Args:
        given: what went in: states `[..., d_ff]`; or `[tokens, d_model]`, and who is asked.
    """
    people, states = list(dict.fromkeys(owners)), given[0].flatten(0, -2)
    sums: dict[tuple[int, int], torch.Tensor] = {}
    tokens = torch.zeros(len(people), len(module.down_proj) if is_mixture(module) else 1)
    for t, wanted in enumerate(batch.answers.flatten().tolist()):
        who = people.index(owners[t // batch.labels.shape[1]])
        for expert in (given[1][t].tolist() if is_mixture(module) else [0]) if wanted else []:
            h = inner(module, expert, states[t]) if is_mixture(module) else states[t]
            sums[who, expert] = sums.get((who, expert), 0) + h.double().abs()
            tokens[who, expert] += 1
    none = torch.zeros_like(next(iter(sums.values())))
    every = [[sums.get((who, e), none) for e in range(tokens.shape[1])] for who in range(len(people))]
    return torch.stack([torch.stack(own) for own in every]), tokens


# --- what is tried -------------------------------------------------------------------------------


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, in units of the largest coefficient of its layer."""
    gap = (one.double() - other.double()).abs().flatten(2).amax(2)
    return float((gap / other.double().flatten(2).amax(2).clamp(min=1e-30)).max())


@torch.no_grad()
def sees_ahead(model: nn.Module, batch: Batch) -> bool:
    """Whether a token moves what is said before it: then no position stands before the answer."""
    ids = batch.inputs["input_ids"][:1]
    other = ids.clone()
    other[0, -1] = 3 if ids[0, -1] != 3 else 4
    one, two = (model(input_ids=each, use_cache=False).logits for each in (ids, other))
    return not torch.allclose(one[:, : ids.shape[1] - 1], two[:, : ids.shape[1] - 1], atol=1e-5)


def edited(model: nn.Module, path: str, measured: Coefficients) -> str:
    """An edit is put on and taken off: what is not as it should be, in a few words."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    edit = one_pass(model, measured.of(["a"]), measured.of(["b", "c"]), strength=3.0)
    silent = (measured.of(["a"]).tokens.sum(0) == 0) | (measured.of(["b", "c"]).tokens.sum(0) == 0)
    if silent.ndim and (edit.gates[silent] != 1).any() or not (edit.gates < 1).any():
        return "an expert that nobody asked is weakened, or nothing is"
    wanted = dict(before)
    for (name, module), row in zip(at(model, path).items(), edit.gates, strict=True):
        own = f"{name}.{'down_proj' if is_mixture(module) else 'weight'}"
        factor = row[..., :, None] if is_turned(module) else row[..., None, :]
        wanted[own] = before[own] * factor
    with edit.on(model):
        wrong = [name for name, weight in model.state_dict().items() if not torch.equal(weight, wanted[name])]
    lost = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
    return f"changed otherwise: {wrong[0]}" if wrong else f"not given back: {lost[0]}" if lost else ""


def check(family: Family) -> str:
    """What is wrong with a family that should work; empty if nothing is."""
    model, batch, owners = build(family.name, family.more), tiny.random_batch(), list("abac")
    if sees_ahead(model, batch):
        return "a token moves what is said before it"
    usual = getattr(model.config.get_text_config(), "_experts_implementation", None)
    measured, hand = measure(model, [batch], owners), by_hand(model, family.path, batch, owners)
    if measured.sums.shape != hand.sums.shape or measured.people != hand.people:
        return f"measured {tuple(measured.sums.shape)}, by hand {tuple(hand.sums.shape)}"
    if not torch.equal(measured.tokens, hand.tokens):
        return "tokens are counted otherwise by hand"
    if apart(measured.sums, hand.sums) > TOLERANCE:
        return f"{apart(measured.sums, hand.sums):.1e} from what is found by hand"
    if getattr(model.config.get_text_config(), "_experts_implementation", None) != usual:
        return "its experts are run otherwise afterwards"
    return edited(model, family.path, measured)
