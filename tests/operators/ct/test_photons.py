"""How many photons the noise of measured line integrals speaks of."""

from __future__ import annotations

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
