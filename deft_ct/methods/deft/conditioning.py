"""Conditioning: what the h-transform sees of a measurement, computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.htransform import Condition, HTransform, HTransformConfig
from deft_ct.methods.deft.scan_embedding import SCAN_FEATURES, with_fewer_views
from deft_ct.methods.initial import check_initial
from deft_ct.operators.base import LinearOperator
from deft_ct.reconstructor import UnsupportedError

SPREAD_SLOPES = (-0.3, 1.0, -0.1, 0.0)
"""``HTransformConfig.spread_slopes`` for the TV reconstruction: how its error on val grows with fewer views, a smaller
angular range and more noise; fitted to scans of 15 to 200 views, 90 to 180 degrees and 1e4 to 1e6 photons."""


@torch.no_grad()
def condition_for(
    likelihood: Likelihood, htransform: HTransform, *, tabulated: tuple[Tensor, Tensor] | None = None
) -> Condition:
    """Compute the initial reconstruction, its back-projected residual and the features of the measurement.

    Args:
        likelihood: the measurement with its data, in the prior's range; see ``Likelihood.told``.
        htransform: gives the initial reconstruction, its refinement and the guidance.
        tabulated: the initial reconstruction and its residual, if they were computed before; not refined.

    Returns:
        The condition, empty when the h-transform uses neither an initial reconstruction nor features.

    Raises:
        ValueError: the h-transform wants features and the operator has none.
    """
    config, guidance = htransform.config, htransform.guidance
    features = None
    if config.scan_features:
        features = with_fewer_views(scan_features(likelihood, direction=config.arc_direction), likelihood.grouped)
    if htransform.initial is None:
        return Condition(features=features)
    initial, residual = (htransform.initial(likelihood), None) if tabulated is None else tabulated
    if htransform.refinement is not None:
        if residual is None:
            residual = htransform.refinement.guidance.of_initial(likelihood, initial, config.spread)
        initial, residual = htransform.refine(initial, residual, features), None
    if residual is None:
        residual = guidance.of_initial(likelihood, initial, config.spread)
    return Condition(initial=initial, residual=residual, features=features)


def check_htransform(name: str, config: HTransformConfig, shape: tuple[int, ...], likelihood: Likelihood) -> None:
    """Refuse a measurement that an h-transform cannot be used with, before any work.

    Args:
        name: of the method.
        config: of the h-transform.
        shape: of one image ``(C, H, W)``, or of points ``(N, F)``; the prior takes it.
        likelihood: the measurement with its data.

    Raises:
        UnsupportedError: the network is for other images; or the operator lacks what the initial reconstruction, the
            guidance or the conditioning needs.
    """
    if not config.fits(shape):
        raise UnsupportedError(
            f"{name} needs an h-transform for images of shape {shape}, and this one is for images of shape "
            f"({', '.join(map(str, config.layout))})"
        )
    if config.reference != "none":
        check_initial(name, likelihood, config.reference)
    if config.guidance in ("cg", "split") and not isinstance(likelihood.operator, LinearOperator):
        raise UnsupportedError(f"{name} with {config.guidance} guidance needs a linear operator: use score guidance")
    if config.guidance in ("fbp", "data"):
        check_initial(name, likelihood, "fbp")
    if config.scan_features:
        try:
            scan_features(likelihood)
        except ValueError as error:
            raise UnsupportedError(f"{name} is conditioned on the scan: {error}") from None


def scan_features(likelihood: Likelihood, *, direction: bool = False) -> Tensor:
    """Descriptor of a measurement for conditioning, see ``Operator.features``.

    Args:
        likelihood: of a parallel or fan-beam scan.
        direction: whether to keep the direction of the missing lines, the last two of the features.

    Returns:
        ``(B, 4)`` float32, or ``(B, 6)`` with the direction.

    Raises:
        ValueError: the operator has no features.
    """
    features = likelihood.features
    return features if direction else features[:, :SCAN_FEATURES]
