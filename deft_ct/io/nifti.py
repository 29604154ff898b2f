"""NIfTI in and out, in HU with the RAS affine of the patient."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import LPS_TO_RAS, Volume
from deft_ct.runtime.atomic import atomic_file

SUFFIXES = (".nii", ".nii.gz")
NOTE = "HU; research only, not for clinical use"


def write_nifti(volume: Volume, path: str | Path, *, note: str = NOTE) -> Path:
    """Write a volume as NIfTI-1, float32 HU, whole or not at all.

    The data array is stored in the order (column, row, slice). The affine, in RAS millimetres, is stored as sform and
    qform with the code "scanner anatomical". Every NIfTI reader then places the image like the DICOM series that it
    came from.

    Args:
        volume: what to write; for the spread, pass ``volume.with_hu(spread)``.
        path: a file that ends in ``.nii`` or ``.nii.gz``; an old one is replaced.
        note: the header's description, cut at 79 ASCII characters.

    Returns:
        The path.

    Raises:
        ValueError: another suffix.
        PermissionError: it cannot be written.
    """
    target = Path(path)
    if not target.name.lower().endswith(SUFFIXES):
        raise ValueError(f"a NIfTI file ends in .nii or .nii.gz, got {target.name}")
    image = nib.Nifti1Image(volume.hu.transpose(2, 1, 0), volume.ras_affine, dtype=np.float32)
    image.set_sform(volume.ras_affine, code="scanner")
    image.set_qform(volume.ras_affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = note.encode("ascii", "replace")[:79]
    with atomic_file(target) as work:
        nib.save(image, work)
    return target


def read_nifti(path: str | Path, *, units: HounsfieldScale | None = None) -> Volume:
    """Read a CT volume in HU from NIfTI.

    Any orientation is accepted: axes are flipped and swapped (never interpolated) to slices from feet to head with rows
    and columns as in a standard axial CT, and the affine follows.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        units: attenuation scale; the default one when None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not NIfTI, not 3D, no affine in millimetres, oblique or non-square pixels, or values not finite.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such NIfTI file: {source}")
    try:
        image = cast(Any, nib.load(source))
        data: NDArray[np.float32] = image.get_fdata(dtype=np.float32)
    except (ImageFileError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{source} cannot be read as NIfTI ({error}); is it complete?") from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ValueError(f"{source} holds an array of shape {data.shape}; expected one 3D volume of CT numbers in HU")
    if image.header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise ValueError(f"{source} is in {image.header.get_xyzt_units()[0]}; expected millimetres")
    canonical, affine = _to_lps(data, image.affine)
    return Volume(canonical.transpose(2, 1, 0), affine, units or HounsfieldScale())


def _to_lps(data: NDArray[np.float32], ras: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    current = nib.io_orientation(ras)
    transform = nib.orientations.ornt_transform(current, nib.orientations.axcodes2ornt("LPS"))
    turned = nib.apply_orientation(data, transform)
    affine = ras @ nib.orientations.inv_ornt_aff(transform, data.shape)
    return turned, LPS_TO_RAS @ affine
