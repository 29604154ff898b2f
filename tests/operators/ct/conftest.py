"""Shared pieces of the CT tests: random geometries, closed-form sinograms, the backends to test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from deft_ct.operators.ct import FanGeometry, ParallelGeometry

Ellipse = tuple[float, float, float, float, float, float]
"""Value, centre x, centre y, half axes a and b, angle of the first axis (mm, radians)."""


def ellipse_line_integrals(origin: np.ndarray, direction: np.ndarray, ellipses: list[Ellipse]) -> np.ndarray:
    """Closed form: a line meets a unit disc in a chord; an ellipse is an affine image of it."""
    total = np.zeros(origin.shape[:-1])
    for value, cx, cy, a, b, phi in ellipses:
        turn = np.array([[math.cos(phi), math.sin(phi)], [-math.sin(phi), math.cos(phi)]])
        o = ((origin - [cx, cy]) @ turn.T) / [a, b]
        d = (direction @ turn.T) / [a, b]
        dd, od, oo = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1)
        total += value * 2 * np.sqrt(np.maximum(od**2 - dd * (oo - 1), 0)) / dd
    return total


def ellipse_image(geometry: Any, ellipses: list[Ellipse], oversampling: int = 8) -> np.ndarray:
    """The phantom averaged over each pixel."""
    fine = geometry.refined(oversampling)
    (height, width), (dy, dx) = fine.image_shape, fine.pixel_rc
    x = (np.arange(width) - (width - 1) / 2) * dx
    y = ((height - 1) / 2 - np.arange(height)) * dy
    image = np.zeros((height, width))
    for value, cx, cy, a, b, phi in ellipses:
        u = (x[None] - cx) * math.cos(phi) + (y[:, None] - cy) * math.sin(phi)
        v = -(x[None] - cx) * math.sin(phi) + (y[:, None] - cy) * math.cos(phi)
        image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    h, w = geometry.image_shape
    return image.reshape(h, oversampling, w, oversampling).mean((1, 3))


@st.composite
def geometries(draw: st.DrawFn, *, kinds: tuple[str, ...] = ("parallel", "flat", "curved"), size: int = 12) -> Any:
    """Small random scans: odd and even sizes, non-square, rectangular pixels, arbitrary angles, offsets."""
    kind = draw(st.sampled_from(kinds))
    pixel = draw(st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)))
    common: dict[str, Any] = {
        "image_shape": (draw(st.integers(1, size)), draw(st.integers(1, size))),
        "pixel_mm": pixel,
        "angles": draw(st.lists(st.floats(-7, 7), min_size=1, max_size=6)),
        "detectors": draw(st.integers(1, 2 * size)),
        "detector_mm": draw(st.floats(0.3, 3)),
        "detector_offset_mm": draw(st.floats(-3, 3)),
        "axis_offset_mm": draw(st.floats(-3, 3)),
    }
    if kind == "parallel":
        return ParallelGeometry(**common)
    to_center = draw(st.floats(60, 300))
    return FanGeometry(
        **common,
        source_to_center_mm=to_center,
        source_to_detector_mm=to_center * draw(st.floats(1, 3)),
        detector=kind,
    )


@pytest.fixture(scope="session")
def line_integrals() -> Callable[[Any, list[Ellipse]], torch.Tensor]:
    """Closed-form sinogram of ellipses for a geometry."""

    def make(geometry: Any, ellipses: list[Ellipse]) -> torch.Tensor:
        rays = geometry.rays()
        return torch.from_numpy(ellipse_line_integrals(rays.origin, rays.direction, ellipses))

    return make


@pytest.fixture(scope="session")
def phantom_image() -> Callable[..., torch.Tensor]:
    """Area-averaged image of ellipses on the grid of a geometry."""

    def make(geometry: Any, ellipses: list[Ellipse], oversampling: int = 8) -> torch.Tensor:
        return torch.from_numpy(ellipse_image(geometry, ellipses, oversampling))

    return make


@pytest.fixture(scope="session")
def random_geometries() -> Callable[..., st.SearchStrategy[Any]]:
    """The strategy :func:`geometries`, for ``data.draw``."""
    return geometries
