"""2DeteCT: MEASURED fan-beam scans of slices of fruit, nuts and stones in three modes of one scanner.

Kiss, Coban, Batenburg, van Leeuwen and Lucka (2023), Scientific Data 10:576, doi:10.1038/s41597-023-02484-6. Zenodo
8014757 and following (raw data), 8017582 and following (reconstructions). ``slice00001/mode2/`` holds ``sinogram.tif``
(3601 views x 1912 elements, uint16 counts), ``dark.tif``, ``flat1.tif``, ``flat2.tif``, and in the second archive
``reconstruction.tif`` (1024 x 1024). Mode 1 is low-dose, mode 2 the clean one, mode 3 without filter at 60 kV.

The constants come from the authors' scripts:

- pairs of elements are added, and the last view repeats the first;
- the detector is shifted by one added element in the slices 1 to 2830 and 5521 to 5870;
- the reference images hold attenuation per pixel, and their centre lies one pixel off the centre of the scan, in both
  directions.

Not verified on a real file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.pictures import read_picture
from deft_ct.operators.ct import FanGeometry

VIEWS, ELEMENTS = 3600, 956
SOURCE_TO_CENTER_MM, SOURCE_TO_DETECTOR_MM = 431.019989, 529.000488
ELEMENT_MM = 2 * 0.0748
REFERENCE_SIDE = 1024
PIXEL_MM = ELEMENTS * ELEMENT_MM * SOURCE_TO_CENTER_MM / SOURCE_TO_DETECTOR_MM / REFERENCE_SIDE
"""Width of a pixel of the reference images, 0.1138 mm."""
MODES = (1, 2, 3)
RAW_FILES = ("sinogram.tif", "dark.tif", "flat1.tif", "flat2.tif")
SLICE_FOLDER = re.compile(r"slice(\d{5})")
TRANSMISSION_FLOOR = 1e-6
_SHIFTED = (range(1, 2831), range(5521, 5871))


@dataclass(frozen=True)
class TwoDetect:
    """Slices of one mode below a folder; raw data and reconstructions may lie in different sub-folders.

    Args:
        root: the folder.
        mode: 1, 2 or 3.

    Raises:
        FileNotFoundError: no such folder, or no sinogram of the mode in it.
        ValueError: an unknown mode.
    """

    root: Path
    mode: int = 2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"the mode must be 1, 2 or 3, got {self.mode}")
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")
        if not self.slices():
            raise FileNotFoundError(f"{self.root} holds no slice?????/mode{self.mode}/sinogram.tif of 2DeteCT")

    def slices(self) -> list[int]:
        """Numbers of the slices that have a sinogram of the mode."""
        return sorted(self._folders("sinogram.tif", self.mode))

    def references(self, mode: int) -> list[int]:
        """Numbers of the slices that have a reference reconstruction of a mode."""
        return sorted(self._folders("reconstruction.tif", mode))

    def sinogram(self, number: int, *, views: int = VIEWS) -> Tensor:
        """``(1, views, 956)`` float32 line integrals.

        Args:
            number: of the slice.
            views: keep every ``3600 / views``-th; a divisor of 3600.

        Raises:
            FileNotFoundError: a file is missing.
            ReadError: a file is damaged or of another shape.
        """
        check_views(views)
        folder = self._folders("sinogram.tif", self.mode)[number]
        counts = _pairs(folder / "sinogram.tif", VIEWS + 1)[: VIEWS : VIEWS // views]
        dark = _pairs(folder / "dark.tif", 1)
        white = 0.5 * (_pairs(folder / "flat1.tif", 1) + _pairs(folder / "flat2.tif", 1)) - dark
        if (white <= 0).any():
            raise ReadError(folder / "flat1.tif", f"{int((white <= 0).sum())} elements are no brighter than the dark")
        transmission = np.maximum((counts - dark) / white, TRANSMISSION_FLOOR)
        return torch.from_numpy(-np.log(transmission).astype(np.float32))[None]

    def reference(self, number: int, *, mode: int, side: int = REFERENCE_SIDE) -> NDArray[np.float32]:
        """``(side, side)`` reference reconstruction, 1/mm, centred as :meth:`geometry` is.

        Args:
            number: of the slice.
            mode: of the scan that it was made of.
            side: pixels per side, a divisor of 1024; pixels are averaged.

        Raises:
            FileNotFoundError: it is missing.
            ReadError: it is damaged or of another shape.
        """
        check_side(side)
        found = self._folders("reconstruction.tif", mode).get(number)
        if found is None:
            raise FileNotFoundError(
                f"{self.root} holds no slice{number:05d}/mode{mode}/reconstruction.tif: the reconstructions are an "
                "archive of their own (Zenodo 8017582 and following)"
            )
        image = np.asarray(read_picture(found / "reconstruction.tif"), np.float32)
        if image.shape != (REFERENCE_SIDE, REFERENCE_SIDE) or not np.isfinite(image).all():
            raise ReadError(found / "reconstruction.tif", f"expected a finite image of 1024 x 1024, got {image.shape}")
        centred = np.pad(image, ((0, 1), (0, 1)), mode="edge")[1:, 1:]
        step = REFERENCE_SIDE // side
        blocks = centred.reshape(side, step, side, step).mean((1, 3)) / PIXEL_MM
        return blocks.astype(np.float32)

    def geometry(self, number: int, *, views: int = VIEWS, side: int = REFERENCE_SIDE) -> FanGeometry:
        """The scan of a slice, for images of ``side`` x ``side`` pixels over the field of view."""
        check_views(views)
        check_side(side)
        shifted = any(number in part for part in _SHIFTED)
        return FanGeometry(
            image_shape=(side, side), pixel_mm=PIXEL_MM * REFERENCE_SIDE / side, views=views, detectors=ELEMENTS,
            detector_mm=ELEMENT_MM, source_to_center_mm=SOURCE_TO_CENTER_MM,
            source_to_detector_mm=SOURCE_TO_DETECTOR_MM, detector_offset_mm=-ELEMENT_MM if shifted else 0.0,
        )  # fmt: skip

    def _folders(self, name: str, mode: int) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for path in sorted(self.root.rglob(f"mode{mode}/{name}")):
            number = SLICE_FOLDER.fullmatch(path.parent.parent.name)
            if number:
                found.setdefault(int(number[1]), path.parent)
        return found


def check_views(views: int) -> None:
    """Refuse a number of views that does not divide 3600.

    Raises:
        ValueError: it does not.
    """
    if views < 1 or VIEWS % views:
        raise ValueError(f"views must divide {VIEWS}, got {views}")


def check_side(side: int) -> None:
    """Refuse a number of pixels that does not divide 1024.

    Raises:
        ValueError: it does not.
    """
    if side < 1 or REFERENCE_SIDE % side:
        raise ValueError(f"size must divide {REFERENCE_SIDE}, got {side}")


def raw_counts(path: Path, rows: int) -> NDArray[np.float64]:
    """``(rows, 1912)`` counts of a file.

    Raises:
        ReadError: it is damaged or of another shape.
    """
    picture = np.atleast_2d(np.asarray(read_picture(path)))
    if picture.shape != (rows, 2 * ELEMENTS):
        raise ReadError(path, f"holds {picture.shape} counts, expected {(rows, 2 * ELEMENTS)}")
    return picture.astype(np.float64)


def _pairs(path: Path, rows: int) -> NDArray[np.float64]:
    counts = raw_counts(path, rows)
    added: NDArray[np.float64] = counts[:, ::2] + counts[:, 1::2]
    return added
