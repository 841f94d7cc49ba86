"""The kin of the layerwise rewrite: each differs from it by the one choice that it names."""

import pytest
import tiny
import torch
from case import Case, case_of

from kvw_experiments import kin
from kvw_minimal.method import method_of
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import about, general

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def case() -> Case:
    world = load_people()
    first, second, *others = (about(world, [person])[:8] for person in list(world.people)[:5])
    model = tiny.llava()
    return case_of(model, tiny.processor(), first + second, sum(others, []), general(world)[:9])


def test_everybody_moves_to_one_stranger(case):
    (questions,) = method_of("one stranger").substituted(case.request)
    assert len({q.person for q in questions}) == 2
    assert len({q.image for q in questions if q.image is not None}) == 1
    assert len({q.name.split()[0] for q in questions if q.image is None}) == 1


def test_the_target_is_the_mean_over_the_retained_people_that_are_drawn(case, monkeypatch):
    method = method_of("mean of retained people", {"others": 2})
    object.__setattr__(method, "subject_threshold", -2.0)  # every token of an answer counts
    (_, mean), _ = method.targets(*case)
    single = list[torch.Tensor]()
    for draw in (0, 1):
        monkeypatch.setattr(kin.MeanOfRetained, "choose", lambda self, draws, draw=draw: [draw])
        single.append(method.targets(*case)[0][1])
    assert torch.allclose(mean, sum(single) / 2, atol=1e-5)
    assert not torch.allclose(*single, atol=1e-3)


def test_the_null_space_takes_what_is_free_and_leaves_the_rest():
    method = method_of("null space", {"threshold": 1e-2})
    generator = torch.Generator().manual_seed(0)
    used, key = torch.randn(12, 40, generator=generator), torch.randn(1, 40, generator=generator)
    used, key = used.double(), key.double()
    wanted = torch.randn(6, 1, generator=generator).double()  # d of the one position
    change = method.change(key.T @ key, wanted @ key, used.T @ used / 12)
    assert float((change @ used.T).abs().max()) < 1e-9  # what the others use is as it was
    outside = key - key @ torch.linalg.pinv(used) @ used  # the part of the key that is free
    assert torch.allclose(change @ outside.T, wanted, rtol=0.05)


def test_the_trained_step_says_the_target(case):
    """The step behind the last layer raises the target token above what was said."""
    method = method_of("target by gradient", {"steps": 40, "decay": 0.0})
    (batch,) = case.batches(case.forget[:1], 1)
    where = batch.predicts
    target = torch.full((int(where.sum()),), 7)
    states = torch.zeros(len(target), case.model.config.text_config.hidden_size)
    step = method.step_to(case.model, batch, where, target, states + 1)
    layer = list(kin.decoder_layers(case.model).values())[-1]

    def add(_, __, output):
        state = kin.hidden_state(output).clone()
        state[where] += step
        return (state, *output[1:]) if isinstance(output, tuple) else state

    with torch.no_grad():
        before = case.model(**batch.inputs).logits[where].softmax(-1)[:, 7]
        hook = layer.register_forward_hook(add)
        after = case.model(**batch.inputs).logits[where].softmax(-1)[:, 7]
        hook.remove()
    assert (after > before).all()
