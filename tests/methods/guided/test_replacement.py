"""Replacement: a motif in a Gaussian chain, and in chains of any pose."""

from __future__ import annotations

import pytest
import torch
from tiny_backbones import tiny_backbone_prior
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianNoise, Selection
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scale import Angstrom
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.evaluations import count_evaluations

CHAIN = 4 * torch.randn(14, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
RESIDUES = [4, 5, 6, 7]


def motif() -> Motif:
    return Motif(14, RESIDUES, CHAIN[RESIDUES])


def measurement() -> Measurement:
    return Measurement(motif(), GaussianNoise(0.1), units=Angstrom())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_every_sample_carries_the_motif_exactly_and_its_mirror_image_never(eta: float) -> None:
    method = load_reconstructor("replacement", prior=tiny_backbone_prior(), steps=6, eta=eta)
    result = method.reconstruct(CHAIN[None, RESIDUES], measurement(), num_samples=3)
    assert result.samples is not None and result.samples.shape == (1, 3, 14, 3)
    assert float(motif().deviation(result.samples).max()) < 1e-2
    mirrored = Motif(14, RESIDUES, -CHAIN[RESIDUES])
    assert float(mirrored.deviation(result.samples).min()) > 0.3


def test_the_rest_is_drawn_from_the_prior() -> None:
    """A prior of independent points N(0, 1), whose denoiser is known: points outside of the motif keep the variance."""

    class Denoiser(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            abar = Schedule().alpha_bar(t).to(x).reshape(-1, 1, 1)
            return abar.sqrt() * x

    prior = Prior(Denoiser(), Schedule(), prediction="sample", image_shape=(14, 3))
    method = load_reconstructor("replacement", prior=prior, steps=250, batch_size=400)
    plain = Measurement(motif(), GaussianNoise(0.1))
    samples = method.reconstruct(CHAIN[None, RESIDUES], plain, num_samples=400).samples
    assert samples is not None
    free = [k for k in range(14) if k not in RESIDUES]
    rest = samples[0][:, free]
    assert float(rest.mean().abs()) < 0.03 and float(rest.std()) == pytest.approx(1.0, abs=0.04)


def test_operators_without_a_projection_are_refused() -> None:
    method = load_reconstructor("replacement", prior=tiny_backbone_prior(), steps=2)
    plain = Measurement(Selection(14, RESIDUES), GaussianNoise(0.1), units=Angstrom())
    with (
        count_evaluations() as count,
        pytest.raises(UnsupportedError, match="replacement needs an operator that knows"),
    ):
        method.reconstruct(CHAIN[None, RESIDUES], plain)
    assert count.total == 0
