"""CT volumes in the files of ITK (MetaImage, NRRD), through SimpleITK."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import LPS_TO_RAS, Volume
from deft_ct.io.checks import checked_volume
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.nifti import to_lps
from deft_ct.io.parsing import parsing
from deft_ct.runtime.extras import optional_library

ITK_SUFFIXES = (".mha", ".nrrd")
_START = 2**16
_DETACHED = re.compile(rb"^(ElementDataFile\s*=(?!\s*LOCAL\s*$).*|data ?file\s*:.*)$", re.IGNORECASE | re.MULTILINE)
_LONGEST_PIXEL = 8  # bytes


def read_itk(path: str | Path, *, units: HounsfieldScale | None = None) -> Volume:
    """Read a CT volume in HU from a file that holds its data itself.

    Any orientation is accepted, as by :func:`deft_ct.io.read_nifti`.

    Args:
        path: ``.mha`` or ``.nrrd``.
        units: attenuation scale; the default one when None.

    Raises:
        FileNotFoundError: no such file.
        MissingExtraError: SimpleITK is not installed; the message names the extra.
        ReadError: damaged, data in another file, not one 3D volume of real numbers, or beyond the limits.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    sitk: Any = optional_library("SimpleITK", "simpleitk")
    with source.open("rb") as file:
        if _DETACHED.search(file.read(_START).split(b"\n\n", 1)[0]):
            raise ReadError(source, "keeps its data in another file; write header and data to one file")
    with parsing(source, "a volume of ITK"):
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(source))
        reader.ReadImageInformation()
        shape = tuple(reader.GetSize())
        if len(shape) != 3 or reader.GetNumberOfComponents() != 1:
            raise ReadError(source, f"holds an image of size {shape}; expected one 3D volume of CT numbers in HU")
        declared = math.prod(shape) * _LONGEST_PIXEL
        current_limits().check_declared(source, declared, source.stat().st_size, what="a volume")
        image = reader.Execute()
        data = np.asarray(sitk.GetArrayFromImage(image))
        if data.dtype.kind not in "iuf":
            raise ReadError(source, f"holds values of type {data.dtype}; expected real numbers, CT numbers in HU")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        turned, lps = to_lps(data.transpose(2, 1, 0).astype(np.float32), LPS_TO_RAS @ affine)
    return checked_volume(source, turned.transpose(2, 1, 0), lps, units)
