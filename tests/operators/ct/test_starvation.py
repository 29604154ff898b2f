"""Rays whose logarithm was taken of next to no photons."""

from __future__ import annotations

import math

import numpy as np
import torch

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import ParallelGeometry, RayTransform, diagnosis
from deft_ct.operators.ct.starvation import SMOOTHNESS, unmeasured_rays, with_rays_filled
from deft_ct.operators.noise import PoissonNoise

SIDE = 32
GEOMETRY = ParallelGeometry.for_image((SIDE, SIDE), 1.0, 24)
FLOOR = math.log(1e9)


def disc(level: float = 0.2) -> torch.Tensor:
    """A disc with a denser core, ``(1, 1, SIDE, SIDE)`` in 1/mm."""
    axis = torch.arange(SIDE) - (SIDE - 1) / 2
    r = (axis[:, None] ** 2 + axis**2).sqrt()
    return (level * (r < 13) + 0.5 * level * (r < 5)).float()[None, None]


def clipped(y: torch.Tensor, share: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Data whose largest line integrals read a floor, and which these are."""
    limit = torch.sort(y.flatten()).values[int((1 - share) * y.numel())]
    return torch.where(y > limit, FLOOR, y), y > limit


def test_only_values_far_beyond_all_others_say_nothing() -> None:
    lines = torch.rand(3, 10, 40)
    lines[:, :, 5] = 3.0
    lines[0, :4, 20:24] = 3.0 + 3.9
    lines[1, :4, 20:24] = 3.0 + 4.1
    lines[2, :2, 20:24] = 3.0 + 4.1  # too few views
    found = unmeasured_rays(lines)
    expected = torch.zeros_like(found)
    expected[1, :4, 20:24] = True
    assert torch.equal(found, expected)


def test_the_image_is_that_of_a_dense_solution() -> None:
    operator = RayTransform(GEOMETRY)
    y, missing = clipped(operator(disc()))
    filled = with_rays_filled(y[:, 0], missing[:, 0], operator)
    dense = operator(torch.eye(SIDE**2).reshape(-1, 1, SIDE, SIDE)).flatten(1).T.double().numpy()
    step, same = np.diff(np.eye(SIDE), axis=0), np.eye(SIDE)
    differences = np.kron(step, same), np.kron(same, step)
    known = ~missing.flatten().numpy()
    weight = SMOOTHNESS * np.linalg.norm(dense, 2) ** 2
    normal = dense[known].T @ dense[known] + weight * sum(d.T @ d for d in differences)
    image = np.linalg.solve(normal, dense[known].T @ y.flatten().double().numpy()[known])
    expected = dense @ image.clip(min=0)
    np.testing.assert_allclose(filled.flatten()[~known], expected[~known], rtol=2e-3)
    np.testing.assert_array_equal(filled.flatten()[known], y.flatten()[known])


def test_the_data_of_a_scan_are_repaired_and_the_user_is_told() -> None:
    operator = RayTransform(GEOMETRY)
    measurement = Measurement(operator, PoissonNoise(1e5))
    whole = operator(torch.cat([disc(), disc(0.15)]))
    y, missing = clipped(whole)
    y, missing = torch.cat([y[:1], whole[1:]]), torch.cat([missing[:1], torch.zeros_like(missing[1:])])
    found = measurement.diagnose(y)
    (finding,) = (one for one in found.findings if one.name == diagnosis.STARVED)
    assert finding.repaired
    for words in ("of 1 of 2 slices", "what only these rays passed through is missing", "a tenth of a photon"):
        assert words in finding.text
    assert diagnosis.METAL not in [one.name for one in found.findings]
    assert found.repaired is not None
    torch.testing.assert_close(found.repaired[~missing], y[~missing], rtol=0, atol=0)
    before, after = ((data - whole)[missing].abs().mean() for data in (y, found.repaired))
    assert float(after) < 0.05 * float(before)  # the core of the disc is seen by missing rays alone
    alone = measurement.diagnose(y[:1]).repaired
    assert alone is not None
    torch.testing.assert_close(alone, found.repaired[:1])


def test_filled_slices_and_others_are_told_apart() -> None:
    operator = RayTransform(GEOMETRY)
    whole = operator(disc())
    filled, missing = clipped(whole)
    left = torch.where(missing, float(whole.max()) + 2.0, whole)
    found = Measurement(operator, PoissonNoise(1e5)).diagnose(torch.cat([filled, left]))
    starved = [one for one in found.findings if one.name == diagnosis.STARVED]
    assert [one.repaired for one in starved] == [False, True]
    assert all("of 1 of 2 slices" in one.text for one in starved)
    assert found.repaired is not None and torch.equal(found.repaired[1:], left)


def test_counts_of_few_photons_are_left_as_they_are() -> None:
    operator = RayTransform(GEOMETRY)
    measurement = Measurement(operator, PoissonNoise(1e3))
    y = measurement.simulate(disc(0.3), seed=0)
    assert float(y.max()) > math.log(1e3)  # there are rays without a photon
    assert measurement.diagnose(y).repaired is None


def test_without_a_ray_transform_nothing_is_filled() -> None:
    y, _ = clipped(RayTransform(GEOMETRY)(disc()))
    found = diagnosis.diagnose_scan(y, GEOMETRY)
    assert found.repaired is None and diagnosis.STARVED in [one.name for one in found.findings]
