"""Picture files and photographs: every kind of pixel by its stated rule, and back to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deft_ct.io.errors import ReadError
from deft_ct.io.photographs import Photograph, read_kernel, read_mask, read_photograph, write_photograph

RNG = np.random.default_rng(0)


def saved(folder: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path = folder / "picture.png"
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_eight_bits_come_back_to_the_byte(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    photograph = read_photograph(saved(tmp_path, pixels))
    assert photograph.shape == (1 if len(shape) == 2 else 3, 5, 7) and photograph.bits == 8 and not photograph.notes
    write_photograph(photograph, tmp_path / "again.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again.png")), pixels)


def test_sixteen_bits_come_back_to_the_count(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    pixels[0, :2] = 0, 65535
    photograph = read_photograph(saved(tmp_path, pixels))
    assert photograph.bits == 16 and photograph.pixels[0, 0, :2].tolist() == [-1.0, 1.0]
    write_photograph(photograph, tmp_path / "again.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again.png")), pixels)


def test_transparency_is_dropped_and_said(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    photograph = read_photograph(saved(tmp_path, pixels))
    assert photograph.notes == ("the transparency is dropped",)
    np.testing.assert_allclose(photograph.pixels.numpy(), np.moveaxis(pixels[..., :3], -1, 0) / 127.5 - 1, atol=1e-6)


def test_a_palette_is_resolved_and_values_beyond_the_range_are_clipped(tmp_path: Path) -> None:
    assert read_photograph(saved(tmp_path, np.full((3, 3, 3), 200, np.uint8), "P")).shape == (3, 3, 3)
    write_photograph(Photograph(torch.tensor([[[-3.0, 0.0, 3.0]]])), tmp_path / "x.png")
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[0, 128, 255]]


def test_floats_and_rubbish_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(ReadError, match="has pixels of the kind F; expected grey or RGB"):
        read_photograph(tmp_path / "x.tif")
    (tmp_path / "y.png").write_bytes(b"none")
    with pytest.raises(ReadError, match="picture"):
        read_photograph(tmp_path / "y.png")
    with pytest.raises(FileNotFoundError):
        read_photograph(tmp_path / "z.png")


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path, np.array([[0, 255], [255, 0]], np.uint8)))
    assert mask.tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    with pytest.raises(ReadError, match="is not a mask: expected black"):
        read_mask(saved(tmp_path, np.array([[0, 130], [255, 0]], np.uint8)))


def test_kernels_sum_to_one(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]))
    assert float(read_kernel(tmp_path / "k.npy")[1, 1]) == 0.5
    assert float(read_kernel(saved(tmp_path, np.full((3, 1), 9, np.uint8))).sum()) == pytest.approx(1)
    for wrong in (np.ones((2, 3)), -np.ones((3, 3)), np.zeros((3, 3)), np.full((3, 3), np.nan), np.ones(3)):
        np.save(tmp_path / "k.npy", wrong)
        with pytest.raises(ReadError, match="is not a kernel"):
            read_kernel(tmp_path / "k.npy")
    with pytest.raises(FileNotFoundError, match="no such kernel"):
        read_kernel(tmp_path / "none.npy")


def test_other_kinds_of_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3, 3), 200, np.uint8)).convert("CMYK").save(tmp_path / "x.jpg")
    found = read_photograph(tmp_path / "x.jpg")
    assert found.notes == ("CMYK is converted to RGB",) and found.shape == (3, 3, 3)
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ReadError, match="has grey values outside of 0 to 65535"):
        read_photograph(tmp_path / "x.tif")
    Image.fromarray(np.array([[-1, 0]], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ReadError, match="has grey values outside of 0 to 65535"):
        read_photograph(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="a picture has 1 or 3 channels, got 2"):
        write_photograph(Photograph(torch.zeros(2, 3, 3)), tmp_path / "y.png")
    write_photograph(Photograph(torch.full((3, 2, 2), 1.0), bits=16), tmp_path / "z.png")
    assert np.asarray(Image.open(tmp_path / "z.png")).tolist() == [[[255] * 3] * 2] * 2, "colours have 8 bits"


def test_files_that_only_look_like_kernels(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(b"none")
    with pytest.raises(ReadError, match=r"is not a kernel \("):
        read_kernel(tmp_path / "k.npy")
    for wrong in (np.ones((3, 2)), np.ones((3, 3)) * 1j, np.ones((3, 3), bool), np.full((3, 3), np.inf)):
        np.save(tmp_path / "k.npy", wrong)
        with pytest.raises(ReadError, match="is not a kernel: expected"):
            read_kernel(tmp_path / "k.npy")
    assert read_mask(saved(tmp_path, np.array([[0, 1]], np.uint8))).tolist() == [[[0.0, 1.0]]]
