"""Total variation and DDS on the true geometry of a helix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian

import deft_ct
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise
from deft_ct.operators.ct.helical_transform import HelicalTransform
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid

pytest.importorskip("numba")
pytestmark = pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")


@pytest.fixture(scope="module")
def scan() -> tuple[Measurement, torch.Tensor, torch.Tensor]:
    angles = np.linspace(-3 * math.pi, 3 * math.pi, 60, endpoint=False)
    helix = HelicalScan(
        angles=angles, z_mm=12.0 * angles / (2 * math.pi), radius_mm=np.full(60, 200.0),
        source_shifts=np.zeros((60, 3)), source_to_detector_mm=350.0, detectors=(4, 40), detector_mm=(7.0, 5.0),
        central=(1.5, 19.5),
    )  # fmt: skip
    grid = VolumeGrid(image_shape=(6, 16, 16), voxel_zyx=(4.0, 4.0, 4.0))
    measurement = Measurement(HelicalTransform(helix, grid), GaussianNoise(0.3))
    truth = EllipsoidPhantom.head(60.0, 0.5).volume(grid.image_shape, grid.voxel_zyx).float()[None, None]
    return measurement, truth, measurement.simulate(truth, seed=1)


def error(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


def test_total_variation_is_better_than_least_squares(scan):
    measurement, truth, y = scan
    least = deft_ct.load_reconstructor("cgls", iterations=8).reconstruct(y, measurement).mean
    smooth = deft_ct.load_reconstructor("tv", strength=2.0, iterations=60).reconstruct(y, measurement).mean
    assert error(smooth, truth) < 0.8 * error(least, truth)


@pytest.mark.parametrize("start", [1.0, 0.05])
def test_dds_couples_the_slices(scan, start):
    measurement, truth, y = scan
    prior = gaussian_prior(smooth_gaussian(16), 16)
    alone, coupled = (
        deft_ct.load_reconstructor("dds", prior=prior, steps=6, start=start, coupling=c)
        .reconstruct(y, measurement)
        .mean
        for c in (0.0, 5.0)
    )
    assert coupled.shape == truth.shape
    assert error(coupled, truth) < min(0.5, error(alone, truth))
