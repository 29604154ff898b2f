"""Synthetic DICOM-CT-PD files: what is written is what is read, and lies where it was written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deft_ct.datasets.ellipsoids import Ellipsoid, EllipsoidPhantom
from deft_ct.datasets.ldct_geometry import helical_scan, patient_affine, patient_signs
from deft_ct.datasets.ldct_projection import is_projection_folder, read_projections
from deft_ct.datasets.synthetic_ct_pd import SyntheticScan, as_reconstructed, trunk, write_synthetic_scan

TINY = SyntheticScan(
    turns=1.5, views_per_turn=16, rows=4, columns=12, column_mm=40.0, flying_focal_spot="FFSXYZ",
    spot_mm=(6.0, 2.0, 3.0), pitch=0.8, z_mm=50.0,
)  # fmt: skip
PHANTOM = EllipsoidPhantom(
    (Ellipsoid(center_mm=(30.0, 10.0, 52.0), semi_axes_mm=(60.0, 40.0, 25.0), value=0.02, angle=0.3),)
)


@pytest.mark.parametrize("maker", ["SIEMENS", "GE MEDICAL SYSTEMS"])
@pytest.mark.parametrize("clockwise", [False, True])
def test_files_come_back(tmp_path: Path, maker: str, clockwise: bool) -> None:
    scan = SyntheticScan(**{**vars(TINY), "manufacturer": maker, "clockwise": clockwise, "pitch": -0.8})
    folder = write_synthetic_scan(tmp_path / "scan", PHANTOM, scan)
    found = read_projections(folder, reverse_rows=False)
    truth = np.stack(list(scan.projections(PHANTOM)))
    assert truth.max() > 1
    np.testing.assert_allclose(found.projections.numpy(), truth, atol=2e-4)
    np.testing.assert_allclose(found.angles - found.angles[0], scan.angles() - scan.angles()[0], atol=1e-5)
    np.testing.assert_allclose(found.z_mm, scan.z(), atol=1e-4)
    if maker == "SIEMENS":
        np.testing.assert_allclose(found.focal_shifts, scan.shifts(), atol=1e-6)
        assert found.flying_focal_spot == "FFSXYZ"
    else:
        assert not found.focal_shifts.any()
    assert found.mu_water == pytest.approx(0.0192) and len(set(found.sop_uids)) == scan.views
    assert found.header.PatientID == "PHANTOM" and not any(element.tag.is_private for element in found.header)


def test_rays_of_the_geometry_are_those_that_were_written(tmp_path: Path) -> None:
    """The file's source and elements in the format's axes, mirrored in x, are those of the scan; the ray sums agree."""
    projections = read_projections(write_synthetic_scan(tmp_path / "scan", PHANTOM, TINY), reverse_rows=False)
    scan = helical_scan(projections)
    turn, axial, outward = TINY.shifts().T
    angle, radius = TINY.angles() + turn, TINY.radius_mm + outward
    source = np.stack([radius * np.sin(angle), radius * np.cos(angle), TINY.z() + axial], -1)
    np.testing.assert_allclose(scan.sources(), source, atol=2e-3)
    element = scan.columns()[:, None] + np.arange(4)[:, None, None] * [0.0, 0.0, TINY.row_mm]
    ray = element - scan.sources()[:, None, None]
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    total = np.zeros(ray.shape[:-1])
    for part in as_reconstructed(PHANTOM).parts:
        o, d = part.normalised(scan.sources()[:, None, None]), part.normalised(ray, vectors=True)
        dd, od = (d * d).sum(-1), (o * d).sum(-1)
        total += part.value * 2 * np.sqrt(np.maximum(od**2 - dd * ((o * o).sum(-1) - 1), 0)) / dd
    np.testing.assert_allclose(projections.projections.numpy(), total, atol=1e-3)


def test_rows_that_are_turned_round_take_their_centre_along(tmp_path: Path) -> None:
    folder = write_synthetic_scan(tmp_path / "scan", PHANTOM, TINY)
    given, turned = (read_projections(folder, reverse_rows=reverse) for reverse in (False, True))
    np.testing.assert_array_equal(turned.projections.numpy(), given.projections.numpy()[:, ::-1])
    assert given.central_element[1] + turned.central_element[1] == pytest.approx(TINY.rows + 1)
    assert given.central_element[0] == turned.central_element[0]


def test_folders_of_projections_are_known(tmp_path: Path) -> None:
    folder = write_synthetic_scan(tmp_path / "scan", PHANTOM, TINY)
    (folder / "0000_readme.txt").write_text("not DICOM")
    assert is_projection_folder(folder)
    assert not is_projection_folder(tmp_path) and not is_projection_folder(tmp_path / "none")
    assert not is_projection_folder(next(folder.glob("*.dcm")))


def test_other_detectors_are_refused(tmp_path: Path) -> None:
    projections = read_projections(write_synthetic_scan(tmp_path / "scan", PHANTOM, TINY))
    object.__setattr__(projections, "detector_shape", "FLAT")
    with pytest.raises(ValueError, match="'FLAT' are not supported: expected CYLINDRICAL"):
        helical_scan(projections)


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFP", "FFP"])
def test_patients_are_turned_and_never_mirrored(position: str) -> None:
    """The format's axes are right-handed, and so are left, back and head."""
    signs = np.array(patient_signs(position))
    assert np.prod(signs * [-1, 1, 1]) == 1  # x of a reconstruction is mirrored
    x, y, z = np.array([-2.0, 0.0, 2.0]), np.array([3.0, 1.0]), np.array([10.0, 12.0, 14.0, 16.0])
    affine, flipped = patient_affine(position, x, y, z, (2.0, 2.0))
    assert (np.diag(affine) > 0).all() and affine[3].tolist() == [0, 0, 0, 1]
    volume = np.stack(np.meshgrid(z, y, x, indexing="ij"), -1)  # every voxel knows its place
    turned = np.flip(volume, flipped)
    k, j, i = 1, 0, 2
    np.testing.assert_allclose((affine @ [i, j, k, 1])[:3], signs * turned[k, j, i][::-1])


def test_a_patient_on_the_side_is_refused() -> None:
    with pytest.raises(ValueError, match="PatientPosition 'HFDR' is not supported: expected HFS, FFS, HFP, FFP"):
        patient_signs("HFDR")


def test_the_trunk_holds_what_it_says() -> None:
    hu = (trunk(0.02).volume((1, 101, 101), (1.0, 2.0, 2.0)).numpy()[0] / 0.02 - 1) * 1000
    assert hu[0, 0] == -1000 and hu[50, 5] == pytest.approx(0)
    assert hu.max() == pytest.approx(400, abs=1) and (np.abs(hu + 800) < 1).sum() > 500
    assert math.isclose(trunk(0.02).parts[0].semi_axes_mm[2], 400.0)
