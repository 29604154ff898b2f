"""Random poses of chains: what stays, and the distribution of what does not."""

from __future__ import annotations

import torch

from deft_ct.protein.pose import posed
from deft_ct.protein.scale import BACKBONE_RANGE, SPREAD, Angstrom


def test_chains_are_cut_turned_and_never_mirrored() -> None:
    generator = torch.Generator().manual_seed(0)
    chains = torch.full((2, 12, 3), torch.nan)
    chains[0] = torch.randn(12, 3, generator=generator)
    chains[1, :9] = torch.randn(9, 3, generator=generator)
    out = posed(chains, generator)
    assert out.shape == (2, 9, 3) and bool(torch.isfinite(out).all())
    torch.testing.assert_close(torch.cdist(out[1], out[1]), torch.cdist(chains[1, :9], chains[1, :9]))
    fits = [
        torch.allclose(torch.cdist(out[0], out[0]), torch.cdist(w, w), atol=1e-5) for w in chains[0].unfold(0, 9, 1).mT
    ]
    assert sum(fits) == 1

    def volume(chain: torch.Tensor) -> torch.Tensor:
        return torch.linalg.det(chain[1:4] - chain[0])

    torch.testing.assert_close(volume(out[1]), volume(chains[1]), rtol=1e-3, atol=1e-4)


def test_centres_have_the_variance_that_the_network_assumes() -> None:
    """A velocity without mean is exact for it: the mean of a noisy chain is the mean of a clean one and of noise."""
    chains = torch.randn(4000, 9, 3, generator=torch.Generator().manual_seed(1))
    centres = posed(chains, torch.Generator().manual_seed(2)).mean(1)
    assert abs(float(centres.std()) * 3 / SPREAD - 1) < 0.03 and abs(float(centres.mean())) < 0.1
    assert float(BACKBONE_RANGE.to_prior(SPREAD)) == 1.0 and Angstrom().after(BACKBONE_RANGE).scale == SPREAD


def test_starts_of_windows_are_uniform() -> None:
    """Steps grow along these chains, so the first step tells where a window begins."""
    chains = torch.full((3000, 7, 3), torch.nan)
    chains[:] = torch.tensor([[0.0, 1, 3, 6, 10, 15, 21]])[..., None]
    chains[-1, 5:] = torch.nan
    cut = posed(chains, torch.Generator().manual_seed(3))
    first = (cut[:-1, 1] - cut[:-1, 0]).norm(dim=-1) / 3**0.5
    counts = [int((first.round() == k).sum()) for k in (1, 2, 3)]
    assert sum(counts) == 2999 and min(counts) > 900
