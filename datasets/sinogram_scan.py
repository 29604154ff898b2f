"""A sinogram file as a scan: rings removed, the rotation centre found, and the geometry set up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.datasets.data_exchange import estimate_center
from deft_ct.datasets.nexus_scan import SUFFIX as NEXUS_SUFFIX
from deft_ct.datasets.nexus_scan import read_nexus
from deft_ct.io.sinograms import SinogramOptions, read_sinogram
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, detector_shift
from deft_ct.runtime.extras import optional_library

Centre = float | Literal["auto", "middle"]


@dataclass(frozen=True, kw_only=True)
class ScanSetUp:
    """How the data were measured.

    Args:
        reading: angles and counts.
        center: detector column that the rotation axis projects to; ``"middle"`` of the detector; or ``"auto"``: found
            in the data, see :func:`deft_ct.operators.ct.detector_shift`.
        rings: remove stripes of detector elements, which are rings in the image (N. T. Vo et al., Optics Express 26,
            28396, 2018; by the package algotom).
        detector_mm: width of a detector element; 1 if it is unknown, which scales the attenuation.
        source_to_center_mm: of a fan beam; None for parallel beams.
        source_to_detector_mm: of a fan beam; None for parallel beams.

    Raises:
        ValueError: a length that is not positive, or one distance of a fan without the other.
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
        path: see :func:`deft_ct.io.sinograms.read_sinogram`; or a NeXus file, which says all but ``rings`` itself, see
            :func:`deft_ct.datasets.nexus_scan.read_nexus`.
        how: what the file does not say.
        side: pixels per side of the images; as many as the part of the detector that is symmetric about the axis when
            None.

    Raises:
        FileNotFoundError: no such file.
        ImportError: rings are to be removed and algotom is not installed.
        ReadError: the file is damaged or of another kind.
        ValueError: a centre outside the detector, or one that the data do not determine; or a geometry is given for a
            file that has its own.
    """
    if path.suffix.lower() == NEXUS_SUFFIX:
        return _nexus_scan(path, how, side)
    raw = read_sinogram(path, how.reading)
    lines = raw.lines
    if how.rings:
        lines = np.stack([remove_rings(one) for one in lines])
    detectors = lines.shape[2]
    middle = (detectors - 1) / 2
    sinogram = torch.from_numpy(lines)[:, None]
    at = _found_centre(sinogram, raw.angles, how) if how.center == "auto" else middle
    at = at if isinstance(how.center, str) else float(how.center)
    if not 0 < at < detectors - 1:
        raise ValueError(f"the centre {at:g} lies outside the detector's columns 0..{detectors - 1}")
    pixels = side or math.floor(2 * min(at, detectors - 1 - at)) + 1
    geometry = _geometry(raw.angles, detectors, how, at, pixels)
    return SinogramScan(sinogram, geometry, at, raw.raised)


def _nexus_scan(path: Path, how: ScanSetUp, side: int | None) -> SinogramScan:
    if how != ScanSetUp(rings=how.rings):
        raise ValueError(f"{path.name} says its own angles, distances and centre: leave out all options but rings")
    sinogram, geometry = read_nexus(path, side=side)
    if how.rings:
        clean = [remove_rings(one) for one in sinogram[:, 0].numpy()]
        sinogram = torch.from_numpy(np.stack(clean))[:, None]
    shift = (geometry.detector_offset_mm - geometry.axis_offset_mm) / geometry.detector_mm
    return SinogramScan(sinogram, geometry, (geometry.detectors - 1) / 2 - shift, 0)


def _geometry(
    angles: NDArray[np.float64], detectors: int, how: ScanSetUp, center: float, pixels: int
) -> ParallelGeometry | FanGeometry:
    """Images as wide as the part of the detector that is symmetric about the axis."""
    shared: dict[str, Any] = {
        "image_shape": (pixels, pixels), "angles": angles, "detectors": detectors, "detector_mm": how.detector_mm,
        "detector_offset_mm": ((detectors - 1) / 2 - center) * how.detector_mm,
    }  # fmt: skip
    width = (2 * min(center, detectors - 1 - center) + 1) * how.detector_mm
    if how.source_to_center_mm is None or how.source_to_detector_mm is None:
        return ParallelGeometry(**shared, pixel_mm=width / pixels)
    return FanGeometry(
        **shared, pixel_mm=width * how.source_to_center_mm / how.source_to_detector_mm / pixels,
        source_to_center_mm=how.source_to_center_mm, source_to_detector_mm=how.source_to_detector_mm,
    )  # fmt: skip


def _found_centre(sinogram: Tensor, angles: NDArray[np.float64], how: ScanSetUp) -> float:
    """The column of the axis, from the moments of the views, or else from two opposite views of parallel beams."""
    detectors = sinogram.shape[-1]
    middle = (detectors - 1) / 2
    shift = detector_shift(sinogram, _geometry(angles, detectors, how, middle, detectors))
    if shift is not None:
        return middle - shift
    if how.source_to_center_mm is not None:
        raise ValueError("the data do not determine the centre of this fan beam: give it, or use align_scan")
    return estimate_center(sinogram, angles)


def remove_rings(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(views, detectors)`` without the stripes of faulty and uneven detector elements, by algotom.

    Raises:
        MissingExtraError: algotom is not installed.
    """
    removal: Any = optional_library("algotom.prep.removal", "rings")
    return np.asarray(removal.remove_all_stripe(lines), np.float32)
