"""CT slices of a user's folder, for training: DICOM series, NIfTI volumes, HDF5 slice datasets or pictures.

Slices are brought to one size by averaging (which keeps HU) and held in memory as int16.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deft_ct.datasets.packs import CTPack
from deft_ct.datasets.slices import CTSlice
from deft_ct.io.dicom_read import read_all_dicom_series
from deft_ct.io.errors import ReadError
from deft_ct.io.folders import visible_files
from deft_ct.io.hdf5 import read_hdf5
from deft_ct.io.nifti import SUFFIXES as NIFTI_SUFFIXES
from deft_ct.io.nifti import read_nifti
from deft_ct.io.parsing import parsing
from deft_ct.io.pictures import read_picture
from deft_ct.io.untrusted import HDF5File
from deft_ct.runtime.printable import printable

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".tif", ".tiff")
HDF5_SUFFIXES = (".h5", ".hdf5")
HU_RANGE = (-1024, 3071)

# One series: its name, (Z, H, W) HU, pixel size, and the position of each slice along z.
_Part = tuple[str, NDArray[np.float32], float, NDArray[np.float32]]


class CTFolder(Dataset[CTSlice]):
    """Every CT slice below a folder, at one size.

    DICOM series come first, in order of their SeriesInstanceUID, then all other files in sorted order of their paths.
    What cannot be used is left out, logged, and listed in :attr:`skipped` with the reason.

    Args:
        root: the folder.
        size: side of the square slices, pixels. Larger slices are averaged, smaller ones interpolated, and the pixel
            size follows.
        every: keep every k-th slice of the whole list.
        picture_hu: (HU of black, HU of white) of PNG and TIFF pictures. Pictures carry no HU scale, so they are skipped
            where it is not given.
        picture_pixel_mm: pixel size of the pictures, mm; needed with ``picture_hu``.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no usable slice, or arguments out of range.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 256,
        every: int = 1,
        picture_hu: tuple[float, float] | None = None,
        picture_pixel_mm: float | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no such folder: {self.root}")
        if size < 1 or every < 1:
            raise ValueError(f"size and every must be at least 1, got {size} and {every}")
        if (picture_hu is None) != (picture_pixel_mm is None):
            raise ValueError("picture_hu and picture_pixel_mm belong together: give both or none")
        if picture_hu is not None and not picture_hu[0] < picture_hu[1]:
            raise ValueError(f"picture_hu must be (HU of black, HU of white) in increasing order, got {picture_hu}")
        self.skipped: dict[str, str] = {}
        self._pictures = None if picture_hu is None or picture_pixel_mm is None else (*picture_hu, picture_pixel_mm)
        stacks: list[NDArray[np.int16]] = []
        meta: list[tuple[str, int, int, float, float]] = []
        position = 0
        for name, hu, pixel_mm, z in self._parts():
            if hu.shape[1] != hu.shape[2]:
                self._skip(name, f"slices are {hu.shape[1]} x {hu.shape[2]}, not square")
                continue
            chosen = [n for n in range(len(hu)) if (position + n) % every == 0]
            resized, new_pixel_mm = resize_slices(hu[chosen], pixel_mm, size) if chosen else (hu[:0], pixel_mm)
            if chosen:
                stacks.append(np.rint(resized).clip(*HU_RANGE).astype(np.int16))
            meta += [(name, n, position + n, new_pixel_mm, float(z[n])) for n in chosen]
            position += len(hu)
        if not stacks:
            reasons = (
                "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:3])
                or "no files of a known kind"
            )
            raise ValueError(f"{self.root} holds no usable CT slices ({reasons})")
        self._hu = np.concatenate(stacks)
        self._meta = meta

    def __len__(self) -> int:
        return len(self._hu)

    def __iter__(self) -> Iterator[CTSlice]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, n: int) -> CTSlice:
        """Slice ``n`` of those kept; negative counts from the end."""
        if not -len(self) <= n < len(self):
            raise IndexError(f"slice {n} of {len(self)}")
        group, index, position, pixel_mm, z_mm = self._meta[n]
        hu = torch.from_numpy(self._hu[n].astype(np.float32))[None]
        return CTSlice(hu=hu, pixel_mm=pixel_mm, group=group, index=index, position=position, z_mm=z_mm)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""
        return self._hu.shape[1], self._hu.shape[2]

    @property
    def pixel_mm(self) -> NDArray[np.float64]:
        """(len,) pixel width of each slice."""
        return np.array([pixel_mm for _, _, _, pixel_mm, _ in self._meta])

    def batch(self, indices: Tensor | NDArray[np.integer] | list[int]) -> Tensor:
        """The slices ``indices`` at once, (len(indices), 1, size, size) float32 HU."""
        return torch.from_numpy(self._hu[np.asarray(indices)].astype(np.float32))[:, None]

    def _skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason
        logger.warning("left out %s: %s", printable(name), printable(reason, 500))

    def _parts(self) -> Iterator[_Part]:
        yield from self._dicom()
        for path in visible_files(self.root):
            name = str(path.relative_to(self.root))
            try:
                if path.name.lower().endswith(NIFTI_SUFFIXES):
                    with parsing(path, "a NIfTI volume"):
                        volume = read_nifti(path)
                    yield name, volume.hu, volume.pixel_mm, volume.affine[2, 3] + volume.z_mm * _count(volume.hu)
                elif path.suffix.lower() in HDF5_SUFFIXES:
                    yield from _hdf5(path, name)
                elif path.suffix.lower() in PICTURE_SUFFIXES:
                    if self._pictures is None:
                        raise ValueError(
                            "a picture has no HU scale: pass picture_hu and picture_pixel_mm "
                            "(deft-ct finetune: --hu-range and --pixel-mm); photographs for a prior are named "
                            "photos:FOLDER"
                        )
                    yield name, *_picture(path, *self._pictures)
            except (ValueError, OSError) as error:
                self._skip(name, str(error))

    def _dicom(self) -> Iterator[_Part]:
        try:
            series, refused = read_all_dicom_series(self.root, allow_gaps=True)
        except ReadError as error:
            # Without a DICOM file that is no DICOM folder, and no fault; a damaged one is named.
            if Path(error.path) != self.root:
                self._skip(printable(Path(error.path).relative_to(self.root)), str(error))
            return
        for uid, reason in refused.items():
            self._skip(uid, reason)
        for one in series:
            z = np.array([float(h.ImagePositionPatient[2]) for h in one.headers], np.float32)
            try:
                pixel_mm = one.pixel_mm
            except ValueError as error:  # pixels that are not square
                self._skip(one.series_uid, str(error))
                continue
            yield one.series_uid, one.hu, pixel_mm, z


def resize_slices(hu: NDArray[np.float32], pixel_mm: float, size: int) -> tuple[NDArray[np.float32], float]:
    """Bring square slices to ``size`` x ``size`` pixels over the same field of view.

    A whole-number factor down is the plain mean of blocks; any other size is bilinear with antialiasing.

    Args:
        hu: (Z, H, H) HU.
        pixel_mm: width of a pixel.
        size: the new side.

    Returns:
        (Z, size, size) float32 HU and the new pixel size.
    """
    side = hu.shape[1]
    if side == size:
        return hu, pixel_mm
    stack = torch.tensor(hu)[:, None]
    if side % size == 0:
        small = nnf.avg_pool2d(stack, side // size)
    else:
        small = nnf.interpolate(stack, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small[:, 0].numpy(), pixel_mm * side / size


def _hdf5(path: Path, name: str) -> Iterator[_Part]:
    """A slice dataset of several series, or a volume that :func:`deft_ct.io.hdf5.write_hdf5` wrote."""
    if HDF5File(path, depth=1).is_dataset("hu"):
        volume = read_hdf5(path)
        yield name, volume.hu, volume.pixel_mm, volume.affine[2, 3] + volume.z_mm * _count(volume.hu)
        return
    for group in CTPack(path).groups:
        pack = CTPack(path, groups=(group.name,))
        z = np.array([s.z_mm for s in pack], np.float32)
        yield f"{name}:{group.name}", pack.array().astype(np.float32), group.pixel_mm, z


def _picture(
    path: Path, black: float, white: float, pixel_mm: float
) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
    picture = read_picture(path)
    mode, pixels = picture.mode, np.asarray(picture)
    top = {"L": 255.0, "I;16": 65535.0, "I;16B": 65535.0}.get(mode)
    if top is None or pixels.ndim != 2:
        raise ValueError(f"a picture of mode {mode}; expected one grey channel of 8 or 16 bits")
    hu = black + pixels.astype(np.float32) * np.float32((white - black) / top)
    return hu[None], pixel_mm, np.full(1, np.nan, np.float32)


def _count(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.arange(len(hu), dtype=np.float32)
