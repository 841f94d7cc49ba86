"""The one rule of choice, by hand: what it replaces, what it does with ties."""

import pytest

from kvw_experiments.model_selection import (
    LAYERWISE_RULE,
    MIDDLE_RULE,
    REWRITE_RULE,
    SPARING_RULE,
    Rule,
    choose,
)

VANILLA = {"forget": 1.0, "retain": 1.0, "general": 1.0}


def tried(forget, retain, general=None) -> dict[int, dict[str, float]]:
    """Settings by number, in the order of the grid."""
    general = general or [1.0] * len(forget)
    return {
        i: {"forget": f, "retain": r, "general": g}
        for i, (f, r, g) in enumerate(zip(forget, retain, general, strict=True))
    }


@pytest.mark.parametrize(
    ("forget", "retain", "expected"),
    [
        # of the replication: the one that forgets most while nine tenths of retain are kept
        (
            [0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.1, 0.0],
            [1.0, 1.0, 0.95, 0.9, 0.89, 0.8, 0.5, 0.1],
            (3, True),
        ),
        (
            [0.1] * 8,
            [0.2, 0.3, 0.8, 0.4, 0.5, 0.6, 0.7, 0.1],
            (2, False),
        ),  # none keeps: the gentlest
        # of the ablations, and of the other modalities
        ([0.8, 0.5, 0.1], [1.0, 0.9, 0.8], (1, True)),
        ([0.1], [0.8], (0, False)),
        ([0.8, 0.5, 0.1], [0.7, 0.3, 0.1], (0, False)),
        ([0.5, 0.3, 0.3], [1.0, 0.9, 1.0], (2, True)),  # equal: the one that keeps more
        ([0.5, 0.3, 0.3], [1.0, 0.9, 0.9], (1, True)),  # in everything: the first of the grid
        ([0.2, 0.1, 0.3], [0.8, 0.8, 0.7], (1, False)),
        ([0.2, 0.2], [1.0, 1.0], (0, True)),
    ],
)
def test_the_rule_of_kvw(forget, retain, expected):
    assert choose(tried(forget, retain), VANILLA) == expected
    assert choose(tried(forget, retain, [0.0] * len(forget)), VANILLA) == expected  # no say


def test_general_decides_between_equals():
    """LLM Surgery's weights 1 and 5 forget and keep the same; one of them keeps general skill."""
    assert choose(tried([0.1, 0.1, 0.3], [0.95] * 3, [0.5, 0.9, 1.0]), VANILLA) == (1, True)
    assert choose(tried([0.1, 0.1], [0.95, 0.96], [0.9, 0.5]), VANILLA) == (1, True)  # retain first
    unread = {i: {"forget": 0.1, "retain": 0.95} for i in range(2)}  # nothing general is asked
    assert choose(unread, {"forget": 1.0, "retain": 1.0}) == (0, True)


def test_what_must_be_kept_is_a_share_of_vanilla():
    settings = tried([0.5, 0.3, 0.1], [0.8, 0.73, 0.71])
    assert choose(settings, VANILLA | {"retain": 0.8}) == (1, True)  # .9 of .8 is .72
    assert choose(settings, VANILLA | {"retain": 0.8}, Rule(kept=0.5)) == (2, True)
    assert choose(settings, VANILLA | {"retain": 0.9}) == (0, False)


@pytest.mark.parametrize(
    ("forget", "retain", "general", "expected"),
    [
        ([0.5, 0.3, 0.2, 0.0], [1.0, 1.0, 0.96, 0.9], [1.0] * 4, (2, True)),  # none forgets enough
        (
            [0.5, 0.10, 0.05, 0.0],
            [1.0, 0.99, 0.97, 0.96],
            [1.0] * 4,
            (1, True),
        ),  # gentlest of enough
        ([0.5, 0.05, 0.05, 0.0], [1.0] * 4, [1.0, 0.95, 0.99, 0.96], (2, True)),  # general counts
        ([0.0] * 4, [0.5, 0.9, 0.94, 0.6], [1.0] * 4, (2, False)),  # none keeps enough: keeps most
        ([0.0] * 4, [1.0] * 4, [0.5, 0.9, 0.94, 0.6], (2, False)),
        ([0.05, 0.05], [0.99, 0.99], [1.0, 1.0], (0, True)),
    ],
)
def test_the_rule_of_least_squares(forget, retain, general, expected):
    assert choose(tried(forget, retain, general), VANILLA, SPARING_RULE) == expected


def test_of_those_that_forget_enough_the_middle_rank_is_taken():
    ranks = [0.3, 0.9, 0.6, 0.5, 0.1]
    settings = tried([0.5, 0.0, 0.01, 0.02, 0.0], [1.0, 1.0, 0.99, 0.9, 1.0])
    told = {
        i: found | {"rank": rank} for (i, found), rank in zip(settings.items(), ranks, strict=True)
    }
    assert choose(told, VANILLA, MIDDLE_RULE) == (2, True)  # 3 keeps too little, 0 leaves too much
    assert choose(told, VANILLA, REWRITE_RULE) == (1, True)
    equal = {i: found | {"rank": 0.5} for i, found in settings.items()}
    assert (
        choose(equal, VANILLA, MIDDLE_RULE) == choose(settings, VANILLA, MIDDLE_RULE) == (1, True)
    )


def test_where_no_layer_may_hold_it_what_probes_find_decides_among_those_that_keep_new_photos():
    settings = tried([0.0, 0.0, 0.0, 0.1], [1.0, 1.0, 1.0, 1.0])
    for number, (inside, anew) in enumerate([(0.2, 1.0), (0.1, 0.99), (0.0, 0.9), (0.0, 1.0)]):
        settings[number] |= {"inside": inside, "kept anew": anew}
    vanilla = VANILLA | {"kept anew": 1.0}
    assert choose(settings, vanilla, LAYERWISE_RULE) == (1, True)
    for found in settings.values():
        found["inside"] = 0.1
    assert choose(settings, vanilla, LAYERWISE_RULE) == (0, True)  # of equals what keeps most
