"""Tiny random models that are ready in seconds; tests need no trained model for most things."""

from functools import cache

import torch
from torch import nn

from kvw_minimal import pocket
from kvw_minimal.batches import IGNORED, Batch
from kvw_minimal.people import World, load_people
from kvw_minimal.questions import Question, about

WIDTH, D_FF, LAYERS = 32, 48, 3
LANGUAGE = {"hidden_size": WIDTH, "intermediate_size": D_FF, "num_hidden_layers": LAYERS,
            "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
VOCABULARY = 97
#: the decoders on which the method is tested besides the book's own LLaVA
ARCHITECTURES = ("llama", "gpt2", "opt", "phi", "qwen2_vl", "idefics3", "smolvlm")


@cache
def processor():
    """The tokenizer and picture processor of the book's own model."""
    return pocket.build_processor(pocket.build_tokenizer(load_people()))


def llava(seed: int = 0, dtype: torch.dtype = torch.float32, **language) -> nn.Module:
    """A LLaVA whose language model has three layers of 48 knowledge vectors."""
    model = pocket.build_model(processor().tokenizer, seed, LANGUAGE | language)
    return model.to(dtype).eval()


def some_questions(world: World, people: int = 3) -> list[Question]:
    """Image and text questions, of very different lengths, about the first few people."""
    return about(world, list(world.people)[:people])


def _qwen2_vl() -> nn.Module:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = LANGUAGE | {"vocab_size": VOCABULARY, "rope_scaling": {"type": "mrope",
                       "mrope_section": [1, 1, 2]}}  # fmt: skip
    # as deep and as wide as the language model, so that only its place tells it apart
    vision = {"depth": LAYERS, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 4}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    return Qwen2VLForConditionalGeneration(config)


def _idefics(kind: str) -> nn.Module:
    import transformers

    config_class = getattr(transformers, f"{kind}Config")
    model_class = getattr(transformers, f"{kind}ForConditionalGeneration")
    text = LANGUAGE | {"model_type": "llama", "vocab_size": VOCABULARY, "pad_token_id": 0}
    vision = {"hidden_size": WIDTH, "intermediate_size": D_FF, "num_hidden_layers": LAYERS,
              "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
    config = config_class(text_config=text, vision_config=vision, image_token_id=VOCABULARY - 1,
                          scale_factor=2, pad_token_id=0)  # fmt: skip
    return model_class(config)


def build(architecture: str, seed: int = 0) -> nn.Module:
    """A tiny random decoder of one of `ARCHITECTURES`: three layers, width 32, d_ff 48."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        OPTConfig,
        OPTForCausalLM,
        PhiConfig,
        PhiForCausalLM,
    )

    torch.manual_seed(seed)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **LANGUAGE))
    elif architecture == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=WIDTH,
                n_inner=D_FF,
                n_layer=LAYERS,
                n_head=4,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=0,
            )  # fmt: skip
        )
    elif architecture == "opt":
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                ffn_dim=D_FF,
                num_hidden_layers=LAYERS,
                num_attention_heads=4,
                word_embed_proj_dim=WIDTH,
                max_position_embeddings=64,
            )  # fmt: skip
        )
    elif architecture == "phi":
        model = PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **LANGUAGE))
    elif architecture == "qwen2_vl":
        model = _qwen2_vl()
    else:
        model = _idefics({"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[architecture])
    return model.eval()


def random_batch(rows: int = 4, length: int = 9, seed: int = 0) -> Batch:
    """Made-up ids, padded on the right by 0, 1, 2, ...; the last two of a row are its answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY - 2, (rows, length), generator=generator)
    attention = torch.ones_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row in range(rows):
        end = length - row
        attention[row, end:] = 0
        ids[row, end:] = 0
        labels[row, end - 2 : end] = ids[row, end - 2 : end]
    return Batch({"input_ids": ids, "attention_mask": attention}, labels, list(range(rows)))
