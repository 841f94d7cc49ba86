"""Coefficients measured by many processes, on one machine or on many that share a folder.

    torchrun --nproc-per-node 4 -m kvw_minimal measure --model ID --questions FILE --into OUT

The questions are cut into parts, and `accelerate` says which process this is. In each round every
process measures one part that is missing and writes it into the folder `OUT.parts`; then all say
whether that went well, so that nobody waits for a process that failed. At the end the parts are
joined by `+`, in halves, and the folder goes. A run that was ended goes on with the parts that are
missing, with as many processes as one likes: a part has the name of what it holds, its questions,
what the processor makes of them, and every byte of the model.
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
from .coefficients import Coefficients, accumulate
from .coefficients_io import load_measured, save_measured
from .models import backbone, fingerprint, hash_tensors
from .questions import Question
from .zoo.catalogue import check_device

BATCH = 16  # questions in a part
PATIENCE = timedelta(minutes=30)  # for a process that says nothing: longer than any part takes


def all_gather(own: list) -> list:
    """What all processes have to say, in their order.

    Raises:
        OSError: one ended without a word, or was silent for longer than patience.
    """
    try:
        return gather_object(own)
    except RuntimeError as error:
        raise OSError(
            "another process has ended or does not answer; the parts that were measured "
            "are kept: start again"
        ) from error


def started(device: str = "cpu", patience: timedelta = PATIENCE) -> PartialState:
    """This process among those that `torchrun` or `accelerate launch` started; else it is alone.

    Args:
        device: `cpu`, or `cuda`: then each process of a machine has one of its cards.
        patience: how long the others may be silent.

    Raises:
        ValueError: there is no such device.
    """
    check_device(device)
    return PartialState(cpu=device == "cpu", timeout=patience)


@contextmanager
def fail_together() -> Iterator[None]:
    """A block that every process enters; if it fails on one, it fails on all, with that sentence.

    Raises:
        ValueError: on some process something went wrong that can be expected.
        OSError: as `told`.
    """
    state, wrong = PartialState(), []
    try:
        yield
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        if state.num_processes == 1:
            raise
        wrong = [(state.process_index, str(error))]
    wrong = all_gather(wrong)
    if wrong:
        said = dict.fromkeys(sentence for _, sentence in wrong)
        alike = len(wrong) == state.num_processes and len(said) == 1
        raise ValueError(*said if alike else ["; ".join(f"process {i}: {s}" for i, s in wrong)])


def sides(rows: Iterable[tuple[str, Question]]) -> list[Question]:
    """Of the questions of a file, with their sets, those that coefficients are taken of.

    Raises:
        ValueError: somebody is to be forgotten and retained: coefficients are kept by person.
    """
    asked = [(side, question) for side, question in rows if side in ("forget", "retain")]
    people = [{q.person for own, q in asked if own == side} for side in ("forget", "retain")]
    both = sorted(set.intersection(*people))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be both forgotten and retained")
    return [question for _, question in asked]


# --- a model that is spread over processes -------------------------------------------------------


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds only a part of each weight; if so, one that can be measured.

    `fully_shard` gathers a layer when it is its turn, and its activations are whole: that works,
    if the body of the model is what was sharded last, because the head is not called.

    Raises:
        ValueError: the sums of each process would be of other columns, or weights of other shape.
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
    """`models.fingerprint` of a model that is sharded: one tensor at a time is gathered."""
    tensors = (
        (name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)
        for name, tensor in model.state_dict().items()
    )
    return hash_tensors(tensors)[:16]


# --- parts ---------------------------------------------------------------------------------------


def cut(questions: list[Question], size: int) -> list[list[Question]]:
    """Parts of at most `size` questions, in an order of their own: pictures first, by person.

    So a part is read in one batch, or two, and a person is in few parts.
    """
    ordered = sorted(questions, key=lambda q: (q.image is None, q.person, q.id))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def named(parts: list[list[Question]], processor, mark: str) -> dict[str, list[Question]]:
    """Parts by the names of their files.

    Args:
        mark: fingerprint of the model.
    """
    samples = answer_batches(processor, [parts[0][0], parts[-1][-1]], 1)
    mark = hash_tensors([pair for batch in samples for pair in sorted(batch.inputs.items())], mark)
    return {
        hashlib.sha256(f"{mark}{part}".encode()).hexdigest()[:32] + ".safetensors": part
        for part in parts
    }


def joined(paths: list[Path]) -> Coefficients:
    """What files hold, joined in halves: a number is added as often as the list can be halved.

    Raises:
        FileNotFoundError, ValueError: as `load_measured`.
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
    """Measure the coefficients of questions by all processes, into one file.

    To be called by each of them, after `started`, with the same model and questions. Those of a
    model that is sharded read every part together, and the main one writes.

    Args:
        into: a file of `save_measured`, in a folder that all processes see.
        batch_size: questions in a part, which are read at a time.

    Returns:
        What was done, in a line.

    Raises:
        ValueError: no questions; other models or questions on other processes; a model spread in
            another way; what `coefficients.measure` refuses; all that on any process.
        OSError: nothing can be written there; a process ended, or was silent for too long.
    """
    state, folder = PartialState(), Path(f"{os.path.realpath(into)}.parts")
    with fail_together():
        sharded = is_sharded(model)
        mark = whole_fingerprint(model) if sharded else fingerprint(model)
        if not questions:
            raise ValueError("there are no questions to measure")
        parts = named(cut(questions, batch_size), processor, mark)
        folder.mkdir(exist_ok=True)
        missing = [name for name in parts if not (folder / name).is_file()]
    if len(set(all_gather([tuple(parts)]))) > 1:
        raise ValueError("the processes have other models, processors or questions")
    unseen = set(all_gather(missing))  # what one of them does not see is measured again
    missing = [name for name in parts if name in unseen]
    turns, turn = (1, 0) if sharded else (state.num_processes, state.process_index)
    quiet = None if progress and state.is_main_process else True
    for start in tqdm(range(0, len(missing), turns), "parts", disable=quiet):
        with fail_together():
            for name in missing[start : start + turns][turn : turn + 1]:
                batches = answer_batches(processor, parts[name], batch_size)
                people = [question.person for question in parts[name]]
                measured = Coefficients(*accumulate(model, batches, people), mark)
                if not sharded or state.is_main_process:
                    save_measured(measured, folder / name)
    with fail_together():
        if state.is_main_process:
            gone = [name for name in parts if not (folder / name).is_file()]
            if gone:
                raise ValueError(
                    f"{len(gone)} parts are not in {folder}; all machines must share "
                    "that folder, or each measure a file of its own, to be joined by "
                    "`+`"
                )
            whole = joined([folder / name for name in parts])
            save_measured(whole, into)
            for name in parts:
                (folder / name).unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
    return (
        f"{into} holds people: {len({question.person for question in questions})}, questions: "
        f"{len(questions)}, parts: {len(parts)} (measured now: {len(missing)}), processes: "
        f"{state.num_processes}"
    )
