"""The one rule by which settings are chosen on the tuning groups."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Rule:
    """Forget most while enough is kept.

    Attributes:
        kept: share of vanilla that must be kept, in [0, 1].
        of: the sets of which this share must be kept.
        enough: an exact match on the forget set that is forgotten enough; of the settings that
            reach it the one that keeps most is taken. None: the least is always best.
        ties: what decides between settings that are equal so far, in this order: a set, of which
            more is better, but of `forget` less (one that was not read decides nothing); `order`
            is the order of the grid. One of `FIRST`, as the first of them, decides before what is
            kept, between settings that forget enough. `middle`: nearest to the middle of all values
            stands the true one (`rank` .5), as it does on average where nobody was ever met.
            `inside`: the probe that finds most, of those asked while tuning, finds least; for
            membership this is the distance from one half.
    """

    kept: float = 0.90
    of: tuple[str, ...] = ("retain",)
    enough: float | None = None
    ties: tuple[str, ...] = ("order",)


FIRST = ("middle", "inside")
#: least left, then most retained, then general, then the smaller change: grids rise
TIES = ("forget", "retain", "general", "order")
KVW_RULE = Rule(ties=TIES)  # of the replication and the ablations
SPARING_RULE = Rule(kept=0.95, of=("retain", "general"), enough=0.10)  # of least squares
REWRITE_RULE = Rule(kept=0.99, of=("retain", "general"), enough=0.02, ties=TIES)
MIDDLE_RULE = replace(REWRITE_RULE, ties=("middle", *TIES))  # no tell-tale
#: of the layerwise rewrite: others keep their new photos, too, and no layer holds the answer
LAYERWISE_RULE = Rule(
    kept=0.98, of=("retain", "general", "kept anew"), enough=0.02, ties=("inside", *TIES)
)
#: of its kin: an equal price on others and portraits; what new photos pay is reported
KIN_RULE = replace(LAYERWISE_RULE, kept=0.95, of=("retain", "general"))


def choose(
    tried: Mapping[Any, Mapping[str, float]], vanilla: Mapping[str, float], rule: Rule = KVW_RULE
) -> tuple[Any, bool]:
    """One of the settings that were tried, and whether it keeps enough.

    Where none keeps enough, the one that keeps most.

    Args:
        tried: `{setting: {set: exact match}}`, means over groups and modalities, with `forget`
            and the sets of the rule; in the order of the grid.
        vanilla: the same of the model as it is.

    Raises:
        ValueError: nothing was tried.
    """
    if not tried:
        raise ValueError("nothing was tried, so that nothing can be chosen")
    order = {setting: i for i, setting in enumerate(tried)}

    def share(setting: Any) -> float:
        return min(tried[setting][part] / vanilla[part] for part in rule.of)

    def tie(setting: Any) -> list[float]:
        return [
            order[setting]
            if name == "order"
            else abs(tried[setting].get("rank", 0.5) - 0.5)
            if name == "middle"
            else tried[setting].get(name, 0.0) * (1 if name in ("forget", "inside") else -1)
            for name in rule.ties
        ]

    def least(settings: list[Any]) -> Any:
        return min(settings, key=lambda setting: [tried[setting]["forget"], *tie(setting)])

    def most(settings: list[Any]) -> Any:
        return min(settings, key=lambda setting: [-share(setting), *tie(setting)])

    keeping = [
        setting
        for setting in tried
        if all(tried[setting][part] >= rule.kept * vanilla[part] for part in rule.of)
    ]
    if not keeping:
        return most(list(tried)), False
    enough = [s for s in keeping if rule.enough is not None and tried[s]["forget"] <= rule.enough]
    if enough and rule.ties[0] in FIRST:
        return min(enough, key=tie), True
    return (most(enough) if enough else least(keeping)), True
