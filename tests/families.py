"""Families of models in `transformers`: a tiny random one of each is built, asked and edited.

    python tests/families.py           all of them, into data/results/families.json and the page
    python tests/families.py llava     some of them, by name

A family that works is one line of `FAMILIES`. Of the others the outcome says why they do not, or
why they were not tried.
"""

import re
import signal
import sys
import time
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

from kvw_minimal.architectures import is_mixture, is_turned
from kvw_minimal.batches import Batch
from kvw_minimal.coefficients import Coefficients, measure
from kvw_minimal.files import write_json
from kvw_minimal.models import find_projections
from kvw_minimal.requests.provenance import commit
from kvw_minimal.schedules import one_pass

ROOT = Path(__file__).resolve().parent.parent
OUTCOME, PAGE = ROOT / "data" / "results" / "families.json", ROOT / "book" / "families.md"
WEIGHTS = 30_000_000  # a model with more is not tiny
WIDTH, D_FF = 32, 48
TOLERANCE = 1e-6  # of the largest coefficient of a layer
SECONDS = 60  # for one family
SILENT = ("xlstm",)
AHEAD = "a token moves what is said before it: no position stands before the answer"
#: what else comes out, and how a page calls it
RESULTS = {
    "refused": "Refused, with this sentence",
    "unsound": "Not noticed, and not to be used",
    "wrong": "Should work and does not",
    "no line": "Works, and nobody wrote it down",
    "not tried": "Not tried",
}


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
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": D_FF,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
    # experts
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 0,
    # the same things in other words, and those of other layers
    "d_model": WIDTH,
    "d_ff": D_FF,
    "ffn_dim": D_FF,
    "n_inner": D_FF,
    "num_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": D_FF,
    "decoder_ffn_dim": D_FF,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "n_positions": 64,
    "d_kv": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "qk_head_dim": 16,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "vocab_size_per_layer_input": tiny.VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "altup_num_inputs": 2,
    "laurel_rank": 4,
    "num_kv_shared_layers": 0,
    "embedding_size": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "num_codebooks": 2,
    # eyes
    "num_heads": 4,
    "depth": 2,
    "embed_dim": WIDTH,
    "image_size": 32,
    "patch_size": 8,
    "out_hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "vision_hidden_size": WIDTH,
    "mm_hidden_size": WIDTH,
    "window_size": 16,
    "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
}


def in_sections(*sizes: int) -> dict:
    """Rotary positions in three parts: time, height, width."""
    kind = {"rope_type": "default", "rope_theta": 1e4}
    return {"rope_parameters": {"mrope_section": list(sizes), **kind}}


FULL = {"layer_types": ["full_attention"] * 2}
#: those with eyes first; a new family is one line more
FAMILIES = tuple(
    Family(*row)
    for row in (
        ("aria", "model.language_model.layers.{}.mlp.experts"),
        ("aya_vision", "model.language_model.layers.{}.mlp.down_proj"),
        ("cohere2_vision", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "cosmos3_edge",
            "model.language_model.layers.{}.mlp.fc2",
            {"text_config": in_sections(1, 1, 2)},
        ),
        ("cosmos3_omni", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "deepseek_ocr2",
            "model.language_model.layers.{}.mlp.experts",
            {"text_config": {**FULL, "mlp_layer_types": ["dense", "sparse"]}},
        ),
        ("deepseek_vl", "model.language_model.layers.{}.mlp.down_proj"),
        ("deepseek_vl_hybrid", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "ernie4_5_vl_moe",
            "model.language_model.layers.{}.mlp.text_moe.experts",
            {"text_config": {"moe_intermediate_size": [24, 24], **in_sections(1, 1, 2)}},
        ),
        ("exaone4_5", "model.language_model.layers.{}.mlp.down_proj"),
        ("fuyu", "model.language_model.layers.{}.mlp.dense_4h_to_h"),
        ("gemma3", "model.language_model.layers.{}.mlp.down_proj"),
        ("gemma4", "model.language_model.layers.{}.mlp.down_proj"),
        ("gemma4_unified", "model.language_model.layers.{}.mlp.down_proj"),
        ("git", "git.encoder.layer.{}.output.dense"),
        (
            "glm46v",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        (
            "glm4v",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        (
            "glm4v_moe",
            "model.language_model.layers.{}.mlp.experts",
            {"text_config": in_sections(1, 1, 0)},
        ),
        (
            "glm_ocr",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        (
            "glmga",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        ("got_ocr2", "model.language_model.layers.{}.mlp.down_proj"),
        ("granite_docling", "model.text_model.layers.{}.mlp.down_proj"),
        ("hyperclovax_vision_v2", "model.language_model.layers.{}.mlp.down_proj"),
        ("idefics2", "model.text_model.layers.{}.mlp.down_proj"),
        ("idefics3", "model.text_model.layers.{}.mlp.down_proj"),
        ("inkling_mm_model", "model.language_model.layers.{}.mlp.experts"),
        ("internvl", "model.language_model.layers.{}.mlp.down_proj"),
        ("janus", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "kimi_k25",
            "model.language_model.layers.{}.mlp.experts",
            {"text_config": {"num_key_value_heads": 4}},
        ),
        ("kosmos-2.5", "text_model.model.layers.{}.ffn.fc2"),
        ("lfm2_vl", "model.language_model.layers.{}.feed_forward.w2"),
        ("lfm3_vl", "model.language_model.layers.{}.feed_forward.w2"),
        ("lighton_ocr", "model.language_model.layers.{}.mlp.down_proj"),
        ("llava", "model.language_model.layers.{}.mlp.down_proj"),
        ("llava_next", "model.language_model.layers.{}.mlp.down_proj"),
        ("llava_next_video", "model.language_model.layers.{}.mlp.down_proj"),
        ("llava_onevision", "model.language_model.layers.{}.mlp.down_proj"),
        ("minicpm_ocr", "model.language_model.layers.{}.mlp.down_proj"),
        ("minicpmv4_6", "model.language_model.layers.{}.mlp.down_proj"),
        ("minicpmv4_7", "model.language_model.layers.{}.mlp.down_proj"),
        ("minimax_m3_vl", "model.language_model.layers.{}.mlp.experts"),
        ("mistral3", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "mistral_large4",
            "model.language_model.layers.{}.mlp.experts",
            {"text_config": {"num_key_value_heads": 4}},
        ),
        ("mllama", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "molmo2",
            "model.language_model.layers.{}.mlp.down_proj",
            {"vision_config": {"image_size": [32, 32]}, "vit_config": {"image_size": [32, 32]}},
        ),
        ("muse_glimmer", "model.language_model.layers.{}.mlp.down_proj"),
        ("ovis2", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "paddleocr_vl",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        ("pp_chart2table", "model.language_model.layers.{}.mlp.down_proj"),
        ("qianfan_ocr", "model.language_model.layers.{}.mlp.down_proj"),
        (
            "qwen2_5_omni_thinker",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2), "vision_start_token_id": 90},
        ),
        (
            "qwen2_5_vl",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        (
            "qwen2_vl",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": in_sections(1, 1, 2)},
        ),
        ("qwen3_5", "model.language_model.layers.{}.mlp.down_proj"),
        ("qwen3_5_moe", "model.language_model.layers.{}.mlp.experts"),
        (
            "qwen3_omni_moe_thinker",
            "model.language_model.layers.{}.mlp.experts",
            {"text_config": in_sections(1, 1, 2), "vision_start_token_id": 90},
        ),
        ("qwen3_vl", "model.language_model.layers.{}.mlp.down_proj"),
        ("qwen3_vl_moe", "model.language_model.layers.{}.mlp.experts"),
        ("qwen4_exp", "model.language_model.layers.{}.mlp.experts"),
        ("shieldgemma2", "model.language_model.layers.{}.mlp.down_proj"),
        ("smolvlm", "model.text_model.layers.{}.mlp.down_proj"),
        (
            "step3p7",
            "model.language_model.layers.{}.mlp.down_proj",
            {"text_config": {"sliding_window": 16}},
        ),
        ("unlimited_ocr", "model.language_model.layers.{}.mlp.experts"),
        ("video_llama_3", "model.language_model.layers.{}.mlp.down_proj"),
        ("video_llava", "model.language_model.layers.{}.mlp.down_proj"),
        ("vipllava", "model.language_model.layers.{}.mlp.down_proj"),
        ("afmoe", "model.layers.{}.mlp.experts"),
        ("apertus", "model.layers.{}.mlp.down_proj"),
        ("arcee", "model.layers.{}.mlp.down_proj"),
        ("aria_text", "model.layers.{}.mlp.experts"),
        ("axk1", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("axk2", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("bailing_hybrid", "model.layers.{}.mlp.experts"),
        ("bamba", "model.layers.{}.feed_forward.down_proj"),
        ("bart", "model.decoder.layers.{}.fc2"),
        ("beam", "model.layers.{}.mlp.down_proj"),
        ("bert", "bert.encoder.layer.{}.output.dense"),
        ("bert-generation", "bert.encoder.layer.{}.output.dense"),
        ("big_bird", "bert.encoder.layer.{}.output.dense"),
        ("bigbird_pegasus", "model.decoder.layers.{}.fc2"),
        ("biogpt", "biogpt.layers.{}.fc2"),
        ("bitnet", "model.layers.{}.mlp.down_proj"),
        ("blenderbot", "model.decoder.layers.{}.fc2"),
        ("blenderbot-small", "model.decoder.layers.{}.fc2"),
        ("bloom", "transformer.h.{}.mlp.dense_4h_to_h"),
        ("camembert", "roberta.encoder.layer.{}.output.dense"),
        ("codegen", "transformer.h.{}.mlp.fc_out", {"rotary_dim": 4, "n_positions": 64}),
        ("cohere", "model.layers.{}.mlp.down_proj"),
        ("cohere2", "model.layers.{}.mlp.down_proj"),
        ("cohere2_moe", "model.layers.{}.mlp.experts"),
        ("ctrl", "transformer.h.{}.ffn.2"),
        ("cwm", "model.layers.{}.mlp.down_proj"),
        ("data2vec-text", "data2vec_text.encoder.layer.{}.output.dense"),
        ("deepseek_v2", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("deepseek_v3", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("deepseek_v32", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("deepseek_v4", "model.layers.{}.mlp.experts"),
        ("diffllama", "model.layers.{}.mlp.down_proj"),
        ("doge", "model.layers.{}.mlp.down_proj"),
        ("dots1", "model.layers.{}.mlp.experts", {"n_shared_experts": 1}),
        ("dots3_note_text", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("electra", "electra.encoder.layer.{}.output.dense"),
        ("ernie", "ernie.encoder.layer.{}.output.dense"),
        ("ernie4_5", "model.layers.{}.mlp.down_proj"),
        ("ernie4_5_moe", "model.layers.{}.mlp.experts"),
        ("exaone4", "model.layers.{}.mlp.down_proj"),
        ("exaone_moe", "model.layers.{}.mlp.experts"),
        ("falcon", "transformer.h.{}.mlp.dense_4h_to_h"),
        ("flex_olmo", "model.layers.{}.mlp.experts"),
        ("flint", "model.layers.{}.mlp.down_proj"),
        ("gemma", "model.layers.{}.mlp.down_proj"),
        ("gemma2", "model.layers.{}.mlp.down_proj"),
        ("gemma3_text", "model.layers.{}.mlp.down_proj"),
        ("gemma3n_text", "model.layers.{}.mlp.down_proj"),
        ("gemma4_text", "model.layers.{}.mlp.down_proj"),
        ("gemma4_unified_text", "model.layers.{}.mlp.down_proj"),
        ("glm", "model.layers.{}.mlp.down_proj"),
        ("glm4", "model.layers.{}.mlp.down_proj"),
        ("glm4_moe", "model.layers.{}.mlp.experts"),
        ("glm4_moe_lite", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("glm_moe_dsa", "model.layers.{}.mlp.experts", {"num_key_value_heads": 4}),
        ("gpt-sw3", "transformer.h.{}.mlp.c_proj"),
        ("gpt2", "transformer.h.{}.mlp.c_proj"),
        ("gpt_bigcode", "transformer.h.{}.mlp.c_proj"),
        ("gpt_neo", "transformer.h.{}.mlp.c_proj", {"attention_types": [[["global", "local"], 1]]}),
        ("gpt_neox", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
        ("gpt_neox_japanese", "gpt_neox_japanese.layers.{}.mlp.dense_4h_to_h"),
        ("gpt_oss", "model.layers.{}.mlp.experts"),
        ("gptj", "transformer.h.{}.mlp.fc_out", {"rotary_dim": 4, "n_positions": 64}),
        ("granite", "model.layers.{}.mlp.down_proj"),
        ("granite_swa", "model.layers.{}.mlp.down_proj"),
        ("granitemoe", "model.layers.{}.block_sparse_moe.experts"),
        ("granitemoe_swa", "model.layers.{}.block_sparse_moe.experts"),
        ("granitemoehybrid", "model.layers.{}.block_sparse_moe.experts"),
        ("granitemoeshared", "model.layers.{}.block_sparse_moe.experts"),
        ("helium", "model.layers.{}.mlp.down_proj"),
        ("hunyuan_v1_dense", "model.layers.{}.mlp.down_proj"),
        ("hunyuan_v1_moe", "model.layers.{}.mlp.experts"),
        ("hy_v3", "model.layers.{}.mlp.experts"),
        ("hy_v4", "model.layers.{}.mlp.experts"),
        ("hyperclovax", "model.layers.{}.mlp.down_proj"),
        ("inkling2_text", "model.layers.{}.mlp.experts"),
        ("inkling_text", "model.layers.{}.mlp.experts"),
        ("internlm3", "model.layers.{}.mlp.down_proj"),
        ("iquestcoder", "model.layers.{}.mlp.down_proj"),
        ("jais2", "model.layers.{}.mlp.down_proj"),
        ("jamba", "model.layers.{}.feed_forward.experts"),
        ("kimi_linear", "model.layers.{}.mlp.experts"),
        ("kolibri1", "model.layers.{}.mlp.experts"),
        ("laguna", "model.layers.{}.mlp.experts"),
        ("lfm2", "model.layers.{}.feed_forward.w2"),
        (
            "lfm2_moe",
            "model.layers.{}.feed_forward.experts",
            {"layer_types": ["conv", "full_attention"], "num_dense_layers": 0},
        ),
        ("lfm3", "model.layers.{}.feed_forward.w2"),
        ("llama", "model.layers.{}.mlp.down_proj"),
        ("marian", "model.decoder.layers.{}.fc2"),
        ("mbart", "model.decoder.layers.{}.fc2"),
        ("megatron-bert", "bert.encoder.layer.{}.output.dense"),
        ("mellum", "model.layers.{}.mlp.experts"),
        ("mimo_v2_flash", "model.layers.{}.mlp.experts"),
        ("minicpm3", "model.layers.{}.mlp.down_proj", {"num_key_value_heads": 4}),
        ("minimax", "model.layers.{}.mlp.experts"),
        ("minimax_m2", "model.layers.{}.mlp.experts"),
        ("minimax_m3_vl_text", "model.layers.{}.mlp.experts"),
        ("ministral", "model.layers.{}.mlp.down_proj"),
        ("ministral3", "model.layers.{}.mlp.down_proj"),
        ("mistral", "model.layers.{}.mlp.down_proj"),
        ("mixtral", "model.layers.{}.mlp.experts"),
        ("modernbert-decoder", "model.layers.{}.mlp.Wo"),
        ("moshi", "model.layers.{}.mlp.fc2"),
        ("moss_transcribe_diarize", "model.language_model.layers.{}.mlp.down_proj"),
        ("mpt", "transformer.blocks.{}.ffn.down_proj"),
        ("mvp", "model.decoder.layers.{}.fc2"),
        ("nanochat", "model.layers.{}.mlp.fc2"),
        ("nemotron", "model.layers.{}.mlp.down_proj"),
        ("nemotron_h", "model.layers.{}.mixer.experts", {"n_groups": 2}),
        ("olmo", "model.layers.{}.mlp.down_proj"),
        ("olmo2", "model.layers.{}.mlp.down_proj"),
        ("olmo3", "model.layers.{}.mlp.down_proj"),
        ("olmo_hybrid", "model.layers.{}.mlp.down_proj"),
        ("olmoe", "model.layers.{}.mlp.experts"),
        ("openai-gpt", "transformer.h.{}.mlp.c_proj"),
        ("opt", "model.decoder.layers.{}.fc2"),
        ("pegasus", "model.decoder.layers.{}.fc2"),
        ("persimmon", "model.layers.{}.mlp.dense_4h_to_h"),
        ("phi", "model.layers.{}.mlp.fc2"),
        ("phi3", "model.layers.{}.mlp.down_proj"),
        ("phi4_multimodal", "model.layers.{}.mlp.down_proj"),
        ("phimoe", "model.layers.{}.mlp.experts"),
        ("plbart", "model.decoder.layers.{}.fc2"),
        ("qwen2", "model.layers.{}.mlp.down_proj"),
        ("qwen2_moe", "model.layers.{}.mlp.experts"),
        ("qwen3", "model.layers.{}.mlp.down_proj"),
        ("qwen3_5_moe_text", "model.layers.{}.mlp.experts"),
        ("qwen3_5_text", "model.layers.{}.mlp.down_proj"),
        ("qwen3_moe", "model.layers.{}.mlp.experts"),
        ("qwen3_next", "model.layers.{}.mlp.experts"),
        ("qwen4_exp_text", "model.layers.{}.mlp.experts"),
        ("recurrent_gemma", "model.layers.{}.mlp_block.down_proj"),
        ("rembert", "rembert.encoder.layer.{}.output.dense"),
        ("roberta", "roberta.encoder.layer.{}.output.dense"),
        ("roberta-prelayernorm", "roberta_prelayernorm.encoder.layer.{}.output.dense"),
        ("roc_bert", "roc_bert.encoder.layer.{}.output.dense"),
        ("roformer", "roformer.encoder.layer.{}.output.dense"),
        ("rwkv", "rwkv.blocks.{}.feed_forward.value"),
        ("seed_oss", "model.layers.{}.mlp.down_proj"),
        ("smollm3", "model.layers.{}.mlp.down_proj"),
        ("solar_open", "model.layers.{}.mlp.experts"),
        ("stablelm", "model.layers.{}.mlp.down_proj"),
        ("starcoder2", "model.layers.{}.mlp.c_proj"),
        ("trocr", "model.decoder.layers.{}.fc2"),
        ("vaultgemma", "model.layers.{}.mlp.down_proj"),
        ("whisper", "model.decoder.layers.{}.fc2"),
        ("xglm", "model.layers.{}.fc2"),
        ("xlm-roberta", "roberta.encoder.layer.{}.output.dense"),
        ("xlm-roberta-xl", "roberta.encoder.layer.{}.output.dense"),
        ("youtu", "model.layers.{}.mlp.down_proj", {"num_key_value_heads": 4}),
        ("zaya", "model.layers.{}.mlp.experts", {"num_experts_per_tok": 1}),
    )
)


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
    inside = {
        name: getattr(usual, name)
        for name in getattr(config_class, "sub_configs", {})
        if getattr(usual, name, None) is not None
    }
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
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, named, name=name: given.update({name: (*args, *named.values())}),
            with_kwargs=True,
        )
        for name, module in modules.items()
    ]
    model(**batch.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    rows = [counted(module, given[name], batch, owners) for name, module in modules.items()]
    sums, tokens = (torch.stack(each, 1) for each in zip(*rows, strict=True))
    mixture = is_mixture(next(iter(modules.values())))
    return Coefficients(
        sums if mixture else sums[:, :, 0],
        tokens if mixture else tokens[:, 0, 0],
        people,
        "by hand",
    )


def counted(
    module: nn.Module, given: tuple, batch: Batch, owners: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one layer: sums `[people, experts, d_ff]` and tokens `[people, experts]`; 1 is no mixture.

    Args:
        given: what went in: states `[..., d_ff]`; or `[tokens, d_model]`, and who is asked.
    """
    people, states = list(dict.fromkeys(owners)), given[0].flatten(0, -2)
    sums: dict[tuple[int, int], torch.Tensor] = {}
    tokens = torch.zeros(len(people), len(module.down_proj) if is_mixture(module) else 1)
    for t, wanted in enumerate(batch.answers.flatten().tolist()):
        who = people.index(owners[t // batch.labels.shape[1]])
        asked = given[1][t].tolist() if is_mixture(module) else [0]
        for expert in asked if wanted else []:
            h = inner(module, expert, states[t]) if is_mixture(module) else states[t]
            sums[who, expert] = sums.get((who, expert), 0) + h.double().abs()
            tokens[who, expert] += 1
    none = torch.zeros_like(next(iter(sums.values())))
    whole = [
        torch.stack([sums.get((who, expert), none) for expert in range(tokens.shape[1])])
        for who in range(len(people))
    ]
    return torch.stack(whole), tokens


# --- what is tried -------------------------------------------------------------------------------


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, in units of the largest coefficient of its layer and person."""
    gap = (one.double() - other.double()).abs().flatten(2).amax(2)
    return float((gap / other.double().flatten(2).amax(2).clamp(min=1e-30)).max())


@torch.no_grad()
def sees_ahead(model: nn.Module, batch: Batch) -> bool:
    """Whether a token moves what is said before it: then no position stands before the answer."""
    ids = batch.inputs["input_ids"][:1]
    other = ids.clone()
    other[0, -1] = 3 if ids[0, -1] != 3 else 4
    before = ids.shape[1] - 1
    one, two = (model(input_ids=each, use_cache=False).logits[:, :before] for each in (ids, other))
    return not torch.allclose(one, two, atol=1e-5)


def differing(model: nn.Module, wanted: dict[str, torch.Tensor]) -> list[str]:
    """The tensors of a model that are not these, to the bit."""
    return [
        name for name, weight in model.state_dict().items() if not torch.equal(weight, wanted[name])
    ]


def edited(model: nn.Module, path: str, measured: Coefficients) -> str:
    """An edit is put on and taken off: what is not as it should be, in a few words."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    forget, retain = measured.of(["a"]), measured.of(["b", "c"])
    edit = one_pass(model, forget, retain, strength=3.0)
    unasked = (forget.tokens.sum(0) == 0) | (retain.tokens.sum(0) == 0)  # of experts
    if (unasked.ndim and (edit.gates[unasked] != 1).any()) or not (edit.gates < 1).any():
        return "an expert that nobody asked is weakened, or nothing is"
    wanted = dict(before)
    for (name, module), row in zip(at(model, path).items(), edit.gates, strict=True):
        own = f"{name}.{'down_proj' if is_mixture(module) else 'weight'}"
        wanted[own] = before[own] * row.unsqueeze(-1 if is_turned(module) else -2)
    with edit.on(model):
        wrong = differing(model, wanted)
    lost = differing(model, before)
    return f"changed otherwise: {wrong}; not given back: {lost}" if wrong or lost else ""


def runs(model: nn.Module) -> str | None:
    """The name of the way in which its experts are run."""
    return getattr(model.config.get_text_config(), "_experts_implementation", None)


def check(family: Family) -> str:
    """What is wrong with a family that should work; empty if nothing is."""
    model, batch, owners = build(family.name, family.more), tiny.random_batch(), list("abac")
    if sees_ahead(model, batch):
        return AHEAD
    usual = runs(model)
    measured, hand = measure(model, [batch], owners), by_hand(model, family.path, batch, owners)
    if measured.sums.shape != hand.sums.shape or measured.people != hand.people:
        return f"measured {tuple(measured.sums.shape)}, by hand {tuple(hand.sums.shape)}"
    if not torch.equal(measured.tokens, hand.tokens):
        return "tokens are counted otherwise by hand"
    if apart(measured.sums, hand.sums) > TOLERANCE:
        return f"{apart(measured.sums, hand.sums):.1e} from what is found by hand"
    if runs(model) != usual:
        return "its experts are run otherwise afterwards"
    return edited(model, family.path, measured)


def plain(error: BaseException) -> str:
    """An error in one line."""
    return re.sub(r"\s+", " ", f"{error}").strip()[:200] or type(error).__name__


def others(name: str) -> tuple[str, str]:
    """The outcome for a family that has no line, and why."""
    try:
        model = build(name)
    except Exception as error:  # noqa: BLE001 (of an unsound config they raise anything)
        return "not tried", f"no tiny one could be built: {plain(error)}"
    if sum(weight.numel() for weight in model.parameters()) > WEIGHTS:
        return "not tried", "what can be built is not tiny"
    try:
        find_projections(model)
    except ValueError as error:
        return "refused", plain(error)
    try:
        measured = measure(model, [tiny.random_batch()], list("abac"))
        if sees_ahead(model, tiny.random_batch()):
            return "unsound", AHEAD
    except Exception as error:  # noqa: BLE001
        if str(error).startswith("its FFNs read") or "see those behind it" in str(error):
            return "refused", plain(error)
        return "not tried", f"asked by words alone it fails: {plain(error)}"
    if name in SILENT:
        return "not tried", "a random one calls too little to be compared"
    return "no line", f"it works {tuple(measured.sums.shape)} and stands in no line of `FAMILIES`"


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Stop what takes longer.

    Raises:
        TimeoutError: it does.
    """

    def late(*_):
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(name: str) -> dict:
    """Of one family, as it is stored."""
    kind, made = known()[name]
    line = next((family for family in FAMILIES if family.name == name), None)
    try:
        with within(SECONDS):
            why = check(line) if line else ""
            result = ("wrong" if why else "works", why) if line else others(name)
    except TimeoutError as error:
        result = ("not tried", plain(error))
    return {
        "kind": kind,
        "class": made,
        "outcome": result[0],
        "why": result[1],
        "path": line.path if line else "",
    }


# --- the page ------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """What may stand in a table of Markdown."""
    return re.sub(r"([|<>*_\[\]`$])", r"\\\1", text)


def page(stored: dict) -> list[str]:
    """What the page says, as lines, from the outcomes as they are stored."""
    every = stored["families"]
    lines = [
        f"Tried on {stored['date']} with `transformers` {stored['transformers']} "
        f"and `torch` {stored['torch']}."
    ]
    for kind, words in (("multimodal", "With eyes"), ("text", "Language models")):
        places: dict[str, list[str]] = {}
        for name, each in sorted(every.items()):
            if (each["kind"], each["outcome"]) == (kind, "works"):
                places.setdefault(each["path"], []).append(name)
        count = sum(map(len, places.values()))
        lines += [
            "",
            f"## {words}: {count} families work",
            "",
            "| output projections | families |",
            "|---|---|",
        ]
        lines += [f"| `{path}` | {', '.join(map(cell, places[path]))} |" for path in sorted(places)]
    for result, words in RESULTS.items():
        found = {name: each["why"] for name, each in every.items() if each["outcome"] == result}
        if found:
            lines += ["", f"## {words}: {len(found)}", "", "| family | why |", "|---|---|"]
            lines += [f"| {cell(name)} | {cell(why)} |" for name, why in found.items()]
    return lines


def main() -> int:
    names, start, found = sys.argv[1:] or sorted(known()), time.perf_counter(), {}
    for name in names:
        found[name] = outcome(name)
        print(f"{name}: {found[name]['outcome']} {found[name]['why']}", flush=True)
    failed = [name for name, each in found.items() if each["outcome"] in ("wrong", "no line")]
    print(f"{len(found)} families, {len(failed)} not as the table says: {', '.join(failed)}")
    if not sys.argv[1:]:
        stored = {
            "transformers": transformers.__version__,
            "torch": torch.__version__.partition("+")[0],
            "families": found,
            "seconds": round(time.perf_counter() - start),
            "commit": commit(),
            "date": f"{date.today()}",
        }
        write_json(OUTCOME, stored)
        PAGE.write_text(filled(PAGE, page(stored)), encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    sys.exit(main())
