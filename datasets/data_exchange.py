"""Data-exchange HDF5: MEASURED parallel-beam projections of synchrotrons, with flat and dark fields.

De Carlo et al. (2014), J. Synchrotron Rad. 21, 1224, doi:10.1107/S160057751401604X. A file holds ``exchange/data``
(views, rows, columns), ``exchange/data_white`` and ``exchange/data_dark`` (frames, rows, columns) in counts, and
``exchange/theta`` (views,) in degrees. It stores neither the rotation centre nor, as a rule, the pixel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import ParallelGeometry


@dataclass(frozen=True, eq=False)
class DataExchangeScan:
    """Line integrals of a measured scan.

    Attributes:
        sinogram: (rows, 1, views, columns) float32, dimensionless.
        geometry: the scan of every row.
        transmission_floor: the least transmission that was let through; lower values were raised to it.
        raised: how many values were.
    """

    sinogram: Tensor
    geometry: ParallelGeometry
    transmission_floor: float
    raised: int


def read_data_exchange(
    path: str | Path,
    *,
    center: float,
    rows: slice = slice(None),
    detector_mm: float = 1.0,
    columns: slice = slice(None),
    transmission_floor: float = 1e-3,
) -> DataExchangeScan:
    """Read projections, correct them with flats and darks, and take the negative logarithm.

    ``-log((data - dark) / (white - dark))`` with the means of the flats and darks. Transmissions below
    ``transmission_floor`` (dead pixels, counts below the dark current) are raised to it.

    Args:
        path: the HDF5 file.
        center: detector column (of the file, before ``columns``) that the rotation axis projects to; see
            :func:`estimate_center`.
        rows: detector rows to read.
        detector_mm: width of a detector column; 1 if it is unknown, which scales the attenuation.
        columns: detector columns to keep; cropping to be symmetric about the centre is usual.
        transmission_floor: least transmission, above 0.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not a data-exchange file, damaged, arrays whose shapes do not match, flats that do not exceed the
            darks, counts that are not finite, or beyond the limits.
        ValueError: a centre outside the detector, or another argument out of range.
    """
    if not transmission_floor > 0:
        raise ValueError(f"transmission_floor must be positive, got {transmission_floor}")
    data, white, dark, theta = _read_arrays(Path(path), rows)
    width = data.shape[2]
    if not 0 <= center <= width - 1:
        raise ValueError(f"center {center} lies outside the detector's columns 0..{width - 1}")
    open_beam = white - dark
    if (open_beam <= 0).any():
        raise ReadError(
            path, f"{int((open_beam <= 0).sum())} detector pixels have flats no brighter than darks; crop them"
        )
    transmission = (data - dark) / open_beam
    low = transmission < transmission_floor
    line_integrals = -np.log(np.where(low, transmission_floor, transmission))[:, :, columns]
    start, stop, step = columns.indices(width)
    if step != 1 or stop <= start:
        raise ValueError(f"columns must be a non-empty range of step 1, got {columns}")
    kept = stop - start
    geometry = ParallelGeometry(
        image_shape=(kept, kept),
        pixel_mm=detector_mm,
        angles=np.radians(theta),
        detectors=kept,
        detector_mm=detector_mm,
        axis_offset_mm=(center - start - (kept - 1) / 2) * detector_mm,
    )
    sinogram = torch.from_numpy(np.ascontiguousarray(line_integrals.transpose(1, 0, 2), np.float32))[:, None]
    return DataExchangeScan(sinogram, geometry, transmission_floor, int(low.sum()))


def estimate_center(sinogram: Tensor, angles: NDArray[np.float64]) -> float:
    """Estimate the rotation centre from two opposite views, which mirror each other about it.

    Args:
        sinogram: (rows, 1, views, columns) or (views, columns) line integrals.
        angles: (views,) radians.

    Returns:
        The column that the axis projects to, to a fraction of a column.

    Raises:
        ValueError: no two views lie half a turn apart to within 2 degrees.
    """
    gap = np.abs(np.abs(angles[:, None] - angles[None, :]) - np.pi)
    first, second = (int(n) for n in np.unravel_index(gap.argmin(), gap.shape))
    if gap[first, second] > np.radians(2.0):
        raise ValueError("no two views are half a turn apart: give the centre yourself")
    views = sinogram.detach().double().numpy().reshape(-1, len(angles), sinogram.shape[-1])
    one, two = views[:, first], views[:, second, ::-1]
    # Where the mirrored view fits best: the peak of the cross-correlation, refined by a parabola.
    size = 2 * one.shape[-1]
    spectra = np.fft.rfft(_centred(one), size) * np.conj(np.fft.rfft(_centred(two), size))
    correlation = np.fft.irfft(spectra, size).sum(0)
    peak = int(correlation.argmax())
    before, at, after = correlation[(peak - 1) % size], correlation[peak], correlation[(peak + 1) % size]
    shift = peak + 0.5 * (before - after) / (before - 2 * at + after)
    shift = shift - size if shift > size / 2 else shift
    return float((one.shape[-1] - 1 + shift) / 2)


def _centred(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = rows - rows.mean(-1, keepdims=True)
    return centred


def _read_arrays(path: Path, rows: slice) -> tuple[NDArray[np.float64], ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    file = HDF5File(path)
    names = ("data", "data_white", "data_dark", "theta")
    missing = [f"exchange/{name}" for name in names if f"exchange/{name}" not in file]
    if missing:
        raise ReadError(path, f"is not a data-exchange file with flats and darks: it lacks {missing}")
    declared = {name: file.item(f"exchange/{name}").shape for name in names}
    if any(len(declared[name]) != 3 or declared[name][0] == 0 for name in names[:3]):
        raise ReadError(path, f"data, flats and darks must be (frames, rows, columns), got {declared}")
    data = file.read("exchange/data", chosen=(slice(None), rows), dtype=np.float64)
    white, dark = (
        file.read(f"exchange/{name}", chosen=(slice(None), rows), dtype=np.float64).mean(0) for name in names[1:3]
    )
    theta = file.read("exchange/theta", dtype=np.float64).ravel()
    unit = str(file.attribute("exchange/theta", "units", "degrees"))
    if not unit.lower().startswith(("deg", "rad")):
        raise ReadError(path, f"theta is in {unit[:80]!r}, expected degrees or radians")
    if unit.lower().startswith("rad"):
        theta = np.degrees(theta)
    if data.shape[0] != theta.size or data.shape[1:] != white.shape or white.shape != dark.shape:
        raise ReadError(
            path, f"data {data.shape}, flats {white.shape}, darks {dark.shape} and {theta.size} angles do not match"
        )
    if data.shape[1] == 0:
        raise ReadError(path, f"no detector row is left by rows={rows}")
    if 0 in data.shape:
        raise ReadError(path, f"the data are empty: {data.shape}")
    if not all(np.isfinite(a).all() for a in (data, white, dark, theta)):
        raise ReadError(path, "holds values that are not finite")
    return data, white, dark, theta
