"""Reconstruction guidance: one walk with a known denoiser by hand, and motifs of a chain in any pose."""

from __future__ import annotations

import pytest
import torch
from tiny_backbones import tiny_backbone_prior
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import ddim_coefficients, pairs
from deft_ct.diffusion.schedule import Schedule, time_grid
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise, Selection
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scale import Angstrom
from deft_ct.runtime.seeds import generator_for, normal_like

CHAIN = 4 * torch.randn(14, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
RESIDUES = [4, 5, 6, 7]


class Denoiser(nn.Module):
    """Of independent points N(0, 1)."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return Schedule().alpha_bar(t).to(x).reshape(-1, 1, 1).sqrt() * x


@pytest.mark.parametrize("weight", [0.5, 2.0])
@pytest.mark.filterwarnings("ignore::UserWarning")  # few steps do not reach the data
def test_a_walk_by_hand(weight: float) -> None:
    """The denoiser's derivative is ``sqrt(abar)``, and the operator's norm is 1."""
    prior = Prior(Denoiser(), Schedule(), prediction="sample", image_shape=(14, 3))
    measurement = Measurement(Selection(14, RESIDUES), GaussianNoise(0.1))
    y = CHAIN[None, RESIDUES]
    method = load_reconstructor("reconstruction_guidance", prior=prior, steps=5, eta=0.0, weight=weight)
    found = method.reconstruct(y, measurement, image_ids=["a"]).mean[0].double()
    schedule = Schedule()
    x = normal_like(torch.empty(1, 14, 3), [generator_for(0, "reconstruction_guidance", "a", 0)])[0].double()
    for t, s in pairs(time_grid(schedule, 5)):
        abar = float(schedule.alpha_bar(t))
        x0 = abar**0.5 * x
        x0[RESIDUES] += weight * abar * (y[0].double() - x0[RESIDUES])
        signal, direction, _ = ddim_coefficients(schedule, t, s, 0.0)
        x = signal * x0 + direction * (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)


def test_guidance_alone_comes_near_the_motif_and_replacement_carries_it() -> None:
    motif = Motif(14, RESIDUES, CHAIN[RESIDUES])
    measurement = Measurement(motif, GaussianNoise(0.1), units=Angstrom())
    prior, y = tiny_backbone_prior(), CHAIN[None, RESIDUES]
    far = load_reconstructor("unconditional", prior=prior, steps=12).reconstruct(y, measurement, num_samples=4)
    options = {"prior": prior, "steps": 12, "weight": 1.0}
    near, carried = (
        load_reconstructor("reconstruction_guidance", replace=replace, **options).reconstruct(
            y, measurement, num_samples=4
        )
        for replace in (False, True)
    )
    assert far.samples is not None and near.samples is not None and carried.samples is not None
    assert float(motif.deviation(near.samples).mean()) < 0.5 * float(motif.deviation(far.samples).mean())
    assert float(motif.deviation(carried.samples).max()) < 1e-2


def test_the_weight_is_positive() -> None:
    with pytest.raises(ValueError, match="weight must be above 0"):
        load_reconstructor("reconstruction_guidance", prior=tiny_backbone_prior(), weight=0.0)
