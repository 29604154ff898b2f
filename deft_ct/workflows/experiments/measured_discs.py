"""MEASURED scans of the Helsinki Tomography Challenge 2022, and how well images of them agree with a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from torch import Tensor

from deft_ct.datasets.htc2022 import HTCScan, challenge_score, read_htc2022
from deft_ct.io.matlab import read_matlab
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.ct.geometry import PlanarGeometry

Image = NDArray[np.float32]
"""``(H, W)`` in 1/mm."""
SHIPPED_PIXELS = 512
"""Pixels per side of the reference image that the challenge ships."""


def read_disc_scan(path: Path, pixels: int) -> HTCScan:
    """A scan with the field of view of the shipped image.

    Args:
        path: a ``.mat`` file of the challenge.
        pixels: per side of the images to reconstruct, a divisor of 512.
    """
    fine = read_htc2022(path).geometry.pixel_rc[0]
    return read_htc2022(path, image_shape=(pixels, pixels), pixel_mm=SHIPPED_PIXELS / pixels * fine)


def read_shipped_disc(path: Path, pixels: int, pixel_mm: float) -> Image:
    """The full-angle FBP image that the challenge ships, in 1/mm.

    Args:
        path: its ``.mat`` file, in units of one over its own pixel size.
        pixels: per side of the result, a divisor of 512; pixels are averaged.
        pixel_mm: size of a pixel of the result.
    """
    image = np.asarray(read_matlab(path, ("reconFullFbp",))["reconFullFbp"])
    step = SHIPPED_PIXELS // pixels
    averaged = image.reshape(pixels, step, pixels, step).mean((1, 3))
    return (averaged * step / pixel_mm).astype(np.float32)


def agreement_inside(image: Image, reference: Image) -> dict[str, float]:
    """Agreement with a reference inside the object, which Otsu's threshold of the reference marks."""
    body = reference > threshold_otsu(reference)
    a, b = image[body], reference[body]
    return {
        "relative error": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "mean / mean of the reference": float(a.mean() / b.mean()),
        "correlation": float(np.corrcoef(a, b)[0, 1]),
        "challenge score": challenge_score(image > threshold_otsu(image), body),
    }


def relative_residual(image: Image, y: Tensor, geometry: PlanarGeometry) -> float:
    """``|A x - y| / |y|`` of an image in 1/mm.

    Args:
        image: ``(H, W)`` in 1/mm.
        y: ``(views, detectors)`` line integrals.
        geometry: of ``y``.
    """
    return float((RayTransform(geometry)(torch.from_numpy(image)) - y).norm() / y.norm())
