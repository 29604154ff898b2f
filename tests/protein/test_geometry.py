"""Chains of known geometry: helices and strands built from their textbook parameters, and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from deft_ct.protein import geometry


def helix(count: int, *, radius: float = 2.3, turn: float = 100.0, rise: float = 1.5) -> Tensor:
    """C-alpha atoms of a helix; an alpha helix has 2.3 A, 100 degrees and 1.5 A."""
    n = torch.arange(count, dtype=torch.float64)
    angle = torch.deg2rad(turn * n)
    return torch.stack([radius * angle.cos(), radius * angle.sin(), rise * n], -1)


def test_an_alpha_helix_and_its_mirror_image() -> None:
    chain = helix(20)
    step = math.sqrt((2 * 2.3 * math.sin(math.radians(50))) ** 2 + 1.5**2)
    torch.testing.assert_close(geometry.steps(chain), torch.full((19,), step, dtype=torch.float64))
    assert float(geometry.valid_bonds(chain)) == 1.0 and float(geometry.clashes(chain)) == 0.0
    assert geometry.dihedrals(chain).shape == (17,)
    assert float(geometry.dihedrals(chain).mean()) == pytest.approx(50.0, abs=1.5)
    mirror = chain * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(geometry.dihedrals(mirror), -geometry.dihedrals(chain))
    right, left = geometry.helix_hands(torch.stack([chain, mirror]))
    assert right.tolist() == [1.0, 0.0] and left.tolist() == [0.0, 1.0]
    strand = helix(20, radius=0.9, turn=-170.0, rise=3.3)
    assert [float(share) for share in geometry.helix_hands(strand)] == [0.0, 0.0]


def test_dihedrals_have_the_sign_of_iupac() -> None:
    """Looking along the middle bond, here z with y up: x lies to the left, so the far bond is reached anticlockwise."""
    chain = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert float(geometry.dihedrals(chain)) == pytest.approx(-90.0)


def test_bonds_of_either_kind_are_valid() -> None:
    x = torch.tensor([3.5, 3.61, 3.8, 4.04, 4.1, 2.6, 2.71, 3.0, 3.29, 3.4]).cumsum(0)
    chain = torch.stack([torch.cat([torch.zeros(1), x]), torch.zeros(11), torch.zeros(11)], -1)
    assert float(geometry.valid_bonds(chain)) == pytest.approx(0.6)


def test_clashes_are_counted_by_scipy() -> None:
    chain = 3.0 * torch.randn(4, 15, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    i, j = np.triu_indices(15, 1)
    for one, found in zip(chain, geometry.clashes(chain), strict=True):
        close = pdist(one.numpy()) < 3.5
        assert float(found) == pytest.approx(float((close & (j - i >= 3)).sum()) / 15)
    assert float(geometry.clashes(chain).min()) > 0


def test_radius_of_gyration_and_compactness() -> None:
    chain = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = np.array([np.square(pdist(one.numpy())).sum() for one in chain])
    np.testing.assert_allclose(geometry.radius_of_gyration(chain), np.sqrt(pairs) / 60)
    np.testing.assert_allclose(geometry.compactness(chain), np.sqrt(pairs) / 60 / (2.2 * 60**0.38))


def test_junctions_are_the_steps_into_and_out_of_segments() -> None:
    x = torch.tensor([3.8, 3.8, 5.0, 3.8, 3.8, 3.0, 3.8]).cumsum(0)
    chain = torch.stack([torch.cat([torch.zeros(1), x]), torch.zeros(8), torch.zeros(8)], -1)
    assert float(geometry.junction_errors(chain, [(3, 6)])) == pytest.approx(5.0 - 4.05)
    for segment, error in (((6, 8), 0.6), ((5, 6), 0.6), ((1, 6), 0.6), ((2, 3), 0.95), ((4, 7), 0.0), ((0, 8), 0.0)):
        assert float(geometry.junction_errors(chain, [segment])) == pytest.approx(error, abs=1e-6), segment
    both = geometry.junction_errors(torch.stack([chain, chain]), [(0, 3), (6, 8)])
    assert both.tolist() == pytest.approx([0.95, 0.95])
