"""Other methods and single samples as files of their own: the same numbers in four readers, one patient, one study."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from seeded_sampler import seeded_deft

from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(
    compare=("fbp", "sirt"), views=12, samples=3, size=32, photons=1e4, options={"sirt": {"iterations": 3}}
)
NAMES = ["fbp", "sirt", "sample_001", "sample_002", "sample_003"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("further") / "out"
    with seeded_deft():
        reconstruct_series(sample_series_path(), out, SETTINGS, output=Output(compared=True, samples=True))
    return out


def nifti(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)


def test_each_has_a_series_and_a_nifti_file_with_the_same_numbers(folder: Path) -> None:
    sitk, highdicom = pytest.importorskip("SimpleITK"), pytest.importorskip("highdicom")
    assert sorted(path.name for path in (folder / "dicom").iterdir()) == sorted([*NAMES, "mean", "spread"])
    for name in [*NAMES, "mean"]:
        expected = nifti(folder, name)
        assert expected.min() >= -1024
        files = sorted((folder / "dicom" / name).glob("*.dcm"))
        stored = np.stack([pydicom.dcmread(path).pixel_array for path in files]) - 1024.0
        np.testing.assert_allclose(stored, expected, atol=0.5001)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in files])
        image = reader.Execute()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), stored)
        affine = nibabel.load(folder / f"{name}.nii.gz").affine
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine @ [0, 0, 0, 1], [*image.GetOrigin(), 1], atol=1e-3)
        volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in files])
        assert sorted(volume.array.ravel().tolist()) == sorted(stored.ravel().tolist())


def test_samples_are_draws_around_the_mean_and_methods_are_themselves(folder: Path) -> None:
    samples = np.stack([nifti(folder, name) for name in NAMES[2:]])
    inside = (samples > -1000).all(axis=0)  # nothing is clipped there
    mean, std = nifti(folder, "mean")[inside], nifti(folder, "spread")[inside]
    np.testing.assert_allclose(samples[:, inside].mean(axis=0), mean, atol=0.05)
    np.testing.assert_allclose(samples[:, inside].std(axis=0, ddof=1), std, rtol=1e-3, atol=0.05)
    truth = read_dicom_series(sample_series_path()).fitted(32).hu
    rows = {row["method"]: row["metrics"] for row in json.loads((folder / "run.json").read_text())["metrics"]}
    for name, title in (("fbp", "FBP"), ("sirt", "SIRT")):
        error = nifti(folder, name) - np.maximum(truth, -1001)
        found = np.sqrt((error**2).mean(axis=(1, 2)))
        expected = 2000 / 10 ** (np.array(rows[title]["psnr"]["per_slice"]) / 20)
        assert (found < expected + 1).all(), "nothing lies below -1024 HU in the file"
        assert (found > 0.8 * expected).all()


def test_all_series_are_one_study_and_no_two_are_the_same(folder: Path) -> None:
    images = {name: pydicom.dcmread(folder / "dicom" / name / "0001.dcm") for name in [*NAMES, "mean", "spread"]}
    assert len({image.StudyInstanceUID for image in images.values()}) == 1
    assert len({image.FrameOfReferenceUID for image in images.values()}) == 1
    for name in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({str(image[name].value) for image in images.values()}) == len(images), name
    assert "RESEARCH ONLY" in images["fbp"].SeriesDescription and images["fbp"].SeriesDescription.startswith("FBP 12")
    assert images["sample_002"].SeriesDescription.startswith("DEFT sample 2/3")


def test_a_deidentified_result_stays_one_study_too(tmp_path: Path) -> None:
    pytest.importorskip("dicomanonymizer")
    settings = SparseView(compare=("fbp",), views=8, samples=2, size=16, photons=1e4)
    pytest.importorskip("highdicom")
    output = Output(compared=True, samples=True, deidentify=True, parametric_map=True)
    with seeded_deft():
        done = reconstruct_series(sample_series_path(), tmp_path / "out", settings, output=output)
    first = pydicom.dcmread(sorted(sample_series_path().glob("*.dcm"))[0])
    files = [*done.folder.rglob("0001.dcm"), *done.folder.rglob("*_map.dcm")]
    images = [pydicom.dcmread(path) for path in files]
    assert len(images) == 6 and len({image.StudyInstanceUID for image in images}) == 1
    assert len({image.FrameOfReferenceUID for image in images}) == 1
    assert all(image.PatientIdentityRemoved == "YES" for image in images)
    assert {image.StudyInstanceUID for image in images} != {first.StudyInstanceUID}
    assert len({image.SeriesDate for image in images}) == 1 and images[0].SeriesDate != first.SeriesDate


def test_samples_of_a_method_that_draws_none_are_refused(tmp_path: Path) -> None:
    settings = SparseView(method="fbp", compare=(), views=8, size=16)
    with pytest.raises(ValueError, match="fbp draws no samples here"):
        reconstruct_series(sample_series_path(), tmp_path / "out", settings, output=Output(samples=True))
    assert not (tmp_path / "out").exists()
