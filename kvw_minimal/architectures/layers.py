"""Which of the linear maps in a decoder layer is the last of its FFN."""

from collections.abc import Iterable, Iterator

from torch import nn

from .experts import is_mixture
from .weights import is_conv1d, size_of

#: words in the path of a module that mark it as an eye or an ear, not as part of the language model
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
AHEAD = ("cpmant", "xlm")  # model types in which a token sees those behind it
#: words in the path of a linear map that is of something else than an FFN
OTHERS = ("attn", "attention", "mamba", "mixer.out_proj", "per_layer", "laurel")


def stacks_of(model: nn.Module, count: int) -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of so many layers, with their paths, that may be those of the language model."""
    decoder = set(model.get_decoder().modules())
    for path, stack in model.named_modules():
        if not isinstance(stack, nn.ModuleList) or len(stack) != count:
            continue
        inside = stack in decoder or len(decoder) == 1  # in ModernBERT a mere head is called so
        if inside and not any(sense in path.lower() for sense in SENSES):
            yield path, stack


def check_causal(model: nn.Module, inputs: Iterable[str]) -> None:
    """Stop where what stands before an answer may have seen it.

    Args:
        inputs: names of what the model is given.

    Raises:
        ValueError: a model that lets tokens see those behind them: always (CPM-Ant, XLM), unless
            its config says `is_decoder` (BERT and its kin), or where no `token_type_ids` say which
            are of the prompt (PaliGemma).
    """
    kind, text = model.config.model_type, model.config.get_text_config(decoder=True)
    whole = getattr(text, "use_bidirectional_attention", None) is True
    encoder = hasattr(type(text), "is_decoder") and not text.is_decoder
    encoder &= "neox" not in text.model_type  # it has the word, too, and never looks ahead
    if kind in AHEAD or encoder or whole and "token_type_ids" not in inputs:
        raise ValueError(
            f"{type(model).__name__} lets a token see those behind it: no position "
            "stands before the answer, where coefficients are taken"
        )


def is_output_projection(name: str, module: nn.Module, width: int) -> bool:
    """Whether a module inside a decoder layer is the last matrix of its FFN."""
    other = any(word in name.lower() for word in OTHERS)
    if other or not (isinstance(module, nn.Linear) or is_conv1d(module)):
        return False
    outer, inner = size_of(module)
    return outer == width and inner != width


def ffns_of(layers: nn.ModuleList, path: str, width: int) -> dict[str, nn.Module]:
    """The output projection of the FFN of each layer, or what holds the experts of each mixture.

    Args:
        path: of the layers.
        width: d_model.

    Returns:
        `{module path: projection}`, one a layer; nothing if there is a layer without.

    Raises:
        ValueError: several in one layer, or experts that are not in one tensor.
    """
    named = list(layers.named_modules())
    mixtures = {
        f"{path}.{name}": module
        for name, module in named
        if is_mixture(module) and not any(s in name.lower() for s in SENSES)
    }
    if mixtures:
        return mixtures
    found = [
        [
            f"{i}.{name}"
            for name, module in layer.named_modules()
            if is_output_projection(name, module, width)
        ]
        for i, layer in enumerate(layers)
    ]
    if any("expert" in name.lower() for name, _ in named):
        raise ValueError(f"the layers in {path} have experts of a kind that is not supported")
    several = next((layer for layer in found if len(layer) > 1), None)
    if several:
        raise ValueError(f"there are several FFNs in one layer of {path}: {', '.join(several)}")
    if not all(found):
        return {}
    return {f"{path}.{name}": layers.get_submodule(name) for (name,) in found}
