"""Files of coefficients: many machines measure parts, and one machine makes the edit.

    save_measured(measure_questions(model, processor, some), "some.safetensors")  # on each machine
    whole = load_measured("some.safetensors") + load_measured("others.safetensors")  # on one
    edit = one_pass(model, whole.of(forget), whole.of(retain), strength=24.0)

Parts join only if they have the same model (by its fingerprint), mask and shape.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .atomic_io import replacing
from .coefficients import Coefficients
from .edits import checksum

FORMAT = "1"  # of files of coefficients


def save_measured(coefficients: Coefficients, path: str | Path) -> None:
    """Writes a safetensors file in one step. The file names the people by their ids.

    It holds the tensors `sums [people, layers, d_ff]` and `tokens [people]`; in a mixture of
    experts `[people, layers, experts, d_ff]` and `[people, layers, experts]`. Its metadata are the
    format, the people, the fingerprint of the model, the mask, the questions, and a checksum of
    everything.

    Raises:
        OSError: as `atomic_io.check_place`.
    """
    tensors = {
        "sums": coefficients.sums.cpu().contiguous(),
        "tokens": coefficients.tokens.cpu().contiguous(),
    }
    metadata = {
        "format": FORMAT,
        "people": json.dumps(coefficients.people),
        "fingerprint": coefficients.fingerprint,
        "mask": coefficients.mask,
        "questions": json.dumps(coefficients.questions),
    }
    metadata["checksum"] = checksum(tensors, metadata)
    with replacing(path) as half:
        half.write_bytes(save(tensors, metadata))


def check_numbers(people: tuple, sums: torch.Tensor, tokens: torch.Tensor) -> None:
    """Refuses numbers that no measurement gives.

    Raises:
        ValueError: ids that are no text, or the same id twice; a sum or a count that is not a
            floating-point number, not finite or negative; a person without a token.
    """
    if not all(isinstance(person, str) for person in people) or len(set(people)) < len(people):
        raise ValueError("its people are no texts, or somebody stands there twice")
    for numbers in (sums, tokens):
        if not numbers.is_floating_point() or not numbers.isfinite().all() or (numbers < 0).any():
            raise ValueError("a sum or a count in it is negative, or no finite number")
    if tokens.ndim == 1 and not tokens.all():
        raise ValueError("nothing was measured of somebody in it")


def load_measured(path: str | Path) -> Coefficients:
    """Reads a file of `save_measured` onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is truncated, changed by hand, no coefficients, or of another
            format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT or "mask" not in metadata:
            raise ValueError(f"its format is not {FORMAT}; measure again")
        if metadata.pop("checksum") != checksum(tensors, metadata):
            raise ValueError("its checksum does not fit its content")
        people = tuple(json.loads(metadata["people"]))
        sums, tokens = tensors["sums"].shape, tensors["tokens"].shape
        wanted = sums[:1] if len(sums) == 3 else sums[:-1]
        if len(sums) not in (3, 4) or sums[:1] != (len(people),) or tokens != wanted:
            raise ValueError("its people and its numbers do not go together")
        check_numbers(people, tensors["sums"], tensors["tokens"])
        questions = tuple((who, mark) for who, mark in json.loads(metadata.get("questions", "[]")))
        return Coefficients(
            **tensors,
            people=people,
            fingerprint=metadata["fingerprint"],
            mask=metadata["mask"],
            questions=questions,
        )
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no coefficients, or is damaged: {error}") from error
