"""Weights and resampling of diffusion paths."""

from __future__ import annotations

import torch

from deft_ct.methods.deft.path_weights import effective_number, resample, tempered_weights


def test_tempering_leaves_the_share_and_no_more_than_it_needs() -> None:
    costs = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    costs *= torch.tensor([[0.3], [2.0], [30.0]])
    weights, exponent = tempered_weights(costs, 0.5)
    number = effective_number(weights)
    assert float(exponent[0]) == 1.0 and number[0] > 2000  # enough as they are
    torch.testing.assert_close(number[1:], torch.full((2,), 2000.0).double(), rtol=1e-6, atol=0)
    # For normal costs the effective share is exp(-a^2 Var C): a half is left at a = sqrt(ln 2) / std C.
    expected = torch.tensor(2.0).log().sqrt().double() / costs[1:].std(1)
    torch.testing.assert_close(exponent[1:], expected, rtol=0.05, atol=0)
    torch.testing.assert_close(weights.sum(1), torch.ones(3).double())


def test_resampling_takes_each_path_about_its_weight_of_times() -> None:
    weights = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    taken = torch.zeros(8)
    for seed in range(500):
        rows = resample(weights, torch.Generator().manual_seed(seed))
        assert rows.shape == (8,) and rows[:4].max() < 4 <= rows[4:].min()
        assert sorted(rows[:4].tolist()) == [0, 0, 1, 2]
        taken += torch.bincount(rows, minlength=8)
    torch.testing.assert_close(taken / 2000, weights.flatten().float(), rtol=0, atol=0.02)
