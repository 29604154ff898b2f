"""The files of the Helsinki Tomography Challenge 2022 in a folder: scans with their reference segmentations.

Training: ``htc2022_ta_full.mat`` with ``htc2022_ta_full_recon_fbp_seg.mat``. Test: ``htc2022_01a_limited.mat`` with
``htc2022_01a_recon_fbp_seg.mat``, levels 01 to 07 and samples a to c. Segmentations are 512 x 512 under
``reconFullFbpSeg``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deft_ct.io.errors import ReadError
from deft_ct.io.matlab import read_matlab

SCAN = re.compile(r"(?P<stem>htc2022_.+?)_(?P<kind>full|limited)\.mat")
SIDE = 512
SEGMENTATION = "reconFullFbpSeg"
RECONSTRUCTION = "reconFullFbp"


@dataclass(frozen=True)
class HTCFiles:
    """One disc.

    Attributes:
        name: for example ``"htc2022_01a"``.
        scan: the scan: that of the limited angle where there is one, else the full one.
        segmentation: the reference segmentation, or None where it is missing.
    """

    name: str
    scan: Path
    segmentation: Path | None


def htc2022_files(root: Path) -> list[HTCFiles]:
    """The discs below a folder, in order of their names."""
    scans: dict[str, Path] = {}
    for path in sorted(root.rglob("*.mat")):
        found = SCAN.fullmatch(path.name)
        if found and (found["kind"] == "limited" or found["stem"] not in scans):
            scans[found["stem"]] = path
    return [HTCFiles(name, path, _segmentation(path.parent, name)) for name, path in sorted(scans.items())]


def read_segmentation(path: Path) -> NDArray[np.bool_]:
    """``(512, 512)``, True where there is material.

    Raises:
        ReadError: not such a file.
    """
    image = np.asarray(read_matlab(path, (SEGMENTATION,))[SEGMENTATION])
    if image.shape != (SIDE, SIDE) or image.dtype.kind not in "biuf":
        raise ReadError(path, f"expected a segmentation of {SIDE} x {SIDE}, got {image.shape} {image.dtype}")
    return np.asarray(image > 0.5 * float(image.max() or 1), dtype=np.bool_)


def _segmentation(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}_{middle}recon_fbp_seg.mat" for middle in ("", "full_"))
    return next((path for path in paths if path.is_file()), None)
