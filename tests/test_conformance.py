"""What every method promises, whatever it does: `check_method` holds any of them to it.

    check_method(METHODS["NPO full"], task, {"rate": 1e-3, "weight": 1.0})

Where a promise is broken it raises AssertionError with the promise in words. A method of your own
needs no test but this one; the deliberately bad ones at the end say what it catches.
"""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn

from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.edits import Columns, Edit, Replaced
from kvw_minimal.methods import METHODS, Cost, Method
from kvw_minimal.models import alike, find_projections, fingerprint, sketch
from kvw_minimal.questions import Question
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general
from kvw_minimal.task import Task
from kvw_minimal.taught import pocket

# --- the promises ------------------------------------------------------------------------------


def promise(kept: object, words: str) -> None:
    """Raise AssertionError with the words unless a promise is kept."""
    if not kept:
        raise AssertionError(words)


def state_of(model: nn.Module) -> dict:
    """Everything that a method could leave behind: bits, flags, modes, modules, hooks, names."""
    modules = dict(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "bits": {name: (tensor.dtype, tensor.clone().view(torch.uint8))
                 for name, tensor in model.state_dict().items()},
        "parameters": {name: id(weight) for name, weight in model.named_parameters()},
        "flags": {name: weight.requires_grad for name, weight in model.named_parameters()},
        "gradients": [name for name, weight in model.named_parameters() if weight.grad is not None],
        "modes": {name: module.training for name, module in modules.items()},
        "modules": {name: id(module) for name, module in modules.items()},
        "hooks": {(name, kind): list(getattr(module, kind) or ())
                  for name, module in modules.items() for kind in hooks},
        "attributes": sorted(vars(model)),
    }  # fmt: skip


def differences(before: dict, model: nn.Module) -> list[str]:
    """What of a model is not as it was."""
    now = state_of(model)
    bits, old = now.pop("bits"), before["bits"]
    same = set(bits) == set(old) and all(
        bits[name][0] == old[name][0] and torch.equal(bits[name][1], old[name][1]) for name in old
    )
    return ([] if same else ["bits"]) + [part for part in now if now[part] != before[part]]


def check_untouched(before: dict, model: nn.Module, when: str) -> None:
    changed = differences(before, model)
    promise(not changed, f"the model is not as it was {when}: {', '.join(changed)}")


@torch.no_grad()
def logits_of(task: Task) -> list[torch.Tensor]:
    """What the model says to everything that it is asked, in batches of its own."""
    batches = task.encode(task.processor, task.known(), 64)
    return [task.model(**batch.inputs, use_cache=False).logits for batch in batches]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Interrupted(Exception):
    """Thrown from within a forward pass."""


class Counter:
    """Counts the questions that reach the first layer; throws at one of the passes if told to."""

    def __init__(self, model: nn.Module, throw_at: int | None = None):
        self.passes, self.questions, self.throw_at = 0, 0, throw_at
        first = next(iter(find_projections(model).values()))
        self.handle = first.register_forward_pre_hook(self.count)

    def count(self, module, arguments) -> None:
        self.passes += 1
        rows = arguments[0].shape[0]
        self.questions += rows * (3 if torch.is_grad_enabled() else 1)
        if self.passes == self.throw_at:
            raise Interrupted

    def __deepcopy__(self, memo) -> "Counter":
        return self  # a frozen copy of the model counts on the same account

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *error) -> None:
        self.handle.remove()


def fresh(task: Task, **changes) -> Task:
    """The same task with nothing measured yet."""
    return replace(task, kept={}, **changes)


def stir(seed: int) -> None:
    """Bring the common streams into another state: no method may draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def check_edit(method: Method, task: Task, settings: dict, changes: bool) -> tuple[Edit, Cost, int]:
    """Making it leaves no trace; putting it on does something and is undone, errors or not."""
    silent = logits_of(task)  # transformers sets hooks of its own in a first pass
    before = state_of(task.model)
    stir(1)
    with Counter(task.model) as counter:
        edit, cost = method.edit(fresh(task), settings)
    check_untouched(before, task.model, "after the edit was made")
    promise(cost.seconds > 0 and set(cost.passes) == {"forget", "retain"}, "costs are not counted")
    spent = sum(cost.passes.values())
    promise(all(isinstance(n, int) and n >= 0 for n in cost.passes.values())
            and counter.questions - len(task.known()) <= spent <= counter.questions
            and (spent > 0) == (counter.questions > 0),  # the pass over both sides may be shared
            f"costs say {spent} passes, {counter.questions} were made")  # fmt: skip
    try:
        with edit.on(task.model):
            said = logits_of(task)
            raise Interrupted
    except Interrupted:
        check_untouched(before, task.model, "after the edit came off")
    except ValueError as error:
        raise AssertionError(f"the edit cannot be put on: {error}") from error
    promise(all(each.isfinite().all() for each in said), "the edited model says NaN")
    promise(equal(said, silent) != changes, "the edit changes nothing that is said"
            if changes else "the edit changes what is said")  # fmt: skip
    return edit, cost, counter.passes


def check_saved(edit: Edit, task: Task) -> None:
    """From a file it is the same edit, to the last bit of what the model says."""
    with TemporaryDirectory() as folder:
        edit.save(Path(folder, "edit"))
        loaded = Edit.load(Path(folder, "edit"))
    with edit.on(task.model):
        said = logits_of(task)
    with loaded.on(task.model):
        promise(equal(said, logits_of(task)), "a loaded edit gives other answers")
    promise(loaded.notes == json.loads(json.dumps(edit.notes)), "notes are lost in a file")


def check_notes(method: Method, edit: Edit, task: Task, settings: dict) -> None:
    """Who was forgotten, by what, with which settings, from which model."""
    try:
        json.dumps(edit.notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the notes are not JSON: {error}") from error
    promise(edit.notes.get("method") == method.name, "the notes do not name the method")
    promise(edit.notes.get("settings") == settings, "the notes do not hold the settings")
    people = edit.notes.get("people")
    promise(people and set(people) <= {*task.people, *task.others}, "the notes do not say who")
    promise(edit.fingerprint == fingerprint(task.model), "the edit is of another model")
    promise(edit.sketch is not None and alike(edit.sketch, sketch(task.model)), "no sketch")
    promise(edit.describe(), "it does not describe itself")


def check_repeats(method: Method, task: Task, settings: dict, edit: Edit) -> None:
    """From the same seed the same edit, whatever was drawn from the common streams before."""
    stir(2)
    again, cost = method.edit(fresh(task), settings)
    with edit.on(task.model):
        first = state_of(task.model)
    with again.on(task.model):
        promise("bits" not in differences(first, task.model), "the same seed gives another edit")
    other, _ = method.edit(fresh(task, seed=task.seed + 1), settings)
    promise(type(other) is type(edit), "another seed gives another kind of edit")


def check_failure(method: Method, task: Task, settings: dict, passes: int) -> None:
    """Interrupted in the first, a middle or the last pass: the model is as it was."""
    before = state_of(task.model)
    for throw_at in {1, (passes + 1) // 2, passes} if passes else ():
        try:
            with Counter(task.model, throw_at):
                method.edit(fresh(task), settings)
        except Interrupted:
            check_untouched(before, task.model, f"after pass {throw_at} of {passes} failed")
        else:
            raise AssertionError("an error was swallowed")


def refused(method: Method, task: Task, settings: dict) -> str:
    """The sentence with which something is refused, or nothing if it is not."""
    before = state_of(task.model)
    try:
        method.edit(fresh(task), settings)
        said = ""
    except ValueError as error:
        said = str(error)
    except (TypeError, KeyError, AttributeError) as error:
        raise AssertionError(f"refused with {error!r} in place of a sentence") from error
    check_untouched(before, task.model, "after something was refused")
    return said


def check_refusals(method: Method, task: Task, settings: dict) -> None:
    """Broken weights, settings that there are not, settings that are missing."""
    name = next(iter(find_projections(task.model))) + ".weight"
    weight = task.model.get_parameter(name)
    for value in (torch.nan, torch.inf):
        own = weight.data[0, 0].clone()
        weight.data[0, 0] = value
        try:
            promise("NaN or infinite" in refused(method, task, settings), f"weights may be {value}")
        finally:
            weight.data[0, 0] = own
    said = refused(method, task, settings | {"no such setting": 1})
    promise("no such setting" in said, "an unknown setting is ignored")
    for missing in settings:
        less = {name: value for name, value in settings.items() if name != missing}
        said = refused(method, task, less)
        promise(not said or missing in said, f"without {missing!r} it says {said!r}")
    if "retain set" in method.needs:
        said = refused(method, fresh(task, retain=[]), settings)
        promise("retain" in said, "nobody to retain is not noticed")


def check_method(method: Method, task: Task, settings: dict, changes: bool = True) -> Edit:
    """Hold a method to all that is promised for any of them.

    Args:
        task: a small one, of a model in which not every part is in the same mode.
        settings: at which it does something to this model.
        changes: whether it does; False for vanilla.

    Raises:
        AssertionError: with the promise that is broken.
    """
    edit, _, passes = check_edit(method, task, settings, changes)
    check_notes(method, edit, task, settings)
    check_saved(edit, task)
    check_repeats(method, task, settings, edit)
    check_failure(method, task, settings, passes)
    check_refusals(method, task, settings)
    return edit


# --- whose questions ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def short(monkeypatch):
    tiny.shorten(monkeypatch, each=2, sample=8)


def encoder() -> Callable:
    """`answer_batches` that looks at each picture once only."""
    known: dict = {}

    def encode(processor, questions: list[Question], size: int = 64) -> list[Batch]:
        key = (*questions, size)
        if key not in known:
            known[key] = answer_batches(processor, questions, size)
        return known[key]

    return encode


@cache
def strangers() -> Task:
    """A LLaVA with a frozen eye that stands in training mode, all else in evaluation mode."""
    world = load_people()
    mine, *others = (about(world, [person])[:4] for person in list(world.people)[:4])
    model = tiny.llava()
    model.model.vision_tower.train().requires_grad_(False)
    return Task(model, tiny.processor(), mine, sum(others, []), general(world)[:2],
                encode=encoder())  # fmt: skip


NAMES = ("Ada", "Bo", "Cy")
COLOURS = ("red", "green", "blue")


def coloured(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 56), colour).save(buffer, "PNG")  # not square, and of no face
    return buffer.getvalue()


def somebodys(pictures: bool) -> list[list[Question]]:
    """What somebody else asks: an animal and a colour of each of three, with pictures or not."""
    found = []
    for name, colour in zip(NAMES, COLOURS, strict=True):
        asked = [Question(f"{name}-pet", name, "pet", "text", f"Which animal has {name}?",
                          "A newt.", "newt", options=("A newt.", "A toad."))]  # fmt: skip
        options = tuple(f"It is {each}." for each in COLOURS)
        for k in range(2):
            modality, image = ("image", coloured(colour)) if pictures else ("text", None)
            asked.append(Question(f"{name}-colour-{k}", name, "colour", modality,
                                  "What colour?" if pictures else f"{name}'s colour, {k}?",
                                  f"It is {colour}.", colour, image, options))  # fmt: skip
        found.append(asked)
    return found


@cache
def qwen() -> Task:
    """A Qwen2-VL, its own processor, and pictures cut into as many patches as they fill."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = tiny.tokenizer()
    vision = [f"<|{part}|>" for part in ("image_pad", "video_pad", "vision_start", "vision_end")]
    tokenizer.add_special_tokens({"additional_special_tokens": vision})
    pixels = {"min_pixels": 32 * 32, "max_pixels": 48 * 48}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(patch_size=tiny.PATCH, merge_size=2, **pixels), tokenizer,
        Qwen2VLVideoProcessor(), chat_template=pocket.CHAT.replace(
            "<image>", "<|vision_start|><|image_pad|><|vision_end|>"))  # fmt: skip
    model = tiny.build("qwen2_vl")
    config = model.config
    config.text_config.vocab_size = len(tokenizer)
    config.image_token_id, config.video_token_id, config.vision_start_token_id, _ = (
        tokenizer.convert_tokens_to_ids(vision))  # fmt: skip
    torch.manual_seed(0)
    mine, *others = somebodys(pictures=True)
    return Task(type(model)(config).eval(), processor, mine, sum(others, []), encode=encoder())


@cache
def llama() -> Task:
    """A language model, a tokenizer without chat template, and no pictures."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **tiny.LANGUAGE)).eval()
    mine, *others = somebodys(pictures=False)
    return Task(model, tokenizer, mine, sum(others, []), encode=encoder())


# --- every method ------------------------------------------------------------------------------


def some_settings(name: str) -> dict:
    """Settings of a method's grid (or of the one that it is like) that change something."""
    own = METHODS[name].like or name
    grid = METHODS[own].grid
    if own == "least squares":  # a random model knows nothing: what it says must fall far
        return {"ridge": 0.1, "passes": 2, "margin": 60.0}
    if own in ("rewrite", "rewrite in turn"):  # nor does whom it is asked about decide anything
        return dict(grid[-1]) | {"decides": 0.0, "others": 2}
    if own == "family":
        return {"score": "fisher", "strength": 4.0}
    return dict(grid[0 if name == "SSD" else -1]) if grid else {}


every = pytest.mark.parametrize("name", [name for name in METHODS if name != "oracle"])


@every
def test_every_method_keeps_its_promises(name: str):
    check_method(METHODS[name], strangers(), some_settings(name), changes=name != "vanilla")


@every
@pytest.mark.parametrize("whose", [qwen, llama])
def test_every_method_works_for_somebody_else(whose: Callable[[], Task], name: str):
    task = whose()
    edit, *_ = check_edit(METHODS[name], task, some_settings(name), name != "vanilla")
    check_notes(METHODS[name], edit, task, some_settings(name))
    check_saved(edit, task)


@pytest.mark.parametrize("score", ["square", "positive"])
@pytest.mark.parametrize("shape", [{"shape": "top"}, {"batch": 2}, {"shape": "zero", "mass": 0.1}])
def test_other_settings_of_the_family_keep_them_too(score: str, shape: dict):
    settings = {"score": score, "positions": "text"} | shape
    check_method(METHODS["family"], strangers(), settings)


@every
def test_nobody_to_forget_is_refused(name: str):
    """By the task: no method ever sees it."""
    with pytest.raises(ValueError, match="forget set is empty"):
        METHODS[name].edit(replace(strangers(), forget=[]), some_settings(name))


# --- bad methods are caught --------------------------------------------------------------------


def random_columns(task: Task, settings: dict, cost: Cost, seeded: bool = True) -> Columns:
    """A method that does nothing wrong: draws contrasts, and looks at the forget set once."""
    generator = torch.Generator().manual_seed(task.seed) if seeded else None
    task.measured(task.forget)
    cost.add("forget", len(task.forget), 1)
    contrast = torch.rand(tiny.LAYERS, tiny.D_FF, generator=generator)
    return Columns(contrast, settings["strength"], fingerprint(task.model))


class Careless(Method):
    """A method that puts nothing back."""

    def edit(self, task, settings=None):
        cost = Cost(seconds=1.0)
        edit = self.make(task, settings, cost)
        edit.sketch = sketch(task.model)
        edit.notes = {"people": task.people, "method": self.name, "settings": settings}
        return edit, cost


def leaves_an_edit(task, settings, cost):
    edit = random_columns(task, settings, cost)
    for projection in find_projections(task.model).values():
        projection.weight.data.mul_(0.5)
    return edit


def leaves_a_hook(task, settings, cost):
    task.model.register_forward_hook(lambda *_: None)
    return random_columns(task, settings, cost)


def leaves_a_flag(task, settings, cost):
    task.model.requires_grad_(False)
    return random_columns(task, settings, cost)


def leaves_a_mode(task, settings, cost):
    task.model.eval()
    return random_columns(task, settings, cost)


def leaves_a_gradient(task, settings, cost):
    weight = task.model.get_input_embeddings().weight
    weight.grad = torch.zeros_like(weight)
    return random_columns(task, settings, cost)


def fails_with_an_edit_on(task, settings, cost):
    weight = next(iter(find_projections(task.model).values())).weight
    own = weight.data.clone()
    weight.data.mul_(0.5)
    edit = random_columns(task, settings, cost)  # should this fail, nobody puts it back
    weight.data.copy_(own)
    return replace(edit, fingerprint=fingerprint(task.model))


def unseeded(task, settings, cost):
    return random_columns(task, settings, cost, seeded=False)


def returns_nan(task, settings, cost):
    edit = random_columns(task, settings, cost)
    edit.contrast[0, 0] = torch.nan  # behind the back of the edit's own check
    return edit


def says_nan(task, settings, cost):
    random_columns(task, settings, cost)
    name = "model.language_model.norm.weight"
    huge = torch.full_like(task.model.get_parameter(name), 1e38)  # finite, but not what comes of it
    return Replaced({name: huge}, fingerprint(task.model))


def does_nothing(task, settings, cost):
    return replace(random_columns(task, settings, cost), strength=0.0)


def counts_nothing(task, settings, cost):
    return random_columns(task, settings, Cost())


def counts_too_much(task, settings, cost):
    cost.add("retain", 1_000, 1)
    return random_columns(task, settings, cost)


def notes_a_tensor(task, settings, cost):
    edit = random_columns(task, settings, cost)
    edit.notes["best"] = torch.ones(1)
    return edit


def notes_nan(task, settings, cost):
    edit = random_columns(task, settings, cost)
    edit.notes["loss"] = float("nan")
    return edit


def names_a_stranger(task, settings, cost):
    edit = random_columns(task, settings, cost)
    edit.notes["people"] = ["somebody"]
    return edit


def of_another_model(task, settings, cost):
    return replace(random_columns(task, settings, cost), fingerprint="0" * 16)


def swallows_errors(task, settings, cost):
    try:
        return random_columns(task, settings, cost)
    except Interrupted:
        return Columns(torch.ones(tiny.LAYERS, tiny.D_FF), 1.0, fingerprint(task.model))


GRID = ({"strength": 2.0},)


def a_method(make: Callable, kind: type[Method] = Method) -> Method:
    return kind("mine", make, "a test", GRID, needs=())


@pytest.fixture
def task() -> Task:
    """A model of its own for each bad method: it may be spoiled."""
    model = tiny.llava()
    model.model.vision_tower.train().requires_grad_(False)
    return fresh(strangers(), model=model)


def test_a_good_method_of_ones_own_passes(task):
    check_method(a_method(random_columns), task, {"strength": 2.0})


@pytest.mark.parametrize("make, words", [
    (unseeded, "the same seed gives another edit"),
    (returns_nan, "cannot be put on.*NaN"),
    (says_nan, "says NaN"),
    (does_nothing, "changes nothing"),
    (counts_nothing, "costs say 0 passes, 4 were made"),
    (counts_too_much, "costs say 1004 passes, 4 were made"),
    (notes_a_tensor, "notes are not JSON"), (notes_nan, "notes are not JSON"),
    (names_a_stranger, "do not say who"), (of_another_model, "the edit is of another model"),
    (swallows_errors, "an error was swallowed"),
    (leaves_a_hook, "not as it was after the edit was made: hooks"),
])  # fmt: skip
def test_a_bad_method_is_caught(task, make, words):
    with pytest.raises(AssertionError, match=words):
        check_method(a_method(make), task, {"strength": 2.0})


@pytest.mark.parametrize("make, words", [
    (leaves_an_edit, "after the edit was made: bits"),
    (leaves_a_hook, "after the edit was made: hooks"),
    (leaves_a_flag, "after the edit was made: flags"),
    (leaves_a_mode, "after the edit was made: modes"),
    (leaves_a_gradient, "after the edit was made: gradients"),
    (fails_with_an_edit_on, "after pass . of . failed: bits"),
    (random_columns, "an unknown setting is ignored"),
])  # fmt: skip
def test_what_nobody_puts_back_is_caught(task, make, words):
    """`Method.edit` puts weights, flags, modes and gradients back; here nobody does."""
    with pytest.raises(AssertionError, match=words):
        check_method(a_method(make, Careless), task, {"strength": 2.0})


@pytest.mark.parametrize("make", [leaves_an_edit, leaves_a_flag, leaves_a_mode, leaves_a_gradient,
                                  fails_with_an_edit_on])  # fmt: skip
def test_what_a_method_leaves_behind_is_put_back_for_it(task, make):
    check_method(a_method(make), task, {"strength": 2.0})


@pytest.mark.parametrize("settings, words", [
    ({}, "mine needs the setting 'strength'"), ({"strength": 1.0, "rate": 1.0}, "mine has no "
     "setting 'rate'; there are strength"), ({"strength": -1.0}, "strength must be"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_a_sentence(task, settings, words):
    with pytest.raises(ValueError, match=words):
        a_method(random_columns).edit(task, settings)


@pytest.mark.parametrize("name, words", [
    ("random columns", "random columns needs the setting 'strength'"),
    ("sham least squares", "sham least squares has no setting 'strength'; there are margin"),
    ("vanilla", "vanilla has no setting 'strength'; there are none"),
])  # fmt: skip
def test_controls_take_the_settings_of_what_they_are_like(name, words):
    settings = {} if "needs" in words else {"strength": 1.0}
    with pytest.raises(ValueError, match=words):
        METHODS[name].edit(fresh(strangers()), settings)
