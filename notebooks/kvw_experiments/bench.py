"""`python -m kvw_minimal book bench [--json FILE]`: what measuring costs, done in three ways.

Prints a table for each model and, with FILE, stores its rows with provenance: medians of
interleaved runs, and medians of the ratios of each run, which a busy machine moves least; twenty
minutes on two cores. Nothing is downloaded: the large models are random, in SmolVLM's shape.

*published* renders the public loop from its description: one question at a time, with head and
key-value cache; of each layer a float32 copy of the whole |h| goes to the CPU and is masked there.
*shared* is `coefficients.tally`, in which beginnings are read once (`kvw_minimal.beginnings`),
*batched* is the same read plainly, and *bare* a headless forward pass over the batches that
measures nothing. *read* is `scores.read`, in which beginnings are read once, too, *read plainly*
the same without. All start from encoded questions and a known fingerprint, which is taken once for
a model, whatever is asked: that is timed apart.
"""

import os
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kvw_minimal.atomic_io import check_place, write_json
from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.beginnings import plainly
from kvw_minimal.coefficients import Coefficients, accumulate, hook_inputs, shape_of
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.models import backbone, find_projections, fingerprint
from kvw_minimal.questions import Question
from kvw_minimal.results import text_table
from kvw_minimal.scores import read
from kvw_minimal.strangers.people import PeopleDataset, load_people
from kvw_minimal.strangers.questions import about, facts_of, question_about
from kvw_minimal.zoo import assembly, load
from kvw_minimal.zoo.catalogue import find_model

from .recipes import pocket

RUNS = 9
OFTEN = 5  # as many runs of what is quick and near each other as of the public loop
A_PHOTO = 6  # questions about one photo
GB = 10**9
#: the language model of SmolLM2-135M, in numbers
SMOLLM2 = dict(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
)
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


#: SmolVLM in two sizes, in numbers: language model, eye, and how many patches are one token
SMOLVLM: dict[str, tuple[dict, dict, int]] = {
    "256M": (
        SMOLLM2 | dict(vocab_size=49_280, max_position_embeddings=8192),
        dict(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=512,
            patch_size=16,
        ),
        4,
    ),
    "2.2B": (
        dict(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            num_key_value_heads=32,
            vocab_size=49_155,
            max_position_embeddings=16_384,
        ),
        dict(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
        ),
        3,
    ),
}


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Small random weights in place of none: one block again and again, which takes no time."""
    block = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for weight in model.parameters():
        count = -(-weight.numel() // len(block))
        flat = block.repeat(count)[: weight.numel()] if weight.ndim > 1 else torch.ones(len(weight))
        weight.data.copy_(flat.view_as(weight))
    return model


def smolvlm_shaped(size: str = "256M", dtype: torch.dtype = torch.float32):
    """A random model in the shape of SmolVLM: one tile a picture, which becomes 64 or 81 tokens.

    Returns:
        `(model, processor)`; the words are those of `pocket`.
    """
    import transformers as t
    from transformers.initialization import no_init_weights

    language, eye, scale = SMOLVLM[size]
    side, tokenizer = eye["image_size"], t.AutoTokenizer.from_pretrained(find_model("pocket"))
    tokenizer.add_special_tokens(
        {
            "additional_special_tokens": [
                "<fake_token_around_image>",
                "<global-img>",
                "<end_of_utterance>",
            ]
        },
        replace_extra_special_tokens=False,
    )
    pictures = t.Idefics3ImageProcessor(
        do_image_splitting=False, size={"longest_edge": side}, max_image_size={"longest_edge": side}
    )
    processor = t.Idefics3Processor(
        pictures,
        tokenizer,
        chat_template=assembly.CHAT,
        image_seq_len=(side // eye["patch_size"] // scale) ** 2,
    )
    config = t.Idefics3Config(
        vision_config=eye,
        text_config=language | {"model_type": "llama"},
        scale_factor=scale,
        pad_token_id=tokenizer.pad_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with no_init_weights():
        model = t.Idefics3ForConditionalGeneration._from_config(config, dtype=dtype)
    return filled(model).eval(), processor


def question_sets(world: PeopleDataset, count: int = 96) -> dict[str, list[Question]]:
    """About `count` questions in each set; in all but `rotating`, a person shows one photo.

    `rotating` is what the requests of this book look like: photos change from fact to fact.
    """
    people = [world.people[name] for name in list(world.people)[: count // A_PHOTO]]
    image, text = (
        [
            question_about(world, person, fact, modality, wording=i)
            for person in people
            for i, fact in enumerate(facts_of(world)[:A_PHOTO])
        ]
        for modality in ("image", "text")
    )
    few = about(world, list(world.people)[: count // 14])
    return {
        "image": image,
        "text": text,
        "mixed": image[: count // 2] + text[: count // 2],
        "rotating": few,
    }


@torch.no_grad()
def published(
    model, batches: list[Batch], people: list[str], mark: str | None = None
) -> Coefficients:
    """The public loop (Kim et al. 2026, arXiv 2601.21794), with sums kept per person.

    Args:
        batches: one question each.
        mark: fingerprint of the model, where it is known.
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
        with hook_inputs(projections, see):
            model(**batch.inputs, use_cache=True)
        mask = batch.answers.cpu()[..., None].float()  # [1, T, 1]
        person = names.index(people[batch.rows[0]])
        for layer, h in seen.items():
            sums[person, layer] += (h.cpu() * mask).sum((0, 1))  # [d_ff]
        tokens[person] += mask.sum()
    return Coefficients(sums, tokens, names, mark or fingerprint(model))


def difference(one: Coefficients, other: Coefficients) -> float:
    """The largest difference of two measurements, in units of a layer's largest coefficient.

    Raises:
        ValueError: other people, tokens or model: there is nothing to compare.
    """
    if (
        one.people != other.people
        or one.fingerprint != other.fingerprint
        or not torch.equal(one.tokens.cpu(), other.tokens.cpu())
    ):
        raise ValueError("these are measurements of different things")
    a, b = one.per_person().cpu(), other.per_person().cpu()
    return float(((a - b).abs() / b.amax(-1, keepdim=True)).max())


def _seconds(work) -> float:
    """Seconds that the work takes; with one thread, processor time without waiting."""
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu or torch.get_num_threads() > 1 else time.process_time
    if gpu:
        torch.cuda.synchronize()
    start = clock()
    work()
    if gpu:
        torch.cuda.synchronize()
    return clock() - start


def compare(
    model,
    processor,
    questions: list[Question],
    batch_size: int = 64,
    runs: int = RUNS,
    mark: str | None = None,
) -> dict[str, float]:
    """Median seconds of each way on the same questions, tokens read, and how well they agree.

    The runs are interleaved, so that a busy moment of the machine touches all of them; a ratio is
    the median of those of the runs.
    """
    mark = mark or fingerprint(model)
    people = [question.person for question in questions]
    single = answer_batches(processor, questions, 1)
    batches = answer_batches(processor, questions, batch_size)

    @torch.no_grad()
    def bare():
        for batch in batches:
            backbone(model)(**batch.to(model.device).inputs, use_cache=False)

    def shared():
        return Coefficients(*accumulate(model, batches, people), mark)

    def batched():
        with plainly():
            return shared()

    ways = {
        "published": partial(published, model, single, people, mark),
        "batched": batched,
        "shared": shared,
        "bare": bare,
    }
    exact = ways["batched"]()  # warms up, too
    agreed = max(difference(ways[way](), exact) for way in ("published", "shared"))
    times = [{way: _seconds(work) for way, work in ways.items()} for _ in range(runs)]
    quick = {way: ways[way] for way in ("bare", "batched", "shared")}
    near = times + [
        {way: _seconds(work) for way, work in quick.items()} for _ in range((OFTEN - 1) * runs)
    ]
    row: dict[str, float] = {"questions": len(questions)}
    row |= {way: statistics.median(run[way] for run in near if way in run) for way in ways}
    tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in single)
    row |= {"tokens": tokens, "tokens a second": tokens / row["batched"]}
    for one, other in (
        ("published", "batched"),
        ("published", "shared"),
        ("bare", "batched"),
        ("bare", "shared"),
    ):
        row[f"{one} / {other}"] = statistics.median(
            run[one] / run[other] for run in near if one in run
        )
    return row | {"difference": agreed}


def reading(
    model, processor, questions: list[Question], batch_size: int = 64, runs: int = RUNS
) -> dict[str, float]:
    """Median seconds of scoring, with beginnings read once and plainly, and their median ratio."""
    batches = answer_batches(processor, questions, batch_size)

    def plain():
        with plainly():
            return read(model, batches)

    ways: dict[str, Callable] = {"read plainly": plain, "read": partial(read, model, batches)}
    for work in ways.values():  # warms up
        work()
    times = [{way: _seconds(work) for way, work in ways.items()} for _ in range(runs)]
    row = {way: statistics.median(run[way] for run in times) for way in ways}
    ratio = statistics.median(run["read plainly"] / run["read"] for run in times)
    return row | {"read plainly / read": ratio}


# --- what it grows with --------------------------------------------------------------------------

#: for each its values; the others are as in `USUAL` meanwhile
GROWTH: dict[str, tuple[int, ...]] = {
    "questions": (24, 48, 96, 192),
    "layers": (2, 4, 8, 16),
    "width": (128, 256, 512, 1024),
}
USUAL = {"questions": 48, "layers": 4, "width": 256}


def growth(world: PeopleDataset, runs: int = 5, values: dict = GROWTH) -> list[dict[str, Any]]:
    """Median seconds of measuring text questions: how many, and by a model how deep and wide."""
    _, processor = load("pocket")
    works, rows = {}, []
    for what, sizes in values.items():
        for size in sizes:
            now = USUAL | {what: size}
            language = {
                "hidden_size": now["width"],
                "intermediate_size": 3 * now["width"],
                "num_hidden_layers": now["layers"],
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
            }
            model = pocket.build_model(processor.tokenizer, 0, language).eval()
            questions = question_sets(world, now["questions"])["text"]
            batches = answer_batches(processor, questions, now["questions"])
            works[what, size] = partial(accumulate, model, batches, [q.person for q in questions])
            works[what, size]()
    times = [{key: _seconds(work) for key, work in works.items()} for _ in range(runs)]
    for what, size in works:
        seconds = statistics.median(run[what, size] for run in times)
        rows.append({"grows with": what, "value": size, "seconds": seconds})
    return rows


def slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each thing the exponent: 1 where twice as much takes twice as long."""
    exponents = []
    for what in dict.fromkeys(row["grows with"] for row in rows):
        pairs = [(row["value"], row["seconds"]) for row in rows if row["grows with"] == what]
        x, y = np.log(np.array(pairs, dtype=float)).T
        exponents.append({"grows with": what, "value": float(np.polyfit(x, y, 1)[0])})
    return exponents


def joining(people: int = 64, runs: int = 5) -> float:
    """Bytes a second at which parts are joined by `+`: those that come out."""
    part = Coefficients(torch.rand(people, 30, 1536), torch.ones(people), (), "")
    ends = [replace(part, people=tuple(f"{end}{i}" for i in range(people))) for end in "ab"]
    whole = ends[0] + ends[1]
    seconds = statistics.median(_seconds(lambda: ends[0] + ends[1]) for _ in range(runs))
    return whole.sums.numel() * whole.sums.element_size() / seconds


def size_of(model: torch.nn.Module, name: str, seconds: float) -> dict[str, Any]:
    """How large a model is, in all and in its decoder, and how long its fingerprint takes."""
    tensors, first = model.state_dict().values(), next(iter(find_projections(model)))
    stack = re.sub(r"\.\d+\..*", ".", first)
    return {
        "model": name,
        "fingerprint": seconds,
        "layers": shape_of(model)[0],
        "d_ff": shape_of(model)[1],
        "bytes": sum(t.numel() * t.element_size() for t in tensors),
        "weights": sum(w.numel() for w in model.parameters()),
        "decoder": sum(w.numel() for n, w in model.named_parameters() if n.startswith(stack)),
    }


def free_memory() -> int:
    """Bytes that nobody uses; where that cannot be asked, as if there were enough."""
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", ()):  # Windows has neither
        return 2**63
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows of `compare` by name, as text."""
    heads = list(next(iter(rows.values())))
    lines = [
        [
            head,
            *(f"{row[head]:.3g}" if row[head] % 1 else f"{row[head]:.0f}" for row in rows.values()),
        ]
        for head in heads
    ]
    return text_table(["", *rows], lines)


class Case(NamedTuple):
    """A model to be compared on.

    Attributes:
        make: gives `(model, processor)`.
        runs: how often.
        sets: of `question_sets`, with about how many questions.
        needs: bytes of memory.
    """

    make: Callable
    runs: int
    sets: dict[str, int]
    needs: int = 0


MODELS: dict[str, Case] = {
    "pocket": Case(load, RUNS, dict.fromkeys(("image", "text", "mixed", "rotating"), 96)),
    "SmolLM2's shape": Case(smollm2_shaped, 3, dict.fromkeys(("image", "text", "mixed"), 96)),
    "SmolVLM-256M's shape": Case(smolvlm_shaped, 3, {"image": 6, "text": 96}, 3 * GB),
    "SmolVLM-2.2B's shape, bfloat16": Case(
        partial(smolvlm_shaped, "2.2B", torch.bfloat16), 3, {"text": 24}, 8 * GB
    ),
}


def main(file: Path | None = None, models: dict = MODELS, values: dict = GROWTH) -> None:
    """Compare on every model and set, on a GPU where there is one; print, and store in `file`.

    A model for which memory is too small is left out, with a sentence.

    Raises:
        FileNotFoundError, IsADirectoryError: no file can be written there; nothing was run.
    """
    check_place(file)
    start, world, rows, made, sizes = time.perf_counter(), load_people(), [], {}, []
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, case in models.items():
        if free_memory() < case.needs:
            print(f"{name} is left out: it needs {case.needs / GB:.0f} GB of memory\n")
            continue
        model, processor = case.make()
        model.to(device)
        seconds = _seconds(
            lambda made=made, name=name, model=model: made.update({name: fingerprint(model)})
        )
        sizes.append(size_of(model, name, seconds))
        row_of_kind = {
            kind: compare(
                model, processor, question_sets(world, count)[kind], runs=case.runs, mark=made[name]
            )
            | reading(model, processor, question_sets(world, count)[kind], runs=case.runs)
            for kind, count in case.sets.items()
        }
        print(f"{name} on {device}, {torch.get_num_threads()} threads; times in seconds\n")
        print(table(row_of_kind), f"\n\nits fingerprint, once: {seconds:.2f} s\n")
        rows += [
            {"model": name, "set": kind, "runs": case.runs} | row
            for kind, row in row_of_kind.items()
        ]
        del model
    grown = growth(world, values=values)
    exponents = slopes(grown)
    print(
        "seconds grow with the power of: "
        + ", ".join(f"{row['grows with']} {row['value']:.2f}" for row in exponents)
    )
    if file is not None:
        source = provenance(
            seconds=time.perf_counter() - start,
            seed=0,
            models=made,
            data=world.checksum,
            device=device,
            threads=torch.get_num_threads(),
            load=getattr(os, "getloadavg", tuple)(),
        )
        write_json(
            file,
            {
                "provenance": source,
                "models": sizes,
                "rows": rows,
                "growth": grown,
                "slopes": exponents,
                "joining": joining(),
            },
        )
