"""Families of models in `transformers`: a tiny random one of each is built, asked and edited.

    python tests/families.py           all of them, into data/results/families.json and the page
    python tests/families.py llava     some of them, by name

A family that works stands in `PATHS`. Of the others the outcome says why they do not, or
why they were not tried.
"""

import json
import re
import sys
import warnings
from datetime import date
from pathlib import Path

import tiny
import torch
import transformers
from package_page import filled
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

from kvw_minimal.architectures import is_mixture, is_transposed
from kvw_minimal.atomic_io import write_json
from kvw_minimal.batches import Batch
from kvw_minimal.coefficients import Coefficients, measure
from kvw_minimal.evaluation.provenance import commit
from kvw_minimal.kvw import one_pass
from kvw_minimal.models import find_projections

ROOT = Path(__file__).resolve().parent.parent
OUTCOME, PAGE = ROOT / "data" / "results" / "families.json", ROOT / "book" / "families.md"
WEIGHTS = 30_000_000  # a model with more is not tiny
WIDTH, D_FF = 32, 48
TOLERANCE = 1e-6  # of the largest coefficient of a layer
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
#: where the output projections are, or what holds the experts (`{}` is a number): the families
PATHS = {
    "model.layers.{}.mlp.down_proj": (
        "apertus arcee beam bitnet cohere cohere2 cwm diffllama doge ernie4_5 exaone4 "
        "flint gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm "
        "glm4 granite granite_swa helium hunyuan_v1_dense hyperclovax internlm3 "
        "iquestcoder jais2 llama minicpm3 ministral ministral3 mistral nemotron olmo "
        "olmo2 olmo3 olmo_hybrid phi3 phi4_multimodal qwen2 qwen3 qwen3_5_text seed_oss "
        "smollm3 stablelm vaultgemma youtu"
    ),
    "model.language_model.layers.{}.mlp.down_proj": (
        "aya_vision cohere2_vision cosmos3_omni deepseek_vl deepseek_vl_hybrid exaone4_5 "
        "gemma3 gemma4 gemma4_unified glm46v glm4v glm_ocr glmga got_ocr2 "
        "hyperclovax_vision_v2 internvl janus lighton_ocr llava llava_next "
        "llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 mistral3 "
        "mllama molmo2 moss_transcribe_diarize muse_glimmer ovis2 paddleocr_vl "
        "pp_chart2table qianfan_ocr qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_5 "
        "qwen3_vl shieldgemma2 step3p7 video_llama_3 video_llava vipllava"
    ),
    "model.layers.{}.mlp.experts": (
        "afmoe aria_text axk1 axk2 bailing_hybrid cohere2_moe deepseek_v2 deepseek_v3 "
        "deepseek_v32 deepseek_v4 dots1 dots3_note_text ernie4_5_moe exaone_moe flex_olmo "
        "glm4_moe glm4_moe_lite glm_moe_dsa gpt_oss hunyuan_v1_moe hy_v3 hy_v4 "
        "inkling2_text inkling_text kimi_linear kolibri1 laguna mellum mimo_v2_flash "
        "minimax minimax_m2 minimax_m3_vl_text mixtral olmoe phimoe qwen2_moe "
        "qwen3_5_moe_text qwen3_moe qwen3_next qwen4_exp_text solar_open zaya"
    ),
    "model.language_model.layers.{}.mlp.experts": (
        "aria deepseek_ocr2 glm4v_moe inkling_mm_model kimi_k25 minimax_m3_vl "
        "mistral_large4 qwen3_5_moe qwen3_omni_moe_thinker qwen3_vl_moe qwen4_exp "
        "unlimited_ocr"
    ),
    "model.decoder.layers.{}.fc2": (
        "bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp opt pegasus "
        "plbart trocr whisper"
    ),
    "transformer.h.{}.mlp.c_proj": "gpt-sw3 gpt2 gpt_bigcode gpt_neo openai-gpt",
    "model.text_model.layers.{}.mlp.down_proj": "granite_docling idefics2 idefics3 smolvlm",
    "bert.encoder.layer.{}.output.dense": "bert bert-generation big_bird megatron-bert",
    "roberta.encoder.layer.{}.output.dense": "camembert roberta xlm-roberta xlm-roberta-xl",
    "model.layers.{}.block_sparse_moe.experts": (
        "granitemoe granitemoe_swa granitemoehybrid granitemoeshared"
    ),
    "model.layers.{}.mlp.fc2": "moshi nanochat phi",
    "model.language_model.layers.{}.feed_forward.w2": "lfm2_vl lfm3_vl",
    "transformer.h.{}.mlp.dense_4h_to_h": "bloom falcon",
    "transformer.h.{}.mlp.fc_out": "codegen gptj",
    "model.layers.{}.feed_forward.experts": "jamba lfm2_moe",
    "model.layers.{}.feed_forward.w2": "lfm2 lfm3",
    "model.language_model.layers.{}.mlp.fc2": "cosmos3_edge",
    "model.language_model.layers.{}.mlp.text_moe.experts": "ernie4_5_vl_moe",
    "model.language_model.layers.{}.mlp.dense_4h_to_h": "fuyu",
    "git.encoder.layer.{}.output.dense": "git",
    "text_model.model.layers.{}.ffn.fc2": "kosmos-2.5",
    "model.layers.{}.feed_forward.down_proj": "bamba",
    "biogpt.layers.{}.fc2": "biogpt",
    "transformer.h.{}.ffn.2": "ctrl",
    "data2vec_text.encoder.layer.{}.output.dense": "data2vec-text",
    "electra.encoder.layer.{}.output.dense": "electra",
    "ernie.encoder.layer.{}.output.dense": "ernie",
    "gpt_neox.layers.{}.mlp.dense_4h_to_h": "gpt_neox",
    "gpt_neox_japanese.layers.{}.mlp.dense_4h_to_h": "gpt_neox_japanese",
    "model.layers.{}.mlp.Wo": "modernbert-decoder",
    "transformer.blocks.{}.ffn.down_proj": "mpt",
    "model.layers.{}.mixer.experts": "nemotron_h",
    "model.layers.{}.mlp.dense_4h_to_h": "persimmon",
    "model.layers.{}.mlp_block.down_proj": "recurrent_gemma",
    "rembert.encoder.layer.{}.output.dense": "rembert",
    "roberta_prelayernorm.encoder.layer.{}.output.dense": "roberta-prelayernorm",
    "roc_bert.encoder.layer.{}.output.dense": "roc_bert",
    "roformer.encoder.layer.{}.output.dense": "roformer",
    "rwkv.blocks.{}.feed_forward.value": "rwkv",
    "model.layers.{}.mlp.c_proj": "starcoder2",
    "model.layers.{}.fc2": "xglm",
}
PATH_OF = {name: path for path, names in PATHS.items() for name in names.split()}

TIMES, LATENT = {"text_config": in_sections(1, 1, 2)}, {"num_key_value_heads": 4}
SEEING = {**TIMES, "vision_start_token_id": 90}
#: what the config of a family needs beside `SMALL` to be tiny and sound
MORE = {
    **dict.fromkeys("cosmos3_edge glm46v glm4v glm_ocr glmga paddleocr_vl".split(), TIMES),
    **dict.fromkeys("qwen2_5_vl qwen2_vl".split(), TIMES),
    **dict.fromkeys("qwen2_5_omni_thinker qwen3_omni_moe_thinker".split(), SEEING),
    **dict.fromkeys("axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32".split(), LATENT),
    **dict.fromkeys("dots3_note_text glm4_moe_lite glm_moe_dsa minicpm3 youtu".split(), LATENT),
    **dict.fromkeys("kimi_k25 mistral_large4".split(), {"text_config": LATENT}),
    **dict.fromkeys("codegen gptj".split(), {"rotary_dim": 4, "n_positions": 64}),
    "deepseek_ocr2": {"text_config": {**FULL, "mlp_layer_types": ["dense", "sparse"]}},
    "dots1": {"n_shared_experts": 1},
    "ernie4_5_vl_moe": {"text_config": {"moe_intermediate_size": [24, 24], **in_sections(1, 1, 2)}},
    "glm4v_moe": {"text_config": in_sections(1, 1, 0)},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 0},
    "molmo2": {"vision_config": {"image_size": [32, 32]}, "vit_config": {"image_size": [32, 32]}},
    "nemotron_h": {"n_groups": 2},
    "step3p7": {"text_config": {"sliding_window": 16}},
    "zaya": {"num_experts_per_tok": 1},
}


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
        wanted[own] = before[own] * row.unsqueeze(-1 if is_transposed(module) else -2)
    with edit.on(model):
        wrong = differing(model, wanted)
    lost = differing(model, before)
    return f"changed otherwise: {wrong}; not given back: {lost}" if wrong or lost else ""


def check(name: str, path: str = "", more: dict | None = None) -> str:
    """What is wrong with a family that should work; empty if nothing is."""
    path, more = path or PATH_OF[name], MORE.get(name, {}) if more is None else more
    model, batch, owners = build(name, more), tiny.random_batch(), list("abac")
    if sees_ahead(model, batch):
        return AHEAD
    measured, hand = measure(model, [batch], owners), by_hand(model, path, batch, owners)
    if measured.sums.shape != hand.sums.shape or measured.people != hand.people:
        return f"measured {tuple(measured.sums.shape)}, by hand {tuple(hand.sums.shape)}"
    if not torch.equal(measured.tokens, hand.tokens):
        return "tokens are counted otherwise by hand"
    if apart(measured.sums, hand.sums) > TOLERANCE:
        return f"{apart(measured.sums, hand.sums):.1e} from what is found by hand"
    return edited(model, path, measured)


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
    return "no line", f"it works {tuple(measured.sums.shape)} and stands in no line of `PATHS`"


def outcome(name: str) -> dict:
    """Of one family, as it is stored."""
    kind, made = known()[name]
    path = PATH_OF.get(name, "")
    why = check(name) if path else ""
    result = ("wrong" if why else "works", why) if path else others(name)
    return {"kind": kind, "class": made, "outcome": result[0], "why": result[1], "path": path}


# --- the page ------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """What may stand in a table of Markdown."""
    return re.sub(r"([|<>*_\[\]`$])", r"\\\1", text)


def page() -> str:
    """The whole page, from the outcomes as they are stored."""
    stored = json.loads(OUTCOME.read_text(encoding="utf-8"))
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
    return filled(PAGE, lines)


def main(names: list[str]) -> int:
    """Try all families, or some; 1 if one is not as the table says."""
    found = {}
    for name in names or sorted(known()):
        found[name] = outcome(name)
        print(f"{name}: {found[name]['outcome']} {found[name]['why']}", flush=True)
    failed = [name for name, each in found.items() if each["outcome"] in ("wrong", "no line")]
    print(f"{len(found)} families, {len(failed)} not as the table says: {', '.join(failed)}")
    if not names:
        stored = {
            "transformers": transformers.__version__,
            "torch": torch.__version__.partition("+")[0],
            "families": found,
            "commit": commit(),
            "date": f"{date.today()}",
        }
        write_json(OUTCOME, stored)
        PAGE.write_text(page(), encoding="utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    sys.exit(main(sys.argv[1:]))
