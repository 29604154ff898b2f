"""Both sides of each bound between a series that is read and one that is refused, and the words of the refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from deft_ct.io.dicom_files import DicomSeriesError
from deft_ct.io.dicom_read import read_all_dicom_series, read_dicom_series
from deft_ct.io.errors import ReadError
from deft_ct.io.series import Series

MakeSeries = Callable[..., list[Path]]
TINY = 0.02  # beside a bound, in parts of it


@pytest.fixture
def reads(tmp_path: Path, make_series: MakeSeries) -> Callable[..., str]:
    """What is wrong with a series of changed slices; empty if it can be read."""
    numbers = iter(range(100))

    def read(*, allow_gaps: bool = False, **changes: Any) -> str:
        folder = tmp_path / f"scan{next(numbers)}"
        make_series(folder, **changes)
        try:
            read_dicom_series(folder, allow_gaps=allow_gaps)
        except ReadError as error:
            return error.problem
        return ""

    return read


def on_both_sides(reads: Callable[..., str], inside: dict[str, Any], outside: dict[str, Any], problem: str) -> None:
    """The first is read, the second refused."""
    assert reads(**inside) == ""
    assert problem in reads(**outside)


def turned(angle: float, *, about_row: bool = False) -> list[float]:
    """Orientation of axial slices that are turned, about the patient's long axis or about their rows."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [1, 0, 0, 0, cos, sin] if about_row else [cos, sin, 0, -sin, cos, 0]


def test_directions(reads: Callable[..., str]) -> None:
    def last(values: list[float]) -> dict[str, Any]:
        return {"each_ImageOrientationPatient": [[1, 0, 0, 0, 1, 0]] * 3 + [values]}

    on_both_sides(reads, last(turned(0.98e-3)), last(turned(1.02e-3)), "ImageOrientationPatient differs")
    for values in ([1 + 0.49e-3, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1 + 0.49e-3, 0], [1, 0, 0, 0.98e-3, 1, 0]):
        assert reads(ImageOrientationPatient=values) == ""
    for values in ([1 + 0.52e-3, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1 - 0.52e-3, 0]):
        assert "does not hold unit vectors" in reads(ImageOrientationPatient=values)
    for side in (1, -1):
        assert "not perpendicular" in reads(ImageOrientationPatient=[1, 0, 0, side * 1.02e-3, 1, 0])


@pytest.mark.parametrize("side", [1, -1])
def test_slices_may_lean_by_45_degrees(reads: Callable[..., str], side: int) -> None:
    for degrees, problem in ((44.9, ""), (45.1, "are not axial"), (180 - 44.9, "")):
        found = reads(z=(0.0,), ImageOrientationPatient=turned(side * math.radians(degrees), about_row=True))
        assert bool(found) == bool(problem) and problem in found


def test_pixels(reads: Callable[..., str]) -> None:
    def last(spacing: float) -> dict[str, Any]:
        return {"each_PixelSpacing": [[0.75, 0.75]] * 3 + [[spacing] * 2]}

    on_both_sides(reads, last(0.75 + 0.98e-4), last(0.75 - 1.02e-4), "PixelSpacing differs")
    assert "SliceThickness is 100.1 mm; expected at most 100 mm" in reads(SliceThickness=100.1)
    on_both_sides(reads, {"SliceThickness": 100}, {"SpacingBetweenSlices": -101}, "SpacingBetweenSlices is 101 mm")
    on_both_sides(reads, {"PixelSpacing": [100, 100]}, {"PixelSpacing": [0.75, 101]}, "PixelSpacing is 101 mm")


def test_places(reads: Callable[..., str]) -> None:
    for far in (1e5, -1e5):
        inside = {"z": (0.0,), "ImagePositionPatient": [0, far, 0]}
        outside = {"z": (0.0,), "ImagePositionPatient": [0, far * 1.000005, 0]}
        on_both_sides(reads, inside, outside, "lies more than 100 m away")


@pytest.mark.parametrize(
    ("z", "problem"),
    [
        ((0, 2.5, 5, 7.99), ""), ((0, 2.5, 5, 8.01), "not equally spaced: 3.010 mm"),
        ((0, 2.5, 5, 7.01), ""), ((0, 2.5, 5, 6.99), "not equally spaced: 1.990 mm"),
        ((0, 1.06, 2, 2.94, 4), ""),  # a jitter of 0.06 mm
        ((0, 1, 2, 3, 4.1, 5.2, 6.3, 7.4), ""), ((0, 1, 2, 3, 4, 5.19, 6.38, 7.57), "from an even grid of 1.000 mm"),
        ((0, 2.5, 5, 9.76), "1 slice(s) missing"), ((0, 2.5, 5, 9.74), "not equally spaced"),
        ((0, 2.5, 5, 10.24), "1 slice(s) missing"), ((0, 2.5, 5, 10.26), "not equally spaced"),
        ((0, 2.5, 5, 12.87), "2 slice(s) missing"), ((0, 2.5, 5, 12.88), "not equally spaced"),
        ((0, 2.5, 5, 5.024), "at the same place (5.00 mm)"), ((0, 2.5, 5, 5.026), "not equally spaced"),
        ((0, 0.05, 0.1, 0.1009), "at the same place"), ((0, 0.05, 0.1, 0.1011), "not equally spaced"),
    ],
)  # fmt: skip
def test_distances(reads: Callable[..., str], z: tuple[float, ...], problem: str) -> None:
    found = reads(z=z)
    assert problem in found and bool(found) == bool(problem)
    if "same place" not in problem:
        assert reads(z=z, allow_gaps=True) == ""


def test_the_missing_slice_is_described(reads: Callable[..., str]) -> None:
    assert reads(z=(0, 2.5, 5, 10)) == (
        "1 slice(s) missing between 013.dcm at 5.00 mm and 018.dcm at 10.00 mm (the others are 2.5 mm apart); add "
        "them, or pass allow_gaps=True (--allow-gaps) to take the slices that are there"
    )


@pytest.mark.parametrize("z", [(0, 2.5, 5, 10, 12.5), (0, 2.5, 5, 8.5, 11), (0, 2.5, 5, 5.01, 7.5)])
def test_the_slice_after_the_fault_is_the_one_that_is_named(
    tmp_path: Path, make_series: MakeSeries, z: tuple[float, ...]
) -> None:
    paths = make_series(tmp_path, z=z)
    with pytest.raises(DicomSeriesError, match=r"013\.dcm.*018\.dcm|018\.dcm.*013\.dcm") as caught:
        read_dicom_series(tmp_path)
    assert Path(caught.value.path) == paths[3]


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_may_be_off_by_half_a_pixel(reads: Callable[..., str], axis: int) -> None:
    def moved(steps: Any) -> dict[str, Any]:
        places = [[-100.0, -90.0, 2.5 * n] for n in range(4)]
        for place, step in zip(places, steps, strict=True):
            place[axis] += step
        return {"each_ImagePositionPatient": places}

    on_both_sides(reads, moved([0, 0.37, 0, 0]), moved([0, 0.38, 0, 0]), "shifted sideways by up to 0.4 mm (008.dcm)")
    tilted = np.array([0.0, 2.0, 4.0, 6.0])
    assert reads(**moved(tilted)) == "" == reads(**moved(1.24 * tilted))
    assert "shifted sideways by up to 7.6 mm" in reads(**moved(1.26 * tilted)), "beyond 45 degrees"
    assert reads(**moved(tilted + np.array([0, 0.37, 0, 0]))) == ""
    assert "shifted sideways" in reads(**moved(tilted + np.array([0, 0.38, 0, 0])))


def test_copies_are_named(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, z=(0.0, 2.5, 5.0, 7.5, 10.0), SOPInstanceUID="1.2.3.4")
    with pytest.raises(DicomSeriesError, match=r"there 5 times with .*: 003\.dcm, 008\.dcm, 013\.dcm; remove"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"RescaleType": "hu"}, ""), ({"RescaleType": "US"}, ""), ({"RescaleType": ""}, ""),
        ({"RescaleType": "Z"}, "it holds Z values, not HU"),
        ({"SamplesPerPixel": None}, "pixel data cannot be read"),  # but it is no colour image
        ({"NumberOfFrames": 1}, ""), ({"NumberOfFrames": 2}, "holds several frames"),
        ({"ImagePositionPatient": None, "PixelSpacing": None}, "it lacks PixelSpacing, ImagePositionPatient; export"),
        ({"RescaleSlope": None}, "it lacks RescaleSlope; export"),
        ({"PixelSpacing": [0.75]}, "PixelSpacing must be 2 finite number(s), got 0.75"),
        ({"ImagePositionPatient": [0, 0]}, "ImagePositionPatient must be 3 finite number(s)"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "ImageOrientationPatient must be 6 finite number(s)"),
        ({"PixelSpacing": [-0.75, 0.75]}, "must not be zero or negative"),
        ({"ImageType": "LOCALIZER"}, "is a localizer"), ({"ImageType": ["A", "LOCALIZER"]}, "is a localizer"),
        ({"ImageType": None}, ""),
    ],
)  # fmt: skip
def test_what_a_slice_must_have(reads: Callable[..., str], changes: dict[str, Any], problem: str) -> None:
    if "RescaleSlope" in changes:
        changes |= {"PixelData": b"\0" * 512}
    found = reads(z=(0.0,), **changes)
    assert problem in found and bool(found) == bool(problem)


def test_damaged_files_are_counted_and_three_of_them_named(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = sorted(make_series(tmp_path / "scan", z=tuple(2.5 * n for n in range(8))))
    whole = {path: path.read_bytes() for path in paths}
    for count, more in (
        (1, ""),
        (2, r" \(1 more file\(s\) are damaged: 008\.dcm\)"),
        (6, r" \(5 more file\(s\) are damaged: 008\.dcm, 013\.dcm, 018\.dcm\)"),
    ):
        for path in paths[:count]:
            path.write_bytes(whole[path][:400])
        with pytest.raises(DicomSeriesError, match=rf"copy .*{more}$") as caught:
            read_dicom_series(tmp_path / "scan")
        assert Path(caught.value.path) == paths[0]
        assert ("more file" in caught.value.problem) == (count > 1)


def test_what_was_left_out_is_noted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    make_series(tmp_path / "scan" / "mr", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    for count, named in ((3, "a0, a1, a2"), (4, "a0, a1, a2, ...")):
        for n in range(count):
            (tmp_path / "scan" / f"a{n}").write_text("hello")
        notes = read_dicom_series(tmp_path / "scan").notes
        assert notes == (
            "skipped 4 x MR image (MR Image Storage)",
            f"skipped {count} file(s) that are not DICOM: {named}",
        )


def test_series_to_choose_from_are_described(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "a", ConvolutionKernel="B30f", SeriesDescription="thin")
    make_series(tmp_path / "b", z=(0.0, 1.0), SeriesInstanceUID="1.2.3.2")
    make_series(tmp_path / "c", z=(0.0,), SeriesInstanceUID="1.2.3.3", ImageType=["A", "B", "LOCALIZER"])
    with pytest.raises(DicomSeriesError) as caught:
        read_dicom_series(tmp_path)
    assert caught.value.problem.splitlines()[1:] == [
        "  1.2.3.1  4 slices, 16x16, kernel B30f, thin",
        "  1.2.3.2  2 slices, 16x16, kernel -, no description",
        "  1.2.3.3  1 localizer, 16x16, kernel -, no description",
    ]
    series, refused = read_all_dicom_series(tmp_path)
    assert [one.series_uid for one in series] == ["1.2.3.1", "1.2.3.2"]
    assert list(refused) == ["1.2.3.3"] and "localizer" in refused["1.2.3.3"]


def test_parts_and_headers(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, SpacingBetweenSlices=None)
    series = read_dicom_series(tmp_path)
    part = series.slices(1, 3)
    np.testing.assert_array_equal(part.hu, series.hu[1:3])
    assert part.volume.affine[2, 3] == 2.5 and series.volume.affine[2, 3] == 0 and len(series.slices(0, 4)) == 4
    for start, stop in ((-1, 2), (2, 2), (3, 5)):
        with pytest.raises(ValueError, match=rf"0 <= start < stop <= 4, got start={start}, stop={stop}"):
            series.slices(start, stop)
    with pytest.raises(ValueError, match="3 headers for 4 slices"):
        Series(series.volume, series.headers[:3], tmp_path)
    assert [Path(series.file_of(h)).name for h in series.headers] == ["003.dcm", "008.dcm", "013.dcm", "018.dcm"]
    assert series.file_of(Dataset()) == tmp_path


@pytest.mark.parametrize(
    ("spacing", "thickness", "expected"), [(3, 2, 3), (-3, 2, 3), (None, 2, 2), (None, None, 1), (0, 2, 2)]
)
def test_the_height_of_a_single_slice(
    tmp_path: Path, make_series: MakeSeries, spacing: float | None, thickness: float | None, expected: float
) -> None:
    make_series(tmp_path, z=(0.0,), SpacingBetweenSlices=spacing, SliceThickness=thickness)
    assert read_dicom_series(tmp_path).z_mm == expected


def test_a_series_is_halved_unless_told_otherwise(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path)
    series = read_dicom_series(tmp_path)
    halved, whole = series.resampled(), series.resampled(1)
    assert halved.image_shape == (8, 8) and halved.pixel_mm == 1.5 and halved.headers[0].Rows == 8
    np.testing.assert_array_equal(whole.hu, series.hu)
    assert whole.headers[0].ImagePositionPatient == series.headers[0].ImagePositionPatient


def test_coarse_headers_hold_numbers_that_fit(tmp_path: Path, make_series: MakeSeries) -> None:
    """A decimal string has at most 16 characters."""
    angle = math.radians(10)
    make_series(tmp_path, z=(0.0,), PixelSpacing=[0.7031249, 0.7031249], ImageOrientationPatient=turned(angle))
    header = read_dicom_series(tmp_path).resampled(2).headers[0]
    assert (header.Rows, header.Columns) == (8, 8)
    assert [float(v) for v in header.PixelSpacing] == [2 * 0.7031249] * 2
    step = 0.5 * 0.7031249
    expected = [-100 + step * (math.cos(angle) - math.sin(angle)), -90 + step * (math.sin(angle) + math.cos(angle)), 0]
    np.testing.assert_allclose([float(v) for v in header.ImagePositionPatient], expected, atol=1e-9)
    assert all(len(str(v)) <= 16 for v in [*header.ImagePositionPatient, *header.PixelSpacing])


@pytest.mark.parametrize("name", ["Rows", "Columns"])
def test_a_row_more_is_another_matrix(reads: Callable[..., str], name: str) -> None:
    assert f"{name} differs within the series: 16 in 003.dcm, 17 in 018.dcm" in reads(
        **{f"each_{name}": [16] * 3 + [17]}
    )


@pytest.mark.parametrize(
    ("off", "said"),
    [(0.12, ""), (0.13, "jitter by up to 0.13 mm"), (0.62, "jitter by up to 0.62 mm"), (0.63, "not equally spaced")],
)
def test_what_is_said_of_the_places(tmp_path: Path, make_series: MakeSeries, off: float, said: str) -> None:
    """A twentieth of a distance is rounding, and up to a quarter of it jitter."""
    make_series(tmp_path, z=(0.0, 2.5 + off, 5.0, 7.5))
    changes = read_dicom_series(tmp_path, allow_gaps=True).changes
    assert len(changes) == bool(said) and (not said or said in changes[0])


def test_a_drift_of_half_a_pixel_is_a_tilt(tmp_path: Path, make_series: MakeSeries) -> None:
    for drift, tilted in ((0.98, False), (1.02, True)):
        folder = tmp_path / f"{drift}"
        make_series(folder, PixelSpacing=[3.0, 2.0], shear=drift / 7.5)
        series = read_dicom_series(folder)
        assert any("tilted" in text for text in series.changes) == tilted
        np.testing.assert_allclose(series.volume.affine[:3, 2], [0, drift / 3 if tilted else 0, 2.5], atol=1e-6)


def test_a_single_slice_is_a_series(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path, z=(3.0,))
    series = read_dicom_series(tmp_path)
    assert series.series_uid == "1.2.3.1" and len(series.slice_uids) == 1 and series.changes == ()


def test_two_images_at_one_place_are_two_phases(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    make_series(tmp_path / "a", z=(0.0,), AcquisitionNumber=1)
    phantom += 1
    make_series(tmp_path / "b", z=(0.0,), AcquisitionNumber=2, SliceThickness=3)
    with pytest.raises(DicomSeriesError, match=r"by AcquisitionNumber: 1 \(1 slices\), 2 \(1 slices\)"):
        read_dicom_series(tmp_path)
    assert read_dicom_series(tmp_path, phase="2").z_mm == 3
