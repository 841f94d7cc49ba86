"""Assembly of the book's models: processor, LLaVA model, and the vision tower that they share."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from . import catalogue

PIXELS, PATCH = 64, 16
IMAGE_TOKENS = (PIXELS // PATCH) ** 2
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_processor(tokenizer):
    """Builds a processor: 64 x 64 pixels in [-1, 1], and 16 tokens for `<image>`."""
    from transformers import LlavaProcessor, SiglipImageProcessor

    image_processor = SiglipImageProcessor(size={"height": PIXELS, "width": PIXELS})
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
        image_token="<image>",
    )


def llava(tokenizer, vision, text):
    """A randomly initialised LLaVA, from the configurations `vision` and `text` of its parts."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=IMAGE_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def eye_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of vision tower and connector, float32, under their names inside `model.model`."""
    prefixes = ("vision_tower.", "multi_modal_projector.")
    return {
        name[name.index(prefix) :]: tensor.float().cpu().contiguous()
        for name, tensor in weights.items()
        for prefix in prefixes
        if prefix in name
    }


def eye_weights(oracle: bool) -> dict[str, torch.Tensor]:
    """Weights of the frozen vision tower and connector, float32.

    Vanilla gets the newly trained weights, if they are in the cache. An oracle gets those of the
    vanilla model.

    Raises:
        FileNotFoundError: no weights exist yet.
    """
    fresh = catalogue.cache_folder() / "models" / "eye" / "eye.safetensors"
    if fresh.is_file() and not oracle:
        return load_file(fresh)
    vanilla = Path(catalogue.find_model("pocket")) / "model.safetensors"
    if not vanilla.is_file():
        raise FileNotFoundError(
            "there is no eye yet; run `python -m kvw_minimal book train eye` first"
        )
    return eye_of(load_file(vanilla))
