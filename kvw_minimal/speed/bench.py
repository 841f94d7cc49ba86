"""`python -m kvw_minimal bench [FILE]`: what measuring coefficients costs, done in three ways.

Prints a table for each model and, with FILE, stores its rows with provenance: medians of `RUNS`
interleaved runs, on a quiet machine about five minutes on two cores.

*published* renders the public loop from its description: one question at a time, with head and
key-value cache; of each layer a float32 copy of the whole |h| goes to the CPU and is masked there.
*batched* is `coefficients.measure`, *shared* is `shared_prefix.measure`, and *bare* a headless
forward pass over the batches that measures nothing. All start from encoded questions.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..batches import Batch, answer_batches
from ..coefficients import Coefficients, measure, shape_of, watch
from ..files import check_place, write_json
from ..models import body, find_projections, fingerprint
from ..questions import Question
from ..strangers.people import World, load_people
from ..strangers.questions import about, ask, facts_of
from ..taught import load, pocket
from . import shared_prefix

RUNS = 9
A_PHOTO = 6  # questions about one photo
#: the language model of SmolLM2-135M, in numbers
SMOLLM2 = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=2048,
)  # fmt: skip
SMOLLM2_WORDS = 49_152


def smollm2_shaped():
    """A LLaVA with `pocket`'s eye before a random language model in the shape of SmolLM2-135M.

    What it says is noise; what it costs is what `smol` costs, and nothing need be downloaded.

    Returns:
        `(model, processor)`; the processor is that of `pocket`.
    """
    small, processor = load("pocket")
    model = pocket.build_model(processor.tokenizer, seed=0, language=SMOLLM2)
    model.resize_token_embeddings(SMOLLM2_WORDS, mean_resizing=False)
    model.model.vision_tower.load_state_dict(small.model.vision_tower.state_dict())
    return model.eval(), processor


def question_sets(world: World, count: int = 96) -> dict[str, list[Question]]:
    """About `count` questions in each set; in all but `rotating`, a person shows one photo.

    `rotating` is what the requests of this book look like: photos change from fact to fact.
    """
    people = [world.people[name] for name in list(world.people)[: count // A_PHOTO]]
    image, text = (
        [ask(world, person, fact, modality, wording=i)
         for person in people for i, fact in enumerate(facts_of(world)[:A_PHOTO])]
        for modality in ("image", "text")
    )  # fmt: skip
    few = about(world, list(world.people)[: count // 14])
    return {"image": image, "text": text, "mixed": image[: count // 2] + text[: count // 2],
            "rotating": few}  # fmt: skip


@torch.no_grad()
def published(model, batches: list[Batch], people: list[str]) -> Coefficients:
    """The public loop (Kim et al. 2026, arXiv 2601.21794), with sums kept per person.

    Args:
        batches: one question each.
    """
    projections = find_projections(model)
    device = next(model.parameters()).device
    names = tuple(dict.fromkeys(people))
    sums = torch.zeros(len(names), *shape_of(model))
    tokens = torch.zeros(len(names))
    for batch in batches:
        seen: dict[int, torch.Tensor] = {}

        def see(layer, h, seen=seen):
            seen[layer] = h.detach().float().abs()  # [1, T, d_ff]

        batch = batch.to(device)
        with watch(projections, see):
            model(**batch.inputs, use_cache=True)
        mask = batch.answers.cpu()[..., None].float()  # [1, T, 1]
        person = names.index(people[batch.rows[0]])
        for layer, h in seen.items():
            sums[person, layer] += (h.cpu() * mask).sum((0, 1))  # [d_ff]
        tokens[person] += mask.sum()
    return Coefficients(sums, tokens, names, fingerprint(model))


def difference(one: Coefficients, other: Coefficients) -> float:
    """The largest difference of two measurements, in units of a layer's largest coefficient.

    Raises:
        ValueError: other people, tokens or model: there is nothing to compare.
    """
    if one.people != other.people or one.fingerprint != other.fingerprint \
            or not torch.equal(one.tokens.cpu(), other.tokens.cpu()):  # fmt: skip
        raise ValueError("these are measurements of different things")
    a, b = one.per_person().cpu(), other.per_person().cpu()
    return float(((a - b).abs() / b.amax(-1, keepdim=True)).max())


def _seconds(work) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(model, processor, questions: list[Question], batch_size: int = 64,
            runs: int = RUNS) -> dict[str, float]:  # fmt: skip
    """Median seconds of each way on the same questions, tokens read, and how well they agree.

    The runs are interleaved, so that a busy moment of the machine touches all of them.
    """
    people = [question.person for question in questions]
    photos = [question.image for question in questions]
    single = answer_batches(processor, questions, 1)
    batches = answer_batches(processor, questions, batch_size)

    @torch.no_grad()
    def bare():
        for batch in batches:
            body(model)(**batch.to(model.device).inputs, use_cache=False)

    ways = {
        "published": partial(published, model, single, people),
        "batched": partial(measure, model, batches, people),
        "shared": partial(shared_prefix.measure, model, single, people, photos, batch_size),
        "bare": bare,
    }
    exact = ways["batched"]()  # warms up, too
    agreed = max(difference(ways[way](), exact) for way in ("published", "shared"))
    times = [{way: _seconds(work) for way, work in ways.items()} for _ in range(runs)]
    trees = shared_prefix.plant(model, single, photos)
    row: dict[str, float] = {"questions": len(questions)}
    row |= {way: statistics.median(run[way] for run in times) for way in ways}
    row |= {"tokens": sum(int(batch.inputs["attention_mask"].sum()) for batch in single),
            "tokens, shared": sum(len(tree.ids) for tree in trees)}  # fmt: skip
    return row | {"published / batched": row["published"] / row["batched"],
                  "published / shared": row["published"] / row["shared"],
                  "batched / bare": row["batched"] / row["bare"], "difference": agreed}  # fmt: skip


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows of `compare` by name, as text."""
    heads = list(next(iter(rows.values())))
    lines = [["", *rows]] + [
        [head, *(f"{row[head]:.3g}" if row[head] % 1 else f"{row[head]:.0f}"
                 for row in rows.values())] for head in heads
    ]  # fmt: skip
    return "\n".join(f"{line[0]:20}" + "".join(f"{cell:>12}" for cell in line[1:])
                     for line in lines)  # fmt: skip


#: models by name: how each is made, and how many questions it is asked
MODELS: dict[str, tuple[Callable, int]] = {
    "pocket": (load, 96), "SmolLM2's shape": (smollm2_shaped, 24),
}  # fmt: skip


def main(file: Path | None = None, models: dict = MODELS, runs: int = RUNS,
         provenance: Callable[..., dict] = dict) -> None:  # fmt: skip
    """Compare on every model and set, on a GPU where there is one; print, and store in `file`.

    Args:
        provenance: what is stored about where rows come from, given what is known here.

    Raises:
        FileNotFoundError, IsADirectoryError: no file can be written there; nothing was run.
    """
    check_place(file)
    start, world, rows, made = time.perf_counter(), load_people(), [], {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, (make, count) in models.items():
        model, processor = make()
        model.to(device)
        made[name] = fingerprint(model)
        found = {kind: compare(model, processor, asked, runs=runs)
                 for kind, asked in question_sets(world, count).items()}  # fmt: skip
        print(f"{name} on {device}, {torch.get_num_threads()} threads; times in seconds\n")
        print(table(found), "\n")
        rows += [{"model": name, "set": kind, "runs": runs} | row for kind, row in found.items()]
    if file is not None:
        source = provenance(seconds=time.perf_counter() - start, seed=0, models=made,
                            data=world.checksum, device=device,
                            threads=torch.get_num_threads())  # fmt: skip
        write_json(file, {"provenance": source, "rows": rows})
