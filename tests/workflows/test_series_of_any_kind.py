"""``reconstruct`` of series of any matrix, tilted or from NIfTI: what is written lies where it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from deft_ct.cli.app import app
from deft_ct.io import Chosen, read_dicom_series, read_series, write_nifti
from deft_ct.io.errors import ReadError
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(method="fbp", compare=(), views=60, samples=1, size=32, photons=0)


def disc(shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """A disc of water of 16 mm across, off the middle by (3, 2) mm, in air."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    inside = (y[:, None] * spacing[0] - 3) ** 2 + (x[None] * spacing[1] - 2) ** 2 < 8**2
    return np.where(inside, 0.0, -1000.0)


def write(
    folder: Path, shape: tuple[int, int] = (64, 64), spacing: tuple[float, float] = (0.5, 0.5), **own: Any
) -> Path:
    folder.mkdir()
    for n in range(2):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(n)])
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", "1.2.3.1", "1.2.3.9"
        one.Modality, one.PatientID, one.ImageType = "CT", "TEST", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Rows, one.Columns = shape
        one.PixelSpacing, one.SliceThickness = list(spacing), 2.0
        one.ImageOrientationPatient = own.get("orientation", [1, 0, 0, 0, 1, 0])
        one.ImagePositionPatient = [-10.0, -20.0, 2.0 * n]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        hu = own["hu"] if "hu" in own else disc(shape, spacing)
        one.PixelData = np.round(hu + 1024).astype("<u2").tobytes()
        one["PixelData"].VR = "OW"
        one.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    return folder


def middle_of_mass(hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of what is denser than -500 HU, in the axes of the patient."""
    z, y, x = np.nonzero(hu > -500)
    places: np.ndarray = affine[:3] @ np.stack([x, y, z, np.ones_like(x)])
    return places.mean(axis=1)


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [
        ((64, 64), (0.5, 0.5), "averaged to 32 x 32 of 1 mm"),
        ((50, 64), (0.5, 0.5), "averaged to 25 x 32 of 1 mm; they are padded with air to 32 x 32"),
        ((64, 50), (0.5, 0.5), "averaged to 32 x 25"),
        ((75, 75), (0.45, 0.45), "resampled to 32 x 32"),
        ((28, 30), (1.0, 1.0), None),
        ((32, 64), (1.0, 0.5), "pixels of 1 x 0.5 mm were resampled to 32 x 32 of 1 mm"),
    ],
)
def test_any_matrix(
    tmp_path: Path, geometry: str, shape: tuple[int, int], spacing: tuple[float, float], words: str | None
) -> None:
    source = write(tmp_path / "scan", shape, spacing)
    settings = SparseView(method="fbp", compare=(), views=60, samples=1, size=32, photons=0, geometry=geometry)
    run = reconstruct_series(source, tmp_path / "out", settings)
    before, after = read_dicom_series(source), read_dicom_series(run.folder / "dicom" / "mean")
    expected = middle_of_mass(before.hu, before.volume.affine)
    found = middle_of_mass(after.hu, after.volume.affine)
    np.testing.assert_allclose(found, expected, atol=0.15)
    sides = [np.array(v.image_shape) * v.volume.spacing_mm for v in (before, after)]
    assert np.all(sides[1] - sides[0] > -1e-6) and np.all(sides[1] - sides[0] < after.pixel_mm)
    nifti = nib.load(run.folder / "mean.nii.gz")
    np.testing.assert_allclose(nifti.affine, after.volume.ras_affine, atol=1e-5)
    np.testing.assert_allclose(np.asarray(nifti.dataobj).transpose(2, 1, 0), after.hu, atol=0.5)
    record = json.loads((run.folder / "run.json").read_text())
    if words is None:
        assert record["source"]["changes"] == []
    else:
        assert words in record["source"]["changes"][-1] and any(words in note for note in run.notes)
        assert words in (run.folder / "report.html").read_text()
        image = pydicom.dcmread(next((run.folder / "dicom" / "mean").glob("*.dcm")))
        assert words.split(";")[0] in image.DerivationDescription.replace("  ", " ")
    assert record["metrics"][0]["metrics"]["psnr"]["mean"] > 20


def test_a_tilted_series_keeps_every_position(tmp_path: Path) -> None:
    cosines = [1, 0, 0, 0, np.cos(0.3), np.sin(0.3)]
    source = write(tmp_path / "scan", orientation=cosines)
    run = reconstruct_series(source, tmp_path / "out", SETTINGS)
    shift = 0.25 * (np.array(cosines[:3]) + np.array(cosines[3:]))
    for n, path in enumerate(sorted((run.folder / "dicom" / "mean").glob("*.dcm"))):
        image = pydicom.dcmread(path)
        np.testing.assert_allclose(np.array(image.ImageOrientationPatient, float), cosines)
        np.testing.assert_allclose(np.array(image.ImagePositionPatient, float), np.array([-10, -20, 2 * n]) + shift)
    nifti = nib.load(run.folder / "mean.nii.gz")
    np.testing.assert_allclose(nifti.affine @ [0, 0, 1, 1], [10 - shift[0], 20 - shift[1], 2 + shift[2], 1], atol=1e-5)


def test_nifti_goes_in_and_comes_out(tmp_path: Path) -> None:
    series = read_dicom_series(write(tmp_path / "scan"))
    write_nifti(series.volume, tmp_path / "x.nii.gz")
    run = reconstruct_series(tmp_path / "x.nii.gz", tmp_path / "out", SETTINGS)
    direct = reconstruct_series(tmp_path / "scan", tmp_path / "direct", SETTINGS)
    for name in ("mean.nii.gz",):
        one, two = (nib.load(folder / name) for folder in (run.folder, direct.folder))
        np.testing.assert_allclose(one.affine, two.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))
    assert len(read_dicom_series(run.folder / "dicom" / "mean")) == 2


def test_slices_without_a_body_have_no_error_inside_it(tmp_path: Path) -> None:
    """Something smaller than a patient: what is measured inside the body is missing, and the rest is there."""
    hu = np.full((32, 32), -1000.0)
    hu[14:17, 14:17] = 0.0
    run = reconstruct_series(write(tmp_path / "scan", (32, 32), (1.0, 1.0), hu=hu), tmp_path / "out", SETTINGS)
    metrics = json.loads((run.folder / "run.json").read_text())["metrics"][0]["metrics"]
    assert metrics["rmse_hu"]["mean"] is None and metrics["rmse_hu"]["slices"] == 0
    assert metrics["psnr"]["mean"] > 20 and "nan" in (run.folder / "report.html").read_text()


def test_nothing_but_air_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deft_ct.workflows import series_job as job

    monkeypatch.setattr(job, "simulate_scan", lambda *_: pytest.fail("the scan was simulated"))
    source = write(tmp_path / "scan", hu=np.full((64, 64), -1000.0))
    with pytest.raises(ReadError, match=r"all 2 slice\(s\) are air .* nothing to reconstruct"):
        reconstruct_series(source, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_what_speaks_against_the_numbers_is_said_everywhere(tmp_path: Path) -> None:
    source = write(tmp_path / "scan", hu=disc((64, 64), (0.5, 0.5)) + 1024)
    arguments = ["--method", "fbp", "--compare", "", "--size", "32", "--views", "30", "--no-progress"]
    shown = CliRunner().invoke(app, ["reconstruct", str(source), "--out", str(tmp_path / "out"), *arguments])
    assert shown.exit_code == 0, shown.output
    assert "warning: no air: no air near -1000 HU" in " ".join(shown.output.split())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["source"]["warnings"][0]["name"] == "no air"
    assert "no air near -1000 HU" in (tmp_path / "out" / "report.html").read_text()
    image = pydicom.dcmread(next((tmp_path / "out" / "dicom" / "mean").glob("*.dcm")))
    assert "warning: no air" in image.DerivationDescription


def test_gaps_and_phases_are_options_of_the_command(tmp_path: Path) -> None:
    source = write(tmp_path / "scan")
    image = pydicom.dcmread(source / "1.dcm")
    image.ImagePositionPatient[2] = 30.0
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.77"
    image.save_as(source / "2.dcm")
    arguments = ["--method", "fbp", "--compare", "", "--size", "32", "--views", "30", "--no-progress"]
    run = CliRunner()
    shown = run.invoke(app, ["reconstruct", str(source), "--out", str(tmp_path / "a"), *arguments])
    assert shown.exit_code == 2 and "--allow-gaps" in shown.output
    shown = run.invoke(app, ["reconstruct", str(source), "--out", str(tmp_path / "a"), "--allow-gaps", *arguments])
    assert shown.exit_code == 0 and len(read_dicom_series(tmp_path / "a" / "dicom" / "mean", allow_gaps=True)) == 3
    image.ImagePositionPatient[2] = 2.0
    image.AcquisitionNumber = 9
    image.PixelData = bytes(len(image.PixelData))
    image.save_as(source / "2.dcm")
    shown = run.invoke(app, ["reconstruct", str(source), "--out", str(tmp_path / "b"), *arguments])
    assert shown.exit_code == 2 and "--phase" in shown.output and "9 (1 slices)" in shown.output
    assert len(read_series(source, Chosen(phase="9"))) == 1


def test_what_was_not_measured_is_cropped_too(tmp_path: Path) -> None:
    source = write(tmp_path / "scan", (50, 64))
    run = reconstruct_series(source, tmp_path / "out", SETTINGS, output=Output(unmeasured_map=True))
    shapes = {nib.load(run.folder / name).shape for name in ("mean.nii.gz", "unmeasured.nii.gz")}
    assert shapes == {(32, 25, 2)}
