"""Alignment with the truth, and the choice of a sample by its data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.evaluation.alignment import aligned
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.selection import best_by_residual
from deft_ct.operators import PhaseRetrieval


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def test_turned_and_shifted_channels_come_back() -> None:
    truth = picture(2, 3, 16, 24)
    moved = truth.copy()
    moved[0, 1] = np.roll(truth[0, 1][::-1, ::-1], (2, -3), (0, 1))
    moved[1, 2] = np.roll(truth[1, 2], (-1, 2), (0, 1))
    np.testing.assert_array_equal(aligned(moved, truth), truth)


def test_no_shift_beyond_the_limit_and_never_worse() -> None:
    truth = picture(1, 1, 16, 16)
    far = np.roll(truth, 5, -1)
    found = aligned(far, truth)
    assert not np.allclose(found, truth)
    assert ((found - truth) ** 2).mean() <= ((far - truth) ** 2).mean()
    np.testing.assert_array_equal(aligned(far, truth, largest_shift=0.4), truth)
    with pytest.raises(ValueError, match="one shape"):
        aligned(truth[0], truth[0])


def test_the_sample_of_the_smallest_residual() -> None:
    measurement = Measurement(PhaseRetrieval((1, 8, 8)))
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(3, 1, 8, 8, generator=generator) * 2 - 1
    y = measurement.operator(truth)
    samples = torch.rand(3, 4, 1, 8, 8, generator=generator) * 2 - 1
    samples[0, 2], samples[1, 0], samples[2, 3] = (
        truth[0],
        truth[1],
        truth[2].flip((-2, -1)),
    )  # the turned one fits, too
    best, residuals = best_by_residual(y, samples, measurement)
    assert best.tolist() == [2, 0, 3] and residuals.shape == (3, 4)
    assert float(residuals.gather(1, best[:, None]).max()) < 1e-5
