"""Which images of a folder are the slices: strays, copies, phases, jitter and a tilted gantry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from deft_ct.io import DicomSeriesError, read_dicom_series, write_dicom_series

MakeSeries = Callable[..., list[Path]]
Z = (0.0, 2.5, 5.0, 7.5)


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(DicomSeriesError) as caught:
        read_dicom_series(folder, **options)
    return caught.value.problem


# --- strays -------------------------------------------------------------------------------------------------------

STRAYS: dict[str, dict[str, Any]] = {
    "dose page": {"ImagePositionPatient": None, "ImageOrientationPatient": None, "Rows": 8, "PixelData": bytes(256)},
    "screen shot": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "ImagePositionPatient": [-100, -90, 2.5]},
    "colour": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PixelData": bytes(16 * 16 * 3)},
    "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    "scout without a name": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "Rows": 8, "PixelData": bytes(256)},
    "secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None},
    "another matrix": {"ImageType": ["DERIVED", "SECONDARY"], "Rows": 8, "PixelData": bytes(256)},
}


@pytest.mark.parametrize("own_series", [False, True])
@pytest.mark.parametrize("name", STRAYS)
def test_one_stray_image_does_not_block_the_series(
    tmp_path: Path, make_series: MakeSeries, name: str, own_series: bool
) -> None:
    make_series(tmp_path / "scan")
    before = read_dicom_series(tmp_path / "scan")
    changes = STRAYS[name] | ({"SeriesInstanceUID": "1.2.3.77"} if own_series else {})
    make_series(tmp_path / "scan" / "stray", z=(0.0,), **changes)
    if own_series and name in ("scout without a name", "another matrix"):
        # Nothing says that it is no slice: that is for the user to choose.
        assert "it holds 2 CT series" in refusal(tmp_path / "scan")
        return
    series = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(series.hu, before.hu)
    assert own_series or any(note.startswith("skipped 1 ") for note in series.notes), series.notes


def test_a_slice_that_lacks_its_position_is_no_stray(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, each_ImagePositionPatient=[[0, 0, 0], [0, 0, 2.5], None, [0, 0, 7.5]])
    assert "013.dcm" not in refusal(tmp_path) and "it lacks ImagePositionPatient" in refusal(tmp_path)


def test_where_all_are_strays_the_first_is_judged(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, z=(0.0,), **STRAYS["dose page"])
    assert "it lacks ImagePositionPatient, ImageOrientationPatient" in refusal(tmp_path)


# --- copies and phases --------------------------------------------------------------------------------------------


def test_identical_slices_with_other_uids_are_left_out(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    make_series(tmp_path / "a")
    make_series(tmp_path / "b")
    series = read_dicom_series(tmp_path)
    np.testing.assert_array_equal(series.hu, phantom[:4])
    assert series.notes == ("left out 4 identical copies of slices: 003.dcm, 008.dcm, 013.dcm, ...",)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("AcquisitionNumber", (1, 2)), ("TemporalPositionIdentifier", (3, 10)), ("ContentTime", ("101500", "102000.5")),
        ("NominalPercentageOfCardiacPhase", (40, 75)), ("ConvolutionKernel", ("B30f", "B70f")),
    ],
)  # fmt: skip
def test_phases_are_listed_and_can_be_chosen(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, name: str, values: tuple[Any, Any]
) -> None:
    make_series(tmp_path / "a", **{name: values[0]})
    first = phantom.copy()
    phantom[:] = phantom[::-1].copy()
    make_series(tmp_path / "b", **{name: values[1]})
    problem = refusal(tmp_path)
    assert "2 scan phases" in problem and "--phase" in problem and f"by {name}: " in problem
    for n, value in enumerate(values):
        assert f"{value} (4 slices)" in problem
        text = str(value)
        series = read_dicom_series(tmp_path, phase=text if n else f"{name}={text}")
        np.testing.assert_array_equal(series.hu, (phantom if n else first)[:4])
        assert f"took the phase {name}={text}, left out 4 slices of others" in series.notes
    assert "it has no phase 99; it has, by" in refusal(tmp_path, phase="99")


def test_phases_that_only_the_time_of_each_slice_tells_apart(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    make_series(tmp_path / "a", each_ContentTime=["080000", "080001", "080002", "080003"])
    first = phantom.copy()
    phantom[:] = phantom[::-1].copy()
    make_series(tmp_path / "b", each_ContentTime=["090000", "090001", "090002", "090003"])
    assert "by order of ContentTime: 1 (4 slices), 2 (4 slices)" in refusal(tmp_path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, phase="1").hu, first[:4])
    np.testing.assert_array_equal(read_dicom_series(tmp_path, phase="2").hu, phantom[:4])


def test_a_phase_of_a_series_without_phases(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, AcquisitionNumber=4)
    assert "has one phase only" in refusal(tmp_path, phase="4")


# --- places -------------------------------------------------------------------------------------------------------


def test_jitter_is_accepted_and_noted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, z=(0.0, 1.06, 2.0, 2.94, 4.0))
    series = read_dicom_series(tmp_path)
    assert series.z_mm == pytest.approx(1.0) and series.changes == (
        "the positions of the slices jitter by up to 0.06 mm",
    )


def test_gaps_are_accepted_on_request_and_noted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, z=(0.0, 2.5, 10.0, 12.5))
    assert "pass allow_gaps=True (--allow-gaps)" in refusal(tmp_path)
    series = read_dicom_series(tmp_path, allow_gaps=True)
    assert "not equally spaced" in series.changes[0]
    assert [float(h.ImagePositionPatient[2]) for h in series.headers] == [0, 2.5, 10, 12.5]


@pytest.mark.parametrize("degrees", [-20.0, 15.0])
def test_a_tilted_gantry(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, degrees: float) -> None:
    angle = np.radians(degrees)
    cosines = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    make_series(tmp_path / "scan", ImageOrientationPatient=cosines)
    series = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(series.hu, phantom[:4])
    assert series.volume.is_sheared and series.z_mm == pytest.approx(2.5 * np.cos(angle))
    assert f"tilted by {abs(degrees):.1f} degrees" in series.changes[0]
    for n, header in enumerate(series.headers):
        np.testing.assert_allclose(series.volume.affine @ [0, 0, n, 1], [*header.ImagePositionPatient, 1], atol=1e-9)
    coarse = series.fitted(8)
    written = write_dicom_series(coarse.volume, like=coarse, folder=tmp_path / "out")
    files = [pydicom.dcmread(path) for path in written.mean]
    for n, file in enumerate(files):
        shift = 0.5 * 0.75 * (np.array(cosines[:3]) + cosines[3:])
        expected = np.array([-100, -90, 2.5 * n]) + shift
        np.testing.assert_allclose(np.array(file.ImagePositionPatient, float), expected, atol=1e-9)
        np.testing.assert_allclose(np.array(file.ImageOrientationPatient, float), cosines)
    again = read_dicom_series(tmp_path / "out")
    np.testing.assert_allclose(again.volume.affine, coarse.volume.affine, atol=1e-9)


# --- folders ------------------------------------------------------------------------------------------------------


def test_folders_that_are_not_read_are_named(
    tmp_path: Path, make_series: MakeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_series(tmp_path / "real")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "there").symlink_to(tmp_path / "real")
    assert refusal(tmp_path / "links").startswith("it is empty, but there is a link to a folder and was not followed")
    make_series(tmp_path / "links" / "own")
    (tmp_path / "links" / "locked").mkdir()
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    notes = read_dicom_series(tmp_path / "links").notes
    assert "the folder locked cannot be read (Permission denied): slices may be missing" in notes
    assert "there is a link to a folder and was not followed: name its target" in notes


# --- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("PixelSpacing", b"0.75\\0.75", b"0,75\\0,75"), ("RescaleIntercept", b"-1024.0 ", b"-1024,0 ")],
)
def test_decimal_commas(tmp_path: Path, make_series: MakeSeries, name: str, before: bytes, after: bytes) -> None:
    for path in make_series(tmp_path):
        content = path.read_bytes()
        assert before in content
        path.write_bytes(content.replace(before, after))
    assert f"{name} must be" in refusal(tmp_path) and "DICOM writes decimals with a point" in refusal(tmp_path)


def test_no_transfer_syntax(tmp_path: Path, make_slice: Callable[..., Dataset]) -> None:
    make_slice(np.zeros((16, 16))).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    content = (tmp_path / "a.dcm").read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    length = 8 + int.from_bytes(content[start + 6 : start + 8], "little")
    group = int.from_bytes(content[140:144], "little") - length
    changed = content[:140] + group.to_bytes(4, "little") + content[144:start] + content[start + length :]
    (tmp_path / "a.dcm").write_bytes(changed)
    assert "it does not say how its pixels are stored (TransferSyntaxUID)" in refusal(tmp_path)


@pytest.mark.parametrize(("text", "accepted"), [("HOUNDSFIELD UNIT", True), ("HOUNSFIELD", True), ("Z_EFF", False)])
def test_hounsfield_as_it_is_spelt(tmp_path: Path, make_series: MakeSeries, text: str, accepted: bool) -> None:
    make_series(tmp_path, RescaleType=text)
    if accepted:
        assert len(read_dicom_series(tmp_path)) == 4
    else:
        assert "values, not HU" in refusal(tmp_path)


@pytest.mark.parametrize(("count", "named"), [(2, "a0, a1"), (3, "a0, a1, a2"), (4, "a0, a1, a2, ...")])
def test_three_copies_are_named(tmp_path: Path, make_series: MakeSeries, count: int, named: str) -> None:
    first = sorted(make_series(tmp_path / "scan"))[0]
    for n in range(count):
        shutil.copy(first, tmp_path / "scan" / f"a{n}")
    (note,) = read_dicom_series(tmp_path / "scan").notes
    assert note.endswith(f": {named}")
