"""Photographs by name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from deft_ct.datasets.images import PhotoCrops, PhotoFolder
from deft_ct.datasets.photographs import is_photographs, photographs
from deft_ct.io.errors import ReadError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, grey in (("n01/a.png", 10), ("n01/b.png", 20), ("n02/c.jpg", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 24, 3), grey, np.uint8)).save(tmp_path / name)
    return tmp_path


def _greys(photos: PhotoCrops | PhotoFolder) -> list[int]:
    return [int(((image.mean() + 1) * 127.5).round()) for image in (photos[n] for n in range(len(photos)))]


def test_a_folder_is_read_at_a_size(folder: Path) -> None:
    assert is_photographs(f"photos:{folder}") and not is_photographs(str(folder))
    assert photographs(f"photos:{folder}").image_shape == (64, 64)
    photos = photographs(f"photos:{folder}:16")
    assert photos.image_shape == (16, 16) and _greys(photos) == [10, 20, 30]
    batch = photos.batch(torch.tensor([2, 0]))
    assert torch.equal(batch, torch.stack([photos[2], photos[0]]))


def test_a_list_says_which_and_in_what_order(folder: Path) -> None:
    """Lines of ImageNet's lists end in a class."""
    (folder / "val.txt").write_text("n02/c.jpg 7\n\nn01/a.png 3\n", encoding="utf-8")
    assert _greys(photographs(f"photos:{folder}@val.txt:16")) == [30, 10]
    assert _greys(photographs(f"photos:{folder}@val.txt")) == [30, 10]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("n01/z.png", "does not hold"), ("../x.png", "is not below"), ("/etc/x.png", "is not below"),
        ("\n", "no pictures"),
    ],
)  # fmt: skip
def test_lists_that_are_refused(folder: Path, lines: str, problem: str) -> None:
    (folder / "val.txt").write_text(lines, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        photographs(f"photos:{folder}@val.txt")


def test_lists_that_are_no_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such list"):
        photographs(f"photos:{folder}@none.txt")
    (folder / "val.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ReadError, match="is not a list of pictures"):
        photographs(f"photos:{folder}@val.txt")
    monkeypatch.setattr("deft_ct.datasets.photographs.MOST_LIST_BYTES", 2)
    with pytest.raises(ReadError, match="larger than"):
        photographs(f"photos:{folder}@val.txt")


def test_a_file_of_crops(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train"], file["test"] = pixels, pixels[:1]
    assert len(photographs(f"photos:{tmp_path / 'x.h5'}")) == 3
    assert len(photographs(f"photos:{tmp_path / 'x.h5'}", "test")) == 1


@pytest.mark.parametrize("text", ["photos:", "folder", ""])
def test_names_of_another_form(text: str) -> None:
    with pytest.raises(ValueError, match="photographs are named photos:FILE"):
        photographs(text)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        photographs("photos:nowhere:16")
