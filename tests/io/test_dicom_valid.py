"""Invalid dates and UIDs of a source are not copied into what is derived from it; valid ones are."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from derived import Result
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from deft_ct.io import DicomOptions, Series, read_dicom_series, sample_series_path, write_dicom_series
from deft_ct.io.dicom_valid import drop_invalid

MakeSeries = Callable[..., list[Path]]
WHEN = datetime(2024, 5, 6, 7, 8, 9)
DCIODVFY = shutil.which("dciodvfy")
BAD = {
    "StudyDate": "20201301", "StudyTime": "256199", "AcquisitionDate": "2020-01-02", "PatientBirthDate": "unknown",
    "AcquisitionDateTime": "yesterday", "StudyInstanceUID": "STUDY-1", "SeriesInstanceUID": "1.02.3",
    "FrameOfReferenceUID": "1..2", "ConcatenationUID": "1.2.3.", "InstanceCreationDate": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("StudyDate", ["20200229", ""], ["20210229", "20201301", "2020.01.02", "2020", "unknown"]),
        ("StudyTime", ["07", "0708", "070809", "070809.123456", ""], ["7", "25", "07:08:09", "076109", "070809."]),
        ("AcquisitionDateTime", ["2020", "20200229", "20200102030405.5+0100", ""], ["20211301", "now", "2020-01-02"]),
        ("StudyInstanceUID", ["1.2.3", "2.25.1", ""], ["1.02", "STUDY", "1..2", "1." * 40 + "1", "1.2."]),
    ],
)
def test_what_is_valid(name: str, valid: list[str], invalid: list[str]) -> None:
    for values, stays in ((valid, True), (invalid, False)):
        for value in values:
            dataset = Dataset()
            with pydicom.config.disable_value_validation():
                setattr(dataset, name, value)
            item = Dataset()
            item.update(dataset)
            dataset.ReferencedSeriesSequence = Sequence([item])
            drop_invalid(dataset)
            assert (name in dataset) == (name in dataset.ReferencedSeriesSequence[0]) == stays, value


def test_one_invalid_value_of_several_makes_all_invalid() -> None:
    dataset = Dataset()
    with pydicom.config.disable_value_validation():
        dataset.DateOfSecondaryCapture = "20200101"
        dataset.CalibrationDate = ["20200101", "20201301"]
    drop_invalid(dataset)
    assert "DateOfSecondaryCapture" in dataset and "CalibrationDate" not in dataset


def _written(folder: Path, series: Series, result: Result, **options: Any) -> list[Dataset]:
    write_dicom_series(result, like=series, folder=folder, options=DicomOptions(created=WHEN, **options))
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


def _all_values(dataset: Dataset, vr: str) -> list[tuple[str, str]]:
    found = [(e.keyword, str(e.value)) for e in dataset if vr == e.VR and e.value]
    return found + [pair for e in dataset if e.VR == "SQ" for item in e.value for pair in _all_values(item, vr)]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.filterwarnings("ignore:The value length")
def test_nothing_invalid_is_copied(tmp_path: Path, make_series: MakeSeries, result: Result) -> None:
    pytest.importorskip("highdicom")
    for path in make_series(tmp_path / "scan", PatientID="P1"):
        dataset = pydicom.dcmread(path)
        for name, value in BAD.items():
            dataset[name] = pydicom.DataElement(name, dataset[name].VR if name in dataset else _vr(name), value)
        old = Dataset()
        old.ContributionDateTime, old.Manufacturer = "yesterday", "ACME"
        dataset.ContributingEquipmentSequence = Sequence([old])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"slice-{path.stem}"
        dataset.save_as(path)
    series = read_dicom_series(tmp_path / "scan")
    images = _written(tmp_path / "out", series, result, parametric_map=True)
    assert len(images) == 2 * len(series) + 1
    for image in images:
        text = repr(image)
        assert [value for value in BAD.values() if len(value) > 1 and value in text] == [] and "slice-" not in text
        for vr in ("UI", "DA", "TM", "DT"):
            for name, value in _all_values(image, vr):
                assert UID(value).is_valid if vr == "UI" else value.strip("0123456789.") == "", (name, value)
        assert image.PatientID == "P1" and image.StudyDate in ("", None) and "StudyDate" in image
    assert len({image.StudyInstanceUID for image in images}) == 1, "one study, as before"
    assert len({image.FrameOfReferenceUID for image in images}) == 1
    assert "ACME" in repr(images[0].ContributingEquipmentSequence[0])
    again = _written(tmp_path / "again", series, result, parametric_map=True)
    assert [image.SOPInstanceUID for image in images] == [image.SOPInstanceUID for image in again]


def _vr(name: str) -> str:
    return pydicom.datadict.dictionary_VR(name)


def test_what_is_valid_is_copied(tmp_path: Path, series: Series, result: Result) -> None:
    header = series.headers[0]
    header.StudyDate, header.StudyTime = "20200102", "030405"
    image = _written(tmp_path / "out", series, result)[0]
    assert (image.StudyDate, image.StudyTime) == ("20200102", "030405")
    assert image.StudyInstanceUID == header.StudyInstanceUID
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


@pytest.mark.skipif(DCIODVFY is None, reason="dciodvfy of dicom3tools is not installed")
@pytest.mark.parametrize("deidentify", [False, True])
def test_dciodvfy_finds_no_error(deidentify: bool, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    if deidentify:
        pytest.importorskip("dicomanonymizer")
    series = read_dicom_series(sample_series_path()).slices(0, 2).resampled(8)
    mean = series.attenuation()
    options = DicomOptions(parametric_map=True, deidentify=deidentify)
    write_dicom_series(Result(mean, 0.01 * mean.abs()), like=series, folder=tmp_path / "out", options=options)
    files = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(files) == 5 and DCIODVFY is not None
    for path in files:
        said = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == [], path.name
