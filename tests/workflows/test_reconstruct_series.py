"""The pipeline with a sampling method of known mean and spread: every output carries the same numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch

from deft_ct.ct.scan import Scan
from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.methods.registry import Networks, method_title
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor
from deft_ct.workflows import series_job as job
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

SIZE = 64


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class FakeSampler(Reconstructor):
    """FBP plus and minus 30 HU: two samples whose mean is FBP and whose standard deviation is 30 sqrt(2) HU."""

    name = "deft"
    config_type = NoConfig

    def _estimate(self, request: Request) -> Estimate:
        fbp = request.measurement.operator.pseudo_inverse(request.y)
        units = request.measurement.units
        assert units is not None and request.num_samples == 2
        step = 30.0 * units.affine.scale
        return Estimate(samples=torch.stack([fbp - step, fbp + step], dim=1))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Networks, name: str, *__: Any, **___: Any) -> Reconstructor:
        assert name == "deft"
        return FakeSampler(NoConfig())

    monkeypatch.setattr(Networks, "build", build)


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.usefixtures("fake")
def test_every_output_carries_the_same_numbers(geometry: str, tmp_path: Path) -> None:
    settings = SparseView(compare=(), views=40, samples=2, size=SIZE, geometry=geometry, photons=1e6)
    run = reconstruct_series(sample_series_path(), tmp_path / "out", settings)
    assert run.folder == tmp_path / "out" and [row.method for row in run.rows] == ["DEFT mean"]

    source = read_dicom_series(sample_series_path()).resampled(512 // SIZE)
    spread = np.asarray(nibabel.load(run.folder / "spread.nii.gz").dataobj)
    np.testing.assert_allclose(spread, 30 * np.sqrt(2), atol=0.05)
    files = sorted((run.folder / "dicom" / "spread").glob("*.dcm"))
    assert len(files) == len(source)
    image = pydicom.dcmread(files[0])
    stored = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    np.testing.assert_allclose(stored, 30 * np.sqrt(2), atol=0.06)
    assert "2 samples, uncalibrated spread" in image.DerivationDescription

    mean = np.asarray(nibabel.load(run.folder / "mean.nii.gz").dataobj).transpose(2, 1, 0)
    scan = job.simulate_scan(source, settings)
    computed = source.units.to_hu(scan.measurement.operator.pseudo_inverse(scan.y))[:, 0].numpy()
    assert computed.min() < -1024, "else the next line says nothing about the values below"
    np.testing.assert_allclose(mean, np.maximum(computed, -1024), atol=0.02)
    error = computed - np.maximum(source.hu, source.units.to_hu(0.0))
    (record,) = json.loads((run.folder / "run.json").read_text())["metrics"]
    rmse = np.sqrt((error**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(record["metrics"]["psnr"]["per_slice"], 20 * np.log10(2000 / rmse), atol=1e-3)
    assert record["metrics"]["psnr"]["mean"] > 15


@pytest.mark.usefixtures("fake")
def test_what_was_not_measured_is_written_on_demand(tmp_path: Path) -> None:
    settings = SparseView(compare=(), views=12, samples=2, size=SIZE, photons=1e4)
    run = reconstruct_series(sample_series_path(), tmp_path / "out", settings, output=Output(unmeasured_map=True))
    found, mean = (np.asarray(nibabel.load(run.folder / f"{name}.nii.gz").dataobj) for name in ("unmeasured", "mean"))
    assert found.shape == mean.shape and found.min() >= 0
    assert 1 < np.sqrt((found**2).mean()) < 200  # HU
    assert (run.folder / "unmeasured.png").is_file()
    assert "what the scan did not measure" in (run.folder / "report.html").read_text()
    again = reconstruct_series(sample_series_path(), tmp_path / "out", settings, output=Output(overwrite=True))
    assert not (again.folder / "unmeasured.png").exists()


@pytest.mark.usefixtures("fake")
def test_seed_and_slice_decide_the_noise(tmp_path: Path) -> None:
    def mean(name: str, seed: int) -> Any:
        settings = SparseView(compare=(), views=20, samples=2, size=SIZE, seed=seed, photons=1e4)
        run = reconstruct_series(sample_series_path(), tmp_path / name, settings)
        return np.asarray(nibabel.load(run.folder / "mean.nii.gz").dataobj)

    first = mean("a", 0)
    np.testing.assert_array_equal(first, mean("b", 0))
    assert np.abs(first - mean("c", 1)).max() > 1.0


def test_missing_networks_and_bad_settings_fail_before_the_input_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        reconstruct_series(tmp_path / "no-such-input", tmp_path / "out", SparseView(prior=str(tmp_path / "gone")))
    with pytest.raises(ValueError, match="refine must be at least 1"):
        SparseView(refine=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device; use cpu"):
            SparseView(device="cuda")


def test_methods_are_run_once_the_main_one_last() -> None:
    assert SparseView(method="tv", compare=("fbp", "tv", "fbp")).methods == ("fbp", "tv")
    assert SparseView(views=60, photons=1e5).summary == "60 parallel views, 100,000 photons"


@pytest.mark.usefixtures("fake")
def test_zero_photons_give_data_without_noise(tmp_path: Path) -> None:
    settings = SparseView(compare=(), views=40, samples=2, size=SIZE, photons=0)
    assert settings.scan == Scan(views=40, photons=None) and settings.summary == "40 parallel views, noise-free"
    run = reconstruct_series(sample_series_path(), tmp_path / "out", settings)
    noisy = reconstruct_series(sample_series_path(), tmp_path / "noisy", replace(settings, photons=1e3))
    assert run.rows[0].metrics.psnr.mean() > noisy.rows[0].metrics.psnr.mean() + 1
    series = read_dicom_series(sample_series_path()).fitted(SIZE)
    seeds = [job.simulate_scan(series, replace(settings, seed=seed)).y for seed in (0, 1)]
    torch.testing.assert_close(*seeds, rtol=0, atol=0)


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize("start", [0.0, 45.0])
def test_a_limited_arc_is_that_of_the_scan_of_its_name(geometry: str, start: float) -> None:
    settings = SparseView(views=30, geometry=geometry, degrees=120, start=start, size=SIZE)
    series = read_dicom_series(sample_series_path()).resampled(512 // SIZE)
    found = job.simulated_measurement(series, settings).operator.geometry
    expected = math.radians(start) + np.arange(30) * math.radians(120) / 30
    np.testing.assert_allclose(found.angles, expected, atol=1e-12)
    assert settings.summary.startswith(f"30 {geometry} views over 120 degrees")
    assert settings.scan.name.startswith(f"{geometry}30_1e5_120deg")


def test_a_full_scan_is_the_one_without_an_arc() -> None:
    series = read_dicom_series(sample_series_path()).resampled(512 // SIZE)
    for geometry, turn in (("parallel", 180), ("fan", 360)):
        told = job.simulated_measurement(series, SparseView(geometry=geometry, degrees=turn, size=SIZE))
        usual = job.simulated_measurement(series, SparseView(geometry=geometry, size=SIZE))
        assert told.operator.geometry == usual.operator.geometry


def test_impossible_arcs_and_idle_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"degrees lie in \[0\.001, 360\]"):
        SparseView(degrees=0)
    with pytest.raises(ValueError, match=r"start must lie in \[0, 360\)"):
        SparseView(start=-5)
    with pytest.raises(ValueError, match="options for dds, which is not among the methods"):
        SparseView(options={"dds": {"steps": 3}})


def test_methods_are_written_as_in_their_papers() -> None:
    words = [method_title(name) for name in ("fbp", "tv", "deft", "reddiff", "learned_primal_dual")]
    assert words == ["FBP", "TV", "DEFT", "RED-diff", "learned primal-dual"]
