"""Photographs, for the operators that are not tomography: values in [-1, 1], the range of an image prior."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from deft_ct.io.errors import ReadError
from deft_ct.io.pictures import read_picture
from deft_ct.io.untrusted import HDF5File
from deft_ct.runtime.printable import printable

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


class PhotoCrops(Dataset[Tensor]):
    """Crops of photographs in one HDF5 file: datasets ``train`` and ``test`` of (N, H, W, 3) uint8.

    Args:
        path: the file, for example ``data_root() / "photos" / "crops64.h5"``.
        split: "train" or "test" (from different photographs).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or an unknown split.
    """

    def __init__(self, path: str | Path, split: Literal["train", "test"]) -> None:
        source = Path(path)
        self.path, self.split = source, split
        if not source.is_file():
            raise FileNotFoundError(f"no such file: {source}")
        file = HDF5File(source, depth=1)
        if split not in file:
            raise ReadError(source, f"has no split {split!r}; it has {list(file)[:20]}")
        item = file.item(split)
        if len(item.shape) != 4 or item.shape[3] != 3 or item.dtype != "|u1":
            raise ReadError(source, f"'{split}' must be (N, H, W, 3) uint8, got {item.shape} {item.dtype}")
        self._pixels: NDArray[np.uint8] = file.read(split)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, n: int) -> Tensor:
        """Crop ``n`` as (3, H, W) float32 in [-1, 1]."""
        if not -len(self) <= n < len(self):
            raise IndexError(f"crop {n} of {len(self)}")
        return from_uint8(self._pixels[n])

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every crop."""
        return self._pixels.shape[1], self._pixels.shape[2]

    def batch(self, indices: Tensor | NDArray[np.integer] | list[int]) -> Tensor:
        """The crops ``indices`` at once, (len(indices), 3, H, W) float32 in [-1, 1]."""
        return from_uint8(self._pixels[np.asarray(indices)])


class PhotoFolder(Dataset[Tensor]):
    """The pictures of a folder, each cut to its central square and resized.

    All are decoded once at the start: what cannot be read is left out, logged, and listed in :attr:`skipped`.

    Args:
        folder: read with its sub-folders; pictures are taken in sorted order of their paths.
        size: side of the square that is returned, pixels.
        channels: 3 (RGB) or 1 (luminance).
        names: paths of the pictures below the folder, in this order; all of them when None.

    Raises:
        FileNotFoundError: no such folder, or a picture of ``names`` is missing.
        ValueError: no picture in it that can be read, ``size`` < 1, other channels, or a name that leads out of the
            folder.
    """

    def __init__(
        self, folder: str | Path, size: int, *, channels: Literal[1, 3] = 3, names: Sequence[str] | None = None
    ) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"no such folder: {root}")
        if size < 1 or channels not in (1, 3):
            raise ValueError(f"expected size >= 1 and channels 1 or 3, got {size} and {channels}")
        self.root = root
        self._size, self._mode = size, "RGB" if channels == 3 else "L"
        self.skipped: dict[str, str] = {}
        found = picture_paths(root) if names is None else [_inside(root, name) for name in names]
        self.paths = tuple(p for p in found if self._can_be_read(p, root))
        if not found:
            raise ValueError(f"{root} holds no pictures ({', '.join(SUFFIXES)})")
        if not self.paths:
            raise ValueError(f"{root} holds no picture that can be read: {next(iter(self.skipped.values()))}")

    def _can_be_read(self, path: Path, root: Path) -> bool:
        try:
            read_picture(path)
        except (ReadError, OSError) as error:
            self.skipped[printable(path.relative_to(root))] = str(error)
            logger.warning("left out %s", printable(error, 500))
            return False
        return True

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, n: int) -> Tensor:
        """Picture ``n`` as (channels, size, size) float32 in [-1, 1].

        Raises:
            ReadError: the file has changed and is no picture any more.
        """
        picture = read_picture(self.paths[n], self._mode)
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        if side != self._size:
            square = square.resize((self._size, self._size), Image.Resampling.LANCZOS)
        return from_uint8(np.atleast_3d(np.asarray(square)))

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every picture."""
        return self._size, self._size

    def batch(self, indices: Tensor | NDArray[np.integer] | list[int]) -> Tensor:
        """The pictures ``indices`` at once, (len(indices), channels, size, size) float32 in [-1, 1]."""
        return torch.stack([self[int(n)] for n in indices])


def picture_paths(folder: Path) -> list[Path]:
    """The picture files of a folder and its sub-folders, sorted by their paths; they are known by their suffixes."""
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"the list of pictures names {printable(name, 200)}, which is not below {root}")
    if not path.is_file():
        raise FileNotFoundError(f"the list of pictures names {printable(name, 200)}, which {root} does not hold")
    return path


def from_uint8(pixels: NDArray[np.uint8]) -> Tensor:
    """(..., H, W, C) uint8 to (..., C, H, W) float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    moved = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    return torch.from_numpy(moved.astype(np.float32)) / 127.5 - 1.0


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """(..., C, H, W) in [-1, 1] to (..., H, W, C) uint8, clipped and rounded."""
    scaled = ((images.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255)
    pixels: NDArray[np.uint8] = np.moveaxis(scaled.to(torch.uint8).numpy(), -3, -1)
    return pixels
