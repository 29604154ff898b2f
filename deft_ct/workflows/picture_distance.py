"""FID and KID of two folders of pictures, such as ``OUT/pictures`` of a benchmark of photographs has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from deft_ct.datasets.images import SUFFIXES, picture_paths, to_uint8
from deft_ct.evaluation.picture_sets import (
    SetDistance,
    inception_missing,
    load_inception,
    picture_features,
    set_distance,
)
from deft_ct.io.photographs import read_photograph
from deft_ct.runtime.device import check_device


def folder_distance(
    truth: Path,
    restored: Path,
    *,
    inception: Path | None = None,
    device: str = "cpu",
    say: Callable[[str], None] | None = None,
) -> SetDistance:
    """FID and KID of the pictures of two folders, read with their sub-folders.

    The pictures need no partners in the other folder, and may differ in size: the network scales them to its own. Grey
    ones count as three equal channels, and all have 8 bits.

    Args:
        truth: of the true pictures.
        restored: of the restored ones.
        inception: file of the Inception network, see :func:`~deft_ct.evaluation.picture_sets.load_inception`.
        device: where the network is run.
        say: gets a line on what is being done.

    Raises:
        FileNotFoundError: there is no such folder, or the network is missing.
        ReadError: a picture is damaged, or the file of the network is another one.
        ValueError: a folder has fewer than two pictures, or there is no such device.
    """
    check_device(device)
    if inception is not None and (missing := inception_missing(inception)):
        raise FileNotFoundError(missing)  # before the folders are searched
    paths = [_pictures_in(folder) for folder in (truth, restored)]
    network = load_inception(inception, device=device)
    features = []
    for folder, found in zip((truth, restored), paths, strict=True):
        if say is not None:
            say(f"{folder}: {len(found)} pictures")
        features.append(picture_features(_read(found), network, device=device))
    return set_distance(*features)


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    found = picture_paths(folder)
    if len(found) < 2:
        raise ValueError(
            f"{folder} has {len(found)} pictures ({', '.join(SUFFIXES)}); a set needs two or more, and thousands for "
            "an FID like those of papers"
        )  # fmt: skip
    return found


def _read(paths: list[Path]) -> Iterator[Tensor]:
    """Pictures as the network takes them, ``(3, H, W)`` uint8."""
    for path in paths:
        pixels = to_uint8(read_photograph(path).pixels)
        yield torch.from_numpy(pixels).movedim(-1, 0).expand(3, -1, -1)
