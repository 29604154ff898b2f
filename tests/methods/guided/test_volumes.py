"""Methods that solve linear systems reconstruct volumes with a prior of slices."""

from __future__ import annotations

import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian

import deft_ct
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise
from deft_ct.operators.ct import ConeGeometry, RayTransform
from deft_ct.reconstructor import UnsupportedError

SHAPE = (6, 16, 16)
SETTINGS = {
    "dds": {"steps": 4}, "ddnm": {"steps": 30}, "diffpir": {"steps": 4}, "daps": {"steps": 4, "ode_steps": 1},
    "reddiff": {"steps": 60, "learning_rate": 0.05},
}  # fmt: skip


@pytest.fixture(scope="module")
def scan() -> tuple[Measurement, torch.Tensor, torch.Tensor]:
    geometry = ConeGeometry.for_image(SHAPE, 4.0, 10, source_to_center_mm=200, source_to_detector_mm=350)
    measurement = Measurement(RayTransform(geometry), GaussianNoise(0.3))
    truth = EllipsoidPhantom.head(60.0, 0.5).volume(SHAPE, geometry.voxel_zyx).float()[None, None]
    return measurement, truth, measurement.simulate(truth, seed=1)


def error(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


def flicker(x: torch.Tensor) -> float:
    return float(x.diff(dim=-3).abs().sum())


def method(name: str, **changes: object) -> deft_ct.reconstructor.Reconstructor:
    prior = gaussian_prior(smooth_gaussian(16), 16)
    return deft_ct.load_reconstructor(name, prior=prior, **{**SETTINGS.get(name, {}), **changes})


@pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_volumes_are_reconstructed(scan, name):
    measurement, truth, y = scan
    result = method(name).reconstruct(y.repeat(2, 1, 1, 1, 1), measurement, num_samples=2, image_ids=["a", "b"])
    assert result.samples.shape == (2, 2, 1, *SHAPE)
    assert result.std.shape == (2, 1, *SHAPE)
    assert error(result.mean[:1], truth) < 0.5
    assert bool((result.samples[0, 0] != result.samples[0, 1]).any())
    # A volume does not depend on the rest of the batch.
    alone = method(name).reconstruct(y, measurement, num_samples=2, image_ids=["b"])
    torch.testing.assert_close(alone.samples[0], result.samples[1], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_the_coupling_keeps_neighbouring_slices_together(scan, name):
    measurement, truth, y = scan
    alone, coupled, flat = (method(name, coupling=c).reconstruct(y, measurement).mean for c in (0.0, 5.0, 1e3))
    assert error(coupled, truth) < error(alone, truth)
    assert flicker(flat) < 0.8 * flicker(alone) and flicker(coupled) < flicker(alone)


@pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")
@pytest.mark.parametrize("start_from", ["tv", "fbp"])
def test_a_late_start_takes_a_quick_reconstruction_of_the_volume(scan, start_from):
    measurement, truth, y = scan
    late = method("dds", start=0.02, start_from=start_from, steps=2).reconstruct(y, measurement).mean
    early = method("dds", steps=2).reconstruct(y, measurement).mean
    assert float((late - truth).norm()) < float((early - truth).norm())


@pytest.mark.parametrize("name", ["dps", "pigdm", "mcg", "unconditional"])
def test_others_refuse_volumes(scan, name):
    measurement, _, y = scan
    with pytest.raises(UnsupportedError, match=rf"{name} reconstructs single slices, .* \(6, 16, 16\): use a method"):
        method(name).reconstruct(y, measurement)


def test_data_without_a_channel_are_refused(scan):
    measurement, _, y = scan
    with pytest.raises(UnsupportedError, match=r"dds needs data \(B, 1, 10, .* got data of shape \(1, 10, "):
        method("dds").reconstruct(y[:, 0], measurement)


def test_a_coupling_must_be_a_number():
    with pytest.raises(ValueError, match="coupling must be a finite number >= 0, got -1"):
        method("dds", coupling=-1.0)
