"""Cases of measuring by many processes: one process imports what is slow, then forks for each.

    python tests/processes.py FOLDER

FOLDER holds models `llava` and `other`, and files of questions. What came of each case goes to
`FOLDER/outcomes.json`: exit status and errors of each process, and how many parts were measured.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module

from kvw_minimal import __main__ as command
from kvw_minimal import distributed
from kvw_minimal.benchmarks import jsonl, replicate
from kvw_minimal.coefficients import measure_questions
from kvw_minimal.models import backbone, find_projections
from kvw_minimal.zoo import load

SLOW = (replicate,)  # imported before the forks
FORK = multiprocessing.get_context("fork")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _process(work: Callable[[int], None], rank: int, count: int, port: int, folder: Path) -> None:
    """What a forked process does: tell `accelerate` who it is, send what it says to files, work."""
    known = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
    }
    os.environ |= {name: str(value) for name, value in known.items()}
    for stream, name in ((1, "said"), (2, "errors")):
        os.dup2(os.open(folder / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT), stream)
    tally = distributed.accumulate

    def counted(*given):
        with (folder / "measured").open("a") as file:
            file.write("x")
        return tally(*given)

    distributed.accumulate = counted
    work(rank)


def together(count: int, work: Callable[[int], None], folder: Path) -> dict:
    """Processes that know of each other, side by side."""
    folder.mkdir()
    port = free_port()
    processes = [
        FORK.Process(target=_process, args=(work, rank, count, port, folder))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    measured = folder / "measured"
    return {
        "status": [process.exitcode for process in processes],
        "measured": len(measured.read_text()) if measured.is_file() else 0,
        "errors": [(folder / f"errors-{rank}").read_text() for rank in range(count)],
        "said": [(folder / f"said-{rank}").read_text() for rank in range(count)],
    }


# --- what a process may do -----------------------------------------------------------------------


def measure(
    rank: int,
    place: Path,
    into: str,
    questions: str = "all.jsonl",
    model: str = "llava",
    other: int = -1,
) -> None:
    """The command; `other` is the process that has another model."""
    model = "other" if rank == other else model
    sys.argv = [
        "kvw",
        "measure",
        "--model",
        str(place / model),
        "--batch-size",
        "2",
        "--questions",
        str(place / questions),
        "--save",
        str(place / into),
    ]
    command.main()


def fails(rank: int, place: Path, into: str, how: Callable[[], None]) -> None:
    """The command; the second part of process 1 goes wrong."""
    tally, seen = distributed.accumulate, []

    def second(*given):
        seen.append(1)
        if rank == 1 and len(seen) == 2:
            how()
        return tally(*given)

    distributed.accumulate = second
    measure(rank, place, into)


def wrong() -> None:
    raise ValueError("a picture of nothing")


def sharded(rank: int, place: Path, into: str, way: str) -> None:
    """A model of which each process holds a half, cut by `fully_shard` or by tensor parallelism."""
    state = distributed.started()
    model, processor = load(str(place / "llava"))
    mesh = init_device_mesh("cpu", (state.num_processes,))
    if way == "fully_shard":
        for path in find_projections(model):
            layer = model.get_submodule(path.rpartition(".mlp.")[0])
            fully_shard(layer, mesh=mesh)
        fully_shard(backbone(model), mesh=mesh)
    else:
        parallelize_module(
            model, mesh, {path: RowwiseParallel() for path in find_projections(model)}
        )
    held = sum(
        w.to_local().numel() if hasattr(w, "to_local") else w.numel()
        for w in backbone(model).parameters()
    )
    questions = distributed.sides(jsonl.read_questions(place / "all.jsonl"))
    try:
        print(distributed.measure_in_parts(model, processor, questions, place / into, 2))
        print(held, sum(w.numel() for w in backbone(model).parameters()))
    except ValueError as error:
        print(error)


def cases(place: Path) -> dict[str, tuple[int, Callable[[int], None]]]:
    """Name, how many processes, and what each does."""
    plain = {
        f"{count} processes": (count, partial(measure, place=place, into=f"{count}"))
        for count in (1, 2)
    }
    end = partial(os._exit, 9)
    return plain | {
        "few": (4, partial(measure, place=place, into="few", questions="few.jsonl")),
        "wrong": (2, partial(fails, place=place, into="wrong", how=wrong)),
        "wrong, again": (4, partial(measure, place=place, into="wrong")),
        "ends": (2, partial(fails, place=place, into="ends", how=end)),
        "other model": (2, partial(measure, place=place, into="other-model", other=1)),
        "no questions": (2, partial(measure, place=place, into="x", questions="none.jsonl")),
        "fully_shard": (2, partial(sharded, place=place, into="sharded", way="fully_shard")),
        "tensor": (2, partial(sharded, place=place, into="tensor", way="tensor")),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    questions = distributed.sides(jsonl.read_questions(place / "all.jsonl"))
    measure_questions(*load(str(place / "llava")), questions)  # imports what each will need
    found = {}
    for name, (count, work) in cases(place).items():
        found[name] = together(count, work, place / f"case {name}")
    (place / "outcomes.json").write_text(json.dumps(found))
