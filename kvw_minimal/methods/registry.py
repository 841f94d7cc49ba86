"""What a method is, what it costs, and the one list of all of them."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path

import torch
from torch import nn

from ..edits import Edit, resolve_layers
from ..forget_request import Request
from ..models import find_projections, sketch
from ..session import Cost, Session

GRADIENTS = ("gradients", "retain set", "images")
FORWARD = ("retain set", "images")
#: settings that are whole numbers
COUNTS = ("epochs", "passes", "retain", "portraits", "others", "each")
WORDS = {("batch", "person")}  # that stand for a number


def _resident(peak: bool) -> float:
    """Megabytes that this process holds now, or held at most since the peak was reset (Linux)."""
    wanted = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


@contextmanager
def metered(cost: Cost, device: torch.device, memory: bool) -> Iterator[None]:
    """Take the time of a block, and its peak memory where that is wanted."""
    cuda, linux = device.type == "cuda", device.type == "cpu" and sys.platform == "linux"
    if memory and cuda:
        torch.cuda.reset_peak_memory_stats(device)
    elif memory and linux:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc keeps freed memory: a later method would get it for free
            trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        before = _resident(peak=False)
    start = time.perf_counter()
    yield
    cost.seconds = time.perf_counter() - start
    if memory and cuda:
        cost.memory = torch.cuda.max_memory_allocated(device) / 2**20
    elif memory and linux:
        cost.memory = _resident(peak=True) - before


def held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name; the state dict of a quantised model holds more than these."""
    yield from model.named_parameters()
    yield from model.named_buffers()


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put weights, flags and mode back afterwards, bit for bit, whatever happened."""
    weights = {name: tensor.detach().clone() for name, tensor in held(model)}
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for name, tensor in held(model):
            tensor.data.copy_(weights[name])
        for name, weight in model.named_parameters():
            weight.requires_grad_(flags[name])
            weight.grad = None
        for module, training in modes.items():
            module.training = training


@dataclass(frozen=True)
class Method:
    """One way to forget.

    Attributes:
        name: as it stands in tables.
        make: `(session, request, settings) -> Edit`; may train the model, which is put back.
        source: paper and equation, and what differs from them here.
        grid: the settings that tuning chooses from on `pocket`; empty where there are none.
        needs: of `gradients`, `retain set`, `images` (it looks at pictures while it forgets).
        like: the method whose chosen settings it takes, for controls of equal strength.
        optional: settings beside those of the grid.
        defaults: whether those of the grid may be left out.
        chosen: the settings that the book chose on the tuning groups, for who names none.
    """

    name: str
    make: Callable[[Session, Request, dict], Edit]
    source: str
    grid: tuple[dict, ...] = ()
    needs: tuple[str, ...] = FORWARD
    like: str | None = None
    optional: tuple[str, ...] = ()
    defaults: bool = False
    chosen: dict = field(default_factory=dict, hash=False)

    def edit(
        self, session: Session, request: Request, settings: dict | None = None, memory: bool = False
    ) -> tuple[Edit, Cost]:
        """Make the edit; the model is as it was, whatever happens.

        Args:
            memory: whether the cost says how much was needed; half a second to ask.

        Raises:
            ValueError: settings that cannot work, nothing to learn from, activations or a loss
                that are not finite.
        """
        session, model, settings = (
            replace(session, cost=Cost()),
            session.model,
            dict(settings or {}),
        )
        cost = session.cost
        own, known = METHODS[self.like] if self.like else self, sketch(model)
        usual = (own.grid or ({},))[0]
        named = {*usual, *own.optional}
        strange, missing = sorted(set(settings) - named), sorted(set(usual) - set(settings))
        if strange:
            raise ValueError(
                f"{self.name} has no setting {strange[0]!r}; there are "
                f"{', '.join(sorted(named)) or 'none'}"
            )
        if missing and not own.defaults:
            raise ValueError(f"{self.name} needs the setting {missing[0]!r}")
        check_values(settings, usual, model)
        if "retain set" in self.needs and not request.retain:
            raise ValueError(f"{self.name} needs questions to retain, and this request has none")
        if not known.isfinite().all():
            raise ValueError("the model has weights that are NaN or infinite")
        with restored(model), metered(cost, next(model.parameters()).device, memory):
            edit = self.make(session, request, settings)
        edit.sketch = known
        edit.notes = {"people": request.people} | edit.notes
        edit.notes |= {"method": self.name, "settings": settings}
        return edit, cost


def check_values(settings: dict, usual: dict, model: nn.Module) -> None:
    """Refuse values that no method can use, before anything is measured.

    Args:
        usual: the settings of a grid; one that is a word there is not looked at.

    Raises:
        ValueError: a number that is none, or out of range; `layers` that are not two.
    """
    for name, value in settings.items():
        try:
            if name == "layers":
                resolve_layers(tuple(value), len(find_projections(model)))
            elif isinstance(usual.get(name, 1.0), (int, float)) and (name, value) not in WORDS:
                if name in COUNTS:
                    index(value)
                least = int(name in COUNTS)
                if not least <= value < 2**63 or name == "share" and value > 1:
                    raise ValueError(
                        f"{name} must be a finite number of at least {least}"
                        + ", at most 1" * (name == "share")
                    )
        except (TypeError, ValueError) as error:
            why = "of another kind" if isinstance(error, TypeError) else error
            raise ValueError(f"the setting {name} cannot be {value!r}: {why}") from error


METHODS: dict[str, Method] = {}


def register(found: Method) -> Method:
    """Put a method into the list.

    Raises:
        ValueError: another one has that name.
    """
    if found.name in METHODS:
        raise ValueError(f"there is a method {found.name!r} already")
    METHODS[found.name] = found
    return found


def method(name: str, **more) -> Callable:
    """Register `(session, request, settings) -> Edit` as a method; `more` as in `Method`."""

    def registered(make: Callable[[Session, Request, dict], Edit]):
        register(Method(name, make, **more))
        return make

    return registered


def every(**values: tuple) -> tuple[dict, ...]:
    """Every combination of some settings, the first changing slowest."""
    found: list[dict] = [{}]
    for name, choices in values.items():
        found = [settings | {name: choice} for settings in found for choice in choices]
    return tuple(found)
