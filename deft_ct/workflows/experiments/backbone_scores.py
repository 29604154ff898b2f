"""What a prior of backbones draws, and the error of estimates outside of a motif: geometry, chain by chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deft_ct.datasets.backbones import MotifCut
from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import Denoiser, ddim
from deft_ct.diffusion.schedule import Schedule, time_grid
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft import HTransform
from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.denoiser import conditional_denoiser
from deft_ct.methods.guided.replacement import replaced
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.protein import geometry, secondary
from deft_ct.protein.ensemble import superposed
from deft_ct.protein.scale import BACKBONE_RANGE, SPREAD
from deft_ct.runtime.seeds import generator_for, normal_like
from deft_ct.workflows.experiments.backbone_problems import cut_problem

Conditional = Callable[[Likelihood], Denoiser]
"""Gives the denoiser of chains given the data of a motif."""


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


def by_replacement(prior: Prior) -> Conditional:
    """The estimate of a prior, whose motif residues give way to the motif."""

    def given(likelihood: Likelihood) -> Denoiser:
        def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
            x0 = replaced(likelihood, prior.denoise(x_t, t))
            return x0, prior.schedule.eps_from_x0(x_t, x0, torch.as_tensor(t))

        return denoise

    return given


def by_htransform(prior: Prior, htransform: HTransform) -> Conditional:
    """The estimate of a prior with its h-transform."""
    return lambda likelihood: conditional_denoiser(
        prior, htransform, likelihood, condition_for(likelihood, htransform)
    )  # fmt: skip


def by_amortised(model: AmortisedModel) -> Conditional:
    """The estimate of a fine-tuned prior."""
    return model.denoiser


@torch.no_grad()
def denoising_errors(
    schedule: Schedule, conditional: Conditional, cuts: Sequence[MotifCut], *, sigma: float, seed: int
) -> list[float]:
    """Error of the estimate outside of the motif, given the motif, at one noise level.

    The gate before any sampling: a network that estimates the rest of a chain no better than replacement has learned
    nothing.

    Args:
        schedule: of the prior.
        conditional: gives the estimate, from a noisy chain and the motif.
        cuts: problems with known chains.
        sigma: noise of the coordinates, angstrom.
        seed: of the noise.

    Returns:
        For each problem the root mean square distance of a residue from its place, angstrom, after the superposition of
        the whole chain.
    """
    time = float((schedule.sigmas - sigma / SPREAD).abs().argmin())
    found = []
    for cut in cuts:
        likelihood = cut_problem(cut).measurement.likelihood(cut.template[None], BACKBONE_RANGE)
        x0 = BACKBONE_RANGE.to_prior(cut.chain.ca[None])
        noise = normal_like(x0, [generator_for(seed, "gate", cut.name)])
        x_t = schedule.add_noise(x0, noise, torch.tensor([time]))
        estimate, _ = conditional(likelihood)(x_t, time)
        moved = superposed(BACKBONE_RANGE.from_prior(estimate[0]), cut.chain.ca)
        rest = torch.ones(len(cut.chain), dtype=torch.bool)
        rest[cut.start : cut.stop] = False
        away = (moved - cut.chain.ca.double())[rest]
        found.append(float(away.square().sum(-1).mean().sqrt()))
    return found
