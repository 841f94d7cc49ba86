"""Loads an exported folder in a fresh process without this package, and repeats scores."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.torch import save_file
from torch import nn

from ..batches import answer_batches
from ..conditions import applied
from ..edits import Edit
from ..questions import Question
from ..scores import read

DIGITS = 4  # of the mean log-probability of a token, that must be equal
#: arguments: the folder, the hub id of the unedited model, where it is, a folder of batches
CHILD = """
import json, pathlib, re, sys
sys.modules["kvw_minimal"] = None
import torch
from safetensors.torch import load_file

folder, base, unedited, batches = sys.argv[1:]
card = pathlib.Path(folder, "README.md").read_text(encoding="utf-8")
code = re.search("```python\\n(.*?)```", card, re.S)[1]
known = {"FOLDER": folder, "UNEDITED": unedited}
exec(code.replace(repr(base), "UNEDITED") if base else code, known)
model, found = known["model"].eval(), []
for file in sorted(pathlib.Path(batches).iterdir()):
    inputs = load_file(file)
    gold = inputs.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    log = logits.log_softmax(-1).gather(-1, gold.clamp(min=0)[..., None])[..., 0]
    answers = gold >= 0
    found += ((log * answers).sum(1) / answers.sum(1)).tolist()
print(json.dumps(found))
"""


def repeat_scores(
    folder: str | Path,
    edit: Edit,
    model: nn.Module,
    processor,
    questions: list[Question],
    base: str,
) -> tuple[str, bool]:
    """Compares the log-probabilities of taught answers here and in the exported folder.

    The other process runs the code of the card. It has no module `kvw_minimal`.

    Args:
        model: the unedited model, loaded from a folder or from the hub.
        base: the hub id that the card names as the unedited model; empty without one.

    Returns:
        A sentence, and whether all of them are equal to `DIGITS` digits.

    Raises:
        OSError: the other process cannot load the folder.
    """
    batches = answer_batches(processor, questions, 16)
    with applied(edit, model):
        here = read(model, batches)
    with TemporaryDirectory() as scratch:
        for i, batch in enumerate(batches):
            tensors = batch.inputs | {"labels": batch.labels}
            tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(tensors, Path(scratch, f"{i:05}.safetensors"))
        names = [str(folder), base, str(model.name_or_path), scratch]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *names], capture_output=True, text=True, check=False
        )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["it ended"]
        raise OSError(f"{folder} cannot be loaded without this package: {why[0]}")
    there = np.array(json.loads(done.stdout.splitlines()[-1]))
    order = [row for batch in batches for row in batch.rows]
    gap = float(np.abs(there - (here.logprob / here.tokens)[order]).max())
    same = gap < 0.5 * 10**-DIGITS
    comparison = f"equal to {DIGITS} digits" if same else f"other by up to {gap:.{DIGITS + 1}f}"
    return (
        f"{folder}, loaded without this package: the log-probabilities of {len(order)} answers, "
        f"{there.mean():.{DIGITS}f} on average, are {comparison}"
    ), same
