"""Photographs by name: ``photos:ROOT``, a folder of pictures or a file of crops."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deft_ct.datasets.images import PhotoCrops, PhotoFolder
from deft_ct.io.errors import ReadError

PREFIX = "photos:"
SIZE = 64
"""Side of the pictures of a folder where none is given."""
MOST_LIST_BYTES = 64 * 2**20


def is_photographs(text: str) -> bool:
    """Whether a name of data is that of photographs."""
    return text.startswith(PREFIX)


def photographs(text: str, split: Literal["train", "test"] = "train") -> PhotoCrops | PhotoFolder:
    """Photographs by name, with values in [-1, 1].

    Args:
        text: ``photos:FILE`` of an HDF5 file of crops (see :class:`~deft_ct.datasets.images.PhotoCrops`), or
            ``photos:FOLDER[@LIST][:SIZE]`` of a folder of pictures. LIST is a text file below the folder with one path
            in a line, as the lists of ImageNet and FFHQ; a second word in a line (a class) is not used. SIZE is the
            side to which the central square is resized, :data:`SIZE` where it is left out.
        split: which part of a file of crops.

    Raises:
        FileNotFoundError: there is no such file, folder or list.
        ReadError: the file or list is damaged or of another kind.
        ValueError: the name has another form, or the folder holds no pictures.
    """
    rest = text.removeprefix(PREFIX)
    if not is_photographs(text) or not rest:
        raise ValueError(f"photographs are named photos:FILE or photos:FOLDER[@LIST][:SIZE], got {text!r}")
    if Path(rest).is_file():
        return PhotoCrops(rest, split)
    root, size = _with_size(rest)
    folder, separator, listed = (root, "", "") if Path(root).is_dir() else root.rpartition("@")
    if not separator:
        return PhotoFolder(root, size)
    return PhotoFolder(folder, size, names=_names(Path(folder) / listed))


def _with_size(text: str) -> tuple[str, int]:
    root, _, last = text.rpartition(":")
    if not root or not last.isdigit() or Path(text).is_dir():
        return text, SIZE
    return root, int(last)


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no such list of pictures: {path}")
    if path.stat().st_size > MOST_LIST_BYTES:
        raise ReadError(path, f"is not a list of pictures: it is larger than {MOST_LIST_BYTES // 2**20} MiB")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ReadError(path, f"is not a list of pictures ({error})") from error
    found = [line.split()[0] for line in lines if line.strip()]
    if not found:
        raise ReadError(path, "names no pictures")
    return found
