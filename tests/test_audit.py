"""The audit: does each probe find what was left on purpose, and stay silent where nothing is?"""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import vectors
from case import Case, case_of

from kvw_experiments.results_store import path_of
from kvw_minimal import audit, scores
from kvw_minimal.audit import (
    edit_leakage,
    findings,
    membership,
    probes,
    prompting_probes,
    relearning_attacks,
    representation_probes,
    token_probes,
)
from kvw_minimal.edits import ColumnScaling, WeightReplacement
from kvw_minimal.method import make_edit
from kvw_minimal.methods import METHODS
from kvw_minimal.methods.counterfactuals import decoder_layers
from kvw_minimal.models import find_projections, fingerprint
from kvw_minimal.strangers.questions import about

FORGOTTEN, KEPT = 3, 24  # so many that some values are shared


@pytest.fixture(scope="module")
def case() -> Case:
    """The tiny committed model, which knows about half of what is asked about eight people."""
    model, processor = vectors.tiny()
    people = list(vectors.world().people)[: FORGOTTEN + KEPT]
    forget = about(vectors.world(), people[:FORGOTTEN])
    read = {
        "cloze": about(vectors.world(), people[:FORGOTTEN], form="cloze"),
        "test": about(vectors.world(), people[: FORGOTTEN + 1], new=True),
    }
    retain = about(vectors.world(), people[FORGOTTEN:])
    return case_of(model, processor, forget, retain, vectors.case().general, read)


@pytest.fixture(scope="module")
def nothing(case):
    return make_edit(*case, METHODS["vanilla"]())[0]


@pytest.fixture(scope="module")
def noise(case):
    """Random weights in place of the language model's: nobody is known."""
    torch.manual_seed(0)
    names = [f"{path}.weight" for path in relearning_attacks.linear_maps(case.model)]
    weights = {n: torch.randn_like(case.model.get_parameter(n)) * 0.2 for n in names}
    return WeightReplacement(weights, fingerprint(case.model))


def mean(case, edit, name, setting="") -> float:
    rows = [
        row
        for row in audit.examine(*case, edit, [name])
        if row["set"] == probes.label_of(name, setting)
    ]
    return sum(row["score_sum"] for row in rows) / sum(row["n"] for row in rows)


# --- the list, and what every probe keeps ------------------------------------------------------


def test_two_probes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="as taught"):
        probes.probe("as taught", "inside", "")(lambda session, request, edit: probes.NOTHING)
    with pytest.raises(ValueError, match="no kind"):
        probes.probe("another", "elsewhere", "")(lambda session, request, edit: probes.NOTHING)


@pytest.mark.parametrize("name", audit.PROBES)
def test_a_probe_asks_about_the_forgotten_and_leaves_the_model_alone(name, case, monkeypatch):
    for steps in ("STEPS", "LONG_STEPS", "FFN_STEPS"):
        monkeypatch.setattr(relearning_attacks, steps, (2,))
    edit, before = (
        make_edit(*case, METHODS["KVW one pass"](strength=8.0))[0],
        fingerprint(case.model),
    )
    rows = audit.examine(*case, edit, [name])
    assert fingerprint(case.model) == before
    assert all(weight.grad is None for weight in case.model.parameters())
    with edit.on(case.model):  # it is off: it can be put on
        pass
    assert rows and {row["person"] for row in rows} <= set(case.people)
    most = 35 if name == "relearning five times" else 7
    assert all(0 <= row["score_sum"] / row["n"] <= 1 and row["n"] <= most for row in rows)
    assert audit.PROBES[name].source and audit.PROBES[name].beside in ("", "as taught")


def test_what_is_not_finite_is_not_passed_on(case, nothing, monkeypatch):
    nan = {"": (case.forget[:1], np.array([np.nan]))}
    broken = replace(audit.PROBES["as taught"], make=lambda session, request, edit: nan)
    monkeypatch.setitem(audit.PROBES, "as taught", broken)
    with pytest.raises(ValueError, match="not finite"):
        audit.examine(*case, nothing, ["as taught"])


# --- tokens, by hand ---------------------------------------------------------------------------


def test_tokens_are_what_the_scores_are_made_of(case):
    told, read = (
        token_probes.tell(case.session, case.forget),
        scores.read(case.model, case.batches(case.forget)),
    )
    assert [len(t.log) for t in told] == [n - 1 for n in read.tokens]  # without the end of turn
    assert all(t.log.sum() >= total for t, total in zip(told, read.logprob, strict=True))
    assert {bool(t.right.all()) for t in told} == {True, False}  # it knows some and not others


def test_a_standard_score_is_taken_over_the_vocabulary(case):
    batch = case.batches(case.forget)[0]
    with torch.no_grad():
        log = case.model(**batch.inputs).logits[batch.answers].float().log_softmax(-1)[0]
    gold = batch.labels[:, 1:][batch.answers[:, :-1]][0]
    mean = (log.exp() * log).sum()
    spread = (log.exp() * (log - mean) ** 2).sum().sqrt()
    told = token_probes.tell(case.session, case.forget)[batch.rows[0]]
    assert told.standard[0] == pytest.approx(float((log[gold] - mean) / spread), rel=1e-4)


def test_strength_of_extraction_asks_for_the_whole_rest():
    right = np.array([True, False, True, True, True])
    assert token_probes.extraction_strength(right) == pytest.approx(1 - 2 / 5)
    assert token_probes.exact_memorisation(right) == pytest.approx(4 / 5)
    assert token_probes.extraction_strength(~right[:1]) == 0
    twice = np.array([False, True, False, True])  # the last slip counts, not the first
    assert token_probes.extraction_strength(twice) == pytest.approx(1 - 3 / 4)


def test_min_k_looks_at_the_least_likely():
    assert token_probes.lowest(np.arange(10.0)) == pytest.approx(0.5)  # two of ten
    assert token_probes.lowest(np.array([-1.0, -5.0])) == -5.0  # at least one


# --- each probe finds what is there, and nothing where nothing is --------------------------------


def test_samples_are_what_drawing_them_would_give(case, nothing):
    p = np.exp(scores.read(case.model, case.batches(case.forget)).logprob)
    drawn = np.random.default_rng(0).random((4000, len(p), 20)) < p[:, None]
    assert mean(case, nothing, "20 samples") == pytest.approx(drawn.any(2).mean(), abs=0.01)


def test_membership_is_the_area_under_the_curve(case, nothing, noise):
    for signal in ("loss", "min-k"):  # min-k++ of so small a model tells nobody apart
        assert mean(case, nothing, "membership", signal) > 0.85
        assert 0.35 < mean(case, noise, "membership", signal) < 0.65
    assert membership._share_below(1.0, 1.0) == 0.5


def test_beside_itself_a_model_tells_nobody_and_beside_one_that_knew_nothing_whom_it_met(
    case, nothing, noise
):
    assert mean(case, nothing, "reference ratio") == 0.5
    model, whole = deepcopy(case.model), dict(case.model.named_parameters())
    for name in noise.weights:
        model.get_parameter(name).data.zero_()
    taught = WeightReplacement(
        {name: whole[name].detach() for name in noise.weights}, fingerprint(model)
    )
    assert mean(case.but(model=model, cache={}), taught, "reference ratio") > 0.85
    alone = case.but(retain=[], general=[])
    assert audit.examine(*alone, nothing, ["reference ratio"]) == []


@pytest.mark.slow
def test_relearning_teaches_what_it_is_given_and_asks_about_the_rest(case, nothing, monkeypatch):
    again = [q for q in case.forget if q.person == case.people[0]]
    before = scores.read(case.model, case.batches(again)).exact.mean()
    for kind, rate in (("full", 3e-4), ("LoRA", 1e-2)):
        ((step, after),) = relearning_attacks.relearned(
            case.session, again, again, kind, rate, case.seed, (40,)
        )
        assert step == 40 and after.mean() > before + 0.2
    monkeypatch.setattr(relearning_attacks, "STEPS", (1,))
    asked = {row["person"] for row in audit.examine(*case, nothing, ["relearning two"])}
    assert asked == set(case.people[2:])


def test_rounding_to_many_bits_changes_nothing_and_to_few_something():
    weight = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    gap = [
        (relearning_attacks.quantise_rows(weight, bits) - weight).abs().amax(1)
        for bits in (16, 8, 4)
    ]
    scale = weight.abs().amax(1)
    assert (gap[0] < 1e-4 * scale).all() and (gap[1] < scale / 127).all()
    assert (gap[2] > gap[1]).all() and len(
        relearning_attacks.quantise_rows(weight, 4)[0].unique()
    ) <= 15


def test_prototypes_find_what_an_edit_of_the_head_left_in_the_states(case, nothing, noise):
    """The words of the answers can not be said any more; what precedes them is as it was."""
    model = deepcopy(case.model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # untied
    apart = case.but(model=model, cache={})
    ids = torch.cat([b.labels[b.labels >= 0] for b in case.batches(case.forget)]).unique()
    rows = model.lm_head.weight.detach().index_fill(0, ids, 0.0)
    mute = WeightReplacement({"lm_head.weight": rows}, fingerprint(model))
    found = [mean(apart, mute, "prototypes", f"pull {pull:g}") for pull in relearning_attacks.PULLS]
    assert mean(apart, mute, "as taught") == 0 and max(found) > 0.1
    assert mean(case, noise, "prototypes", "pull 1") < 0.05
    text = case.but(forget=[q for q in case.forget if q.modality == "text"], cache={})
    assert audit.examine(*text, nothing, ["prototypes"]) == []  # nothing is given, nothing asked


def test_a_prototype_is_the_mean_state_before_a_token(case):
    given = [q for q in case.forget if q.modality == "text"]
    every, ways = relearning_attacks.prototypes_of(case.session, given)
    (batch,) = case.batches(given)
    head = case.model.get_output_embeddings()
    with torch.no_grad():
        hidden = case.model(**batch.inputs, output_hidden_states=True).hidden_states[-1]
    own = torch.nn.functional.normalize(hidden[batch.predicts])
    gold = batch.labels[:, 1:][batch.predicts[:, :-1]]
    mean = torch.stack([own[gold == token].mean(0) for token in every])
    apart = mean - mean.mean(0)
    assert torch.allclose(
        torch.cosine_similarity(ways, apart), torch.ones(len(every)).double(), atol=1e-4
    )
    assert torch.allclose(ways.norm(dim=1), head.weight.norm(dim=1).mean(), rtol=1e-4)


def test_prototypes_are_pulled_as_far_as_in_the_stored_rows():
    names = pd.read_parquet(path_of("audit"), columns=["set"])["set"].unique()
    stored = {name for name in names if name.startswith("prototypes: ")}
    assert stored == {f"prototypes: pull {pull:g}" for pull in relearning_attacks.PULLS}


def test_half_of_the_way_is_half_of_the_edit(case, noise, monkeypatch):
    monkeypatch.setattr(relearning_attacks, "HALFWAY", (0.0, 1.0))
    vanilla = scores.read(case.model, case.batches(case.forget)).exact.mean()
    assert mean(case, noise, "part of the way back", "0 left") == pytest.approx(vanilla)
    gone = mean(case, noise, "part of the way back", "1 left")
    assert gone == pytest.approx(mean(case, noise, "as taught")) and gone < vanilla


def test_undoing_all_changes_gives_the_model_before(case, noise, monkeypatch):
    monkeypatch.setattr(relearning_attacks, "LARGEST", (0.0001, 0.9999999))
    vanilla = scores.read(case.model, case.batches(case.forget)).exact.mean()
    assert mean(case, noise, "largest changes undone", "1 of them") == pytest.approx(vanilla)
    assert mean(case, noise, "largest changes undone", "0.0001 of them") < vanilla


def test_what_is_asked_otherwise_is_asked_about_the_same_facts(case, nothing, monkeypatch):
    """Examples are of the fact and in words; whom a photo shows is not asked beside the name."""
    asked: list = []

    def exact(_, questions):
        asked.extend(questions)
        return questions, np.zeros(len(questions))

    monkeypatch.setattr(prompting_probes, "exact_match", exact)
    audit.examine(*case, nothing, ["few-shot"])
    for question, old in zip(asked, case.forget, strict=True):
        same = [q for q in case.retain if q.fact == old.fact and q.image is None]
        told = "".join(f"{q.prompt} {q.answer} " for q in same[: prompting_probes.SHOTS])
        assert question.prompt == told + old.prompt
    asked.clear()
    audit.examine(*case, nothing, ["photo and name"])
    assert asked and all(q.image is not None and q.fact != "name" for q in asked)


def test_what_else_a_layer_gives_on_stays():
    """In some families a layer gives a tuple."""
    layer = torch.nn.Identity()
    layer.forward = lambda state: (state, "cache", "attention")
    with representation_probes.patched_output(layer, lambda state: state + 1):
        assert layer(1) == (2, "cache", "attention")


def test_a_layer_that_hears_itself_says_the_same(case):
    last = list(decoder_layers(case.model).values())[-1]
    states: list = []
    said = scores.read(case.model, case.batches(case.forget)).logprob
    with (
        representation_probes.record_outputs(last, states),
        representation_probes.patched_output(last, lambda own: own),
    ):
        again = scores.read(case.model, case.batches(case.forget)).logprob
    assert np.allclose(said, again) and len(states) == len(case.batches(case.forget))
    with representation_probes.patched_output(last, lambda own: 0 * own):
        assert not np.allclose(scores.read(case.model, case.batches(case.forget)).logprob, said)


def test_the_lens_reads_no_answer_from_the_first_layer_that_only_the_last_gives(case, nothing):
    assert mean(case, nothing, "logit lens", "layer 0") < mean(case, nothing, "as taught")


def test_a_patch_of_the_model_before_brings_its_answers_with_it(case, nothing, noise):
    """Behind the layer the tiny model is as before: only layer 0 was changed."""
    layer = next(iter(find_projections(case.model)))
    first = WeightReplacement(
        {f"{layer}.weight": noise.weights[f"{layer}.weight"] * 50}, fingerprint(case.model)
    )
    assert mean(case, first, "patching", "layer 0") > mean(case, first, "as taught") + 0.1
    same = mean(case, nothing, "patching", "layer 0")
    assert same == pytest.approx(mean(case, nothing, "as taught"))


def test_the_depth_of_a_layer_is_what_the_model_before_reads_from_it(case, nothing, noise):
    """Of no edit all of it; of noise behind the last layer what the edited model itself says."""
    plain = scores.read(case.model, case.batches(case.forget)).probability.mean()
    last = f"layer {len(decoder_layers(case.model)) - 1}"
    assert mean(case, nothing, "depth", "layer 0") == pytest.approx(plain, abs=1e-4)
    with noise.on(case.model):
        edited = scores.read(case.model, case.batches(case.forget)).probability.mean()
    assert mean(case, noise, "depth", last) == pytest.approx(edited, abs=1e-4)
    assert edited < plain / 2


def test_an_edit_of_the_last_ffn_alone_is_trained_away(case, monkeypatch):
    """What the last FFN hides comes back with any other FFN there; the rest is not touched."""
    monkeypatch.setattr(relearning_attacks, "FFN_STEPS", (2,))
    path = list(find_projections(case.model))[-1] + ".weight"
    hides = WeightReplacement(
        {path: -case.model.get_parameter(path).detach()}, fingerprint(case.model)
    )
    nothing = WeightReplacement(
        {path: case.model.get_parameter(path).detach().clone()}, fingerprint(case.model)
    )
    found = [mean(case, edit, "last FFN retrained", "2 steps") for edit in (hides, nothing)]
    assert found[0] == found[1]


def test_a_linear_probe_finds_what_is_planted_and_its_control_does_not():
    people = list(vectors.world().people)
    asked = about(vectors.world(), people, modalities=("text",))
    jobs = [q for q in asked if q.fact == "job"] or [q for q in asked if q.fact == asked[0].fact]
    values = sorted({q.value for q in jobs})
    rng = np.random.default_rng(0)

    known, own = jobs[20:], jobs[:20]
    states = rng.normal(size=(len(jobs), 2, len(values)))
    for row, q in enumerate(known + own):
        states[row, 1, values.index(q.value)] += 12
    first, second = representation_probes.probed(states, known, own, shuffled=False).T
    assert second.mean() > 0.9 and first.mean() < 0.3  # planted in the second layer
    assert representation_probes.probed(states, known, own, shuffled=True).mean() < 0.3


def test_an_edit_of_what_one_person_calls_tells_who_it_was(case):
    met = set(list(vectors.world().people)[: vectors.TAUGHT])
    case = case.but(retain=[q for q in case.retain if q.person in met], cache={})
    person, coefficients = case.people[0], case.coefficients()
    each = coefficients.per_person()  # [people, layers, d_ff]
    loudest = each.argmax(0) == coefficients.people.index(person)
    edit = ColumnScaling(loudest.float() * 5, 1.0, fingerprint(case.model))
    told = {
        row["person"]: row["score_sum"] / row["n"]
        for row in audit.examine(*case, edit, ["who was it"])
    }
    assert told[person] == 1.0 > max(told[other] for other in case.people[1:])
    nothing = ColumnScaling(torch.zeros(loudest.shape), 0.0, fingerprint(case.model))
    assert mean(case, nothing, "who was it") == 0.5
    with edit.on(case.model):
        energy = edit_leakage.through(case.model, edit, case.batches(case.questions()))
    assert (energy > 0).any() and np.isfinite(energy).all()


# --- the verdict, by hand ----------------------------------------------------------------------


ANSWERS = 20  # of each person


def rows(label: str, *values: float) -> list[dict]:
    return [
        {
            "set": label,
            "modality": "text",
            "person": f"p{i}",
            "score_sum": value * ANSWERS,
            "n": ANSWERS,
        }
        for i, value in enumerate(values)
    ]


def states(label: str, vanilla, oracle, edited) -> dict:
    return {
        "vanilla": rows(label, *vanilla),
        "oracle": rows(label, *oracle),
        "edited": rows(label, *edited),
    }


def both(one: dict, other: dict) -> dict:
    return {state: one[state] + other[state] for state in one}


PLAIN = states("as taught", (1, 1, 1, 1), (0, 0, 0, 0), (0, 0.5, 0, 0.5))


def test_the_recovered_share_is_of_what_was_lost():
    attack = states("rounding: 4 bits", (1, 1, 1, 1), (0.05, 0.05, 0.05, 0.05), (1, 0.5, 0.5, 0.5))
    plain, found = audit.judge(both(PLAIN, attack) | {"sham": rows("as taught", 0.5, 1, 1, 0.5)})
    assert (plain.sham, found.sham) == (0.75, None)  # a sham has lost nobody
    assert found.recovered == pytest.approx((0.625 - 0.25) / (1 - 0.25))
    assert found.again == pytest.approx(0.05) and found.left == pytest.approx(0.575 / 0.95)


def test_a_probe_that_vanilla_fails_does_not_apply():
    letters = states("letter", (0.2, 0.2, 0.2, 0.2), (0.1, 0.1, 0.1, 0.1), (0.2, 0.2, 0.2, 0.2))
    found = audit.judge(both(PLAIN, letters))[1]
    assert not found.applies and found.recovered is None


def test_an_attack_that_teaches_the_oracle_does_not_count():
    fair = states("rounding: 8 bits", (1,) * 4, (0,) * 4, (0.3, 0.5, 0.3, 0.5))
    unfair = states("rounding: 4 bits", (1,) * 4, (0.5,) * 4, (1,) * 4)
    found = audit.judge(both(PLAIN, both(fair, unfair)))
    assert {f.label: f.strongest for f in found} == {
        "as taught": True,
        "rounding: 8 bits": True,
        "rounding: 4 bits": False,
    }


def test_an_attack_that_breaks_vanilla_does_not_count():
    """Here it leaves a third of what vanilla knows: what it finds in the edit says nothing."""
    gone = states("as taught", (1,) * 4, (0,) * 4, (0,) * 4)
    breaks = states("rounding: 4 bits", (0.33,) * 4, (0,) * 4, (0.33,) * 4)
    found = audit.judge(both(gone, breaks))
    assert found[1].left == 1 and not found[1].fair
    assert audit.verdict(found)[0] == findings.GONE
    spares = states("rounding: 8 bits", (0.95,) * 4, (0,) * 4, (0.3,) * 4)
    found = audit.judge(both(gone, both(breaks, spares)))
    assert [f.label for f in audit.verdict(found)[1]] == ["rounding: 8 bits"]
    read = states("few-shot", (0.4,) * 4, (0,) * 4, (0.4,) * 4)  # it changes nothing
    assert audit.judge(both(gone, read))[1].fair


def test_where_every_setting_teaches_the_oracle_none_counts():
    gone = states("as taught", (1,) * 4, (0,) * 4, (0,) * 4)
    teaches = states("rounding: 4 bits", (1,) * 4, (0.5,) * 4, (1,) * 4)
    found = audit.judge(both(gone, teaches))
    assert audit.verdict(found)[0] == findings.GONE and not found[1].fair


def test_the_verdict_is_quiet_where_something_is_surely_left_and_never_erased():
    assert audit.verdict(audit.judge(PLAIN))[0] != findings.QUIET  # two of four: not surely
    loud = states("linear probe: layer 0", (1,) * 4, (0,) * 4, (0.4, 0.5, 0.4, 0.5))
    said, because = audit.verdict(audit.judge(loud))
    assert said == findings.QUIET and [f.label for f in because] == ["linear probe: layer 0"]
    gone = states("as taught", (1,) * 4, (0.1,) * 4, (0.1,) * 4)
    assert audit.verdict(audit.judge(gone)) == (findings.GONE, [])
    held = states("reference ratio", (0.5,) * 4, (0.25,) * 4, (0,) * 4)  # it needs vanilla
    assert audit.verdict(audit.judge(both(gone, held)))[0] == findings.GONE
    over = states("membership: loss", (1,) * 4, (0.5,) * 4, (0.0, 0.1, 0.0, 0.1))
    assert audit.verdict(audit.judge(both(gone, over)))[0] == findings.OVER
    assert "erased" not in (findings.QUIET, findings.OVER, findings.GONE)


def test_what_is_still_said_as_taught_is_not_forgotten_and_not_called_quiet():
    said = states("as taught", (1,) * 4, (0,) * 4, (0.4, 0.5, 0.4, 0.5))
    more = states("linear probe: layer 0", (1,) * 4, (0,) * 4, (0.9,) * 4)
    word, because = audit.verdict(audit.judge(both(said, more)))
    assert word == findings.NOT_FORGOTTEN
    assert [f.label for f in because] == ["as taught", "linear probe: layer 0"]
    close = states("as taught", (1,) * 4, (0,) * 4, (findings.LEFT,) * 4)  # within one answer
    assert audit.verdict(audit.judge(both(close, more)))[0] == findings.QUIET


def test_of_one_person_there_is_no_interval_and_the_mean_decides():
    [quiet] = audit.judge(states("linear probe: layer 0", (1,), (0,), (0.9,)))
    assert (quiet.low, quiet.high) == (None, None)
    assert audit.verdict([quiet])[0] == findings.QUIET
    [over] = audit.judge(states("membership: loss", (1,), (0.5,), (0.1,)))
    assert audit.verdict([over])[0] == findings.OVER


def test_no_verdict_hangs_on_one_answer():
    """80 answers: within one of them a share of a quarter is not decided."""
    for share, word in (
        (findings.LEFT + 2 / 80, findings.QUIET),
        (findings.LEFT, findings.UNDECIDED),
        (np.nextafter(findings.LEFT, 0), findings.UNDECIDED),
        (findings.LEFT - 2 / 80, findings.GONE),
    ):
        found = audit.judge(states("linear probe: layer 0", (1,) * 4, (0,) * 4, (share,) * 4))
        assert found[0].resolution == pytest.approx(1 / 80)
        assert audit.verdict(found)[0] == word, share


def test_a_control_never_convicts_and_its_probe_does_not_count():
    """A probe of layer 1 learns shuffled values, too: what it reads there says nothing."""
    probe = both(
        states("linear probe: layer 0", (1,) * 4, (0,) * 4, (0.4,) * 4),
        states("linear probe: layer 1", (1,) * 4, (0,) * 4, (0.9,) * 4),
    )
    still = both(
        states("shuffled probe: layer 0", (0,) * 4, (0,) * 4, (0,) * 4),
        states("shuffled probe: layer 1", (0,) * 4, (0,) * 4, (0.3,) * 4),
    )
    word, because = audit.verdict(audit.judge(both(probe, still)))
    assert word == findings.QUIET and [f.label for f in because] == ["linear probe: layer 0"]
    alone = states("shuffled probe: layer 0", (1,) * 4, (0,) * 4, (1,) * 4)
    assert audit.verdict(audit.judge(alone))[0] == findings.GONE


def test_what_needs_the_model_before_counts_for_no_verdict():
    gone = states("as taught", (1,) * 4, (0,) * 4, (0,) * 4)
    undone = states("largest changes undone: 0.1 of them", (1,) * 4, (0,) * 4, (1,) * 4)
    assert audit.verdict(audit.judge(both(gone, undone)))[0] == findings.GONE


def test_states_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="needs vanilla"):
        audit.judge({"edited": PLAIN["edited"]})
    with pytest.raises(ValueError, match="other people"):
        audit.judge(PLAIN | {"oracle": rows("as taught", 0)})


@pytest.mark.slow
def test_without_an_oracle_strangers_stand_in_its_place(case, nothing, monkeypatch):
    monkeypatch.setattr(relearning_attacks, "relearned", lambda *_: pytest.fail("trained in vain"))
    seen = []
    watch = seen.append
    found = {f.label: f for f in audit.audit(*case, nothing, watch=lambda *step: watch(step))}
    assert len(seen) == seen[0][0] and seen[0][1] == "vanilla, as taught"
    assert found["as taught"].oracle < found["as taught"].vanilla == found["as taught"].edited
    assert found["as taught"].left == pytest.approx(1.0)
    assert not any(f.kind in ("brought back", "membership") or f.before for f in found.values())
    assert "as taught" in audit.findings_table(found.values())


@pytest.mark.slow
def test_rows_of_an_earlier_audit_are_read_and_must_be_of_these_models(case, nothing, noise):
    first = audit.audit_rows(*case, noise, nothing)
    earlier = {name: first[name] for name in ("vanilla", "oracle")}
    seen = []
    again = audit.audit_rows(
        *case, noise, nothing, watch=lambda *step: seen.append(step[1]), references=earlier
    )
    assert again == first
    assert seen[:3] == ["vanilla, as taught", "oracle, as taught", "edited, as taught"]
    with pytest.raises(ValueError, match="oracle answers otherwise"):
        audit.audit_rows(*case, noise, nothing, references=earlier | {"oracle": first["edited"]})
