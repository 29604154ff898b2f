"""Parallel beams by an eighth of their matrix: the symmetries of the square do the rest.

A turn or mirror of a square image permutes its parallel projections if the set of angles is symmetric too (angles
``k pi / V`` with even V). Only the angles in [0, pi / 4] and half of the detector are stored; the eight images of the
group are the columns of one product. It takes about an eighth of the memory and is the fastest form for one image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.backends.base import Backend
from deft_ct.operators.ct.backends.matrix import MatrixPair
from deft_ct.operators.ct.geometry import ParallelGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.system_matrix import Geometry

_FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
_TOLERANCE = 1e-9


class SymmetricBackend(Backend):
    """Joseph's interpolation as in the ``matrix`` backend, up to the choice of the axis at 45 degrees; exact adjoint.

    Raises:
        ValueError: a scan without the symmetry: another beam, an image that is not square, offsets, or angles that are
            not mapped onto themselves by a quarter turn and by a mirror.
    """

    name = "symmetric"

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        if (
            not isinstance(geometry, ParallelGeometry)
            or geometry.image_shape[0] != geometry.image_shape[1]
            or geometry.pixel_rc[0] != geometry.pixel_rc[1]
            or geometry.detector_offset_mm != geometry.axis_offset_mm
        ):
            raise ValueError(
                "backend 'symmetric' needs a parallel beam without offsets and a square image; use backend='matrix'"
            )
        angles = geometry.angle_array
        stored = angles[(np.mod(angles + _TOLERANCE, np.pi) <= np.pi / 4 + 2 * _TOLERANCE)]
        skipped = geometry.detectors // 2
        half = geometry.detectors - skipped
        self._pair = MatrixPair(
            geometry.replace(
                angles=stored if len(stored) else angles[:1],
                detectors=half,
                detector_offset_mm=0.5 * skipped * geometry.detector_mm,
                axis_offset_mm=0.0,
            )
        )
        target = _targets(angles, stored, geometry.detectors, skipped)
        copies = np.bincount(target.ravel(), minlength=angles.size * geometry.detectors)
        if (copies == 0).any():
            raise ValueError(
                "backend 'symmetric' needs angles that a quarter turn and a mirror map onto themselves, such as an "
                "even number of views over half a turn; use backend='matrix'"
            )
        self._target = torch.from_numpy(target.reshape(-1))  # (8 * rows), as the product is laid out
        self._share = torch.from_numpy(1.0 / copies[target]).reshape(-1)
        self._placed: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"geometry": self.geometry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["geometry"])  # type: ignore[misc]  # cheaper to rebuild than to send

    def _maps(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.dtype, like.device)
        if key not in self._placed:
            self._placed[key] = (self._target.to(like.device), self._share.to(like))
        return self._placed[key]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W)`` to ``(N, views, detectors)``, one image at a time."""
        target, share = self._maps(x)
        out = x.new_zeros((len(x), math.prod(self.geometry.sinogram_shape)))
        for image, sinogram in zip(x, out, strict=True):
            eight = torch.stack([*_turned(image), *_turned(image.mT)]).flatten(1)
            sinogram.index_add_(0, target, self._pair.product(eight, transpose=False).reshape(-1) * share)
        return out.reshape(len(x), *self.geometry.sinogram_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Map ``(N, views, detectors)`` to ``(N, H, W)``, one sinogram at a time."""
        target, share = self._maps(y)
        out = y.new_empty((len(y), *self.geometry.image_shape))
        for image, sinogram in zip(out, y.flatten(1), strict=True):
            rays = (sinogram[target] * share).reshape(8, -1)
            eight = self._pair.product(rays, transpose=True).reshape(8, *self.geometry.image_shape)
            image.copy_(_summed(eight[:4]) + _summed(eight[4:]).mT)
        return out


def _turned(image: Tensor) -> list[Tensor]:
    return [image.flip(axes) if axes else image for axes in _FLIPS]


def _summed(four: Tensor) -> Tensor:
    total = four[0]
    for one, axes in zip(four[1:], _FLIPS[1:], strict=True):
        total = total + one.flip(axes)
    return total


def _targets(angles: Array, stored: Array, detectors: int, skipped: int) -> NDArray[np.int64]:
    """Where each stored ray of each of the eight images belongs in the sinogram: ``(8, stored rays)``.

    The projection of the image ``g x`` along the normal u is that of ``x`` along ``g^T u``.
    """
    mirrors = [np.diag([-1.0 if -1 in axes else 1.0, -1.0 if -2 in axes else 1.0]) for axes in _FLIPS]
    transpose = np.array([[0.0, -1.0], [-1.0, 0.0]])  # rows count downwards
    normal = np.stack([np.cos(angles), np.sin(angles)], -1)
    elements = np.arange(skipped, detectors)
    out = []
    for turn in [*mirrors, *(mirror @ transpose for mirror in mirrors)]:
        seen = np.stack([np.cos(stored), np.sin(stored)], -1) @ turn
        overlap = seen @ normal.T
        view = np.abs(overlap).argmax(1) if len(stored) else np.zeros(0, np.int64)
        sign = overlap[np.arange(len(stored)), view]
        if (np.abs(sign) < 1 - 1e-12).any():
            return np.zeros((8, 0), np.int64)
        element = np.where(sign[:, None] > 0, elements, detectors - 1 - elements)
        out.append((view[:, None] * detectors + element).ravel())
    return np.stack(out)
