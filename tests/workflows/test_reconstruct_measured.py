"""From files of projections of a phantom to images in 1/mm and HU, in every format that is written."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from measured_files import (
    FLUID,
    HOLE,
    PARALLEL,
    PHANTOM,
    WATER,
    lines,
    write_cil,
    write_data_exchange,
    write_htc,
)

from deft_ct.ct.calibration import Disc, WaterAndAir
from deft_ct.datasets.measured_scan import MeasuredScan
from deft_ct.datasets.scan_description import ScanDescription
from deft_ct.io import read_dicom_series, read_nifti
from deft_ct.operators.findings import DataWarning
from deft_ct.workflows.reconstruct_measured import MeasuredSettings, prepared, reconstruct_measured
from deft_ct.workflows.series_output import Output

SCAN = ScanDescription(beam="parallel", detector_mm=1.0)
PLACES = WaterAndAir(water=Disc(*FLUID), air=Disc(*HOLE))
PLAIN = MeasuredSettings(scan=SCAN, photons=0, size=64, fov_mm=64.0)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    np.save(tmp_path / "scan.npy", lines(PARALLEL))
    return tmp_path / "scan.npy"


def truth(side: int = 64, pixel: float = 1.0) -> np.ndarray:
    return PHANTOM.image((side, side), pixel, oversampling=8)[0].numpy()


def error(image: np.ndarray, true: np.ndarray) -> float:
    """RMSE relative to water."""
    return float(np.sqrt(((image - true) ** 2).mean())) / WATER


def test_attenuation_in_every_file(plain: Path, tmp_path: Path) -> None:
    run = reconstruct_measured(plain, tmp_path / "out", PLAIN)
    assert run.unit == "1/mm" and run.units is None and error(run.mean[0], truth()) < 0.12
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dicom", "mean.nii.gz", "result.h5", "slices.png", "report.html", "run.json"}
    image = pydicom.dcmread(tmp_path / "out" / "dicom" / "mean" / "0001.dcm")
    values = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    np.testing.assert_allclose(values, 1000 * run.mean[0], atol=1e-3)
    assert image.RescaleType == "US" and image.WindowWidth >= 1 and image.PixelSpacing == [1.0, 1.0]
    mapping = image.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "/m"
    assert mapping.RealWorldValueSlope == float(image.RescaleSlope)
    assert "1/m, not HU" in image.ImageComments and "SourceImageSequence" not in image
    assert image.ImagePositionPatient == [-31.5, -31.5, 0.0]
    stored = nibabel.load(tmp_path / "out" / "mean.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj)[..., 0].T, run.mean[0])
    assert stored.header["descrip"].item().decode().startswith("1/mm")
    with h5py.File(tmp_path / "out" / "result.h5") as file:
        assert set(file) == {"attenuation"} and file["attenuation"].attrs["units"] == "1/mm"
        np.testing.assert_array_equal(file["attenuation"][:], run.mean)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["unit"] == "1/mm" and record["hounsfield"] is None and record["slices"] == [1]
    assert record["source"]["file"] == str(plain) and record["geometry"]["kind"] == "parallel"
    assert "line integrals" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("method", ["fbp", "tv"])
def test_hounsfield_units_from_water_and_air(plain: Path, tmp_path: Path, method: str) -> None:
    options = {"iterations": 30} if method == "tv" else {}
    settings = replace(PLAIN, method=method, options=options, photons=1e5, calibration=PLACES)
    run = reconstruct_measured(plain, tmp_path / "out", settings)
    masks = {name: Disc(*place).mask((64, 64), 1.0) for name, place in (("water", FLUID), ("air", HOLE))}
    assert run.unit == "HU" and run.shown[0][masks["water"]].mean() == pytest.approx(0, abs=0.01)
    assert run.shown[0][masks["air"]].mean() == pytest.approx(-1000, abs=12), "air below zero counts as zero"
    assert run.units is not None and run.units.mu_water == pytest.approx(WATER, rel=0.02)
    series = read_dicom_series(tmp_path / "out" / "dicom" / "mean")
    np.testing.assert_allclose(series.hu, run.shown, atol=0.51)
    np.testing.assert_allclose(read_nifti(tmp_path / "out" / "mean.nii.gz").hu, run.shown, atol=1e-3)
    with h5py.File(tmp_path / "out" / "result.h5") as file:
        assert file["hu"].attrs["units"] == "HU" and float(file["attenuation"][:].max()) < 0.05
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["reconstruction"]["calibration"]["water"]["disc_mm"] == list(FLUID)
    assert record["hounsfield"]["mu_water_per_mm"] == pytest.approx(run.units.mu_water)


def test_independent_readers_see_the_same_place_and_values(plain: Path, tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    settings = replace(PLAIN, calibration=WaterAndAir(water=WATER), slice_mm=2.5)
    run = reconstruct_measured(plain, tmp_path / "out", settings)
    image = itk.ReadImage(str(tmp_path / "out" / "dicom" / "mean" / "0001.dcm"))
    assert image.GetOrigin() == (-31.5, -31.5, 0.0) and image.GetSpacing()[:2] == (1.0, 1.0)
    np.testing.assert_allclose(itk.GetArrayFromImage(image), run.shown, atol=0.51)
    nifti = itk.ReadImage(str(tmp_path / "out" / "mean.nii.gz"))
    assert nifti.GetOrigin() == pytest.approx(image.GetOrigin()) and nifti.GetSpacing() == (1.0, 1.0, 2.5)
    np.testing.assert_allclose(itk.GetArrayFromImage(nifti), run.shown, atol=1e-3)


def test_frames_in_time(tmp_path: Path) -> None:
    path = write_cil(tmp_path / "a.nxs")
    run = reconstruct_measured(path, tmp_path / "out", MeasuredSettings(photons=0, size=48, chosen=(2, 3)))
    assert run.names == ["frame 2 of 3", "frame 3 of 3"]
    np.testing.assert_allclose(run.mean[1], 1.5 * run.mean[0], atol=1e-5)
    assert nibabel.load(tmp_path / "out" / "mean.nii.gz").shape == (48, 48, 1, 2)
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "out" / "dicom" / "mean").iterdir())]
    assert [image.AcquisitionNumber for image in images] == [2, 3]
    assert images[0].ImagePositionPatient == images[1].ImagePositionPatient
    assert len({image.SOPInstanceUID for image in images}) == 2
    one = reconstruct_measured(path, tmp_path / "one", MeasuredSettings(photons=0, size=48, chosen=(3, 3)))
    np.testing.assert_array_equal(one.mean[0], run.mean[1])


def test_many_slices_are_those_of_each(tmp_path: Path) -> None:
    """Parts of a scan do not depend on each other."""
    settings = MeasuredSettings(photons=0, size=24, scan=SCAN)
    run = reconstruct_measured(write_data_exchange(tmp_path / "a.h5", slices=10), tmp_path / "out", settings)
    assert run.mean.shape == (10, 24, 24)
    last = reconstruct_measured(tmp_path / "a.h5", tmp_path / "last", replace(settings, chosen=(10, 10)))
    np.testing.assert_allclose(last.mean[0], run.mean[9], rtol=1e-5, atol=1e-7)
    positions = [pydicom.dcmread(p).ImagePositionPatient[2] for p in sorted((tmp_path / "out/dicom/mean").iterdir())]
    assert positions == list(range(10))


def test_lengths_that_are_not_known(tmp_path: Path) -> None:
    run = reconstruct_measured(write_data_exchange(tmp_path / "a.h5"), tmp_path / "out")
    assert run.unit == "1/element" and "of 1 element, in 1/element" in run.in_words
    image = pydicom.dcmread(tmp_path / "out" / "dicom" / "mean" / "0001.dcm")
    assert "a millimetre of this file is a detector element" in image.ImageComments


def test_data_of_another_axis_are_moved_back_and_the_axis_is_found_or_asked_for(tmp_path: Path) -> None:
    path = write_data_exchange(tmp_path / "a.h5", center=42.0, slices=1)
    settings = replace(PLAIN, scan=SCAN, size=None, fov_mm=None)
    with pytest.warns(DataWarning):
        moved = reconstruct_measured(path, tmp_path / "moved", settings)
    assert re.search(
        "column 39.5, the middle of the detector, is taken; the data suggest 4(1.9|2.0)", moved.warnings[0]
    )
    assert [text.endswith("(--raw center=auto, or align=center)") for text in moved.warnings[1:]] == [True]
    assert "repaired" in moved.warnings[1]
    run = reconstruct_measured(path, tmp_path / "out", replace(settings, center="auto"))
    assert run.mean.shape == (1, 75, 75) and not run.warnings
    assert any("axis found at detector column 42.0" in note or "column 41.9" in note for note in run.notes)
    aligned = reconstruct_measured(path, tmp_path / "aligned", replace(settings, center=41.0, align="center"))
    assert aligned.corrections["axis_column"] == pytest.approx(42.0, abs=0.1)
    for image in (run, aligned, moved):
        assert error(image.mean[0], truth(*image.mean.shape[1:2])) < 0.12


@pytest.mark.parametrize("method", ["fbp", "tv"])
def test_truncated_data(tmp_path: Path, method: str) -> None:
    narrow = PARALLEL.replace(detectors=34)
    np.save(tmp_path / "cut.npy", lines(narrow))
    options = {"iterations": 60} if method == "tv" else {}
    settings = MeasuredSettings(scan=SCAN, method=method, options=options, photons=1e5)
    true = truth(34)
    y, x = np.mgrid[:34, :34] - 16.5
    inner = np.hypot(x, y) < 15

    def left(image: np.ndarray) -> float:
        return float(np.sqrt(((image - true)[inner] ** 2).mean())) / WATER

    with (
        pytest.warns(DataWarning, match="truncated") if method == "tv" else nullcontext()
    ):  # its data are cut off still
        run = reconstruct_measured(tmp_path / "cut.npy", tmp_path / "out", settings)
    assert bool(run.warnings) == (method == "tv")
    with pytest.warns(DataWarning, match="truncated views"):
        ignored = reconstruct_measured(
            tmp_path / "cut.npy", tmp_path / "ignored", replace(settings, continue_truncated=False)
        )
    assert run.mean.shape == (1, 34, 34) and any("wider than the detector" in note for note in run.notes)
    assert left(run.mean[0]) < 0.6 * left(ignored.mean[0]), (left(run.mean[0]), left(ignored.mean[0]))


def test_a_limited_arc_and_noise_are_said(tmp_path: Path) -> None:
    half = PARALLEL.replace(angles=PARALLEL.angle_array[:45])
    np.save(tmp_path / "a.npy", lines(half))
    settings = MeasuredSettings(scan=ScanDescription(detector_mm=1.0, arc=90.0))
    with pytest.warns(DataWarning, match="cover 90 degrees, 50% of the rays are not measured"):
        run = reconstruct_measured(tmp_path / "a.npy", tmp_path / "out", settings)
    assert any("estimated from the data" in note for note in run.notes)
    assert run.record["measurement"]["noise"]["photons"] == run.corrections["photons"]


def test_rings_are_removed() -> None:
    pytest.importorskip("algotom")
    wide = PARALLEL.replace(views=361, detectors=400, detector_mm=0.2)
    clean = lines(wide) + np.random.default_rng(0).normal(0, 0.01, (361, 400)).astype(np.float32)
    bad, gain = [160, 210, 260], np.zeros(400, np.float32)
    gain[bad] = 0.1, -0.08, 0.12
    scan = MeasuredScan(sinogram=torch.from_numpy(clean + gain)[None, None], geometry=wide, layout="made here")
    task = prepared(scan, MeasuredSettings(rings=True))
    error_left = (task.sinogram[0, 0].numpy() - clean).mean(0)[bad]
    assert (np.abs(error_left) < 0.3 * np.abs(gain[bad])).all() and any("stripes" in note for note in task.notes)


def test_a_network_needs_a_scale(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dps needs images in HU: give the attenuation of water"):
        MeasuredSettings(method="dps")
    assert MeasuredSettings(method="dps", calibration=WaterAndAir(water=0.02)).needs_scale


def test_the_same_uids_again(plain: Path, tmp_path: Path) -> None:
    first, again = (reconstruct_measured(plain, tmp_path / name, PLAIN) for name in ("a", "b"))
    uids = [pydicom.dcmread(run.folder / "dicom/mean/0001.dcm").SOPInstanceUID for run in (first, again)]
    assert uids[0] == uids[1]
    with pytest.raises(FileExistsError):
        reconstruct_measured(plain, tmp_path / "a", PLAIN)
    reconstruct_measured(plain, tmp_path / "a", PLAIN, output=Output(overwrite=True))


def test_no_name_of_a_file_leaves_the_house(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "theta.txt").write_text("\n".join(map(str, np.degrees(PARALLEL.angle_array))))
    scan = replace(SCAN, angles=str(tmp_path / "theta.txt"))
    run = reconstruct_measured(plain, tmp_path / "out", replace(PLAIN, scan=scan), output=Output(deidentify=True))
    texts = [(run.folder / name).read_bytes() for name in ("run.json", "report.html", "result.h5")]
    assert not any(name in text for text in texts for name in (b"theta.txt", b"scan.npy", str(tmp_path).encode()))
    image = pydicom.dcmread(run.folder / "dicom" / "mean" / "0001.dcm")
    assert image.PatientIdentityRemoved == "YES" and "SourceImageSequence" not in image


def test_faults_before_any_work(plain: Path, tmp_path: Path) -> None:
    for change, why in (
        ({"size": 4}, "at least 8"), ({"fov_mm": 0.0}, "positive number of mm"), ({"photons": -1.0}, "photons must be"),
        ({"method": "none"}, "unknown method"), ({"samples": -1}, "at least 0"), ({"align": "x"}, "align must be"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            MeasuredSettings(**change)
    with pytest.raises(ValueError, match="unmeasured_map is for simulated scans"):
        reconstruct_measured(plain, tmp_path / "out", PLAIN, output=Output(unmeasured_map=True))
    away = replace(PLAIN, calibration=WaterAndAir(water=Disc(60.0, 0.0, 3.0)))
    with pytest.raises(ValueError, match="choose one inside of it"):
        reconstruct_measured(plain, tmp_path / "out", away)
    with pytest.raises(FileNotFoundError):
        reconstruct_measured(tmp_path / "none.mat", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert reconstruct_measured(write_htc(tmp_path / "a.mat"), tmp_path / "out").geometry.kind == "fan"
