"""Projections with a description: axes in any order, counts, frames and angles, against NumPy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from measured_files import FAN, PARALLEL, lines, write_cil, write_data_exchange, write_htc, write_plain

from deft_ct.datasets import projection_arrays
from deft_ct.datasets.measured_scan import (
    MEASURED_SUFFIXES,
    axis_column,
    read_measured_scan,
    with_center,
    with_image,
)
from deft_ct.datasets.projection_arrays import LineIntegrals, read_line_integrals
from deft_ct.datasets.scan_description import ScanDescription, read_scan_description
from deft_ct.io.errors import ReadError
from deft_ct.operators.ct import FanGeometry, ParallelGeometry

SLICES, VIEWS, DETECTORS = 3, 5, 44
SHAPE = {"slices": SLICES, "frames": SLICES, "views": VIEWS, "detectors": DETECTORS}
RNG = np.random.default_rng(0)
READINGS = RNG.uniform(100, 900, (SLICES, VIEWS, DETECTORS))
FLATS = RNG.uniform(1000, 2000, (SLICES, 4, DETECTORS))
DARKS = RNG.uniform(10, 20, (SLICES, 2, DETECTORS))


def read(folder: Path, array: np.ndarray, chosen: tuple[int, int] | None = None, **said: Any) -> LineIntegrals:
    np.save(folder / "a.npy", array)
    return read_line_integrals(folder / "a.npy", ScanDescription(**said), chosen)


def transposed(array: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    return array.transpose([("slices", "views", "detectors").index(a.replace("frames", "slices")) for a in axes])


@pytest.mark.parametrize("stack", ["slices", "frames"])
@pytest.mark.parametrize("kind", ["npz", "h5", "beside"])
@pytest.mark.parametrize("chosen", [None, (2, 3), (1, 1)])
def test_counts_in_every_order_of_the_axes(
    tmp_path: Path, stack: str, kind: str, chosen: tuple[int, int] | None
) -> None:
    """Corrected slice by slice by the means of their own flats and darks."""
    beam, dark = FLATS.mean(1, keepdims=True), DARKS.mean(1, keepdims=True)
    part = slice(None) if chosen is None else slice(chosen[0] - 1, chosen[1])
    expected = -np.log((READINGS - dark) / (beam - dark))[part]
    for axes in itertools.permutations((stack, "views", "detectors")):
        arrays = {"sinogram": READINGS, "white": FLATS, "black": DARKS}
        stored = {name: transposed(array, axes) for name, array in arrays.items()}
        said: dict[str, Any] = {"axes": axes, "flats": "white", "darks": "black"}
        if kind == "npz":
            path = tmp_path / "a.npz"
            np.savez(path, **stored)
        elif kind == "h5":
            path = tmp_path / "a.h5"
            with h5py.File(path, "w") as file:
                for name, array in stored.items():
                    file[name] = array
            said["data"] = "sinogram"
        else:
            path = tmp_path / "a.npy"
            np.save(path, stored["sinogram"])
            for name in ("white", "black"):
                np.save(tmp_path / f"{name}.npy", stored[name])
            said |= {"flats": str(tmp_path / "white.npy"), "darks": str(tmp_path / "black.npy")}
        found = read_line_integrals(path, ScanDescription(**said), chosen)
        np.testing.assert_allclose(found.lines, expected, rtol=1e-5)
        assert found.lines.dtype == np.float32 and found.lines.flags.c_contiguous
        assert (found.axis, found.total) == (stack, 3) and found.numbers == tuple(range(1, 4))[part]
        assert found.notes[0] == "counts corrected by flat fields and dark fields"
        assert found.record == {"values": "counts", "raised": 0, "bridged_elements": 0}


@pytest.mark.parametrize("shape", ["frames of one slice", "one frame of each slice", "one frame", "one slice's mean"])
def test_flats_of_fewer_axes_are_for_all(tmp_path: Path, shape: str) -> None:
    flats = {
        "frames of one slice": FLATS[:1], "one frame of each slice": FLATS[:, 0], "one frame": FLATS[:1, 0],
        "one slice's mean": FLATS[:1, :1],
    }[shape]  # fmt: skip
    np.savez(tmp_path / "a.npz", sinogram=READINGS, white=flats)
    found = read_line_integrals(tmp_path / "a.npz", ScanDescription(flats="white"), (2, 3))
    own = flats[:, None] if flats.ndim == 2 else flats
    beam = np.broadcast_to(own.mean(1, keepdims=True), (3, 1, DETECTORS))[1:]
    np.testing.assert_allclose(found.lines, -np.log(READINGS[1:] / beam), rtol=1e-5)
    assert found.notes[0] == "counts corrected by flat fields"


def test_an_open_beam_and_darks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", sinogram=READINGS, black=DARKS)
    found = read_line_integrals(tmp_path / "a.npz", ScanDescription(counts=2500.0, darks="black"))
    dark = DARKS.mean(1, keepdims=True)
    np.testing.assert_allclose(found.lines, -np.log((READINGS - dark) / (2500 - dark)), rtol=1e-5)
    assert found.notes[0] == "counts corrected by an open beam of 2500 and dark fields"
    share = READINGS / 1000
    clear = read(tmp_path, share, values="transmission")
    np.testing.assert_allclose(clear.lines, -np.log(share), rtol=1e-5)
    assert clear.notes[0] == "counts corrected by nothing" and clear.record["values"] == "transmission"
    plain = read(tmp_path, share)
    np.testing.assert_allclose(plain.lines, share, rtol=1e-6)
    assert plain.record == {"values": "line integrals"}
    assert plain.notes[0] == "the data are taken for line integrals, -log(transmission)"


def test_a_transmission_is_a_ten_thousandth_at_least(tmp_path: Path) -> None:
    share = np.full((VIEWS, DETECTORS), 0.5)
    share[0, :4] = [1.01e-4, 0.99e-4, 0.0, -1.0]
    found = read(tmp_path, share, values="transmission")
    floor = -math.log(1e-4)
    np.testing.assert_allclose(found.lines[0, 0, :4], [-math.log(1.01e-4), floor, floor, floor], rtol=1e-6)
    assert found.record["raised"] == 3
    assert "3 values without counts were raised to a transmission of 0.0001" in found.notes


@pytest.mark.parametrize(("dead", "fits"), [([10], True), ([0, 43], True), ([10, 20, 30], False)])
def test_elements_without_open_beam_are_bridged(tmp_path: Path, dead: list[int], fits: bool) -> None:
    """Of 44 elements two are within 5 %, three are not."""
    flats = FLATS.copy()
    flats[1][:, dead] = DARKS[1].mean(0)[dead]
    np.savez(tmp_path / "a.npz", sinogram=READINGS, white=flats, black=DARKS)
    said = ScanDescription(flats="white", darks="black")
    if not fits:
        with pytest.raises(ReadError, match="3 detector elements have flats no brighter than darks: are they swapped"):
            read_line_integrals(tmp_path / "a.npz", said)
        return
    found = read_line_integrals(tmp_path / "a.npz", said)
    share = (READINGS - DARKS.mean(1, keepdims=True)) / (FLATS - DARKS.mean(1, keepdims=True)).mean(1, keepdims=True)
    good = np.setdiff1d(np.arange(DETECTORS), dead)
    for row in share[1]:
        row[dead] = np.interp(dead, good, row[good])
    np.testing.assert_allclose(found.lines, -np.log(share), rtol=1e-5)
    assert f"{len(dead)} detector elements without open beam were bridged" in found.notes
    assert found.record["bridged_elements"] == len(dead)


def test_frames_that_do_not_fit(tmp_path: Path) -> None:
    for wrong, message in (
        (FLATS[:2], r"flats of shape \(2, 1, 44\) do not fit data of shape \(3, 5, 44\)"),
        (FLATS[..., :-1], r"flats of shape \(3, 1, 43\) do not fit data"),
        (FLATS[0, 0], r"flats have the shape \(44,\), expected the axes slices, views, detectors"),
        (FLATS[:, :0], r"flats have the shape \(3, 0, 44\)"),
    ):
        np.savez(tmp_path / "a.npz", sinogram=READINGS, white=wrong)
        with pytest.raises(ReadError, match=message):
            read_line_integrals(tmp_path / "a.npz", ScanDescription(flats="white"))
    with pytest.raises(ReadError, match=r"lacks the darks nothing\.npy, and there is no such file"):
        read_line_integrals(tmp_path / "a.npz", ScanDescription(counts=1.0, darks="nothing.npy"))
    with pytest.raises(ReadError, match=r"shape \(3, 5, 44\), expected the axes views, detectors; see axes"):
        read(tmp_path, READINGS, axes=("views", "detectors"))
    with pytest.raises(ReadError, match=r"shape \(0, 5, 44\), expected the axes slices, views, detectors"):
        read(tmp_path, READINGS[:0])
    for chosen in ((0, 1), (2, 4), (3, 2)):
        with pytest.raises(ReadError, match=f"holds 3 slices, and {chosen[0]} to {chosen[1]} were asked for"):
            read(tmp_path, READINGS, chosen)
    np.savez(tmp_path / "b.npz", other=READINGS)
    with pytest.raises(ReadError, match=r"holds \['other'\], expected projections under one of "):
        read_line_integrals(tmp_path / "b.npz", ScanDescription())
    with pytest.raises(ReadError, match="ends in nothing; projections are read from"):
        (tmp_path / "b").write_bytes(b"")
        read_line_integrals(tmp_path / "b", ScanDescription())
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_line_integrals(tmp_path / "c.npz", ScanDescription())


@pytest.mark.parametrize(
    ("said", "degrees"),
    [
        ({}, np.arange(5) * 36.0), ({"arc": 90.0}, np.arange(5) * 18.0),
        ({"ends": True, "arc": 100.0, "first_angle": -30.0}, -30 + 25.0 * np.arange(5)),
        ({"first_angle": 10.0}, 10 + 36.0 * np.arange(5)),
        ({"beam": "fan", "source_to_center_mm": 60.0, "source_to_detector_mm": 90.0}, 72.0 * np.arange(5)),
        ({"angles": (5.0, 1.0, 2.0, 3.0, 9.0)}, [5, 1, 2, 3, 9]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turn", [None, "counterclockwise", "clockwise"])
def test_angles_that_are_said(tmp_path: Path, said: dict[str, Any], degrees: list[float], turn: str | None) -> None:
    found = read(tmp_path, READINGS, turn=turn, **said)
    sign = -1 if turn == "clockwise" else 1
    np.testing.assert_allclose(found.angles, sign * np.radians(degrees), atol=1e-12)
    assumed = [note for note in found.notes if note.startswith("no angles in the file")]
    if "angles" in said:
        assert assumed == []
    else:
        what = "both ends included" if said.get("ends") else "the end left out"
        arc = said.get("arc", 360.0 if "beam" in said else 180.0)
        assert assumed == [f"no angles in the file: 5 equal steps over {arc:g} degrees, {what}"]


@pytest.mark.parametrize(("views", "span", "asked"), [(12, 1.0, False), (13, 1.0, True), (13, 6.29, True),
                                                       (13, 6.30, False), (40, 6.2, True)])  # fmt: skip
def test_a_small_span_of_many_angles_may_be_radians(tmp_path: Path, views: int, span: float, asked: bool) -> None:
    data, angles = np.ones((views, 8)), tuple(np.linspace(0.0, span, views).tolist())
    if asked:
        with pytest.raises(ReadError, match=f"holds angles that span {span:.3g}: are they radians"):
            read(tmp_path, data, angles=angles)
    else:
        np.testing.assert_allclose(read(tmp_path, data, angles=angles).angles, np.radians(angles))
    for unit, factor in (("degrees", math.pi / 180), ("radians", 1.0)):
        np.testing.assert_allclose(read(tmp_path, data, angles=angles, unit=unit).angles, np.multiply(angles, factor))


@pytest.mark.parametrize(("units", "factor"), [("degrees", math.pi / 180), ("Deg.", math.pi / 180), ("rad", 1.0),
                                               ("Radians", 1.0), (None, math.pi / 180), ("turns", None)])  # fmt: skip
def test_the_unit_of_angles_in_hdf5(tmp_path: Path, units: str | None, factor: float | None) -> None:
    angles = np.linspace(0, 3, 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["theta"] = np.ones((20, 8)), angles[:, None]
        if units is not None:
            file["theta"].attrs["units"] = units
    said = ScanDescription(data="data", angles="theta")
    if factor is None:
        with pytest.raises(ReadError, match="angles are in 'turns', expected degrees or radians"):
            read_line_integrals(tmp_path / "a.h5", said)
        return
    np.testing.assert_allclose(read_line_integrals(tmp_path / "a.h5", said).angles, factor * angles)
    over = ScanDescription(data="data", angles="theta", unit="radians")
    np.testing.assert_allclose(read_line_integrals(tmp_path / "a.h5", over).angles, angles)


def test_angles_in_the_file_go_before_an_assumed_arc_and_after_one_that_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", sinogram=READINGS, theta=[0.0, 10.0, 20.0, 30.0, 40.0])
    stored = read_line_integrals(tmp_path / "a.npz", ScanDescription())
    np.testing.assert_allclose(stored.angles, np.radians([0, 10, 20, 30, 40]))
    for said in ({"arc": 50.0}, {"first_angle": 0.0, "arc": 50.0}, {"ends": True, "arc": 40.0}):
        found = read_line_integrals(tmp_path / "a.npz", ScanDescription(**said))
        np.testing.assert_allclose(found.angles, stored.angles, atol=1e-12)
    reverse = read_line_integrals(tmp_path / "a.npz", ScanDescription(reverse_detectors=True))
    np.testing.assert_array_equal(reverse.lines, stored.lines[..., ::-1])


# --- the scan ---------------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_scan(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([lines(FAN)] * 2))
    fan = ScanDescription(
        beam="fan", detector="curved", detector_mm=1.5, source_to_center_mm=200.0, source_to_detector_mm=400.0,
        slice_mm=0.7, center=40.0,
    )  # fmt: skip
    scan = read_measured_scan(tmp_path / "a.npy", fan, (2, 2))
    assert isinstance(scan.geometry, FanGeometry) and scan.geometry.detector == "curved"
    assert (scan.layout, scan.numbers, scan.total, scan.axis) == ("npy file with a geometry file", (2,), 2, "slices")
    assert (scan.in_mm, scan.slice_mm, scan.centered) == (True, 0.7, True)
    assert scan.sinogram.shape == (1, 1, 120, 96) and scan.geometry.image_shape == (1, 1)
    assert (scan.geometry.source_to_center_mm, scan.geometry.source_to_detector_mm) == (200.0, 400.0)
    assert not any("width of a detector element" in note for note in scan.notes)
    bare = read_measured_scan(tmp_path / "a.npy", ScanDescription())
    assert isinstance(bare.geometry, ParallelGeometry) and bare.geometry.detector_mm == 1.0
    assert (bare.in_mm, bare.slice_mm, bare.centered) == (False, None, False)
    assert bare.notes[-1].startswith("the width of a detector element is not known: lengths are in elements")
    with pytest.raises(ReadError, match="its geometry cannot be used: "):
        read_measured_scan(
            tmp_path / "a.npy",
            ScanDescription(beam="fan", source_to_center_mm=200.0, source_to_detector_mm=100.0),
        )
    assert MEASURED_SUFFIXES == (".npy", ".npz", ".mat", ".tif", ".tiff", ".h5", ".hdf5", ".hdf", ".nxs")


def test_layouts_by_name(tmp_path: Path) -> None:
    challenge, nexus = (
        read_measured_scan(write_htc(tmp_path / "a.mat")),
        read_measured_scan(write_cil(tmp_path / "a.nxs")),
    )
    assert challenge.layout == "HTC 2022 challenge file, full scan" and nexus.layout == "NeXus file of CIL"
    assert (nexus.numbers, nexus.total, nexus.axis) == ((1, 2, 3), 3, "frames")
    one = read_measured_scan(write_cil(tmp_path / "b.nxs", frames=1))
    assert (one.numbers, one.total, one.axis) == ((1,), 1, "slices")
    assert read_measured_scan(tmp_path / "a.mat", None, (1, 1)).numbers == (1,)
    for chosen in ((0, 1), (3, 4), (3, 2)):
        with pytest.raises(ReadError, match=f"holds 3 frames, and {chosen[0]} to {chosen[1]} were asked for"):
            read_measured_scan(tmp_path / "a.nxs", None, chosen)
    with pytest.raises(ReadError, match="holds one slice, and 1 to 2 were asked for"):
        read_measured_scan(tmp_path / "a.mat", None, (1, 2))
    exchange = read_measured_scan(write_data_exchange(tmp_path / "a.h5"))
    assert exchange.layout == "data exchange (HDF5)" and exchange.record["values"] == "counts"
    plain, yaml = write_plain(tmp_path / "c.TIF".replace("TIF", "tif"))
    assert read_measured_scan(plain, read_scan_description(yaml)).layout == "tif file with a geometry file"


def test_columns_of_the_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", lines(PARALLEL))
    scan = read_measured_scan(tmp_path / "a.npy", ScanDescription(detector_mm=1.5))
    for column in (0.1, 30.0, 78.9):
        geometry, found = with_center(scan, column)
        assert found == column and axis_column(geometry) == pytest.approx(column)
        assert geometry.detector_offset_mm == pytest.approx((39.5 - column) * 1.5)
    for column in (0.0, 79.0, -1.0):
        with pytest.raises(ValueError, match=rf"the centre {column:g} lies outside the detector's columns 0\.\.79"):
            with_center(scan, column)
    assert with_center(scan, "middle")[1] == 39.5 and with_center(scan, "auto")[1] == pytest.approx(39.5, abs=0.05)
    for off, low in ((-61.0, "-1.2"), (61.0, "80.2")):
        with pytest.raises(ValueError, match=f"the axis projects to column {low}, outside the detector"):
            with_image(scan.geometry.replace(detector_offset_mm=-off))


@pytest.mark.parametrize("fan", [False, True])
def test_images_of_a_side_and_a_width(fan: bool) -> None:
    """As many pixels as elements, of their width at the axis, within what all views see."""
    geometry: Any = FAN if fan else PARALLEL
    element = 0.75 if fan else 1.0
    count = geometry.detectors
    for offset, whole in (
        (0.0, count),
        (3.0 * geometry.detector_mm, count - 6),
        (-2.5 * geometry.detector_mm, count - 5),
    ):
        image = with_image(geometry.replace(detector_offset_mm=offset))
        assert image.image_shape == (whole, whole) and image.pixel_rc == pytest.approx((element, element))
    chosen = with_image(geometry, 16)
    assert chosen.image_shape == (16, 16) and chosen.pixel_rc[0] == pytest.approx(count * element / 16)
    wide = with_image(geometry, None, 30.0)
    assert wide.image_shape == (round(30 / element),) * 2 and wide.pixel_rc[0] == pytest.approx(
        30 / wide.image_shape[0]
    )
    both = with_image(geometry, 8, 30.0)
    assert both.image_shape == (8, 8) and both.pixel_rc[0] == pytest.approx(3.75)
    assert with_image(geometry, None, 0.1).image_shape == (1, 1)


# --- the description --------------------------------------------------------------------------------------------------


def test_limits_of_a_description() -> None:
    assert ScanDescription(arc=360.0).covered == 360.0 and ScanDescription(arc=1e-3).covered == 1e-3
    for arc in (0.0, -1.0, 360.1):
        with pytest.raises(ValueError, match=r"arc must lie in \(0, 360\] degrees"):
            ScanDescription(arc=arc)
    for name in ("detector_mm", "slice_mm", "counts"):
        assert getattr(ScanDescription(**{name: 1e-3}), name) == 1e-3
        for value in (0.0, -1.0):
            with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
                ScanDescription(**{name: value})
    for name in ("first_angle", "arc", "ends"):
        with pytest.raises(ValueError, match=f"angles says them all: leave out {name}"):
            ScanDescription(
                angles=(1.0, 2.0), **{name: 0.0 if name == "first_angle" else 1.0 if name == "arc" else False}
            )
    for values in ("line integrals", "transmission"):
        for more in ({"flats": "a"}, {"counts": 5.0}):
            with pytest.raises(ValueError, match=f"values says {values}: leave out one"):
                ScanDescription(values=values, **more)
    assert ScanDescription(values="counts", flats="a").holds == "counts"
    assert [ScanDescription(**d).holds for d in ({}, {"flats": "a"}, {"counts": 2.0}, {"values": "transmission"})] == [
        "line integrals", "counts", "counts", "transmission",
    ]  # fmt: skip
    for axes in (("views",), ("slices", "frames", "views", "detectors"), ("views", "views", "detectors")):
        with pytest.raises(ValueError, match="axes must be views and detectors, and slices or frames"):
            ScanDescription(axes=axes)
    assert ScanDescription(axes=("detectors", "views")).axes == ("detectors", "views")


def test_a_description_over_another() -> None:
    layout = ScanDescription(data="a", flats="white", darks="black", angles="theta", reverse_detectors=True)
    assert ScanDescription().over(layout) == layout
    assert ScanDescription(counts=3.0).over(layout).flats is None
    assert ScanDescription(values="counts").over(layout).flats == "white"
    for said in ({"arc": 90.0}, {"first_angle": 1.0}, {"ends": True}):
        assert ScanDescription(**said).over(layout).angles is None
    assert ScanDescription(flats="own").over(layout).flats == "own"
    assert ScanDescription(detector_mm=2.0).over(layout).angles == "theta"


def test_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "counts: 1e5\narc: 1e2\nfirst_angle: 1e1\ncenter: 1e1\nslice_mm: 1e-1\ndetector_mm: 2e0\ndata: 1e5\n"
    )
    found = read_scan_description(path)
    assert (found.counts, found.arc, found.first_angle, found.center) == (1e5, 100.0, 10.0, 10.0)
    assert (found.slice_mm, found.detector_mm, found.data) == (0.1, 2.0, "1e5")
    path.write_text("counts: nan\n")
    with pytest.raises(ReadError, match="counts must be a finite number"):
        read_scan_description(path)
    path.write_text("flats: a.npy\ndarks: b.npy\n")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.ones(3))
    found = read_scan_description(path)
    assert (found.flats, found.darks) == (str(tmp_path / "a.npy"), str(tmp_path / "b.npy"))


def test_the_numbers_of_the_documentation() -> None:
    assert (projection_arrays.TRANSMISSION_FLOOR, projection_arrays.MOST_DARK_ELEMENTS) == (1e-4, 0.05)
