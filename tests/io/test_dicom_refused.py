"""DICOM series that are refused, each with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    EnhancedCTImageStorage,
    generate_uid,
)

from deft_ct.io import DicomSeriesError, read_dicom_series

MakeSeries = Callable[..., list[Path]]


def refuse(folder: Path, message: str, **options: Any) -> None:
    with pytest.raises(DicomSeriesError, match=message):
        read_dicom_series(folder, **options)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_dicom_series(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "is empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("this is not DICOM")
    (tmp_path / "text" / "b.dcm").write_text("")
    refuse(tmp_path / "text", "none of them DICOM.*a.dcm")


def test_wrong_modality(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    refuse(tmp_path / "scan", "no CT images, only 4 x MR image")


def test_two_series_are_listed_and_can_be_chosen(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan" / "a", SeriesDescription="thin")
    make_series(tmp_path / "scan" / "b", z=(0.0, 5.0), SeriesInstanceUID="1.2.3.2", SeriesDescription="thick")
    refuse(tmp_path / "scan", r"(?s)2 CT series.*--series.*1\.2\.3\.1 .*4 slices.*thin.*1\.2\.3\.2 .*2 slices.*thick")
    assert len(read_dicom_series(tmp_path / "scan", series_uid="1.2.3.2")) == 2
    refuse(tmp_path / "scan", r"(?s)no CT series 9\.9; it has.*1\.2\.3\.2", series_uid="9.9")


@pytest.mark.parametrize("alone", [True, False])
def test_localizer(tmp_path: Path, make_series: MakeSeries, alone: bool) -> None:
    if not alone:
        make_series(tmp_path / "scan")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.7"}
    make_series(tmp_path / "scan" / "scout", z=(0.0,), **scout)
    refuse(tmp_path / "scan", "localizer", series_uid=None if alone else "1.2.3.7")


def test_missing_slice(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", z=(0.0, 2.5, 10.0, 12.5, 15.0))
    refuse(tmp_path / "scan", r"2 slice\(s\) missing between .* at 2\.50 mm and .* at 10\.00 mm")
    assert len(read_dicom_series(tmp_path / "scan", allow_gaps=True)) == 5


def test_unequal_spacing(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", z=(0.0, 2.5, 5.0, 8.5))
    refuse(tmp_path / "scan", r"not equally spaced: 3\.500 mm")


def test_duplicates(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan")
    before = read_dicom_series(tmp_path / "scan")
    shutil.copy(paths[0], tmp_path / "scan" / "copy.dcm")
    series = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(series.hu, before.hu)
    assert series.notes == ("left out 1 identical copy of a slice: copy.dcm",)
    other = pydicom.dcmread(paths[0])
    other.PixelData = bytes(512)
    other.save_as(tmp_path / "scan" / "copy.dcm")
    refuse(tmp_path / "scan", "same slice is there 2 times with different content: .*copy.dcm.*remove")
    make_series(tmp_path / "phases", z=(0.0, 2.5, 2.5, 5.0))
    refuse(tmp_path / "phases", r"same place \(2\.50 mm\)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PixelSpacing", [0.9, 0.9]),
        ("ImageOrientationPatient", [0, 1, 0, -1, 0, 0]),
        ("Columns", 8),
    ],
)
def test_slices_that_differ(tmp_path: Path, make_series: MakeSeries, name: str, value: Any) -> None:
    make_series(tmp_path / "scan")
    path = tmp_path / "scan" / "008.dcm"
    dataset = pydicom.dcmread(path)
    setattr(dataset, name, value)
    dataset.save_as(path)
    refuse(tmp_path / "scan", f"{name} differs within the series: .*008.dcm")


def test_sideways_shift(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", each_ImagePositionPatient=[[0, 0, 0], [0, 0, 2.5], [4, 0, 5], [0, 0, 7.5]])
    refuse(tmp_path / "scan", r"shifted sideways by up to 4\.0 mm")


def test_coronal_slices(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", z=(0.0,), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    refuse(tmp_path / "scan", "not axial")


def test_damaged_orientation(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "a", z=(0.0,), ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    refuse(tmp_path / "a", "unit vectors")
    make_series(tmp_path / "b", z=(0.0,), ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])
    refuse(tmp_path / "b", "not perpendicular")


def test_multi_frame(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "a", z=(0.0,), SOPClassUID=EnhancedCTImageStorage)
    refuse(tmp_path / "a", "says that it holds 1 frames and describes 0")
    make_series(tmp_path / "b", z=(0.0,), NumberOfFrames=3)
    refuse(tmp_path / "b", "holds several frames without saying where they lie")


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "PixelSpacing"])
def test_missing_attributes(tmp_path: Path, make_series: MakeSeries, name: str) -> None:
    make_series(tmp_path / "scan")
    path = tmp_path / "scan" / "008.dcm"
    dataset = pydicom.dcmread(path)
    delattr(dataset, name)
    dataset.save_as(path)
    refuse(tmp_path / "scan", f"008.dcm: it lacks {name}")


def test_values_that_are_not_hu(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "a", RescaleType="Z_EFF")
    refuse(tmp_path / "a", "Z_EFF values, not HU")
    make_series(tmp_path / "b", z=(0.0,), RescaleSlope=0, PixelData=b"\0" * 512)
    refuse(tmp_path / "b", "RescaleSlope")
    make_series(tmp_path / "c", z=(0.0,), SamplesPerPixel=3)
    refuse(tmp_path / "c", "colour")


def test_nan_in_the_rescale(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    raw = path.read_bytes()
    place = raw.index(b"-1024.0 ", raw.index(b"\x28\x00\x52\x10"))
    path.write_bytes(raw[:place] + b"nan     " + raw[place + 8 :])
    refuse(tmp_path / "scan", "RescaleIntercept must be 1 finite number")


def test_nan_in_float_pixels(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    dataset = pydicom.dcmread(path)
    pixels = np.zeros((16, 16), "<f4")
    pixels[3, 4] = np.nan
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated, dataset.FloatPixelData = 32, pixels.tobytes()
    dataset.save_as(path)
    refuse(tmp_path / "scan", "not finite")


@pytest.mark.parametrize("kept", [300, 0])
def test_truncated_file(tmp_path: Path, make_series: MakeSeries, kept: int) -> None:
    paths = make_series(tmp_path / "scan")
    raw = paths[1].read_bytes()
    paths[1].write_bytes(raw[: len(raw) - 512 + kept])
    refuse(tmp_path / "scan", "008.dcm.*(cut off|no pixel data)")


def test_no_pixel_data(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", z=(0.0,), PixelData=None, SOPInstanceUID=generate_uid())
    refuse(tmp_path / "scan", "no pixel data")
