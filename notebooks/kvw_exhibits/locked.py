"""Locked or erased: what does an attacker recover who has only the public base model?

    python -m kvw_exhibits.locked     # data/results/locked.json, on smol: half an hour on one core

`smol-before` sees and talks, and has learned no person, like a model on a hub from which others
are trained. The attacker has it and the edited model, no data, and neither the edit nor the model
before it. Of an edit that scales knowledge vectors each factor can be read off; of an addition of
low rank the directions can; and whole projections can be put back. What comes back of the oracle,
which has nothing to give, says what an attack makes up.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from kvw_experiments import plans, runner
from kvw_experiments.dependencies import RESULTS
from kvw_experiments.results_store import read_rows
from kvw_experiments.subjects import open_subject
from kvw_experiments.trials import Trial, edit_for
from kvw_minimal.atomic_io import read_json, write_json
from kvw_minimal.edits import Edit, scaled_columns
from kvw_minimal.evaluation.provenance import provenance
from kvw_minimal.forget_request import Request
from kvw_minimal.method import restored
from kvw_minimal.models import columns, find_projections, fingerprint
from kvw_minimal.session import Session
from kvw_minimal.strangers.people import load_people
from kvw_minimal.zoo import load

from .one_by_one import means

FILE = RESULTS / "locked.json"
GROUP = "A"
#: edits of smol: the experiment and the list that chose their settings
SUBJECTS = {
    "KVW one pass": ("replication-smol", "methods"),
    "rewrite": ("rewrite-smol", "methods"),
    "layerwise rewrite": ("layerwise-rewrite", "on smol"),
}
CONDITION_OF = {"vanilla": "vanilla", **dict.fromkeys(SUBJECTS, "edited"), "oracle": "oracle"}
DIRECTIONS = (1, 4, 16)
SMALLEST = 1e-4  # a factor below it has left nothing to be scaled up
Weights = dict[str, torch.Tensor]  # {parameter: new weight}


def factors(model: nn.Module, public: nn.Module) -> torch.Tensor:
    """By how much each knowledge vector w seems scaled against the public w0: <w, w0> / <w0, w0>.

    Returns:
        `[layers, d_ff]` float64.
    """
    both = zip(find_projections(model).values(), find_projections(public).values(), strict=True)
    pairs = [(columns(edited).double(), columns(other).double()) for edited, other in both]
    return torch.stack([(w * w0).sum(0) / w0.square().sum(0) for w, w0 in pairs])


def unscaled(model: nn.Module, public: nn.Module) -> Weights:
    """Every knowledge vector divided by its factor, where there is something left to divide."""
    gates = factors(model, public)
    gates = torch.where(gates < SMALLEST, 1.0, 1 / gates)
    return {
        f"{path}.weight": scaled_columns(projection, projection.weight.detach(), row)  # type: ignore[arg-type]
        for row, (path, projection) in zip(gates, find_projections(model).items(), strict=True)
    }


def without_directions(model: nn.Module, public: nn.Module, count: int) -> Weights:
    """Weights without the `count` strongest directions of change from the public model."""
    weights = {}
    for name, other in put_back(model, public).items():
        weight = model.get_parameter(name).detach()
        u, s, v = torch.linalg.svd(weight.double() - other.double(), full_matrices=False)
        weights[name] = (weight.double() - (u[:, :count] * s[:count]) @ v[:count]).float()
    return weights


def put_back(model: nn.Module, public: nn.Module) -> Weights:
    """The public output projections in place of the model's."""
    names = [f"{path}.weight" for path in find_projections(model)]
    return {name: public.get_parameter(name).detach() for name in names}


ATTACKS: dict[str, Callable[[nn.Module, nn.Module], Weights]] = {
    "": lambda model, public: {},
    "factors undone": unscaled,
    "projections put back": put_back,
    **{f"{n} directions undone": partial(without_directions, count=n) for n in DIRECTIONS},
}


def chosen_on_smol(method: str) -> Trial:
    """The trial that the experiment of a method chose."""
    experiment, name = SUBJECTS[method]
    rows, made = read_rows(experiment)
    plan = plans.plan_of(experiment, "smol")
    rows = rows[rows["model"] == plan.model]
    return dict(runner.settled(plan, name, rows, made["impossible"]))[method]


def edit_of(method: str, session: Session, request: Request) -> Edit:
    """What is attacked: vanilla, an edit as the book chose it on smol, or the oracle."""
    trial = Trial(method=method, settings={"base": "smol"} if method == "oracle" else {})
    if method in SUBJECTS:
        trial = chosen_on_smol(method)
    return edit_for(trial, session, request)[0]


def attacked(
    session: Session, request: Request, edit: Edit, attack: str, public: nn.Module
) -> dict:
    """What is known after an attack on a model with an edit on, `[mean, low, high]` over people."""
    model, row = session.model, dict[str, Any]()
    if attack == "factors undone" and hasattr(edit, "gates"):
        error = (factors(model, public) - edit.gates).abs().mean()
        row["factor error"] = round(float(error), 5)
    with restored(model):
        for path, weight in ATTACKS[attack](model, public).items():
            model.get_parameter(path).data.copy_(weight)
        return row | means(session, dict(request.sets("forget", "retain", "general")))


def main() -> None:
    """Attack every model in every way and write `FILE`, row by row; goes on where it was."""
    session, requests = open_subject("smol", with_general=True)
    public, _ = load("smol-before")
    request = requests(load_people().groups[GROUP][:5])
    models = {"smol": fingerprint(session.model), "smol-before": fingerprint(public)}
    before = read_json(FILE, "rows") if FILE.is_file() else {"rows": [], "provenance": {}}
    same = before["provenance"].get("models") == models
    rows = [
        row
        for row in before["rows"]
        if same and row["method"] in CONDITION_OF and row["attack"] in ATTACKS
    ]
    start = time.perf_counter() - (before["provenance"]["seconds"] if rows else 0)
    done = {(row["method"], row["attack"]) for row in rows}
    for method, condition in CONDITION_OF.items():
        left = [attack for attack in ATTACKS if (method, attack) not in done]
        if not left:
            continue
        edit = edit_of(method, session, request)
        for attack in tqdm(left, method, disable=None):
            with edit.on(session.model):
                scores = attacked(session, request, edit, attack, public)
            rows.append({"condition": condition, "method": method, "attack": attack} | scores)
            source = provenance(
                seconds=time.perf_counter() - start,
                seed=0,
                models=models,
                data=load_people().checksum,
                group=GROUP,
                command="python -m kvw_exhibits.locked",
            )
            write_json(FILE, {"provenance": source, "rows": rows})


if __name__ == "__main__":
    main()
