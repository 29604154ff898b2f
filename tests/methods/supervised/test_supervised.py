"""The trained methods: they beat FBP after a tiny training, resume, survive storage, and do not mind the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny import NETWORK, SIZE, tiny_scan, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.registry import load_reconstructor, methods
from deft_ct.methods.supervised import ConditionalShape, FBPUNetShape, I2SBShape, PrimalDualShape, TrainedModel
from deft_ct.methods.supervised.conditional import ConditionalModel
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel
from deft_ct.methods.supervised.i2sb import Bridge, I2SBModel
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.methods.supervised.train import train_model
from deft_ct.operators.ct import FanGeometry, RayTransform
from deft_ct.training import TrainingConfig

PIXEL_MM = 8.0
STEPS = {"fbp_unet": 150, "learned_primal_dual": 100, "conditional": 350, "i2sb": 200}
SHAPES = {
    "fbp_unet": (FBPUNetModel, FBPUNetShape(network=NETWORK, spread=0.3)),
    "learned_primal_dual": (PrimalDualModel, PrimalDualShape(iterations=3, channels=8, memory=3, spread=0.3)),
    "conditional": (ConditionalModel, ConditionalShape(network=NETWORK, spread=0.3)),
    "i2sb": (I2SBModel, I2SBShape(network=NETWORK)),
}
NAMES = sorted(SHAPES)
FEW = {"conditional": {"steps": 6}, "i2sb": {"steps": 4}}


class Slices:
    """The discs of ``tiny_slices`` in HU."""

    pixel_mm = np.full(12, PIXEL_MM)

    def __init__(self) -> None:
        self.hu = HounsfieldScale().to_hu(tiny_slices(12))

    def __len__(self) -> int:
        return len(self.hu)

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        return self.hu[indices]


def pairs() -> SlicePairs:
    return SlicePairs(Slices(), [tiny_scan(pixel_mm=1.0)], PriorRange(), refine=1)


def train(name: str, folder: Path, steps: int, **changes: object) -> TrainedModel:
    model_type, shape = SHAPES[name]
    settings = {"batch_size": 4, "learning_rate": 2e-3, "warmup": 5, "ema_decay": 0.95, "steps": steps} | changes
    return train_model(model_type, shape, pairs(), folder, training=TrainingConfig(**settings), progress=False)


def untrained(name: str) -> TrainedModel:
    """Random weights everywhere, so that every input matters."""
    torch.manual_seed(3)
    model_type, shape = SHAPES[name]
    model = model_type(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < 0.01:  # last layers start at or near zero
                parameter.normal_(0, 0.1 if name == "learned_primal_dual" else 0.03)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "conditional" else name for name in NAMES]
)
def test_training_lowers_the_error_below_fbp(name: str, tmp_path: Path) -> None:
    model = train(name, tmp_path, STEPS[name], learning_rate=3e-3)
    scan, x = tiny_scan(pixel_mm=PIXEL_MM), tiny_slices(4)
    y = scan.simulate(x, seed=9)
    fbp = load_reconstructor("fbp").reconstruct(y, scan).mean
    solver = load_reconstructor(name, model=model, **FEW.get(name, {}))
    result = solver.reconstruct(y, scan, num_samples=4)
    error, before = float((result.mean - x).norm()), float((fbp - x).norm())
    assert error < 0.9 * before, f"{error / before:.3f} of the error of FBP"
    assert result.provenance["model_sha256"] == model.content_hash()
    expected = {"conditional": 24, "i2sb": 16}.get(name, 1)
    assert result.provenance["network_evaluations_per_image"] == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_training_resumes_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = train(name, tmp_path / "whole", 4).state_dict()
    train(name, tmp_path / "parts", 4, max_minutes=1e-9)  # stops after one step
    resumed = train(name, tmp_path / "parts", 4).state_dict()
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key


def test_a_training_goes_on_from_a_model(tmp_path: Path) -> None:
    model_type, shape = SHAPES["fbp_unet"]
    first, still = untrained("fbp_unet"), TrainingConfig(steps=1, batch_size=4, learning_rate=1e-10, warmup=0)
    made = train_model(model_type, shape, pairs(), tmp_path, training=still, initial=first, progress=False)
    assert all(torch.allclose(value, first.state_dict()[key], atol=1e-9) for key, value in made.state_dict().items())
    with pytest.raises(ValueError, match=r"was started with initial [0-9a-f]{12} and this run has no initial"):
        train_model(model_type, shape, pairs(), tmp_path, training=still, progress=False)
    with pytest.raises(ValueError, match="the initial model has another shape or value range"):
        other = FBPUNetShape(network=NETWORK, reference="tv")
        train_model(model_type, other, pairs(), tmp_path, training=still, initial=first, progress=False)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps the precision of the first training of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_trains(name: str, tmp_path: Path) -> None:
    model = train(name, tmp_path, 2, precision="bfloat16")
    assert all(bool(value.isfinite().all()) and value.dtype == torch.float32 for value in model.state_dict().values())


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_on_disk(name: str, tmp_path: Path) -> None:
    model = untrained(name).to(torch.float16).to(torch.float32)
    model.card["data"] = "none"
    model.save(tmp_path / "model")
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(2))
    one, two = (
        load_reconstructor(name, model=source, **FEW.get(name, {})).reconstruct(y, scan)
        for source in (model, tmp_path / "model")
    )
    assert torch.equal(one.mean, two.mean)
    assert two.provenance["model_card"] == {"data": "none"}
    meta = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(meta | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="SHA-256"):
        load_reconstructor(name, model=tmp_path / "model")


@pytest.mark.parametrize("name", NAMES)
def test_results_depend_on_seed_and_key_and_not_on_the_batch(name: str) -> None:
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(3))
    options = FEW.get(name, {})
    model = untrained(name)
    whole = load_reconstructor(name, model=model, batch_size=5, **options).reconstruct(
        y, scan, num_samples=2, seed=7, image_ids=["a", "b", "c"]
    )
    torch.manual_seed(11)
    single = load_reconstructor(name, model=model, batch_size=1, **options).reconstruct(
        y[1:2], scan, num_samples=2, seed=7, image_ids=["b"]
    )
    torch.testing.assert_close(single.mean[0], whole.mean[1], rtol=1e-4, atol=1e-6)
    again = load_reconstructor(name, model=model, batch_size=5, **options).reconstruct(
        y, scan, num_samples=2, seed=7, image_ids=["a", "b", "c"]
    )
    assert torch.equal(again.mean, whole.mean)
    if whole.samples is not None:
        other = load_reconstructor(name, model=model, **options).reconstruct(y, scan, num_samples=2, seed=8)
        assert not torch.equal(other.samples, whole.samples)
        assert whole.std is not None and bool((whole.std > 0).any())


def test_primal_dual_is_the_same_in_any_unit_of_length_and_runs_on_fan_beams() -> None:
    model = untrained("learned_primal_dual")
    x = tiny_slices(1)
    small, large = tiny_scan(pixel_mm=1.0), tiny_scan(pixel_mm=8.0)
    y = large.operator(x)
    one = load_reconstructor("learned_primal_dual", model=model).reconstruct(y, large).mean
    two = model(pairs_of(small, y, 8.0))
    torch.testing.assert_close(two, PriorRange().to_prior(HounsfieldScale().to_hu(one)), rtol=1e-4, atol=1e-4)
    geometry = FanGeometry.for_image((SIZE, SIZE), PIXEL_MM, 10)
    fan = Measurement(RayTransform(geometry), units=HounsfieldScale())
    result = load_reconstructor("learned_primal_dual", model=model).reconstruct(fan.simulate(x), fan)
    assert result.mean.shape == x.shape and bool(result.mean.isfinite().all())


def pairs_of(scan: Measurement, y: torch.Tensor, pixel_mm: float):
    """The likelihood that training sees: a pixel of 1 mm, attenuation per pixel."""
    from deft_ct.measurement.likelihood import Likelihood
    from deft_ct.measurement.scales import PerImageMap

    affine = scan.scale_to(PriorRange())
    width = torch.tensor(pixel_mm).reshape(1, 1, 1, 1)
    return Likelihood(scan, y, PerImageMap(width * affine.scale, width * affine.offset))


def test_primal_dual_compares_in_float32_in_mixed_precision() -> None:
    """The difference of two numbers that bfloat16 cannot tell apart."""
    update = PrimalDualModel(PrimalDualShape(iterations=1, memory=2, channels=1)).primal[0]
    taps = iter((torch.tensor([1024.0, -1024.0, 0.0]), torch.ones(1), torch.ones(1)))
    with torch.no_grad():
        for layer in update:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
                layer.bias.zero_()
                layer.weight[:, :, 1, 1] = next(taps)
    x = torch.tensor([1 + 2**-10, 1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = update(x)
    assert torch.equal(found.float(), torch.ones(1, 2, 4, 4))


def test_sides_that_do_not_divide_are_padded() -> None:
    model = untrained("fbp_unet")
    assert model(torch.zeros(1, 1, 31, 30)).shape == (1, 1, 31, 30)


def test_the_bridge_keeps_its_marginals() -> None:
    """Walking back with the true x_0 gives the law of the bridge at every time: eq. 11 against the recursion."""
    bridge = Bridge(0.1, 0.3)
    x0, x1 = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64), torch.full((1, 1, 1, 1), -1.0, dtype=torch.float64)
    grid = torch.linspace(1, 0, 6, dtype=torch.float64)
    variance = bridge.variance(grid)
    assert float(variance[0]) == pytest.approx(bridge.total) and float(variance[-1]) == pytest.approx(0, abs=1e-12)
    numeric = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    root = 0.1**0.5 + (0.3**0.5 - 0.1**0.5) * (1 - (1 - 2 * numeric).abs())
    for t in (0.2, 0.5, 0.9):
        integral = torch.trapezoid(root.square()[numeric <= t + 1e-12], numeric[numeric <= t + 1e-12])
        assert float(bridge.variance(torch.tensor(t))) == pytest.approx(float(integral), rel=1e-5)
    mean, spread = x1, 0.0
    for k in range(1, 6):
        near, far = variance[k], variance[k - 1] - variance[k]
        mean, step = bridge.between(x0, mean, near, far)
        spread = (float(near / (near + far)) ** 2 * spread**2 + float(step) ** 2) ** 0.5
        want, size = bridge.between(x0, x1, near, bridge.total - near)
        torch.testing.assert_close(mean, want)
        assert spread == pytest.approx(float(size), abs=1e-9)


def test_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(NAMES) <= set(methods())
    monkeypatch.setattr("deft_ct.networks.storage.ModelFormat.shipped", lambda _: [])  # an installation without models
    with pytest.raises(FileNotFoundError, match="train one with `deft-ct train fbp-unet`, and pass its folder"):
        load_reconstructor("fbp_unet")
    untrained("i2sb").save(tmp_path / "bridge")
    with pytest.raises(ValueError, match="holds a model of kind 'i2sb'; expected 'conditional'"):
        load_reconstructor("conditional", model=tmp_path / "bridge")
    with pytest.raises(TypeError, match="needs a FBPUNetModel, got I2SBModel"):
        load_reconstructor("fbp_unet", model=untrained("i2sb"))
    with pytest.raises(ValueError, match="both or none need one"):
        scan = tiny_scan()
        bare = Measurement(scan.operator, scan.noise)
        load_reconstructor("fbp_unet", model=untrained("fbp_unet")).reconstruct(scan.operator(tiny_slices(1)), bare)
    with pytest.raises(ValueError, match="needs units=HounsfieldScale"):
        SlicePairs(Slices(), [], PriorRange())
    train("fbp_unet", tmp_path / "training", 1)
    model_type, _ = SHAPES["fbp_unet"]
    with pytest.raises(ValueError, match=r"was started with .*shape.reference 'fbp'.* and this run has"):
        train_model(
            model_type, FBPUNetShape(network=NETWORK, reference="tv"), pairs(), tmp_path / "training",
            training=TrainingConfig(steps=1), progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        lambda: FBPUNetShape(reference="none"),
        lambda: FBPUNetShape(spread=0.0),
        lambda: PrimalDualShape(memory=1),
        lambda: PrimalDualShape(start="tv"),
        lambda: ConditionalShape(time_power=0.0),
        lambda: I2SBShape(beta_min=0.5, beta_max=0.3),
        lambda: load_reconstructor("i2sb", steps=0),
        lambda: load_reconstructor("conditional", eta=2.0),
    ],
)
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ValueError):
        bad()


def test_the_description_of_a_network_survives_additions_to_its_shape():
    """The hash of a stored model must not change because networks have learned a new setting."""
    model = FBPUNetModel(FBPUNetShape())
    assert model.description()["shape"]["network"] == model.shape.network.to_dict()
