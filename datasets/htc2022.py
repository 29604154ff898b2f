"""Helsinki Tomography Challenge 2022: MEASURED fan-beam sinograms of perforated discs.

Zenodo 6984868 and 7418878. A MATLAB file holds a struct ``CtDataFull`` (721 views over 360 degrees) or
``CtDataLimited`` (a wedge of 30 to 90 degrees) with the fields ``sinogram`` (views x detectors, already the negative
logarithm) and ``parameters``. Both encodings of MATLAB files occur: version 5, and 7.3 (HDF5, arrays transposed).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.matlab import read_matlab
from deft_ct.operators.ct import FanGeometry

STRUCTS = ("CtDataLimited", "CtDataFull")


@dataclass(frozen=True, eq=False)
class HTCScan:
    """One measured scan.

    Attributes:
        sinogram: (1, 1, views, detectors) float32 line integrals, dimensionless.
        geometry: the central fan, with the angles, distances and detector that the file names.
        limited: whether the file calls it a limited-angle scan.
        parameters: everything else that the file says about the scanner.
    """

    sinogram: Tensor
    geometry: FanGeometry
    limited: bool
    parameters: dict[str, Any]


def read_htc2022(
    path: str | Path, *, image_shape: tuple[int, int] = (512, 512), pixel_mm: float | None = None
) -> HTCScan:
    """Read a scan and its geometry from a file of the challenge.

    Args:
        path: a ``.mat`` file of either encoding.
        image_shape: (H, W) of the images to reconstruct.
        pixel_mm: width of their pixels; the file's effective pixel size at the isocentre (0.148 mm) when None.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not a MATLAB file, no challenge struct in it, fields that are missing or out of range, or a sinogram
            whose size does not match its angles and detector.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    content = read_matlab(source, STRUCTS)
    name = next(struct for struct in STRUCTS if struct in content)
    fields = content[name]
    parameters = fields.get("parameters") if isinstance(fields, dict) else None
    if "sinogram" not in (fields or {}) or not isinstance(parameters, dict):
        raise ReadError(source, f"{name} lacks 'sinogram' or 'parameters'; is it a file of the challenge?")
    missing = [key for key in _NEEDED if key not in parameters]
    if missing:
        raise ReadError(source, f"{name}.parameters lacks {missing}")
    unit = parameters.get("distanceUnit", "mm")
    if str(unit) != "mm":
        raise ReadError(source, f"distances are in {str(unit)[:80]}, expected mm")
    angles = np.atleast_1d(_array(source, parameters["angles"], "parameters.angles", np.float64))
    detectors = _number(source, parameters, "numDetectorsPost", 1, 1e6)
    sinogram = _array(source, fields["sinogram"], "sinogram", np.float32)
    if angles.ndim != 1 or detectors != int(detectors) or sinogram.shape != (len(angles), int(detectors)):
        raise ReadError(
            source, f"sinogram is {sinogram.shape}, expected ({angles.size} angles, {detectors:g} detectors)"
        )
    width = {key: _number(source, parameters, key, *current_limits().pixel_mm) for key in _NEEDED[2:4]}
    distance = {key: _number(source, parameters, key, 1e-3, 1e6) for key in _NEEDED[4:]}
    try:
        geometry = FanGeometry(
            image_shape=image_shape,
            pixel_mm=width["effectivePixelSizePost"] if pixel_mm is None else pixel_mm,
            angles=np.radians(angles),
            detectors=int(detectors),
            detector_mm=width["pixelSizePost"],
            source_to_center_mm=distance["distanceSourceOrigin"],
            source_to_detector_mm=distance["distanceSourceDetector"],
        )
    except ValueError as error:
        raise ReadError(source, f"its geometry cannot be used: {error}") from error
    return HTCScan(torch.from_numpy(sinogram)[None, None], geometry, name == "CtDataLimited", parameters)


def challenge_score(segmentation: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """The score of the challenge: Matthews' correlation coefficient of two segmentations (B. W. Matthews, 1975).

    Args:
        segmentation: (H, W), True where there is material.
        reference: (H, W), the same.

    Returns:
        1 for equal, -1 for opposite ones, about 0 for a guess; 0 where one of them has a single class.

    Raises:
        TypeError: not Boolean.
        ValueError: shapes that differ.
    """
    for name, mask in (("segmentation", segmentation), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise TypeError(f"challenge_score: {name} must be Boolean, got {mask.dtype}; threshold the image first")
    if segmentation.shape != reference.shape:
        raise ValueError(f"challenge_score: shapes differ: {segmentation.shape} and {reference.shape}")
    both = float((segmentation & reference).mean())
    a, b = float(segmentation.mean()), float(reference.mean())
    spread = (a * (1 - a) * b * (1 - b)) ** 0.5
    return (both - a * b) / spread if spread else 0.0


_NEEDED = (
    "angles", "numDetectorsPost", "pixelSizePost", "effectivePixelSizePost", "distanceSourceOrigin",
    "distanceSourceDetector",
)  # fmt: skip


def _number(path: Path, parameters: dict[str, Any], key: str, least: float, most: float) -> float:
    value = parameters[key]
    try:
        number = float(np.asarray(value, np.float64).item())
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not least <= number <= most:
        raise ReadError(path, f"parameters.{key} must be a number from {least:g} to {most:g}, got {str(value)[:80]!r}")
    return number


def _array(path: Path, value: Any, name: str, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):
        raise ReadError(path, f"{name} must be an array of real numbers, got {str(value)[:80]!r}") from None
    if not np.isfinite(array).all():
        raise ReadError(path, f"{name} holds values that are not finite")
    return array
