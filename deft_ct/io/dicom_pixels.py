"""Stored pixel values to CT numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array

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


@dataclass(frozen=True)
class SlicePixels:
    """The CT numbers of a slice, and what was done to them.

    Attributes:
        hu: (H, W) float32, HU.
        padded: number of pixels that hold the PixelPaddingValue or lie in its range.
        padding_hu: highest CT number that a padded pixel would have had; -inf without padded pixels.
        below: number of other pixels below -1024 HU.
        foreign: number of pixels with bits beyond BitsStored, such as an overlay; they were masked.
    """

    hu: NDArray[np.float32]
    padded: int
    padding_hu: float
    below: int
    foreign: int


def read_hu(file: DicomFile) -> SlicePixels:
    """CT numbers of one slice.

    Bits beyond BitsStored are masked (PS3.5, 8.1.1), then the slice's own RescaleSlope and RescaleIntercept are
    applied. Pixels of the PixelPaddingValue (or its range) and everything below -1024 HU become -1024.

    Raises:
        ReadError: the file is damaged or too large.
        DicomSeriesError: the pixel data is missing, cut off, damaged, compressed in a way that cannot be decoded, of
            another size than the header says, or no CT numbers.
    """
    dataset, header = file.read(), file.header
    with parsing(file.path, "a CT image", member=None if file.member is None else file.name):
        raw = _stored_values(dataset, file)
        stored = raw if raw.dtype.kind == "f" else _masked(dataset, raw)
        with np.errstate(all="ignore"):  # values that are not finite are looked for
            hu = stored.astype(np.float32) * np.float32(header.RescaleSlope) + np.float32(header.RescaleIntercept)
        if not np.isfinite(hu).all():
            raise file.refused("it holds pixel values that are not finite (NaN or infinity); export it again")
        padding = _padding(header, raw, stored)
        highest = float(hu[padding].max()) if padding.any() else -np.inf
        hu[padding] = HU_MIN
        below = hu < HU_MIN
        hu[below] = HU_MIN
        most = current_limits().hu
        if hu.max() > most:
            raise file.refused(f"it holds a value of {hu.max():g} HU; CT numbers stay below {most:g}. Is it in HU?")
    foreign = 0 if raw.dtype.kind == "f" else int(((raw.astype(np.int64) != stored) & ~padding).sum())
    return SlicePixels(hu, int(padding.sum()), highest, int(below.sum()), foreign)


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
            index = 0 if file.frame is None else file.frame - 1
            stored: NDArray[np.generic] = pixel_array(dataset, index=index, correct_unused_bits=False)
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
        expected *= file.frames
        if there < expected:
            raise file.refused(f"it is cut off: it holds {there} of {expected} bytes of pixel data; copy it again")
        # Exporters add a few bytes of padding now and then; a whole row is none.
        if there - expected >= max(shape[1] * bits // 8, 2):
            raise file.refused(
                f"it holds {there} bytes of pixel data where {shape[0]} x {shape[1]} pixels take {expected}; the "
                "header is damaged: copy it again"
            )
        return
    frame = get_frame(content, 0 if file.frame is None else file.frame - 1, number_of_frames=file.frames)
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


def _masked(dataset: FileDataset, stored: NDArray[np.generic]) -> NDArray[np.int64]:
    """The bits of the pixel cell that are the value; others may hold an overlay (PS3.5, 8.1.1)."""
    allocated = int(dataset.BitsAllocated)
    used = int(dataset.get("BitsStored") or allocated)
    lowest = int(dataset.get("HighBit", used - 1)) + 1 - used
    if not 1 <= used <= allocated or not 0 <= lowest <= allocated - used:
        raise ValueError(f"{used} bits up to bit {dataset.get('HighBit')} do not fit into {allocated} bits")
    values = stored.astype(np.int64) >> lowest
    if used >= 63:
        return values
    values &= (1 << used) - 1
    if dataset.get("PixelRepresentation") == 1:
        values -= (values >> (used - 1)) << used
    return values


def _padding(header: Dataset, raw: NDArray[np.generic], stored: NDArray[np.generic]) -> NDArray[np.bool_]:
    low, limit = _whole(header, "PixelPaddingValue"), _whole(header, "PixelPaddingRangeLimit")
    if low is None or raw.dtype.kind == "f":
        return np.zeros(raw.shape, bool)
    if limit is not None:
        low, high = sorted((low, limit))
        inside: NDArray[np.bool_] = (stored >= low) & (stored <= high)  # type: ignore[operator]
        return inside
    # Files store a negative padding value in the unsigned representation, and the other way round: compare the bits.
    # A padding value may need more bits than BitsStored: it is looked for before they are masked.
    bits = 2 ** int(header.BitsAllocated) - 1
    padding: NDArray[np.bool_] = (raw.astype(np.int64) & bits) == (low & bits)
    return padding


def _whole(header: Dataset, name: str) -> int | None:
    """A whole number, as most files have it; the first of several."""
    value = header.get(name)
    if isinstance(value, bytes):  # the value representation was not known
        value = int.from_bytes(value[:2], "little") if value else None
    elif isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return None if value in (None, "") else int(value)
