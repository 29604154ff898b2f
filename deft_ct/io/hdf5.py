"""Results as HDF5: everything in HU with its place in the patient, for further computation."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.checks import checked_volume
from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File
from deft_ct.runtime.atomic import atomic_file

NOTE = "research only, not for clinical use"


def write_hdf5(
    volume: Volume,
    path: str | Path,
    *,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write a volume, and arrays that belong to it, whole or not at all.

    The file holds ``hu`` (Z, H, W) float32 with the attributes ``affine_lps``, ``pixel_mm``, ``z_mm``, ``units`` and
    ``note``, one dataset for each entry of ``arrays``, and ``provenance`` as a JSON attribute.

    Args:
        volume: the reconstruction.
        path: the file; an old one is replaced.
        arrays: for example ``{"std_hu": (Z, H, W), "samples_hu": (n, Z, H, W)}``.
        provenance: what made it; must be plain JSON.

    Returns:
        The path.

    Raises:
        ValueError: an array is called ``hu``.
        TypeError: ``provenance`` is not plain JSON.
        PermissionError: it cannot be written.
    """
    extra = dict(arrays or {})
    if "hu" in extra:
        raise ValueError("the name 'hu' is taken by the volume; call the array something else")
    text = json.dumps(provenance or {}, sort_keys=True)
    content = io.BytesIO()  # HDF5 does not say what the system said when it cannot write
    with h5py.File(content, "w") as file:
        file.attrs["provenance"] = text
        file.attrs["note"] = NOTE
        dataset = file.create_dataset("hu", data=volume.hu, compression="gzip", chunks=(1, *volume.image_shape))
        dataset.attrs["affine_lps"] = volume.affine
        dataset.attrs["pixel_mm"], dataset.attrs["z_mm"], dataset.attrs["units"] = volume.pixel_mm, volume.z_mm, "HU"
        for name, array in extra.items():
            file.create_dataset(name, data=array, compression="gzip")
    with atomic_file(path) as work:
        work.write_bytes(content.getbuffer())
    return Path(path)


def write_stacks(
    path: str | Path,
    stacks: Mapping[str, tuple[NDArray[Any], str]],
    *,
    attributes: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Path:
    """Write stacks of images with their units, whole or not at all.

    Args:
        path: the file; an old one is replaced.
        stacks: name -> ``(Z, H, W)`` and its unit, for example ``{"attenuation": (mu, "1/mm")}``.
        attributes: of every stack, such as the pixel size.
        provenance: what made them; must be plain JSON.

    Returns:
        The path.

    Raises:
        TypeError: ``provenance`` is not plain JSON.
        PermissionError: it cannot be written.
    """
    text = json.dumps(provenance, sort_keys=True)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["provenance"], file.attrs["note"] = text, NOTE
        for name, (array, unit) in stacks.items():
            dataset = file.create_dataset(name, data=array, compression="gzip", chunks=(1, *array.shape[1:]))
            dataset.attrs.update({**attributes, "units": unit})
    with atomic_file(path) as work:
        work.write_bytes(content.getbuffer())
    return Path(path)


def read_hdf5(path: str | Path, *, units: HounsfieldScale | None = None) -> Volume:
    """Read the volume of a file of :func:`write_hdf5`. It may come from anywhere, see :mod:`deft_ct.io.untrusted`.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not HDF5, damaged, without ``hu`` and its affine, with values or pixels that no CT has, or beyond
            the limits.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such HDF5 file: {source}")
    file = HDF5File(source, depth=1)
    if "hu" not in file or not file.has_attribute("hu", "affine_lps"):
        raise ReadError(source, f"holds no dataset 'hu' with the attribute 'affine_lps'; it has {list(file)[:20]}")
    affine = file.attribute("hu", "affine_lps")
    return checked_volume(source, file.read("hu", dtype=np.float32), affine, units)
