"""Both sides of each bound on stored pixels, members of archives and single files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from deft_ct.io import sample
from deft_ct.io.dicom_checks import check_slice
from deft_ct.io.dicom_files import DicomFile, DicomSeriesError, find_series
from deft_ct.io.dicom_pixels import read_hu
from deft_ct.io.dicom_read import read_dicom_series
from deft_ct.io.errors import ReadError

MakeSeries = Callable[..., list[Path]]
TINY = 0.02  # beside a bound, in parts of it


@pytest.fixture
def hu_of(tmp_path: Path, make_slice: Callable[..., Dataset]) -> Callable[..., np.ndarray]:
    """CT numbers of a slice with stored values and changed attributes."""

    def read(stored: np.ndarray, *, extra: int = 0, **changes: Any) -> np.ndarray:
        kind = "<i2" if changes.get("PixelRepresentation") else "<u2"
        pixels = stored.astype(kind).tobytes()
        content = pixels[:extra] if extra < 0 else pixels + bytes(extra)
        make_slice(np.zeros(stored.shape), PixelData=content, **changes).save_as(
            tmp_path / "x.dcm", enforce_file_format=True
        )
        header = pydicom.dcmread(tmp_path / "x.dcm", stop_before_pixels=True)
        return read_hu(DicomFile(tmp_path / "x.dcm", None, header)).hu

    return read


def test_a_row_of_bytes_too_many_is_no_padding(hu_of: Callable[..., np.ndarray]) -> None:
    stored = np.full((4, 6), 1024)
    assert hu_of(stored).max() == 0 and hu_of(stored, extra=10).max() == 0
    with pytest.raises(DicomSeriesError, match="60 bytes of pixel data where 4 x 6 pixels take 48"):
        hu_of(stored, extra=12)
    with pytest.raises(DicomSeriesError, match="it holds 46 of 48 bytes"):
        hu_of(stored, extra=-2)
    assert hu_of(np.full((4, 1), 1024)).max() == 0
    with pytest.raises(DicomSeriesError, match="10 bytes of pixel data where 4 x 1 pixels take 8"):
        hu_of(np.full((4, 1), 1024), extra=2)


def test_padding_and_its_range(hu_of: Callable[..., np.ndarray]) -> None:
    stored = np.arange(2000, 2008).reshape(2, 4)
    hu = stored - 1024.0
    for limit, padded in ((None, [3]), (2005, [3, 4, 5]), (2002, [2, 3])):
        expected = hu.copy()
        expected.ravel()[padded] = -1024
        found = hu_of(stored, PixelPaddingValue=2003, PixelPaddingRangeLimit=limit)
        np.testing.assert_array_equal(found, expected)


def test_values_from_air_to_a_million(hu_of: Callable[..., np.ndarray]) -> None:
    found = hu_of(np.array([[0, 1, 2]]), RescaleSlope=0.5, RescaleIntercept=-1024.5)
    assert found.tolist() == [[-1024, -1024, -1023.5]]
    assert hu_of(np.array([[0, 50000]]), RescaleSlope=20, RescaleIntercept=0).max() == 1e6
    with pytest.raises(DicomSeriesError, match=r"holds a value of 1\.00002e"):
        hu_of(np.array([[0, 50001]]), RescaleSlope=20, RescaleIntercept=0)


@pytest.mark.parametrize(("levels", "sound"), [(30, True), (31, False)])
def test_sequences_may_be_nested_31_times(
    tmp_path: Path, make_slice: Callable[..., Dataset], levels: int, sound: bool
) -> None:
    inner = Dataset()
    for _ in range(levels):
        outer = Dataset()
        outer.ReferencedImageSequence = DicomSequence([inner])
        inner = outer
    one = make_slice(np.zeros((4, 4)), ReferencedImageSequence=DicomSequence([inner]) if levels else None)
    one.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    if sound:
        assert len(read_dicom_series(tmp_path / "x.dcm")) == 1
    else:
        with pytest.raises(ReadError, match="nested deeper than 32 levels"):
            read_dicom_series(tmp_path / "x.dcm")


def test_members_know_their_names_and_sizes(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan", z=(0.0, 2.5))
    target = tmp_path / "scan.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("in/a.dcm", "in/.b.dcm", "__MACOSX/c.dcm", "in/DICOMDIR", "in/notes.txt"):
            archive.writestr(name, "hello" if name.endswith("txt") else paths[name.startswith("in/.")].read_bytes())
    found = find_series(target)
    (file,) = found.series["1.2.3.1"]
    assert (file.name, file.stored) == ("in/a.dcm", zipfile.ZipFile(target).getinfo("in/a.dcm").compress_size)
    assert found.not_dicom == ["in/notes.txt"] and not found.damaged and not found.others
    assert str(file.refused("why")) == f"{target}: member in/a.dcm: why"
    (plain,) = find_series(paths[0]).series["1.2.3.1"]
    assert plain.stored == paths[0].stat().st_size and str(plain.refused("why")) == f"{paths[0]}: why"


def test_a_slice_that_declares_too_much_is_named(tmp_path: Path, make_slice: Callable[..., Dataset]) -> None:
    (tmp_path / "x").touch()
    header = make_slice(np.zeros((4, 4)))
    header.Rows = header.Columns = 2**13
    check_slice(DicomFile(tmp_path / "x", None, header))  # 256 MiB are read however they are stored
    header.Rows += 1
    with pytest.raises(ReadError, match=r"x: it declares 8193 x 8192 pixels of 256\.0 MiB but stores 0 bytes"):
        check_slice(DicomFile(tmp_path / "x", None, header))


def test_a_value_of_the_wrong_kind_names_the_member(tmp_path: Path, make_slice: Callable[..., Dataset]) -> None:
    header = make_slice(np.zeros((4, 4)))
    header.add_new("PixelSpacing", "LO", "wide")
    (tmp_path / "x").touch()
    for member, part in ((None, ""), (zipfile.ZipInfo("in/a.dcm"), "member in/a.dcm: ")):
        with pytest.raises(ReadError, match=f"x: {part}it cannot be read as a CT image"):
            check_slice(DicomFile(tmp_path / "x", member, header))


def test_a_single_file_is_what_its_beginning_says(tmp_path: Path, make_slice: Callable[..., Dataset]) -> None:
    """An archive inside a DICOM file is not opened; what is neither DICOM nor an archive is said to be no DICOM."""
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("a.dcm", "other")
    both = make_slice(np.full((4, 4), 7.0), DataSetTrailingPadding=inside.getvalue())
    both.save_as(tmp_path / "both", enforce_file_format=True)
    assert zipfile.is_zipfile(tmp_path / "both")
    assert read_dicom_series(tmp_path / "both").hu.max() == 7
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DicomSeriesError, match=r"it holds 1 file\(s\), none of them DICOM \(text\)"):
        read_dicom_series(tmp_path / "text")


def test_three_files_are_named_where_none_is_dicom(tmp_path: Path) -> None:
    for name in ("d", "b.dcm", "c", "a"):
        (tmp_path / name).write_text("hello")
    with pytest.raises(
        DicomSeriesError, match=r"it holds 4 file\(s\), none of them DICOM \(a, b\.dcm, c\); name a folder"
    ):
        read_dicom_series(tmp_path)


def test_an_installation_without_the_sample_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "files", lambda package: tmp_path / package)
    with pytest.raises(FileNotFoundError, match=r"the sample series is missing .*; install deft-ct again"):
        sample.sample_series_path()
    (tmp_path / "deft_ct" / "assets" / "sample_series" / "LIDC-IDRI-0314").mkdir(parents=True)
    assert sample.sample_series_path().name == "LIDC-IDRI-0314"


@pytest.mark.parametrize(("bits", "kind"), [(8, "u1"), (16, "<u2"), (32, "<u4"), (32, "<f4"), (64, "<f8")])
def test_pixels_of_each_width(tmp_path: Path, make_slice: Callable[..., Dataset], bits: int, kind: str) -> None:
    stored = np.array([[0, 1, 2, 100], [3, 4, 5, 200]], kind)
    one = make_slice(np.zeros((2, 4)), BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, RescaleIntercept=-7)
    if "f" in kind:
        del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
        setattr(one, "FloatPixelData" if bits == 32 else "DoubleFloatPixelData", stored.tobytes())
    else:
        one.PixelData = stored.tobytes()
        one["PixelData"].VR = "OW"
    one.save_as(tmp_path / "x", enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "x").hu[0], stored.astype(np.float32) - 7)
    one.BitsAllocated = 24
    one.save_as(tmp_path / "x", enforce_file_format=True)
    with pytest.raises(ReadError, match="2 x 4 pixels of 24 bits are no CT image"):
        read_dicom_series(tmp_path / "x")


@pytest.mark.parametrize("packed", [False, True])
def test_a_value_that_is_missing_names_the_member(
    tmp_path: Path, make_slice: Callable[..., Dataset], packed: bool
) -> None:
    one = make_slice(np.zeros((4, 4)))
    del one.RescaleSlope
    one.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    source = tmp_path / "a.dcm"
    if packed:
        source = tmp_path / "x.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(tmp_path / "a.dcm", "in/a.dcm")
    (file,) = find_series(source).series["1.2.3.1"]
    with pytest.raises(ReadError) as caught:
        read_hu(file)
    assert caught.value.problem.startswith(f"{'member in/a.dcm: ' if packed else ''}it cannot be read as a CT image")
