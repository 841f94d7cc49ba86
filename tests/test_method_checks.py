"""Every registered method keeps what `kvw_minimal.testing.method_checks` promises of all of them.

A method of your own needs no test but this one, which finds it by itself; the deliberately bad ones
at the end say what it catches.
"""

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import tiny
import torch
from case import Case, case_of
from PIL import Image

from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.edits import ColumnScaling, WeightReplacement
from kvw_minimal.forget_request import Request
from kvw_minimal.method import method_of
from kvw_minimal.methods import METHODS, Method
from kvw_minimal.models import find_projections, fingerprint, weight_stats
from kvw_minimal.questions import Question
from kvw_minimal.session import Cost, Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general
from kvw_minimal.testing import check_command, method_checks
from kvw_minimal.testing.check_command import method_at
from kvw_minimal.testing.method_checks import PROMISES, Interrupted, check_method, snapshot

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
def strangers() -> Case:
    """A LLaVA with a frozen eye that stands in training mode, all else in evaluation mode."""
    world = load_people()
    mine, *others = (about(world, [person])[:4] for person in list(world.people)[:4])
    model = tiny.llava()
    model.model.vision_tower.train().requires_grad_(False)
    return case_of(
        model, tiny.processor(), mine, sum(others, []), general(world)[:2], encode=encoder()
    )


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
        asked = [
            Question(
                f"{name}-pet",
                name,
                "pet",
                "text",
                f"Which animal has {name}?",
                "A newt.",
                "newt",
                options=("A newt.", "A toad."),
            )
        ]
        options = tuple(f"It is {each}." for each in COLOURS)
        for k in range(2):
            modality, image = ("image", coloured(colour)) if pictures else ("text", None)
            asked.append(
                Question(
                    f"{name}-colour-{k}",
                    name,
                    "colour",
                    modality,
                    "What colour?" if pictures else f"{name}'s colour, {k}?",
                    f"It is {colour}.",
                    colour,
                    image,
                    options,
                )
            )
        found.append(asked)
    return found


@cache
def qwen() -> Case:
    """A Qwen2-VL, its own processor, and pictures cut into as many patches as they fill."""
    mine, *others = somebodys(pictures=True)
    return case_of(*tiny.qwen2_vl(), mine, sum(others, []), encode=encoder())


@cache
def llama() -> Case:
    """A language model, a tokenizer without chat template, and no pictures."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **tiny.LANGUAGE)).eval()
    mine, *others = somebodys(pictures=False)
    return case_of(model, tokenizer, mine, sum(others, []), encode=encoder())


# --- every method ------------------------------------------------------------------------------


def some_settings(name: str) -> dict:
    """Settings of a method's grid (or of the one that it is like) that change something."""
    own = METHODS[name].settings_from or name
    grid = METHODS[own].grid
    if own == "least squares":  # a random model knows nothing: what it says must fall far
        return {"ridge": 0.1, "passes": 2, "margin": 60.0}
    if "subject_threshold" in METHODS[own].__dataclass_fields__:
        # nor does whom it is asked about decide anything
        own_grid = METHODS["rewrite"].grid[-1] if own.startswith("rewrite") else {}
        # and it uses every direction a little
        threshold = {"threshold": 0.5} if own == "null space" else {}
        others = min(2, METHODS[own].others)
        return own_grid | threshold | {"subject_threshold": 0.0, "others": others}
    if own == "family":
        return {"score": "fisher", "strength": 4.0}
    return dict(grid[0 if name == "SSD" else -1]) if grid else {}


#: those that a chapter is about; the others are tried at night
CHAPTERS = ("KVW one pass", "KVW published", "NPO LoRA", "rewrite", "least squares")
OTHERS = [name for name in METHODS if name not in (*CHAPTERS, "oracle")]


@pytest.mark.parametrize(
    "name",
    [*CHAPTERS, *(pytest.param(name, marks=pytest.mark.nightly) for name in OTHERS)],
)
def test_every_method_keeps_its_promises(name: str):
    method = method_of(name, some_settings(name))
    check_method(method, *strangers(), changes=name != "vanilla")


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*CHAPTERS, *OTHERS])
@pytest.mark.parametrize("whose", [qwen, llama])
def test_every_method_works_for_somebody_else(whose: Callable[[], Case], name: str):
    method = method_of(name, some_settings(name))
    check_method(method, *whose(), name != "vanilla", PROMISES[:6])


@pytest.mark.nightly
@pytest.mark.parametrize("score", ["square", "positive"])
@pytest.mark.parametrize("shape", [{"shape": "top"}, {"batch": 2}, {"shape": "zero", "mass": 0.1}])
def test_other_settings_of_the_family_keep_them_too(score: str, shape: dict):
    settings = {"score": score, "positions": "text"} | shape
    check_method(method_of("family", settings), *strangers())


# --- bad methods are caught --------------------------------------------------------------------


def random_columns(
    session: Session, request: Request, settings: dict, seeded: bool = True
) -> ColumnScaling:
    """A method that does nothing wrong: draws contrasts, and looks at the forget set once."""
    generator = torch.Generator().manual_seed(request.seed) if seeded else None
    session.measured(request.forget)
    session.cost.add("forget", len(request.forget), 1)
    contrast = torch.rand(tiny.LAYERS, tiny.D_FF, generator=generator)
    return ColumnScaling(contrast, settings["strength"], fingerprint(session.model))


def careless(session, request, method):
    """`make_edit` that puts nothing back."""
    session = replace(session, cost=Cost(seconds=1.0))
    edit = method.edit(session, request)
    edit.weight_stats = weight_stats(session.model)
    notes = {"method": method.name, "settings": method.settings}
    edit.notes = {"people": request.people} | notes
    return edit, session.cost


def leaves_an_edit(session, request, settings):
    edit = random_columns(session, request, settings)
    for projection in find_projections(session.model).values():
        projection.weight.data.mul_(0.5)
    return edit


def leaves_a_hook(session, request, settings):
    session.model.register_forward_hook(lambda *_: None)
    return random_columns(session, request, settings)


def leaves_a_flag(session, request, settings):
    session.model.requires_grad_(False)
    return random_columns(session, request, settings)


def leaves_a_mode(session, request, settings):
    session.model.eval()
    return random_columns(session, request, settings)


def leaves_a_gradient(session, request, settings):
    weight = session.model.get_input_embeddings().weight
    weight.grad = torch.zeros_like(weight)
    return random_columns(session, request, settings)


def fails_with_an_edit_on(session, request, settings):
    weight = next(iter(find_projections(session.model).values())).weight
    own = weight.data.clone()
    weight.data.mul_(0.5)
    edit = random_columns(session, request, settings)  # should this fail, nobody puts it back
    weight.data.copy_(own)
    return replace(edit, fingerprint=fingerprint(session.model))


def unseeded(session, request, settings):
    return random_columns(session, request, settings, seeded=False)


def returns_nan(session, request, settings):
    edit = random_columns(session, request, settings)
    edit.contrast[0, 0] = torch.nan  # behind the back of the edit's own check
    return edit


def says_nan(session, request, settings):
    random_columns(session, request, settings)
    name = "model.language_model.norm.weight"
    huge = torch.full_like(
        session.model.get_parameter(name), 1e38
    )  # finite, but not what comes of it
    return WeightReplacement({name: huge}, fingerprint(session.model))


def does_nothing(session, request, settings):
    return replace(random_columns(session, request, settings), strength=0.0)


def counts_nothing(session, request, settings):
    return random_columns(replace(session, cost=Cost()), request, settings)


def notes_a_tensor(session, request, settings):
    edit = random_columns(session, request, settings)
    edit.notes["best"] = torch.ones(1)
    return edit


def names_a_stranger(session, request, settings):
    edit = random_columns(session, request, settings)
    edit.notes["people"] = ["somebody"]
    return edit


def of_another_model(session, request, settings):
    return replace(random_columns(session, request, settings), fingerprint="0" * 16)


def swallows_errors(session, request, settings):
    try:
        return random_columns(session, request, settings)
    except Interrupted:
        return ColumnScaling(torch.ones(tiny.LAYERS, tiny.D_FF), 1.0, fingerprint(session.model))


def a_method(make: Callable) -> Method:
    @dataclass(frozen=True)
    class Mine(Method):
        strength: float = 2.0

        def edit(self, session, request):
            return make(session, request, self.settings)

    return Mine()


@pytest.fixture
def case() -> Case:
    """A model of its own for each bad method: it may be spoiled."""
    model = tiny.llava()
    model.model.vision_tower.train().requires_grad_(False)
    return strangers().but(model=model, cache={})


def test_a_good_method_of_ones_own_passes(case):
    before = fingerprint(case.model)
    check_method(a_method(random_columns), *case)
    assert fingerprint(case.model) == before


@pytest.mark.parametrize(
    "make, words",
    [
        (unseeded, "the same seed gives another edit"),
        (returns_nan, "cannot be put on.*NaN"),
        (says_nan, "says NaN"),
        (does_nothing, "changes nothing"),
        (counts_nothing, "costs say 0 passes, 4 were made"),
        (notes_a_tensor, "notes are not JSON"),
        (names_a_stranger, "do not say who"),
        (of_another_model, "the edit is of another model"),
        (swallows_errors, "an error was swallowed"),
        (leaves_a_hook, "not as it was after the edit was made: hooks"),
    ],
)
def test_a_bad_method_is_caught(case, make, words):
    with pytest.raises(AssertionError, match=words):
        check_method(a_method(make), *case)


@pytest.mark.parametrize(
    "make, words",
    [
        (leaves_an_edit, "after the edit was made: bits"),
        (leaves_a_hook, "after the edit was made: hooks"),
        (leaves_a_flag, "after the edit was made: flags"),
        (leaves_a_mode, "after the edit was made: modes"),
        (leaves_a_gradient, "after the edit was made: gradients"),
        (fails_with_an_edit_on, "after pass . of . failed: bits"),
    ],
)
def test_what_nobody_puts_back_is_caught(case, make, words, monkeypatch):
    """`make_edit` puts weights, flags, modes and gradients back; here nobody does."""
    monkeypatch.setattr(method_checks, "make_edit", careless)
    with pytest.raises(AssertionError, match=words):
        check_method(a_method(make), *case)


@pytest.mark.parametrize(
    "make", [leaves_an_edit, leaves_a_flag, leaves_a_mode, leaves_a_gradient, fails_with_an_edit_on]
)
def test_what_a_method_leaves_behind_is_put_back_for_it(case, make):
    check_method(a_method(make), *case)


def test_settings_that_do_not_check_themselves_are_caught(case):
    @dataclass(frozen=True)
    class Loose(Method):
        strength: float = 2.0

        def __post_init__(self):
            pass

        def edit(self, session, request):
            return random_columns(session, request, self.settings)

    with pytest.raises(AssertionError, match="'strength' may be nan"):
        check_method(Loose(), *case)


@pytest.mark.parametrize(
    "name, words",
    [
        ("sham least squares", "sham least squares has no setting 'strength'; there are ridge"),
        ("vanilla", "vanilla has no setting 'strength'; there are none"),
        ("magic", "no method 'magic'; there are "),
        ("Rewrite", "no method 'Rewrite'; did you mean 'rewrite'?"),
        ("layerwise_rewrite", "did you mean 'layerwise rewrite'?"),
        ("LayerwiseRewrite", "did you mean 'layerwise rewrite'?"),
    ],
)
def test_settings_that_there_are_not_are_named(name, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        method_of(name, {"strength": 1.0})


# --- and anybody's -----------------------------------------------------------------------------

MINE = """
from dataclasses import dataclass

import torch
from beside import LAYERS
from kvw_minimal.edits import ColumnScaling
from kvw_minimal.methods import Method
from kvw_minimal.models import fingerprint

calls = []

@dataclass(frozen=True)
class Good(Method):
    strength: float = 1.0

    def edit(self, session, request):
        session.measured(request.forget)
        session.cost.add("forget", len(request.forget), 1)
        drawn = torch.rand(LAYERS, 48, generator=torch.Generator().manual_seed(request.seed))
        return ColumnScaling(drawn, self.strength, fingerprint(session.model))

class Drawn(Good):
    def edit(self, session, request):
        edit = super().edit(session, request)
        return ColumnScaling(torch.rand_like(edit.contrast), 1.0, edit.fingerprint)

class Hooked(Good):
    def edit(self, session, request):
        session.model.lm_head.register_forward_hook(lambda *_: None)
        return super().edit(session, request)

class Twice(Good):
    def edit(self, session, request):
        calls.append(session)
        assert len(calls) != 2, "not a second time"
        return super().edit(session, request)

class Once(Good):
    def edit(self, session, request):
        edit = super().edit(session, request)
        calls.append(session)
        if len(calls) == 1:
            session.model.lm_head.register_forward_hook(lambda *_: 1 / 0)
        return edit

class Nothing(Good):
    def edit(self, session, request):
        return None

number = 7
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """A file with methods of somebody's own, that imports another one beside it."""
    (tmp_path / "beside.py").write_text(f"LAYERS = {tiny.LAYERS}", encoding="utf-8")
    (tmp_path / "own_methods.py").write_text(MINE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(check_command, "small_case", strangers)
    yield str(tmp_path / "own_methods.py")
    for name in ("beside", "own_methods"):
        sys.modules.pop(name, None)


def broken(place: str, settings: dict | None = None) -> dict[int, str]:
    """Which promises are broken, by their number, and in which way."""
    said, whole = check_command.check(place, settings)
    *lines, last = said.splitlines()
    assert len(lines) == len(PROMISES)
    found = {i: line for i, line in enumerate(lines) if line.startswith("broken  ")}
    assert all(line.startswith("kept    ") for i, line in enumerate(lines) if i not in found)
    assert f"{len(PROMISES) - len(found)} of {len(PROMISES)} kept" in last
    assert whole == (not found)
    return found


def test_it_is_said_which_promises_a_method_keeps(mine):
    assert broken(f"{mine}:Good") == broken(f"{mine}:Good", {"strength": 3.0}) == {}
    found = broken(f"{mine}:Drawn", {})
    assert list(found) == [6] and found[6].startswith("broken  The same seed")
    assert "But the same seed gives another edit." in found[6]


def test_what_one_promise_finds_spoils_no_other(mine):
    """After a broken one another copy of the model is asked; the model itself is never touched."""
    before = snapshot(strangers().model)
    found = broken(f"{mine}:Hooked")
    assert list(found) == [0, 7] and "after the edit was made: hooks" in found[0]
    assert snapshot(strangers().model) == before
    assert list(broken(f"{mine}:Once")) == [0]
    found = broken(f"{mine}:Twice")
    assert list(found) == [6] and "it raised AssertionError('not a second time')" in found[6]


def test_a_method_is_found_by_its_name(mine, monkeypatch):
    method = method_at(f"{mine}:Good")
    assert (method.name, method.requires, method.settings) == ("Good", (), {"strength": 1.0})
    monkeypatch.chdir(mine.rpartition("/")[0])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert method_at("own_methods:Good", {"strength": 5.0}).settings == {"strength": 5.0}
    for place, name in (
        ("kvw_minimal.methods:KVW one pass", "KVW one pass"),
        ("kvw_minimal.kvw:KVW", "KVW one pass"),
        ("kvw_minimal.methods:sham least squares", "sham least squares"),
        ("kvw_minimal.methods:GD full", "GD full"),
    ):
        assert method_at(place) == METHODS[name]()


@pytest.mark.parametrize(
    "place, words",
    [
        ("good", "write MODULE:METHOD, not 'good'"),
        (":good", "write MODULE:METHOD"),
        ("{}:", "write MODULE:METHOD"),
        ("{}:number", "has no method 'number'"),
        ("{}:gone", "has no method 'gone'"),
        ("{}:Method", "has no method 'Method'"),
        ("none.py:x", "importing none.py raised FileNotFoundError"),
        ("no_such_module:x", "No module named 'no_such_module'"),
        ("{}:Nothing", "Nothing(strength=1.0) raised TypeError"),
    ],
)
def test_what_is_no_method_is_refused_in_a_sentence(mine, place, words):
    with pytest.raises(ValueError) as refused:
        check_command.check(place.format(mine))
    assert words in str(refused.value)


@pytest.mark.parametrize("source", ["1 / 0", "import no_such_module", "def x(:", "exit(0)"])
def test_a_module_that_cannot_be_imported_is_named(tmp_path, source):
    path = tmp_path / "bad.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(ValueError, match="importing .*bad.py raised [A-Z]"):
        method_at(f"{path}:x")


def test_a_method_is_tried_on_what_pocket_was_taught():
    case = Case(*check_command.small_case())
    assert (len(case.people), len(case.retain_people), len(case.questions())) == (1, 3, 16)
    eye = case.model.model.vision_tower
    assert eye.training and not case.model.training
    assert not any(weight.requires_grad for weight in eye.parameters())
