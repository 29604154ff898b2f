"""Slice datasets at half the resolution (2 x 2 means), and scans that fit them.

A slice of 128 x 128 pixels costs a quarter of one of 256 x 256, so many networks can be trained to convergence on one
processor core.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, pack_path
from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File
from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.content_key import OtherContentError

SOURCE = "source_sha256"
"""Attribute of a halved file: content hash of the dataset that it was made from."""


def halve(source: Path, target: Path) -> Path:
    """Write a slice dataset whose pixels are the means of 2 x 2 pixels of another one.

    The number of pixels along each side is halved and the pixel size doubled. All other attributes are copied.

    Args:
        source: an HDF5 file with slices of an even number of rows and columns.
        target: the file to write; it appears when it is complete.

    Returns:
        ``target``.

    Raises:
        ReadError: the source is not such a file.
    """
    known = CTPack(source).content_hash()
    given = HDF5File(source)
    with atomic_file(target) as temporary, h5py.File(temporary, "w") as made:
        made.attrs.update({key: given.attribute("", key) for key in given.item().attributes if key != "description"})
        made.attrs["description"] = "2x2 means of: " + str(given.attribute("", "description", source.name))
        made.attrs[SOURCE] = known
        for name in given:
            group = made.create_group(name)
            for key in given.item(name).attributes:
                group.attrs[key] = 2 * given.number(name, key) if key == "pixel_mm" else given.attribute(name, key)
            hu = given.read(f"{name}/hu", dtype=np.float32)
            if hu.ndim != 3 or hu.shape[1] % 2 or hu.shape[2] % 2:
                raise ReadError(source, f"'{name}/hu' must have an even number of rows and columns, got {hu.shape}")
            count, rows, columns = hu.shape
            means = hu.reshape(count, rows // 2, 2, columns // 2, 2).mean((2, 4))
            group.create_dataset("hu", data=np.rint(means).astype(np.int16), compression="gzip")
            if f"{name}/z_mm" in given:
                group["z_mm"] = given.read(f"{name}/z_mm")
    return target


def halved_pack(folder: Path, name: str) -> Path:
    """The file ``NAME.h5`` in ``folder`` with the halved slices of a dataset; it is written if it is missing.

    A file that says which dataset it was made from is compared with it. One that does not say it is used as it is.

    Raises:
        OtherContentError: the file was made from other slices.
    """
    target = folder / f"{name}.h5"
    if not target.is_file():
        return halve(pack_path(name), target)
    with h5py.File(target) as file:
        known = file.attrs.get(SOURCE)
    if known is not None and known != CTPack(pack_path(name)).content_hash():
        raise OtherContentError(f"{target} was made from other slices than {pack_path(name)}: choose another folder")
    return target


def halved_scan(scan: Scan | str) -> Scan:
    """The scan with half the detector elements, each twice as wide, for slices of half the pixels per side.

    A fan beam is unchanged: its detector follows from the image.
    """
    full = Scan.from_name(scan) if isinstance(scan, str) else scan
    return replace(full, detectors=(full.detectors or 364) // 2) if full.geometry == "parallel" else full
