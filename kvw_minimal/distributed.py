"""Coefficients measured by several processes, on one machine or on many that share a folder.

    torchrun --nproc-per-node 4 -m kvw_minimal measure --model ID --questions FILE --save OUT

The questions are cut into parts. In each round, every process measures one missing part and writes
it into the folder `OUT.parts`. Then all processes report errors, so no process waits for one that
failed. At the end the parts are joined by `+`, in halves, and the folder is removed. An interrupted
run continues with the missing parts, with any number of processes. The name of a part is a hash of
its questions, of the processor's output, and of every byte of the model.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from .batches import answer_batches
from .coefficients import Coefficients, accumulate, marks
from .coefficients_io import load_measured, save_measured
from .models import backbone, fingerprint, hash_tensors
from .questions import Question
from .zoo.catalogue import check_device

BATCH = 16  # questions in a part
PATIENCE = timedelta(minutes=30)  # timeout for a silent process: longer than any part takes


def all_gather(values: list) -> list:
    """Gathers the values of all processes, in the order of the processes.

    Raises:
        OSError: a process ended, or was silent for longer than the timeout.
    """
    try:
        return gather_object(values)
    except RuntimeError as error:
        raise OSError(
            "another process has ended or does not answer; the parts that were measured "
            "are kept: start again"
        ) from error


def started(device: str = "cpu", patience: timedelta = PATIENCE) -> PartialState:
    """Joins the processes that `torchrun` or `accelerate launch` started; else it is the only one.

    Args:
        device: `cpu`, or `cuda`, where each process of a machine gets its own card.
        patience: timeout for a silent process.

    Raises:
        ValueError: the device is not available.
    """
    check_device(device)
    return PartialState(cpu=device == "cpu", timeout=patience)


@contextmanager
def fail_together() -> Iterator[None]:
    """A context manager: if one process raises, all processes raise the same message.

    Raises:
        ValueError: a process raised ValueError, OSError or an out-of-memory error.
        OSError: as in `all_gather`.
    """
    state, errors = PartialState(), []
    try:
        yield
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        if state.num_processes == 1:
            raise
        errors = [(state.process_index, str(error))]
    errors = all_gather(errors)
    if errors:
        messages = dict.fromkeys(sentence for _, sentence in errors)
        alike = len(errors) == state.num_processes and len(messages) == 1
        raise ValueError(
            *messages if alike else ["; ".join(f"process {i}: {s}" for i, s in errors)]
        )


def sides(rows: Iterable[tuple[str, Question]]) -> list[Question]:
    """Questions of the forget and retain sets, for which coefficients are measured.

    Raises:
        ValueError: a person is in both sets. Coefficients are stored by person.
    """
    rows_of_sides = [(side, question) for side, question in rows if side in ("forget", "retain")]
    people = [
        {q.person for row_side, q in rows_of_sides if row_side == side}
        for side in ("forget", "retain")
    ]
    shared = sorted(set.intersection(*people))
    if shared:
        raise ValueError(f"{', '.join(shared)} cannot be both forgotten and retained")
    return [question for _, question in rows_of_sides]


# --- a model that is spread over processes -------------------------------------------------------


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds only a part of each weight, in a form that can be measured.

    `fully_shard` gathers the weights of each layer, and activations are not sharded, so measuring
    works. The body of the model must be sharded last, because the head is not called.

    Raises:
        ValueError: the model is sharded in another way, in which each process sees only some
            columns, or weights of another shape.
    """
    old = any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
    spread = [name for name, w in model.named_parameters() if isinstance(w, DTensor)]
    if old or spread and not isinstance(backbone(model), FSDPModule):
        raise ValueError(
            f"{spread[0] if spread else 'the model'} is spread over processes in a way that "
            "coefficients cannot be read from: each would see some columns only. Shard layers and "
            "then the body by `fully_shard`, or load with `device_map='auto'`"
        )
    return bool(spread)


def whole_fingerprint(model: nn.Module) -> str:
    """`models.fingerprint` of a sharded model; gathers one tensor at a time."""
    tensors = (
        (name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)
        for name, tensor in model.state_dict().items()
    )
    return hash_tensors(tensors)[:16]


# --- parts ---------------------------------------------------------------------------------------


def cut(questions: list[Question], size: int) -> list[list[Question]]:
    """Parts of at most `size` questions, sorted: questions with pictures first, then by person.

    Therefore a part needs one or two batches, and the questions about a person are in few parts.
    """
    ordered = sorted(questions, key=lambda q: (q.image is None, q.person, q.id))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def files_of_parts(
    parts: list[list[Question]], processor, model_hash: str
) -> dict[str, list[Question]]:
    """Parts by the names of their files.

    Args:
        model_hash: fingerprint of the model.
    """
    samples = answer_batches(processor, [parts[0][0], parts[-1][-1]], 1)
    model_hash = hash_tensors(
        [pair for batch in samples for pair in sorted(batch.inputs.items())], model_hash
    )
    return {
        hashlib.sha256(f"{model_hash}{part}".encode()).hexdigest()[:32] + ".safetensors": part
        for part in parts
    }


def joined(paths: list[Path]) -> Coefficients:
    """Coefficients of several files, joined in halves: each number takes part in log2(files) sums.

    Raises:
        FileNotFoundError, ValueError: as in `load_measured`.
    """
    half = len(paths) // 2
    return joined(paths[:half]) + joined(paths[half:]) if half else load_measured(paths[0])


@torch.no_grad()
def measure_in_parts(
    model: nn.Module,
    processor,
    questions: list[Question],
    into: str | Path,
    batch_size: int = BATCH,
    progress: bool = False,
) -> str:
    """Measures the coefficients of questions with all processes, into one file.

    Every process calls this function after `started`, with the same model and questions. The
    processes of a sharded model read every part together, and the main process writes.

    Args:
        into: a file of `save_measured`, in a folder that all processes see.
        batch_size: number of questions in a part, which are read together.

    Returns:
        A summary in one line.

    Raises:
        ValueError: on any process, there are no questions, `is_sharded` or `coefficients.measure`
            refuses the model or the questions, or another process has a different model or
            different questions.
        OSError: the file cannot be written; a process ended, or was silent for too long.
    """
    state, folder = PartialState(), Path(f"{os.path.realpath(into)}.parts")
    with fail_together():
        sharded = is_sharded(model)
        model_fingerprint = whole_fingerprint(model) if sharded else fingerprint(model)
        if not questions:
            raise ValueError("there are no questions to measure")
        parts = files_of_parts(cut(questions, batch_size), processor, model_fingerprint)
        folder.mkdir(exist_ok=True)
        missing = [name for name in parts if not (folder / name).is_file()]
    if len(set(all_gather([tuple(parts)]))) > 1:
        raise ValueError("the processes have other models, processors or questions")
    unseen = set(all_gather(missing))  # a part that one process does not see is measured again
    missing = [name for name in parts if name in unseen]
    stride, offset = (1, 0) if sharded else (state.num_processes, state.process_index)
    disable = None if progress and state.is_main_process else True
    for start in tqdm(range(0, len(missing), stride), "parts", disable=disable):
        with fail_together():
            for name in missing[start : start + stride][offset : offset + 1]:
                batches = answer_batches(processor, parts[name], batch_size)
                people = [question.person for question in parts[name]]
                measured = Coefficients(
                    *accumulate(model, batches, people),
                    model_fingerprint,
                    questions=marks(parts[name]),
                )
                if not sharded or state.is_main_process:
                    save_measured(measured, folder / name)
    with fail_together():
        if state.is_main_process:
            absent = [name for name in parts if not (folder / name).is_file()]
            if absent:
                raise ValueError(
                    f"{len(absent)} parts are not in {folder}; all machines must share "
                    "that folder, or each measure a file of its own, to be joined by "
                    "`+`"
                )
            coefficients = joined([folder / name for name in parts])
            save_measured(coefficients, into)
            for name in parts:
                (folder / name).unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
    return (
        f"{into} holds people: {len({question.person for question in questions})}, questions: "
        f"{len(questions)}, parts: {len(parts)} (measured now: {len(missing)}), processes: "
        f"{state.num_processes}"
    )
