"""What problems of CT slices share: images in HU, judged inside the body."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from deft_ct.evaluation.problem import Floats, Mask, Problem
from deft_ct.measurement.measurement import Measurement
from deft_ct.problems.ct_metrics import EDGE_HU_PER_PIXEL, body_mask


class HounsfieldProblem(Problem):
    """Slices in HU. Subclasses say where data and truth come from."""

    unit = "HU"
    kind = "slice"

    @cached_property
    def body(self) -> NDArray[np.bool_]:
        """``(N, H, W)``, see :func:`~deft_ct.problems.ct_metrics.body_mask`."""
        return body_mask(self.truth)

    @property
    def mask(self) -> Mask:
        """The body."""
        return self.body

    def to_numpy(self, values: Tensor) -> Floats:
        """``(B, 1, H, W)`` as ``(B, H, W)``."""
        found: Floats = values[:, 0].cpu().numpy()
        return found

    def release(self) -> None:
        """Forget data, truth and body."""
        super().release()
        self.__dict__.pop("body", None)


def body_regions(truth: Floats, body: Mask) -> dict[str, Mask]:
    """Parts of the body, from the true image.

    Args:
        truth: ``(n, H, W)`` HU.
        body: ``(n, H, W)``.

    Returns:
        ``"body"``. ``"edges"`` has a smoothed gradient above 60 HU a pixel. Away from edges, ``"soft_tissue"`` is -150
        to 150 HU, ``"lung"`` below -500 HU, and ``"interior"`` everything at least 4 pixels inside the body.
    """
    smooth = np.stack([ndimage.gaussian_filter(s.astype(np.float64), 1.0) for s in truth])
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(s.astype(np.float64), 1.0) for s in truth])
    edges = body & (gradient > EDGE_HU_PER_PIXEL)
    calm = body & ~edges
    inside = np.stack([ndimage.binary_erosion(s, iterations=4) for s in body])
    return {
        "body": body,
        "interior": calm & inside,
        "edges": edges,
        "soft_tissue": calm & (np.abs(smooth) < 150),
        "lung": calm & (smooth < -500),
    }


def pixel_size(measurement: Measurement) -> float:
    """Side of the pixels of a ray transform in mm, the mean of both; NaN for an operator without a geometry."""
    geometry = getattr(measurement.operator, "geometry", None)
    return float(np.mean(getattr(geometry, "pixel_mm", math.nan)))
