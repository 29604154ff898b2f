"""CT volumes in HU with their place in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's patient axes (left, posterior, superior) to NIfTI's axes (right, anterior, superior), and back."""

_SQUARE = 1e-3
_ORTHOGONAL = 1e-3
_SINGULAR = 1e-3


@dataclass(frozen=True, eq=False)
class Volume:
    """A stack of axial CT slices.

    Args:
        hu: (Z, H, W) CT numbers in HU; kept as a read-only float32 array.
        affine: (4, 4) map from voxel indices to millimetres in DICOM's patient axes **LPS**. These point to the left
            (x), to the back (y) and to the head (z). ``affine @ (column, row, slice, 1)`` is the centre of ``hu[slice,
            row, column]``. :attr:`ras_affine` is the same for NIfTI. The step from slice to slice need not be
            perpendicular to the slices: a tilted gantry shears them.
        units: the attenuation scale that :meth:`attenuation` uses.

    Raises:
        TypeError: ``hu`` is not a real-valued array.
        ValueError: wrong shape, values that are not finite, a singular affine, or rows that are not perpendicular to
            columns.
    """

    hu: NDArray[np.float32]
    affine: NDArray[np.float64]
    units: HounsfieldScale = field(default_factory=HounsfieldScale)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu", _checked_hu(self.hu))
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    @classmethod
    def from_spacing(
        cls, hu: NDArray[Any], *, pixel_mm: float, z_mm: float, units: HounsfieldScale | None = None
    ) -> Volume:
        """A volume without a known place: identity orientation, the first voxel's centre at the origin.

        Args:
            hu: (Z, H, W) CT numbers in HU.
            pixel_mm: width of a (square) pixel.
            z_mm: distance of neighbouring slices.
            units: attenuation scale; the default one when None.
        """
        return cls(hu, np.diag([pixel_mm, pixel_mm, z_mm, 1.0]), units or HounsfieldScale())

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, H, W)."""
        z, h, w = self.hu.shape
        return z, h, w

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of a slice."""
        return self.shape[1], self.shape[2]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Distance of neighbouring rows and of neighbouring columns in mm, as in DICOM's PixelSpacing."""
        return float(np.linalg.norm(self.affine[:3, 1])), float(np.linalg.norm(self.affine[:3, 0]))

    @property
    def pixel_mm(self) -> float:
        """Width of a pixel in mm.

        Raises:
            ValueError: pixels are not square.
        """
        rows, columns = self.spacing_mm
        if abs(rows - columns) > _SQUARE * columns:
            raise ValueError(f"pixels are {rows:.6g} x {columns:.6g} mm; resample the slices to square pixels first")
        return columns

    @property
    def z_mm(self) -> float:
        """Distance of neighbouring slices in mm, along their normal."""
        normal = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        return float(abs(normal @ self.affine[:3, 2]) / np.linalg.norm(normal))

    @property
    def is_sheared(self) -> bool:
        """Whether the slices are shifted against each other (a tilted gantry)."""
        step = self.affine[:3, 2]
        return float(np.linalg.norm(step)) > self.z_mm * (1 + _ORTHOGONAL**2)

    @property
    def ras_affine(self) -> NDArray[np.float64]:
        """(4, 4) map from (column, row, slice, 1) to millimetres in the RAS axes of NIfTI."""
        ras: NDArray[np.float64] = LPS_TO_RAS @ self.affine
        return ras

    def attenuation(self, *, nonnegative: bool = False) -> Tensor:
        """Linear attenuation of every slice.

        Args:
            nonnegative: set values below vacuum (padding of -1024 HU, noise in air) to 0, as LoDoPaB-CT does. The
                default is the plain conversion, which ``HounsfieldScale.to_hu`` inverts exactly.

        Returns:
            (Z, 1, H, W) float32, 1/mm: the slices as a batch.
        """
        mu = self.units.to_attenuation(torch.tensor(self.hu)[:, None])
        return mu.clamp_min(0.0) if nonnegative else mu

    def with_hu(self, hu: NDArray[Any]) -> Volume:
        """Other values in the same place.

        Raises:
            ValueError: ``hu`` does not have the shape of this volume.
        """
        if np.shape(hu) != self.shape:
            raise ValueError(f"expected values of shape {self.shape}, got {np.shape(hu)}")
        return replace(self, hu=hu)

    def resampled(self, factor: int) -> Volume:
        """Average ``factor`` x ``factor`` pixels of each slice; every voxel stays where it is in the patient.

        Averaging keeps HU and attenuation (both are linear), and the centre of the new first pixel is the centre of
        the block that it stands for.

        Args:
            factor: how many pixels along each side become one; must divide H and W.

        Returns:
            A volume of shape (Z, H / factor, W / factor).

        Raises:
            ValueError: ``factor`` < 1 or it does not divide the image.
        """
        z, h, w = self.shape
        if factor < 1 or h % factor or w % factor:
            raise ValueError(f"factor {factor} does not divide slices of {h} x {w} pixels; choose a divisor of both")
        blocks = self.hu.reshape(z, h // factor, factor, w // factor, factor)
        return replace(self, hu=blocks.mean(axis=(2, 4), dtype=np.float64), affine=coarse_affine(self.affine, factor))


def coarse_affine(affine: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """The (4, 4) affine after averaging ``factor`` x ``factor`` pixels: larger steps, origin at the block's centre."""
    half = 0.5 * (factor - 1)
    coarse = np.array(affine, dtype=np.float64)
    coarse[:3, :2] *= factor
    coarse[:3, 3] += half * (affine[:3, 0] + affine[:3, 1])
    return coarse


def _checked_hu(hu: NDArray[Any]) -> NDArray[np.float32]:
    array = np.asarray(hu)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"hu must be a real-valued array, got dtype {array.dtype}")
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"hu must be a non-empty (Z, H, W) array, got shape {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        z, y, x = (int(n) for n in np.argwhere(~finite)[0])
        raise ValueError(
            f"hu has {int((~finite).sum())} values that are not finite (the first at slice {z}, row {y}, column {x}); "
            "replace them, for example by -1024 outside the field of view"
        )
    view = np.array(array, dtype=np.float32, order="C")
    view.flags.writeable = False
    return view


def _checked_affine(affine: NDArray[Any]) -> NDArray[np.float64]:
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise ValueError(f"affine must be a finite (4, 4) matrix with last row 0 0 0 1, got {matrix.tolist()}")
    steps = np.linalg.norm(matrix[:3, :3], axis=0)
    if (steps <= 0).any():
        raise ValueError(f"affine has a voxel side of length zero: {steps.tolist()} mm")
    axes = matrix[:3, :3] / steps
    if abs(axes[:, 0] @ axes[:, 1]) > _ORTHOGONAL:
        raise ValueError("affine is sheared within the slices: rows must be perpendicular to columns")
    if abs(np.linalg.det(axes)) < _SINGULAR:
        raise ValueError("affine is singular: the slices do not follow each other across their plane")
    matrix.flags.writeable = False
    return matrix
