from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from deft_ct.datasets.images import PhotoCrops, PhotoFolder, from_uint8, to_uint8
from deft_ct.datasets.packs import data_root


def test_value_range_round_trip() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)[..., :3]
    images = from_uint8(pixels)
    assert images.shape == (3, 8, 8) and float(images.min()) == -1.0
    np.testing.assert_array_equal(to_uint8(images), pixels)
    assert to_uint8(torch.full((1, 1, 1), 7.0)).item() == 255
    assert float(from_uint8(np.full((1, 1, 1), 255, np.uint8))) == 1.0


def test_crops(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train"], file["test"], file["bad"] = pixels, pixels[:2], pixels[..., 0]
    crops = PhotoCrops(tmp_path / "x.h5", "train")
    assert len(crops) == 5 and crops.image_shape == (4, 6) and len(PhotoCrops(tmp_path / "x.h5", "test")) == 2
    np.testing.assert_allclose(crops[3][1].numpy(), pixels[3, :, :, 1] / 127.5 - 1, atol=1e-6)
    assert torch.equal(crops.batch([3, 0])[0], crops[3])
    with pytest.raises(ValueError, match=r"no split 'val'; it has \['bad', 'test', 'train'\]"):
        PhotoCrops(tmp_path / "x.h5", "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="uint8"):
        PhotoCrops(tmp_path / "x.h5", "bad")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        PhotoCrops(tmp_path / "none.h5", "train")
    with pytest.raises(IndexError):
        crops[5]


def test_folder_cuts_the_centre_and_resizes(tmp_path: Path) -> None:
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:, 2:10] = 200  # exactly the central square
    Image.fromarray(picture).save(tmp_path / "b.png")
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((4, 4), 100, np.uint8)).save(tmp_path / "deep" / "c.png")
    (tmp_path / "notes.txt").write_text("hello")
    photos = PhotoFolder(tmp_path, 4)
    assert [p.name for p in photos.paths] == ["b.png", "c.png"]
    assert photos[0].shape == (3, 4, 4)
    np.testing.assert_allclose(photos[0].numpy(), 200 / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(photos[1].numpy(), 100 / 127.5 - 1, atol=1e-6)
    assert PhotoFolder(tmp_path, 4, channels=1)[0].shape == (1, 4, 4)


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PhotoFolder(tmp_path / "none", 4)
    with pytest.raises(ValueError, match="holds no pictures"):
        PhotoFolder(tmp_path, 4)
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(ValueError, match=r"x\.png: it cannot be read"):
        PhotoFolder(tmp_path, 4)
    with pytest.raises(ValueError, match="size >= 1"):
        PhotoFolder(tmp_path, 0)


def test_damaged_photographs_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:1500])
    photos = PhotoFolder(tmp_path, 8)
    assert [p.name for p in photos.paths] == ["a.png"] and list(photos.skipped) == ["cut.png"]
    assert "cut.png" in caplog.text


@pytest.mark.data
def test_real_photographs() -> None:
    try:
        root = data_root() / "photos"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    crops = PhotoCrops(root / "crops64.h5", "test")
    assert len(crops) == 200 and crops[0].shape == (3, 64, 64)
    assert len(PhotoFolder(root / "kodak256", 256)) == 12
