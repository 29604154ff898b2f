"""Stored pixel values to CT numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames

from deft_ct.ct.hounsfield import HU_MIN
from deft_ct.io.codestreams import declared_size
from deft_ct.io.dicom_files import DicomFile
from deft_ct.io.dicom_stream import quiet_pydicom
from deft_ct.io.limits import current_limits
from deft_ct.io.parsing import parsing
from deft_ct.runtime.printable import printable

_DECODERS = "pip install 'deft-ct[dicom-compressed]'"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_BITS = (1, 8, 16, 32, 64)
_MOST_PADDING = 2**16  # bytes of a compressed frame beyond twice those of its pixels: no coding is as bad


def read_hu(file: DicomFile) -> NDArray[np.float32]:
    """CT numbers of one slice.

    The slice's own RescaleSlope and RescaleIntercept are applied; pixels of the PixelPaddingValue (or its range) and
    everything below -1024 HU become -1024.

    Returns:
        (H, W) float32, HU.

    Raises:
        ReadError: the file is damaged or too large.
        DicomSeriesError: the pixel data is missing, cut off, damaged, compressed in a way that cannot be decoded, of
            another size than the header says, or no CT numbers.
    """
    dataset = file.read()
    with parsing(file.path, "a CT image", member=None if file.member is None else file.name):
        stored = _stored_values(dataset, file)
        with np.errstate(all="ignore"):  # values that are not finite are looked for
            hu = stored.astype(np.float32) * np.float32(dataset.RescaleSlope) + np.float32(dataset.RescaleIntercept)
        if not np.isfinite(hu).all():
            raise file.refused("it holds pixel values that are not finite (NaN or infinity); export it again")
        hu[_padding(dataset, stored)] = HU_MIN
        hu[hu < HU_MIN] = HU_MIN
        most = current_limits().hu
        if hu.max() > most:
            raise file.refused(f"it holds a value of {hu.max():g} HU; CT numbers stay below {most:g}. Is it in HU?")
    return hu


def _stored_values(dataset: FileDataset, file: DicomFile) -> NDArray[np.generic]:
    if not any(key in dataset for key in _PIXELS):
        raise file.refused("it has no pixel data: the file is cut off; copy or download it again")
    shape = (int(dataset.Rows), int(dataset.Columns))
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or not getattr(syntax, "is_transfer_syntax", False):
        raise file.refused("it does not say how its pixels are stored (TransferSyntaxUID); export it again")
    _check_bytes(dataset, shape, file, compressed=bool(syntax.is_encapsulated))
    try:
        with quiet_pydicom():
            stored: NDArray[np.generic] = dataset.pixel_array
    except RuntimeError as error:
        # pydicom raises RuntimeError when no decoder is installed and when every decoder failed.
        raise file.refused(
            f"it is compressed ({syntax.name}) and could not be decoded: {printable(error, 500)}; install the decoders "
            f"with {_DECODERS}, or decompress the files first"
        ) from error
    except (ValueError, AttributeError, TypeError, KeyError, EOFError) as error:
        reason = printable(error)
        raise file.refused(
            f"the pixel data cannot be read ({reason}). It is cut off or damaged; copy it again"
        ) from error
    if stored.shape != shape:
        raise file.refused(f"expected {shape[0]} x {shape[1]} pixels, got shape {stored.shape}")
    return stored


def _check_bytes(dataset: FileDataset, shape: tuple[int, int], file: DicomFile, *, compressed: bool) -> None:
    """Check what is declared against what is there, before memory is taken for it."""
    bits = int(dataset.BitsAllocated)
    if bits not in _BITS or min(shape) < 1:
        raise file.refused(f"{shape[0]} x {shape[1]} pixels of {bits} bits are no CT image; the header is damaged")
    content: Any = next(dataset[key].value for key in _PIXELS if key in dataset)
    there, expected = len(content or b""), shape[0] * shape[1] * bits // 8
    current_limits().check_declared(file.path, shape[0] * shape[1] * 4, there, what=f"{shape[0]} x {shape[1]} pixels")
    if not compressed:
        if there < expected:
            raise file.refused(f"it is cut off: it holds {there} of {expected} bytes of pixel data; copy it again")
        # Exporters add a few bytes of padding now and then; a whole row is none.
        if there - expected >= max(shape[1] * bits // 8, 2):
            raise file.refused(
                f"it holds {there} bytes of pixel data where {shape[0]} x {shape[1]} pixels take {expected}; the "
                "header is damaged: copy it again"
            )
        return
    frame = next(generate_frames(content, number_of_frames=1))
    inside = declared_size(frame)
    if inside is not None and inside != shape:
        raise file.refused(
            f"its compressed image has {inside[0]} x {inside[1]} pixels, its header says {shape[0]} x {shape[1]}; copy "
            "it again"
        )
    if len(frame) > 2 * expected + _MOST_PADDING:
        raise file.refused(
            f"its compressed image takes {len(frame)} bytes for {expected} bytes of pixels; is it damaged?"
        )


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
