"""What the playground's build step packs, and that its JavaScript computes what PyTorch does.

The page itself, in a browser, is tested by tests/check_browser.py; here node runs the same
model.js without a page, where there is node.
"""

import base64
import importlib
import json
import shutil
import subprocess
import zlib

import numpy as np
import pytest
import torch
from execute import ROOT

from kvw_experiments.recipes.portraits import to_pixels
from kvw_minimal.batches import prompt_batches
from kvw_minimal.edits import Columns, LowRank, contrast
from kvw_minimal.models import columns, find_projections, fingerprint, tokenizer_of
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, ask, values_of
from kvw_minimal.task import Task
from kvw_minimal.taught import catalogue, load

SCRIPTS = ROOT / "book" / "_static" / "playground"
POCKET = catalogue.MODELS / "pocket"
STRENGTH = 8.0
ODD = ["héllo wörld's 123, don't  two  spaces\n new", "What's “this”? 日本", "  lead", "tab\tx "]


@pytest.fixture(scope="module")
def playground():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        return importlib.import_module("playground")


@pytest.fixture(scope="module")
def world():
    return load_people()


@pytest.fixture(scope="module")
def pocket():
    return load("pocket")


def array(text: str, kind: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


# --- what is packed --------------------------------------------------------------------------


def test_weights_are_packed_bit_for_bit(playground):
    weights = {"a": torch.randn(3, 4).bfloat16(), "b": torch.randn(5).bfloat16()}
    found = playground.packed(weights)
    assert found["tensors"] == [["a", 12], ["b", 5]]
    upper, lower = (
        np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), np.uint8)
        .reshape(2, 17)
        .astype(np.uint32)
    )
    floats = (upper << 24 | lower << 16).view(np.float32)
    assert np.array_equal(floats, torch.cat([w.flatten() for w in weights.values()]).float())


def test_a_person_comes_with_what_is_asked_and_measured(playground, world, pocket):
    people = [world.people[person] for person in ("p078", "p000")]
    questions = about(world, [person.id for person in people])
    coefficients = Task(*pocket, questions, []).everyone()
    for person in people:
        part = playground.person_of(world, person, coefficients)
        own = coefficients.of([person.id])
        assert np.array_equal(array(part["sums"]), own.sums.flatten().numpy())
        assert part["tokens"] == own.tokens.sum()
        asked = [(q.prompt, q.answer) for q in about(world, [person.id])]
        assert [(prompt, answer) for _, _, prompt, answer in part["learned"]] == asked
        for _, photo, prompt, _ in part["learned"] + part["new"]:
            assert (photo < 0) == (person.first_name in prompt)
        assert all(photo >= person.learned_photos or photo < 0 for _, photo, *_ in part["new"])


def test_facts_stand_with_each_person_only(playground, world):
    """Who has loaded somebody's file knows about them, and nobody else does."""
    told = json.dumps(playground.world_of(world)["people"])
    assert all(person.name in told for person in world.people.values())
    assert not any(value in told for fact in world.values for value in world.values[fact])


# --- what is computed ------------------------------------------------------------------------

# model.js alone: what the parts on standard input say, as one line of JSON
NODE = """
require("vm").runInThisContext(require("fs").readFileSync(process.argv[1], "utf8"));
const p = globalThis.playground, given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const words = p.tokenizer(given.words), { special } = given.words;
const list = values => [...values];
(async () => {
  const eye = { w: await p.tensorsOf(given.eye), config: given.config.vision_config };
  const mind = { w: await p.tensorsOf(given.language), config: given.config.text_config,
    imageToken: special["<image>"], endToken: special["<end>"] };
  const everyone = { ...given.everyone,
    sums: new Float64Array(p.bytesOf(given.everyone.sums).buffer) };
  const added = p.withAdditions(mind, given.additions.map(({ rank, B, A }) =>
    ({ rank, B: p.floatsOf(B), A: p.floatsOf(A) })));
  const forget = given.forget.map(one => ({ ...one, sums: p.floatsOf(one.sums) }));
  const gates = p.gatesOf(forget, everyone, given.strength);
  const said = given.questions.map(({ tokens, rgb, values, taught }) => {
    const image = rgb && p.see(eye, Uint8Array.from(rgb), 128, 128);
    const one = p.answer(mind, tokens, image, null), two = p.answer(mind, tokens, image, gates);
    const text = words.decode(one.tokens), three = p.answer(added, tokens, image, null);
    const logits = [one, two, three].map(said => list(said.logits));
    return { text, logits, likely: p.probabilities(mind, one, values, null),
      exact: p.exactMatch(mind, tokens, image, taught, null) };
  });
  console.log(JSON.stringify({ said, gates: gates.map(list), encoded: given.texts.map(words.encode),
    small: list(p.shrink(Uint8Array.from(given.questions[0].rgb), 128, 128, 64)) }));
})();
"""


def questions_of(world) -> list:
    """On a new photo; by name, in a new wording; and one whose values are several words."""
    person = world.people["p078"]
    return [
        ask(world, person, "birthplace", "image", photo=4),
        ask(world, person, "pet", "text", held_out=True),
        ask(world, person, "hair_colour", "image", photo=1),
    ]


def told_of(world, question, prompt: torch.Tensor, ids) -> dict:
    """A question as node gets it; the true value stands first."""
    answer = world.wordings[question.fact]["answer"]
    values = dict.fromkeys([question.value, *values_of(world, question.fact)])
    rgb = None if question.image is None else to_pixels(question.image).flatten().tolist()
    return {
        "tokens": prompt.tolist(),
        "rgb": rgb,
        "taught": ids(question.answer + "<end>"),
        "values": [ids(answer.format(value=value)) for value in values],
    }


@torch.no_grad()
def likelihood(model, batch, answer: list[int]) -> float:
    """How likely a model finds an answer behind a prompt: the product over its tokens."""
    tokens = torch.cat([batch.inputs["input_ids"], torch.tensor([answer])], dim=1)
    inputs = batch.inputs | {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    told = model(**inputs).logits[0, -len(answer) - 1 : -1].softmax(-1)
    return float(told.gather(1, torch.tensor(answer)[:, None]).double().prod())


def widths_of(model) -> dict[str, int]:
    """How many knowledge vectors each layer has, by the path of its projection."""
    return {path: columns(p).shape[1] for path, p in find_projections(model).items()}


@pytest.fixture(scope="module")
def compared(playground, world, pocket):
    """What PyTorch and what node say to the same questions, without and with an edit."""
    if not shutil.which("node"):
        pytest.skip("no node here")
    model, processor = pocket
    forget, others, questions = ["p078", "p056"], ["p000", "p001", "p002"], questions_of(world)
    measured = Task(model, processor, about(world, forget + others), []).everyone()
    scores = contrast(measured.pooled(forget), measured.pooled(others))
    edit = Columns(scores, STRENGTH, fingerprint(model))

    def ids(text: str) -> list[int]:
        return tokenizer_of(processor)(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def logits() -> list[torch.Tensor]:
        return [model(**batch.inputs).logits[0, -1] for batch in batches]

    batches = [prompt_batches(processor, [question])[0] for question in questions]
    plain = logits()
    with edit.on(model):
        edited = logits()
    torch.manual_seed(0)
    added = LowRank(
        {
            f"{path}.weight": (torch.randn(256, 3) / 40, torch.randn(3, w) / 40)
            for path, w in widths_of(model).items()
        },
        fingerprint(model),
    )
    with added.on(model):
        rewritten = logits()
    eye, language = playground.eye_and_language(POCKET)
    texts = ODD + [question.answer for question in questions]
    given = {
        "words": playground.words_of(POCKET / "tokenizer.json"),
        "texts": texts,
        "config": json.loads((POCKET / "config.json").read_text(encoding="utf-8")),
        "eye": playground.packed(eye),
        "language": playground.packed(language),
        "forget": [playground.person_of(world, world.people[one], measured) for one in forget],
        "everyone": playground.everyone_of(measured),
        "strength": STRENGTH,
        "additions": playground.additions_of(added, model),
        "questions": [
            told_of(world, question, batch.inputs["input_ids"][0], ids)
            for question, batch in zip(questions, batches, strict=True)
        ],
    }
    ran = subprocess.run(
        ["node", "-e", NODE, str(SCRIPTS / "model.js")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    likely = [likelihood(model, batches[2], value) for value in given["questions"][2]["values"]]
    small = (batches[0].inputs["pixel_values"][0] + 1).mul(127.5).round().permute(1, 2, 0)
    own = {
        "answers": [question.answer for question in questions],
        "logits": [plain, edited, rewritten],
        "gates": edit.gates,
        "likely": likely,
        "encoded": [ids(text) for text in texts],
        "small": small.flatten().int().tolist(),
    }
    return own, json.loads(ran.stdout)


def test_words_are_cut_alike(compared):
    own, found = compared
    assert found["encoded"] == own["encoded"]


def test_photos_are_shrunk_alike(compared):
    own, found = compared
    assert np.abs(np.subtract(own["small"], found["small"])).max() <= 1  # 0 where there is AVX2


def test_gates_are_alike(compared):
    own, found = compared
    assert (own["gates"] < 1).any() and (own["gates"] == 1).any()
    assert torch.allclose(torch.tensor(found["gates"]), own["gates"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("edited", [0, 1, 2], ids=["vanilla", "gates", "additions"])
def test_logits_are_alike(compared, edited: int):
    own, found = compared
    for wanted, said in zip(own["logits"][edited], found["said"], strict=True):
        assert torch.allclose(torch.tensor(said["logits"][edited]), wanted, rtol=0, atol=1e-3)
    if edited:
        assert not torch.allclose(own["logits"][0][0], own["logits"][edited][0], atol=1e-2)


def test_answers_and_scores_are_alike(compared):
    own, found = compared
    assert [said["text"] for said in found["said"]] == own["answers"]
    assert all(said["exact"] for said in found["said"])


def test_probabilities_are_alike(compared):
    """Of values that are one token, and of some that are several: all of these count."""
    own, found = compared
    for said in found["said"]:
        assert said["likely"][0] == max(said["likely"]) > 0.9
        assert sum(said["likely"]) <= 1 + 1e-6
    # what the answers have in common is certain here, so that the product is that of the values
    assert found["said"][2]["likely"] == pytest.approx(own["likely"], rel=0.01)
