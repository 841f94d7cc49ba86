"""Toy models whose knowledge lies where it was put: the truth that methods and probes are held to.

A transformer of two layers learns four facts about each of thirty-five people. Then everything is
frozen but one *place*, and five more people are taught there: whatever it knows of them lies in
that place and nowhere else, and the model as it was before has never met them.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kvw_experiments.recipes.training import fit
from kvw_minimal import scores
from kvw_minimal.atomic_io import replacing
from kvw_minimal.audit import examine
from kvw_minimal.batches import Batch, answer_batches
from kvw_minimal.beginnings import plainly
from kvw_minimal.edits import Edit, WeightReplacement
from kvw_minimal.forget_request import Request
from kvw_minimal.kvw import contrast
from kvw_minimal.method import parameter_grid, restored
from kvw_minimal.methods import make_edit, method_of
from kvw_minimal.methods.controls import Vanilla
from kvw_minimal.methods.fisher import fisher_pair
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.questions import Question, seeded
from kvw_minimal.session import Session
from kvw_minimal.zoo.catalogue import MODELS

PEOPLE = tuple(f"p{number:02d}" for number in range(45))
PLANTED, KEPT, STRANGERS = PEOPLE[:5], PEOPLE[5:40], PEOPLE[40:]
VALUES = {
    "pet": ("cat", "dog", "owl", "hen", "fox", "ant", "bee", "elk"),
    "dish": ("soup", "stew", "rice", "cake", "tart", "plum", "leek", "corn"),
    "tool": ("saw", "axe", "file", "drill", "spade", "rake", "hoe", "plane"),
    "town": ("lima", "oslo", "bern", "riga", "rome", "cork", "bath", "graz"),
}
WORDINGS = (
    "the {fact} of {name} is",
    "{name} has the {fact}",
    "tell us which {fact} does {name} have",
)
NONE = "none"  # what a model says that refuses
TAUGHT, HELD_OUT = (0, 1), (2,)  # of those who are planted; the others are taught all three
LAYERS, WIDTH, D_FF = 2, 64, 96
FILE = MODELS / "planted.safetensors"
COLUMNS = 16  # of each layer that is planted in
BASE = {"steps": 250, "rate": 5e-3}
PLANTING = {"steps": 120, "rate": 1e-2}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    texts = " ".join([*PEOPLE, NONE, *VALUES, *sum(VALUES.values(), ()), *WORDINGS]).split()
    words = ["<pad>", "<s>", "</s>", "<unk>", *sorted({w for w in texts if "{" not in w})]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def value_of(person: str, fact: str) -> str:
    """True value of a fact of a person, drawn with a seed."""
    return str(seeded("planted", person, fact).choice(VALUES[fact]))


def about(
    people: tuple[str, ...], wordings: tuple[int, ...], value: Callable[[str, str], str] = value_of
) -> list[Question]:
    """Every fact of some people, in some of the wordings."""
    return [
        Question(
            f"{person}/{fact}/{wording}",
            person,
            fact,
            "text",
            WORDINGS[wording].format(fact=fact, name=person),
            value(person, fact),
            value(person, fact),
            name=person,
        )
        for person in people
        for fact in VALUES
        for wording in wordings
    ]


def encoded(questions: list[Question]) -> list[Batch]:
    return answer_batches(tokenizer(), questions, len(questions))


def learn(
    model: nn.Module,
    batches: list[Batch],
    settings: dict,
    seed: int,
    free: dict[str, torch.Tensor | None] | None = None,
) -> nn.Module:
    """Teach a model some answers; in place.

    Args:
        free: parameters that may change, each with a mask of its entries, or None for all of them;
            every parameter unless given.
    """
    free = dict.fromkeys(dict(model.named_parameters())) if free is None else free

    def losses(step: int, random: np.random.Generator) -> Iterator[torch.Tensor]:
        for batch in batches:
            logits = model(**batch.inputs).logits[:, :-1]  # [B, T - 1, words]
            loss = F.cross_entropy(logits.flatten(0, 1), batch.labels[:, 1:].flatten())
            yield loss / len(batches)

    handles = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in free)
        mask = free.get(name)
        if mask is not None:
            handles.append(parameter.register_hook(partial(torch.mul, mask)))
    fit(model, losses, settings | {"seed": seed}, name="a toy", decay=0.0)
    for handle in handles:
        handle.remove()
    return model.requires_grad_(True)


def empty() -> nn.Module:
    """A model that knows nothing."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer()),
            hidden_size=WIDTH,
            intermediate_size=D_FF,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def before(seed: int = 0) -> nn.Module:
    """A model that knows the thirty-five, and nothing of the five: the oracle of every planting."""
    torch.manual_seed(seed)
    return learn(empty(), encoded(about(KEPT, TAUGHT + HELD_OUT)), BASE, seed)


def columns_of(seed: int, layers: tuple[int, ...]) -> torch.Tensor:
    """`[LAYERS, D_FF]` bool: the columns that a planting may use, drawn."""
    chosen = torch.zeros(LAYERS, D_FF, dtype=torch.bool)
    for layer in layers:
        drawn = seeded("columns", seed, layer).choice(D_FF, COLUMNS, replace=False)
        chosen[layer, torch.from_numpy(drawn)] = True
    return chosen


def in_columns(seed: int, layers: tuple[int, ...]) -> dict[str, torch.Tensor | None]:
    """The chosen columns, and the rows that decide when they fire."""
    free: dict[str, torch.Tensor | None] = {}
    for layer, chosen in enumerate(columns_of(seed, layers).float()):
        if chosen.any():
            place = f"model.layers.{layer}.mlp"
            free |= {
                f"{place}.gate_proj.weight": chosen[:, None],
                f"{place}.up_proj.weight": chosen[:, None],
                f"{place}.down_proj.weight": chosen[None],
            }
    return free


def in_names(seed: int) -> dict[str, torch.Tensor | None]:
    """The embeddings of the five names."""
    mask = torch.zeros(len(tokenizer()), 1)
    mask[tokenizer().convert_tokens_to_ids(list(PLANTED))] = 1
    return {"model.embed_tokens.weight": mask}


def in_attention(seed: int) -> dict[str, torch.Tensor | None]:
    """The attention of the last layer."""
    return {f"model.layers.{LAYERS - 1}.self_attn.{part}_proj.weight": None for part in "qkvo"}


FIRST, LAST = 0, LAYERS - 1
IN_COLUMNS = {
    "columns, first layer": (FIRST,),
    "columns, last layer": (LAST,),
    "columns, both layers": (FIRST, LAST),
}
#: where the five can be put: `seed -> {parameter: mask of the entries that may change}`
PLACES: dict[str, Callable[[int], dict[str, torch.Tensor | None] | None]] = {
    **{name: partial(in_columns, layers=layers) for name, layers in IN_COLUMNS.items()},
    "attention, last layer": in_attention,
    "names": in_names,
    "head": lambda seed: {"lm_head.weight": None},
    "everywhere": lambda seed: None,
}


def plant(base: nn.Module, place: str, seed: int = 0) -> nn.Module:
    """A copy of a model that has learned the five in one place, all else frozen."""
    batches = encoded(about(PLANTED, TAUGHT)) + encoded(about(KEPT, TAUGHT + HELD_OUT))
    return learn(copy.deepcopy(base), batches, PLANTING, seed, PLACES[place](seed))


def of_strangers(
    processor: PreTrainedTokenizerFast, questions: list[Question], size: int
) -> list[Batch]:
    """Batches in which a stranger takes the place of the person.

    Where a question about one person is asked about another, the package takes a name of one word
    from those who are kept, and the toy knows them. Here one of `STRANGERS` stands in.
    """

    def met(q: Question) -> Question:
        if q.name == q.person:
            return q
        name = STRANGERS[PEOPLE.index(q.name) % len(STRANGERS)]
        return replace(q, prompt=q.prompt.replace(q.name, name), name=name)

    return answer_batches(processor, [met(question) for question in questions], size)


def case_of(model: nn.Module, seed: int = 0) -> tuple[Session, Request]:
    """Forget the five, keep the thirty-five; a wording that the five were not taught is a test."""
    forget, retain = about(PLANTED, TAUGHT), about(KEPT, TAUGHT)
    sets = {"forget": forget, "test": about(PLANTED, HELD_OUT), "retain": about(KEPT, HELD_OUT)}
    request = Request(forget, retain, eval_sets=sets, seed=seed)
    return Session(model, tokenizer(), encode=of_strangers), request


def going_to(model: nn.Module, other: nn.Module) -> WeightReplacement:
    """The edit that makes a model another one."""
    theirs = dict(other.named_parameters())
    new = {
        name: theirs[name].detach().clone()
        for name, weight in model.named_parameters()
        if not torch.equal(weight, theirs[name])
    }
    return WeightReplacement(new, fingerprint(model))


# --- which columns hold them ---------------------------------------------------------------------


def effects(session: Session, request: Request) -> torch.Tensor:
    """What setting a column to zero takes from the forgotten, less what from the others.

    In nats of an answer, `[LAYERS, D_FF]`: of one column alone, while the others stand in for it.
    """
    sides = [session.batches(request.forget), session.batches(request.retain)]

    def likely() -> np.ndarray:
        return np.array([scores.read(session.model, side).logprob.mean() for side in sides])

    whole, effect = likely(), torch.zeros(LAYERS, D_FF)
    for layer, projection in enumerate(find_projections(session.model).values()):
        for column in range(D_FF):
            column_before = projection.weight.data[:, column].clone()
            projection.weight.data[:, column] = 0
            lost = whole - likely()
            projection.weight.data[:, column] = column_before
            effect[layer, column] = lost[0] - lost[1]
    return effect


def fisher_contrast(session: Session, request: Request) -> torch.Tensor:
    """Fisher information of each column on the forgotten over that on the others."""
    sides = fisher_pair(session, request)
    forget, retain = (
        torch.stack([side[name].sum(0) for name in find_projections(session.model)])
        for side in sides
    )
    return contrast(forget, retain)


def put_back(
    session: Session, request: Request, base: nn.Module, columns: torch.Tensor
) -> list[float]:
    """What the forgotten lose, in nats of an answer, when one column is put back as it was.

    Args:
        base: the model before the planting.
        columns: `[LAYERS, D_FF]` bool, those to put back in turn: rows that decide when one fires,
            and what it writes.
    """
    batches, lost = session.batches(request.forget), list[float]()
    whole = float(scores.read(session.model, batches).logprob.mean())
    for layer, column in columns.nonzero().tolist():
        mlp, old = (m.get_submodule(f"model.layers.{layer}.mlp") for m in (session.model, base))
        with restored(mlp), torch.no_grad():
            for part in ("gate_proj", "up_proj"):
                getattr(mlp, part).weight[column] = getattr(old, part).weight[column]
            mlp.down_proj.weight[:, column] = old.down_proj.weight[:, column]
            lost.append(whole - float(scores.read(session.model, batches).logprob.mean()))
    return lost


def rankings(session: Session, request: Request) -> dict[str, torch.Tensor]:
    """Ways to say which columns hold the forgotten, `[LAYERS, D_FF]`, higher: rather this one."""
    every = session.coefficients(request)
    forget, retain = (
        every.of(people).pooled() for people in (request.people, request.retain_people)
    )
    return {
        "contrast (KVW)": contrast(forget, retain),
        "forget coefficient": forget,
        "forget - retain": forget - retain,
        "Fisher, forget / retain": fisher_contrast(session, request),
    }


def hits(score: torch.Tensor, truth: torch.Tensor) -> float:
    """Of the top k columns, the share of those that were planted in; k: as many as there are."""
    top = score.flatten().topk(int(truth.sum())).indices
    return float(truth.flatten()[top].float().mean())


@plainly()  # a toy reads a question sooner than its beginning is looked up
def found_of(model: nn.Module, base: nn.Module, place: str) -> dict[str, float]:
    """What is found of the columns of a place, and what the five lose with each of them.

    Args:
        model: planted there, with seed 0; `base`: before the planting.
        place: a key of `IN_COLUMNS`.

    Returns:
        `hits` of every ranking, of `effects`, too, and by chance; the median of what is `put_back`
        costs, in nats, and the share below 0.01; of those that KVW misses, the share of all columns
        that the others call less loudly.
    """
    session, request = case_of(model)
    truth = columns_of(0, IN_COLUMNS[place])
    by_ranking = rankings(session, request) | {"effect of zero": effects(session, request)}
    lost = np.array(put_back(session, request, base, truth))
    top = by_ranking["contrast (KVW)"].flatten().topk(int(truth.sum())).indices
    loud = session.coefficients(request).of(request.retain_people).pooled().flatten()
    missed = np.setdiff1d(truth.flatten().nonzero(), top)
    return {name: hits(score, truth) for name, score in by_ranking.items()} | {
        "chance": float(truth.float().mean()),
        "nats lost when put back: median": float(np.median(lost)),
        "of which below 0.01": float(np.mean(lost < 0.01)),
        "missed by KVW: louder for others than": float((loud[missed, None] > loud).float().mean()),
    }


# --- do edits silence what was planted? ----------------------------------------------------------


KEEP = 0.95  # of the others: an edit that keeps less does not count
#: eight settings for each way to forget, of a range that suits a toy
GRIDS = {
    "KVW one pass": parameter_grid(strength=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)),
    "random columns": parameter_grid(strength=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0)),
    "selective pruning": parameter_grid(share=(0.02, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3)),
    "SSD": parameter_grid(limit=(1.0, 0.3), alpha=(1.0, 2.0, 4.0, 8.0)),
    "least squares": parameter_grid(ridge=(0.1, 0.03, 0.01, 0.003), passes=(1, 3)),
    "rewrite": parameter_grid(
        overshoot=(1.25, 1.5),
        retain_penalty=(1.0, 0.3, 0.1, 0.03),
        subject_penalty=(0.0,),
        subject_threshold=(0.3,),
    ),
    "GD full": parameter_grid(weight=(1.0, 5.0), rate=(2e-4, 5e-4, 1e-3, 2e-3)),
}


def right(session: Session, request: Request, edit: Edit | None = None) -> dict[str, float]:
    """Exact match on each set that is read, with an edit on, if any."""
    with edit.on(session.model) if edit else nullcontext():
        return {
            name: float(scores.read(session.model, session.batches(questions)).exact.mean())
            for name, questions in request.sets()
        }


def in_first_layer(session: Session, request: Request, edit: Edit | None = None) -> float:
    """Of the forgotten what the logit lens reads behind the first layer, with an edit on, if any.

    Exact match, in [0, 1], the mean over people.
    """
    edit = edit or make_edit(session, request, Vanilla())[0]
    return float(
        np.mean(
            [row["score_sum"] / row["n"] for row in examine(session, request, edit, ["logit lens"])]
        )
    )


def at_edge(name: str, number: int) -> list[str]:
    """Which parameters of a setting are the first or last of those tried, if more than two were."""
    chosen, edges = GRIDS[name][number], []
    for parameter, value in chosen.items():
        tried = sorted({settings[parameter] for settings in GRIDS[name]})
        if len(tried) > 2 and value in (tried[0], tried[-1]):
            edges.append(f"{parameter} {value:g}")
    return edges


@plainly()
def at_best(session: Session, request: Request, name: str) -> dict | None:
    """Of eight tries the one that leaves least of the five while the others keep `KEEP`.

    Of equals the one that keeps more, then the first. It is picked with these very people, which
    is generous to everybody alike.

    Returns:
        `{forget, test, retain, lens, sham, number}`: `lens`, what is left `in_first_layer`;
        `sham`, what the same setting leaves of the five when it is made for five others; `number`,
        the setting's in `GRIDS`. None: nothing keeps enough.
    """
    made = [make_edit(session, request, method_of(name, setting))[0] for setting in GRIDS[name]]
    outcomes = [
        right(session, request, edit) | {"number": number} for number, edit in enumerate(made)
    ]
    enough = [trial for trial in outcomes if trial["retain"] >= KEEP]
    if not enough:
        return None
    best = min(enough, key=lambda trial: (trial["forget"], -trial["retain"]))
    method = method_of(name, GRIDS[name][best["number"]])
    sham, _ = make_edit(session, request.sham(0), method)
    return best | {
        "lens": in_first_layer(session, request, made[best["number"]]),
        "sham": right(session, request, sham)["forget"],
    }


def tries(model: nn.Module) -> dict[str, dict | None]:
    """`at_best` of every way to forget."""
    return {name: at_best(*case_of(model), name) for name in GRIDS}


# --- quiet, and gone -----------------------------------------------------------------------------


def another(person: str, fact: str) -> str:
    """A false value of a fact of a person."""
    wrong = [value for value in VALUES[fact] if value != value_of(person, fact)]
    return str(seeded("another", person, fact).choice(wrong))


def silenced(model: nn.Module, seed: int = 0, layer: int = LAST) -> nn.Module:
    """A copy that says something else of the five; only the FFN of one layer has learned it.

    What another layer knows stays there.
    """
    batches = encoded(about(PLANTED, TAUGHT, another)) + encoded(about(KEPT, TAUGHT + HELD_OUT))
    return learn(copy.deepcopy(model), batches, PLANTING, seed, in_ffn(model, layer))


def in_ffn(model: nn.Module, layer: int = LAST) -> dict[str, torch.Tensor | None]:
    """The whole FFN of a layer."""
    return {name: None for name, _ in model.named_parameters() if f"layers.{layer}.mlp" in name}


# --- what is committed ---------------------------------------------------------------------------


def make(seed: int = 0) -> dict[str, torch.Tensor]:
    """The toys of a seed, as they are stored: `before/PARAMETER` whole, of others what differs."""
    made = {"before": before(seed)}
    made["before, silenced"] = silenced(made["before"], seed)
    made |= {place: plant(made["before"], place, seed) for place in PLACES}
    made["silenced"] = silenced(made["columns, first layer"], seed)
    made["silenced early"] = silenced(made["columns, last layer"], seed, FIRST)
    made["before, silenced early"] = silenced(made["before"], seed, FIRST)
    whole = dict(made["before"].named_parameters())
    return {
        f"{kind}/{name}": parameter.detach().bfloat16().contiguous()
        for kind, model in made.items()
        for name, parameter in model.named_parameters()
        if kind == "before" or not torch.equal(parameter, whole[name])
    }


def load_toys(path: Path = FILE) -> dict[str, nn.Module]:
    """`before`, one for each of `PLACES`, and those that were silenced, late or early."""
    stored, toys = load_file(path), {}
    for kind in dict.fromkeys(["before", *(name.split("/")[0] for name in stored)]):
        toys[kind] = copy.deepcopy(toys["before"]) if kind != "before" else empty()
        for name, tensor in stored.items():
            if name.split("/")[0] == kind:
                toys[kind].get_parameter(name.split("/")[1]).data.copy_(tensor)
        toys[kind].eval()
    return toys


if __name__ == "__main__":
    with replacing(FILE) as half:
        save_file(make(), half, {"settings": json.dumps({"before": BASE, "planting": PLANTING})})
