from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from derived import Result, names
from pydicom.uid import CTImageStorage

from deft_ct.io import DicomOptions, DicomSeriesError, Series, read_dicom_series, sample_series_path, write_dicom_series
from deft_ct.io.dicom_write import check_derivable, is_own_output
from deft_ct.io.nifti import read_nifti, write_nifti

MakeSeries = Callable[..., list[Path]]
WHEN = datetime(2024, 5, 6, 7, 8, 9)


# --- the real sample, at the prior's size ------------------------------------------------------------------------


def test_real_series_reads_back_with_hu_and_geometry(tmp_path: Path) -> None:
    series = read_dicom_series(sample_series_path())
    coarse = series.resampled(2)
    written = write_dicom_series(coarse.hu, like=coarse, folder=tmp_path / "out", description="DEFT 60 views")
    back = read_dicom_series(tmp_path / "out")
    assert back.volume.shape == (8, 256, 256) and len(written.mean) == 8
    np.testing.assert_allclose(back.hu, coarse.hu, atol=0.5)
    np.testing.assert_allclose(back.volume.affine, coarse.volume.affine, atol=1e-6)
    # The same through nibabel, independently of our affine: from the written headers by the rule of the standard.
    images = sorted((pydicom.dcmread(p) for p in written.mean), key=lambda d: float(d.ImagePositionPatient[2]))
    image = nib.load(write_nifti(back.volume, tmp_path / "x.nii"))
    for k, header in enumerate(images):
        rows, columns = np.split(np.array(header.ImageOrientationPatient, float), 2)
        dy, dx = map(float, header.PixelSpacing)
        place = np.array(header.ImagePositionPatient, float) + rows * dx * 11 + columns * dy * 7
        np.testing.assert_allclose((image.affine @ [11, 7, k, 1])[:3] * [-1, -1, 1], place, atol=1e-3)
        hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, k].T, hu)
    # The centre of the field of view did not move.
    middle = np.array([255.5, 255.5, 0, 1]), np.array([127.5, 127.5, 0, 1])
    np.testing.assert_allclose(series.volume.affine @ middle[0], back.volume.affine @ middle[1], atol=1e-4)


def test_real_header_inherits_and_replaces(tmp_path: Path) -> None:
    source = read_dicom_series(sample_series_path()).slices(2, 4)
    write_dicom_series(source.hu, like=source, folder=tmp_path / "out", description="FBP 60 views", details="seed 0")
    image = pydicom.dcmread(tmp_path / "out" / "0001.dcm")
    header = source.headers[0]
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientPosition", "KVP", "PatientSex"):
        assert image[name].value == header[name].value, name
    assert image.SOPInstanceUID != header.SOPInstanceUID and image.SeriesInstanceUID != header.SeriesInstanceUID
    assert image.SeriesNumber == header.SeriesNumber + 1000 and image.InstanceNumber == 1
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert image.SeriesDescription == "FBP 60 views RESEARCH ONLY - NOT FOR CLINICAL USE"
    assert "simulated sparse view; research only, not for clinical use" in image.DerivationDescription
    assert "seed 0" in image.DerivationDescription and "NOT FOR CLINICAL USE" in image.ImageComments
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
    equipment = image.ContributingEquipmentSequence[-1]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109103" and equipment.SoftwareVersions
    assert (image.RescaleSlope, image.RescaleIntercept, image.RescaleType) == (1, -1024, "HU")
    assert list(image.WindowCenter) == [-600, 40, 400] and list(image.WindowWidth) == [1500, 400, 1800]
    assert list(image.WindowCenterWidthExplanation) == ["LUNG", "SOFT TISSUE", "BONE"]
    assert "BurnedInAnnotation" not in image and "ConvolutionKernel" not in image
    assert {int(image.SmallestImagePixelValue), int(image.LargestImagePixelValue)} == {
        int(image.pixel_array.min()),
        int(image.pixel_array.max()),
    }
    private = [e for e in image if e.tag.is_private]
    assert [e.tag.group for e in private] == [0x13] * 3, "only the archive's collection name stays"
    assert image[0x0013, 0x1010].value == "LIDC-IDRI"
    assert not [e for e in image if e.tag.element == 0], "group lengths are gone"


# --- series of a reconstruction ----------------------------------------------------------------------------------


def test_mean_and_spread_are_two_series(tmp_path: Path, series: Series, result: Result) -> None:
    written = write_dicom_series(result, like=series, folder=tmp_path / "out", description="DEFT")
    assert names(tmp_path / "out") == ["mean", "spread"] and names(tmp_path) == ["out", "scan"]
    assert [p.name for p in written.mean] == [p.name for p in written.spread] == [f"{n:04d}.dcm" for n in (1, 2, 3, 4)]
    mean, spread = (read_dicom_series(tmp_path / "out" / name) for name in ("mean", "spread"))
    np.testing.assert_array_equal(mean.hu, series.hu)
    assert result.std is not None
    np.testing.assert_allclose(spread.hu, result.std[:, 0].numpy() / series.units.scale, atol=0.0501)
    np.testing.assert_allclose(spread.volume.affine, series.volume.affine)
    one, two = mean.headers[0], spread.headers[0]
    assert one.SeriesInstanceUID != two.SeriesInstanceUID and one.SOPInstanceUID != two.SOPInstanceUID
    assert (one.SeriesNumber, two.SeriesNumber) == (1003, 1004)
    assert two.ImageType[3] == "POSTERIOR_STD" and two.SeriesDescription.startswith("Std DEFT")
    assert float(two.RescaleSlope) == 0.1 and two.WindowCenterWidthExplanation[0] == "SPREAD"


def test_without_spread_only_the_mean_is_written(tmp_path: Path, series: Series, result: Result) -> None:
    written = write_dicom_series(Result(result.mean, None), like=series, folder=tmp_path / "out")
    assert names(tmp_path / "out") == ["mean"] and written.spread == ()


def test_every_source_slice_is_named_in_order(tmp_path: Path, series: Series) -> None:
    write_dicom_series(series.volume, like=series, folder=tmp_path / "out")
    back = read_dicom_series(tmp_path / "out")
    assert [h.SourceImageSequence[0].ReferencedSOPInstanceUID for h in back.headers] == list(series.slice_uids)
    assert [int(h.InstanceNumber) for h in back.headers] == [1, 2, 3, 4]
    assert len(set(back.slice_uids)) == 4


def test_values_outside_the_range_are_clipped(tmp_path: Path, series: Series, caplog: pytest.LogCaptureFixture) -> None:
    hu = series.hu.copy()
    hu[0, 0, :3] = [-5000, 100_000, 4000.4]
    with caplog.at_level("INFO", logger="deft_ct"):
        write_dicom_series(hu, like=series, folder=tmp_path / "out")
    assert read_dicom_series(tmp_path / "out").hu[0, 0, :3].tolist() == [-1024, 64511, 4000]
    assert "2 of 1024 values" in caplog.text


@pytest.mark.parametrize(("low", "high", "told"), [(-1025, 64512, 0), (-1025.5, 64512.5, 2)])
def test_values_within_one_step_of_the_range_are_only_rounded(
    tmp_path: Path, series: Series, caplog: pytest.LogCaptureFixture, low: float, high: float, told: int
) -> None:
    hu = series.hu.copy()
    hu[0, 0, :2] = [low, high]
    with caplog.at_level("INFO", logger="deft_ct"):
        write_dicom_series(hu, like=series, folder=tmp_path / "out")
    assert ("2 of 1024 values outside -1024..64511 HU" in caplog.text) == bool(told) == ("values" in caplog.text)


def test_long_descriptions_keep_the_warning(tmp_path: Path, series: Series) -> None:
    text = "A very long description of a method with all of its settings"
    write_dicom_series(series.hu, like=series, folder=tmp_path / "out", description=text, details="é\\" + "x" * 2000)
    header = read_dicom_series(tmp_path / "out").headers[0]
    assert len(header.SeriesDescription) == 64 and header.SeriesDescription.endswith("NOT FOR CLINICAL USE")
    assert text in header.DerivationDescription and len(header.DerivationDescription) == 1024


# --- UIDs ----------------------------------------------------------------------------------------------------------


def uids_of(folder: Path) -> list[str]:
    back = read_dicom_series(folder)
    return [back.series_uid, *back.slice_uids]


def test_hashed_uids_depend_on_the_content_alone(tmp_path: Path, series: Series) -> None:
    for name, hu, details in (
        ("a", series.hu, ""),
        ("b", series.hu, ""),
        ("c", series.hu + np.eye(16, dtype=np.float32), ""),
        ("d", series.hu, "seed 1"),
    ):
        write_dicom_series(hu, like=series, folder=tmp_path / name, details=details, options=DicomOptions(created=WHEN))
    first = uids_of(tmp_path / "a")
    assert first == uids_of(tmp_path / "b")
    assert not set(first) & set(uids_of(tmp_path / "c")) and not set(first) & set(uids_of(tmp_path / "d"))
    assert all(pydicom.uid.UID(u).is_valid and u.startswith("2.25.") for u in first)
    files = [(tmp_path / name / "0001.dcm").read_bytes() for name in "ab"]
    assert files[0] == files[1], "the same result at the same time is the same file"


def test_random_uids_are_new_each_time(tmp_path: Path, series: Series) -> None:
    for name in "ab":
        write_dicom_series(series.hu, like=series, folder=tmp_path / name, options=DicomOptions(uids="random"))
    assert not set(uids_of(tmp_path / "a")) & set(uids_of(tmp_path / "b"))
    with pytest.raises(ValueError, match="'hash' or 'random'"):
        DicomOptions(uids="new")  # type: ignore[arg-type]


# --- what is inherited ---------------------------------------------------------------------------------------------


def test_stale_attributes_are_dropped_and_empty_ones_added(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", SmallestImagePixelValue=5, PixelPaddingValue=0, LossyImageCompression="01")
    for path in (tmp_path / "scan").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"1234")
        dataset.add_new(0x60003000, "OW", b"\0\0")
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    series = read_dicom_series(tmp_path / "scan")
    write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    image = pydicom.dcmread(tmp_path / "out" / "0001.dcm")
    assert "PixelPaddingValue" not in image and image.SmallestImagePixelValue != 5
    assert not [e for e in image if e.tag.is_private or e.tag.group == 0x6000]
    assert image.LossyImageCompression == "01"
    assert image.FrameOfReferenceUID and image.StudyDate == "" and image.AccessionNumber == ""
    assert image.SOPClassUID == CTImageStorage == image.file_meta.MediaStorageSOPClassUID
    assert "SmallestImagePixelValue" in series.headers[0], "the source's header is not touched"


def test_slices_with_several_frames_of_reference_share_the_first(tmp_path: Path) -> None:
    series = read_dicom_series(sample_series_path()).resampled(4)
    write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    frames = {h.FrameOfReferenceUID for h in read_dicom_series(tmp_path / "out").headers}
    assert frames == {series.headers[0].FrameOfReferenceUID}


@pytest.mark.parametrize("value", ["YES", "NO", None])
def test_burned_in_annotation_is_inherited(value: str | None, tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", BurnedInAnnotation=value)
    series = read_dicom_series(tmp_path / "scan")
    result = Result(series.attenuation(), torch.ones_like(series.attenuation()))
    written = write_dicom_series(result, like=series, folder=tmp_path / "out")
    assert len(written.mean) == len(written.spread) == 4
    for path in (*written.mean, *written.spread):
        assert pydicom.dcmread(path).get("BurnedInAnnotation") == value


# --- what is refused, and what is left behind -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 8, 8)), r"shape \(4, 8, 8\), the series like= has \(4, 16, 16\).*resampled\(2\)"),
        (np.full((4, 16, 16), np.nan), "1024 values that are not finite"),
        (torch.zeros(4, 2, 16, 16), "has shape"),
    ],
)
def test_wrong_results(tmp_path: Path, series: Series, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dicom_series(value, like=series, folder=tmp_path / "out")
    assert names(tmp_path) == ["scan"]


def test_wrong_type_and_negative_spread(tmp_path: Path, series: Series, result: Result) -> None:
    with pytest.raises(TypeError, match="expected a reconstruction"):
        write_dicom_series("hello", like=series, folder=tmp_path / "out")  # type: ignore[arg-type]
    assert result.std is not None
    with pytest.raises(ValueError, match="negative"):
        write_dicom_series(Result(result.mean, -result.std), like=series, folder=tmp_path / "out")


def test_never_beside_the_originals(tmp_path: Path, series: Series) -> None:
    before = names(tmp_path / "scan")
    for folder in (tmp_path / "scan", tmp_path / "scan" / "out", tmp_path):
        with pytest.raises(ValueError, match="overlaps with the input"):
            write_dicom_series(series.hu, like=series, folder=folder, overwrite=True)
    assert names(tmp_path / "scan") == before


def test_existing_folder(tmp_path: Path, series: Series) -> None:
    write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    with pytest.raises(FileExistsError, match="not empty"):
        write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    write_dicom_series(series.hu + 1, like=series, folder=tmp_path / "out", overwrite=True)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "out").hu, series.hu + 1)
    assert names(tmp_path) == ["out", "scan"]
    (tmp_path / "out" / "mine.dcm").write_bytes((tmp_path / "scan" / "003.dcm").read_bytes())
    with pytest.raises(FileExistsError, match="did not write"):
        write_dicom_series(series.hu, like=series, folder=tmp_path / "out", overwrite=True)
    assert len(names(tmp_path / "out")) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interruption_leaves_no_half_written_series(
    tmp_path: Path, series: Series, result: Result, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    saved = []

    def save_three_then_fail(image: pydicom.Dataset, path: Path) -> None:
        if len(saved) == 6:
            raise error
        saved.append(path)
        image.save_as(path, enforce_file_format=True)

    monkeypatch.setattr("deft_ct.io.dicom_write._save", save_three_then_fail)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):  # type: ignore[arg-type]
        write_dicom_series(result, like=series, folder=tmp_path / "out")
    assert len(saved) == 6 and names(tmp_path) == ["scan"]


def test_nifti_of_the_written_series(tmp_path: Path, series: Series) -> None:
    write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    back = read_dicom_series(tmp_path / "out")
    again = read_nifti(write_nifti(back.volume, tmp_path / "x.nii.gz"))
    np.testing.assert_array_equal(again.hu, series.hu)
    np.testing.assert_allclose(again.affine, series.volume.affine, atol=1e-4)


def test_the_time_of_writing_is_that_of_the_images(tmp_path: Path, series: Series) -> None:
    before = datetime.now().replace(microsecond=0)
    written = write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    image = pydicom.dcmread(written.mean[0])
    made = datetime.strptime(image.InstanceCreationDate + image.InstanceCreationTime[:6], "%Y%m%d%H%M%S")
    assert before <= made <= datetime.now()
    pytest.importorskip("dicomanonymizer")
    options = DicomOptions(deidentify=True)
    written = write_dicom_series(series.hu, like=series, folder=tmp_path / "anonymous", options=options)
    assert pydicom.dcmread(written.mean[0]).InstanceCreationDate == "19000101"


@pytest.mark.parametrize(("number", "sound"), [(2**31 - 1005, True), (2**31 - 1000, False), (1 - 2**31, True)])
def test_numbers_of_series_that_fit(tmp_path: Path, make_series: MakeSeries, number: int, sound: bool) -> None:
    """That of the source, with 1000 added, and two more series after it; an integer string has 32 bits."""
    make_series(tmp_path / "scan", SeriesNumber=number)
    source = read_dicom_series(tmp_path / "scan")
    if sound:
        check_derivable(source)
    else:
        with pytest.raises(DicomSeriesError, match=f"SeriesNumber is '{number}'; expected a whole number"):
            check_derivable(source)


def test_what_is_not_of_this_program(tmp_path: Path, series: Series) -> None:
    written = write_dicom_series(series.hu, like=series, folder=tmp_path / "out")
    assert is_own_output(written.mean[0])
    assert not is_own_output(next((tmp_path / "scan").iterdir())) and not is_own_output(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    assert not is_own_output(tmp_path / "text")
