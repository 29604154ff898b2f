"""Diffusion posterior sampling (Chung et al. 2023, arXiv 2209.14687, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import ddim_coefficients, pairs
from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.config import GuidedConfig, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.guided.start import START
from deft_ct.runtime.search_space import Choice, Range, SearchSpace

ZETA_OF_IMAGES = 0.3
"""Default step for images in [-1, 1]: with 1, HDR ends far from the data, and noise is fitted in linear tasks."""


@dataclass(frozen=True, kw_only=True)
class DPSConfig(GuidedConfig):
    """Settings of DPS.

    Args:
        steps: evaluations of the prior, each with one backpropagation through it.
        zeta: step against the gradient of the data misfit. It holds for an operator of norm 1; of a nonlinear one the
            norm is that of its derivative, see ``Operator.norms``. It holds for steps over every time of the prior;
            with fewer steps it is scaled up, by the same factor on every grid. It holds for images of the size that the
            prior was trained for; see :func:`step_of_size` for others. The paper uses 0.3 to 1 (noise 0.05 on
            [-1, 1]; table of appendix D). None is :data:`ZETA_OF_IMAGES` for images in the prior's own range, such as
            photographs, and 1 for images with a scale of their own, such as CT.
        norm: ``"l2"`` descends the norm of the residual (the paper's ``zeta / |y - A x0|``), ``"l2sq"`` half its
            square.
        weighted: statistical weights instead of white noise.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 1000
    zeta: float | None = None
    norm: Literal["l2", "l2sq"] = "l2"
    weighted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zeta is not None:
            check_positive(zeta=self.zeta)


class DPS(PosteriorSampler):
    """Ancestral sampling with a gradient step on the data misfit of the denoised image after each step.

    The norm is that of each sample's own residual. Any differentiable operator will do.
    """

    name = "dps"
    config_type = DPSConfig
    can_start_late = True
    search_space: ClassVar[SearchSpace] = {
        "zeta": Range(0.03, 10.0, log=True),
        "weighted": Choice((True, False)),
        "start": START,
    }

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """The step by the scale of the images."""
        return {"zeta": default_zeta(measurement)}

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        return lambda chunk: gradient_walk(self.prior, chunk, self.config)


def gradient_walk(
    prior: Prior,
    chunk: Chunk,
    config: DPSConfig,
    project: Callable[[Tensor, DataTerm, int], Tensor] | None = None,
) -> Tensor:
    """The sampling of DPS, optionally with a projection of ``x_s`` after each step (MCG).

    Args:
        prior: differentiated at every step.
        chunk: the samples.
        config: settings.
        project: ``project(x_s, term, s)`` is applied to the image of the new time ``s`` (-1 for clean data).

    Returns:
        Clean images ``(B, C, H, W)``.
    """
    schedule = prior.schedule
    term = DataTerm(chunk.likelihood, weighted=config.weighted)
    times = config.times(schedule)
    zeta = (
        (default_zeta(chunk.likelihood.measurement) if config.zeta is None else config.zeta)
        * (times[0] + 1)
        / len(times)
        * step_of_size(prior, chunk.start, config.norm)
    )
    x = chunk.start
    for done, (t, s) in enumerate(pairs(times), start=1):
        x0, eps, gradient = misfit_gradient(prior, term, x, t, config.norm)
        signal, direction, fresh = ddim_coefficients(schedule, t, s, config.eta)
        x = signal * x0 + direction * eps - zeta * gradient
        if fresh > 0:
            x = x + fresh * chunk.normal(x)
        if project is not None:
            x = project(x, term, s)
        chunk.tick(done)
    return x


def step_of_size(prior: Prior, images: Tensor, norm: Literal["l2", "l2sq"]) -> float:
    """Factor of the step for images of another size than those of the prior's training.

    The gradient of the norm of a residual is divided by this norm, which grows with the square root of the number of
    data. Without the factor, a pixel of an image of twice the side would be moved by half as much.

    Args:
        prior: the prior.
        images: ``(B, C, H, W)``.
        norm: of the residual; its square needs no factor.
    """
    if norm == "l2sq" or not prior.is_image:
        return 1.0
    height, width = prior.image_shape[-2:]
    return math.sqrt(images.shape[-2] * images.shape[-1] / (height * width))


def default_zeta(measurement: Measurement) -> float:
    """The step where none is given, see :class:`DPSConfig`."""
    return ZETA_OF_IMAGES if measurement.units is None else 1.0


def misfit_gradient(
    prior: Prior, term: DataTerm, x_t: Tensor, t: float, norm: Literal["l2", "l2sq"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Denoise, and differentiate the data misfit of the denoised image by the noisy one (eq. 14 to 16).

    Args:
        prior: differentiated by its input.
        term: the data term; its operator is scaled to norm 1.
        x_t: ``(B, C, H, W)``.
        t: the time.
        norm: the misfit is ``|y - A x0|_W`` or half its square, of each sample by itself.

    Returns:
        ``(x0, eps, gradient)``, detached, each of the shape of ``x_t``.
    """
    with torch.enable_grad():
        point = x_t.detach().requires_grad_()
        x0, eps = prior.predict(point, t)
        residual = term.residual(x0.detach())
        scale = term.norm.square()
        if norm == "l2":
            length = (term.weights * residual.square()).flatten(1).sum(1).sqrt()
            scale = term.norm * length.clamp_min(torch.finfo(length.dtype).tiny)
        descent = term.pull_back(x0.detach(), term.weights * residual) / per_sample(scale, x_t)
        (gradient,) = torch.autograd.grad(x0, point, -descent)
    return x0.detach(), eps.detach(), gradient
