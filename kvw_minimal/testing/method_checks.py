"""The promises of every method, and `check_method`, which checks them.

    check_method(NPOFull(rate=1e-3, weight=1.0), session, request)

A broken promise raises `Broken` with a message that says in which way. `PROMISES` lists the
promises. Each of them looks at a method from outside, so they hold for a user's method, too
(`kvw_minimal.testing.check_command`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from ..beginnings import plainly
from ..edits import Edit
from ..forget_request import Request
from ..method import Method, make_edit
from ..models import find_projections, fingerprint, hash_tensors, same_up_to_rounding, weight_stats
from ..session import Cost, Session


class Broken(AssertionError):
    """A promise is not kept; the message says in which way."""


class Interrupted(Exception):
    """Raised from within a forward pass, to a method like any error of the model."""


# --- observations of model and method ----------------------------------------------------------


def require(condition: object, message: str) -> None:
    """Raises `Broken` with the message unless the condition holds."""
    if not condition:
        raise Broken(message)


def snapshot(model: nn.Module) -> dict:
    """Traces that a method could leave on a model: bits, flags, modes, modules, hooks, names."""
    modules, weights = dict(model.named_modules()), dict(model.named_parameters())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "bits": hash_tensors(model.state_dict().items()),
        "parameters": {name: id(weight) for name, weight in weights.items()},
        "flags": {name: weight.requires_grad for name, weight in weights.items()},
        "gradients": [name for name, weight in weights.items() if weight.grad is not None],
        "modes": {name: module.training for name, module in modules.items()},
        "modules": {name: id(module) for name, module in modules.items()},
        "hooks": {
            name: [list(getattr(module, kind) or ()) for kind in kinds]
            for name, module in modules.items()
        },
        "attributes": sorted(vars(model)),
    }


def differences(snapshot_before: dict, model: nn.Module) -> str:
    """Names of the parts of a model that changed since a snapshot; empty if none changed."""
    current = snapshot(model)
    return ", ".join(name for name in current if current[name] != snapshot_before[name])


def untouched(snapshot_before: dict, model: nn.Module, when: str) -> None:
    """Raises `Broken` if a model changed since a snapshot."""
    changes = differences(snapshot_before, model)
    require(not changes, f"the model is not as it was {when}: {changes}")


@torch.no_grad()
def all_logits(session: Session, request: Request) -> torch.Tensor:
    """All logits of all questions of a request, flattened into one row."""
    batches = session.encode(session.processor, request.questions(), 64)
    logits_of_batches = [session.model(**batch.inputs, use_cache=False).logits for batch in batches]
    return torch.cat([logits.flatten() for logits in logits_of_batches])


@contextmanager
def counting(model: nn.Module, throw_at: int | None = None) -> Iterator[Counter]:
    """Context manager: counts the `passes` through the first layer, and their `questions`.

    A pass with gradients counts three times.

    Args:
        throw_at: the number of the pass in which `Interrupted` is raised.
    """
    counts = Counter(passes=0, questions=0)

    def count(module: nn.Module, inputs: tuple) -> None:  # a frozen copy has this hook, too
        counts["passes"] += 1
        counts["questions"] += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)
        if counts["passes"] == throw_at:
            raise Interrupted

    handle = next(iter(find_projections(model).values())).register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        handle.remove()


def scramble_rng(seed: int) -> None:
    """Seeds the global random streams anew. No method may draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)


class MethodUnderTest:
    """A method and one of its edits, for the checks of its promises.

    Attributes:
        method, session, request: the method, and the model and request that it is given.
        changes: whether the method changes the model; False for vanilla.
        edit, cost: the edit and its cost; `seen`: the number of passes that were counted.
        silent: logits of the unedited model; `changed`: the parts of the model that making the
            edit changed, in words.
    """

    def __init__(
        self,
        method: Method,
        session: Session,
        request: Request,
        changes: bool = True,
    ):
        self.method, self.changes = method, changes
        self.session, self.request = session, request
        # before the snapshot, because transformers sets its own hooks in the first pass
        self.silent = all_logits(session, request)
        snapshot_before = snapshot(session.model)
        scramble_rng(1)
        with counting(session.model) as self.seen:
            self.edit, self.cost = self.make()
        self.changed = differences(snapshot_before, session.model)

    def make(self, **changes) -> tuple[Edit, Cost]:
        """Makes the edit anew, with an empty cache and with some changes to the request."""
        return make_edit(
            replace(self.session, cache={}), replace(self.request, **changes), self.method
        )

    def worn(self) -> torch.Tensor:
        """Logits of the edited model. An error inside the block reverts the edit."""
        try:
            with self.edit.on(self.session.model):
                logits = all_logits(self.session, self.request)
                raise Interrupted
        except Interrupted:
            return logits
        except ValueError as error:
            raise Broken(f"the edit cannot be put on: {error}") from error

    def refused(self, **changes) -> str:
        """Message with which the method refuses a changed request; empty if it accepts it."""
        snapshot_before, message = snapshot(self.session.model), ""
        try:
            self.make(**changes)
        except ValueError as error:
            message = str(error)
        except (TypeError, KeyError, AttributeError) as error:
            raise Broken(f"refused with {error!r} in place of a sentence") from error
        untouched(snapshot_before, self.session.model, "after something was refused")
        return message


# --- the promises: the first line of each docstring is printed by `check` -----------------------


def leaves_no_trace(held: MethodUnderTest) -> None:
    """Making the edit leaves no trace: bits, flags, gradients, modes, modules, hooks."""
    require(not held.changed, f"the model is not as it was after the edit was made: {held.changed}")


def counts_its_cost(held: MethodUnderTest) -> None:
    """The cost holds the seconds and the number of passes over questions."""
    passes, counted = held.cost.passes, held.seen["questions"]
    require(held.cost.seconds > 0 and set(passes) == {"forget", "retain"}, "costs are not counted")
    # one pass over the questions may be shared with another measurement
    total, shareable = sum(passes.values()), len(held.request.questions())
    require(
        all(isinstance(n, int) and n >= 0 for n in passes.values())
        and counted - shareable <= total <= counted
        and (total > 0) == (counted > 0),
        f"costs say {total} passes, {counted} were made",
    )


def comes_off(held: MethodUnderTest) -> None:
    """The edit can be applied, and is reverted to the bit, also after an error."""
    snapshot_before = snapshot(held.session.model)
    held.worn()
    untouched(snapshot_before, held.session.model, "after the edit came off")


def changes_something(held: MethodUnderTest) -> None:
    """The edited model has other logits than the unedited model, and never NaN."""
    logits, what = held.worn(), "nothing that" if held.changes else "what"
    require(logits.isfinite().all(), "the edited model says NaN")
    require(torch.equal(logits, held.silent) != held.changes, f"the edit changes {what} is said")


def notes_are_true(held: MethodUnderTest) -> None:
    """The notes name the people, the method, its settings and the model."""
    edit, session, request = held.edit, held.session, held.request
    try:
        json.dumps(edit.notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"the notes are not JSON: {error}") from error
    require(edit.notes.get("method") == held.method.name, "the notes do not name the method")
    require(
        edit.notes.get("settings") == held.method.settings, "the notes do not hold the settings"
    )
    people = edit.notes.get("people")
    require(
        people and set(people) <= {*request.people, *request.retain_people},
        "the notes do not say who",
    )
    require(edit.fingerprint == fingerprint(session.model), "the edit is of another model")
    require(
        edit.weight_stats is not None
        and same_up_to_rounding(edit.weight_stats, weight_stats(session.model)),
        "no sketch",
    )
    require(edit.describe(), "it does not describe itself")


def can_be_saved(held: MethodUnderTest) -> None:
    """A saved and loaded edit gives the same logits, to the last bit."""
    edit, model = held.edit, held.session.model
    with TemporaryDirectory() as folder:
        edit.save(Path(folder, "edit"))
        loaded = Edit.load(Path(folder, "edit"))
    with edit.on(model):
        logits = all_logits(held.session, held.request)
    with loaded.on(model):
        require(
            torch.equal(logits, all_logits(held.session, held.request)),
            "a loaded edit gives other answers",
        )
    require(loaded.notes == json.loads(json.dumps(edit.notes)), "notes are lost in a file")


def repeats_itself(held: MethodUnderTest) -> None:
    """The same seed gives the same edit, in any state of the global random streams."""
    model = held.session.model
    scramble_rng(2)
    with plainly():  # like the first edit, whose passes were counted by hooks
        repeated, _ = held.make()
    with held.edit.on(model):
        snapshot_first = snapshot(model)
    with repeated.on(model):
        require(
            "bits" not in differences(snapshot_first, model), "the same seed gives another edit"
        )
    reseeded, _ = held.make(seed=held.request.seed + 1)
    require(type(reseeded) is type(held.edit), "another seed gives another kind of edit")


def lets_errors_through(held: MethodUnderTest) -> None:
    """An error in a pass is raised, and the model stays as it was.

    The check raises one in the first, a middle and the last pass.
    """
    model, passes = held.session.model, held.seen["passes"]
    snapshot_before = snapshot(model)
    for throw_at in {1, (passes + 1) // 2, passes} if passes else ():
        try:
            with counting(model, throw_at):
                held.make()
        except Interrupted:
            untouched(snapshot_before, model, f"after pass {throw_at} of {passes} failed")
        else:
            raise Broken("an error was swallowed")


def refuses_broken_weights(held: MethodUnderTest) -> None:
    """NaN or infinite weights are refused with a message."""
    model = held.session.model
    weight = model.get_parameter(next(iter(find_projections(model))) + ".weight")
    for value in (torch.nan, torch.inf):
        original = weight.data[0, 0].clone()
        weight.data[0, 0] = value
        try:
            require("NaN or infinite" in held.refused(), f"weights may be {value}")
        finally:
            weight.data[0, 0] = original


def checks_its_settings(held: MethodUnderTest) -> None:
    """Settings cannot be changed, and the message about a wrong number names the setting."""
    method, broken = held.method, {float: torch.nan, int: 1.5}
    for field in fields(method):
        value = getattr(method, field.name)
        try:
            setattr(method, field.name, value)
        except FrozenInstanceError:
            pass
        else:
            raise Broken(f"{field.name!r} can be changed: make it a frozen dataclass")
        if field.type in broken:
            try:
                replace(method, **{field.name: broken[field.type]})
            except ValueError as error:
                require(field.name in str(error), f"a wrong {field.name!r} is refused by {error}")
            else:
                raise Broken(f"{field.name!r} may be {broken[field.type]}")


def wants_somebody_to_retain(held: MethodUnderTest) -> None:
    """A method that needs a retain set refuses an empty one with a message."""
    if "retain set" in held.method.requires:
        require("retain" in held.refused(retain=[]), "nobody to retain is not noticed")


Promise = Callable[[MethodUnderTest], None]
#: all promises, in the order in which they are checked; the first six look at a single edit
PROMISES: tuple[Promise, ...] = (
    leaves_no_trace,
    counts_its_cost,
    comes_off,
    changes_something,
    notes_are_true,
    can_be_saved,
    repeats_itself,
    lets_errors_through,
    refuses_broken_weights,
    checks_its_settings,
    wants_somebody_to_retain,
)


def check_method(
    method: Method,
    session: Session,
    request: Request,
    changes: bool = True,
    promises: Iterable[Promise] = PROMISES,
) -> Edit:
    """Checks the promises of a method.

    Args:
        session, request: a small request, to a model whose parts are in different modes.
        changes: as in `MethodUnderTest`.
        promises: the promises to check.

    Returns:
        The edit that the method made.

    Raises:
        Broken: (an AssertionError) a promise is broken; the message says in which way.
    """
    held = MethodUnderTest(method, session, request, changes)
    for promise in promises:
        promise(held)
    return held.edit
