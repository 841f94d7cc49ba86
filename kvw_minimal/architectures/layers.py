"""Search for the output projection of the FFN in each decoder layer."""

from collections.abc import Iterable, Iterator

from torch import nn

from .experts import is_mixture
from .weights import is_conv1d, size_of

#: words in the path of a module of a vision or audio encoder, which is not the language model
SENSES = (
    "vision",
    "visual",
    "image",
    "video",
    "audio",
    "speech",
    "protein",
    "projector",
    "connector",
)
AHEAD = ("cpmant", "xlm")  # model types in which a token attends to later tokens
#: words in the path of a linear map that is not part of an FFN
NOT_FFN = ("attn", "attention", "mamba", "mixer.out_proj", "per_layer", "laurel")


def stacks_of(model: nn.Module, count: int) -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of `count` modules that may be the layers of the language model, with their paths."""
    decoder = set(model.get_decoder().modules())
    for path, stack in model.named_modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) != count:
            continue
        # in ModernBERT, get_decoder returns the head alone
        inside = stack in decoder or len(decoder) == 1
        if inside and not any(sense in path.lower() for sense in SENSES):
            yield path, stack


def check_causal(model: nn.Module, inputs: Iterable[str]) -> None:
    """Refuses a model in which the positions before an answer attend to the answer.

    Args:
        inputs: names of the model's inputs.

    Raises:
        ValueError: tokens attend to later tokens: always (CPM-Ant, XLM), unless the config sets
            `is_decoder` (BERT and similar models), or if the inputs have no `token_type_ids`, which
            mark the prompt (PaliGemma).
    """
    kind, text = model.config.model_type, model.config.get_text_config(decoder=True)
    bidirectional = getattr(text, "use_bidirectional_attention", None) is True
    encoder = hasattr(type(text), "is_decoder") and not text.is_decoder
    encoder &= "neox" not in text.model_type  # GPT-NeoX has `is_decoder`, too, but is always causal
    if kind in AHEAD or encoder or bidirectional and "token_type_ids" not in inputs:
        raise ValueError(
            f"{type(model).__name__} lets a token see those behind it: no position "
            "stands before the answer, where coefficients are taken"
        )


def is_output_projection(name: str, module: nn.Module, width: int) -> bool:
    """Whether a module inside a decoder layer is the last matrix of its FFN."""
    is_excluded = any(excluded in name.lower() for excluded in NOT_FFN)
    if is_excluded or not (isinstance(module, nn.Linear) or is_conv1d(module)):
        return False
    outer, inner = size_of(module)
    return outer == width and inner != width


def ffns_of(layers: nn.ModuleList, path: str, width: int) -> dict[str, nn.Module]:
    """Output projection of the FFN in each layer; in a mixture, the module with the experts.

    Args:
        path: path of `layers` in the model.
        width: d_model.

    Returns:
        `{module path: projection}`, one for each layer; empty if a layer has no projection.

    Raises:
        ValueError: a layer has several projections, or its experts are not in one tensor.
    """
    modules = list(layers.named_modules())
    mixtures = {
        f"{path}.{name}": module
        for name, module in modules
        if is_mixture(module) and not any(s in name.lower() for s in SENSES)
    }
    if mixtures:
        return mixtures
    projections = [
        [
            f"{i}.{name}"
            for name, module in layer.named_modules()
            if is_output_projection(name, module, width)
        ]
        for i, layer in enumerate(layers)
    ]
    if any("expert" in name.lower() for name, _ in modules):
        raise ValueError(f"the layers in {path} have experts of a kind that is not supported")
    ambiguous = next((layer for layer in projections if len(layer) > 1), None)
    if ambiguous:
        lora = any(".lora_" in name for name in ambiguous)
        remedy = "; merge the LoRA first: `merge_and_unload()` of peft" if lora else ""
        named = f"{', '.join(ambiguous)}{remedy}"
        raise ValueError(f"there are several FFNs in one layer of {path}: {named}")
    if not all(projections):
        return {}
    return {f"{path}.{name}": layers.get_submodule(name) for (name,) in projections}
