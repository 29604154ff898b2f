"""Photographs from and to picture files, with values in [-1, 1]; what is changed on the way is said.

Grey pictures of 8 or 16 bits have one channel, coloured ones of 8 bits three. Black is -1 and white is 1. Palettes are
resolved. Transparency is dropped: the colours below it are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.pictures import read_picture

_GREY_8, _GREY_16 = ("1", "L", "LA", "La"), ("I;16", "I;16L", "I;16B", "I;16N", "I")
_COLOURED = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Photograph:
    """A picture of a file.

    Attributes:
        pixels: ``(C, H, W)`` float32 in [-1, 1], one channel or three.
        bits: of a channel in the file, 8 or 16.
        notes: what was changed when it was read.
    """

    pixels: Tensor
    bits: int = 8
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        channels, height, width = self.pixels.shape
        return channels, height, width


def read_photograph(path: str | Path) -> Photograph:
    """Read a picture file.

    Raises:
        FileNotFoundError: no such file.
        ReadError: the file is damaged, no picture, or of a pixel format other than those of the module.
    """
    picture = read_picture(path)
    notes = []
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        notes.append("the transparency is dropped")
    if picture.mode in _GREY_16:
        values = np.asarray(picture).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ReadError(Path(path), "has grey values outside of 0 to 65535; expected a picture of 8 or 16 bits")
        return Photograph(torch.from_numpy(values)[None] / 32767.5 - 1.0, bits=16, notes=tuple(notes))
    if picture.mode in _GREY_8:
        plain = np.asarray(picture.convert("L"))[None]
    elif picture.mode in _COLOURED:
        if picture.mode not in ("RGB", "RGBA", "P"):
            notes.append(f"{picture.mode} is converted to RGB")
        plain = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    else:
        raise ReadError(Path(path), f"has pixels of the kind {picture.mode}; expected grey or RGB of 8 or 16 bits")
    return Photograph(torch.from_numpy(plain.astype(np.float32)) / 127.5 - 1.0, notes=tuple(notes))


def write_photograph(photograph: Photograph, path: Path | BinaryIO) -> None:
    """Write a PNG of the photograph's own bits; values are clipped to [-1, 1] and rounded.

    Three channels are written with 8 bits.

    Args:
        photograph: the picture.
        path: the file, or a stream; the caller makes the writing atomic.

    Raises:
        ValueError: there are neither one nor three channels.
    """
    channels = photograph.shape[0]
    if channels not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels, got {channels}")
    scaled = (photograph.pixels.detach().cpu().double().clamp(-1, 1) + 1) / 2
    if channels == 1 and photograph.bits == 16:
        grey: NDArray[np.uint16] = (scaled[0] * 65535).round().numpy().astype(np.uint16)
        Image.fromarray(grey).save(path, format="PNG")
        return
    pixels: NDArray[np.uint8] = (scaled * 255).round().numpy().astype(np.uint8)
    Image.fromarray(pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1)).save(path, format="PNG")


def read_mask(path: str | Path) -> Tensor:
    """A mask from a picture: white is observed (1), black is missing (0); ``(1, H, W)``.

    Raises:
        FileNotFoundError: no such file.
        ReadError: the file is no picture, or holds other values than black and white.
    """
    values = read_picture(path, "L")
    found = np.unique(np.asarray(values))
    if not set(found.tolist()) <= {0, 255} and not set(found.tolist()) <= {0, 1}:
        raise ReadError(
            Path(path), f"is not a mask: expected black (missing) and white (observed) alone, got {len(found)} greys"
        )
    return torch.from_numpy((np.asarray(values) > 0).astype(np.float32))[None]


def read_kernel(path: str | Path) -> Tensor:
    """A blur kernel from a picture or a ``.npy`` file, scaled to the sum 1; ``(h, w)`` float64.

    Raises:
        FileNotFoundError: no such file.
        ReadError: the file is neither, or its values are negative, not finite or all zero, or a side is even.
    """
    source = Path(path)
    if source.suffix.lower() == ".npy":
        if not source.is_file():
            raise FileNotFoundError(f"no such kernel: {source}")
        try:
            values = np.load(source, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ReadError(source, f"is not a kernel ({error})") from error
    else:
        values = np.asarray(read_picture(source, "L"))
    if values.ndim != 2 or values.shape[0] % 2 == 0 or values.shape[1] % 2 == 0 or values.dtype.kind not in "uif":
        raise ReadError(source, f"is not a kernel: expected (h, w) with odd sides, got {values.dtype} {values.shape}")
    kernel = torch.from_numpy(values.astype(np.float64))
    if not bool(torch.isfinite(kernel).all()) or bool((kernel < 0).any()) or not float(kernel.sum()) > 0:
        raise ReadError(source, "is not a kernel: expected finite values of at least 0 with a sum above 0")
    return kernel / kernel.sum()
