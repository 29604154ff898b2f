"""How networks are told the scan: a small network into the embedding of the time, and a spread that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

SCAN_FEATURES = 4
"""Numbers that describe a scan, see ``htransform.features.scan_features``."""


def scan_embedding(width: int) -> nn.Sequential:
    """A network from the scan features ``(B, SCAN_FEATURES)`` to ``(B, width)`` that starts at zero."""
    into = nn.Linear(128, width)
    nn.init.zeros_(into.weight)
    nn.init.zeros_(into.bias)
    return nn.Sequential(nn.Linear(SCAN_FEATURES, 128), nn.SiLU(), into)


def spread_of(spread: float, slopes: Sequence[float], scan: Tensor | None, like: Tensor) -> Tensor:
    """``spread exp(slopes . scan)`` of each image, or ``spread`` for all, shaped to broadcast over ``like``.

    Args:
        spread: at the scan whose features are zero.
        slopes: ``SCAN_FEATURES`` numbers, or none.
        scan: ``(B, SCAN_FEATURES)``; None without slopes.
        like: ``(B, C, H, W)``, gives dtype and device.

    Raises:
        ValueError: there are slopes and no scan features.
    """
    if not slopes:
        return like.new_full((1, 1, 1, 1), spread)
    if scan is None:
        raise ValueError("the spread follows the scan features of the measurement: use condition_for")
    slope = (scan.to(like) * like.new_tensor(tuple(slopes))).sum(1)
    return spread * slope.exp()[:, None, None, None]
