"""Write the prices of methods that `methods` prints, from stored rows: `tests/write_pages.py`."""

import json
from functools import cache

import pandas as pd
from package_page import ROOT

from kvw_experiments.results_store import read_rows
from kvw_minimal.evaluation import setups  # noqa: F401 - it registers the oracle
from kvw_minimal.evaluation.options import PRICES
from kvw_minimal.methods import METHODS

#: experiments on `pocket` that store what an edit for five people costs
EXPERIMENTS = ("replication-pocket", "layerwise-rewrite")
PAGE = ROOT / "data" / "models" / PRICES


@cache
def costs() -> tuple[pd.DataFrame, list[dict]]:
    """All rows of costs on report groups, and the provenance of each experiment."""
    read = [read_rows(experiment, fresh=False) for experiment in EXPERIMENTS]
    own = [
        rows[
            (rows["model"] == "pocket")
            & (rows["set"] == "cost")
            & rows["group"].isin(list("ABCDE"))
        ]
        for rows, _ in read  # chosen before they are joined: joining all takes seconds
    ]
    return pd.concat(own, ignore_index=True), [made for _, made in read]


def page() -> str:
    """The mean passes and seconds of an edit over the report groups, by method."""
    rows, made = costs()
    rows = rows[rows["settings"].map(lambda text: json.loads(text)["data"]["people"] == 5)]
    mean = rows.groupby(["method", "metric"], observed=True)["score_sum"].mean().unstack()
    methods = {
        name: {
            "forget": round(float(price["forget"])),
            "retain": round(float(price["retain"])),
            "seconds": float(f"{price['seconds']:.2g}"),
        }
        for name, price in mean.iterrows()
        if name in METHODS and price["seconds"] > 0
    }
    dates, processors = ({each[name] for each in made} for name in ("date", "processor"))
    where = {
        "experiments": EXPERIMENTS,
        "processor": " and ".join(sorted(processors)),
        "date": " and ".join(sorted(dates)),
    }
    return json.dumps(where | {"methods": methods}, indent=1) + "\n"
