"""The unrolled U-Nets and the network of their error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from deft_ct.ct.pairs import simulate_unit_pixel
from deft_ct.ct.scan import Scan
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.supervised.unrolled import (
    UnrolledModel,
    UnrolledReconstructor,
    UnrolledShape,
    deviation_loss,
    staged_loss,
)
from deft_ct.networks import UNetConfig
from deft_ct.operators import GaussianNoise
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.reconstructor import UnsupportedError
from deft_ct.training.pairs import Pairs

TINY = UNetConfig(patch=2, channels=(16,), attention=(False,), norm_groups=8, head_channels=16, scale_shift=True)
SHAPE = UnrolledShape(stages=2, memory=2, network=TINY, spread_network=TINY)


def discs(count: int, side: int = 32) -> Tensor:
    axis = torch.linspace(-1, 1, side)
    radius = torch.hypot(axis[:, None], axis)
    return torch.stack([torch.where(radius < 0.4 + 0.1 * k, 40.0, -1000.0) for k in range(count)])[:, None]


def pairs(name: str = "parallel24_1e5", side: int = 32) -> Pairs:
    measurement = Scan.from_name(name).unit_measurement((side, side), 8.0)
    return simulate_unit_pixel(discs(2, side), torch.tensor([8.0, 8.0]), measurement, PriorRange(), seed=0)


def model() -> UnrolledModel:
    torch.manual_seed(0)
    return UnrolledModel(SHAPE, value_range=PriorRange())


def test_an_untrained_model_gives_the_hann_filtered_back_projection() -> None:
    drawn = pairs()
    likelihood = drawn.likelihood
    expected = likelihood.to_physical.inverse(likelihood.operator.first_guess(likelihood.y))  # type: ignore[attr-defined]
    found = model()(likelihood)
    for image in found.images:
        torch.testing.assert_close(image, expected)


@pytest.mark.parametrize("name", ["parallel24_1e5", "parallel24_noisefree", "fan24_1e3", "parallel9_1e4_120deg"])
def test_training_lowers_the_error_and_the_deviation_follows_it(name: str) -> None:
    drawn, network = pairs(name), model()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = network.training_loss(network, drawn, torch.Generator())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    assert network.spread_network is not None
    optimizer = torch.optim.Adam(network.spread_network.parameters(), 5e-3)
    for _ in range(80):
        optimizer.zero_grad()
        with torch.no_grad():
            found = network(drawn.likelihood)
        deviation = network.deviation(found)
        deviation_loss(deviation, found.images[-1] - drawn.x0).backward()
        optimizer.step()
    squares = ((found.images[-1] - drawn.x0) / deviation.detach()).square().mean()
    assert 0.5 < float(squares) < 2  # 1 at the optimum of the likelihood


def test_sides_need_not_be_a_multiple_of_the_networks() -> None:
    assert model()(pairs(side=33).likelihood).images[-1].shape == (2, 1, 33, 33)


def test_units_of_length_do_not_matter() -> None:
    """A scan in millimetres and the same scan in pixels are told and reconstructed alike."""
    network = model()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    unit = pairs().likelihood
    real = Scan.from_name("parallel24_1e5").measurement((32, 32), 8.0)
    there = Likelihood(real, unit.y, real.scale_to(PriorRange()))
    torch.testing.assert_close(network(there).images[-1], network(unit).images[-1], rtol=1e-3, atol=1e-3)


def test_it_survives_the_disk(tmp_path: Path) -> None:
    network, drawn = model(), pairs()
    network.save(tmp_path / "model", dtype=torch.float32)
    loaded = UnrolledModel.load(tmp_path / "model")
    assert loaded.shape == SHAPE and loaded.content_hash() == network.content_hash()
    torch.testing.assert_close(loaded(drawn.likelihood).images[-1], network(drawn.likelihood).images[-1])


def test_what_it_cannot_do_is_refused() -> None:
    method = UnrolledReconstructor(model())
    mask = torch.ones(32, 32, dtype=torch.bool)
    inpainting = Measurement(Inpainting((1, 32, 32), mask), GaussianNoise(0.1), units=None)
    with pytest.raises(UnsupportedError):
        method.reconstruct(torch.rand(1, 1, 32, 32), inpainting)
    with pytest.raises(ValueError, match="must be positive"):
        UnrolledShape(stages=0)
    bare = UnrolledModel(UnrolledShape(stages=1, network=TINY, spread_network=None), value_range=PriorRange())
    with pytest.raises(TypeError, match="no network of the error"):
        bare.deviation(bare(pairs().likelihood))


def test_the_losses_in_closed_form() -> None:
    x0 = torch.zeros(2, 1, 4, 4)
    first, last = torch.full_like(x0, 2.0), torch.full_like(x0, 0.5)
    expected = (0.25 * torch.tensor(4.0).log() + torch.tensor(0.25).log()) / 1.25
    torch.testing.assert_close(staged_loss([first, last], x0), expected, rtol=1e-4, atol=1e-5)
    at = {s: float(deviation_loss(torch.full_like(x0, s), torch.full_like(x0, 0.3))) for s in (0.2, 0.3, 0.4)}
    assert min(at, key=at.__getitem__) == 0.3
