"""Stored pixel values to CT numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from deft_ct.ct.hounsfield import HU_MIN
from deft_ct.io.dicom_files import DicomFile, DicomSeriesError, quiet_pydicom

_DECODERS = "pip install 'deft-ct[dicom-compressed]'"


def read_hu(file: DicomFile) -> NDArray[np.float32]:
    """CT numbers of one slice.

    The slice's own RescaleSlope and RescaleIntercept are applied; pixels of the PixelPaddingValue (or its range) and
    everything below -1024 HU become -1024.

    Returns:
        (H, W) float32, HU.

    Raises:
        DicomSeriesError: the pixel data is missing, cut off, damaged, or compressed in a way that cannot be decoded.
    """
    dataset = file.read()
    stored = _stored_values(dataset, file.name)
    hu = stored.astype(np.float32) * np.float32(dataset.RescaleSlope) + np.float32(dataset.RescaleIntercept)
    if not np.isfinite(hu).all():
        raise DicomSeriesError(f"{file.name} holds pixel values that are not finite (NaN or infinity); export it again")
    hu[_padding(dataset, stored)] = HU_MIN
    hu[hu < HU_MIN] = HU_MIN
    return hu


def _stored_values(dataset: FileDataset, name: str) -> NDArray[np.generic]:
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DicomSeriesError(f"{name} has no pixel data: the file is cut off; copy or download it again")
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        with quiet_pydicom():
            stored: NDArray[np.generic] = dataset.pixel_array
    except RuntimeError as error:
        # pydicom raises RuntimeError when no decoder is installed and when every decoder failed.
        reason = " ".join(str(error).split())
        raise DicomSeriesError(
            f"{name} is compressed ({syntax.name}) and could not be decoded: {reason}; install the decoders with "
            f"{_DECODERS}, or decompress the files first"
        ) from error
    except (ValueError, AttributeError, TypeError, KeyError, EOFError) as error:
        raise DicomSeriesError(
            f"{name}: the pixel data cannot be read ({error}). The file is cut off or damaged; copy it again"
        ) from error
    shape = (int(dataset.Rows), int(dataset.Columns))
    if stored.shape != shape:
        raise DicomSeriesError(f"{name}: expected {shape[0]} x {shape[1]} pixels, got shape {stored.shape}")
    return stored


def _padding(dataset: FileDataset, stored: NDArray[np.generic]) -> NDArray[np.bool_]:
    low = dataset.get("PixelPaddingValue")
    if low is None or stored.dtype.kind == "f":
        return np.zeros(stored.shape, bool)
    # Files store a negative padding value in the unsigned representation, and the other way round: compare the bits.
    bits = 2 ** int(dataset.BitsAllocated) - 1
    values = stored.astype(np.int64)
    limit = dataset.get("PixelPaddingRangeLimit")
    if limit is None:
        padding: NDArray[np.bool_] = (values & bits) == (int(low) & bits)
        return padding
    low, high = sorted((int(low), int(limit)))
    return (values >= low) & (values <= high)
