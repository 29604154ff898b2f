"""Pictures (PNG, TIFF, JPEG, ...) that are not trusted: bounded in memory, and every error with the file's name."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, current_limits
from deft_ct.io.parsing import parsing

_CHANNEL_BYTES = 4  # most of one pixel: RGBA, or 32 bits


def read_picture(path: str | Path, mode: str | None = None) -> Image.Image:
    """Decode the first picture of a file.

    Args:
        path: the file.
        mode: convert to this mode of Pillow, for example "RGB"; None leaves it.

    Raises:
        FileNotFoundError: no such file.
        ReadError: the file is damaged, no picture, or declares more pixels than ``Limits.modest_bytes`` hold.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such picture: {source}")
    with parsing(source, "a picture"), warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow only warns of some damage, and goes on to fail in other ways
        # Opening reads the header alone. Pillow's own limit of pixels is one of these warnings.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(source) as file:
            declared, most = file.width * file.height * _CHANNEL_BYTES, current_limits().modest_bytes
            if declared > most:
                raise ReadError(
                    source,
                    f"it declares {file.width} x {file.height} pixels, {declared / 2**20:,.0f} MiB; at most "
                    f"{most / 2**20:,.0f} MiB are read. If it is sound, set {LIMIT_VARIABLE}",
                )
            return file.convert(mode) if mode else file.copy()


def count_pages(path: str | Path) -> int:
    """Pictures that a file holds; 1 for formats without pages.

    Raises:
        ReadError: the file is damaged or no picture.
    """
    source = Path(path)
    with parsing(source, "a picture"), Image.open(source) as file:
        return int(getattr(file, "n_frames", 1))
