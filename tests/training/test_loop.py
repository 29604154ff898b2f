import csv
import importlib.util

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_training import tiny_config as _config
from tiny_training import tiny_loss as _loss
from tiny_training import tiny_network as _network
from torch import nn

from deft_ct.training import CHECKPOINT, ema_weights, fit, item_order
from deft_ct.training.checkpoint import State, training_key
from deft_ct.training.ema import averaged_model


def _log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _fit(folder, **changes):
    return fit(_network(), _loss, 10, _config(**changes), folder, identity={}, progress=False)


def test_training_lowers_the_loss(tmp_path):
    _fit(tmp_path, steps=300)
    rows = _log(tmp_path)
    assert float(rows[-1]["loss"]) < 0.2 * float(rows[0]["loss"])


def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(tmp_path, monkeypatch):
    whole = _fit(tmp_path / "whole").state_dict()

    class KilledError(Exception):
        pass

    calls = 0

    def dying(network, indices, generator):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KilledError
        return _loss(network, indices, generator)

    with pytest.raises(KilledError):
        fit(_network(), dying, 10, _config(checkpoint_minutes=1e-9), tmp_path / "broken", identity={}, progress=False)
    resumed = _fit(tmp_path / "broken").state_dict()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    assert torch.equal(ema_weights(tmp_path / "broken")["0.weight"], whole["0.weight"])
    steps = [int(row["step"]) for row in _log(tmp_path / "broken")]
    assert steps == [4, 8, 12, 16, 20, 24]


def test_the_average_follows_its_ramped_decay(tmp_path):
    network, seen = _network(), []

    def watched(net, indices, generator):
        seen.append(network[0].weight.detach().clone())
        return _loss(net, indices, generator)

    averaged = fit(network, watched, 10, _config(ema_decay=0.6), tmp_path, identity={}, progress=False)
    expected = seen[0]
    for step, weight in enumerate([*seen[1:], network[0].weight.detach()]):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged[0].weight, expected, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_of_an_older_version_is_refused(tmp_path):
    _fit(tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["key"]
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="older version"):
        _fit(tmp_path)


def test_a_time_limit_stops_with_a_checkpoint(tmp_path):
    _fit(tmp_path, max_minutes=1e-9)
    _fit(tmp_path)
    whole = _fit(tmp_path / "whole").state_dict()
    assert torch.equal(ema_weights(tmp_path)["2.weight"], whole["2.weight"])


def test_accumulation_changes_memory_not_the_items(tmp_path):
    def deterministic(network, indices, generator):
        return network(indices[:, None].float().expand(-1, 4) / 10).square().mean()

    one = fit(_network(), deterministic, 10, _config(), tmp_path / "one", identity={}, progress=False).state_dict()
    two = fit(
        _network(), deterministic, 10, _config(accumulate=2), tmp_path / "two", identity={}, progress=False
    ).state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)


def test_memory_format_does_not_change_what_is_learned(tmp_path):
    def convolution():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3)

    def loss(network, indices, generator):
        return network(torch.randn(len(indices), 3, 8, 8, generator=generator)).square().mean()

    plain = fit(convolution(), loss, 10, _config(), tmp_path / "plain", identity={}, progress=False)
    last = fit(convolution(), loss, 10, _config(channels_last=True), tmp_path / "last", identity={}, progress=False)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.weight, plain.weight, rtol=1e-4, atol=1e-6)


def test_another_training_does_not_resume(tmp_path):
    def train(**identity):
        return fit(_network(), _loss, 10, _config(), tmp_path, identity=identity, progress=False)

    first = train(prior="a", scans=[1, 2]).state_dict()
    again = train(scans=[1, 2], prior="a").state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    with pytest.raises(ValueError, match="was started with prior 'a' and this run has prior 'b': use prior 'a' to"):
        train(prior="b", scans=[1, 2])


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"grad_clip": 0.5}, {"precision": "bfloat16"}])
def test_what_enters_the_weights_may_not_change_on_resuming(tmp_path, changes):
    _fit(tmp_path)
    if "precision" in changes:
        AcceleratorState._reset_state(reset_partial_state=True)  # it knows one precision a process
    with pytest.raises(ValueError, match=f"was started with .*{next(iter(changes))}"):
        _fit(tmp_path, **changes)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_another_configuration_does_not_resume(tmp_path):
    _fit(tmp_path)
    with pytest.raises(ValueError, match=r"was started with learning_rate 0\.01 and this run has learning_rate 0\.02:"):
        _fit(tmp_path, learning_rate=2e-2)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit(
            _network(),
            lambda n, i, g: _loss(n, i, g) * float("nan"),
            10,
            _config(),
            tmp_path,
            identity={},
            progress=False,
        )


def test_out_of_memory_says_what_to_change(tmp_path):
    def hungry(network, indices, generator):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="raise `accumulate`, or lower `batch_size`"):
        fit(_network(), hungry, 10, _config(), tmp_path, identity={}, progress=False)


def test_every_pass_takes_each_item_once():
    taken = torch.cat([item_order(10, 4, step, seed=3) for step in range(5)])
    assert sorted(taken[:10].tolist()) == list(range(10))
    assert sorted(taken[10:].tolist()) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()


@pytest.fixture
def bfloat16():
    AcceleratorState._reset_state(reset_partial_state=True)  # it knows one precision a process
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("bfloat16")
def test_mixed_precision_resumes_exactly(tmp_path):
    whole = _fit(tmp_path / "whole", precision="bfloat16").state_dict()
    _fit(tmp_path / "broken", precision="bfloat16", max_minutes=1e-9)
    assert torch.load(tmp_path / "broken" / CHECKPOINT, weights_only=True)["step"] == 1
    resumed = _fit(tmp_path / "broken", precision="bfloat16").state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    AcceleratorState._reset_state(reset_partial_state=True)
    full = _fit(tmp_path / "full").state_dict()
    difference = (full["0.weight"] - whole["0.weight"]).abs().max()
    assert 0 < difference < 0.1


def _state(**changes):
    network = _network()
    usual = {
        "network": network, "optimizer": torch.optim.AdamW(network.parameters()),
        "averaged": averaged_model(network, 0.9),
        "key": training_key(_config(), 1, {}),
    }  # fmt: skip
    return State(**usual | changes)


def test_the_scale_of_float16_gradients_is_kept(tmp_path):
    """It follows the gradients of all steps before; 65536 again would skip steps that the unbroken run took."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for factor in (1.0, 1.0, 1.0, float("inf"), 1.0):  # grows once, then halves: 8, 16, 8, with one good step since
        scaler.scale((factor * weight).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() == 8.0
    before = scaler.state_dict()
    _state(scaler=scaler).save(tmp_path / CHECKPOINT, 5)
    fresh = torch.amp.GradScaler("cpu", growth_interval=3)
    assert _state(scaler=fresh).resume(tmp_path / CHECKPOINT) == 5
    assert fresh.state_dict() == before and before["_growth_tracker"] == 1


@pytest.mark.gpu
def test_float16_resumes_exactly(tmp_path):
    def loss(network, indices, generator):
        x = torch.randn(len(indices), 4, generator=generator, device=generator.device)
        return (network(x).float() - x.sum(1, keepdim=True)).square().mean()

    AcceleratorState._reset_state(reset_partial_state=True)
    config = _config(precision="float16")
    whole = fit(_network(), loss, 10, config, tmp_path / "whole", identity={}, progress=False).state_dict()
    short = _config(precision="float16", max_minutes=1e-9)
    fit(_network(), loss, 10, short, tmp_path / "broken", identity={}, progress=False)
    resumed = fit(_network(), loss, 10, config, tmp_path / "broken", identity={}, progress=False).state_dict()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_tensorboard_events_say_what_the_log_says(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def train(loss=_loss, **changes):
        config = _config(tensorboard=True, **changes)
        fit(_network(), loss, 10, config, tmp_path, identity={}, progress=False)

    calls = 0

    def dying(network, indices, generator):
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return _loss(network, indices, generator)

    train(max_minutes=1e-9)  # stops after a step
    with pytest.raises(KeyboardInterrupt):
        train(dying)  # its events of steps 4, 8 and 12 come after the last checkpoint
    train()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"training/loss", "training/rate"}
    rows = _log(tmp_path)
    for tag, column in (("training/loss", "loss"), ("training/rate", "rate")):
        seen = events.Scalars(tag)
        assert [event.step for event in seen] == [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20, 24]
        assert [event.value for event in seen] == pytest.approx([float(row[column]) for row in rows], rel=1e-3)


def test_a_missing_tensorboard_is_named_before_any_work(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("deft_ct.training.config.find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert _config().tensorboard is False
    with pytest.raises(ImportError, match=r"pip install deft-ct\[tensorboard\]"):
        _config(tensorboard=True)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"learning_rate": 0}, {"ema_decay": 1.0}, {"accumulate": 3}, {"precision": "fp8"}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError):
        _config(**bad)
