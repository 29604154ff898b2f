"""When an image counts as no explanation of its data."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_scan, tiny_slices

from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.residual import (
    LARGEST_RESIDUAL,
    LARGEST_RESIDUAL_OF_IMAGES,
    TIMES_NOISE,
    noise_residuals,
    relative_residuals,
    unexplained,
)
from deft_ct.operators import GaussianNoise, Identity, NoNoise


def measurement(sigma: float) -> Measurement:
    return Measurement(Identity((1, 4, 4)), GaussianNoise(sigma) if sigma else NoNoise())


def test_residuals_in_closed_form() -> None:
    y = torch.full((2, 1, 4, 4), 2.0)
    image = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 5.0)])
    torch.testing.assert_close(relative_residuals(y, image, measurement(0.0)), torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(noise_residuals(y, measurement(0.3)), torch.tensor([0.15, 0.15]))
    assert not noise_residuals(y, measurement(0.0)).any()


@pytest.mark.parametrize(
    ("residual", "sigma", "found"),
    [
        (LARGEST_RESIDUAL_OF_IMAGES - 0.01, 0.0, False),
        (LARGEST_RESIDUAL_OF_IMAGES + 0.01, 0.0, True),
        (2.0, 0.99 * 2.0 / TIMES_NOISE, True),
        (2.0, 1.01 * 2.0 / TIMES_NOISE, False),  # the noise alone is about as large
    ],
)
def test_both_limits_count(residual: float, sigma: float, found: bool) -> None:
    y = torch.ones(1, 1, 4, 4)
    assert (unexplained(y, y * (1 + residual), measurement(sigma)) is not None) is found


@pytest.mark.parametrize("factor", [1 - LARGEST_RESIDUAL + 0.01, 1 - LARGEST_RESIDUAL - 0.01])
def test_a_scan_may_be_missed_by_more(factor: float) -> None:
    scan = tiny_scan()
    image = tiny_slices(1)
    found = unexplained(scan.noise_free(image), factor * image, scan)
    assert (found is not None) is (factor < 1 - LARGEST_RESIDUAL)


def test_the_finding_tells_the_places_and_the_worst() -> None:
    y = torch.ones(3, 1, 4, 4)
    image = y * torch.tensor([4.0, 1.0, 3.0]).reshape(3, 1, 1, 1)
    finding = unexplained(y, image, measurement(0.1))
    assert finding is not None and finding.name == "data not explained"
    assert "images at [0, 2] (counted from 0)" in finding.text and "up to 3 of their size" in finding.text
    assert "noise explains 0.1;" in finding.text
