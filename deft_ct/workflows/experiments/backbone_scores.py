"""What a prior of backbones draws, and how methods scaffold the motifs of a data set: geometry, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deft_ct.datasets.backbones import MotifCut
from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import ddim
from deft_ct.diffusion.schedule import time_grid
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform
from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.reconstructor import conditional_denoiser
from deft_ct.methods.guided.replacement import replaced
from deft_ct.operators.noise import GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein import geometry, secondary
from deft_ct.protein.ensemble import superposed
from deft_ct.protein.scaffolds import scores
from deft_ct.protein.scale import BACKBONE_RANGE, SPREAD, Angstrom
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.seeds import generator_for, normal_like

TOLERANCE = 0.1
"""Standard deviation of the coordinates of a motif, angstrom."""


@torch.no_grad()
def drawn_chains(prior: Prior, lengths: Sequence[int], *, steps: int, seed: int) -> list[Tensor]:
    """One ancestral sample of the prior for each length, ``(N, 3)`` in angstrom; each depends on its number alone."""
    times = time_grid(prior.schedule, steps, spacing="log_snr")
    found = []
    for number, length in enumerate(lengths):
        generator = generator_for(seed, "backbone", number)
        start = normal_like(torch.zeros(1, length, 3), [generator])
        sample = ddim(prior.predict, start, prior.schedule, times, eta=1.0, generators=[generator])
        found.append(BACKBONE_RANGE.from_prior(sample[0]))
    return found


def chain_geometry(chain: Tensor) -> dict[str, float]:
    """Of a chain ``(N, 3)`` in angstrom: bonds, clashes, size, secondary structure and hand of its helices."""
    x = chain.detach().double().cpu()
    low, high = geometry.TRANS_STEP
    helix, strand = secondary.shares(x)
    return {
        "bond_error": float((geometry.steps(x) - 0.5 * (low + high)).square().mean().sqrt()),
        "valid_bonds": float(geometry.valid_bonds(x)), "clashes": float(geometry.clashes(x)),
        "compactness": float(geometry.compactness(x)), "helix": float(helix), "strand": float(strand),
        "left_helix": float(geometry.helix_hands(x)[1]),
    }  # fmt: skip


def motif_measurement(cut: MotifCut) -> Measurement:
    """What is known of the chain of a problem."""
    motif = Motif(len(cut.chain), range(cut.start, cut.stop), cut.template)
    return Measurement(motif, GaussianNoise(TOLERANCE), units=Angstrom())


def scaffold_scores(method: Reconstructor, cut: MotifCut, *, samples: int, seed: int) -> list[dict[str, Any]]:
    """Scores of the samples of a method for one problem, with the evaluations and seconds of each."""
    measurement = motif_measurement(cut)
    result = method.reconstruct(
        cut.template[None], measurement, num_samples=samples, seed=seed, image_ids=[cut.name]
    )  # fmt: skip
    chains = result.mean[:, None] if result.samples is None else result.samples
    motif, cost = measurement.operator, result.provenance
    assert isinstance(motif, Motif)
    each = {
        "evaluations": cost["network_evaluations_per_image"] / samples, "seconds": cost["seconds_per_image"] / samples
    }  # fmt: skip
    return [scores(chain, motif, [(cut.start, cut.stop)]).to_dict() | each for chain in chains[0]]


@torch.no_grad()
def denoising_errors(
    prior: Prior, htransform: HTransform | None, cuts: Sequence[MotifCut], *, sigma: float, seed: int
) -> list[float]:
    """Error of the estimate outside of the motif, given the motif, at one noise level.

    The gate before any sampling: an h-transform that estimates the rest of a chain no better than replacement has
    learned nothing.

    Args:
        prior: the frozen prior.
        htransform: the h-transform; None for replacement.
        cuts: problems with known chains.
        sigma: noise of the coordinates, angstrom.
        seed: of the noise.

    Returns:
        For each problem the root mean square distance of a residue from its place, angstrom, after the superposition of
        the whole chain.
    """
    schedule = prior.schedule
    time = float((schedule.sigmas - sigma / SPREAD).abs().argmin())
    found = []
    for cut in cuts:
        likelihood = motif_measurement(cut).likelihood(cut.template[None], BACKBONE_RANGE)
        x0 = BACKBONE_RANGE.to_prior(cut.chain.ca[None])
        noise = normal_like(x0, [generator_for(seed, "gate", cut.name)])
        x_t = schedule.add_noise(x0, noise, torch.tensor([time]))
        if htransform is None:
            estimate = replaced(likelihood, prior.denoise(x_t, time))
        else:
            condition = condition_for(likelihood, htransform)
            estimate, _ = conditional_denoiser(prior, htransform, likelihood, condition)(x_t, time)
        moved = superposed(BACKBONE_RANGE.from_prior(estimate[0]), cut.chain.ca)
        rest = torch.ones(len(cut.chain), dtype=torch.bool)
        rest[cut.start : cut.stop] = False
        away = (moved - cut.chain.ca.double())[rest]
        found.append(float(away.square().sum(-1).mean().sqrt()))
    return found
