"""A volume is a batch of slices for the prior."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_prior

from deft_ct.diffusion import slices


def test_a_volume_is_denoised_slice_by_slice(monkeypatch):
    prior = tiny_prior()
    x = torch.randn(2, 1, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([700.0, 30.0])
    monkeypatch.setattr(slices, "SLICES_AT_ONCE", 4)  # blocks across the border of the two volumes
    before = prior.evaluations
    found = prior.predict(x, times)
    assert prior.evaluations - before == 10
    for b in range(2):
        for z in range(5):
            alone = prior.predict(x[b : b + 1, :, z], times[b])
            for ours, theirs in zip(found, alone, strict=True):
                torch.testing.assert_close(ours[b : b + 1, :, z], theirs, rtol=1e-4, atol=1e-5)


def test_channels_of_a_volume_must_be_those_of_the_prior():
    prior = tiny_prior()
    assert prior.fits_slices((1, 7, 16, 16)) and not prior.fits_slices((3, 7, 16, 16))
    with pytest.raises(ValueError, match=r"got \(2, 3, 5, 32, 32\)"):
        prior.predict(torch.zeros(2, 3, 5, 32, 32), 10.0)
