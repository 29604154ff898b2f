"""From DICOM-CT-PD files of a phantom to a DICOM volume in HU; no real file could be had."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from deft_ct.datasets.ellipsoids import Ellipsoid, EllipsoidPhantom
from deft_ct.datasets.ldct_projection import read_projections
from deft_ct.datasets.synthetic_ct_pd import SyntheticScan, trunk, write_synthetic_scan
from deft_ct.io import read_dicom_series, read_nifti
from deft_ct.io.dicom_ct_pd import WATER_ATTENUATION
from deft_ct.operators.findings import DataWarning
from deft_ct.workflows.experiments.helix_accuracy import HelixCase, circular_limit, helix_accuracy, written
from deft_ct.workflows.projection_series import Slices
from deft_ct.workflows.reconstruct_projections import HelixSettings, reconstruct_projections
from deft_ct.workflows.series_output import Output

BASE = SyntheticScan(turns=2.0, views_per_turn=160, columns=100, column_mm=4.6)
SPOT = (4.0, 3.0, 2.0)
CASES = {
    "pitch 1": BASE,
    "pitch 0.6, spot along z, angle falls": replace(
        BASE, pitch=0.6, turns=3.0, views_per_turn=240, flying_focal_spot="FFSZ", spot_mm=SPOT, clockwise=True
    ),
    "pitch -1, GE, head first": replace(BASE, pitch=-1.0, manufacturer="GE MEDICAL SYSTEMS", patient_position="HFS"),
    "pitch -0.6, spot in the plane": replace(
        BASE, pitch=-0.6, turns=3.0, views_per_turn=240, flying_focal_spot="FFSXY", spot_mm=SPOT, z_mm=25.0
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_water_has_0_hu_and_the_error_is_near_that_of_a_circular_scan(name: str, tmp_path: Path) -> None:
    case = HelixCase(scan=CASES[name], count=3)
    files, limit = written(case, tmp_path / "files"), circular_limit(case)
    for method in ("fbp", "rebinned fbp"):
        found = helix_accuracy(case, files, tmp_path / method.replace(" ", "_"), method, {})
        assert abs(found.water_bias) <= 5, (method, found)
        assert found.rmse <= 1.6 * limit.rmse, (method, found, limit)
        assert not found.warnings


def test_a_focal_spot_that_is_not_heeded_shows(tmp_path: Path) -> None:
    """The same files without the shifts of the source: what the geometry of each view is good for."""
    case = HelixCase(scan=CASES["pitch -0.6, spot in the plane"], count=1)
    files = written(case, tmp_path / "files")
    right = helix_accuracy(case, files, tmp_path / "right", "fbp", {})
    for path in files.iterdir():
        image = pydicom.dcmread(path)
        image[0x7033, 0x100B].value = 0.0
        image.save_as(path)
    wrong = helix_accuracy(case, files, tmp_path / "wrong", "fbp", {})
    assert wrong.rmse > 1.15 * right.rmse


@pytest.mark.parametrize("method", ["cgls", "rebinned tv"])
def test_iterative_methods_on_the_helix_and_on_slices(method: str, tmp_path: Path) -> None:
    scan = replace(BASE, views_per_turn=80, columns=50, column_mm=9.2, rows=8, row_mm=4.4)
    case = HelixCase(scan=scan, size=40, slice_mm=3.0, count=3)
    options = {"iterations": 15} if method == "cgls" else {"iterations": 40}
    found = helix_accuracy(case, written(case, tmp_path / "files"), tmp_path / "out", method, options)
    assert found.rmse < 150
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["reconstruction"]["data_residual"] < 0.1
    operator = record["reconstruction"]["measurement"]["operator"]
    assert ("HelicalTransform" in json.dumps(operator)) == (method == "cgls")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan of a few slices."""
    scan = replace(BASE, views_per_turn=60, columns=40, column_mm=11.5, rows=8, row_mm=4.4, patient_position="HFS")
    return write_synthetic_scan(tmp_path_factory.mktemp("ct_pd") / "scan", trunk(scan.mu_water), scan)


SMALL = HelixSettings(slices=Slices(size=24, slice_mm=3.0))


def test_everything_is_written_and_says_what_it_is(files: Path, tmp_path: Path) -> None:
    run = reconstruct_projections(files, tmp_path / "out", SMALL)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dicom", "mean.nii.gz", "planes.png", "report.html", "run.json"}
    series = read_dicom_series(tmp_path / "out" / "dicom" / "mean")
    np.testing.assert_allclose(series.hu, np.clip(np.rint(run.hu), -1024, None), atol=0.51)
    np.testing.assert_allclose(read_nifti(tmp_path / "out" / "mean.nii.gz").hu, np.maximum(run.hu, -1024), atol=1e-3)
    header, projections = series.headers[0], read_projections(files)
    assert header.PatientID == "PHANTOM" and header.StudyInstanceUID == projections.header.StudyInstanceUID
    assert header.SourceImageSequence[0].ReferencedSOPInstanceUID in projections.sop_uids
    assert header.DerivationDescription.startswith("reconstruction of helical projections; research only")
    assert "unverified on a real file" in header.DerivationDescription
    assert "simulated" not in header.DerivationDescription + header.ImageComments
    assert "NOT FOR CLINICAL USE" in header.SeriesDescription
    page = (tmp_path / "out" / "report.html").read_text()
    assert "unverified on a real file" in page and "simulated" not in page
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["scan"]["pitch"] == pytest.approx(1.0, rel=1e-4) and record["settings"]["method"] == "fbp"
    assert record["hounsfield"] == {"mu_water_per_mm": pytest.approx(0.0192), "mu_air_per_mm": 0.0}
    with pytest.raises(FileExistsError):
        reconstruct_projections(files, tmp_path / "out", SMALL)
    again = reconstruct_projections(files, tmp_path / "out", SMALL, output=Output(overwrite=True))
    np.testing.assert_array_equal(again.hu, run.hu)


def test_slices_lie_at_their_place_in_the_patient(tmp_path: Path) -> None:
    """Head first: the head is where z falls, and the patient's left is where the format's x rises."""
    phantom = EllipsoidPhantom(
        (
            Ellipsoid(center_mm=(0.0, 0.0, 0.0), semi_axes_mm=(100.0, 80.0, 400.0), value=0.01),
            Ellipsoid(center_mm=(45.0, 25.0, 8.0), semi_axes_mm=(30.0, 30.0, 9.0), value=0.02),
        )
    )
    scan = replace(BASE, views_per_turn=60, columns=40, column_mm=11.5, rows=8, row_mm=4.4, patient_position="HFS")
    files = write_synthetic_scan(tmp_path / "scan", phantom, scan)
    run = reconstruct_projections(files, tmp_path / "out", SMALL)
    volume = run.place.series.volume
    k, j, i = np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij")
    left, back, head = np.moveaxis((np.stack([i, j, k, np.ones_like(i)], -1) @ volume.affine.T)[..., :3], -1, 0)
    points = np.stack([left, -back, -head], -1)
    mu = np.zeros(volume.shape)
    for part in phantom.parts:
        mu += part.value * ((part.normalised(points) ** 2).sum(-1) <= 1)
    truth = (mu / 0.0192 - 1) * 1000
    error = float(np.sqrt(((run.hu - truth) ** 2).mean()))
    for axis in range(3):
        assert error < 0.8 * float(np.sqrt(((np.flip(run.hu, axis) - truth) ** 2).mean()))


def test_the_range_of_slices(files: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, slices=Slices(size=24, slice_mm=3.0, z_range=(-3.0, 3.0), fov_mm=240.0))
    run = reconstruct_projections(files, tmp_path / "out", settings)
    assert run.hu.shape == (3, 24, 24) and run.place.series.pixel_mm == pytest.approx(10.0)
    np.testing.assert_allclose(run.place.series.volume.affine[2, 3], -3.0)
    settings = replace(SMALL, slices=Slices(size=24, z_range=(-3.0, 90.0)))
    with pytest.raises(ValueError, match="not all measured from all sides: choose them from -"):
        reconstruct_projections(files, tmp_path / "none", settings)
    with pytest.raises(ValueError, match="finer than the way of the table"):
        reconstruct_projections(files, tmp_path / "none", replace(SMALL, slices=Slices(slice_mm=0.01)))
    assert not (tmp_path / "none").exists()


def test_water_of_the_header_of_the_user_or_of_neither(files: Path, tmp_path: Path) -> None:
    own = reconstruct_projections(files, tmp_path / "own", SMALL)
    given = reconstruct_projections(files, tmp_path / "given", replace(SMALL, mu_water=0.024))
    np.testing.assert_allclose(given.hu, (own.hu + 1000) * 0.0192 / 0.024 - 1000, atol=0.01)
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in files.iterdir():
        image = pydicom.dcmread(path)
        del image[WATER_ATTENUATION]
        image.save_as(bare / path.name)
    with pytest.warns(DataWarning, match="HU are not calibrated: the files have no attenuation of water"):
        run = reconstruct_projections(bare, tmp_path / "out", SMALL)
    assert any("not calibrated" in text for text in run.warnings)
    assert "not calibrated" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ValueError, match="mu_water must lie in"):
        HelixSettings(mu_water=0.2)


def test_a_missing_position_of_the_patient_is_said(tmp_path: Path) -> None:
    scan = replace(BASE, views_per_turn=60, columns=40, column_mm=11.5, rows=8, row_mm=4.4, patient_position="")
    files = write_synthetic_scan(tmp_path / "scan", trunk(scan.mu_water), scan)
    run = reconstruct_projections(files, tmp_path / "out", SMALL)
    assert any("no PatientPosition: HFS" in note for note in run.place.notes)


def test_what_cannot_be_reconstructed_is_said_first(files: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for path in sorted(files.iterdir())[:24]:
        (short / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="less than half a turn of complete parallel views"):
        reconstruct_projections(short, tmp_path / "out", SMALL)
    fast = replace(BASE, pitch=2.6, turns=0.7, views_per_turn=60, columns=40, column_mm=11.5, rows=4)
    write_synthetic_scan(tmp_path / "fast", trunk(fast.mu_water), fast)
    with pytest.raises(ValueError, match="no slice is measured from all sides: the table moves"):
        reconstruct_projections(tmp_path / "fast", tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match="unmeasured_map is for simulated scans"):
        reconstruct_projections(files, tmp_path / "out", SMALL, output=Output(unmeasured_map=True))
    with pytest.raises(ValueError, match="unknown method"):
        HelixSettings(method="none")
    for change, why in (
        ({"size": 4}, "at least 8"), ({"fov_mm": -1.0}, "fov_mm must be"), ({"z_range": (2.0, 1.0)}, "smaller first"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            Slices(**change)


@pytest.mark.parametrize("rebin", [False, True])
def test_a_table_that_moves_too_fast_is_warned_of(rebin: bool, tmp_path: Path) -> None:
    scan = replace(BASE, pitch=2.6, views_per_turn=60, columns=40, column_mm=11.5, rows=4, row_mm=4.4)
    files = write_synthetic_scan(tmp_path / "scan", trunk(scan.mu_water), scan)
    with pytest.warns(DataWarning, match="of the rays of a slice were not measured"):
        run = reconstruct_projections(files, tmp_path / "out", replace(SMALL, rebin=rebin))
    assert any("missing rays" in text for text in run.warnings)
    assert "were not measured" in (tmp_path / "out" / "report.html").read_text()


def test_rows_in_the_wrong_order_are_warned_of(tmp_path: Path) -> None:
    scan = replace(BASE, views_per_turn=400, columns=40, column_mm=11.5, rows=16, turns=2.2, pitch=0.7)
    slanted = EllipsoidPhantom(
        tuple(
            Ellipsoid(center_mm=(0.0, 0.0, z), semi_axes_mm=(60.0, 60.0, 6.0), value=0.01, angle=0.0)
            for z in np.arange(-120.0, 120.0, 16.0).tolist()
        )
    )
    files = write_synthetic_scan(tmp_path / "scan", slanted, scan)
    quick = replace(SMALL, slices=Slices(size=16, slice_mm=4.0, z_range=(-4.0, 4.0)))
    assert not reconstruct_projections(files, tmp_path / "right", quick).warnings
    with pytest.warns(DataWarning, match="slices are probably mixed up, try the other order"):
        reconstruct_projections(files, tmp_path / "wrong", replace(quick, reverse_rows=True))
