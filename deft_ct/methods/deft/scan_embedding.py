"""Conditioning on the scan: a small network into the time embedding, and a scan-dependent error scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

SCAN_FEATURES, DIRECTION_FEATURES = 4, 2
"""Numbers that describe a scan, see ``scan_features``, and numbers for the direction of an arc."""
MIRRORED = (1.0, 1.0, 1.0, 1.0, 1.0, -1.0)
"""Factors of these numbers when scan and image are mirrored left to right: a direction changes its sign."""


def check_scan_fields(spread_slopes: Sequence[float], *, scan_features: bool, arc_direction: bool) -> None:
    """Refuse a configuration whose fields on the scan do not fit together.

    Raises:
        ValueError: slopes or a direction without scan features, or another number of slopes.
    """
    if arc_direction and not scan_features:
        raise ValueError("arc_direction needs scan_features=True")
    if spread_slopes and not (scan_features and len(spread_slopes) == SCAN_FEATURES):
        raise ValueError(f"spread_slopes needs scan_features=True and {SCAN_FEATURES} numbers, got {spread_slopes}")


def scan_width(direction: bool) -> int:
    """Numbers that describe a scan, with or without the direction of an arc."""
    return SCAN_FEATURES + (DIRECTION_FEATURES if direction else 0)


def scan_embedding(width: int, direction: bool = False) -> nn.Sequential:
    """A network from the scan features to ``(B, width)`` that starts at zero."""
    into = nn.Linear(128, width)
    nn.init.zeros_(into.weight)
    nn.init.zeros_(into.bias)
    return nn.Sequential(nn.Linear(scan_width(direction), 128), nn.SiLU(), into)


def with_new_features(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights padded to the shape of ``network``: zeros for scan features that they were not trained with."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    return {
        name: functional.pad(value, (0, shapes[name][1] - value.shape[1]))
        if name.endswith("scan_embedding.0.weight") and shapes.get(name, value.shape)[1] > value.shape[1]
        else value
        for name, value in weights.items()
    }


def with_fewer_views(features: Tensor, grouped: float) -> Tensor:
    """The features of a scan of which ``grouped`` views count as one: the first is the logarithm (base 2) of views."""
    if grouped == 1.0:
        return features
    fewer = features.clone()
    fewer[:, 0] -= math.log2(grouped)
    return fewer


def spread_of(spread: float, slopes: Sequence[float], scan: Tensor | None, like: Tensor) -> Tensor:
    """``spread exp(slopes . scan)`` of each image, or ``spread`` for all, shaped to broadcast over ``like``.

    Args:
        spread: at the scan whose features are zero.
        slopes: ``SCAN_FEATURES`` numbers, or none.
        scan: ``(B, SCAN_FEATURES)`` or more; None without slopes.
        like: ``(B, *image_shape)``, gives dtype and device.

    Raises:
        ValueError: there are slopes and no scan features.
    """
    if not slopes:
        return like.new_full((1,) * like.ndim, spread)
    if scan is None:
        raise ValueError("the spread follows the scan features of the measurement: use condition_for")
    slope = (scan[:, : len(slopes)].to(like) * like.new_tensor(tuple(slopes))).sum(1)
    return spread * slope.exp().reshape(-1, *(1,) * (like.ndim - 1))
