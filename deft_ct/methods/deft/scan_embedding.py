"""How networks are told the scan: a small network into the embedding of the time, and a spread that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

SCAN_FEATURES, DIRECTION_FEATURES = 4, 2
"""Numbers that describe a scan, see ``htransform.features.scan_features``, and those of the direction of an arc."""
MIRRORED = (1.0, 1.0, 1.0, 1.0, 1.0, -1.0)
"""What these numbers are multiplied by when scan and image are mirrored left to right: a direction changes its sign."""


def scan_embedding(width: int, direction: bool = False) -> nn.Sequential:
    """A network from the scan features to ``(B, width)`` that starts at zero."""
    features = SCAN_FEATURES + (DIRECTION_FEATURES if direction else 0)
    into = nn.Linear(128, width)
    nn.init.zeros_(into.weight)
    nn.init.zeros_(into.bias)
    return nn.Sequential(nn.Linear(features, 128), nn.SiLU(), into)


def with_new_features(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights that tell ``network`` what they told before: zeros for the scan features that they do not know yet."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    return {
        name: functional.pad(value, (0, shapes[name][1] - value.shape[1]))
        if name.endswith("scan_embedding.0.weight") and shapes.get(name, value.shape)[1] > value.shape[1]
        else value
        for name, value in weights.items()
    }


def spread_of(spread: float, slopes: Sequence[float], scan: Tensor | None, like: Tensor) -> Tensor:
    """``spread exp(slopes . scan)`` of each image, or ``spread`` for all, shaped to broadcast over ``like``.

    Args:
        spread: at the scan whose features are zero.
        slopes: ``SCAN_FEATURES`` numbers, or none.
        scan: ``(B, SCAN_FEATURES)`` or more; None without slopes.
        like: ``(B, C, H, W)``, gives dtype and device.

    Raises:
        ValueError: there are slopes and no scan features.
    """
    if not slopes:
        return like.new_full((1, 1, 1, 1), spread)
    if scan is None:
        raise ValueError("the spread follows the scan features of the measurement: use condition_for")
    slope = (scan[:, : len(slopes)].to(like) * like.new_tensor(tuple(slopes))).sum(1)
    return spread * slope.exp()[:, None, None, None]
