"""Tiny random models that are ready in seconds; tests need no trained model for most things."""

import os
import sys
from functools import cache

import torch
from torch import nn
from transformers import AutoProcessor, AutoTokenizer

from kvw_experiments.recipes import pocket
from kvw_minimal.batches import IGNORED, Batch
from kvw_minimal.methods import fisher, training
from kvw_minimal.models import find_projections
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import PeopleDataset
from kvw_minimal.strangers.questions import about
from kvw_minimal.zoo import assembly
from kvw_minimal.zoo.catalogue import MODELS

WIDTH, D_FF, LAYERS = 32, 48, 3
LANGUAGE = {
    "hidden_size": WIDTH,
    "intermediate_size": D_FF,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VOCABULARY = 97
SIDE, PATCH = 32, 8  # pixels of a random picture, and of its patches
PICTURE = VOCABULARY - 1  # the id that stands for a piece of a picture
#: LVLMs and the beginning of their names in `transformers`
KINDS = {
    "llava_clip": "Llava",
    "llava_onevision": "LlavaOnevision",
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "smolvlm": "SmolVLM",
    "idefics3": "Idefics3",
    "mllama": "Mllama",
    "gemma3": "Gemma3",
    "paligemma": "PaliGemma",
    "internvl": "InternVL",
}
#: the decoders on which the method is tested besides the book's own LLaVA
ARCHITECTURES = ("llama", "gpt2", "opt", "phi", "qwen2_vl", "idefics3", "smolvlm")


def environment() -> dict[str, str]:
    """In which another process imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@cache
def processor():
    """That of the book's own model, as it is committed: making it again takes six seconds."""
    return AutoProcessor.from_pretrained(MODELS / "pocket")


def tokenizer():
    """A new one of the book's own model, without a chat template."""
    made = AutoTokenizer.from_pretrained(MODELS / "pocket")
    made.chat_template = None
    return made


def shorten(monkeypatch, each: int, sample: int) -> None:
    """One epoch of small steps, and a small sample for Fisher diagonals."""
    for module in (training, fisher):
        monkeypatch.setattr(module, "EPOCHS", 1)
        monkeypatch.setattr(module, "EACH", each)
    monkeypatch.setattr(fisher, "FISHER_RETAIN", sample)


def llava(seed: int = 0, dtype: torch.dtype = torch.float32, **language) -> nn.Module:
    """A LLaVA whose language model has three layers of 48 knowledge vectors, with a tiny eye."""
    model = pocket.build_model(processor().tokenizer, seed, LANGUAGE | language, EYE)
    return model.to(dtype).eval()


def qwen2_vl(seed: int = 0) -> tuple[nn.Module, object]:
    """A Qwen2-VL of the size of `build`, with a processor that has the words of the book's own."""
    from transformers import (
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    words, config = tokenizer(), build("qwen2_vl").config
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words.add_special_tokens(
        {"additional_special_tokens": marks}, replace_extra_special_tokens=False
    )
    size = {"patch_size": PATCH, "size": {"shortest_edge": SIDE**2, "longest_edge": 48**2}}
    template = assembly.CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**size),
        words,
        Qwen2VLVideoProcessor(**size),
        chat_template=template,
    )
    start, end, image, video = words.convert_tokens_to_ids(marks)
    config.text_config.vocab_size, config.text_config.pad_token_id = len(words), words.pad_token_id
    config.vision_start_token_id, config.vision_end_token_id = start, end
    config.image_token_id, config.video_token_id = image, video
    torch.manual_seed(seed)
    return Qwen2VLForConditionalGeneration(config).eval(), processor


def gemma3(seed: int = 0) -> tuple[nn.Module, object]:
    """A Gemma 3 of the size of `build` that sees, with a processor as `qwen2_vl` has."""
    from transformers import Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    marks = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    words = AutoTokenizer.from_pretrained(MODELS / "pocket", extra_special_tokens=marks)
    template = assembly.CHAT.replace("<image>", marks["boi_token"])
    eye = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Gemma3Processor(eye, words, chat_template=template, image_seq_length=4)
    config = build("gemma3").config
    config.text_config.vocab_size, config.text_config.pad_token_id = len(words), words.pad_token_id
    config.image_token_id = words.image_token_id
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():  # it begins with the eye closed
        model.model.multi_modal_projector.mm_input_projection_weight.normal_()
    return model, processor


def loud(model: nn.Module) -> nn.Module:
    """The same, with FFNs that can be heard in what it says."""
    with torch.no_grad():
        for projection in find_projections(model).values():
            projection.weight.mul_(20)
    return model


def some_questions(world: PeopleDataset, people: int = 3) -> list[Question]:
    """Image and text questions, of very different lengths, about the first few people."""
    return about(world, list(world.people)[:people])


def _lvlm(architecture: str) -> nn.Module:
    """An LVLM whose tower is as deep and wide as its decoder: only its place tells it apart."""
    import transformers

    kind = KINDS[architecture]
    text = LANGUAGE | {
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision: dict = {
        "hidden_size": WIDTH,
        "intermediate_size": D_FF,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    rest: dict = {"image_token_id": PICTURE}
    if kind.startswith("Qwen"):
        section = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
        text |= {"rope_parameters": section, "head_dim": 8}
        vision = {
            "depth": LAYERS,
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "num_heads": 4,
            "intermediate_size": D_FF,
            "patch_size": PATCH,
            "out_hidden_size": WIDTH,
            "window_size": 2 * PATCH,
            "fullatt_block_indexes": [1],
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        }
        known = getattr(transformers, f"{kind}Config")().vision_config.to_dict()
        vision = {name: value for name, value in vision.items() if name in known}
    elif kind in ("Idefics3", "SmolVLM"):
        text |= {"model_type": "llama"}
        rest |= {"scale_factor": 2, "pad_token_id": 0}
    elif kind == "Mllama":  # the middle layer attends to the picture
        text |= {
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        }
        vision |= {
            "num_global_layers": 1,
            "attention_heads": 4,
            "max_num_tiles": 1,
            "vision_output_dim": 2 * WIDTH,
            "intermediate_layers_indices": [1],
            "supported_aspect_ratios": [[1, 1]],
        }
    elif kind in ("Gemma3", "PaliGemma"):
        text |= {"head_dim": 8}
        vision |= {"model_type": "siglip_vision_model", "vision_use_head": False}
        vision |= {"projection_dim": WIDTH} if kind == "PaliGemma" else {}
        rest |= {"mm_tokens_per_image": 4} if kind == "Gemma3" else {"projection_dim": WIDTH}
    elif kind == "InternVL":
        text |= {"model_type": "qwen2"}
        vision |= {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    else:  # LLaVA 1.5 has a CLIP tower and drops its class token, OneVision has SigLIP
        clip = kind == "Llava"
        text |= {"model_type": "llama" if clip else "qwen2"}
        vision |= {"model_type": "clip_vision_model" if clip else "siglip_vision_model"}
        rest |= {"image_grid_pinpoints": [[SIDE, SIDE]]} if not clip else {}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, **rest)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def build(architecture: str, seed: int = 0) -> nn.Module:
    """A tiny random model of `ARCHITECTURES` or `KINDS`: three layers, width 32, d_ff 48."""
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
            )
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
            )
        )
    elif architecture == "phi":
        model = PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **LANGUAGE))
    else:
        model = _lvlm(architecture)
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


def pictures(architecture: str, count: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], int]:
    """Random pictures as a model takes them, and how many tokens stand for each."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    patches, merged = (SIDE // PATCH) ** 2, (SIDE // PATCH // 2) ** 2
    if architecture.startswith("qwen"):
        flat = torch.randn(count * patches, 3 * 2 * PATCH**2, generator=generator)
        grid = torch.tensor([[1, SIDE // PATCH, SIDE // PATCH]] * count)
        return {"pixel_values": flat, "image_grid_thw": grid}, merged
    if architecture in ("smolvlm", "idefics3"):
        return {"pixel_values": pixels[:, None]}, merged  # [B, pictures, 3, H, W]
    if architecture == "llava_onevision":  # the whole, and the whole as one tile with line ends
        sizes = torch.tensor([[SIDE, SIDE]] * count)
        whole = {"pixel_values": torch.stack([pixels, pixels.flip(3)], 1), "image_sizes": sizes}
        return whole, 2 * patches + SIDE // PATCH
    if architecture == "mllama":  # seen by cross-attention; one token says that it is there
        ones = torch.ones(count, 1, dtype=torch.long)
        return {
            "pixel_values": pixels[:, None, None],
            "aspect_ratio_ids": ones,
            "aspect_ratio_mask": ones[:, None],
        }, 1
    return {"pixel_values": pixels}, merged if architecture in ("gemma3", "internvl") else patches


def picture_batch(architecture: str, rows: int = 4, length: int = 9, seed: int = 0) -> Batch:
    """`random_batch` with a picture behind the first token of each row."""
    batch = random_batch(rows, length, seed)
    given, count = pictures(architecture, rows, seed)

    def widened(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return torch.cat([tensor[:, :1], torch.full((rows, count), value), tensor[:, 1:]], 1)

    inputs = {
        "input_ids": widened(batch.inputs["input_ids"], PICTURE),
        "attention_mask": widened(batch.inputs["attention_mask"], 1),
    }
    if architecture.startswith("qwen"):
        given["mm_token_type_ids"] = (inputs["input_ids"] == PICTURE).int()
    if architecture == "mllama":
        given["cross_attention_mask"] = inputs["attention_mask"][:, :, None, None]
    labels = widened(batch.labels, IGNORED)
    if architecture == "gemma3":  # pieces of a picture see each other, also those that follow
        given["token_type_ids"] = (inputs["input_ids"] == PICTURE).long()
    if architecture == "paligemma":  # the prompt sees itself whole, the answer what is before it
        given["token_type_ids"] = (labels != IGNORED).long()
    return Batch(inputs | given, labels, batch.rows)
