"""Intervals of a spread network: the widths that are fitted, and what is reported of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
from deft_ct.evaluation.interval_fit import conformal_widths
from deft_ct.evaluation.score import score
from deft_ct.evaluation.spread import Deviations, deviation_report
from deft_ct.methods.deft import SpreadNetwork, load_spread_network, save_htransform, save_spread_network
from deft_ct.methods.deft.spread_network import SpreadConfig
from deft_ct.methods.registry import Networks
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.intervals import fitted_factor, normal_factor


def test_the_widths_are_the_quantiles_of_the_ratio():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2.0, 40_000)
    error = np.abs(scale * rng.laplace(size=scale.size))
    widths = conformal_widths([error], [scale])
    for level in (0.5, 0.8, 0.9, 0.95):  # of Laplace's density, in closed form
        assert widths[f"{level:g}"] == pytest.approx(-np.log(1 - level), rel=0.03)


def test_the_rank_is_that_of_split_conformal_prediction():
    ratios = np.arange(1.0, 20.0)  # n = 19: the ceil(20 * 0.9) = 18th smallest
    widths = conformal_widths([ratios], [np.ones(19)])
    assert widths == {"0.5": 10.0, "0.8": 16.0, "0.9": 18.0, "0.95": 19.0}


def test_every_scan_counts_equally():
    few, many = np.full(100, 1.0), np.full(10_000, 3.0)
    widths = conformal_widths([few, many], [np.ones(100), np.ones(10_000)])
    assert widths["0.5"] == 3.0 and widths["0.8"] == 3.0  # half of 200 are 1: the 101st is 3
    assert conformal_widths([few, few, many], [np.ones(100)] * 2 + [np.ones(10_000)])["0.5"] == 1.0
    with pytest.raises(ValueError, match="no pixel"):
        conformal_widths([few, np.zeros(0)], [few, np.zeros(0)])


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
