"""Numbers of slices at both ends of each data set, and pixels that tell rows, columns and slices apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from deft_ct.ct.volume import Volume
from deft_ct.datasets.dicom_folder import CTFolder, resize_slices
from deft_ct.datasets.images import SUFFIXES, PhotoCrops, PhotoFolder, from_uint8, to_uint8
from deft_ct.datasets.packs import CTPack, pack_path, read_pack
from deft_ct.io import write_hdf5, write_nifti
from deft_ct.io.errors import ReadError


def pack(folder: Path) -> CTPack:
    """Five slices, each of one number of its own."""
    with h5py.File(folder / "x.h5", "w") as file:
        file["s/hu"] = np.arange(5, dtype=np.int16)[:, None, None] * np.ones((1, 3, 4), np.int16)
        file["s"].attrs["pixel_mm"] = 1.0
    return CTPack(folder / "x.h5")


def crops(folder: Path) -> PhotoCrops:
    """Five crops, each of one number of its own."""
    with h5py.File(folder / "x.h5", "w") as file:
        file["train"] = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 3), np.uint8)
    return PhotoCrops(folder / "x.h5", "train")


def volumes(folder: Path) -> CTFolder:
    """Five slices, each of one number of its own."""
    hu = np.arange(5.0)[:, None, None] * np.ones((1, 4, 4))
    write_nifti(Volume.from_spacing(hu, pixel_mm=1.0, z_mm=1.0), folder / "x.nii")
    return CTFolder(folder, size=4)


@pytest.mark.parametrize("make", [pack, crops, volumes])
def test_numbers_count_from_both_ends(make: Callable[[Path], Any], tmp_path: Path) -> None:
    data = make(tmp_path)
    pixels = [np.asarray(getattr(data[n], "hu", data[n])) for n in range(5)]
    assert len(data) == 5 and all((a.ravel() == a.ravel()[0]).all() for a in pixels)
    assert len({float(a.ravel()[0]) for a in pixels}) == 5
    for n in range(1, 6):
        np.testing.assert_array_equal(np.asarray(getattr(data[-n], "hu", data[-n])), pixels[-n])
    for n in (5, -6, 17):
        with pytest.raises(IndexError, match=f"{n} of .*5"):
            data[n]


@pytest.mark.parametrize(("height", "width"), [(8, 13), (13, 8), (8, 11), (11, 8)])
@pytest.mark.parametrize("size", [8, 4])
def test_a_photograph_is_cut_to_its_central_square(tmp_path: Path, height: int, width: int, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    left, top = (width - 8) // 2, (height - 8) // 2
    square = Image.fromarray(pixels[top : top + 8, left : left + 8]).resize((size, size), Image.Resampling.LANCZOS)
    expected = np.moveaxis(np.asarray(square), -1, 0) / 127.5 - 1
    np.testing.assert_allclose(PhotoFolder(tmp_path, size)[0].numpy(), expected, atol=1e-6)
    grey = np.asarray(Image.fromarray(pixels).convert("L").crop((left, top, left + 8, top + 8)).resize((size, size), 1))
    np.testing.assert_allclose(PhotoFolder(tmp_path, size, channels=1)[0][0].numpy(), grey / 127.5 - 1, atol=1e-6)


def test_pictures_of_each_kind_are_found(tmp_path: Path) -> None:
    for n, suffix in enumerate(SUFFIXES):
        Image.fromarray(np.full((4, 4, 3), 100, np.uint8)).save(tmp_path / f"{n}{suffix}")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.full((4, 4, 3), 100, np.uint8)).save(tmp_path / "upper.PNG")
    photos = PhotoFolder(tmp_path, 4)
    assert [p.name for p in photos.paths] == [*(f"{n}{s}" for n, s in enumerate(SUFFIXES)), "upper.PNG"]
    assert not photos.skipped and len(photos) == len(SUFFIXES) + 1
    for channels in (2, 4):
        with pytest.raises(ValueError, match=f"channels 1 or 3, got 4 and {channels}"):
            PhotoFolder(tmp_path, 4, channels=channels)  # type: ignore[arg-type]
    assert PhotoFolder(tmp_path, 1)[0].shape == (3, 1, 1)


def test_bytes_and_images_are_rounded_and_clipped() -> None:
    images = torch.tensor([-1.2, -1.0, -0.9961, -0.9960, 0.0, 0.9999, 1.2]).reshape(1, 1, 7)
    assert to_uint8(images).ravel().tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert from_uint8(np.array([[[0], [51], [255]]], np.uint8)).ravel().tolist() == pytest.approx([-1, -0.6, 1])
    stack = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    assert from_uint8(stack).shape == (2, 3, 3, 4)
    np.testing.assert_array_equal(to_uint8(from_uint8(stack)), stack)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 4, 4, 1), "|u1"), ((2, 4, 4), "|u1"), ((2, 3, 4, 4), "|u1"), ((2, 4, 4, 3), "<i2")]
)
def test_crops_are_three_channels_of_bytes(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train"] = np.zeros(shape, dtype)
        file["test"] = np.zeros((2, 4, 5, 3), np.uint8)
    with pytest.raises(ReadError, match=r"'train' must be \(N, H, W, 3\) uint8"):
        PhotoCrops(tmp_path / "x.h5", "train")
    assert PhotoCrops(tmp_path / "x.h5", "test").image_shape == (4, 5)


def test_slices_keep_their_rows_columns_and_places(tmp_path: Path) -> None:
    """Each kind of file has another value in every pixel; slices of any place along z."""
    hu = np.arange(3 * 4 * 4).reshape(3, 4, 4)
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[:3, 3] = [1, 2, -7]
    volume = Volume(hu.astype(np.float32), affine)
    write_nifti(volume, tmp_path / "a.nii.gz")
    write_hdf5(volume, tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["s/hu"], file["s"].attrs["pixel_mm"] = hu.astype(np.int16), 0.5
    data = CTFolder(tmp_path, size=4)
    assert len(data) == 9 and data.image_shape == (4, 4) and data.pixel_mm.tolist() == [0.5] * 9
    for n, one in enumerate(data):
        np.testing.assert_array_equal(one.hu[0].numpy(), hu[n % 3])
        assert (one.index, one.position, one.pixel_mm) == (n % 3, n, 0.5)
    assert [one.z_mm for one in data][:6] == [-7, -5, -3] * 2 and np.isnan(data[6].z_mm)
    np.testing.assert_array_equal(data.batch([4, 2]).numpy()[:, 0], hu[[1, 2]])
    halves = CTFolder(tmp_path, size=2, every=4)
    assert [(one.group, one.index, one.position) for one in halves] == [
        ("a.nii.gz", 0, 0), ("b.hdf5", 1, 4), ("c.h5:s", 2, 8),
    ]  # fmt: skip
    assert halves.pixel_mm.tolist() == [1.0] * 3 and halves[0].hu.flatten().tolist() == [2, 4, 10, 12]  # 2.5 is even


def test_slices_of_another_size_are_antialiased() -> None:
    """A pattern finer than the new pixels leaves its mean, at the field of view of before."""
    pattern = np.where(np.indices((24, 24)).sum(0) % 2, 100.0, -100.0).astype(np.float32)[None]
    small, pixel_mm = resize_slices(pattern, 0.5, 9)
    assert small.shape == (1, 9, 9) and np.abs(small).max() < 10 and pixel_mm == pytest.approx(0.5 * 24 / 9)
    large, pixel_mm = resize_slices(pattern, 0.5, 48)
    assert large.shape == (1, 48, 48) and pixel_mm == 0.25
    corners = resize_slices(np.arange(16.0, dtype=np.float32).reshape(1, 4, 4), 1.0, 8)[0][0]
    assert corners[0, 0] == 0 and corners[-1, -1] == 15 and corners[1, 1] == pytest.approx(1.25)  # not the corners' own


def test_values_beyond_int16_scanners_are_clipped(tmp_path: Path) -> None:
    hu = np.array([[[-3000.0, 40000.0], [0.4, 0.6]]])
    write_nifti(Volume.from_spacing(hu, pixel_mm=1.0, z_mm=1.0), tmp_path / "a.nii")
    low, high, down, up = CTFolder(tmp_path, size=2)[0].hu.flatten().tolist()
    assert low == -1024 and 3071 <= high < 40000 and (down, up) == (0, 1)


def test_pictures_of_both_depths_are_scaled_to_their_ends(tmp_path: Path) -> None:
    for name, kind, top in (("a.png", np.uint8, 255), ("b.png", np.uint16, 65535), ("c.tif", np.uint16, 65535)):
        Image.fromarray(np.array([[0, top], [top // 5, 0]], kind)).save(tmp_path / name)
    Image.frombytes("I;16B", (2, 2), np.array([0, 65535, 13107, 0], ">u2").tobytes()).save(tmp_path / "d.tif")
    with Image.open(tmp_path / "d.tif") as picture:
        assert picture.mode == "I;16B"
    data = CTFolder(tmp_path, size=2, picture_hu=(-1000.0, 1000.0), picture_pixel_mm=0.7)
    assert len(data) == 4
    for one in data:
        assert one.hu.flatten().tolist() == [-1000, 1000, -600, -1000]
        assert one.pixel_mm == 0.7 and np.isnan(one.z_mm)
    with pytest.raises(ValueError, match="belong together"):
        CTFolder(tmp_path, picture_pixel_mm=1.0)
    for low, high in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="in increasing order"):
            CTFolder(tmp_path, picture_hu=(low, high), picture_pixel_mm=1.0)
    for options in ({"every": 0}, {"size": 0}, {"size": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            CTFolder(tmp_path, **options)
    assert len(CTFolder(tmp_path, size=1, every=1, picture_hu=(0, 1), picture_pixel_mm=1.0)) == 4


def test_three_reasons_are_told_of_a_folder_without_slices(tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.png").write_text("hello")
    with pytest.raises(ValueError, match=r"no usable CT slices \(0\.png: .*; 1\.png: .*; 2\.png: .*\)$") as caught:
        CTFolder(tmp_path)
    assert "3.png" not in str(caught.value) and "no HU scale" in str(caught.value)


def test_names_and_paths_of_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path))
    assert pack_path("val") == tmp_path / "ct256" / "val.h5"
    assert pack_path("a/val.h5") == Path("a/val.h5") and pack_path("val.hdf5") == Path("val.hdf5")
    (tmp_path / "ct256").mkdir()
    pack(tmp_path / "ct256")
    assert [one.position for one in read_pack("x", 2)] == [0, 2, 4] and len(read_pack("x")) == 5


def test_what_a_pack_says_of_its_series(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, extra in (("a", {"slice_thickness_mm": 2.5, "patient": "P"}), ("b", {"slice_thickness_mm": " "})):
            file[f"{name}/hu"] = np.zeros((2, 4, 4), np.int16)
            file[name].attrs.update({"pixel_mm": 0.5, "licence": "CC BY", "doi": "10.1", "kernel": "B", **extra})
    first, second = CTPack(tmp_path / "x.h5").groups
    assert (first.name, first.slices, first.pixel_mm, first.slice_thickness_mm) == ("a", 2, 0.5, 2.5)
    assert (first.patient, first.licence, first.doi, first.kernel, first.collection) == ("P", "CC BY", "10.1", "B", "")
    assert second.slice_thickness_mm is None and second.patient == ""


@pytest.mark.parametrize(
    ("shape", "dtype", "sound"),
    [
        ((2, 4, 4), "<i2", True), ((2, 4, 4), ">i2", True), ((2, 4, 4), "<u2", False), ((0, 4, 4), "<i2", False),
        ((2, 0, 4), "<i2", False), ((2, 4), "<i2", False), ((2, 4, 4, 1), "<i2", False),
    ],
)  # fmt: skip
def test_slices_of_a_pack_are_int16(tmp_path: Path, shape: tuple[int, ...], dtype: str, sound: bool) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["s/hu"], file["s"].attrs["pixel_mm"] = np.zeros(shape, dtype), 1.0
    if sound:
        assert len(CTPack(tmp_path / "x.h5")) == 2
    else:
        with pytest.raises(ReadError, match=r"'s/hu' must be \(N, H, W\) int16 in HU and not empty"):
            CTPack(tmp_path / "x.h5")


def test_series_of_a_pack_fit_together(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, side, places in (("a", 4, 2), ("b", 5, 3)):
            file[f"{name}/hu"], file[f"{name}/z_mm"] = np.zeros((2, 4, side), np.int16), np.zeros(places)
            file[name].attrs["pixel_mm"] = 1.0
    with pytest.raises(ReadError, match=r"its series differ in size: \[\(4, 4\), \(4, 5\)\]"):
        CTPack(tmp_path / "x.h5")
    assert len(CTPack(tmp_path / "x.h5", groups=("a",))) == 2
    with pytest.raises(ReadError, match=r"'b/z_mm' has shape \(3,\), expected \(2,\)"):
        CTPack(tmp_path / "x.h5", groups=("b",))
