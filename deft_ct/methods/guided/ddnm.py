"""Denoising diffusion null-space models for noisy data, DDNM+ (Wang et al. 2023, arXiv 2212.00490, eq. 17 to 19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.diffusion.samplers import ddim_coefficients, pairs
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import ConjugateGradientConfig, GuidedConfig, SliceCouplingConfig
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.spectral import SpectralData
from deft_ct.methods.guided.start import START
from deft_ct.operators.svd import Decomposable
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class DDNMConfig(GuidedConfig, ConjugateGradientConfig, SliceCouplingConfig):
    """How DDNM+ samples.

    Args:
        steps: evaluations of the prior (paper: 100).
        eta: share of fresh noise; above 0 for noisy data, because fresh noise is what hides theirs. The paper uses
            0.85.
        cg_iterations: most conjugate-gradient iterations of a step; not used with a singular value decomposition.
        weighted: statistical weights instead of white noise; not used with a singular value decomposition.

    Raises:
        ValueError: a value is out of range.
    """

    eta: float = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta == 0:
            raise ValueError("eta must lie in (0, 1], got 0: DDNM+ hides the noise of the data in fresh noise")


@dataclass(frozen=True)
class DDNMStep:
    """A step ``x_s = weight x0 + along x_t + fresh n``."""

    weight: float
    along: float
    fresh: float


Rectify = Callable[[Tensor, DDNMStep], tuple[Tensor, Tensor | None]]
"""``(x0, step) -> (corrected x0, noise)``, noise None for plain noise of standard deviation ``step.fresh``."""


class DDNM(PosteriorSampler):
    """Replace what the data determine of each denoised image, as far as the noise of the step allows.

    With a singular value decomposition this is the paper's closed form: coefficient by coefficient, a share of the data
    residual enters and the fresh noise shrinks to make room for the data's. The paper's share, ``min(1, fresh s /
    (weight sigma))``, looks at one step alone. But the noise of the data is the same at every step, so it adds up in
    amplitude, and where singular values are small it soon is far above the noise of the diffusion. Here the share is
    the largest with which the noise of the data, with all that is carried from the steps before, and the fresh noise
    together keep to the noise of the diffusion.

    Without a decomposition (CT), the pseudo-inverse is damped, ``B^T (B B^T + (weight / fresh)^2 S)^-1``, by conjugate
    gradients: the share of one step but for a smooth cut, ``1 / (1 + ratio^-2)`` for ``min(1, ratio)``. The data's
    noise of a step then is at most half the step's, and the step's is left as it is.
    """

    name = "ddnm"
    title = "DDNM+"
    config_type = DDNMConfig
    takes_volumes = True
    can_start_late = True
    needs = "linear"
    search_space: ClassVar[SearchSpace] = {
        "eta": Range(0.1, 1.0),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        schedule, config = self.prior.schedule, self.config
        spectral = has_svd(likelihood)

        def walk(chunk: Chunk) -> Tensor:
            rectify = spectral_rectifier(chunk) if spectral else krylov_rectifier(chunk, config)
            x = chunk.start
            for done, (t, s) in enumerate(pairs(config.times(schedule)), start=1):
                a_t = float(schedule.alpha_bar(t))
                x0, _ = self.prior.predict(x, t)
                signal, direction, fresh = ddim_coefficients(schedule, t, s, config.eta)
                along = direction / (1 - a_t) ** 0.5
                weight = signal - along * a_t**0.5  # of x0 in x_s, with eps = (x_t - sqrt(a_t) x0) / sqrt(1 - a_t)
                x0, noise = rectify(x0, DDNMStep(weight, along, fresh))
                x = weight * x0 + along * x
                if noise is not None:
                    x = x + noise
                elif fresh > 0:
                    x = x + fresh * chunk.normal(x)
                chunk.tick(done)
            return x

        return walk


def has_svd(likelihood: Likelihood) -> bool:
    """Whether the operator has a decomposition with its present settings (a blur may have one for one border only)."""
    if not isinstance(likelihood.operator, Decomposable):
        return False
    try:
        likelihood.operator.svd()
    except ValueError:
        return False
    return True


def spectral_rectifier(chunk: Chunk) -> Rectify:
    """The closed form of the paper's section 3.3 and appendix I, with the data's noise added up over the steps."""
    data = SpectralData(chunk.likelihood)
    measured = data.level.isfinite()
    level = data.level.masked_fill(~measured, 0.0)
    carried = torch.zeros_like(level)  # standard deviation of the data's noise in the present image

    def rectify(x0: Tensor, step: DDNMStep) -> tuple[Tensor, Tensor | None]:
        nonlocal carried
        amplified, before = step.weight * level, step.along * carried
        # The largest u with (before + u)^2 - before^2 <= fresh^2, written without a difference of near numbers.
        room = step.fresh**2 / (before + (before.square() + step.fresh**2).sqrt()).clamp_min(_TINY)
        share = torch.where(amplified <= room, 1.0, room / amplified.clamp_min(_TINY))
        added = share * amplified
        carried = before + added
        coefficients = data.to_spectral(x0)
        corrected = data.from_spectral(coefficients + measured * share * (data.target - coefficients))
        if step.fresh == 0:
            return corrected, None
        spread = (step.fresh**2 - added * (added + 2 * before)).clamp_min(0).sqrt()
        return corrected, data.from_spectral(spread * data.to_spectral(chunk.normal(x0)))

    return rectify


def krylov_rectifier(chunk: Chunk, config: DDNMConfig) -> Rectify:
    """The damped pseudo-inverse, by conjugate gradients."""
    term = DataTerm(chunk.likelihood, weighted=config.weighted, coupling=config.coupling)

    def rectify(x0: Tensor, step: DDNMStep) -> tuple[Tensor, Tensor | None]:
        if term.exact:
            damping = term.sigma.square()
        elif step.fresh > 0:
            damping = (term.sigma * step.weight / step.fresh).square()
        else:
            return x0, None
        return x0 + term.correction(x0, damping, iterations=config.cg_iterations), None

    return rectify
