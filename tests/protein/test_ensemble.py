"""Superposition, medoid and spread of chains in any pose; SciPy's rotation fit as the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from deft_ct.protein.ensemble import medoid, pairwise_rmsd, spread_about, superposed
from deft_ct.protein.scale import Angstrom


def chains(count: int, seed: int = 0) -> Tensor:
    return 5 * torch.randn(count, 12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(chain: Tensor, seed: int) -> Tensor:
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    return chain @ turn + 10.0 * seed


def test_deviations_are_those_of_scipy() -> None:
    x = chains(4)
    found = pairwise_rmsd(x)
    for i in range(4):
        for j in range(4):
            a, b = (x[k].numpy() - x[k].numpy().mean(0) for k in (i, j))
            _, distance = Rotation.align_vectors(b, a)
            assert float(found[i, j]) == pytest.approx(distance / np.sqrt(12), abs=1e-6)


def test_poses_do_not_count_and_mirror_images_do() -> None:
    (x,) = chains(1)
    found = pairwise_rmsd(torch.stack([x, moved(x, 1), -x]))
    assert float(found[0, 1]) < 1e-6 and float(found[0, 2]) > 1.0
    torch.testing.assert_close(superposed(moved(x, 2), x), x)


def test_the_medoid_is_the_sample_in_the_middle() -> None:
    x, away = chains(2, 3)
    samples = torch.stack([moved(x + d * away / 5, k) for k, d in enumerate((0.9, -0.8, 0.05, 1.0, -1.0))])
    best, deviations = medoid(samples[None])
    assert best.tolist() == [2] and float(deviations[0, 2]) == 0.0 and float(deviations[0, [0, 1, 3, 4]].min()) > 0.3


def test_the_spread_is_that_after_superposition() -> None:
    (x,) = chains(1)
    noise = 0.1 * torch.randn(400, 12, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    samples = torch.stack([moved(x + e, k) for k, e in enumerate(noise)])
    spread = spread_about(samples, x)
    assert spread.shape == (12, 3) and bool((spread[:, 0] == spread[:, 1]).all())
    # Six of the 36 degrees of freedom go into the superposition.
    assert float(spread.square().mean().sqrt()) == pytest.approx(0.1 * (30 / 36) ** 0.5, rel=0.03)


def test_the_scale_of_backbones_says_what_stands_for_samples() -> None:
    x, away = chains(2, 3)
    samples = torch.stack([moved(x + d * away / 5, k) for k, d in enumerate((0.9, 0.0, -0.9))])[None]
    summary = Angstrom().summary(samples)
    assert summary.chosen.tolist() == [1] and summary.record["rule"] == "medoid"
    assert summary.std is not None and summary.std.shape == (1, 12, 3)
    assert Angstrom().summary(samples[:, :1]).std is None


def test_of_two_samples_the_first_is_the_medoid_whatever_the_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        pair = 3 * torch.randn(2, 12, 3, generator=generator)
        noisy = pair + 1e-6 * torch.randn(2, 12, 3, generator=generator)
        assert medoid(pair)[0] == medoid(noisy)[0] == medoid(pair.flip(0))[0] == 0
