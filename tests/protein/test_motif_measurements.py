"""Motifs alone: the same data at every call, and nothing of the rest of a chain."""

from __future__ import annotations

import pytest
import torch

from deft_ct.operators.points.motif import Motif
from deft_ct.protein.motif_measurements import MotifMeasurements

CHAINS = [3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).cumsum(0) for n in (40, 45)]


def test_the_data_of_a_motif_stay_and_lie_within_the_tolerance() -> None:
    source = MotifMeasurements(CHAINS, 0.1, seed=2)
    found = source.likelihood(torch.tensor([1]))
    assert len(source) == 2 and torch.equal(found.y, source.likelihood(torch.tensor([1])).y)
    operator = found.operator
    assert isinstance(operator, Motif) and operator.domain_shape == (45, 3)
    own = CHAINS[1][operator.indices]
    torch.testing.assert_close(operator.template.float(), own)
    away = (found.y[0] - own).std()
    assert 0.05 < float(away) < 0.2
    assert not torch.equal(found.y, MotifMeasurements(CHAINS, 0.1, seed=3).likelihood(torch.tensor([1])).y)


def test_the_rest_of_a_chain_is_not_used() -> None:
    source = MotifMeasurements(CHAINS, 0.1)
    kept = [source.likelihood(torch.tensor([k])).operator.indices for k in range(2)]  # type: ignore[attr-defined]
    changed = [torch.zeros_like(chain).index_copy(0, k, chain[k]) for chain, k in zip(CHAINS, kept, strict=True)]
    assert MotifMeasurements(changed, 0.1).description() == source.description()
    shorter = [CHAINS[0], CHAINS[1][:-1]]
    assert MotifMeasurements(shorter, 0.1).description() != source.description()


def test_several_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one at a time"):
        MotifMeasurements(CHAINS, 0.1).likelihood(torch.tensor([0, 1]))
