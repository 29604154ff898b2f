"""Guidance: the measurement-consistency feature of the estimate ``x0`` that the h-transform network sees.

Each kind is an object, looked up by the name that a configuration stores (:func:`guidance_for`). Two kinds depend on
the noise level: they give the exact answer under a simple assumption, by conjugate gradients.

The guidance of DEFT (arXiv 2406.01781, eq. 12) is the gradient of the likelihood at ``x0h``, for Gaussian noise
``A^T Sigma^-1 (y - A x0h)``. Its size follows the noise, as ``1 / sigma_y^2``, and the norm of the operator; for
noise-free data it is infinite. Here it is therefore multiplied by the step (:class:`ScoreGuidance`) that brings ``x0h``
towards the data without going too far.

If ``x0 | x_t`` is ``N(x0h, C)`` and the data are ``A x0`` with noise of covariance ``Sigma``, the conditional estimate
is ``x0h + C A^T (A C A^T + Sigma)^-1 (y - A x0h)``. The gradient is only its last factors; the network must learn the
preconditioner. For ``C = r^2 I`` the correction is,
by the push-through identity, the minimiser of

    1/2 |y - A(x0h + d)|^2_{Sigma^-1} + |d|^2 / (2 r^2),

and a few conjugate-gradient steps come near it. For CT they use the same preconditioner as TV, and ``Sigma`` is white
noise of the mean variance. The true weights of the rays span two orders of magnitude; with them five steps cover only
about half of the distance. Without them (128 x 128, 60 views) five steps leave a smaller error than FBP does.

**The standard deviation r.** Suppose that images follow ``N(m, q^2 I)``. Given ``x_t``, each pixel then has the
variance ``r^2 = q^2 sigma^2 / (q^2 + sigma^2)`` with ``sigma^2 = (1 - abar) / abar``. For little noise ``r`` is close
to ``sigma``. If ``x_t`` carries no information, ``r`` is ``q``. PiGDM chooses ``q = 1``. Neighbouring pixels of real
images depend on each other, so a denoiser removes more noise than this formula says. Therefore ``q``
(``HTransformConfig.guidance_spread``) is smaller than the standard deviation of the pixels.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.projection import Projecting

IMAGE_SPREAD = 0.5
"""Standard deviation of the pixels of images in [-1, 1]; the limit of ``r`` for the step of the score."""


class Guidance(abc.ABC):
    """A measurement-consistency feature, of the shape of the image that it belongs to.

    Attributes:
        has_settings: whether the feature follows ``HTransformConfig.guidance_spread`` and ``guidance_steps``.
        compares: whether the network also sees the difference to the initial reconstruction, both corrected by the
            data.
        is_step: whether ``x0`` plus the feature is a better estimate than ``x0`` at every noise level. The h-transform
            without an initial reconstruction then starts from their sum.
    """

    has_settings: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    is_step: ClassVar[bool] = False

    @abc.abstractmethod
    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """The feature of an estimate of the prior.

        Args:
            likelihood: the measurement with its data, in the prior's range.
            x0: ``(B, *image_shape)``, Tweedie estimate of the prior.
            sigma: noise of ``x_t`` relative to the signal, ``(B,)``.

        Raises:
            ValueError: the kind does not support the operator.
        """

    def of_initial(self, likelihood: Likelihood, initial: Tensor, spread: float) -> Tensor:
        """The feature of the initial reconstruction, whose typical error is ``spread``: the back-projected residual."""
        return self.of_estimate(likelihood, initial, initial.new_full((len(initial),), spread))


class ScoreGuidance(Guidance):
    """The gradient of the log likelihood (DEFT eq. 12), times a step that puts it in the units of ``x0``.

    For data with variance ``v`` and an operator of norm ``n`` (both seen from the prior's range), and ``x0 | x_t`` with
    the variance ``r^2`` of the module, the step is ``r^2 v / (r^2 n^2 + v)``. It is the largest one under which no
    component of ``x0`` passes its value in the exact correction for ``C = r^2 I``. It follows the noise, the operator
    and the time: the feature stays within the error of ``x0`` whatever they are, noise-free data included.
    """

    is_step: ClassVar[bool] = True

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        gradient = likelihood.score(x0)
        curvature = _mean_precision(likelihood) * _norms(likelihood).square()
        # Noise-free data have no precision of their own; their gradient is that of unit variance.
        rest = torch.zeros_like(curvature) if likelihood.noise_weights is None else 1.0
        variance = belief_spread(sigma, IMAGE_SPREAD).square().to(curvature)
        return gradient * per_sample(variance / (variance * curvature + rest), x0)


class AdjointGuidance(Guidance):
    """The weighted back-projection of the residual, divided by its response to a constant image (one SIRT step).

    It is in the units of ``x0``. The response is a bound of the operator's gain, pixel by pixel, only where all of its
    entries have one sign, as line integrals and blurs. An operator with entries of both signs may answer a constant
    image with values near zero or below. It and nonlinear ones are divided by the square of their norm.
    """

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        operator, scale = likelihood.operator, likelihood.to_physical.scale
        gradient = operator.vjp(likelihood.to_physical(x0), likelihood.weights * likelihood.residual(x0))
        if not isinstance(operator, LinearOperator):
            return gradient * scale / self._bound(likelihood, x0)
        response = operator.adjoint(likelihood.weights * operator(torch.ones_like(x0)))
        floor = 1e-3 * response.amax((-2, -1), keepdim=True)
        step = gradient / (response.clamp_min(floor) * scale)
        mixed = (response < 0).flatten(1).any(1)
        if bool(mixed.any()):
            step = torch.where(per_sample(mixed, x0).bool(), gradient * scale / self._bound(likelihood, x0), step)
        return step

    @staticmethod
    def _bound(likelihood: Likelihood, x0: Tensor) -> Tensor:
        return per_sample(_mean_precision(likelihood) * _norms(likelihood).square(), x0)


class PseudoInverseGuidance(Guidance):
    """The pseudo-inverse (for CT, filtered back-projection) of the residual, in the units of ``x0``."""

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return likelihood.operator.pseudo_inverse(likelihood.residual(x0)) / likelihood.to_physical.scale


class DataGuidance(Guidance):
    """The pseudo-inverse of the data themselves, in the range of ``x0``, which it does not depend on.

    ``A* y`` in the ablation of the paper, whose CT code also takes filtered back-projection for ``A*``.
    """

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return likelihood.pseudo_inverse().to(x0)


class ProjectGuidance(Guidance):
    """The way from the estimate to the nearest image that has the data, for operators that know it.

    Its sum with the estimate is the replacement of what the data determine.
    """

    is_step: ClassVar[bool] = True

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        operator, to_physical = likelihood.operator, likelihood.to_physical
        if not isinstance(operator, Projecting):
            raise ValueError(
                f"project guidance needs an operator with a projection, and {type(operator).__name__} has none"
            )
        x = to_physical(x0)
        return to_physical.inverse(operator.project(x, likelihood.y)) - to_physical.inverse(x)


@dataclass(frozen=True, kw_only=True)
class ConjugateGradientGuidance(Guidance):
    """The correction of :func:`proximal_correction` with the standard deviation ``r`` of the module.

    Args:
        spread: ``q``, in the prior's range.
        steps: conjugate-gradient iterations.
    """

    has_settings: ClassVar[bool] = True
    is_step: ClassVar[bool] = True
    spread: float = 0.2
    steps: int = 5

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return proximal_correction(likelihood, x0, belief_spread(sigma, self.spread), iterations=self.steps)

    def of_initial(self, likelihood: Likelihood, initial: Tensor, spread: float) -> Tensor:
        """See :class:`Guidance`; the standard deviation is ``spread`` at every noise level."""
        width = initial.new_full((len(initial),), spread)
        return proximal_correction(likelihood, initial, width, iterations=self.steps)


@dataclass(frozen=True, kw_only=True)
class SplitGuidance(Guidance):
    """The correction with ``r = q`` at every noise level: a regularised pseudo-inverse of the residual.

    The network also sees what of ``x0h - initial`` is left when both are corrected in this way: the part in the null
    space of ``A``, about which the data hold no information.

    Args:
        spread: ``q``, in the prior's range.
        steps: conjugate-gradient iterations.
    """

    has_settings: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    spread: float = 0.2
    steps: int = 5

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return proximal_correction(likelihood, x0, x0.new_full((len(x0),), self.spread), iterations=self.steps)


@dataclass(frozen=True, kw_only=True)
class ReliableGuidance(Guidance):
    """A guidance of the reliable part of an estimate, see :func:`reliable_share`.

    Args:
        of: the guidance.
    """

    of: Guidance

    def of_estimate(self, likelihood: Likelihood, x0: Tensor, sigma: Tensor) -> Tensor:
        """See :class:`Guidance`."""
        return self.of.of_estimate(likelihood, x0 * per_sample(reliable_share(sigma), x0), sigma)

    def of_initial(self, likelihood: Likelihood, initial: Tensor, spread: float) -> Tensor:
        """See :class:`Guidance`; an initial reconstruction is reliable."""
        return self.of.of_initial(likelihood, initial, spread)


GUIDANCES: dict[str, Callable[[float, int], Guidance]] = {
    "score": lambda spread, steps: ScoreGuidance(),
    "adjoint": lambda spread, steps: AdjointGuidance(),
    "fbp": lambda spread, steps: PseudoInverseGuidance(),
    "data": lambda spread, steps: DataGuidance(),
    "cg": lambda spread, steps: ConjugateGradientGuidance(spread=spread, steps=steps),
    "split": lambda spread, steps: SplitGuidance(spread=spread, steps=steps),
    "project": lambda spread, steps: ProjectGuidance(),
}
"""The kinds by the name that is stored with a model; an entry more is one kind more."""


def guidance_for(kind: str, *, spread: float = 0.2, steps: int = 5) -> Guidance:
    """The guidance of a name.

    Args:
        kind: a key of :data:`GUIDANCES`.
        spread: standard deviation of the images, in the prior's range; used by "cg" and "split".
        steps: conjugate-gradient iterations; used by "cg" and "split".

    Raises:
        ValueError: the name is unknown.
    """
    if kind not in GUIDANCES:
        raise ValueError(f"unknown guidance {kind!r}; known: {', '.join(GUIDANCES)}")
    return GUIDANCES[kind](spread, steps)


PRIOR_REACH = 25.0
"""Noise, relative to the signal, where the error of a trained prior's estimate is about the spread of images: the
prediction of the noise is off by some 2 %, and counts this many times."""


def reliable_share(sigma: Tensor, reach: float = PRIOR_REACH) -> Tensor:
    """Factor of the prior's estimate of the image at the noise ``sigma``; 1 until near the reach, 1/2 there."""
    return 1 / (1 + (sigma / reach).square())


def _norms(likelihood: Likelihood) -> Tensor:
    """Norm of the operator on the prior's range, ``(B,)``."""
    y, scale = likelihood.y, likelihood.to_physical.scale
    steepness = scale.abs().flatten().to(y) if isinstance(scale, Tensor) else y.new_full((len(y),), abs(scale))
    return steepness * y.new_tensor(likelihood.operator.norms())


def _mean_precision(likelihood: Likelihood) -> Tensor:
    """Mean inverse variance of the data of each image, ``(B,)``."""
    return likelihood.weights.flatten(1).mean(1)


def belief_spread(sigma: Tensor, limit: float) -> Tensor:
    """``r``: standard deviation of ``x0`` given ``x_t`` at the noise ``sigma``, for independent pixels of ``limit``."""
    return sigma * limit / (sigma.square() + limit**2).sqrt()


def proximal_correction(likelihood: Likelihood, x0: Tensor, spread: Tensor, *, iterations: int) -> Tensor:
    """``d`` that minimises ``|y - A(x0 + d)|^2 / (2 v) + |d|^2 / (2 spread^2)``, by conjugate gradients from zero.

    Args:
        likelihood: linear; ``v`` is the mean variance of its data.
        x0: ``(B, *image_shape)`` in the prior's range.
        spread: ``(B,)`` in the prior's range.
        iterations: most iterations.

    Returns:
        Of the shape of ``x0``.

    Raises:
        ValueError: the operator is not linear.
    """
    if not isinstance(likelihood.operator, LinearOperator):
        raise ValueError(
            f"guidance cg and split need a linear operator, got {type(likelihood.operator).__name__}: take score"
        )
    term = DataTerm(likelihood)
    return term.correction(
        x0, (term.sigma / spread).square(), iterations=iterations,
        preconditioner=likelihood.operator.preconditioner(x0),
    )  # fmt: skip
