"""2DeteCT on files made in the published layout, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from deft_ct.datasets import two_detect
from deft_ct.datasets.two_detect import PIXEL_MM, TwoDetect
from deft_ct.io.errors import ReadError


def write(folder: Path, name: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / name, values)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices 3 and 20 in mode 2; view ``v`` of slice 3 lets ``exp(-v / 1000)`` through, but for a dark element."""
    root = tmp_path_factory.mktemp("2detect")
    dark, flat = np.full((1, 1912), 100, np.uint16), np.full((1, 1912), 20100, np.uint16)
    for number in (3, 20):
        folder = root / "raw" / f"slice{number:05d}" / "mode2"
        view = np.arange(3601)[:, None] / 1000
        counts = np.rint(100 + 20000 * np.exp(-view) * np.ones(1912)).astype(np.uint16)
        counts[:, 10:12] = 40  # below the dark current
        write(folder, "sinogram.tif", counts)
        write(folder, "dark.tif", dark)
        write(folder, "flat1.tif", flat - 1000)
        write(folder, "flat2.tif", flat + 1000)
    image = np.zeros((1024, 1024), np.float32)
    image[511:513, 511:513] = [[1, 2], [3, 4]]
    image[1023, 1023] = 8
    write(root / "reconstructions" / "slice00003" / "mode2", "reconstruction.tif", image)
    write(root / "raw" / "slice3" / "mode2", "sinogram.tif", np.zeros((1, 1), np.uint16))  # not a name of the set
    return root


def test_slices_and_references_of_a_mode(root: Path) -> None:
    data = TwoDetect(root)
    assert data.mode == 2 and data.slices() == [3, 20]
    assert data.references(2) == [3] and data.references(1) == []


def test_line_integrals_are_those_of_added_elements(root: Path) -> None:
    y = TwoDetect(root).sinogram(3, views=360)
    assert y.shape == (1, 360, 956) and y.dtype == torch.float32
    expected = torch.arange(360.0)[:, None].expand(-1, 956) / 100
    kept = torch.arange(956) != 5
    torch.testing.assert_close(y[0][:, kept], expected[:, kept], atol=2e-3, rtol=0)
    torch.testing.assert_close(y[0, :, 5], torch.full((360,), -np.log(1e-6), dtype=torch.float32))
    full = TwoDetect(root).sinogram(3)
    assert full.shape == (1, 3600, 956) and torch.equal(full[:, ::10], y)


def test_the_reference_is_moved_by_a_pixel_and_given_in_1_per_mm(root: Path) -> None:
    """Row 512 becomes row 511: what lay one pixel off the centre lies in it. The edge is repeated."""
    data = TwoDetect(root)
    image = data.reference(3, mode=2)
    assert image.shape == (1024, 1024) and image.dtype == np.float32
    np.testing.assert_allclose(image[510:512, 510:512] * PIXEL_MM, [[1, 2], [3, 4]], rtol=1e-6)
    np.testing.assert_allclose(image[1022:, 1022:] * PIXEL_MM, 8, rtol=1e-6)
    assert np.count_nonzero(image) == 8
    half = data.reference(3, mode=2, side=512)
    np.testing.assert_allclose(half[255, 255] * PIXEL_MM, 10 / 4, rtol=1e-6)
    np.testing.assert_allclose(half[511, 511] * PIXEL_MM, 8, rtol=1e-6)
    assert np.count_nonzero(half) == 2


def test_the_pixel_is_that_of_the_field_of_view() -> None:
    """956 elements of 0.1496 mm, brought to the axis, over 1024 pixels."""
    assert pytest.approx(956 * 0.1496 * 431.019989 / 529.000488 / 1024) == PIXEL_MM
    assert pytest.approx(0.1138, abs=5e-5) == PIXEL_MM


@pytest.mark.parametrize(
    ("number", "shifted"),
    [(1, True), (2830, True), (2831, False), (5520, False), (5521, True), (5870, True), (5871, False)],
)
def test_the_detector_is_shifted_in_two_ranges(root: Path, number: int, shifted: bool) -> None:
    geometry = TwoDetect(root).geometry(number, views=90, side=256)
    assert geometry.detector_offset_mm == pytest.approx(-0.1496 if shifted else 0.0)
    assert geometry.image_shape == (256, 256) and geometry.sinogram_shape == (90, 956)
    assert geometry.pixel_rc == pytest.approx((4 * PIXEL_MM, 4 * PIXEL_MM))
    assert geometry.detector_mm == pytest.approx(0.1496)
    assert (geometry.source_to_center_mm, geometry.source_to_detector_mm) == (431.019989, 529.000488)


def test_numbers_that_do_not_divide(root: Path) -> None:
    data = TwoDetect(root)
    for views in (0, -1, 7, 3601):
        with pytest.raises(ValueError, match=f"views must divide 3600, got {views}"):
            data.sinogram(3, views=views)
        with pytest.raises(ValueError, match=f"views must divide 3600, got {views}"):
            data.geometry(3, views=views)
    for side in (0, -2, 3, 2048):
        with pytest.raises(ValueError, match=f"size must divide 1024, got {side}"):
            data.reference(3, mode=2, side=side)
        with pytest.raises(ValueError, match=f"size must divide 1024, got {side}"):
            data.geometry(3, side=side)
    two_detect.check_views(1)
    two_detect.check_side(1)


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the mode must be 1, 2 or 3, got 4"):
        TwoDetect(root, 4)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        TwoDetect(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no slice\?{5}/mode1/sinogram.tif"):
        TwoDetect(root, 1)
    with pytest.raises(FileNotFoundError, match=r"no slice00020/mode2/reconstruction.tif.*8017582"):
        TwoDetect(root).reference(20, mode=2)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "slice00007" / "mode2"
    sound = {
        "sinogram.tif": np.full((3601, 1912), 9, np.uint16), "dark.tif": np.full((1, 1912), 4, np.uint16),
        "flat1.tif": np.full((1, 1912), 10, np.uint16), "flat2.tif": np.full((1, 1912), 10, np.uint16),
    }  # fmt: skip
    for name, values in sound.items():
        write(folder, name, values)
    data = TwoDetect(tmp_path)
    assert torch.isfinite(data.sinogram(7, views=1)).all()
    for name in ("flat1.tif", "flat2.tif"):
        write(folder, name, np.where(np.arange(1912) < 4, -2, 10).astype(np.int16)[None])
    with pytest.raises(ReadError, match="2 elements are no brighter than the dark") as caught:
        data.sinogram(7, views=1)
    assert caught.value.path == str(folder / "flat1.tif")
    for name, shape in (("sinogram.tif", "3600, 1912"), ("dark.tif", "1, 1910")):
        rows, columns = map(int, shape.split(", "))
        write(folder, name, np.ones((rows, columns), np.uint16))
        with pytest.raises(ReadError, match=rf"holds \({shape}\) counts, expected \({3601 if rows > 1 else 1}, 1912\)"):
            data.sinogram(7, views=1)
        write(folder, name, sound[name])
    for bad in (np.zeros((1024, 1023), np.float32), np.full((1024, 1024), np.nan, np.float32)):
        write(folder, "reconstruction.tif", bad)
        with pytest.raises(ReadError, match="expected a finite image of 1024 x 1024"):
            data.reference(7, mode=2)
