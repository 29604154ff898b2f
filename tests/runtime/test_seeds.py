"""Random numbers of images: correlated ones keep their variance, and continue the generator they come from."""

from __future__ import annotations

import pytest
import torch

from deft_ct.runtime.seeds import correlated_generator, generator_for, normal_like


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_correlated_numbers(share: float) -> None:
    def drawn(key: int) -> torch.Tensor:
        made = correlated_generator(generator_for(0, "own", key), generator_for(0, "common"), share)
        return torch.cat([normal_like(torch.empty(1, 100_000), [made]) for _ in range(2)])

    both = torch.stack([drawn(1), drawn(2)])
    found = torch.corrcoef(both.flatten(1))
    torch.testing.assert_close(both.var(dim=(1, 2)), torch.ones(2), rtol=0.02, atol=0)
    assert float(both.mean().abs()) < 0.01 and float(found[0, 1]) == pytest.approx(share, abs=0.01)
    again = torch.corrcoef(both[0])
    assert float(again[0, 1]) == pytest.approx(0, abs=0.01), "the next numbers are fresh ones"


def test_without_a_share_the_numbers_are_those_of_the_generator() -> None:
    like = torch.empty(1, 7)
    made = correlated_generator(generator_for(3, "own"), generator_for(3, "common"), 0.0)
    assert torch.equal(normal_like(like, [made]), normal_like(like, [generator_for(3, "own")]))
