"""What a stored row depends on: the names of the behaviour vectors that decide it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvw_minimal.audit import PROBES
from kvw_minimal.kvw import SCHEDULES
from kvw_minimal.methods import METHODS
from kvw_minimal.strangers.people import DATA, TUNING_GROUPS

from .design_space import Setting

RESULTS = DATA / "results"
#: the vectors of a metric, beside `metric: NAME`; for names that are none of the registry, alone
SPOKEN = ("generation", "prompts")
SCORED: dict[str, tuple[str, ...]] = {
    "exact_match": ("metric: exact_match", "read"),
    "probability": ("metric: probability", "read"),
    "mentions": ("metric: mentions", "free answers", *SPOKEN),
    "well_formed": ("metric: well_formed", "data: aloud", "spoken: well_formed", *SPOKEN),
    "exact_match_generated": ("metric: same_answer", "spoken: exact_match_generated", *SPOKEN),
    "rouge_l": ("metric: rouge_l", "spoken: rouge_l", *SPOKEN),
    "truth_ratio": ("metric: truth_ratio", "read"),
    "forget_score": ("metric: forget_score", "metric: truth_ratio", "read"),
    "utility": ("quality and utility", "metric: exact_match", "metric: probability", "read"),
    "known": (),  # of a probe, which has a vector of its own
    "difference": ("metric: exact_match", "metric: mentions", "read", *SPOKEN),
    "oracle_distance": ("metric: probability", "read"),
    "log10_p": ("quality and utility", "metric: truth_ratio", "read"),
    "statistic": ("quality and utility", "metric: truth_ratio", "read"),
    **dict.fromkeys(("p_true", "rank", "entropy"), ("metric: among_values", "read")),
    **dict.fromkeys(("of_others", "of_one"), ("said of others", *SPOKEN)),
    **dict.fromkeys(("taken", "lost", "seconds", "memory"), ()),
}
USUAL = {"people": 5, "proxy": "everyone else"}  # of the data of a trial; all else is usually off
#: files of summaries, and which metric a card's rows are of by a word in `what`
SUMMARIES = (
    "oracles",
    "bench",
    "least-squares-pocket",
    "least-squares-pocket-tuning",
    "least-squares-smol",
    "least-squares-smol-tuning",
    "scores",
    "smol",
)
CARDS = {
    "world": "mentions",
    "generated": "exact_match_generated",
    "unknowns": "exact_match_generated",
    "options": "choose_by_likelihood",
}
#: whose reads start from the panel
OF_PANEL = ("ablations-pocket", "as-published", "precision", "replication-pocket", "rewrite-needs")
#: experiments and models with tuning sets of their own
TUNED_APART = {
    ("layerwise-rewrite", "pocket"): "layerwise",
    ("layerwise-rewrite", "smol"): "layerwise on smol",
}
Vectors = set[str]
if TYPE_CHECKING:  # to unlearn needs no pandas
    import pandas as pd


# --- rows ----------------------------------------------------------------------------------------


def of_model(experiment: str, model: str) -> Vectors:
    """Of every row: how questions become tensors, who is asked about, how scores become rows."""
    kind, given = re.split("[,-]", model)[0], experiment.partition("-")[0]
    chat = kind if kind in ("pocket", "smol") else "voices"
    vectors = {"answer mask", "people", "streams", "reading", f"rendering: {chat}"}
    vectors |= {f"{_sets(model)}: {part}" for part in ("forget", "retain")}  # edits need both
    vectors |= {
        "text only": {"without eyes"},
        "voices": {"voices: sound"},
        "smol": {"panel: smol", "low rank"},
    }.get(kind, set())
    vectors |= {"panel: pocket"} if experiment in OF_PANEL else set()
    vectors |= {"number formats"} if "float16" in model else set()
    beside = {f"beside: {kind}", "world questions"}
    reads_beside = (
        given in ("least", "rewrite", "layerwise", "audit") or experiment == "replication-pocket"
    )
    vectors |= beside if reads_beside else set()
    if experiment in SUMMARIES:
        vectors |= {"interval", "choice: sparing" if given == "least" else "choice: KVW"}
    return vectors


def _sets(model: str) -> str:
    return "voices" if model == "voices" else "questions"


def of_set(experiment: str, model: str, part: str, group: str) -> Vectors:
    """Of what is read: a set, or several with + between."""
    probe, _, setting = part.partition(": ")
    if experiment == "audit" or probe in PROBES:
        by_setting = {"cloze": {"wordings"}, "test": {"questions: test"}}
        return {f"probe: {probe}"} | by_setting.get(setting, set())
    anew = "panel: smol anew" if model == "smol" else "panel: others anew"
    special = {
        "world": {"world questions"},
        "kept anew": {anew},
        "among values": {"panel: values"},
        "said of others": {"questions: forget"},
        "weights": set(),
        "cost": set(),
        "card": {"wordings"},
        "cloze": {"wordings"},
    }
    vectors = set().union(
        *(special.get(name, {f"{_sets(model)}: {name}"}) for name in part.split("+"))
    )
    if group in TUNING_GROUPS and experiment != "ablations-pocket":
        usual = "smol" if model == "smol" else "pocket"
        kind = TUNED_APART.get((experiment, model), usual)
        weighed = experiment in ("rewrite-smol", "rewrite-needs", "replication-pocket")
        vectors.add(f"tuning sets: {'weighed' if weighed else kind}")
    return vectors


def changes_nothing(method: str, settings: str) -> bool:
    """Whether an edit leaves the model as it is: no method, or one of strength 0.

    Args:
        settings: complete, JSON.
    """
    given = json.loads(settings)
    return method == "vanilla" or (given.get("strength") == 0 and not given.get("mass"))


def of_method(method: str, settings: str) -> Vectors:
    """Of what is made from which data: of the family the parts that a setting is put together of.

    Args:
        settings: complete, JSON.
    """
    given = json.loads(settings)
    data = {
        name: value
        for name, value in given.pop("data", {}).items()
        if value != USUAL.get(name, value if not value else None)
    }
    vectors = {f"data: {name}" for name in data}
    if changes_nothing(method, settings):
        return vectors
    vectors |= {f"method: {method}", "on and off", "contrast and gate"}
    vectors |= {f"schedule: {name}" for name in SCHEDULES if name in method}
    method_class = METHODS.get(method)
    vectors |= {"towards a refusal"} if given.get("refusal") else set()
    vectors |= {"the whole way"} if not given.get("divided", True) else set()
    if method_class is not None and method != "family":
        learns = hasattr(method_class, "rate") or hasattr(method_class, "alpha")
        reads = METHODS[method_class.settings_from or method].__module__.endswith(
            (".kvw", ".in_place")
        )
        vectors |= {"losses"} if learns else {"coefficients"} if reads else set()
    if method == "family":
        usual = json.loads(json.dumps(asdict(Setting()) | {"mass": 0.0}))
        parts = {name: given.get(name, usual[name]) for name in usual}
        axes = ("score", "positions", "contrast", "shape")
        vectors |= {f"{axis}: {parts.pop(axis)}" for axis in axes}
        vectors |= {
            f"setting: {name}, {value}" if isinstance(value, str) else f"setting: {name}"
            for name, value in parts.items()
            if json.dumps(value) != json.dumps(usual[name])
        }
        if data.get("proxy") == "portraits of nobody":
            vectors.add("setting: general")
    return vectors


def of_metric(method: str, metric: str) -> Vectors:
    """Of how it is scored; of passes, how they are counted."""
    if metric in ("forget", "retain"):
        return {f"cost: {method}"}
    return set(SCORED.get(metric, (f"metric: {metric}",)))


def of_condition(condition: str) -> Vectors:
    """Vectors of the choice of people: forget set or sham."""
    return {"sham"} if condition == "sham" else set()


#: by which columns of a row its vectors are known
PARTS: dict[tuple[str, ...], Callable[..., Vectors]] = {
    ("experiment", "model"): of_model,
    ("experiment", "model", "set", "group"): of_set,
    ("method", "settings"): of_method,
    ("method", "metric"): of_metric,
    ("condition",): of_condition,
}


def needs(row: Mapping[str, Any]) -> frozenset[str]:
    """The vectors that a row depends on, by name."""
    return frozenset().union(
        *(part(*(row[name] for name in columns)) for columns, part in PARTS.items())
    )


def combinations(rows: "pd.DataFrame") -> Iterator[tuple[dict[str, str], Vectors]]:
    """Every combination of the columns of `PARTS` that occurs, and the vectors that it needs."""
    for columns, part in PARTS.items():
        for values in rows[list(columns)].drop_duplicates().itertuples(index=False, name=None):
            yield dict(zip(columns, values, strict=True)), part(*values)


# --- summaries -----------------------------------------------------------------------------------


def as_rows(name: str, content: dict) -> "pd.DataFrame":
    """The rows of a summary in the columns of `PARTS`."""
    import pandas as pd

    rows = []
    for row in content["rows"]:
        what = row.get("what", "")
        metric = next((by for word, by in CARDS.items() if word in what), "exact_match")
        metric = row.get("metric", "seconds" if name == "bench" else metric)
        part = row.get("set", "card") if name != "bench" else "cost"
        rows.append(
            {
                "experiment": name,
                "model": "smol" if "smol" in name else "pocket",
                "method": row.get("method", row.get("condition", "vanilla")),
                "settings": "{}",
                "group": row.get("group", ""),
                "set": part,
                "metric": metric,
                "condition": row.get("condition", "vanilla"),
            }
        )
    return pd.DataFrame(rows)
