from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deft_ct.ct.volume import Volume
from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.io.nifti import read_nifti, write_nifti


@pytest.fixture
def volume() -> Volume:
    affine = np.array([[0.7, 0, 0, -30.0], [0, 0.7, 0, -20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1.0]])
    return Volume(np.random.default_rng(0).normal(0, 300, (3, 4, 5)), affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, volume: Volume, suffix: str) -> None:
    path = write_nifti(volume, tmp_path / f"x{suffix}")
    back = read_nifti(path)
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [f"x{suffix}"]


def test_places_agree_with_dicom(tmp_path: Path) -> None:
    """World coordinates from nibabel, with x and y turned, are those of the DICOM headers."""
    series = read_dicom_series(sample_series_path())
    image = nib.load(write_nifti(series.volume, tmp_path / "x.nii"))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header["sform_code"] == 1 and image.header["qform_code"] == 1
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), (0.78125, 0.78125, 1.0), rtol=1e-5)
    assert b"not for clinical use" in image.header["descrip"].item()
    data = image.get_fdata()
    for k in (0, 5):
        header = series.headers[k]
        world = image.affine @ [0, 0, k, 1]
        np.testing.assert_allclose(world[:3] * [-1, -1, 1], np.array(header.ImagePositionPatient, float), atol=1e-4)
        np.testing.assert_array_equal(data[100, 200, k], series.hu[k, 200, 100])


@pytest.mark.parametrize("axes", ["RAS", "LAS", "SPL", "ARI"])
def test_any_orientation_is_turned_without_interpolation(tmp_path: Path, volume: Volume, axes: str) -> None:
    ras = nib.Nifti1Image(volume.hu.transpose(2, 1, 0), volume.ras_affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(ras.affine), nib.orientations.axcodes2ornt(axes))
    turned = ras.as_reoriented(turn)
    assert nib.aff2axcodes(turned.affine) == tuple(axes)
    nib.save(turned, tmp_path / "x.nii")
    back = read_nifti(tmp_path / "x.nii")
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)


def test_same_as_dicom2nifti(tmp_path: Path) -> None:
    dicom2nifti = pytest.importorskip("dicom2nifti")
    dicom2nifti.dicom_series_to_nifti(str(sample_series_path()), str(tmp_path / "x.nii.gz"), reorient_nifti=False)
    ours, theirs = read_dicom_series(sample_series_path()).volume, read_nifti(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-3)
    np.testing.assert_array_equal(theirs.hu, ours.hu)


def test_bad_files(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(ValueError, match=r"\.nii or \.nii\.gz"):
        write_nifti(volume, tmp_path / "x.mha")
    with pytest.raises(FileNotFoundError, match="no such NIfTI"):
        read_nifti(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "text.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 3), np.float32), np.eye(4)), tmp_path / "four.nii")
    with pytest.raises(ValueError, match="one 3D volume"):
        read_nifti(tmp_path / "four.nii")
    nib.save(nib.Nifti1Image(np.full((4, 4, 2), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(ValueError, match="not finite"):
        read_nifti(tmp_path / "nan.nii")
    whole = write_nifti(volume, tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "cut.nii.gz")
    with pytest.raises(FileExistsError, match="is a file"):
        write_nifti(volume, tmp_path / "whole.nii.gz" / "x.nii")
