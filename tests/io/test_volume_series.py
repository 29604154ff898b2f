"""Series from NIfTI, MetaImage and NRRD: any affine, one rule for values, headers that a derived series can inherit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from deft_ct.ct.volume import LPS_TO_RAS, Volume
from deft_ct.io import Chosen, read_dicom_series, read_nifti, read_series, write_dicom_series, write_nifti
from deft_ct.io.dicom_write import DicomOptions, check_derivable
from deft_ct.io.errors import ReadError
from deft_ct.io.itk_images import read_itk
from deft_ct.io.volume_series import series_of_volume
from deft_ct.runtime.extras import MissingExtraError

ANGLE = np.radians(12.0)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])


def affine(kind: str) -> np.ndarray:
    """(4, 4) RAS affine of an array (i, j, k)."""
    found = np.eye(4)
    found[:3, 3] = [10.0, -20.0, 30.0]
    found[:3, :3] = {
        "usual": np.diag([-0.7, -0.7, 2.5]),
        "flipped": np.diag([0.7, 0.7, -2.5]),
        "coronal order": np.array([[0.7, 0, 0], [0, 0, 0.7], [0, 2.5, 0]]),
        "oblique": TURN @ np.diag([-0.7, -0.7, 2.5]),
        "oblong": np.diag([-0.7, -0.9, 2.5]),
        "sheared": np.array([[-0.7, 0, 0], [0, -0.7, 0.6], [0, 0, 2.5]]),
    }[kind]
    return found


KINDS = ("usual", "flipped", "coronal order", "oblique", "oblong", "sheared")


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 1500, (5, 6, 7)).astype(np.float32)


def same_places(volume: Volume, data: np.ndarray, ras: np.ndarray) -> None:
    """Every voxel has the value that the file has at its place."""
    z, y, x = np.indices(volume.shape)
    place = volume.ras_affine @ np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    index = np.linalg.solve(ras, place)[:3]
    assert np.abs(index - index.round()).max() < 1e-3
    np.testing.assert_array_equal(data[tuple(index.round().astype(int))], volume.hu.ravel())


@pytest.mark.parametrize("kind", KINDS)
def test_nifti_of_any_affine_becomes_a_series(tmp_path: Path, data: np.ndarray, kind: str) -> None:
    image = nib.Nifti1Image(data, affine(kind))
    nib.save(image, tmp_path / "x.nii.gz")
    series = read_series(tmp_path / "x.nii.gz")
    same_places(series.volume, data, affine(kind))
    written = write_dicom_series(series.volume, like=series, folder=tmp_path / "out")
    again = read_dicom_series(tmp_path / "out")
    same_places(again.volume, data, affine(kind))
    np.testing.assert_allclose(again.volume.affine, series.volume.affine, atol=1e-4)
    assert "SourceImageSequence" not in pydicom.dcmread(written.mean[0])
    assert read_series(tmp_path / "x.nii.gz").slice_uids == series.slice_uids, "UIDs depend on the content alone"
    assert "no DICOM headers" in series.changes[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_images_of_itk(tmp_path: Path, data: np.ndarray, kind: str, suffix: str) -> None:
    if kind == "sheared":
        pytest.skip("ITK's directions are orthonormal")
    sitk = pytest.importorskip("SimpleITK")
    lps = LPS_TO_RAS @ affine(kind)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / f"x{suffix}"))
    same_places(read_series(tmp_path / f"x{suffix}").volume, data, affine(kind))


def test_one_rule_below_the_scale(tmp_path: Path, data: np.ndarray) -> None:
    data[0, 0, 0] = -3024
    nib.save(nib.Nifti1Image(data, affine("usual")), tmp_path / "x.nii")
    series = read_series(tmp_path / "x.nii")
    assert series.hu.min() == -1024 and "1 of 210 pixels lie below -1024 HU" in series.changes[1]
    assert read_nifti(tmp_path / "x.nii").hu.min() == -3024, "the reader itself changes nothing"


def test_a_tilted_volume_is_written_exactly(tmp_path: Path, data: np.ndarray) -> None:
    volume = Volume(data.transpose(2, 1, 0), LPS_TO_RAS @ affine("sheared"))
    write_nifti(volume, tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(image.affine, affine("sheared"), atol=1e-6)
    assert image.header["sform_code"] == 1 and image.header["qform_code"] == 0
    np.testing.assert_allclose(read_nifti(tmp_path / "x.nii.gz").affine, volume.affine, atol=1e-6)


def test_made_headers_can_be_deidentified(tmp_path: Path, data: np.ndarray) -> None:
    pytest.importorskip("dicomanonymizer")
    nib.save(nib.Nifti1Image(data, affine("usual")), tmp_path / "x.nii")
    check_derivable(read_series(tmp_path / "x.nii"), DicomOptions(deidentify=True))


def test_what_is_refused(tmp_path: Path, data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    nib.save(nib.Nifti1Image(data, affine("usual")), tmp_path / "x.nii")
    for chosen in (Chosen(series_uid="1.2"), Chosen(phase="1")):
        with pytest.raises(ValueError, match="leave out the series and the phase"):
            read_series(tmp_path / "x.nii", chosen)
    with pytest.raises(FileNotFoundError):
        read_series(tmp_path / "y.nrrd")
    (tmp_path / "y.nrrd").write_text("hello")
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"deft-ct\[simpleitk\]"):
        read_series(tmp_path / "y.nrrd")


def test_files_of_itk_that_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    head = "ObjectType = Image\nNDims = 3\nDimSize = {}\nElementType = MET_SHORT\nElementDataFile = {}\n"
    for content, problem in (
        ("hello", "cannot be read as a volume of ITK"),
        (head.format("2 2 2", "/etc/passwd"), "keeps its data in another file"),
        (head.format("40000 40000 40000", "LOCAL"), "declares a volume of"),
        (head.format("4 4", "LOCAL").replace("NDims = 3", "NDims = 2") + "\0" * 32, "expected one 3D volume"),
        ("NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: x.raw\n\n", "another file"),
    ):
        path = tmp_path / ("x.nrrd" if content.startswith("NRRD") else "x.mha")
        path.write_text(content)
        with pytest.raises(ReadError, match=problem):
            read_itk(path)


def test_coronal_slices_are_refused() -> None:
    """Below 45 degrees a slice is axial; the error names the normal."""
    for degrees, sound in ((44.0, True), (46.0, False), (90.0, False)):
        turn = np.radians(degrees)
        place = np.eye(4)
        place[:3, :3] = np.array(
            [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
        ) @ np.diag([0.7, 0.7, 2.5])
        volume = Volume(np.zeros((2, 3, 4), np.float32), place)
        if sound:
            assert len(series_of_volume(volume, Path("x.nii"))) == 2
        else:
            with pytest.raises(ReadError, match=r"x\.nii: its slices are not axial \(normal \["):
                series_of_volume(volume, Path("x.nii"))


def test_headers_of_a_volume(tmp_path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data, affine("usual")), tmp_path / "x.nii")
    series = read_series(tmp_path / "x.nii")
    first, last = series.headers[0], series.headers[-1]
    assert (float(first.SliceThickness), first.InstanceNumber, last.InstanceNumber) == (2.5, 1, 7)
    assert (first.Modality, first.Rows, first.Columns) == ("CT", *series.image_shape)
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"] and first.SpecificCharacterSet == "ISO_IR 192"
    uids = [{str(header[name].value) for header in series.headers} for name in (
        "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID",
    )]  # fmt: skip
    assert [len(each) for each in uids] == [1, 1, 1, 7] and len(set().union(*uids)) == 10
    np.testing.assert_allclose([float(v) for v in first.ImagePositionPatient], series.volume.affine[:3, 3], atol=1e-6)
    assert float(last.ImagePositionPatient[2]) == pytest.approx(float(first.ImagePositionPatient[2]) + 6 * 2.5)
