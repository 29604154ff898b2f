"""One phantom in every layout: the same line integrals come out, with the same geometry."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from measured_files import (
    FAN,
    PARALLEL,
    PARALLEL_YAML,
    counts,
    lines,
    write_cil,
    write_data_exchange,
    write_htc,
    write_plain,
)

from deft_ct.datasets.check import check_data
from deft_ct.datasets.measured_scan import axis_column, read_measured_scan, with_center, with_image
from deft_ct.datasets.scan_description import ScanDescription, read_scan_description
from deft_ct.io.errors import ReadError
from deft_ct.operators.ct import FanGeometry, fbp

SAID = ScanDescription(beam="parallel", detector_mm=1.0)


def read(folder: Path, array: np.ndarray, **said: object):
    np.save(folder / "a.npy", array)
    return read_measured_scan(folder / "a.npy", ScanDescription(**said))  # type: ignore[arg-type]


def test_data_exchange(tmp_path: Path) -> None:
    scan = read_measured_scan(write_data_exchange(tmp_path / "a.h5"))
    np.testing.assert_allclose(scan.sinogram[:, 0].numpy(), lines(PARALLEL, 2), atol=1e-5)
    assert scan.geometry.angle_array == pytest.approx(PARALLEL.angle_array)
    assert not scan.in_mm and not scan.centered and (scan.axis, scan.numbers) == ("slices", (1, 2))
    assert any("width of a detector element is not known" in note for note in scan.notes)
    second = read_measured_scan(tmp_path / "a.h5", SAID, (2, 2))
    np.testing.assert_array_equal(second.sinogram[0], scan.sinogram[1])
    assert second.in_mm and second.numbers == (2,) and second.total == 2
    with pytest.raises(ReadError, match="holds 2 slices, and 3 to 3 were asked for"):
        read_measured_scan(tmp_path / "a.h5", None, (3, 3))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["exchange/data_white"]
    with pytest.raises(ReadError, match="lacks the flats exchange/data_white"):
        read_measured_scan(tmp_path / "a.h5")


@pytest.mark.parametrize("write", [write_htc, write_cil], ids=["HTC 2022", "CIL"])
def test_files_that_say_everything(tmp_path: Path, write) -> None:
    path = write(tmp_path / ("a.mat" if write is write_htc else "a.nxs"))
    scan = read_measured_scan(path)
    np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), lines(FAN), atol=1e-6)
    assert isinstance(scan.geometry, FanGeometry) and scan.in_mm and scan.centered
    np.testing.assert_allclose(with_image(scan.geometry, 64, 64.0).rays().direction, FAN.rays().direction, atol=1e-9)
    with pytest.raises(ReadError, match="says its own geometry: leave out --geometry"):
        read_measured_scan(path, SAID)
    with pytest.raises(ReadError, match="5 to 6 were asked for"):
        read_measured_scan(path, None, (5, 6))
    if write is write_cil:
        part = read_measured_scan(path, None, (2, 3))
        assert part.numbers == (2, 3) and part.axis == "frames"
        np.testing.assert_array_equal(part.sinogram, scan.sinogram[1:])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
@pytest.mark.parametrize("fan", [False, True], ids=["parallel", "fan"])
def test_files_with_a_geometry_file(tmp_path: Path, suffix: str, fan: bool) -> None:
    path, yaml = write_plain(tmp_path / f"a{suffix}", fan=fan)
    scan = read_measured_scan(path, read_scan_description(yaml))
    true = FAN if fan else PARALLEL
    np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), lines(true), atol=1e-6)
    np.testing.assert_allclose(scan.geometry.angle_array, true.angle_array)
    assert with_image(scan.geometry, 64, 64.0).replace(angles=true.angle_array) == true
    with pytest.raises(ReadError, match="does not say how it was scanned"):
        read_measured_scan(path)


def test_hdf5_of_no_known_layout(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/lines"] = lines(PARALLEL, 2).transpose(2, 1, 0)
    said = ScanDescription(detector_mm=1.0, data="scan/lines", axes=("detectors", "views", "frames"))
    scan = read_measured_scan(tmp_path / "a.h5", said)
    np.testing.assert_allclose(scan.sinogram[:, 0].numpy(), lines(PARALLEL, 2), atol=1e-6)
    assert scan.axis == "frames"
    with pytest.raises(ReadError, match="name the projections in a geometry file"):
        read_measured_scan(tmp_path / "a.h5", SAID)
    with pytest.raises(ReadError, match="holds no 'scan/line'"):
        read_measured_scan(tmp_path / "a.h5", ScanDescription(data="scan/line"))


def test_flats_and_darks_beside_the_data(tmp_path: Path) -> None:
    made = counts(lines(PARALLEL, 1))
    for name in ("data", "flats", "darks"):
        np.save(tmp_path / f"{name}.npy", getattr(made, name)[:, 0])
    (tmp_path / "a.yaml").write_text(PARALLEL_YAML + "flats: flats.npy\ndarks: darks.npy\n")
    said = read_scan_description(tmp_path / "a.yaml")
    scan = read_measured_scan(tmp_path / "data.npy", said)
    np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), lines(PARALLEL), atol=1e-5)
    assert "counts corrected by flat fields and dark fields" in scan.notes
    flats = made.flats[:, 0].copy()
    flats[:, 40] = 0.0
    np.save(tmp_path / "flats.npy", flats)
    bridged = read_measured_scan(tmp_path / "data.npy", said)
    np.testing.assert_allclose(bridged.sinogram[0, 0].numpy(), lines(PARALLEL), atol=0.06)
    assert any("1 detector elements without open beam were bridged" in note for note in bridged.notes)
    np.save(tmp_path / "flats.npy", made.darks[:, 0] * 0.5)
    with pytest.raises(ReadError, match="no brighter than darks: are they swapped"):
        read_measured_scan(tmp_path / "data.npy", said)
    np.save(tmp_path / "flats.npy", flats[:, :50])
    with pytest.raises(ReadError, match="flats of shape"):
        read_measured_scan(tmp_path / "data.npy", said)


def test_counts_and_transmissions(tmp_path: Path) -> None:
    true = lines(PARALLEL)
    for scale, said in ((5e4, {"counts": 5e4}), (1.0, {"values": "transmission"})):
        scan = read(tmp_path, scale * np.exp(-true), detector_mm=1.0, **said)
        np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), true, atol=1e-5)
    dark = np.exp(-true)
    dark[3, 40] = 0.0
    assert any(
        "1 values without counts were raised" in note for note in read(tmp_path, dark, values="transmission").notes
    )
    with pytest.raises(ReadError, match="give flats, or counts"):
        read(tmp_path, true, values="counts")


def test_angles(tmp_path: Path) -> None:
    true, radians = lines(PARALLEL), PARALLEL.angle_array
    given = (
        {"angles": tuple(np.degrees(radians))}, {"angles": tuple(radians), "unit": "radians"}, {"arc": 180.0},
        {"arc": 178.0, "ends": True, "first_angle": 0.0},
    )  # fmt: skip
    for said in given:
        scan = read(tmp_path, true, **said)
        np.testing.assert_allclose(scan.geometry.angle_array, radians, atol=1e-12)
    with pytest.raises(ReadError, match="are they radians"):
        read(tmp_path, true, angles=tuple(radians))
    with pytest.raises(ReadError, match="holds 3 angles for 90 views"):
        read(tmp_path, true, angles=(1.0, 2.0, 3.0))
    with pytest.raises(ReadError, match="there is no such file"):
        read(tmp_path, true, angles="theta.txt")
    (tmp_path / "theta.txt").write_text("\n".join(map(str, np.degrees(radians))))
    scan = read(tmp_path, true, angles=str(tmp_path / "theta.txt"))
    np.testing.assert_allclose(scan.geometry.angle_array, radians, atol=1e-6)
    path, yaml = write_plain(tmp_path / "a.npz", theta=np.degrees(radians)[::-1])
    scan = read_measured_scan(path, read_scan_description(yaml))
    np.testing.assert_allclose(scan.geometry.angle_array, radians[::-1])


def test_both_senses(tmp_path: Path) -> None:
    """A scan whose angles and elements count the other way shows the same object, not its mirror image."""
    scan = read(tmp_path, lines(PARALLEL)[:, ::-1], reverse_detectors=True)
    np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), lines(PARALLEL), atol=1e-6)
    backwards = PARALLEL.replace(angles=-PARALLEL.angle_array)
    scan = read(tmp_path, lines(backwards), turn="clockwise", detector_mm=1.0)
    image = fbp(scan.sinogram, with_image(scan.geometry, 64, 64.0))
    np.testing.assert_allclose(image[0, 0], fbp(torch.from_numpy(lines(backwards)), backwards), atol=1e-6)


@pytest.mark.parametrize(
    ("write", "name", "more"),
    [(write_htc, "a.mat", ""), (write_cil, "a.nxs", ""), (write_data_exchange, "a.h5", " --raw center=auto")],
)
def test_a_check_says_how_to_reconstruct(tmp_path: Path, write, name: str, more: str) -> None:
    path = write(tmp_path / name)
    command = f"deft-ct reconstruct --projections {path} --out OUT --method fbp{more}"
    assert check_data(path).commands[0] == command


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="expected the axes views, detectors"):
        read(tmp_path, lines(PARALLEL, 2), axes=("views", "detectors"))
    with pytest.raises(ReadError, match="80 detector elements, and the geometry file says 70"):
        read(tmp_path, lines(PARALLEL), detectors=70)
    with pytest.raises(ReadError, match="values are not finite"):
        read(tmp_path, np.full((9, 9), np.nan))
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(ReadError, match="projections are read from"):
        read_measured_scan(tmp_path / "a.txt", SAID)
    with pytest.raises(FileNotFoundError):
        read_measured_scan(tmp_path / "none.npy", SAID)


def test_the_centre(tmp_path: Path) -> None:
    scan = read_measured_scan(write_data_exchange(tmp_path / "a.h5", center=42.3))
    geometry, column = with_center(scan, "auto")
    assert column == pytest.approx(42.3, abs=0.06) and axis_column(geometry) == pytest.approx(column)
    assert with_center(scan, "middle")[1] == 39.5
    assert axis_column(with_center(scan, 42.3)[0]) == pytest.approx(42.3)
    with pytest.raises(ValueError, match="outside the detector's columns 0"):
        with_center(scan, 90.0)
    fan = read_measured_scan(write_htc(tmp_path / "a.mat"))
    assert with_center(fan, "auto")[1] == pytest.approx(47.5, abs=0.06)


def test_the_image_is_what_the_detector_sees_from_all_sides(tmp_path: Path) -> None:
    scan = read_measured_scan(write_data_exchange(tmp_path / "a.h5"), SAID)
    assert with_image(scan.geometry).image_shape == (80, 80) and with_image(scan.geometry).pixel_rc[0] == 1.0
    moved = with_image(with_center(scan, 42.0)[0])
    assert moved.image_shape == (75, 75) and moved.pixel_rc[0] == 1.0
    assert with_image(scan.geometry, 40).pixel_rc[0] == 2.0
    assert with_image(scan.geometry, None, 30.0).image_shape == (30, 30)
    fan = read_measured_scan(write_htc(tmp_path / "a.mat"))
    assert with_image(fan.geometry).pixel_rc[0] == pytest.approx(0.75)
