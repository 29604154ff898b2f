"""Line integrals of a smooth object, as a sound scan of the tests."""

from __future__ import annotations

import torch

from deft_ct.operators.ct import ParallelGeometry

VIEWS, DETECTORS = 12, 70
GEOMETRY = ParallelGeometry(
    image_shape=(16, 16), pixel_mm=1.0, views=VIEWS, detectors=DETECTORS, detector_mm=1.0,
)  # fmt: skip


def body(lines: int = 1, views: int = VIEWS, detectors: int = DETECTORS, peak: float = 2.0) -> torch.Tensor:
    """Smooth views of an object with five elements of air on each side; another phase in each view and line."""
    place = torch.linspace(-1, 1, detectors - 10, dtype=torch.float64)
    shape = torch.nn.functional.pad(1 - place**2, (5, 5))
    turn = torch.arange(views)[:, None] + 7 * torch.arange(lines)[:, None, None]
    wave = torch.linspace(0, 3, detectors, dtype=torch.float64)
    return peak * shape * (0.9 + 0.1 * (turn + wave).sin())


def transmittances(*, ends: float = 1.0, top: float = 1.0, shadow: float = 0.2, least: float = 0.2) -> torch.Tensor:
    """Two elements of air on each side, the brightest element, a shadow, and one darkest reading."""
    lines = torch.full((1, 10, 20), shadow, dtype=torch.float64)
    lines[..., [0, 1, -2, -1]] = ends
    lines[..., 5] = top
    lines[0, 0, 9] = least
    return lines
