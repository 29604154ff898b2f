"""A minimal DICOM header for images whose projections came without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DSfloat

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io import Series
from deft_ct.io.dicom_derive import MADE_HEADER, PixelFormat, hashed_uid

PER_DICOM = 1000.0
"""Attenuation in DICOM files is in 1/m, not 1/mm: viewers need windows at least 1 wide."""


def made_series(
    images: NDArray[np.float32], *, pixel_mm: float, slice_mm: float, sha256: str, source: Path,
    frames: tuple[int, ...] | None, units: HounsfieldScale | None,
) -> Series:  # fmt: skip
    """A series around the rotation axis: the image's right is the patient's left, its top the front.

    Args:
        images: ``(slices, rows, columns)`` in HU, or in 1/mm without ``units``.
        pixel_mm: width of a pixel.
        slice_mm: distance and thickness of the slices.
        sha256: of the file, from which all UIDs follow.
        source: the file.
        frames: numbers of frames in time, which all lie at one place; None for slices.
        units: the Hounsfield scale of the images.
    """
    count, rows, columns = images.shape
    corner = (-0.5 * (columns - 1) * pixel_mm, -0.5 * (rows - 1) * pixel_mm, 0.0)
    affine = np.diag([pixel_mm, pixel_mm, slice_mm, 1.0])
    affine[:3, 3] = corner
    volume = Volume(images, affine, units or HounsfieldScale())
    headers = []
    for n in range(count):
        header = Dataset()
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = UID(hashed_uid("projections", sha256, str(n)))
        header.StudyInstanceUID = UID(hashed_uid("study of projections", sha256))
        header.SeriesInstanceUID = UID(hashed_uid("series of projections", sha256))
        header.FrameOfReferenceUID = UID(hashed_uid("frame of projections", sha256))
        header.PatientName, header.PatientID = "MEASURED^PROJECTIONS", sha256[:16].upper()
        header.Modality, header.ConversionType, header.SeriesNumber = "CT", MADE_HEADER, 0
        header.PatientPosition = "HFS"
        header.Rows, header.Columns = rows, columns
        header.PixelSpacing = [DSfloat(pixel_mm, auto_format=True)] * 2
        header.SliceThickness = DSfloat(slice_mm, auto_format=True)
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        z = 0.0 if frames is not None else n * slice_mm
        header.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in (corner[0], corner[1], z)]
        if frames is not None:
            header.AcquisitionNumber = frames[n]
            header.TemporalPositionIndex = n + 1
        headers.append(header)
    return Series(volume, tuple(headers), source)


def attenuation_format(images: NDArray[np.float32], unit: str) -> PixelFormat:
    """How attenuation is stored in 16 bits: from the least value to the largest, with a window of all that is usual.

    Args:
        images: values in thousandths.
        unit: UCUM code of these.
    """
    low, high = min(0.0, float(images.min())), float(images.max())
    intercept = float(f"{low * (1 + 1e-5) if low < 0 else 0.0:.5e}")
    slope = float(f"{max(high - intercept, 1e-6) / 65000:.5e}")
    top = max(float(np.percentile(images, 99.8)), 1.0)
    return PixelFormat(slope, intercept, ((0.5 * top, top, "ATTENUATION"),), unit)
