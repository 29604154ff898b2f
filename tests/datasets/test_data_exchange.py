"""Data-exchange files: a small one made here from closed-form projections, and the real tooth where it is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.datasets.packs import data_root
from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.operators.ct import ParallelGeometry, fbp

CENTER = 44.25
PHANTOM = EllipsePhantom.disc(12.0, 0.05, (6.0, -9.0))


@pytest.fixture
def truth() -> torch.Tensor:
    geometry = ParallelGeometry(
        image_shape=(96, 96), pixel_mm=1.0, angles=np.radians(np.arange(180.0)), detectors=96, detector_mm=1.0,
        axis_offset_mm=CENTER - 47.5,
    )  # fmt: skip
    return PHANTOM.sinogram(geometry)[0]


@pytest.fixture
def path(tmp_path: Path, truth: torch.Tensor) -> Path:
    rng = np.random.default_rng(0)
    white, dark = rng.uniform(2e4, 3e4, (2, 96)), rng.uniform(80, 150, (2, 96))
    data = dark + (white - dark) * np.exp(-truth.numpy())[:, None, :]
    data[5, 1, 3] = 10.0  # below the dark current
    target = tmp_path / "scan.h5"
    with h5py.File(target, "w") as file:
        file["exchange/data"] = data.astype(np.float32)
        file["exchange/data_white"] = np.stack([white + 50, white - 50]).astype(np.float32)
        file["exchange/data_dark"] = np.stack([dark] * 3).astype(np.float32)
        file["exchange/theta"] = np.arange(180.0)
        file["exchange/theta"].attrs["units"] = "degrees"
    return target


def change(path: Path, name: str, value: Any) -> Path:
    with h5py.File(path, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    return path


def test_line_integrals_and_geometry(path: Path, truth: torch.Tensor) -> None:
    scan = read_data_exchange(path, center=CENTER)
    assert scan.sinogram.shape == (2, 1, 180, 96)
    torch.testing.assert_close(scan.sinogram[0, 0], truth, atol=1e-4, rtol=0)
    assert scan.raised == 1 and float(scan.sinogram[1, 0, 5, 3]) == pytest.approx(-np.log(1e-3), rel=1e-5)
    torch.testing.assert_close(PHANTOM.sinogram(scan.geometry)[0], truth)


def test_cropping_keeps_the_axis(path: Path, truth: torch.Tensor) -> None:
    scan = read_data_exchange(path, center=CENTER, rows=slice(0, 1), columns=slice(4, 85), detector_mm=1.0)
    assert scan.sinogram.shape == (1, 1, 180, 81)
    torch.testing.assert_close(PHANTOM.sinogram(scan.geometry)[0], truth[:, 4:85])
    image = fbp(scan.sinogram, scan.geometry)
    exact = PHANTOM.image((81, 81), 1.0)
    assert float((image[0] - exact).abs().mean()) < 0.0015, "the disc lies at its place"


def test_center_is_found(path: Path) -> None:
    scan = read_data_exchange(path, center=0.0, rows=slice(0, 1))
    assert estimate_center(scan.sinogram, scan.geometry.angle_array) == pytest.approx(CENTER, abs=0.35)
    with pytest.raises(ValueError, match="half a turn"):
        estimate_center(scan.sinogram[:, :, :90], scan.geometry.angle_array[:90])


def test_radians(path: Path) -> None:
    change(path, "exchange/theta", np.radians(np.arange(180.0)))
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = b"radians"
    np.testing.assert_allclose(read_data_exchange(path, center=3.0).geometry.angle_array, np.radians(np.arange(180.0)))


def test_bad_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_data_exchange(tmp_path / "none.h5", center=1.0)
    with pytest.raises(ValueError, match="outside the detector"):
        read_data_exchange(path, center=96.0)
    with pytest.raises(ValueError, match="transmission_floor"):
        read_data_exchange(path, center=1.0, transmission_floor=0.0)
    with pytest.raises(ValueError, match="no detector row"):
        read_data_exchange(path, center=1.0, rows=slice(5, 6))
    with pytest.raises(ValueError, match="non-empty range"):
        read_data_exchange(path, center=1.0, columns=slice(9, 9))
    with pytest.raises(ValueError, match="do not match"):
        read_data_exchange(change(path, "exchange/theta", np.arange(90.0)), center=1.0)
    with pytest.raises(ValueError, match=r"lacks \['exchange/data_dark'\]"):
        read_data_exchange(change(path, "exchange/data_dark", None), center=1.0)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_data_exchange(tmp_path / "text.h5", center=1.0)


def test_flats_darker_than_darks(path: Path) -> None:
    with pytest.raises(ValueError, match="192 detector pixels have flats no brighter than darks"):
        read_data_exchange(change(path, "exchange/data_white", np.zeros((2, 2, 96))), center=1.0)


def test_flats_one_count_above_the_darks_are_enough(path: Path) -> None:
    change(path, "exchange/data_dark", np.full((3, 2, 96), 7.0))
    change(path, "exchange/data_white", np.full((2, 2, 96), 8.0))
    change(path, "exchange/data", np.full((180, 2, 96), 7.5))
    found = read_data_exchange(path, center=CENTER).sinogram
    torch.testing.assert_close(found, torch.full_like(found, float(np.log(2))))


def test_the_axis_may_lie_on_any_column(path: Path) -> None:
    for center in (0.0, 95.0):
        geometry = read_data_exchange(path, center=center).geometry
        assert geometry.axis_offset_mm == center - 47.5 and geometry.detectors == 96
    for center in (-0.01, 95.01):
        with pytest.raises(ValueError, match=r"lies outside the detector's columns 0\.\.95"):
            read_data_exchange(path, center=center)
    scan = read_data_exchange(path, center=40.0, columns=slice(10, 31), detector_mm=0.5)
    assert scan.geometry.axis_offset_mm == 0.5 * (40 - 10 - 10) and scan.geometry.image_shape == (21, 21)
    assert scan.geometry.pixel_rc == (0.5, 0.5) and scan.geometry.detector_mm == 0.5
    for columns in (slice(0, 10, 2), slice(5, 4), slice(10, 0, -1)):
        with pytest.raises(ValueError, match="columns must be a non-empty range of step 1"):
            read_data_exchange(path, center=1.0, columns=columns)
    assert read_data_exchange(path, center=1.0, columns=slice(5, 6)).sinogram.shape == (2, 1, 180, 1)


def test_low_transmissions_are_raised_and_counted(path: Path, truth: torch.Tensor) -> None:
    whole = read_data_exchange(path, center=1.0)
    for floor in (0.5, 0.9):
        scan = read_data_exchange(path, center=1.0, transmission_floor=floor)
        expected = int((whole.sinogram > -np.log(floor)).sum())
        assert scan.transmission_floor == floor and scan.raised == expected > 100
        torch.testing.assert_close(scan.sinogram, whole.sinogram.clamp_max(float(-np.log(floor))))
        assert read_data_exchange(path, center=1.0, transmission_floor=floor, columns=slice(0, 9)).raised == expected
    for floor in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="transmission_floor must be positive"):
            read_data_exchange(path, center=1.0, transmission_floor=floor)


@pytest.mark.parametrize(
    ("unit", "scale"), [("DEG", 1), ("Degrees", 1), ("rad", 180 / np.pi), ("Radians", 180 / np.pi)]
)
def test_units_of_the_angles(path: Path, unit: str, scale: float) -> None:
    change(path, "exchange/theta", np.arange(180.0) / scale)
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = unit
    np.testing.assert_allclose(np.degrees(read_data_exchange(path, center=1.0).geometry.angle_array), np.arange(180.0))
    with h5py.File(path, "a") as file:
        file["exchange/theta"].attrs["units"] = "turns"
    with pytest.raises(ValueError, match="theta is in 'turns', expected degrees or radians"):
        read_data_exchange(path, center=1.0)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("data", np.ones((180, 96)), r"must be \(frames, rows, columns\)"),
        ("data_white", np.ones((0, 2, 96)), r"must be \(frames, rows, columns\)"),
        ("data_dark", np.ones((3, 2, 95)), "do not match"), ("data_white", np.ones((2, 2, 95)), "do not match"),
        ("data", np.full((180, 2, 96), np.nan), "not finite"), ("data_dark", np.full((1, 2, 96), np.inf), "not finite"),
        ("theta", np.full(180, np.nan), "not finite"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(path: Path, name: str, value: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_data_exchange(change(path, f"exchange/{name}", value), center=1.0)


def test_the_centre_is_that_of_the_best_mirror_image() -> None:
    """Bumps on both sides of the middle, whole columns and fractions; several rows count together."""
    place = np.arange(64.0)
    angles = np.array([0.0, 1.0, np.pi + np.radians(1.9), 2.0])
    for center in (20.0, 31.5, 36.25, 45.0):
        views = np.random.default_rng(0).random((3, 4, 64))
        for row in range(3):
            for view, side in ((0, 1), (2, -1)):
                views[row, view] = np.exp(-0.5 * ((place - center - side * (2 + row)) / 4) ** 2)
        assert estimate_center(torch.from_numpy(views)[:, None], angles) == pytest.approx(center, abs=0.1)
        assert estimate_center(torch.from_numpy(views[0]), angles) == pytest.approx(center, abs=0.1)
    with pytest.raises(ValueError, match="no two views are half a turn apart"):
        estimate_center(torch.from_numpy(views), np.array([0.0, 1.0, np.pi + np.radians(2.1), 2.0]))


@pytest.mark.data
def test_real_tooth() -> None:
    try:
        path = data_root() / "raw_projections" / "tomopy_tooth.h5"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    scan = read_data_exchange(path, center=296.0, rows=slice(0, 1), columns=slice(0, 593))
    assert scan.sinogram.shape == (1, 1, 181, 593) and scan.geometry.axis_offset_mm == 0.0
    assert estimate_center(scan.sinogram, scan.geometry.angle_array) == pytest.approx(296.0, abs=1.5)
    # Helgason-Ludwig: mass is the same in every view, and its centre moves on a sine about the axis.
    mass = scan.sinogram[0, 0].double().numpy()
    angles, positions = scan.geometry.angle_array, scan.geometry.detector_positions
    assert mass.sum(1).std() < 0.01 * mass.sum(1).mean()
    middle = (mass * positions).sum(1) / mass.sum(1)
    waves = np.stack([np.cos(angles), np.sin(angles), np.ones_like(angles)], 1)
    amplitude, *_ = np.linalg.lstsq(waves, middle, rcond=None)
    assert abs(amplitude[2]) < 0.5 and np.abs(waves @ amplitude - middle).max() < 0.5


@pytest.mark.parametrize("name", ["data", "data_white", "data_dark", "theta"])
def test_values_that_are_not_finite(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        file[f"exchange/{name}"][(0,) * file[f"exchange/{name}"].ndim] = np.nan
    with pytest.raises(ValueError, match="holds values that are not finite"):
        read_data_exchange(path, center=CENTER)


def test_a_detector_without_columns(path: Path) -> None:
    for name, frames in (("data", 180), ("data_white", 2), ("data_dark", 3)):
        change(path, f"exchange/{name}", np.zeros((frames, 2, 0)))
    with pytest.raises(ValueError, match=r"the data are empty: \(180, 2, 0\)"):
        read_data_exchange(path, center=0)
