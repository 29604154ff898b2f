"""Intervals of a spread network: the widths that are fitted, and what is reported of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import NETWORK, tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.diffusion import save_prior
from deft_ct.evaluation.interval_fit import conformal_widths, fitted_slopes, widths_for_patients
from deft_ct.evaluation.score import score
from deft_ct.evaluation.spread import Deviations, coverage, deviation_report
from deft_ct.evaluation.spread_fit import draw
from deft_ct.methods.deft import SpreadNetwork, load_spread_network, save_htransform, save_spread_network
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.methods.deft.spread_network import SpreadConfig
from deft_ct.methods.registry import Networks
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.intervals import fitted_factor, normal_factor
from deft_ct.workflows.train_spread import calibrated_network, left_out_slices


def test_the_widths_are_the_quantiles_of_the_ratio():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2.0, 40_000)
    error = np.abs(scale * rng.laplace(size=scale.size))
    widths = conformal_widths([error / scale])
    for level in (0.5, 0.8, 0.9, 0.95):  # of Laplace's density, in closed form
        assert widths[f"{level:g}"] == pytest.approx(-np.log(1 - level), rel=0.03)


def test_the_rank_is_that_of_split_conformal_prediction():
    ratios = np.arange(1.0, 20.0)  # n = 19: the ceil(20 * 0.9) = 18th smallest
    widths = conformal_widths([ratios])
    assert widths == {"0.5": 10.0, "0.8": 16.0, "0.9": 18.0, "0.95": 19.0}


def test_every_scan_counts_equally():
    few, many = np.full(100, 1.0), np.full(10_000, 3.0)
    widths = conformal_widths([few, many])
    assert widths["0.5"] == 3.0 and widths["0.8"] == 3.0  # half of 200 are 1: the 101st is 3
    assert conformal_widths([few, few, many])["0.5"] == 1.0
    with pytest.raises(ValueError, match="no pixel"):
        conformal_widths([few, np.zeros(0)])


def test_the_widths_for_patients_hold_for_nine_of_ten():
    def patients(count: int) -> list[list[np.ndarray]]:
        return [[np.full(10, float(k)), np.full(50, float(k))] for k in range(1, count + 1)]

    assert widths_for_patients(patients(8)) == {}
    assert widths_for_patients(patients(9))["0.5"] == 9.0
    assert widths_for_patients(patients(19))["0.95"] == 18.0  # the ceil(0.9 * 20)-th of them


def test_widths_for_patients_cover_other_patients():
    rng = np.random.default_rng(2)
    share = []
    for _ in range(300):
        scales = rng.lognormal(0.0, 0.3, 13)  # one patient is new
        known = [[np.abs(scale * rng.laplace(size=400))] for scale in scales[1:]]
        width = widths_for_patients(known)["0.8"]
        share.append(np.mean(np.abs(scales[0] * rng.laplace(size=400)) <= width) >= 0.8)
    assert np.mean(share) > 0.86  # at least 12 of 13 up to noise; a single pool of pixels reaches half of them


def test_the_correction_by_the_scan_is_recovered():
    features = np.array([[0, 0, 0, 0], [-1.58, 0, 0, 0], [1, 0, 0, 0], [0, 0.67, 0, 0], [0, 0, -1, 0]], float)
    truth = np.array([-0.2, 0.4, 0.1, 0.0])
    found = fitted_slopes(features, 3 * np.exp(features @ truth))
    assert found == pytest.approx(truth, abs=1e-9)  # no scan tells of the fourth feature
    assert fitted_slopes(features[:1], np.array([2.0])) == (0.0, 0.0, 0.0, 0.0)


def test_levels_between_the_fitted_ones_are_interpolated():
    widths = {"0.5": 2 * normal_factor(0.5), "0.9": normal_factor(0.9)}
    assert fitted_factor(widths, 0.5) == pytest.approx(2 * normal_factor(0.5))
    assert fitted_factor(widths, 0.7) == pytest.approx(1.5 * normal_factor(0.7))
    assert fitted_factor(widths, 0.99) == pytest.approx(normal_factor(0.99))
    assert fitted_factor(widths, 0.1) == pytest.approx(2 * normal_factor(0.1))


def test_the_report_uses_the_intervals_that_belong_to_the_deviation():
    rng = np.random.default_rng(1)
    std = rng.uniform(1.0, 3.0, (2, 64, 64))
    error = np.abs(std * rng.laplace(size=std.shape))
    mask = np.ones(std.shape, bool)
    mask[:, :8] = False
    widths = {f"{level:g}": -np.log(1 - level) for level in (0.5, 0.8, 0.9, 0.95)}
    found = deviation_report(
        Deviations(error=error, std=std, mask=mask, factor=lambda level: fitted_factor(widths, level))
    )
    assert found["images"] == 2 and "samples" not in found
    for level, covered in found["coverage"]["all"].items():
        assert covered == pytest.approx(float(level), abs=0.015)
    plain = deviation_report(Deviations(error=error, std=std, mask=mask))
    assert plain["coverage"]["all"] == plain["coverage_normal"] and plain["coverage"]["all"]["0.95"] < 0.9


SCANS = ("parallel12_1e5_48bins", "parallel20_1e5_48bins")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Networks, and slices to fit on and to report on."""
    prior = tiny_prior()
    htransform = tiny_htransform(prior, reference="fbp")
    save_prior(prior, tmp_path / "prior", dtype=torch.float32)
    save_htransform(htransform, tmp_path / "head", dtype=torch.float32)
    network = SpreadNetwork(
        SpreadConfig(network=replace(NETWORK, norm_groups=16)), htransform_hash=htransform.content_hash(),
        prior_hash=prior.content_hash(),
    )  # fmt: skip
    save_spread_network(network, tmp_path / "head", dtype=torch.float32)
    for name in ("val", "test_volumes"):
        write_tiny_pack(tmp_path / f"{name}.h5", count=2)
    return tmp_path


def calibrate(folder: Path, *more: object):
    words = ["calibrate", "deft:spread=network", "--prior", folder / "prior", "--htransform", folder / "head"]
    words += ["--every", 1, "--no-progress", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_is_reported_is_what_reconstructions_have(folder: Path):
    scans = [word for name in SCANS for word in ("--scan", name)]
    data = ("--data", folder / "val.h5", "--report", folder / "test_volumes.h5")
    result = calibrate(folder, *data, *scans, "--out", folder / "out")
    assert result.exit_code == 0, result.output
    network = load_spread_network(folder / "out" / "spread")
    (fitted,) = network.intervals
    assert fitted.image_shape == (32, 32) and len(fitted.provenance["fitted_on"]) == 2
    reports = json.loads((folder / "out" / "report.json").read_text())["reports"]
    assert list(reports) == [f"{pack}.h5, {scan}" for pack in ("val", "test_volumes") for scan in SCANS]
    assert len(list((folder / "out").glob("report-*.png"))) == 4 and (folder / "out" / "report.md").is_file()
    save_spread_network(network, folder / "head", dtype=torch.float32)
    method = Networks(prior=folder / "prior", htransform=folder / "head").build("deft", {})
    for name in SCANS:
        problem = CTProblem(read_pack(str(folder / "test_volumes.h5"), 1), Scan.from_name(name))
        judged = score("deft", method, problem, samples=0)
        assert judged.values["coverage_90"].mean() == pytest.approx(
            reports[f"test_volumes.h5, {name}"]["network"]["coverage_90"]["mean"], abs=1e-9
        )


def test_intervals_are_refused_before_the_work_where_they_would_not_hold(folder: Path):
    refused = calibrate(folder, "--data", folder / "test_volumes.h5", "--scan", SCANS[0], "--out", folder / "a")
    assert refused.exit_code == 2 and "test" in refused.output
    network = load_spread_network(folder / "head")
    network.card = {"scan": {"geometry": "parallel", "views": 500, "photons": 1e5, "degrees": 180.0}}
    save_spread_network(network, folder / "head", dtype=torch.float32)
    refused = calibrate(folder, "--data", folder / "val.h5", "--scan", SCANS[0], "--out", folder / "b")
    text = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "fit on scans of its training" in text
    for name in ("spread.json", "spread.safetensors"):
        (folder / "head" / name).unlink()
    refused = calibrate(folder, "--data", folder / "val.h5", "--scan", SCANS[0], "--out", folder / "c")
    assert refused.exit_code == 2 and "train spread" in " ".join(refused.output.split())


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Networks that are told the scan, with a spread network of two folds, and the slices of all of it."""
    prior = tiny_prior()
    htransform = tiny_htransform(prior, reference="fbp", scan_features=True)
    save_prior(prior, tmp_path / "prior", dtype=torch.float32)
    save_htransform(htransform, tmp_path / "head", dtype=torch.float32)
    write_tiny_pack(tmp_path / "unseen.h5", count=2)
    with h5py.File(write_tiny_pack(tmp_path / "val.h5", count=1, pixel_mm=6.0), "a") as file:
        for name in ("series0", "series1"):
            file.move(name, f"other-{name}")
    words = ["train", "spread", "--data", tmp_path / "unseen.h5", "--scan", SCANS[0], "--scan", SCANS[1], "--any-scan"]
    words += ["--prior", tmp_path / "prior", "--htransform", tmp_path / "head", "--batches", 4, "--batch-size", 2]
    words += ["--channels", "32", "--patch", 2, "--steps", 2, "--folds", 2, "--no-progress", "--out", tmp_path / "made"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    for name in ("spread.json", "spread.safetensors"):
        (tmp_path / "head" / name).write_bytes((tmp_path / "made" / "spread" / name).read_bytes())
    return tmp_path


def test_intervals_are_fitted_on_patients_that_a_fold_has_not_seen(told: Path):
    folds = [load_spread_network(told / "made" / "folds" / name) for name in ("1", "2")]
    assert [fold.card["left_out_series"] for fold in folds] == [["series0"], ["series1"]]
    assert len({load_spread_network(told / "head").content_hash(), *(fold.content_hash() for fold in folds)}) == 3
    data = ["--data", told / "val.h5", *(word for name in SCANS for word in ("--scan", name))]
    more = ["--folds-of", told / "made", "--fold-data", told / "unseen.h5"]
    result = calibrate(told, *data, *more, "--out", told / "out")
    assert result.exit_code == 0, result.output
    (fitted,) = load_spread_network(told / "out" / "spread").intervals
    assert fitted.provenance["patients"] == 4 and len(fitted.provenance["fitted_on"]) == 6
    assert len(fitted.scan_slopes) == 4 and fitted.scan_factors[0] < fitted.scan_factors[1]
    assert fitted.root_mean_square > 0 and not fitted.patient_half_widths
    calibrate(told, *data, "--out", told / "alone")
    (alone,) = load_spread_network(told / "alone" / "spread").intervals
    assert alone.half_widths != fitted.half_widths
    reports = json.loads((told / "out" / "report.json").read_text())["reports"]
    assert list(reports) == [f"val.h5, {scan}" for scan in SCANS]


def test_the_spread_of_samples_is_calibrated_on_samples_as_they_are_drawn_in_use(told: Path):
    data = ["--data", told / "val.h5", "--scan", SCANS[0]]
    assert calibrate(told, *data, "--out", told / "out").exit_code == 0
    network = load_spread_network(told / "out" / "spread")
    save_spread_network(network, told / "head", dtype=torch.float32)
    words = ["calibrate", "deft:steps=2", "--prior", told / "prior", "--htransform", told / "head", *data]
    words += ["--every", 1, "--samples", 2, "--no-progress", "--out", told / "samples"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    path = told / "samples" / f"calibration-{SCANS[0]}-32px.json"
    fitted = SpreadCalibration.read(path if path.exists() else path.with_name(f"calibration-{SCANS[0]}.json"))
    assert fitted.settings["matched"] == network.content_hash()
    problem = CTProblem(read_pack(str(told / "val.h5"), 1), Scan.from_name(SCANS[0]))
    networks = Networks(prior=told / "prior", htransform=told / "head")
    drawn, raw = (
        draw(problem, networks.build("deft", {"steps": 2, "spread": "samples", "matched": matched}), samples=2)
        for matched in (True, False)
    )
    assert fitted.provenance["coverage_90_raw"] == pytest.approx(coverage(drawn), abs=1e-6)
    assert abs(coverage(drawn) - coverage(raw)) > 1e-3


def test_every_patient_who_is_left_out_is_judged(tmp_path: Path):
    path = write_tiny_pack(tmp_path / "one.h5", count=7)
    with h5py.File(path, "a") as file:
        short = file.create_group("series2")
        short["hu"], short["z_mm"] = file["series1/hu"][:1], file["series1/z_mm"][:1]
        short.attrs["pixel_mm"] = 8.0
    pack = left_out_slices(path, ["series1", "series2"], 5)
    assert sorted(pack.patients) == ["series1", "series1", "series2"]


def test_folds_of_another_training_are_refused(told: Path):
    data = ["--data", told / "val.h5", "--scan", SCANS[0]]

    def refused(*more: object) -> str:
        result = calibrate(told, *data, *more, "--out", told / "out")
        assert result.exit_code == 2
        return " ".join(result.output.split())

    assert "go together" in refused("--folds-of", told / "made")
    assert "go together" in refused("--fold-data", told / "unseen.h5")
    assert "holds no folder folds" in refused("--folds-of", told / "head", "--fold-data", told / "unseen.h5")
    write_tiny_pack(told / "other.h5", count=1)
    assert "was not trained on other.h5" in refused("--folds-of", told / "made", "--fold-data", told / "other.h5")
    (told / "made" / "folds" / "3").mkdir()
    for path in (told / "made" / "spread").iterdir():
        (told / "made" / "folds" / "3" / path.name).write_bytes(path.read_bytes())
    assert "no network of a fold" in refused("--folds-of", told / "made", "--fold-data", told / "unseen.h5")


def test_folds_that_cannot_be_fitted_are_refused_before_the_work(told: Path, monkeypatch):
    monkeypatch.setattr("deft_ct.workflows.train_spread.judge", lambda *a, **k: pytest.fail("this is the work"))
    scans = [CTProblem(read_pack(str(told / "val.h5"), 1), Scan.from_name(SCANS[0]))]
    solver = Networks(prior=told / "prior", htransform=told / "head").build("deft", {})
    write_tiny_pack(told / "test_singles.h5", count=1)
    unseen = CTProblem(read_pack(str(told / "test_singles.h5"), 1), Scan.from_name(SCANS[0]))
    with pytest.raises(ValueError, match="test"):
        calibrated_network(solver, [scans], [(solver, [unseen])])
    large = CTProblem(read_pack(str(told / "val.h5"), 1), Scan.from_name(SCANS[0]))
    large.__dict__["truth"] = np.zeros((2, 64, 64), np.float32)
    with pytest.raises(ValueError, match="one size"):
        calibrated_network(solver, [scans], [(solver, [large])])


def test_more_folds_than_patients_are_refused(told: Path):
    words = ["train", "spread", "--data", told / "unseen.h5", "--scan", SCANS[0], "--prior", told / "prior"]
    words += ["--htransform", told / "head", "--batches", 1, "--steps", 1, "--no-progress", "--out", told / "b"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--folds", 3]])
    assert result.exit_code == 2 and "at least as many patients" in " ".join(result.output.split())
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--folds", 1]])
    assert result.exit_code == 2 and "0 or at least 2" in " ".join(result.output.split())
