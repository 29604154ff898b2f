"""A DICOMDIR stands for the files that it references, and for no others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.fileset import FileSet

from deft_ct.io import read_dicom_series
from deft_ct.io.dicom_directory import references
from deft_ct.io.errors import ReadError

MakeSeries = Callable[..., list[Path]]


@pytest.fixture
def medium(tmp_path: Path, make_series: MakeSeries) -> Path:
    """A file-set that pydicom wrote: two series of one patient, and a file of another patient that is not in it."""
    common = {"PatientID": "A", "StudyDate": "20200101", "StudyTime": "10", "StudyID": "1", "AccessionNumber": ""}
    files = FileSet()
    for uid, number in (("1.2.3.1", 1), ("1.2.3.2", 2)):
        for path in make_series(tmp_path / uid, z=(0.0, 2.5), SeriesInstanceUID=uid, SeriesNumber=number, **common):
            files.add(path)
    files.write(tmp_path / "medium")
    files._stage["t"].cleanup()  # type: ignore[attr-defined]  # else it warns when it is collected
    make_series(tmp_path / "medium" / "other", SeriesInstanceUID="1.2.3.9", PatientID="B", StudyInstanceUID="1.9")
    return tmp_path / "medium" / "DICOMDIR"


def change(path: Path, name: str, value: object, record: str = "IMAGE") -> None:
    dataset = pydicom.dcmread(path)
    first = next(item for item in dataset.DirectoryRecordSequence if item.DirectoryRecordType == record)
    with disable_value_validation():
        setattr(first, name, value)
        dataset.save_as(path)


def test_only_what_it_references_is_read(medium: Path, phantom: np.ndarray) -> None:
    with pytest.raises(ReadError, match="it holds 2 CT series") as caught:
        read_dicom_series(medium)
    assert "1.2.3.9" not in str(caught.value)
    series = read_dicom_series(medium, series_uid="1.2.3.2")
    assert len(series) == 2 and {h.PatientID for h in series.headers} == {"A"}
    np.testing.assert_array_equal(series.hu, phantom[:2])
    with pytest.raises(ReadError, match=r"no CT series 1\.2\.3\.9"):
        read_dicom_series(medium, series_uid="1.2.3.9")
    assert len(read_dicom_series(medium.parent, series_uid="1.2.3.9")) == 4, "the folder is the folder"


def test_names_in_lower_case(medium: Path) -> None:
    for path in sorted(medium.parent.rglob("*"), reverse=True):
        path.rename(path.with_name(path.name.lower()))
    assert len(read_dicom_series(medium.with_name("dicomdir"), series_uid="1.2.3.1")) == 2


def test_a_file_that_is_not_there_ends_its_series_only(medium: Path) -> None:
    dataset = pydicom.dcmread(medium)
    images = [item for item in dataset.DirectoryRecordSequence if item.DirectoryRecordType == "IMAGE"]
    gone = medium.parent.joinpath(*images[0].ReferencedFileID)
    uid = str(pydicom.dcmread(gone).SeriesInstanceUID)
    gone.unlink()
    with pytest.raises(ReadError, match="which is not there; copy the whole medium again"):
        read_dicom_series(medium, series_uid=uid)
    other = {"1.2.3.1": "1.2.3.2", "1.2.3.2": "1.2.3.1"}[uid]
    assert len(read_dicom_series(medium, series_uid=other)) == 2


def test_records_that_are_not_in_use(medium: Path) -> None:
    change(medium, "RecordInUseFlag", 0)
    counts = sorted(len(read_dicom_series(medium, series_uid=uid)) for uid in ("1.2.3.1", "1.2.3.2"))
    assert counts == [1, 2]


@pytest.mark.parametrize("value", [["..", "secret"], ["a/../../secret"], ["link", "secret"]])
def test_files_outside_are_refused(medium: Path, value: list[str]) -> None:
    outside = medium.parent.parent / "outside"
    outside.mkdir()
    shutil.copy(next(medium.parent.glob("other/*.dcm")), outside / "secret")
    shutil.copy(outside / "secret", medium.parent.parent / "secret")
    (medium.parent / "link").symlink_to(outside)
    change(medium, "ReferencedFileID", value)
    with pytest.raises(ReadError, match="which lies outside its folder"):
        read_dicom_series(medium)


def test_records_in_a_circle_end(medium: Path) -> None:
    dataset = pydicom.dcmread(medium)
    for item in dataset.DirectoryRecordSequence:
        item.OffsetOfTheNextDirectoryRecord = dataset.DirectoryRecordSequence[0].seq_item_tell
    dataset.save_as(medium)
    assert len(read_dicom_series(medium, series_uid="1.2.3.1")) == 2


def test_no_directory(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path, z=(0.0,))
    path.rename(tmp_path / "DICOMDIR")
    with pytest.raises(ReadError, match="references no files"):
        read_dicom_series(tmp_path / "DICOMDIR")
    (tmp_path / "DICOMDIR").write_text("hello")
    with pytest.raises(ReadError, match="is no DICOMDIR"):
        read_dicom_series(tmp_path / "DICOMDIR")


def test_every_reference_knows_its_series(medium: Path) -> None:
    """The records of images hang below that of their series, one after the other."""
    found = references(medium, pydicom.dcmread(medium))
    assert len(found) == 4 and len({one.path for one in found}) == 4
    for one in found:
        assert one.path is not None and one.series_uid == str(pydicom.dcmread(one.path).SeriesInstanceUID)
        assert one.path == medium.parent / one.name
    assert sorted(str(one.series_uid) for one in found) == ["1.2.3.1"] * 2 + ["1.2.3.2"] * 2
