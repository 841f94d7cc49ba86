"""One loop trains everything: it does what it says, can be stopped anywhere, and refuses well."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kvw_experiments.recipes import training

SETTINGS = {"steps": 7, "rate": 0.05, "seed": 3}


def network(width: int = 3, seed: int = 0) -> torch.nn.Module:
    """Two layers; the second is frozen."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 2))
    net[1].requires_grad_(False)
    return net


def losses_of(net):
    def losses(step: int, rng: np.random.Generator):
        for _ in range(2):
            x = torch.from_numpy(rng.normal(size=(5, 4))).float()
            yield 20 * (1 + step) * net(x).pow(2).mean()

    return losses


def taught(path=None, settings=SETTINGS, seed: int = 0, **more) -> tuple[torch.nn.Module, dict]:
    net = network(seed=seed)
    cost = training.fit(net, losses_of(net), settings, name="net", checkpoint=path, every=2, **more)
    return net, cost


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(t, other.state_dict()[name]) for name, t in one.state_dict().items())


def stopped(path, monkeypatch, after: int) -> None:
    """As if the power went out after a checkpoint."""
    real = training.save_checkpoint

    def save_and_stop(file, step, *rest):
        real(file, step, *rest)
        if step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            taught(path)


@pytest.mark.parametrize("clip", [1.0, 0.1, None])
def test_the_loop_is_plain_adamw_with_one_cycle(clip):
    """To the byte: gradients of a step add up, are clipped together and forgotten afterwards."""
    found, cost = taught(decay=0.2, betas=(0.8, 0.95), clip=clip)
    assert cost == {"steps": 7} and not found.training
    net, draw = network(), np.random.default_rng
    first = network()
    optimizer = torch.optim.AdamW(net[0].parameters(), 0.05, (0.8, 0.95), weight_decay=0.2)
    for step in range(7):
        optimizer.param_groups[0]["lr"] = training.one_cycle(step, 7, 0.05)
        optimizer.zero_grad()
        for loss in losses_of(net)(step, draw([3, step])):
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip or float("inf"))
        assert clip is None or norm > clip  # else a loop that does not clip would pass
        optimizer.step()
    assert same(found, net)
    assert not torch.equal(found[0].weight, first[0].weight)
    assert torch.equal(found[1].weight, first[1].weight)  # frozen


def test_the_rate_rises_for_a_tenth_and_then_falls_to_zero():
    rates = [training.one_cycle(step, 100, 2.0) for step in range(101)]
    assert rates[0] == 0.2 and rates[9] == rates[10] == 2.0 == max(rates)
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("after", [2, 4, 6])
def test_training_that_was_stopped_ends_at_the_same_bytes(tmp_path, monkeypatch, after):
    whole, _ = taught()
    path = tmp_path / "deep" / "net.safetensors"
    stopped(path, monkeypatch, after)
    again, cost = taught(path)
    assert cost == {"steps": 7 - after} and same(whole, again)
    assert not [each for each in path.parent.iterdir() if each != path]  # nothing half-written


def test_a_checkpoint_wins_over_first_weights(tmp_path, monkeypatch):
    path = tmp_path / "net"
    stopped(path, monkeypatch, 4)
    net = network(seed=9)
    net[1].load_state_dict(network()[1].state_dict())
    training.fit(net, losses_of(net), SETTINGS, name="net", checkpoint=path)
    assert same(net, taught()[0])


@pytest.mark.parametrize("change", [{"steps": 8}, {"rate": 0.06}, {"seed": 4}, {"more": 1}])
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, change):
    taught(tmp_path / "net")
    with pytest.raises(ValueError, match="other settings; delete it"):
        taught(tmp_path / "net", SETTINGS | change)


@pytest.mark.parametrize("changed", [{"step": "7"}, {"step": "5000"}, {"step": "none"}])
def test_what_a_checkpoint_says_of_itself_is_covered_by_its_checksum(tmp_path, changed):
    """Else a training would stop before it has begun, and look whole."""
    path = tmp_path / "net"
    taught(path)
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    save_file(tensors, path, metadata=metadata | changed)
    with pytest.raises(ValueError, match="damaged.*; delete it"):
        taught(path)


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: c[:40], lambda c: b"", lambda c: b"\0" * 99, flipped]
)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "net"
    taught(path)
    path.write_bytes(damage(path.read_bytes()))
    net = network()
    with pytest.raises(ValueError, match=r"net is .*damaged.* delete it"):
        training.fit(net, losses_of(net), SETTINGS, name="net", checkpoint=path)
    assert same(net, network())


def test_a_checkpoint_holds_what_is_trained_and_no_more(tmp_path):
    taught(tmp_path / "net")
    names = {name for name in load_file(tmp_path / "net") if name.startswith("model/")}
    assert names == {"model/0.weight", "model/0.bias"}


def test_every_token_must_tell():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 3, -100])
    told = [torch.log_softmax(logits[i], -1)[:, labels[i]] for i in (0, 1)]
    torch.testing.assert_close(training.token_loss(logits, labels), -torch.cat(told).mean())
    heads = [lambda tokens: tokens, lambda tokens: -tokens]
    both = torch.stack([labels, labels], 1)
    mean = (training.token_loss(logits, labels) + training.token_loss(-logits, labels)) / 2
    torch.testing.assert_close(training.attribute_loss(heads, logits, both), mean)


def test_what_is_kept_is_bfloat16_and_what_is_amplified_says_more():
    net = torch.nn.Linear(2, 3)
    old = net(torch.ones(1, 2))
    training.amplify(net, torch.tensor(2.0))
    torch.testing.assert_close(net(torch.ones(1, 2)), 2 * old)
    kept = training.stored({"weight": net.weight.T})
    assert kept["weight"].dtype == torch.bfloat16 and kept["weight"].is_contiguous()
