"""Conditioning: what the h-transform sees of a measurement, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.htransform import Condition, HTransform
from deft_ct.methods.deft.scan_embedding import SCAN_FEATURES, with_fewer_views
from deft_ct.methods.initial import check_initial
from deft_ct.methods.supervised.model import check_unrolled
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.projection import Projecting
from deft_ct.reconstructor import UnsupportedError

SPREAD_SLOPES = (-0.3, 1.0, -0.1, 0.0)
"""``HTransformConfig.spread_slopes`` for the TV reconstruction: how its error on val grows with fewer views, a smaller
angular range and more noise; fitted to scans of 15 to 200 views, 90 to 180 degrees and 1e4 to 1e6 photons."""


class Start(NamedTuple):
    """What is known of the data before the networks: images ``(B, *image_shape)`` in the prior's range.

    Args:
        initial: the initial reconstruction, not refined.
        residual: its guidance, by that of the refinement where there is one.
        second: the second reconstruction, where the refinement has one.
    """

    initial: Tensor
    residual: Tensor
    second: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> Start:
        """All images changed in the same way."""
        second = None if self.second is None else change(self.second)
        return Start(change(self.initial), change(self.residual), second)


@torch.no_grad()
def condition_for(likelihood: Likelihood, htransform: HTransform, *, tabulated: Start | None = None) -> Condition:
    """Compute the initial reconstruction, its back-projected residual and what the operator says of the measurement.

    Args:
        likelihood: the measurement with its data, in the prior's range; see ``Likelihood.told``.
        htransform: gives the initial reconstruction, its refinement and the guidance.
        tabulated: the initial reconstruction and what belongs to it, if they were computed before.

    Returns:
        The condition, empty when the h-transform uses neither an initial reconstruction nor features. Images of an
        estimate are at their ``absent`` value until :func:`with_estimate`.

    Raises:
        ValueError: the h-transform wants features and the operator has none.
    """
    config, guidance = htransform.config, htransform.guidance
    features, images = None, declared_images(likelihood, config.operator_images)
    if config.scan_features:
        features = with_fewer_views(scan_features(likelihood, direction=config.arc_direction), likelihood.grouped)
    if htransform.initial is None:
        return Condition(features=features, images=images)
    initial, residual, second = (htransform.initial(likelihood), None, None) if tabulated is None else tabulated
    unrefined, own = None, htransform.refinement
    if own is not None:
        if residual is None:
            residual = own.guidance.of_initial(likelihood, initial, own.config.spread)
            second = own.second_image(likelihood, htransform.precision)
        unrefined, declared = initial, declared_images(likelihood, own.config.operator_images)
        initial, residual = htransform.refine(initial, residual, features, declared, second), None
    if residual is None:
        residual = guidance.of_initial(likelihood, initial, config.spread)
    return Condition(initial=initial, residual=residual, features=features, images=images, unrefined=unrefined)


@torch.no_grad()
def with_estimate(condition: Condition, likelihood: Likelihood, htransform: HTransform, x0: Tensor) -> Condition:
    """The condition with the operator's images of an estimate; itself when the h-transform sees none.

    Args:
        condition: from :func:`condition_for`, one row for each image.
        likelihood: the measurement with its data, in the prior's range.
        htransform: names the images.
        x0: Tweedie estimate of the prior, ``(B, *image_shape)``.
    """
    wanted = [image.name for image in htransform.config.operator_images]
    if condition.images is None or not any(image.of_estimate for image in htransform.config.operator_images):
        return condition
    known = [image for image in likelihood.operator.feature_images if image.of_estimate]
    found = likelihood.operator.estimate_images(likelihood.to_physical(x0), likelihood.y)
    images = condition.images.clone()
    for name, values in _by_name(likelihood, known, found).items():
        if name in wanted:
            images[:, wanted.index(name)] = values.to(images)
    return replace(condition, images=images)


def declared_images(likelihood: Likelihood, wanted: Sequence[FeatureImage]) -> Tensor | None:
    """What the operator declares of the data.

    Args:
        likelihood: the measurement with its data, in the prior's range.
        wanted: images by their names.

    Returns:
        ``(B, F, *image_shape)`` in the order of ``wanted``, with the ``absent`` value for those that the operator does
        not declare; None where nothing is wanted.
    """
    if not wanted:
        return None
    known = [image for image in likelihood.operator.feature_images if not image.of_estimate]
    found = likelihood.operator.data_images(likelihood.y)
    named = _by_name(likelihood, known, found)
    like = found[:, 0] if found.shape[1] else found.new_zeros((len(found), *found.shape[2:]))
    return torch.stack([named.get(image.name, torch.full_like(like, image.absent)) for image in wanted], 1)


def _by_name(likelihood: Likelihood, known: Sequence[FeatureImage], found: Tensor) -> dict[str, Tensor]:
    """Images by their names, those with values of the domain in the prior's range."""
    to_physical = likelihood.to_physical
    return {
        image.name: values if image.dimensionless else to_physical.inverse(values)
        for image, values in zip(known, found.unbind(1), strict=True)
    }


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
    if config.guidance == "project" and not isinstance(likelihood.operator, Projecting):
        raise UnsupportedError(
            f"{name} with project guidance needs an operator with a projection, such as Motif, and "
            f"{type(likelihood.operator).__name__} has none"
        )
    known = {image.name for image in likelihood.operator.feature_images}
    if config.operator_images and not known & {image.name for image in config.operator_images}:
        wanted = " or ".join(image.name for image in config.operator_images)
        raise UnsupportedError(
            f"{name} needs an operator that declares the image {wanted}, and {type(likelihood.operator).__name__} "
            f"declares {' and '.join(sorted(known)) or 'none'}"
        )
    if config.guidance in ("fbp", "data"):
        check_initial(name, likelihood, "fbp")
    if config.refinement is not None and config.refinement.second is not None:
        check_unrolled(name, likelihood, told_scan=config.refinement.second.scan_features)
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
