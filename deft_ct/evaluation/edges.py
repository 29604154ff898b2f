"""How sharp a reconstruction is at the edges of the true image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deft_ct.evaluation.metrics import Floats, Mask

__all__ = ["edge_slope", "strong_edges"]


def strong_edges(truth: Floats, *, least: float, within: Mask | None = None, sigma_px: float = 1.0) -> Mask:
    """Pixels on the ridge of strong edges: there the gradient is larger than on both sides of the edge.

    These are the points that Canny's detector keeps before it follows lines (Canny 1986,
    doi:10.1109/TPAMI.1986.4767851): maxima of the gradient of a Gaussian along its own direction.

    Args:
        truth: ``(N, H, W)``.
        least: smallest gradient magnitude, in the unit of the image a pixel.
        within: ``(N, H, W)``, where edges are looked for; everywhere by default.
        sigma_px: of the Gaussian whose derivatives are taken, in pixels.

    Returns:
        ``(N, H, W)``.
    """
    found = np.zeros(truth.shape, dtype=np.bool_)
    for n, image in enumerate(truth):
        rows, columns = _gradient(image, sigma_px)
        size = np.hypot(rows, columns)
        unit = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        at = np.indices(image.shape, dtype=np.float64)
        step = np.stack([rows * unit, columns * unit])
        ahead, behind = (ndimage.map_coordinates(size, at + k * step, order=1, mode="nearest") for k in (1, -1))
        found[n] = (size >= least) & (size >= ahead) & (size > behind)
    return found if within is None else found & within


def edge_slope(recon: Floats, truth: Floats, edges: Mask, *, sigma_px: float = 1.0) -> NDArray[np.float64]:
    """Slope of the reconstruction across the edges of the truth, as a share of the true slope.

    It is the regression coefficient ``sum g . h / sum g . g`` of the gradient ``h`` of the reconstruction on the
    gradient ``g`` of the truth over the edge pixels, both taken with derivatives of a Gaussian. Noise that does not
    depend on the edges averages out, unlike in a rise distance read off one profile. Edges of the patient as a measure
    of resolution: Sanders, Hurwitz and Samei 2016, doi:10.1118/1.4961984. If the truth is a straight edge blurred by a
    Gaussian of width t, and the reconstruction blurs it by another of width b, the value is
    ``sqrt((t^2 + sigma^2) / (t^2 + sigma^2 + b^2))``.

    Args:
        recon: ``(N, H, W)``.
        truth: ``(N, H, W)``.
        edges: ``(N, H, W)``, see :func:`strong_edges`.
        sigma_px: of the Gaussian whose derivatives are taken, in pixels.

    Returns:
        ``(N,)``: 1 where edges are as sharp as in the truth, less where they are blurred, more where they overshoot;
        NaN in an image without edges.
    """
    found = np.full(len(truth), np.nan)
    for n in range(len(truth)):
        if edges[n].any():
            true, seen = (np.stack(_gradient(image, sigma_px))[:, edges[n]] for image in (truth[n], recon[n]))
            found[n] = float((true * seen).sum() / (true * true).sum())
    return found


def _gradient(image: Floats, sigma_px: float) -> tuple[Floats, Floats]:
    values = np.asarray(image, dtype=np.float64)
    rows, columns = (ndimage.gaussian_filter(values, sigma_px, order=order) for order in ((1, 0), (0, 1)))
    return rows, columns
