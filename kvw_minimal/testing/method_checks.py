"""What every method promises, whatever it does, and `check_method`, which holds one to it.

    check_method(NPOFull(rate=1e-3, weight=1.0), session, request)

Where a promise is broken it raises `Broken` and says in which way. The promises stand in
`PROMISES`; each looks at the method from outside, so that anybody's can be held to them
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
    """Thrown from within a forward pass: what any error of the model looks like to a method."""


# --- what is looked at -------------------------------------------------------------------------


def wanted(kept: object, words: str) -> None:
    """Raise `Broken` with the words unless something is so."""
    if not kept:
        raise Broken(words)


def snapshot(model: nn.Module) -> dict:
    """Everything that a method could leave behind: bits, flags, modes, modules, hooks, names."""
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


def differences(before: dict, model: nn.Module) -> str:
    """What of a model is not as it was, in words; empty if nothing is."""
    now = snapshot(model)
    return ", ".join(part for part in now if now[part] != before[part])


def untouched(before: dict, model: nn.Module, when: str) -> None:
    """Raise `Broken` unless a model is as it was."""
    changed = differences(before, model)
    wanted(not changed, f"the model is not as it was {when}: {changed}")


@torch.no_grad()
def said_by(session: Session, request: Request) -> torch.Tensor:
    """All logits of all that the model is asked, in batches of its own, in one row."""
    batches = session.encode(session.processor, request.questions(), 64)
    said = [session.model(**batch.inputs, use_cache=False).logits for batch in batches]
    return torch.cat([logits.flatten() for logits in said])


@contextmanager
def counting(model: nn.Module, throw_at: int | None = None) -> Iterator[Counter]:
    """Count the `questions` that reach the first layer, in how many `passes`.

    Args:
        throw_at: the pass in which `Interrupted` is thrown.
    """
    seen = Counter(passes=0, questions=0)

    def count(module: nn.Module, inputs: tuple) -> None:  # a frozen copy has it on, too
        seen["passes"] += 1
        seen["questions"] += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)
        if seen["passes"] == throw_at:
            raise Interrupted

    handle = next(iter(find_projections(model).values())).register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def scramble_rng(seed: int) -> None:
    """Bring the common streams into another state: no method may draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)


class MethodUnderTest:
    """A method and the edit that it made, to be held to its promises.

    Attributes:
        method, session, request: it does something to this model.
        changes: whether it does; False for vanilla.
        edit, cost: what it made; `seen`: the passes that were counted.
        silent: what the model said before; `changed`: what of it was no longer as it had been
            when the edit was made.
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
        self.silent = said_by(
            session, request
        )  # transformers sets hooks of its own in a first pass
        before = snapshot(session.model)
        scramble_rng(1)
        with counting(session.model) as self.seen:
            self.edit, self.cost = self.make()
        self.changed = differences(before, session.model)

    def make(self, **changes) -> tuple[Edit, Cost]:
        """The edit, with nothing measured yet, of the request with some changes."""
        return make_edit(
            replace(self.session, cache={}), replace(self.request, **changes), self.method
        )

    def worn(self) -> torch.Tensor:
        """What is said with the edit on; an error takes it off."""
        try:
            with self.edit.on(self.session.model):
                said = said_by(self.session, self.request)
                raise Interrupted
        except Interrupted:
            return said
        except ValueError as error:
            raise Broken(f"the edit cannot be put on: {error}") from error

    def refused(self, **changes) -> str:
        """The sentence that refuses a request with some changes; empty if it is not refused."""
        before, sentence = snapshot(self.session.model), ""
        try:
            self.make(**changes)
        except ValueError as error:
            sentence = str(error)
        except (TypeError, KeyError, AttributeError) as error:
            raise Broken(f"refused with {error!r} in place of a sentence") from error
        untouched(before, self.session.model, "after something was refused")
        return sentence


# --- the promises: what is promised is the first line of each -----------------------------------


def leaves_no_trace(held: MethodUnderTest) -> None:
    """Making it leaves no trace on the model: bits, flags, gradients, modes, modules, hooks."""
    wanted(not held.changed, f"the model is not as it was after the edit was made: {held.changed}")


def counts_its_cost(held: MethodUnderTest) -> None:
    """The cost says how long it took and how many passes over questions it needed."""
    passes, made = held.cost.passes, held.seen["questions"]
    wanted(held.cost.seconds > 0 and set(passes) == {"forget", "retain"}, "costs are not counted")
    spent, shared = (
        sum(passes.values()),
        len(held.request.questions()),
    )  # a pass may have been shared
    wanted(
        all(isinstance(n, int) and n >= 0 for n in passes.values())
        and made - shared <= spent <= made
        and (spent > 0) == (made > 0),
        f"costs say {spent} passes, {made} were made",
    )


def comes_off(held: MethodUnderTest) -> None:
    """The edit can be put on, and comes off to the bit, also where an error comes between."""
    before = snapshot(held.session.model)
    held.worn()
    untouched(before, held.session.model, "after the edit came off")


def changes_something(held: MethodUnderTest) -> None:
    """With the edit on, the model says something else than before, and never NaN."""
    said, so = held.worn(), "nothing that" if held.changes else "what"
    wanted(said.isfinite().all(), "the edited model says NaN")
    wanted(torch.equal(said, held.silent) != held.changes, f"the edit changes {so} is said")


def notes_are_true(held: MethodUnderTest) -> None:
    """Its notes say who was forgotten, by what, at which settings, and from which model."""
    edit, session, request = held.edit, held.session, held.request
    try:
        json.dumps(edit.notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"the notes are not JSON: {error}") from error
    wanted(edit.notes.get("method") == held.method.name, "the notes do not name the method")
    wanted(edit.notes.get("settings") == held.method.settings, "the notes do not hold the settings")
    people = edit.notes.get("people")
    wanted(
        people and set(people) <= {*request.people, *request.retain_people},
        "the notes do not say who",
    )
    wanted(edit.fingerprint == fingerprint(session.model), "the edit is of another model")
    wanted(
        edit.weight_stats is not None
        and same_up_to_rounding(edit.weight_stats, weight_stats(session.model)),
        "no sketch",
    )
    wanted(edit.describe(), "it does not describe itself")


def can_be_saved(held: MethodUnderTest) -> None:
    """From a file it is the same edit, to the last bit of what the model says."""
    edit, model = held.edit, held.session.model
    with TemporaryDirectory() as folder:
        edit.save(Path(folder, "edit"))
        loaded = Edit.load(Path(folder, "edit"))
    with edit.on(model):
        said = said_by(held.session, held.request)
    with loaded.on(model):
        wanted(
            torch.equal(said, said_by(held.session, held.request)),
            "a loaded edit gives other answers",
        )
    wanted(loaded.notes == json.loads(json.dumps(edit.notes)), "notes are lost in a file")


def repeats_itself(held: MethodUnderTest) -> None:
    """From the same seed it is the same edit, whatever else was drawn before."""
    model = held.session.model
    scramble_rng(2)
    with plainly():  # as the first was made: hooks counted its passes
        again, _ = held.make()
    with held.edit.on(model):
        first = snapshot(model)
    with again.on(model):
        wanted("bits" not in differences(first, model), "the same seed gives another edit")
    other, _ = held.make(seed=held.request.seed + 1)
    wanted(type(other) is type(held.edit), "another seed gives another kind of edit")


def lets_errors_through(held: MethodUnderTest) -> None:
    """An error in any pass comes through, and the model is as it was.

    Tried in the first, a middle and the last pass.
    """
    model, passes = held.session.model, held.seen["passes"]
    before = snapshot(model)
    for throw_at in {1, (passes + 1) // 2, passes} if passes else ():
        try:
            with counting(model, throw_at):
                held.make()
        except Interrupted:
            untouched(before, model, f"after pass {throw_at} of {passes} failed")
        else:
            raise Broken("an error was swallowed")


def refuses_broken_weights(held: MethodUnderTest) -> None:
    """Weights that are NaN or infinite are refused, in a sentence."""
    model = held.session.model
    weight = model.get_parameter(next(iter(find_projections(model))) + ".weight")
    for value in (torch.nan, torch.inf):
        own = weight.data[0, 0].clone()
        weight.data[0, 0] = value
        try:
            wanted("NaN or infinite" in held.refused(), f"weights may be {value}")
        finally:
            weight.data[0, 0] = own


def checks_its_settings(held: MethodUnderTest) -> None:
    """Its settings cannot be changed, and a number that is none is refused by name."""
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
                wanted(field.name in str(error), f"a wrong {field.name!r} is refused by {error}")
            else:
                raise Broken(f"{field.name!r} may be {broken[field.type]}")


def wants_somebody_to_retain(held: MethodUnderTest) -> None:
    """Where it needs somebody to retain, and there is nobody, it says so."""
    if "retain set" in held.method.requires:
        wanted("retain" in held.refused(retain=[]), "nobody to retain is not noticed")


Promise = Callable[[MethodUnderTest], None]
#: every promise, in the order in which they are asked for; the first six look at a single edit
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
    """Hold a method to all that is promised for any of them.

    Args:
        session, request: a small one, of a model in which not every part is in the same mode.
        changes: as in `MethodUnderTest`.

    Returns:
        The edit that it made.

    Raises:
        Broken: (an AssertionError) with the promise that is broken.
    """
    held = MethodUnderTest(method, session, request, changes)
    for promise in promises:
        promise(held)
    return held.edit
