"""DICOM-CT-PD on tiny synthetic files with the published private attributes; no real file was at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from deft_ct.datasets.ldct_projection import find_projection_series, read_projections
from deft_ct.io.errors import ReadError
from deft_ct.operators import memory

ROWS, COLUMNS, VIEWS_PER_TURN, FEED = 4, 10, 16, 23.0
Write = Callable[..., np.ndarray]


def write(
    folder: Path, *, views: int = 40, implicit: bool = False, transposed: bool = True, feed: float = FEED
) -> np.ndarray:
    """A helix whose angle decreases and wraps; returns the line integrals (views, rows, columns)."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = []
    for n in range(views):
        angle = -n * 2 * math.pi / VIEWS_PER_TURN
        slope = 1e-4 * (1 + n % 3)  # a slope of its own in every file
        stored = rng.integers(0, 60000, (ROWS, COLUMNS), dtype=np.uint16)
        truth.append(stored * slope - 0.1)
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = CTImageStorage
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        d.Modality, d.InstanceNumber = "CT", n + 1
        image = stored.T if transposed else stored
        d.Rows, d.Columns = image.shape
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
        d.RescaleSlope, d.RescaleIntercept = f"{slope:.6g}", -0.1
        d.add_new((0x7029, 0x0010), "LO", "CTPD")
        for group in (0x7031, 0x7033, 0x7041):
            d.add_new((group, 0x0010), "LO", "CTPD")
        for tag, vr, value in (
            ((0x7029, 0x1002), "FL", 1.2858), ((0x7029, 0x1006), "FL", 1.0947), ((0x7029, 0x100B), "CS", "CYLINDRICAL"),
            ((0x7029, 0x1010), "US", ROWS), ((0x7029, 0x1011), "US", COLUMNS),
            ((0x7031, 0x1001), "FL", (angle + math.pi) % (2 * math.pi) - math.pi),
            ((0x7031, 0x1002), "FL", 100.0 - feed * n / VIEWS_PER_TURN), ((0x7031, 0x1003), "FL", 595.0),
            ((0x7031, 0x1031), "FL", 1085.6), ((0x7031, 0x1033), "FL", [5.125, 2.25]),
            ((0x7033, 0x100B), "FL", 0.001), ((0x7033, 0x100C), "FL", 0.5), ((0x7033, 0x100D), "FL", -1.5),
            ((0x7033, 0x100E), "CS", "FFSZ"), ((0x7033, 0x1065), "FL", [1000.0 + c for c in range(COLUMNS)]),
            ((0x7041, 0x1001), "DS", "0.0192"),
        ):  # fmt: skip
            d.add_new(tag, vr, value)
        d.PixelData = np.ascontiguousarray(image).tobytes()
        d["PixelData"].VR = "OW"
        # Names sort against the order of acquisition.
        d.save_as(folder / f"{1000 - n}.dcm", enforce_file_format=True)
    return np.array(truth)


@pytest.mark.parametrize(("implicit", "transposed"), [(False, True), (True, True), (False, False)])
def test_series(tmp_path: Path, implicit: bool, transposed: bool) -> None:
    """Also with implicit VR, where private attributes come back as bytes of unknown type."""
    truth = write(tmp_path / "scan", implicit=implicit, transposed=transposed)
    if implicit:
        raw = pydicom.dcmread(tmp_path / "scan" / "1000.dcm")
        assert raw[0x7031, 0x1003].VR == "UN"
    scan = read_projections(tmp_path / "scan", reverse_rows=False)
    assert scan.projections.shape == (40, ROWS, COLUMNS)
    np.testing.assert_allclose(scan.projections.numpy(), truth, atol=1e-5)
    np.testing.assert_allclose(scan.angles, -np.arange(40) * 2 * math.pi / 16, atol=1e-5)
    np.testing.assert_allclose(scan.z_mm, 100 - FEED * np.arange(40) / 16, atol=1e-4)
    assert scan.turns == pytest.approx(39 / 16, abs=1e-5)
    assert scan.table_feed_mm == pytest.approx(-FEED, rel=1e-4)
    np.testing.assert_allclose(scan.radius_mm, 595.0)
    assert (scan.source_to_detector_mm, scan.central_element) == (pytest.approx(1085.6), (5.125, 2.25))
    assert (scan.column_mm, scan.row_mm) == (pytest.approx(1.2858), pytest.approx(1.0947))
    assert scan.mu_water == 0.0192 and scan.detector_shape == "CYLINDRICAL" and scan.flying_focal_spot == "FFSZ"
    np.testing.assert_allclose(scan.focal_shifts[0], [0.001, 0.5, -1.5], rtol=1e-6)
    assert scan.photon_statistics is not None and scan.photon_statistics.shape == (40, COLUMNS)
    np.testing.assert_array_equal(scan.instance_numbers, np.arange(1, 41))
    turned = read_projections(tmp_path / "scan", reverse_rows=True)
    assert turned.central_element == (5.125, ROWS + 1 - 2.25)
    assert torch.equal(turned.projections, scan.projections.flip(1))


def test_rows_and_shifts_where_readers_disagree(tmp_path: Path) -> None:
    truth = write(tmp_path / "scan", views=3)
    scan = read_projections(tmp_path / "scan", swap_focal_shifts=True)
    np.testing.assert_allclose(scan.projections.numpy(), truth[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(scan.focal_shifts[0], [0.5, 0.001, -1.5], rtol=1e-6)


def test_every(tmp_path: Path) -> None:
    truth = write(tmp_path / "scan", views=9)
    scan = read_projections(tmp_path / "scan", every=3, reverse_rows=False)
    np.testing.assert_allclose(scan.projections.numpy(), truth[::3], atol=1e-5)
    assert scan.table_feed_mm == pytest.approx(-FEED, rel=1e-4)


def test_table_in_the_other_direction(tmp_path: Path) -> None:
    write(tmp_path / "scan", views=5, feed=-FEED)
    assert read_projections(tmp_path / "scan").table_feed_mm == pytest.approx(FEED, rel=1e-4)


def test_finding_a_series(tmp_path: Path) -> None:
    base = tmp_path / "LDCT-and-Projection-data" / "L004" / "08-21-2018-10971"
    for name in (
        "1.000000-Full dose projections-24362",
        "2.000000-Low Dose Projections-13774",
        "3.0-Full Dose Images-1",
    ):
        (base / name).mkdir(parents=True)
    assert find_projection_series(tmp_path, "L004").name.endswith("24362")
    assert find_projection_series(tmp_path, "L004", "low dose projections").name.endswith("13774")
    with pytest.raises(FileNotFoundError, match=r"no 'full dose projections' of L014; its folders are none"):
        find_projection_series(tmp_path, "L014")
    with pytest.raises(ValueError, match="2 folders of L004"):
        find_projection_series(tmp_path, "L004", "full dose")


def damage(path: Path, change: Callable[[Any], None]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def test_bad_series(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_projections(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no DICOM files"):
        read_projections(tmp_path / "empty")
    write(tmp_path / "a", views=4)
    (tmp_path / "a" / "999.dcm").unlink()
    with pytest.raises(ValueError, match="missing between InstanceNumber 1 and 3"):
        read_projections(tmp_path / "a")
    write(tmp_path / "b", views=3)
    damage(tmp_path / "b" / "999.dcm", lambda d: setattr(d, "InstanceNumber", 1))
    with pytest.raises(ValueError, match="InstanceNumber 1 occurs twice"):
        read_projections(tmp_path / "b")
    write(tmp_path / "c", views=3)
    damage(tmp_path / "c" / "999.dcm", lambda d: setattr(d[0x7029, 0x1010], "value", 5))
    with pytest.raises(ValueError, match="for a detector of 5 rows and 10 columns"):
        read_projections(tmp_path / "c")
    write(tmp_path / "d", views=3)
    damage(tmp_path / "d" / "999.dcm", lambda d: d.pop((0x7031, 0x1001)))
    with pytest.raises(ValueError, match="not DICOM-CT-PD"):
        read_projections(tmp_path / "d")
    write(tmp_path / "e", views=3)
    damage(tmp_path / "e" / "999.dcm", lambda d: setattr(d[0x7031, 0x1031], "value", 900.0))
    with pytest.raises(ValueError, match="source_to_detector differs"):
        read_projections(tmp_path / "e")
    write(tmp_path / "f", views=2)
    path = tmp_path / "f" / "999.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="pixel data cannot be read"):
        read_projections(tmp_path / "f")
    with pytest.raises(ValueError, match="every must be at least 1"):
        read_projections(tmp_path / "f", every=0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: setattr(d[0x7029, 0x1002], "value", 1e12), "width of a column is 1e"),
        (lambda d: setattr(d[0x7029, 0x1006], "value", -1.0), "height of a row is -1 mm"),
        (lambda d: setattr(d[0x7031, 0x1003], "value", 0.0), "a distance of 0 mm"),
        (lambda d: setattr(d[0x7031, 0x1001], "value", math.nan), r"\(7031,1001\) must hold finite numbers"),
        (lambda d: setattr(d[0x7031, 0x1033], "value", [1.0, 2.0, 3.0]), "DetectorCentralElement must hold two"),
        (lambda d: setattr(d[0x7033, 0x1065], "value", [1.0, 2.0]), "2 photon statistics for 10 columns"),
        (lambda d: d.pop((0x7033, 0x1065)), "some projections have photon statistics"),
        (lambda d: d.pop((0x7031, 0x1002)), r"\(7031,1002\) is missing"),
        (lambda d: setattr(d[0x7041, 0x1001], "value", "-1"), "attenuation of water is -1"),
        (lambda d: setattr(d[0x7029, 0x1010], "value", 0), "a detector of 0 rows"),
        (lambda d: setattr(d, "NumberOfFrames", 1000), "for a detector of 4 rows"),
        (lambda d: setattr(d, "RescaleSlope", "1e38"), "not finite"),
        (lambda d: d.pop("RescaleSlope"), "is damaged DICOM"),
        (lambda d: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian), "is compressed"),
    ],
)
def test_values_that_no_scanner_has(tmp_path: Path, change: Callable[[Any], None], why: str) -> None:
    write(tmp_path / "scan", views=3)
    damage(tmp_path / "scan" / "999.dcm", change)
    with pytest.raises(ReadError, match=why) as caught:
        read_projections(tmp_path / "scan")
    assert Path(caught.value.path).is_relative_to(tmp_path / "scan")


def test_a_projection_cut_at_any_byte_is_one_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "scan", views=2)
    path = tmp_path / "scan" / "999.dcm"
    whole = path.read_bytes()
    for length in range(140, len(whole), 29):  # before that it is not DICOM, and is left out as any other file
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match=r"999\.dcm"):
            read_projections(tmp_path / "scan")


def test_a_header_that_cannot_be_decoded_is_one_error(tmp_path: Path) -> None:
    """pydicom finds an unknown type of value only when somebody asks for the attribute."""
    write(tmp_path / "scan", views=2)
    for path in (tmp_path / "scan").iterdir():
        whole = path.read_bytes()
        assert whole.count(b"\x08\x00\x60\x00CS") == 1
        path.write_bytes(whole.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00CW"))
    with pytest.raises(ReadError, match=r"\.dcm.*damaged"):
        read_projections(tmp_path / "scan")


SOUND_AND_NOT: list[tuple[tuple[int, int], str, Any, Any, str]] = [
    ((0x7031, 0x1003), "radius_mm", 1.0, 0.99, "a distance of 0.99 mm"),
    ((0x7031, 0x1031), "source_to_detector_mm", 1e5, 1.01e5, "a distance of 101000 mm"),
    ((0x7041, 0x1001), "mu_water", "0.999", "1", "attenuation of water is 1 / mm"),
    ((0x7041, 0x1001), "mu_water", "0.001", "0", "attenuation of water is 0 / mm"),
    ((0x7029, 0x1002), "column_mm", 100.0, 101.0, "width of a column is 101 mm"),
    ((0x7029, 0x1006), "row_mm", 100.0, 101.0, "height of a row is 101 mm"),
]


@pytest.mark.parametrize(("tag", "name", "sound", "bad", "why"), SOUND_AND_NOT)
def test_both_sides_of_each_bound(
    tmp_path: Path, tag: tuple[int, int], name: str, sound: Any, bad: Any, why: str
) -> None:
    write(tmp_path / "scan", views=1)
    damage(tmp_path / "scan" / "1000.dcm", lambda d: setattr(d[tag], "value", sound))
    found = np.atleast_1d(getattr(read_projections(tmp_path / "scan"), name))[0]
    assert found == pytest.approx(float(sound), rel=1e-6)
    damage(tmp_path / "scan" / "1000.dcm", lambda d: setattr(d[tag], "value", bad))
    with pytest.raises(ReadError, match=why):
        read_projections(tmp_path / "scan")


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (3, 1), (1, 1), (3, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_detectors_of_few_elements(tmp_path: Path, rows: int, columns: int, transposed: bool) -> None:
    write(tmp_path / "scan", views=1)
    stored = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    turned = transposed and rows != columns

    def change(d: Any) -> None:
        image = stored.T if turned else stored
        d[0x7029, 0x1010].value, d[0x7029, 0x1011].value = rows, columns
        d.Rows, d.Columns = image.shape
        d.PixelData = np.ascontiguousarray(image).tobytes()
        d.RescaleSlope, d.RescaleIntercept = 2, 1
        d.pop((0x7033, 0x1065))

    damage(tmp_path / "scan" / "1000.dcm", change)
    scan = read_projections(tmp_path / "scan", reverse_rows=False)
    np.testing.assert_array_equal(scan.projections[0].numpy(), 2 * stored + 1)
    assert scan.photon_statistics is None and scan.turns == 0
    with pytest.raises(ValueError, match="needs two views or more"):
        _ = scan.table_feed_mm


def test_a_detector_of_too_many_elements(tmp_path: Path) -> None:
    write(tmp_path / "scan", views=1)
    for rows, columns in ((0, 10), (4, 0)):
        damage(tmp_path / "scan" / "1000.dcm", lambda d, r=rows: setattr(d[0x7029, 0x1010], "value", r))
        damage(tmp_path / "scan" / "1000.dcm", lambda d, c=columns: setattr(d[0x7029, 0x1011], "value", c))
        with pytest.raises(ReadError, match=f"declares a detector of {rows} rows and {columns} columns"):
            read_projections(tmp_path / "scan")


def test_what_a_file_may_lack(tmp_path: Path) -> None:
    write(tmp_path / "scan", views=2)
    (tmp_path / "scan" / "notes.txt").write_text("hello")
    for name in ("1000.dcm", "999.dcm"):

        def remove(d: Any) -> None:
            for tag in ((0x7033, 0x100B), (0x7033, 0x100C), (0x7033, 0x100D), (0x7041, 0x1001), (0x7033, 0x1065)):
                d.pop(tag)
            d[0x7029, 0x100B].value = " FLAT"

        damage(tmp_path / "scan" / name, remove)
    scan = read_projections(tmp_path / "scan")
    assert scan.focal_shifts.tolist() == [[0, 0, 0]] * 2 and scan.mu_water is None and scan.photon_statistics is None
    assert scan.detector_shape == "FLAT"
    damage(tmp_path / "scan" / "999.dcm", lambda d: d.pop("InstanceNumber"))
    with pytest.raises(ReadError, match=r"999\.dcm.*has no InstanceNumber"):
        read_projections(tmp_path / "scan")


def test_values_of_the_first_and_of_the_last_view_count(tmp_path: Path) -> None:
    """Statistics, distances and shifts follow the order of acquisition."""
    write(tmp_path / "scan", views=3)
    for n in range(3):
        path = tmp_path / "scan" / f"{1000 - n}.dcm"
        damage(path, lambda d, n=n: setattr(d[0x7033, 0x1065], "value", [float(n)] * COLUMNS))
        damage(path, lambda d, n=n: setattr(d[0x7033, 0x100D], "value", float(n)))
        damage(path, lambda d, n=n: setattr(d[0x7031, 0x1003], "value", 500.0 + n))
    scan = read_projections(tmp_path / "scan")
    assert scan.photon_statistics is not None and scan.photon_statistics[:, 0].tolist() == [0, 1, 2]
    assert scan.focal_shifts[:, 2].tolist() == [0, 1, 2] and scan.radius_mm.tolist() == [500, 501, 502]
    damage(tmp_path / "scan" / "1000.dcm", lambda d: d.pop((0x7033, 0x1065)))
    with pytest.raises(ReadError, match="some projections have photon statistics and some have not"):
        read_projections(tmp_path / "scan")


def test_a_series_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bytes for each element of each view."""
    write(tmp_path / "x", views=3)
    monkeypatch.setattr(memory, "free_bytes", lambda: 4 * 3 * ROWS * COLUMNS - 1)
    with pytest.raises(ValueError, match="a scan of 3 projections of 4 x 10 elements needs at least"):
        read_projections(tmp_path / "x")
    monkeypatch.setattr(memory, "free_bytes", lambda: 4 * 3 * ROWS * COLUMNS)
    assert len(read_projections(tmp_path / "x").projections) == 3
