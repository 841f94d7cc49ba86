"""Beyond the gate: factors for knowledge vectors from a stated objective, in closed form.

A gate asks how loudly a vector is called. It does not ask what the vector *does* there, so it
turns down what the forgotten share with others, and never turns anything up. Here the question is
asked directly. To first order, taking the share d_i away from every vector i lowers the log-odds
m(q) of the fact in the answer to question q by

    sum_i E(q, i) d_i,    E(q, i) = sum_t h_i(t) dm(q) / dh_i(t)    (the *effect* of i on q)

so what we want is a system of linear equations in d, solved by ridge regression:

    minimise  mean over f of (E d - (m + margin))^2  +  weight * mean over k of (E d - lost)^2
              + ridge * |d|^2

f are the forget questions, whose log-odds shall fall to -margin, k the questions to keep, of
which nothing shall change (`lost`, at most 0, is what earlier passes took from them). Vector i is
then multiplied by 1 - d_i, which may be negative or above 1. As effects change once the factors
do, a few passes are made. No optimiser and no learning rate; but one backward pass a question.

    python -m kvw_minimal.least_squares tune pocket     # into data/results
    python -m kvw_minimal.least_squares measure pocket  # with what tuning chose
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from .batches import answer_batches
from .coefficients import watch
from .contenders import GRADIENTS, Contender, Cost, sham
from .models import columns, find_projections, fingerprint, load
from .people import REPORT_GROUPS, TUNING_GROUPS, Person, World, load_people
from .pocket import known_looks
from .portraits import ATTRIBUTES, random_portraits
from .positions import differentiable, kinds_of_positions
from .questions import Question, about, ask, seeded
from .replication import ALL_GROUPS, made_for, score_rows, study_of
from .results import DECIDING, RESULTS, provenance, read_json, source_hash, write_json
from .smol import world_questions
from .unlearn import Request, prepare

_PARTS = (*DECIDING, "contenders", "matrix", "positions", "least_squares")
#: hash of all code that decides these results, by model
SOURCES = {"pocket": source_hash(_PARTS), "smol": source_hash((*_PARTS, "panel"))}


@dataclass(frozen=True)
class Effects:
    """What taking each knowledge vector away would do to each answer, to first order.

    Attributes:
        log_odds: `[questions]` float32, m: sum over the tokens of the fact of
            log p / (1 - p); above 0 where the fact is likelier than everything else together.
        effect: `[questions, layers, d_ff]` float32, E: positive where the vector speaks for the
            fact.
    """

    log_odds: torch.Tensor
    effect: torch.Tensor


def shape_of(model: nn.Module) -> tuple[int, int]:
    """How many layers of how many knowledge vectors."""
    projections = list(find_projections(model).values())
    return len(projections), columns(projections[0]).shape[1]


def effects(model: nn.Module, processor, questions: list[Question],
            batch_size: int = 64) -> Effects:  # fmt: skip
    """Ask every question once, forwards and backwards.

    Raises:
        ValueError: an effect that is not finite.
    """
    projections, (layers, width) = find_projections(model), shape_of(model)
    effect = torch.zeros(len(questions), layers, width)
    log_odds = torch.zeros(len(questions))
    for batch in answer_batches(processor, questions, batch_size):
        fact = kinds_of_positions(model, processor, batch, questions)["fact"]  # [B, T]
        rows = torch.tensor(batch.rows)

        def see(layer, h, rows=rows):
            factor = h.detach().float().reshape(len(rows), -1, width)  # [B, T, d_ff]

            def keep(gradient):
                each = gradient.float().reshape(factor.shape) * factor
                effect[rows, layer] = each.sum(1)

            h.register_hook(keep)

        with watch(projections, see), torch.enable_grad(), differentiable(model):
            logits = model(**batch.inputs, use_cache=False).logits[fact].float()  # [facts, words]
            gold = batch.labels[:, 1:][fact[:, :-1]][:, None]
            own = logits.gather(1, gold)[:, 0]
            others = logits.scatter(1, gold, -torch.inf).logsumexp(1)
            (own - others).sum().backward()
        where, _ = fact.nonzero(as_tuple=True)
        log_odds[rows] = torch.zeros(len(rows)).index_add(0, where, (own - others).detach())
    if not effect.isfinite().all() or not log_odds.isfinite().all():
        raise ValueError("an effect is NaN or infinite; is the model broken?")
    return Effects(log_odds, effect)


def ridge_solution(equations: list[tuple[torch.Tensor, torch.Tensor, float]],
                   ridge: float) -> torch.Tensor:  # fmt: skip
    """The d that minimises sum_g w_g mean((E_g d - y_g)^2) + ridge |d|^2.

    Solved in float64 with one unknown a question instead of one a vector, which are many more.

    Args:
        equations: `(E [questions, n], y [questions], w)` of each group.
        ridge: > 0.

    Returns:
        `[n]` float64.

    Raises:
        ValueError: a ridge that is not above 0, or a negative weight.
    """
    if ridge <= 0 or any(weight < 0 for *_, weight in equations):
        raise ValueError("a ridge is above 0 and a weight at least 0")
    scales = [(weight / len(wanted)) ** 0.5 for _, wanted, weight in equations]
    e = torch.cat(
        [part.double() * scale for (part, *_), scale in zip(equations, scales, strict=True)]
    )  # [questions, n]
    y = torch.cat([wanted.double() * scale for (_, wanted, _), scale in
                   zip(equations, scales, strict=True)])  # fmt: skip
    gram = e @ e.T
    gram.diagonal().add_(ridge)
    return e.T @ torch.linalg.solve(gram, y)


@torch.no_grad()
def scale(model: nn.Module, factors: torch.Tensor) -> None:
    """Multiply the knowledge vectors of a model in place.

    Args:
        factors: `[layers, d_ff]`, any sign.
    """
    for projection, row in zip(find_projections(model).values(), factors, strict=True):
        scaled = columns(projection).float() * row.to(projection.weight.device)
        columns(projection).copy_(scaled.to(projection.weight.dtype))


@contextmanager
def scaled(model: nn.Module, factors: torch.Tensor) -> Iterator[None]:
    """Multiply the knowledge vectors for the length of a block; bit for bit back afterwards."""
    before = [p.weight.detach().clone() for p in find_projections(model).values()]
    try:
        scale(model, factors)
        yield
    finally:
        for projection, weight in zip(find_projections(model).values(), before, strict=True):
            projection.weight.data.copy_(weight)


def factors(model: nn.Module, processor, forget: list[Question], keep: list[list[Question]], *,
            margin: float = 4.0, weight: float = 30.0, ridge: float = 0.03, passes: int = 2,
            cost: Cost | None = None) -> Iterator[torch.Tensor]:  # fmt: skip
    """Solve for the factors, pass after pass; the model is left as it was.

    Args:
        forget: whose facts shall not be said any more.
        keep: groups of questions of which nothing shall change, each with `weight`.
        margin: log-odds shall fall to minus this; what is there already is left.
        cost: counts the passes over `forget` and `keep`.

    Yields:
        `[layers, d_ff]` float32 after each pass, 1 = untouched.

    Raises:
        ValueError: nothing to forget, or as `ridge_solution`.
    """
    if not forget:
        raise ValueError("the forget set is empty: name at least one person")
    total, before = torch.ones(shape_of(model)), None
    for _ in range(passes):
        with scaled(model, total):
            gone = effects(model, processor, forget)
            kept = [effects(model, processor, group) for group in keep]
        if cost is not None:
            cost.passes["forget"] += 3 * len(forget)
            cost.passes["retain"] += 3 * sum(len(group) for group in keep)
        before = before or [group.log_odds for group in kept]
        wanted = (gone.log_odds + margin).clamp(min=0)
        equations = [(gone.effect.flatten(1), wanted, 1.0)]
        for now, start in zip(kept, before, strict=True):
            lost = (now.log_odds - start).clamp(max=0)
            equations.append((now.effect.flatten(1), lost, weight))
        share = ridge_solution(equations, ridge).view_as(total).float()
        total = total * (1 - share)
        yield total


# --- the contender ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is particular about a model's run.

    Attributes:
        retain: questions about others that nothing shall change of.
        portraits: portraits of nobody among what is kept, drawn anew: none that `general` shows.
        world: keep the replayed questions about the world, too (never those that are scored).
        grid: the settings that tuning chooses from.
        groups: report groups; `tuning`: groups that the settings are chosen on.
        anew: also score a third of the others with a new photo and a new wording.
    """

    retain: int
    portraits: int
    world: bool
    grid: tuple[dict, ...]
    groups: tuple[str, ...]
    tuning: tuple[str, ...]
    anew: bool


PLANS = {
    "pocket": Plan(400, 40, False, tuple({"ridge": ridge, "passes": passes}
                   for ridge in (0.1, 0.03) for passes in (1, 2, 3)),
                   REPORT_GROUPS, TUNING_GROUPS, True),
    "smol": Plan(150, 10, True, ({"ridge": 0.1, "passes": 2}, {"ridge": 0.03, "passes": 2}),
                 REPORT_GROUPS[:1], TUNING_GROUPS[:1], False),
}  # fmt: skip


def portraits_of_nobody(world: World, count: int, seed: int = 0) -> list[Question]:
    """What can be seen on portraits that no set of the book holds."""
    questions = []
    for i, drawn in enumerate(random_portraits(count, 900 + seed, known_looks(world))):
        nobody = Person(f"n{i:03d}", "", "", {}, (drawn["look"] | drawn["shot"],),
                        (drawn["png"],), 0)  # fmt: skip
        questions += [ask(world, nobody, fact, "image", wording=i % 10) for fact in ATTRIBUTES]
    return questions


def questions_to_keep(plan: Plan, world: World, forget: list[str],
                      seed: int = 0) -> list[list[Question]]:  # fmt: skip
    """A sample of what is asked about the others, portraits of nobody, and the world."""
    others = about(world, world.retain_people(forget))
    count = min(plan.retain, len(others))
    rows = seeded("least squares", seed, *forget).choice(len(others), count, replace=False)
    keep = [[others[row] for row in sorted(rows)], portraits_of_nobody(world, plan.portraits, seed)]
    return [*keep, world_questions(replayed=True)] if plan.world else keep


def maker(plan: Plan) -> Callable[[Request, list[str], dict, int, Cost], None]:
    """A contender's `make`: the factors of the last pass, put on the model."""

    def make(request: Request, people: list[str], settings: dict, seed: int, cost: Cost) -> None:
        model, processor = request.subject.model, request.subject.processor
        keep = questions_to_keep(plan, request.world, people, seed)
        asked = about(request.world, people)
        *_, last = factors(model, processor, asked, keep, cost=cost, **settings)
        scale(model, last)

    return make


def field_of(model: str) -> dict[str, Contender]:
    """Vanilla, ours, its sham and the oracle, as they run on a model."""
    plan, known = PLANS[model], study_of(model).contenders
    ours = Contender("least squares", maker(plan), plan.grid, GRADIENTS)
    fake = Contender("sham least squares", sham(maker(plan)), (), GRADIENTS, ours.name)
    return {"vanilla": known["vanilla"], ours.name: ours, fake.name: fake,
            "oracle": known["oracle"]}  # fmt: skip


# --- tuned on the tuning groups, measured on the report groups ---------------------------------

KEPT = 0.95  # of vanilla, on retain and on general: what an edit must keep to be chosen
ENOUGH = 0.10  # exact match on forget that is forgotten enough: the oracle is at 0 or near


def choose(rows: list[dict], grid: tuple[dict, ...]) -> dict:
    """Of the settings that keep `KEPT` of vanilla on retain and on general, one.

    If some of them forget `ENOUGH`, the one of these that keeps most; else the one that forgets
    most; if none keeps so much, the one that keeps most.
    """

    def mean(settings: dict, part: str) -> float:
        values = [r["value"] for r in rows if (r["settings"], r["set"]) == (settings, part)]
        return sum(values) / len(values)

    def kept(settings: dict) -> float:
        return min(mean(settings, part) / mean({}, part) for part in ("retain", "general"))

    keeping = [settings for settings in grid if kept(settings) >= KEPT]
    enough = [settings for settings in keeping if mean(settings, "forget") <= ENOUGH]
    if keeping and not enough:
        return min(keeping, key=lambda settings: mean(settings, "forget"))
    return max(enough or grid, key=kept)


def origin(model: str, stage: str, start: float, world: World, print_of: str, **more) -> dict:
    """Provenance of a result of this module."""
    return provenance(
        seconds=time.perf_counter() - start, seed=0, data=world.checksum, contenders=SOURCES[model],
        models={model: print_of}, command=f"python -m kvw_minimal.least_squares {stage} {model}",
        **more,
    )  # fmt: skip


def tune(name: str = "pocket") -> dict:
    """Every setting on the tuning groups."""
    start, world, plan, study = time.perf_counter(), load_people(), PLANS[name], study_of(name)
    model, processor = load(name)
    rows, field = [], field_of(name)
    for group in tqdm(plan.tuning, f"tune {name}", disable=None):
        request = study.begin(model, processor, world, world.forget_people(group, 5))
        sets = study.tuning_sets(request)
        batches = {part: answer_batches(processor, sets[part], 64) for part in sets}
        for contender in (field["vanilla"], field["least squares"]):
            rows += [{"contender": contender.name, "group": group} | row
                     for row in study.try_settings(request, contender, sets, batches)]  # fmt: skip
    made = origin(name, "tune", start, world, fingerprint(model))
    return {"provenance": made, "rows": rows, "chosen": choose(rows, plan.grid)}


def measure(chosen: dict, name: str = "pocket", groups: tuple[str, ...] | None = None) -> dict:
    """Vanilla, ours, its sham and, where it is made, the oracle, on the report groups at 5 %.

    On pocket `kept anew` asks every third of the others with a new photo and a new wording: of
    the questions of `retain` some were kept on purpose.
    """
    start, world, plan, study = time.perf_counter(), load_people(), PLANS[name], study_of(name)
    model, processor = load(name)
    field, groups, parts, asked = field_of(name), groups or plan.groups, {}, {}
    for group in tqdm(groups, f"measure {name}", disable=None):
        request = study.begin(model, processor, world, world.forget_people(group, 5))
        asked[group] = request.subject.questions
        if plan.anew:
            others = world.retain_people(request.forget)[::3]
            asked[group] = asked[group] | {"kept anew": about(world, others, new=True)}
            request = replace(request, subject=prepare(model, processor, asked[group]))
        for contender in made_for(list(field), world, request.forget, name):
            settings = chosen if "least squares" in contender else {}
            parts[contender, group] = study.measure_one(
                request, field[contender], settings, tuple(asked[group])
            )
    rows, costs, answers = [], [], []
    for contender in field:
        done = [group for group in groups if (contender, group) in parts]
        for label, some in [*((group, [group]) for group in done), (ALL_GROUPS, done)]:
            if not some:
                continue
            here = {part: [q for group in some for q in asked[group][part]]
                    for part in asked[groups[0]]}  # fmt: skip
            keys = {"contender": contender, "group": label, "groups": len(some)}
            rows += score_rows(keys, [parts[contender, group] for group in some], here)
        for group in done:
            costs.append({"contender": contender, "group": group} | parts[contender, group]["cost"])
        if done:
            answers += [{"contender": contender} | each
                        for each in parts[contender, done[0]].get("answers", [])]  # fmt: skip
    made = origin(name, "measure", start, world, fingerprint(model), sham_draws=study.draws)
    return {"provenance": made, "chosen": chosen, "rows": rows, "costs": costs,
            "answers": answers}  # fmt: skip


def tuning_file(model: str = "pocket") -> Path:
    return RESULTS / f"least-squares-{model}-tuning.json"


def stored_file(model: str = "pocket") -> Path:
    return RESULTS / f"least-squares-{model}.json"


def main(words: list[str]) -> None:
    """`tune MODEL` or `measure MODEL`."""
    if len(words) != 2 or words[0] not in ("tune", "measure") or words[1] not in PLANS:
        sys.exit(__doc__)
    stage, model = words
    if stage == "tune":
        write_json(tuning_file(model), tune(model))
    else:
        write_json(stored_file(model), measure(read_json(tuning_file(model))["chosen"], model))


if __name__ == "__main__":
    main(sys.argv[1:])
