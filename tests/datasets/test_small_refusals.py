"""Files that are missing, damaged or cut off, and volumes in the axes of the patient."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deft_ct.datasets.check import check_data
from deft_ct.datasets.ldct_geometry import patient_affine, patient_signs
from deft_ct.datasets.walnuts import _counts
from deft_ct.io.errors import ReadError
from deft_ct.io.nifti import read_nifti


def test_a_projection_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        _counts(tmp_path / "scan_000001.tif", 2)


def test_a_check_names_damaged_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    found = check_data(path)
    assert found.kind == "HDF5 file" and [one.state for one in found.files] == ["damaged"] and found.files[0].what


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP", "FFP"])
def test_voxels_lie_where_the_patient_has_them(position: str) -> None:
    """Each voxel of the turned volume, of three unequal axes of which rows count downwards."""
    signs = patient_signs(position)
    x, y, z = 3.0 + 2.0 * np.arange(4), 7.0 - 2.0 * np.arange(3), -5.0 + 1.5 * np.arange(2)
    affine, flipped = patient_affine(position, x, y, z, (1.5, 2.0))
    places = np.empty((2, 3, 4, 3))
    for s, r, c in itertools.product(range(2), range(3), range(4)):
        places[s, r, c] = signs[0] * x[c], signs[1] * y[r], signs[2] * z[s]
    places = np.flip(places, flipped)
    for s, r, c in itertools.product(range(2), range(3), range(4)):
        np.testing.assert_allclose((affine @ [c, r, s, 1])[:3], places[s, r, c])
    assert (np.diag(affine) > 0).all()


def test_both_versions_of_nifti_are_told_apart(tmp_path: Path) -> None:
    values = np.arange(32, dtype=np.int16).reshape(4, 4, 2)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        kind(values, np.diag([-1.0, -1.0, 2.0, 1.0])).to_filename(tmp_path / "a.nii")
        assert read_nifti(tmp_path / "a.nii").hu.shape == (2, 4, 4)
    (tmp_path / "a.nii").write_bytes(b"\x5c\x01\x00\x00" + bytes(100))
    with pytest.raises(ReadError, match="does not start with a NIfTI header"):
        read_nifti(tmp_path / "a.nii")
