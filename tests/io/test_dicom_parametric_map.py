"""The posterior standard deviation as a DICOM Parametric Map."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from derived import Result, names
from pydicom.uid import ParametricMapStorage

from deft_ct.io import DicomOptions, Series, read_dicom_series, write_dicom_series
from deft_ct.io.dicom_write import check_derivable

MakeSeries = Callable[..., list[Path]]
WHEN = datetime(2024, 5, 6, 7, 8, 9)


def test_parametric_map(tmp_path: Path, series: Series, result: Result) -> None:
    pytest.importorskip("highdicom")
    options = DicomOptions(parametric_map=True, created=WHEN)
    written = write_dicom_series(result, like=series, folder=tmp_path / "out", options=options)
    assert written.parametric_map is not None
    image = pydicom.dcmread(written.parametric_map)
    assert image.SOPClassUID == ParametricMapStorage and image.ContentQualification == "RESEARCH"
    assert image.StudyInstanceUID == series.headers[0].StudyInstanceUID
    assert result.std is not None
    spread = (result.std[:, 0] / series.units.scale).numpy()
    positions = [f.PlanePositionSequence[0].ImagePositionPatient for f in image.PerFrameFunctionalGroupsSequence]
    assert sorted(float(p[2]) for p in positions) == [0, 2.5, 5, 7.5]
    for frame, position in zip(image.pixel_array, positions, strict=True):  # highdicom chooses the order of frames
        np.testing.assert_allclose(frame, spread[round(float(position[2]) / 2.5)], rtol=1e-6)
    value = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert value.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"


def test_what_a_parametric_map_says_of_itself(tmp_path: Path, make_series: MakeSeries) -> None:
    """Attribute by attribute; where slices differ, those of the first one."""
    pytest.importorskip("highdicom")
    make_series(tmp_path / "scan", SeriesNumber=3, each_Laterality=["L", "R", "R", "R"], each_KVP=[120, 80, 80, 80])
    series = read_dicom_series(tmp_path / "scan")
    spread = torch.linspace(2, 50, series.hu.size).reshape(len(series), 1, 16, 16) * series.units.scale
    result = Result(series.attenuation(), spread)
    maps = []
    for name, kind in (("a", "hash"), ("b", "hash"), ("c", "random")):
        options = DicomOptions(parametric_map=True, created=WHEN, uids=kind)  # type: ignore[arg-type]
        folder = tmp_path / name
        written = write_dicom_series(
            result, like=series, folder=folder, description="D" * 30, details="seed 0", options=options
        )
        assert written.parametric_map == folder / "spread_parametric_map.dcm"
        maps.append(pydicom.dcmread(written.parametric_map))
    image, same, other = maps
    assert image.SOPInstanceUID == same.SOPInstanceUID and image.SeriesInstanceUID == same.SeriesInstanceUID
    assert len({image.SOPInstanceUID, other.SOPInstanceUID, image.SeriesInstanceUID, other.SeriesInstanceUID}) == 4
    expected = {
        "SeriesNumber": 1005, "InstanceNumber": 1, "Manufacturer": "deft-ct", "ManufacturerModelName": "deft-ct",
        "DeviceSerialNumber": "none", "ContentLabel": "POSTERIOR_STD", "Laterality": "L", "PatientID": "TEST",
        "ContentDescription": "Posterior standard deviation", "ContentQualification": "RESEARCH",
        "RecognizableVisualFeatures": "NO", "ImageComments": "RESEARCH ONLY - NOT FOR CLINICAL USE",
        "SeriesDescription": f"Std {'D' * 22}~ RESEARCH ONLY - NOT FOR CLINICAL USE", "FrameOfReferenceUID": "1.2.3.9",
        "DerivationDescription": f"simulated sparse view; research only, not for clinical use. Std {'D' * 30}",
        **dict.fromkeys(("SeriesDate", "InstanceCreationDate", "ContentDate"), "20240506"),
        **dict.fromkeys(("SeriesTime", "InstanceCreationTime", "ContentTime"), "070809"),
    }  # fmt: skip
    assert {name: image[name].value for name in expected} == expected
    assert image.BurnedInAnnotation == "NO"
    (equipment,) = image.ContributingEquipmentSequence
    assert equipment.ContributionDescription == "Reconstruction. seed 0"
    assert equipment.ContributionDateTime == "20240506070809"
    assert image.file_meta.ImplementationVersionName.startswith("DEFT_CT ")
    assert len(image.file_meta.ImplementationVersionName) <= 16
    assert image.file_meta.ImplementationClassUID == "2.25.262204361379563912411404868271542137206"
    shared = image.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert (mapping.LUTLabel, mapping.LUTExplanation) == ("STD_HU", "Posterior standard deviation in HU")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == pytest.approx(2, rel=1e-5)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == pytest.approx(50, rel=1e-5)
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "113061"
    window = shared.FrameVOILUTSequence[0]
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (50, 100)


@pytest.mark.parametrize(("faces", "told"), [(["NO", "NO", "NO", "yes"], "YES"), ([None] * 4, "NO")])
def test_a_face_in_one_slice_is_a_face_in_the_map(
    tmp_path: Path, make_series: MakeSeries, faces: list[str | None], told: str
) -> None:
    pytest.importorskip("highdicom")
    make_series(tmp_path / "scan", each_RecognizableVisualFeatures=[f and f.upper() for f in faces])
    series = read_dicom_series(tmp_path / "scan")
    flat = Result(series.attenuation(), torch.full((4, 1, 16, 16), 7.0) * series.units.scale)
    options = DicomOptions(parametric_map=True)
    path = write_dicom_series(flat, like=series, folder=tmp_path / "out", options=options).parametric_map
    assert path is not None
    image = pydicom.dcmread(path)
    assert image.RecognizableVisualFeatures == told
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    ends = mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped
    assert ends == (pytest.approx(7, rel=1e-5), pytest.approx(8, rel=1e-5)), "a range of no width is none"


def test_parametric_map_inherits_burned_in_annotation(tmp_path: Path, make_series: MakeSeries) -> None:
    pytest.importorskip("highdicom")
    make_series(tmp_path / "scan", each_BurnedInAnnotation=["NO", "YES", "NO", "NO"])
    series = read_dicom_series(tmp_path / "scan")
    result = Result(series.attenuation(), torch.ones_like(series.attenuation()))
    options = DicomOptions(parametric_map=True)
    written = write_dicom_series(result, like=series, folder=tmp_path / "out", options=options)
    assert written.parametric_map is not None
    assert pydicom.dcmread(written.parametric_map).BurnedInAnnotation == "YES"


def test_parametric_map_needs_its_extra_and_a_spread(
    tmp_path: Path, series: Series, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="more than one sample"):
        write_dicom_series(series.hu, like=series, folder=tmp_path / "out", options=DicomOptions(parametric_map=True))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r"deft-ct\[parametric-map\]"):
        write_dicom_series(result, like=series, folder=tmp_path / "out", options=DicomOptions(parametric_map=True))
    with pytest.raises(ImportError, match=r"deft-ct\[parametric-map\]"):
        check_derivable(series, DicomOptions(parametric_map=True))
    assert names(tmp_path) == ["scan"]


def test_a_source_without_a_frame_of_reference_gets_one(tmp_path: Path, make_series: MakeSeries) -> None:
    pytest.importorskip("highdicom")
    make_series(tmp_path / "scan", FrameOfReferenceUID=None)
    series = read_dicom_series(tmp_path / "scan")
    result = Result(series.attenuation(), torch.ones_like(series.attenuation()))
    written = write_dicom_series(
        result, like=series, folder=tmp_path / "out", options=DicomOptions(parametric_map=True)
    )
    assert written.parametric_map is not None
    frames = {pydicom.dcmread(path).FrameOfReferenceUID for path in (written.parametric_map, *written.mean)}
    assert len(frames) == 1 and all(frames)
