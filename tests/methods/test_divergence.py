"""A method that diverges says so: an error where nothing is left, a warning where values are out of all proportion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from gaussian import Gaussian, MatrixOperator, gaussian_prior
from tiny import tiny_scan, tiny_slices
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.pigdm import PiGDM
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor

SIDE, PIXELS = 4, 16


@dataclass(frozen=True)
class Nothing:
    """No settings."""


class Given(Reconstructor):
    """Answers what it is told, in 1/mm."""

    name = "given"
    config_type = Nothing

    def __init__(self, mean: Tensor, samples: Tensor | None = None) -> None:
        super().__init__(Nothing())
        self.estimate = Estimate(mean=mean, samples=samples)

    def _estimate(self, request: Request) -> Estimate:
        return self.estimate


def test_results_that_are_not_finite_are_refused_by_name() -> None:
    scan = tiny_scan()
    images = tiny_slices(3)
    y = scan.simulate(images)
    for bad in (torch.nan, torch.inf):
        broken = images.clone()
        broken[1, 0, 5, 5] = bad
        with pytest.raises(FloatingPointError, match=r"given diverged to NaN or infinite values for images \['b'\]"):
            Given(broken).reconstruct(y, scan, image_ids="abc")
        samples = torch.stack([images, broken], 1)
        with pytest.raises(FloatingPointError, match=r"\['b'\]"):
            Given(images, samples).reconstruct(y, scan, image_ids="abc")


def test_implausible_results_give_a_warning_by_name_and_metal_does_not() -> None:
    scan = tiny_scan()
    assert scan.units is not None
    images = tiny_slices(3)
    y = scan.simulate(images)
    images[0, 0, 3, 3] = float(scan.units.to_attenuation(torch.tensor(30000.0)))
    Given(images).reconstruct(y, scan, image_ids="abc")  # warnings are errors here
    images[2, 0, 5, 5] = -float(scan.units.to_attenuation(torch.tensor(2e5)))
    with pytest.warns(UserWarning, match=r"given diverged for images \['c'\]: values up to 2.0e\+05 HU"):
        Given(images).reconstruct(y, scan, image_ids="abc")


def test_pigdm_diverges_where_it_is_told_too_small_a_spread() -> None:
    """An exact prior with one wide direction: the correction is ``C_t / r_t^2`` times too large there."""
    wide = torch.full((PIXELS, PIXELS), 25 / PIXELS).double() + 0.01 * torch.eye(PIXELS).double()
    gaussian = Gaussian(torch.zeros(PIXELS).double(), wide)
    prior, measurement = (
        gaussian_prior(gaussian, SIDE),
        Measurement(MatrixOperator(torch.eye(PIXELS).double(), SIDE), GaussianNoise(0.02)),
    )
    truth = gaussian.draw(1, seed=2)
    y = measurement.simulate(truth.reshape(1, 1, SIDE, SIDE)).reshape(1, 1, 1, PIXELS)
    assert PiGDM.search_space["data_std"].low >= 0.3  # type: ignore[union-attr]
    with pytest.warns(UserWarning, match="pigdm diverged for images"):
        load_reconstructor("pigdm", prior=prior, steps=30, data_std=0.06).reconstruct(y, measurement)
    for safe in (5.0, 50.0):
        found = load_reconstructor("pigdm", prior=prior, steps=30, data_std=safe).reconstruct(y, measurement).mean
        assert (found.flatten() - truth[0]).abs().max() < 0.2
