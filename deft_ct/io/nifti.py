"""NIfTI in and out, in HU with the RAS affine of the patient."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import LPS_TO_RAS, Volume
from deft_ct.io.checks import checked_volume
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.runtime.atomic import atomic_file

SUFFIXES = (".nii", ".nii.gz")
NOTE = "HU; research only, not for clinical use"
_TRAILER = 2**20


def write_nifti(volume: Volume, path: str | Path, *, note: str = NOTE, frames: bool = False) -> Path:
    """Write a volume as NIfTI-1, float32 HU, whole or not at all.

    The data array is stored in the order (column, row, slice). The affine, in RAS millimetres, is stored as sform and
    qform with the code "scanner anatomical", as sform alone where a tilted gantry shears the slices. Every NIfTI reader
    then places the image like the DICOM series that it came from.

    Args:
        volume: what to write; for the spread, pass ``volume.with_hu(spread)``.
        path: a file that ends in ``.nii`` or ``.nii.gz``; an old one is replaced.
        note: the header's description, cut at 79 ASCII characters.
        frames: the slices are frames in time of one slice, the fourth axis of the file.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.
        PermissionError: it cannot be written.
    """
    target = Path(path)
    if not target.name.lower().endswith(SUFFIXES):
        raise ValueError(f"a NIfTI file ends in .nii or .nii.gz, got {target.name}")
    data = volume.hu.transpose(2, 1, 0)
    image = nib.Nifti1Image(data[:, :, None] if frames else data, volume.ras_affine, dtype=np.float32)
    image.set_sform(volume.ras_affine, code="scanner")
    if volume.is_sheared:  # a quaternion has no shear: readers take the sform
        image.set_qform(None, code="unknown")
    else:
        image.set_qform(volume.ras_affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = note.encode("ascii", "replace")[:79]
    with atomic_file(target) as work:
        nib.save(image, work)
    return target


def read_nifti(path: str | Path, *, units: HounsfieldScale | None = None) -> Volume:
    """Read a CT volume in HU from NIfTI.

    Any orientation is accepted: axes are flipped and swapped (never interpolated) to slices from feet to head with rows
    and columns as in a standard axial CT, and the affine follows. The size that the header declares is checked before
    memory is taken; header extensions are not read.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        units: attenuation scale; the default one when None.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not NIfTI, damaged, not 3D, not real numbers, no affine in millimetres, rows that are not
            perpendicular to columns, values or pixels that no CT has, or beyond the limits.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such NIfTI file: {source}")
    try:
        header = _header(source)
        _check_header(source, header)
        with np.errstate(all="ignore"):  # values that are not finite are looked for below
            data = _data(source, header)
            canonical, affine = to_lps(data, header.get_best_affine())
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(source, f"cannot be read as NIfTI ({error}); is it complete?") from error
    return checked_volume(source, canonical.transpose(2, 1, 0), affine, units)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _header(path: Path) -> Any:
    with _open(path) as file:
        start = file.read(nib.Nifti2Header.template_dtype.itemsize)
    kinds: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)
    for kind in kinds:
        size = kind.template_dtype.itemsize
        if len(start) >= size and kind.may_contain_header(start[:size]):
            header = kind(start[:size])
            if header["magic"].item()[:2] != b"n+":
                raise ReadError(path, "is the header of a pair of files; convert it to one file that ends in .nii")
            return header
    raise ReadError(path, "cannot be read as NIfTI (it does not start with a NIfTI header); is it complete?")


def _check_header(path: Path, header: Any) -> None:
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise ReadError(path, f"holds an array of shape {shape}; expected one 3D volume of CT numbers in HU")
    if min(shape) < 1 or offset < 0:
        raise ReadError(path, f"declares a shape of {shape} and data at byte {offset}; is it damaged?")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(path, f"holds values of type {dtype}; expected real numbers, CT numbers in HU")
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise ReadError(path, f"is in {unit}; expected millimetres")
    size, count = path.stat().st_size, math.prod(shape)
    current_limits().check_declared(path, offset + count * max(dtype.itemsize, 4), size, what="a volume")
    if not path.name.lower().endswith(".gz") and offset + count * dtype.itemsize > size:
        raise ReadError(
            path, f"declares {offset + count * dtype.itemsize} bytes and has {size}: it is cut off; copy it again"
        )


def _data(path: Path, header: Any) -> NDArray[np.float32]:
    """(columns, rows, slices), scaled, by nibabel."""
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    with _open(path) as file:
        content = file.read(offset + math.prod(shape) * dtype.itemsize)
        file.read(_TRAILER)  # to the end of a compressed stream, where its checksum is compared
    proxy = ArrayProxy(io.BytesIO(content), (shape, dtype, offset, *header.get_slope_inter()))
    data: NDArray[np.float32] = np.asanyarray(proxy, dtype=np.float32)
    return data.reshape(shape[:3], order="F")


def to_lps(data: NDArray[np.float32], ras: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Flip and swap the axes of a volume to those of an axial CT.

    Args:
        data: (i, j, k).
        ras: (4, 4) affine to RAS millimetres.

    Returns:
        The data as (column, row, slice), and its affine to LPS millimetres.

    Raises:
        ValueError: the affine is singular.
    """
    if not np.isfinite(ras).all() or np.linalg.matrix_rank(ras[:3, :3]) < 3:
        raise ValueError(f"its affine is {ras.tolist()}")
    current = nib.io_orientation(ras)
    transform = nib.orientations.ornt_transform(current, nib.orientations.axcodes2ornt("LPS"))
    turned = nib.apply_orientation(data, transform)
    affine = ras @ nib.orientations.inv_ornt_aff(transform, data.shape)
    return turned, LPS_TO_RAS @ affine
