"""The base class of all methods, their register, and the function that makes an edit."""

import ctypes
import gc
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, dataclass, fields, replace
from difflib import get_close_matches
from itertools import product
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from .edits import ColumnScaling, Edit
from .forget_request import Request
from .models import weight_stats
from .session import Cost, Session

#: settings that spare the others, and the factors that make an edit milder and stronger; the first
#: setting that a method has counts
MILDER = {"strength": 0.5, "retain_penalty": 30.0, "weight": 2.0, "rate": 0.5}
STRONGER = {"strength": 2.0, "retain_penalty": 0.3, "weight": 0.5, "rate": 2.0}
#: smallest and largest value to propose: lower ones were not tried, higher ones hardly forget
LIMITS = {"retain_penalty": (1.0, 1000.0)}
RECOMMENDED = ("layerwise rewrite", "rewrite")  # what the book found to forget most at equal retain
GRADIENTS = ("gradients", "retain set", "images")
FORWARD = ("retain set", "images")
NAMES = (*FORWARD, "names")
Kind = TypeVar("Kind", bound="type[Method]")


def _fault(value: Any, field: Field, hint: Any) -> str:
    """The reason why a value does not fit its field; empty if it fits."""
    origin = get_origin(hint)
    kinds: tuple[Any, ...] = (origin,) if origin is tuple else get_args(hint) or (hint,)
    if isinstance(value, tuple(kind for kind in kinds if kind not in (float, int))):
        return ""
    if float not in kinds and int not in kinds:
        return f"it must be of type {getattr(hint, '__name__', hint)}"
    real = float in kinds
    number: Any = Real if real else Integral
    least = field.metadata.get("at_least", 0 if real else 1)
    most = field.metadata.get("at_most")
    if isinstance(value, number) and not isinstance(value, bool):
        if least <= value < 2**63 and (most is None or value <= most):
            return ""
    limit = "" if most is None else f", at most {most:g}"
    return f"it must be a {'finite' if real else 'whole'} number of at least {least}{limit}"


@dataclass(frozen=True)
class Method:
    """A way to forget: a frozen dataclass. Its fields are its settings; `edit` makes the edit.

    Your own method inherits from this class. The types check the fields: a `float` is at least 0,
    an `int` at least 1. The metadata of a field can set `at_least` and `at_most`. No number is
    infinite. `register` enters a method under a name.

    Attributes:
        name: the name in tables and rows; the name of the class unless it is registered.
        source: the paper and its equation, and the differences from them here.
        grid: the settings that tuning tries on `pocket`; empty without tuning.
        requires: any of `gradients`, `retain set`, `images` (it uses pictures while it forgets),
            `names` (each text question has a name in its prompt).
        settings_from: the method that lends its tuned settings, for controls of equal strength.

    Raises:
        ValueError: a value that a field cannot have; the message names the field.
    """

    name: ClassVar[str] = "Method"
    source: ClassVar[str] = ""
    grid: ClassVar[tuple[dict, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    settings_from: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.name, cls.grid, cls.settings_from = cls.__name__, (), ""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))  # a module may keep its annotations as strings
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # JSON has no tuples
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            fault = _fault(value, field, hints[field.name])
            if fault:
                kind = type(self).__name__
                raise ValueError(f"{kind}: the setting {field.name} cannot be {value!r}: {fault}")

    @property
    def settings(self) -> dict[str, Any]:
        """The fields by name, as JSON holds them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        differ = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return {name: value for name, value in self.settings.items() if name in differ}

    @classmethod
    def tuned(cls) -> dict[str, Any]:
        """The tuned settings of the book: the defaults of the fields in `grid`."""
        return {name: getattr(cls, name) for name in (cls.grid or ({},))[0]}

    def edit(self, session: Session, request: Request) -> Edit:
        """The change to `session.model` for a request.

        A method may train the model: `make_edit` restores it afterwards, bit for bit. It counts its
        passes over questions in `session.cost`.
        """
        raise NotImplementedError

    def __str__(self) -> str:
        """The class with its strength, and with each field that differs from its default."""
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name == "strength" or field.name in self.changed
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


# --- the list ----------------------------------------------------------------------------------

METHODS: dict[str, type[Method]] = {}


def register(
    name: str,
    *,
    source: str,
    grid: tuple[dict, ...] = (),
    requires: tuple[str, ...] = FORWARD,
    settings_from: str = "",
) -> Callable[[Kind], Kind]:
    """A decorator that enters a class into `METHODS`; arguments as the attributes of `Method`.

    Raises:
        ValueError: another method has that name.
    """

    def enter(kind: Kind) -> Kind:
        if name in METHODS:
            raise ValueError(f"there is a method {name!r} already")
        kind.name, kind.source, kind.grid = name, source, grid
        kind.requires, kind.settings_from = requires, settings_from
        METHODS[name] = kind
        return kind

    return enter


def _similar(name: str) -> str:
    """A question for the method that was meant; without one, the methods that are no shams."""
    names = {re.sub("[^a-z]", "", known.lower()): known for known in METHODS}
    names |= {kind.__name__.lower(): kind.name for kind in METHODS.values()}
    like = get_close_matches(re.sub("[^a-z]", "", name.lower()), names, 1, 0.75)
    if like:
        return f"did you mean {names[like[0]]!r}? `methods` lists all"
    return f"there are {', '.join(n for n, kind in METHODS.items() if not kind.settings_from)}"


def method_of(kind: str | type[Method], settings: dict[str, Any] | None = None) -> Method:
    """Makes a method from its name or class and some settings; the others keep their defaults.

    Raises:
        ValueError: no such method, no such setting, or a value that the setting cannot have.
    """
    if isinstance(kind, str):
        if kind not in METHODS:
            raise ValueError(f"no method {kind!r}; {_similar(kind)}")
        kind = METHODS[kind]
    known = [field.name for field in fields(kind)]
    strange = sorted(set(settings or {}) - set(known))
    if strange:
        settings_known = ", ".join(known) or "none"
        raise ValueError(f"{kind.name} has no setting {strange[0]!r}; there are {settings_known}")
    return kind(**(settings or {}))


def method_of_edit(edit: Edit) -> Method | None:
    """The method of an edit, for shams: known, or read from the notes of a loaded edit.

    None for a method that is not registered here, or an edit that was scaled after it was made.
    """
    name, settings = edit.notes.get("method"), dict(edit.notes.get("settings") or {})
    if edit.made_by is not None or name not in METHODS:
        return edit.made_by
    strength, share = getattr(edit, "strength", 1), getattr(edit, "share", 1)
    if isinstance(edit, ColumnScaling) and "strength" in settings:
        settings["strength"], strength = strength, 1
    if (strength, share, edit.notes.get("share", 1)) != (1, 1, 1):
        return None
    return method_of(name, settings)


def name_of_method(edit: Edit) -> str:
    """The method of an edit with its settings; else the name that its notes give."""
    return str(method_of_edit(edit) or edit.notes.get("method", "the edit"))


def milder(method: Method) -> Method | None:
    """The same method, with a setting that spares the others more; None without such a setting."""
    return _scaled(method, MILDER)


def stronger(method: Method) -> Method | None:
    """The same method, with a setting that spares the others less; None without such a setting."""
    return _scaled(method, STRONGER)


def _scaled(method: Method, factors: dict[str, float]) -> Method | None:
    for name, factor in factors.items():
        if method.settings.get(name):
            value = float(f"{method.settings[name] * factor:.2g}")
            lowest, highest = LIMITS.get(name, (value, value))
            return replace(method, **{name: value}) if lowest <= value <= highest else None
    return None


def alternatives(method: Method, more: bool = False) -> list[Method]:
    """What to try if an edit fails, the most promising first; empty if all was tried.

    Args:
        more: whether it should take more of the forgotten; else it should spare the others more.
    """
    change = stronger if more else milder
    changed = change(method)
    same = [changed] if changed else []
    if method.name not in RECOMMENDED:
        return [METHODS[RECOMMENDED[0]](), *same]
    others = [METHODS[name]() for name in RECOMMENDED if name != method.name]
    if same:
        return [*same, *others]
    later = RECOMMENDED[RECOMMENDED.index(method.name) + 1 :]
    return [other for name in later if (other := change(METHODS[name]()))]


def parameter_grid(**values: tuple) -> tuple[dict, ...]:
    """Every combination of some settings; the first setting changes slowest."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


# --- how an edit is made -----------------------------------------------------------------------


def check_requirements(method: Method, request: Request, shams: bool = False) -> None:
    """Checks that a request has what a method requires.

    Args:
        shams: whether the shams of the request have it, too.

    Raises:
        ValueError: no retain set, or a text question without a name.
    """
    if "retain set" in method.requires and not request.retain:
        raise ValueError(f"{method.name} needs questions to retain, and this request has none")
    if "names" in method.requires:
        request.check_names(shams)


def make_edit(
    session: Session, request: Request, method: Method, memory: bool = False
) -> tuple[Edit, Cost]:
    """Makes the edit of a method, and restores the model, also after an error.

    Args:
        memory: whether the cost includes the peak memory; this takes half a second.

    Returns:
        The edit, with its notes and the weight statistics of its model, and its cost.

    Raises:
        ValueError: no retain set or no names where the method requires them; weights, activations
            or a loss that are not finite; anything that the method itself refuses.
        TypeError: an object that is no method, or a method that returns no edit.
    """
    if not isinstance(method, Method):
        raise TypeError(f"{method!r} is no method: inherit from kvw.Method, and make one of it")
    session, known = replace(session, cost=Cost()), weight_stats(session.model)
    check_requirements(method, request)
    if not known.isfinite().all():
        raise ValueError("the model has weights that are NaN or infinite")
    device = next(session.model.parameters()).device
    with restored(session.model), metered(session.cost, device, memory):
        edit = method.edit(session, request)
    if not isinstance(edit, Edit):
        raise TypeError(f"{method}.edit returned {edit!r:.40}, and an Edit is expected")
    origin = {"method": method.name, "settings": method.settings}
    edit.weight_stats, edit.made_by = known, method
    edit.notes = {"people": request.people} | edit.notes | origin
    return edit, session.cost


def _resident(peak: bool) -> float:
    """Megabytes that this process holds now, or its peak since the last reset (Linux)."""
    wanted = "VmHWM" if peak else "VmRSS"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


@contextmanager
def metered(cost: Cost, device: torch.device, memory: bool) -> Iterator[None]:
    """Measures the time of a block and, if `memory`, its peak memory."""
    cuda, linux = device.type == "cuda", device.type == "cpu" and sys.platform == "linux"
    if memory and cuda:
        torch.cuda.reset_peak_memory_stats(device)
    elif memory and linux:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc keeps freed memory: a later method would not need new memory
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


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name. The state dict of a quantised model holds more."""
    yield from model.named_parameters()
    yield from model.named_buffers()


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restores weights, flags and mode after the block, bit for bit, also after an error."""
    weights = {name: tensor.detach().clone() for name, tensor in named_tensors(model)}
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for name, tensor in named_tensors(model):
            tensor.data.copy_(weights[name])
        for name, weight in model.named_parameters():
            weight.requires_grad_(flags[name])
            weight.grad = None
        for module, training in modes.items():
            module.training = training
