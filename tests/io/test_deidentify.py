"""What identifies the patient leaves no trace in derived DICOM objects, at any depth, and the images stay the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, CTImageStorage

from deft_ct.io import DicomOptions, Series, read_dicom_series, sample_series_path, write_dicom_series
from deft_ct.io import deidentify as module
from deft_ct.io.deidentify import STATEMENTS, deidentified
from deft_ct.io.dicom_write import check_derivable
from deft_ct.io.errors import ReadError

MakeSeries = Callable[..., list[Path]]
SECRETS = (
    "Doe^Jane", "MRN-4711", "19610203", "20240102", "131415", "ACC-99", "Seaside", "Dr^Strange", "SN-0815", "Follow-up",
    "1.2.3.77", "1.2.3.1", "1.2.3.9", "1.2.3.400", "1.2.3.500", "alias-one", "private-secret", "042Y", "nested-secret",
    "STATION-7", "overlay-secret",
)  # fmt: skip
"""Every one of these is in :func:`source_files`, and none may be in what is derived."""


@pytest.fixture(autouse=True)
def table() -> None:
    pytest.importorskip("dicomanonymizer")


def item(**attributes: object) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def attributes_of_a_hospital() -> dict[str, object]:
    deep = item(
        InstitutionName="nested-secret", ReferencedSOPInstanceUID="1.2.3.400", ReferencedSOPClassUID=CTImageStorage,
        OtherPatientNames="alias-one", StudyDate="20240102",
    )  # fmt: skip
    deep.private_block(0x0011, "VENDOR", create=True).add_new(0x01, "LO", "private-secret")
    history = item(Manufacturer="Vendor", InstitutionName="Seaside", StationName="STATION-7", DeviceUID="1.2.3.500")
    history.PurposeOfReferenceCodeSequence = [item(CodeValue="109101", PatientComments="nested-secret")]
    exposure = item(KVP="120", DetectorID="SN-0815")
    exposure.ReferencedInstanceSequence = [deep]
    return {
        "PatientName": "Doe^Jane", "PatientID": "MRN-4711", "PatientBirthDate": "19610203", "PatientAge": "042Y",
        "PatientSex": "F", "OtherPatientIDsSequence": [item(PatientID="alias-one")], "StudyDate": "20240102",
        "SeriesDate": "20240102", "AcquisitionDate": "20240102", "AcquisitionTime": "131415", "StudyTime": "131415",
        "AcquisitionDateTime": "20240102131415", "AccessionNumber": "ACC-99", "StudyID": "ACC-99",
        "InstitutionName": "Seaside", "ReferringPhysicianName": "Dr^Strange", "OperatorsName": "Dr^Strange",
        "DeviceSerialNumber": "SN-0815", "StationName": "STATION-7", "ProtocolName": "Follow-up Doe^Jane",
        "StudyDescription": "Follow-up", "SeriesDescription": "Follow-up", "ImageComments": "Doe^Jane",
        "RequestAttributesSequence": [item(RequestedProcedureID="ACC-99")], "StudyInstanceUID": "1.2.3.77",
        "ContributingEquipmentSequence": [history], "CTExposureSequence": [exposure],
        "IrradiationEventUID": ["1.2.3.400", "1.2.3.500"], "KVP": "120", "SeriesNumber": 3,
        "DeidentificationMethod": "none for Doe^Jane", "ContrastBolusAgent": "Follow-up",
    }  # fmt: skip


def source_files(folder: Path, make_series: MakeSeries, **changes: object) -> Series:
    for path in make_series(folder, **(attributes_of_a_hospital() | changes)):
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x0029, "VENDOR", create=True).add_new(0x10, "LO", "private-secret")
        dataset.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", "private-secret")
        dataset.add_new(0x60004000, "LT", "overlay-secret")
        dataset.save_as(path)
    return read_dicom_series(folder)


@pytest.fixture
def series(tmp_path: Path, make_series: MakeSeries) -> Series:
    return source_files(tmp_path / "scan", make_series)


def datasets(dataset: Dataset) -> Iterator[Dataset]:
    """The dataset and all that are nested in it."""
    yield dataset
    for element in dataset:
        for one in element.value if element.VR == "SQ" else ():
            yield from datasets(one)


def assert_clean(path: Path, series: Series) -> Dataset:
    content = path.read_bytes()
    for secret in (*SECRETS, *series.slice_uids):
        assert secret.encode() not in content, f"{path.name} holds {secret}"
    image = pydicom.dcmread(path)
    assert not [e for one in datasets(image) for e in one if e.tag.is_private]
    return image


def test_the_source_holds_every_secret(series: Series, tmp_path: Path) -> None:
    content = next((tmp_path / "scan").iterdir()).read_bytes()
    assert [secret for secret in SECRETS if secret.encode() not in content] == []


def test_derived_series_hold_no_secret_at_any_depth(series: Series, tmp_path: Path) -> None:
    result = result_of(series)
    written = write_dicom_series(result, like=series, folder=tmp_path / "out", options=DicomOptions(deidentify=True))
    assert len(written.mean) == len(written.spread) == len(series)
    for path in (*written.mean, *written.spread):
        image = assert_clean(path, series)
        assert image.PatientIdentityRemoved == "YES" and image.LongitudinalTemporalInformationModified == "REMOVED"
        assert "PS3.15" in image.DeidentificationMethod and len(image.DeidentificationMethod) <= 64
        (code,) = image.DeidentificationMethodCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
        # X, Z and D of the table, and what it does not list.
        assert "PatientAge" not in image and "StudyDescription" not in image
        assert image.PatientName == "" and image.StudyDate == "" and image.AccessionNumber == ""
        assert str(image.PatientID).startswith("ANON") and image.ContentDate == "19000101"
        assert image.KVP == 120 and image.SeriesDescription.endswith("NOT FOR CLINICAL USE")
        assert len(image.ContributingEquipmentSequence) == 2 and image.CTExposureSequence[0].KVP == 120
        reference = image.CTExposureSequence[0].ReferencedInstanceSequence[0]
        assert reference.ReferencedSOPClassUID == CTImageStorage, "classes are no identities"
        assert reference.ReferencedSOPInstanceUID == image.IrradiationEventUID[0], "equal UIDs stay equal"
    # They pass what every derived series passes, and the pixels and the geometry are those without the option.
    write_dicom_series(result, like=series, folder=tmp_path / "plain")
    for name in ("mean", "spread"):
        clean, plain = (read_dicom_series(tmp_path / folder / name) for folder in ("out", "plain"))
        np.testing.assert_array_equal(clean.hu, plain.hu)
        np.testing.assert_array_equal(clean.volume.affine, plain.volume.affine)
        check_derivable(clean)


@pytest.mark.parametrize("kind", ["hash", "random"])
def test_relations_between_objects_stay(series: Series, tmp_path: Path, kind: str) -> None:
    options = DicomOptions(deidentify=True, uids=kind)  # type: ignore[arg-type]
    write_dicom_series(result_of(series), like=series, folder=tmp_path / "out", options=options)
    mean, spread = (read_dicom_series(tmp_path / "out" / name) for name in ("mean", "spread"))
    assert len({h.StudyInstanceUID for s in (mean, spread) for h in s.headers}) == 1
    assert len({h.FrameOfReferenceUID for s in (mean, spread) for h in s.headers}) == 1
    sources = [[h.SourceImageSequence[0].ReferencedSOPInstanceUID for h in s.headers] for s in (mean, spread)]
    assert sources[0] == sources[1] and len(set(sources[0])) == len(series)
    assert all(UID(uid).is_valid for uid in (*sources[0], mean.headers[0].StudyInstanceUID, *mean.slice_uids))
    assert not {mean.series_uid, *mean.slice_uids} & {spread.series_uid, *spread.slice_uids}


def test_every_run_has_another_key_and_leaves_the_source_alone(series: Series) -> None:
    before = [header.to_json() for header in series.headers]
    one, two = deidentified(series), deidentified(series)
    assert [header.to_json() for header in series.headers] == before
    assert not {one.series_uid, *one.slice_uids} & {two.series_uid, *two.slice_uids}
    assert one.headers[0].PatientID != two.headers[0].PatientID
    assert len({header.StudyInstanceUID for header in one.headers}) == 1
    assert one.notes == () and one.hu is series.hu


def test_unlisted_instance_uids_and_unknown_attributes_go_too(series: Series) -> None:
    header = series.headers[0]
    header.add_new(0x0008001A, "UI", ["1.2.3.77", CTImageStorage])  # RelatedGeneralSOPClassUID: not in the table
    header.add_new(0x00081234, "LO", "in no dictionary")
    header.add_new(0x00181030, "UN", b"of unknown kind")
    header.add_new("CTExposureSequence", "SQ", [])
    header["CTExposureSequence"].VR = "UN"  # as pydicom leaves values of 64 KiB and more
    (clean, *_) = deidentified(series).headers
    assert clean[0x0008001A].value[0] == clean.StudyInstanceUID and clean[0x0008001A].value[1] == CTImageStorage
    assert 0x00081234 not in clean and "CTExposureSequence" not in clean and str(clean.ProtocolName).startswith("ANON")


def test_real_series(tmp_path: Path) -> None:
    series = read_dicom_series(sample_series_path()).slices(0, 2).resampled(4)
    options = DicomOptions(deidentify=True)
    written = write_dicom_series(series.hu, like=series, folder=tmp_path / "out", options=options)
    for path, header in zip(written.mean, series.headers, strict=True):
        content = path.read_bytes()
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PatientID"):
            assert str(header[name].value).encode() not in content, name
        assert b"LIDC" not in content
    np.testing.assert_allclose(read_dicom_series(tmp_path / "out").hu, series.hu, atol=0.5)


def test_parametric_map(series: Series, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    options = DicomOptions(deidentify=True, parametric_map=True)
    written = write_dicom_series(result_of(series), like=series, folder=tmp_path / "out", options=options)
    assert written.parametric_map is not None
    image = assert_clean(written.parametric_map, series)
    assert all(name in image for name in STATEMENTS)
    mean = pydicom.dcmread(written.mean[0])
    assert image.StudyInstanceUID == mean.StudyInstanceUID and image.PatientID == mean.PatientID
    assert image.ContentDate == image.SeriesDate == "19000101"


# --- text in the pixels -------------------------------------------------------------------------------------------


def test_text_in_the_pixels_is_refused_unless_allowed(tmp_path: Path, make_series: MakeSeries) -> None:
    series = source_files(tmp_path / "scan", make_series, each_BurnedInAnnotation=["NO", "NO", "YES", "NO"])
    with pytest.raises(ReadError, match=r"BurnedInAnnotation is YES.*--allow-burned-in") as refused:
        check_derivable(series, DicomOptions(deidentify=True))
    assert Path(refused.value.path).parent == tmp_path / "scan" and "\n" not in str(refused.value)
    with pytest.raises(ReadError, match="BurnedInAnnotation"):
        write_dicom_series(series.hu, like=series, folder=tmp_path / "out", options=DicomOptions(deidentify=True))
    assert not (tmp_path / "out").exists()
    options = DicomOptions(deidentify=True, allow_burned_in=True)
    written = write_dicom_series(series.hu, like=series, folder=tmp_path / "out", options=options)
    found = [str(assert_clean(path, series).BurnedInAnnotation) for path in written.mean]
    assert [value.upper() for value in found] == ["NO", "NO", "YES", "NO"], "it is still said"


# --- what is missing or damaged ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["dicomanonymizer", "table"])
def test_a_missing_package_names_the_extra(
    missing: str, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module._table.cache_clear()
    if missing == "table":
        monkeypatch.setattr(module, "_TABLE", "dicomfields_of_tomorrow")
    else:
        for name in [n for n in sys.modules if n.split(".")[0] == "dicomanonymizer"]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "dicomanonymizer", None)
    with pytest.raises(ImportError, match=r"deft-ct\[deidentify\]"):
        write_dicom_series(series.hu, like=series, folder=tmp_path / "out", options=DicomOptions(deidentify=True))
    assert not (tmp_path / "out").exists()


def test_bottomless_sequences_are_one_error(series: Series) -> None:
    nested = Dataset()
    for _ in range(3000):
        nested = item(ReferencedInstanceSequence=DicomSequence([nested]))
    header = Dataset()
    header.update(series.headers[0])
    header.CTExposureSequence = DicomSequence([nested])
    with pytest.raises(ReadError, match="nested deeper"):
        deidentified(replace(series, headers=(header, *series.headers[1:])))


def result_of(series: Series) -> Result:
    spread = torch.linspace(0, 200, series.hu.size).reshape(len(series), 1, *series.image_shape) * series.units.scale
    return Result(series.attenuation(), spread)


class Result:
    """What every reconstructor returns: mean and spread in 1/mm."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.mean, self.std = mean, std
