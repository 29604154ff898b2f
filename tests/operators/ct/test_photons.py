"""How many photons the noise of measured line integrals speaks of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from measured_files import FAN, PARALLEL, lines

from deft_ct.operators.ct.photons import NOISE_FREE_PHOTONS, estimated_photons
from deft_ct.operators.noise import PoissonNoise


@pytest.mark.parametrize("photons", [3e3, 3e4])
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_known_noise_is_found(photons: float, geometry) -> None:
    clean = torch.from_numpy(lines(geometry))[None]
    noisy = PoissonNoise(photons=photons).sample(clean[None], [torch.Generator().manual_seed(1)])[0]
    assert estimated_photons(noisy) == pytest.approx(photons, rel=0.15)


def test_where_there_is_nothing_to_tell_it_from() -> None:
    assert estimated_photons(torch.zeros(1, 3, 5)) == NOISE_FREE_PHOTONS
    assert estimated_photons(torch.zeros(1, 30, 50)) == NOISE_FREE_PHOTONS


def _photons(lines: np.ndarray) -> float:
    found = []
    for axis in (1, 2):
        if lines.shape[axis] >= 8:
            first, middle, last = (np.take(lines, range(k, lines.shape[axis] - 2 + k), axis) for k in range(3))
            second = np.sort(np.abs((first - 2 * middle + last) * np.exp(-middle / 2)).ravel())
            found.append(6 / (second[(second.size - 1) // 2] / 0.6745) ** 2)
    return min(max(*found, 1e2), 1e7)


@pytest.mark.parametrize("shape", [(2, 7, 12), (2, 12, 7), (1, 8, 8), (3, 9, 20), (3, 20, 9)])
@pytest.mark.parametrize("noise", [1e-5, 0.03, 2.0])
def test_the_estimate_is_that_of_a_second_program(shape: tuple[int, ...], noise: float) -> None:
    """The weaker noise of neighbouring elements and neighbouring views, from 100 to 1e7 photons."""
    rng = np.random.default_rng(0)
    for along in (1, 2):  # the object varies along one of the two
        slope = np.arange(shape[along]) ** 2 / shape[along] ** 2
        lines = np.expand_dims(slope, tuple(k for k in range(3) if k != along)) + noise * rng.standard_normal(shape)
        assert estimated_photons(torch.from_numpy(lines)) == pytest.approx(_photons(lines), rel=1e-9)
    if noise == 2.0:
        assert estimated_photons(torch.from_numpy(lines)) == 100
    if noise == 1e-5:
        flat = torch.from_numpy(noise * rng.standard_normal(shape))
        assert estimated_photons(flat) == 1e7
