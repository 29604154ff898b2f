"""Initial reconstructions: the quick ones, without a network, that networks and samplers start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.classical.common import StoppingRule
from deft_ct.methods.classical.tv import total_variation
from deft_ct.operators.base import Operator
from deft_ct.operators.differences import difference_scales
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.solvers import conjugate_gradient
from deft_ct.reconstructor import UnsupportedError

Reference = Literal["fbp", "tv"]

TV_STRENGTH = 5.0
"""Weight of the total variation per unit of the prior's range: 250 per 1/mm for a range of 1000 HU a unit."""
TV_ITERATIONS = 16
"""Within 0.8 dB of 40 iterations for full parallel scans; a network does the rest, and training computes it at every
step."""


def check_reference(kind: str) -> None:
    """Refuse an unknown quick reconstruction in a configuration.

    Raises:
        ValueError: it is none of :data:`Reference`.
    """
    if kind not in get_args(Reference):
        raise ValueError(f"unknown reference {kind!r}; known: fbp, tv")


def check_initial(name: str, likelihood: Likelihood, kind: str) -> None:
    """Refuse data that have no initial reconstruction of a kind, before any work.

    Args:
        name: of the method that wants it.
        likelihood: the measurement with its data.
        kind: ``"fbp"``, ``"tv"`` or ``"data"``.

    Raises:
        UnsupportedError: the data are counts before the logarithm. For FBP: the operator has no pseudo-inverse. For TV:
            the operator is not linear, or on neither images ``(H, W)`` nor volumes. For the data: they
            have no image.
    """
    operator = likelihood.operator
    operator_name = type(operator).__name__
    if not likelihood.measurement.post_log(likelihood.y):
        raise UnsupportedError(
            f"{name}: the {kind} reference needs post-log data, {type(likelihood.noise).__name__} here is before the "
            "logarithm: take -log of the transmittance and post_log=True"
        )
    if kind == "fbp" and not operator.has_pseudo_inverse:
        raise UnsupportedError(f"{name} starts from the pseudo-inverse of the operator, and {operator_name} has none")
    if kind == "tv" and not isinstance(operator, LinearOperator):
        raise UnsupportedError(
            f"{name} starts from a TV reconstruction, which needs a linear operator; {operator_name} is not"
        )
    if kind == "data" and not has_data_image(operator):
        raise UnsupportedError(f"{name} starts from the data as an image, and those of {operator_name} have none")
    if kind == "tv" and difference_scales(operator) is None:
        raise UnsupportedError(
            f"{name} starts from a TV reconstruction, which needs an operator on images (H, W) or volumes; "
            f"{operator_name} is on {operator.domain_shape}"
        )


class InitialReconstruction(Protocol):
    """Reconstructs the data of a likelihood."""

    def __call__(self, likelihood: Likelihood) -> Tensor:
        """``(B, *image_shape)`` in the range of the prior.

        Raises:
            ValueError: the measurement is not supported.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PseudoInverseInitial:
    """The pseudo-inverse of the operator: Ram-Lak FBP for CT."""

    def __call__(self, likelihood: Likelihood) -> Tensor:
        """See :class:`InitialReconstruction`."""
        check_post_log(likelihood, "fbp")
        return likelihood.pseudo_inverse()


@dataclass(frozen=True, kw_only=True)
class TotalVariationInitial:
    """A few iterations of total variation, weighted by the noise.

    Args:
        iterations: more where the operator asks for them, see ``Operator.regularisation_hint``.
    """

    iterations: int = TV_ITERATIONS

    @torch.no_grad()
    def __call__(self, likelihood: Likelihood) -> Tensor:
        """See :class:`InitialReconstruction`."""
        check_post_log(likelihood, "tv")
        operator, iterations = likelihood.operator, self.iterations
        if not isinstance(operator, LinearOperator):
            raise ValueError(f"the TV reference needs a linear operator, got {type(operator).__name__}")
        scale = likelihood.to_physical.scale
        strength = torch.as_tensor(TV_STRENGTH, device=likelihood.y.device)
        strength = strength / (scale.flatten(1) if isinstance(scale, Tensor) else scale)
        hint = operator.regularisation_hint(likelihood.y, likelihood.noise_weights)
        if hint is not None:
            strength = strength * hint.strength.reshape(-1, *[1] * (likelihood.y.ndim - len(operator.range_shape) - 1))
            iterations = max(iterations, hint.least_iterations)
        weights = likelihood.measurement.fit_weights(likelihood.y)
        mu, _ = total_variation(
            likelihood.y,
            operator,
            weights=weights,
            strength=strength,
            stopping=StoppingRule(iterations=iterations, tolerance=0.0),
            nonnegative=likelihood.measurement.image_values.nonnegative,
        )
        return likelihood.to_physical.inverse(mu)


@dataclass(frozen=True, kw_only=True)
class DataInitial:
    """The data as an image, for any operator that has one.

    Of a linear operator it is the minimiser of ``|y - A x|^2 / v + |grad x|^2 / d^2 + |x|^2 / q^2`` over images in the
    prior's range, with the mean variance ``v`` of the data: a smooth pseudo-inverse (holes filled from their rims, a
    sharpened blur). Where the domain is not one of images ``(..., H, W)``, the gradient is left out. Of another
    operator it is the first image that it declares of the data.

    Args:
        spread: ``q``, standard deviation of the pixels.
        step: ``d``, standard deviation of the difference of neighbouring pixels.
        iterations: of conjugate gradients, at most.
    """

    spread: float = 1.0
    step: float = 0.15
    iterations: int = 40

    @torch.no_grad()
    def __call__(self, likelihood: Likelihood) -> Tensor:
        """See :class:`InitialReconstruction`."""
        check_post_log(likelihood, "data")
        operator, y = likelihood.operator, likelihood.y
        if not isinstance(operator, LinearOperator):
            return likelihood.to_physical.inverse(operator.data_images(y)[:, 0])
        term = DataTerm(likelihood)
        zero = y.new_zeros(*y.shape[: y.ndim - len(operator.range_shape)], *operator.domain_shape)
        variance = per_sample(term.sigma.square(), zero)

        def matrix(x: Tensor) -> Tensor:
            return term.normal(x) + variance * (x / self.spread**2 + _roughness(x) / self.step**2)

        image, _ = conjugate_gradient(matrix, term.descent(zero), iterations=self.iterations, tolerance=1e-4)
        return image


def _roughness(x: Tensor) -> Tensor:
    """``D^T D x`` with the differences ``D`` of neighbouring pixels; zeros for points ``(B, N, F)``."""
    out = torch.zeros_like(x)
    for axis in (-2, -1) if x.ndim > 3 else ():
        step = x.diff(dim=axis)
        size = step.shape[axis]
        out.narrow(axis, 0, size).sub_(step)
        out.narrow(axis, 1, size).add_(step)
    return out


def has_data_image(operator: Operator) -> bool:
    """Whether the data of an operator have an image, see :class:`DataInitial`."""
    return any(not image.of_estimate and not image.dimensionless for image in operator.feature_images[:1])


INITIALS: dict[str, Callable[[int], InitialReconstruction]] = {
    "fbp": lambda iterations: PseudoInverseInitial(),
    "tv": lambda iterations: TotalVariationInitial(iterations=iterations),
    "data": lambda iterations: DataInitial(),
}
"""The initial reconstructions by the name that is stored with a model; each is made for a number of iterations."""


def initial_for(kind: str, *, iterations: int = TV_ITERATIONS) -> InitialReconstruction:
    """The initial reconstruction of a name.

    Args:
        kind: a key of :data:`INITIALS`: ``"fbp"`` for the pseudo-inverse, ``"tv"`` for total variation, ``"data"``
            for the data as an image.
        iterations: of an iterative one.

    Raises:
        ValueError: the name is unknown.
    """
    if kind not in INITIALS:
        raise ValueError(f"unknown reference {kind!r}; known: {', '.join(INITIALS)}")
    return INITIALS[kind](iterations)


def reference_reconstruction(likelihood: Likelihood, kind: Reference, *, iterations: int = TV_ITERATIONS) -> Tensor:
    """The initial reconstruction of a name, see :func:`initial_for`: ``(B, *image_shape)`` in the prior's range.

    Raises:
        ValueError: the kind is unknown, the data are not on the scale of the operator (counts before the logarithm),
            or TV is asked for and the operator is not linear.
    """
    return initial_for(kind, iterations=iterations)(likelihood)


def check_post_log(likelihood: Likelihood, kind: str) -> None:
    """Refuse data whose mean is not ``A(x)``.

    Raises:
        ValueError: the data are counts before the logarithm.
    """
    if not likelihood.measurement.post_log(likelihood.y):
        raise ValueError(
            f"the {kind} reference needs post-log data, {type(likelihood.noise).__name__} here is before the "
            "logarithm: take -log of the transmittance and post_log=True"
        )
