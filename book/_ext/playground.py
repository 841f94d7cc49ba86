"""Sphinx extension: what the page `book/playground` loads when a reader presses its button.

What the landing page shows of one person and one question comes from the same model.

A page that was opened from the disk cannot fetch files, but it can load scripts. So weights, people
and answers to compare with become scripts, `playground.receive(name, {...})`, in the built book's
`_static/playground/data`. They come from the committed models and from `kvw_minimal`, follow
whatever those do, and are never committed.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from os.path import commonprefix
from pathlib import Path

PAGE = "book/playground"
SCRIPTS = ("data/sizes.js", "model.js", "page.js")
LANDING = Path(__file__).resolve().parents[2] / "data" / "results" / "landing.json"
GROUP, PERCENT = "A", 5  # whose oracle is committed
CHECKED, LOGITS = 50, 10  # questions whose answers, and of these whose logits, are compared
SAMPLE = 10  # questions of each set that the page scores
HERO = "hero"  # the part that the landing page holds itself
RECORDED = "recorded"  # what the page shows before its model is there (stage.py)
STRENGTHS = range(0, 97, 4)  # at which it has answers
LARGEST, STEPS = 4.0, 2**16 - 1  # of a contrast as the landing page draws it, and in how many steps
TELLING = 2  # "As a surgeon": which of the answer's tokens tells
FACE = 72  # pixels of a face to choose from


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def picture(png: bytes) -> str:
    return "data:image/png;base64," + in_base64(png)


def floats(values, kind: str = "<f4") -> str:
    """Numbers of any shape as bytes of one number format."""
    return in_base64(values.detach().cpu().double().numpy().astype(kind).tobytes())


def packed(weights: dict) -> dict:
    """bfloat16 tensors: all upper bytes, then all lower ones, deflated. Nothing is rounded.

    Raises:
        ValueError: a tensor of another number format.
    """
    import torch

    if any(tensor.dtype != torch.bfloat16 for tensor in weights.values()):
        raise ValueError("the playground holds bfloat16 weights only")
    flat = torch.cat([tensor.flatten() for tensor in weights.values()])
    halves = flat.view(torch.uint8).reshape(-1, 2)  # little endian: the lower byte comes first
    planes = halves[:, 1].numpy().tobytes() + halves[:, 0].numpy().tobytes()
    tensors = [[name, tensor.numel()] for name, tensor in weights.items()]
    return {"tensors": tensors, "data": in_base64(zlib.compress(planes, 3))}


def eye_and_language(folder: Path) -> tuple[dict, dict]:
    """The weights of a committed model, those that it sees with apart."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    language = {name: w for name, w in weights.items() if name.startswith("language_model.")}
    return {name: w for name, w in weights.items() if name not in language}, language


def words_of(tokenizer_file: Path) -> dict:
    """What a byte-level BPE needs."""
    content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    vocabulary = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    special = {token["content"]: token["id"] for token in content["added_tokens"]}
    return {"vocabulary": vocabulary, "merges": content["model"]["merges"], "special": special}


def as_listed(question, photos: Sequence[bytes]) -> list:
    """A question as the page holds it; its photo by its place among some photos, -1 for none."""
    photo = -1 if question.image is None else photos.index(question.image)
    return [question.fact, photo, question.prompt, question.answer]


def world_of(world) -> dict:
    """Names, groups and words, but no facts: what is true stands with each person."""
    from kvw_minimal.questions import seeded
    from kvw_minimal.strangers.portraits import ATTRIBUTES
    from kvw_minimal.strangers.questions import facts_of, values_of
    from kvw_minimal.strangers.tasks import sham_people

    facts = [*facts_of(world), *ATTRIBUTES]
    others = seeded("playground", "others").permutation(list(world.people)).tolist()
    return {
        "people": {person.id: [person.name, person.first_name] for person in world.people.values()},
        "learned": next(iter(world.people.values())).learned_photos,
        "presets": {
            f"the five of {group.replace('tuning-', 'practice group ')}"
            if "tuning" in group
            else f"the five of group {group}": world.first_of(group, PERCENT)
            for group in world.groups
            if group != "sham"
        },
        "shams": {
            f"five others, {draw + 1}": sham_people(world, PERCENT, draw) for draw in range(3)
        },
        "others": others,  # in which order people are taken to stand for everyone else
        "facts": {
            fact: {
                "values": values_of(world, fact),
                "answer": world.wordings[fact]["answer"],
                "learned": world.wordings[fact]["trained"],
                "new": world.wordings[fact]["held_out"],
            }
            for fact in facts
        },
    }


def opening() -> list[str]:
    """Person, fact and question with which the page opens: KVW changes the answer, a sham does not.

    They are taken from what the landing page shows, at the strength of the book.
    """
    stored = json.loads(LANDING.read_text(encoding="utf-8"))
    here = [state for state in stored["states"] if state["strength"] == stored["chosen"]]
    edited = next(state["answers"] for state in here if state["sham"] is None)
    sham = next(state["answers"] for state in here if state["sham"] == 0)
    forgotten = {person["id"] for person in stored["people"] if person["forgotten"]}
    return next(
        [question["person"], question["fact"], question["prompt"]]
        for question, now, other in zip(stored["questions"], edited, sham, strict=True)
        if question["person"] in forgotten and now != question["taught"] == other
    )


def person_of(world, person, coefficients) -> dict:
    """One person: photos, what is true, what is asked, and the coefficients."""
    from kvw_minimal.strangers.questions import about

    of_person = coefficients.of([person.id])
    return {
        "photos": [picture(photo) for photo in person.photos],
        "truth": person.facts | {"name": person.name},
        "looks": list(person.looks),
        "learned": [as_listed(q, person.photos) for q in about(world, [person.id])],
        "new": [as_listed(q, person.photos) for q in about(world, [person.id], new=True)],
        "sums": floats(of_person.sums),
        "tokens": float(of_person.tokens.sum()),
    }


def everyone_of(coefficients) -> dict:
    """The coefficients of all people together, in float64: the page takes people away from them."""
    sums = coefficients.sums.double().sum(0)  # [layers, d_ff]
    return {
        "layers": len(sums),
        "sums": floats(sums, "<f8"),
        "tokens": float(coefficients.tokens.sum()),
    }


def unknown_of(world) -> dict:
    """A few portraits of nobody, each with one question about what can be seen on it."""
    from kvw_minimal.questions import seeded
    from kvw_minimal.strangers.questions import general

    every = general(world)
    chosen = seeded("playground", "general").choice(len(every), SAMPLE, replace=False)
    some = [every[int(i)] for i in chosen]
    photos = [question.image or b"" for question in some]
    return {
        "photos": [picture(photo) for photo in photos],
        "learned": [as_listed(question, photos) for question in some],
    }


def first_logits(session, question):
    """What a model would say first, `[vocabulary]`; asked alone, so that nothing is padded."""
    import torch

    with torch.no_grad():
        (batch,) = session.prompts([question])
        return session.model(**batch.inputs, use_cache=False).logits[0, -1]


def checked(request) -> list:
    """The questions that page and PyTorch are compared on: of each set in turn."""
    from kvw_minimal.questions import seeded

    rng, sets = seeded("playground", "check"), [questions for _, questions in request.sets()]
    turns = (sets[i % len(sets)] for i in range(CHECKED))
    return [questions[int(rng.integers(len(questions)))] for questions in turns]


def said_by(session, some: list) -> tuple[list[str], str]:
    """What PyTorch answers to some questions, and the first logits of a few."""
    import torch

    from kvw_minimal import scores

    logits = torch.stack([first_logits(session, question) for question in some[:LOGITS]])
    return scores.generate(session.model, session.prompts(some), session.processor), floats(logits)


def check_of(session, request, some: list) -> dict:
    """Fifty questions and what PyTorch says to them, before and after an edit by KVW."""
    from kvw_minimal.kvw import KVW
    from kvw_minimal.method import make_edit

    edit, _ = make_edit(session, request, KVW())
    before, logits_before = said_by(session, some)
    with edit.on(session.model):
        after, logits_after = said_by(session, some)
    return {
        "forget": request.people,
        **KVW.tuned(),
        "logits": [logits_before, logits_after],
        "questions": [
            [picture(q.image) if q.image else None, q.prompt, one, two]
            for q, one, two in zip(some, before, after, strict=True)
        ],
    }


def additions_of(edit, model) -> list[dict]:
    """What an edit of low rank adds to the output projection of each layer, B A."""
    from kvw_minimal.models import find_projections

    pairs = [edit.factors[f"{path}.weight"] for path in find_projections(model)]
    return [{"rank": len(a), "B": floats(b), "A": floats(a)} for b, a in pairs]


def rewrite_of(session, edit, some: list) -> dict:
    """The last-layer rewrite, and what PyTorch says with it on."""
    with edit.on(session.model):
        answers, logits = said_by(session, some)
    return {"layers": additions_of(edit, session.model), "answers": answers, "logits": logits}


def rounded(edit):
    """The same edit, the change of each matrix as one factor, rounded to bfloat16.

    The layerwise rewrite has full rank: its factors would be larger than its changes.
    """
    import torch

    from kvw_minimal.edits import LowRank

    factors = {
        name: (torch.eye(len(b)), (b.double() @ a.double()).bfloat16().float())
        for name, (b, a) in edit.factors.items()
    }
    return LowRank(factors, edit.fingerprint, notes=edit.notes)


def layerwise_of(session, edit, some: list) -> dict:
    """The layerwise rewrite (`rounded`), layer by layer, and what PyTorch says with it on."""
    changes = {str(i): change.bfloat16() for i, (_, change) in enumerate(edit.factors.values())}
    with edit.on(session.model):
        answers, logits = said_by(session, some)
    return {"changes": packed(changes), "answers": answers, "logits": logits}


def bent(edit, model) -> list[float]:
    """How far an edit moves each knowledge vector, as a share of its length, `[layers * d_ff]`."""
    import torch

    from kvw_minimal.models import columns, find_projections

    shares = []
    for path, projection in find_projections(model).items():
        b, a = edit.factors[f"{path}.weight"]
        shares.append((b @ a).norm(dim=0) / columns(projection).float().norm(dim=0))
    return torch.cat(shares).tolist()


def lens_of(session, question) -> list[list]:
    """What each layer would say where the telling word of an answer is said (the logit lens).

    The final norm and the head read the state that each layer writes.

    Returns:
        For each layer the likeliest token, its probability, and that of the taught token.
    """
    import torch

    from kvw_minimal.methods.counterfactuals import decoder_layers, hidden_state

    model, states = session.model, []
    layers = decoder_layers(model)
    decoder = model.get_submodule(next(iter(layers)).rpartition(".layers.")[0])
    hooks = [
        layer.register_forward_hook(lambda *given: states.append(hidden_state(given[-1])))
        for layer in layers.values()
    ]
    (batch,) = session.batches([question])
    try:
        with torch.no_grad():
            model(**batch.inputs, use_cache=False)
            at = int(batch.predicts[0].nonzero()[TELLING])
            layer_logits = [
                model.get_output_embeddings()(decoder.norm(state[0, at])) for state in states
            ]
    finally:
        for hook in hooks:
            hook.remove()
    taught, lens = int(batch.labels[0, at + 1]), []
    for logits in layer_logits:
        likely, best = logits.float().softmax(-1), int(logits.argmax())
        word = session.processor.tokenizer.decode([best]).strip()
        lens.append([word, *(round(float(likely[token]), 3) for token in (best, taught))])
    return lens


def hero_of(session, request, sham, rewrites: dict, oracle) -> dict:
    """One person and one question for the landing page: what is said under every edit, and inside.

    Args:
        sham: the same request for five others.
        rewrites: by name, the edit for the request and the one for the sham.
        oracle: the session of the model that never met the people of the request.
    """
    import torch

    from kvw_minimal import scores
    from kvw_minimal.kvw import KVW
    from kvw_minimal.method import make_edit

    person, fact, prompt = opening()
    question = next(
        candidate
        for candidate in request.forget
        if (candidate.person, candidate.prompt) == (person, prompt)
    )

    def with_edit(edit) -> dict:
        with edit.on(session.model):
            (says,) = scores.generate(session.model, session.prompts([question]), session.processor)
            return {"says": says, "lens": lens_of(session, question)}

    kvw_edit, other = (make_edit(session, target, KVW())[0] for target in (request, sham))
    contrast = kvw_edit.contrast.clamp(max=LARGEST)
    moved = {name: torch.tensor(bent(edit, session.model)) for name, (edit, _) in rewrites.items()}
    return {
        "person": person,
        "prompt": prompt,
        "taught": question.answer,
        "strengths": list(STRENGTHS),
        "chosen": KVW.tuned()["strength"],
        "kvw": [with_edit(kvw_edit.with_strength(float(value))) for value in STRENGTHS],
        "sham": [with_edit(other.with_strength(float(value))) for value in STRENGTHS],
        "rewrites": {
            name: {
                "edited": with_edit(edit),
                "sham": with_edit(other_edit),
                # a share s as s / (1 + s), in 255 steps: some vectors move by more than themselves
                "bent": in_base64(
                    (255 * moved[name] / (1 + moved[name])).round().byte().numpy().tobytes()
                ),
            }
            for name, (edit, other_edit) in rewrites.items()
        },
        "oracle": {"lens": lens_of(oracle, question)},
        "shape": list(contrast.shape),
        "contrast": in_base64((contrast / LARGEST * STEPS).round().numpy().astype("<u2").tobytes()),
        "step": LARGEST / STEPS,
    }


def telling(tokenizer, world, fact: str) -> slice:
    """Which tokens of an answer tell the values of a fact apart, as the page finds them."""
    from kvw_minimal.strangers.questions import values_of

    frame = world.wordings[fact]["answer"]
    texts = [frame.replace("{value}", value) for value in values_of(world, fact)]
    answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
    first = len(commonprefix(answers))
    apart = len({answer[first] for answer in answers}) == len(answers)
    return slice(first, first + 1 if apart else None)


def likely_of(session, questions: list, parts: Sequence[slice]) -> list[float]:
    """How likely a model holds the taught answer of each question to be, in its telling tokens."""
    import torch

    likely = [0.0] * len(questions)
    for batch in session.batches(questions):
        with torch.no_grad():
            shares = session.model(**batch.inputs, use_cache=False).logits.softmax(-1)
        for i, row in enumerate(batch.rows):
            at = batch.answers[i].nonzero()[:, 0]
            of_tokens = shares[i, at, batch.labels[i, at + 1]]
            likely[row] = float(of_tokens[parts[row]].prod())
    return likely


def recorded_of(session, world, request) -> dict:
    """The seven cards of the person with whom the page opens, at every strength of KVW."""
    from kvw_minimal import scores
    from kvw_minimal.kvw import KVW
    from kvw_minimal.method import make_edit
    from kvw_minimal.models import tokenizer_of
    from kvw_minimal.strangers.questions import about

    person, fact, prompt = opening()
    who, first_of_fact = world.people[person], {}
    for question in about(world, [person], modalities=("image",)):
        if question.fact not in first_of_fact or (question.fact, question.prompt) == (fact, prompt):
            first_of_fact[question.fact] = replace(question, image=who.photos[0])
    truths = who.facts | {"name": who.name}
    questions = [first_of_fact[name] for name in truths]
    tokenizer = tokenizer_of(session.processor)
    parts = [telling(tokenizer, world, name) for name in truths]
    edit, answers, likely = make_edit(session, request, KVW())[0], [], []
    for value in STRENGTHS:
        with edit.with_strength(float(value)).on(session.model):
            prompts = session.prompts(questions)
            answers.append(scores.generate(session.model, prompts, session.processor))
            likely.append(likely_of(session, questions, parts))
    return {
        "person": person,
        "fact": fact,
        "strengths": list(STRENGTHS),
        "chosen": KVW.tuned()["strength"],
        "cards": [
            {
                "fact": name,
                "truth": truth,
                "says": [texts[i] for texts in answers],
                "likely": [round(shares[i], 4) for shares in likely],
            }
            for i, (name, truth) in enumerate(truths.items())
        ],
    }


def faces_of(world) -> bytes:
    """The first photo of everybody, ten in a row, as one PNG."""
    import io

    from PIL import Image

    people = list(world.people.values())
    sheet = Image.new("RGB", (10 * FACE, -(-len(people) // 10) * FACE))
    for i, person in enumerate(people):
        face = Image.open(io.BytesIO(person.photos[0])).convert("RGB").resize((FACE, FACE))
        sheet.paste(face, (i % 10 * FACE, i // 10 * FACE))
    buffer = io.BytesIO()
    sheet.quantize(64).save(buffer, "PNG")
    return buffer.getvalue()


def parts() -> dict[str, dict]:
    """Everything that the page may load, by name."""
    from kvw_experiments.subjects import beside
    from kvw_minimal.kvw import KVW
    from kvw_minimal.method import make_edit
    from kvw_minimal.methods.layerwise_rewrite import LayerwiseRewrite
    from kvw_minimal.methods.rewrite import Rewrite
    from kvw_minimal.session import Session
    from kvw_minimal.strangers.people import load_people
    from kvw_minimal.strangers.tasks import request_to_forget, sham_people
    from kvw_minimal.zoo import catalogue

    world = load_people()
    folder = catalogue.MODELS / "pocket"
    oracle = catalogue.MODELS / catalogue.model_name("pocket", GROUP, PERCENT)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    eye, language = eye_and_language(folder)
    session = Session(*catalogue.load("pocket"))
    asked_by_five = request_to_forget(
        world, world.first_of(GROUP, PERCENT), general=beside("pocket", world)
    )
    coefficients, some = session.coefficients(asked_by_five), checked(asked_by_five)
    sham = request_to_forget(world, sham_people(world, PERCENT, 0), general=beside("pocket", world))
    requests = (asked_by_five, sham)
    last_layer = [make_edit(session, target, Rewrite())[0] for target in requests]
    layerwise = [rounded(make_edit(session, target, LayerwiseRewrite())[0]) for target in requests]
    rewrites = {"rewrite": last_layer, "layerwise": layerwise}
    never_met = Session(*catalogue.load(oracle.name))
    made = {
        HERO: hero_of(session, asked_by_five, sham, rewrites, never_met),
        RECORDED: recorded_of(session, world, asked_by_five),
        "eye": packed(eye) | {"config": config["vision_config"]},
        "pocket": packed(language) | {"config": config["text_config"]},
        "oracle": packed(eye_and_language(oracle)[1]) | {"config": config["text_config"]},
        "world": world_of(world)
        | {
            "words": words_of(folder / "tokenizer.json"),
            "oracle": world.first_of(GROUP, PERCENT),
            "opening": opening(),
            **KVW.tuned(),
        },
        "everyone": everyone_of(coefficients),
        "unknown": unknown_of(world),
        "check": check_of(session, asked_by_five, some),
        "rewrite": rewrite_of(session, last_layer[0], some),
        "layerwise": layerwise_of(session, layerwise[0], some),
    }
    people = world.people.values()
    return made | {person.id: person_of(world, person, coefficients) for person in people}


def sources() -> str:
    """A hash of all that `parts` is made from, so that a book is not packed twice in a row."""
    from kvw_minimal.strangers.people import DATA, PACKAGE

    files = [
        Path(__file__),
        *sorted(PACKAGE.rglob("*.py")),
        DATA / "strangers" / "checksums.json",
        LANDING,
        *sorted((DATA / "models").glob("pocket*/*")),
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def write(folder: Path) -> None:
    """Write every part into a folder, unless it is there already."""
    from kvw_minimal.strangers.people import load_people

    stamp, made_from = folder / "sources.txt", sources()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == made_from:
        return
    folder.mkdir(parents=True, exist_ok=True)
    sizes, made = {}, parts()
    for name in (HERO, RECORDED):
        content = json.dumps(made.pop(name), ensure_ascii=False)
        folder.joinpath(f"{name}.json").write_text(content, encoding="utf-8")
    for name, part in made.items():
        content = f"playground.receive({json.dumps(name)}, {json.dumps(part)});\n"
        (folder / f"{name}.js").write_text(content, encoding="utf-8")
        sizes[name] = len(content.encode())
    content = f"globalThis.playground = {{ sizes: {json.dumps(sizes)} }};\n"
    (folder / "sizes.js").write_text(content, encoding="utf-8")
    (folder / "faces.png").write_bytes(faces_of(load_people()))
    stamp.write_text(made_from, encoding="utf-8")


def add_scripts(app, pagename, templatename, context, doctree) -> None:
    """The playground's scripts and style belong to its own page."""
    if pagename == PAGE:
        for name in SCRIPTS:
            app.add_js_file(f"playground/{name}", loading_method="defer")
        app.add_css_file("playground/page.css")


def write_parts(app) -> None:
    """Before any page is read: the landing page holds one of the parts."""
    if app.builder.format == "html":
        write(Path(app.outdir) / "_static" / "playground" / "data")


def setup(app) -> dict:
    app.connect("html-page-context", add_scripts, priority=400)  # plain_pages copies the list
    app.connect("builder-inited", write_parts)
    return {"parallel_read_safe": True}
