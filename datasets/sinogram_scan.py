"""A sinogram file as a scan: rings removed, the rotation centre found, and the geometry set up."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.datasets.data_exchange import estimate_center
from deft_ct.io.sinograms import SinogramOptions, read_sinogram
from deft_ct.operators.ct import FanGeometry, ParallelGeometry

Centre = float | Literal["auto", "middle"]


@dataclass(frozen=True, kw_only=True)
class ScanSetUp:
    """How the data were measured.

    Args:
        reading: angles and counts.
        center: detector column that the rotation axis projects to; ``"middle"`` of the detector; or ``"auto"``: from
            opposite views of parallel beams.
        rings: remove stripes of detector elements, which are rings in the image (N. T. Vo et al., Optics Express 26,
            28396, 2018; by the package algotom).
        detector_mm: width of a detector element; 1 if it is unknown, which scales the attenuation.
        source_to_center_mm: of a fan beam; None for parallel beams.
        source_to_detector_mm: of a fan beam; None for parallel beams.

    Raises:
        ValueError: a length that is not positive, one distance of a fan without the other, or ``"auto"`` for a fan.
    """

    reading: SinogramOptions = field(default_factory=SinogramOptions)
    center: Centre = "middle"
    rings: bool = False
    detector_mm: float = 1.0
    source_to_center_mm: float | None = None
    source_to_detector_mm: float | None = None

    def __post_init__(self) -> None:
        if (self.source_to_center_mm is None) != (self.source_to_detector_mm is None):
            raise ValueError("a fan beam needs both distances: from the source to the centre and to the detector")
        if self.center == "auto" and self.source_to_center_mm is not None:
            raise ValueError("the centre of a fan beam is not found from opposite views: give it, or use align_scan")
        if not (math.isfinite(self.detector_mm) and self.detector_mm > 0):
            raise ValueError(f"the width of a detector element must be positive, got {self.detector_mm}")


@dataclass(frozen=True, eq=False)
class SinogramScan:
    """A scan with its geometry.

    Attributes:
        sinogram: ``(slices, 1, views, detectors)`` float32.
        geometry: of every slice; images are as wide as the detector, at the axis.
        center: detector column of the axis.
        raised: values without any counts.
    """

    sinogram: Tensor
    geometry: ParallelGeometry | FanGeometry
    center: float
    raised: int


def read_sinogram_scan(path: Path, how: ScanSetUp, *, side: int | None = None) -> SinogramScan:
    """Read a file, remove rings, find the centre and set up the geometry.

    Args:
        path: see :func:`deft_ct.io.sinograms.read_sinogram`.
        how: what the file does not say.
        side: pixels per side of the images; as many as the part of the detector that is symmetric about the axis when
            None.

    Raises:
        FileNotFoundError: no such file.
        ImportError: rings are to be removed and algotom is not installed.
        ReadError: the file is damaged or of another kind.
        ValueError: a centre outside the detector, or no two opposite views to find it.
    """
    raw = read_sinogram(path, how.reading)
    lines = raw.lines
    if how.rings:
        lines = np.stack([remove_rings(one) for one in lines])
    detectors = lines.shape[2]
    middle = (detectors - 1) / 2
    sinogram = torch.from_numpy(lines)[:, None]
    center = estimate_center(sinogram, raw.angles) if how.center == "auto" else how.center
    at = middle if center == "middle" else float(center)
    if not 0 < at < detectors - 1:
        raise ValueError(f"the centre {at:g} lies outside the detector's columns 0..{detectors - 1}")
    pixels = side or math.floor(2 * min(at, detectors - 1 - at)) + 1
    shared: dict[str, Any] = {
        "image_shape": (pixels, pixels), "angles": raw.angles, "detectors": detectors, "detector_mm": how.detector_mm,
    }  # fmt: skip
    offset = (at - middle) * how.detector_mm
    width = (2 * min(at, detectors - 1 - at) + 1) * how.detector_mm
    geometry: ParallelGeometry | FanGeometry
    if how.source_to_center_mm is None or how.source_to_detector_mm is None:
        geometry = ParallelGeometry(**shared, pixel_mm=width / pixels, axis_offset_mm=offset)
    else:
        near = width * how.source_to_center_mm / how.source_to_detector_mm
        geometry = FanGeometry(
            **shared, pixel_mm=near / pixels, detector_offset_mm=-offset,
            source_to_center_mm=how.source_to_center_mm, source_to_detector_mm=how.source_to_detector_mm,
        )  # fmt: skip
    return SinogramScan(sinogram, geometry, at, raw.raised)


def remove_rings(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(views, detectors)`` without the stripes of faulty and uneven detector elements, by algotom.

    Raises:
        ImportError: algotom is not installed.
    """
    try:
        removal: Any = importlib.import_module("algotom.prep.removal")
    except ImportError as error:
        raise ImportError("removing rings needs the package algotom: pip install 'deft-ct[rings]'") from error
    return np.asarray(removal.remove_all_stripe(lines), np.float32)
