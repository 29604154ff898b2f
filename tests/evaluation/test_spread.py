"""Coverage and calibration against the closed form: exact samples cover as they should, wrong spreads are found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_head import SIDE, exact_deft, known_images, world

from deft_ct.evaluation.spread import Draws, rank_coverage, rank_histogram, spread_report
from deft_ct.evaluation.spread_fit import fit_spread
from deft_ct.methods.deft.reconstructor import DEFTConfig
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.runtime.intervals import interval_factor, normal_factor

IMAGES = 300


def exact_samples(count: int, seed: int = 5, *, scale: float = 1.0, direct: bool = False) -> Draws:
    """Samples of DEFT with the exact h-transform in a Gaussian world, with their spread scaled about their mean."""
    _, _, measurement = world()
    x, y = known_images(IMAGES, seed)
    config = DEFTConfig(
        steps=40, sampler="dpm-solver", grid="log_snr", eta=0.0, batch_size=5000, draws=1,
        estimate="mean" if direct else "samples",
    )  # fmt: skip
    found = exact_deft(config).reconstruct(y, measurement, num_samples=count, seed=seed)
    assert found.samples is not None
    samples = found.samples[:, :, 0].numpy()
    middle = samples.mean(1)
    samples = middle[:, None] + scale * (samples - middle[:, None])
    centre = found.mean[:, 0].numpy() if direct else samples.mean(1)
    return Draws(
        truth=x[:, 0].numpy(), centre=centre, samples=samples, mask=np.ones((IMAGES, SIDE, SIDE), bool),
        around_samples=not direct,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exact() -> dict[int, Draws]:
    return {count: exact_samples(count) for count in (2, 4, 8)}


# 300 images of 16 correlated pixels: about 300 * 5 independent ones, so the standard error of a coverage is 0.013.
TOLERANCE = 0.03


@pytest.mark.parametrize("count", [2, 4, 8])
def test_exact_samples_cover_what_they_should(exact: dict[int, Draws], count: int) -> None:
    report = spread_report(exact[count])
    for level, covered in report["coverage"]["all"].items():
        assert covered == pytest.approx(float(level), abs=TOLERANCE)
    for level, covered in zip(*report["reliability"].values(), strict=True):
        assert covered == pytest.approx(level, abs=TOLERANCE)
    for entry in report["rank_coverage"]:
        assert entry["observed"] == pytest.approx(entry["nominal"], abs=TOLERANCE)
    np.testing.assert_allclose(report["rank_histogram"], 1 / (count + 1), atol=TOLERANCE)
    interval = report["coverage_90"]
    assert interval["low"] - 0.01 < 0.9 < interval["high"] + 0.01
    assert len(interval["per_image"]) == IMAGES


def test_the_direct_mean_has_intervals_of_its_own() -> None:
    draws = exact_samples(4, direct=True)
    for level, covered in spread_report(draws)["coverage"]["all"].items():
        assert covered == pytest.approx(float(level), abs=TOLERANCE)
    assert interval_factor(0.9, 4, around_samples=False) < interval_factor(0.9, 4)


def test_intervals_of_few_samples_are_wider_than_those_of_the_normal_distribution(exact: dict[int, Draws]) -> None:
    assert interval_factor(0.9, 4) == pytest.approx(2.6313, abs=1e-3)  # 2.3534 sqrt(1.25)
    assert interval_factor(0.9, 10**6) == pytest.approx(normal_factor(0.9), abs=1e-4)
    assert spread_report(exact[4])["coverage_normal"]["0.9"] == pytest.approx(0.762, abs=TOLERANCE)  # of 1.645 S


@pytest.mark.parametrize("count", [4, 8])
def test_half_the_spread_is_found_as_a_factor_of_two(count: int) -> None:
    """Around an exact mean the factor is exactly 2; around the mean of the samples, which errs less, a little below."""
    factor, floor = fit_spread(exact_samples(count, scale=0.5, direct=True), floor=False)
    assert floor == 0
    assert factor == pytest.approx(2.0, rel=0.05)
    factor, _ = fit_spread(exact_samples(count, scale=1.0), floor=False)
    assert factor == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_fitted_on_one_set_it_holds_on_another(scale: float, floor: bool) -> None:
    factor, floor_hu = fit_spread(exact_samples(4, seed=5, scale=scale), floor=floor)
    calibration = SpreadCalibration(factor=factor, floor_hu=floor_hu, samples=4)
    other = exact_samples(4, seed=6, scale=scale)
    raw, report = spread_report(other), spread_report(other, calibration)
    assert report["coverage"]["all"]["0.9"] == pytest.approx(0.9, abs=TOLERANCE)
    assert report["coverage_normal"]["0.9"] == report["coverage"]["all"]["0.9"]
    if scale != 1:
        assert abs(raw["coverage"]["all"]["0.9"] - 0.9) > 0.08


def test_a_floor_covers_where_all_samples_agree() -> None:
    draws = exact_samples(4)
    agreed = draws.samples.copy()
    agreed[:, :, :2] = agreed[:, :1, :2]  # half of the pixels: no spread at all
    stuck = Draws(truth=draws.truth, centre=agreed.mean(1), samples=agreed, mask=draws.mask)
    with pytest.raises(ValueError, match="fit a floor"):
        fit_spread(stuck, floor=False)
    factor, floor = fit_spread(stuck)
    assert floor > 0.1
    report = spread_report(stuck, SpreadCalibration(factor=factor, floor_hu=floor, samples=4))
    assert report["coverage"]["all"]["0.9"] == pytest.approx(0.9, abs=0.005)  # on the set it was fitted on


def synthetic(seed: int = 0) -> Draws:
    """Independent pixels whose spreads differ, and exact samples of them."""
    rng = np.random.default_rng(seed)
    std = np.exp(rng.normal(2.0, 0.8, (3, 48, 48)))
    middle = rng.normal(0, 30, std.shape)
    samples = middle[:, None] + std[:, None] * rng.normal(size=(3, 8, 48, 48))
    truth = middle + std * rng.normal(size=std.shape)
    body = np.zeros(std.shape, bool)
    body[:, 4:-4, 4:-4] = True
    return Draws(truth=truth, centre=samples.mean(1), samples=samples, mask=body)


def test_a_spread_that_knows_where_the_error_is() -> None:
    draws = synthetic()
    report = spread_report(draws)
    assert report["correlation"]["all"]["spearman"] > 0.4
    assert report["correlation"]["blocks"]["pearson"] > 0.4
    pairs = report["spread_and_error"]
    np.testing.assert_allclose(np.array(pairs["rmse"])[4:], np.array(pairs["spread"])[4:] * 1.06, rtol=0.35)
    curves = report["sparsification"]
    assert curves["by_spread"][0] == pytest.approx(report["rmse"])
    assert all(a <= b + 1e-9 for a, b in zip(curves["by_error"], curves["by_spread"], strict=True))
    assert curves["by_spread"][5] < 0.7 * curves["by_spread"][0]
    shuffled = np.random.default_rng(1).permutation(draws.std.ravel()).reshape(draws.truth.shape)
    blind = Draws(
        truth=draws.truth, centre=draws.centre, samples=draws.centre[:, None] + shuffled[:, None] * [[[[-1]], [[1]]]],
        mask=draws.mask,
    )  # fmt: skip
    assert abs(spread_report(blind)["correlation"]["all"]["spearman"]) < 0.05


def test_ranks_share_out_ties() -> None:
    truth = np.zeros((1, 2, 2))
    samples = np.zeros((1, 3, 2, 2))
    draws = Draws(truth=truth, centre=truth, samples=samples, mask=np.ones((1, 2, 2), bool))
    np.testing.assert_allclose(rank_histogram(draws), 0.25)
    assert rank_coverage(draws) == [{"nominal": 0.5, "observed": 1.0}]


def test_calibrations_survive_the_disk_and_say_what_does_not_fit(tmp_path: Path) -> None:
    settings = DEFTConfig(steps=20).sampling
    calibration = SpreadCalibration(
        factor=1.5, floor_hu=3.0, samples=4, scan={"name": "x"}, settings=json.loads(json.dumps(settings)),
        htransform_sha256="a", prior_sha256="b", provenance={"slices": 26},
    )  # fmt: skip
    calibration.write(tmp_path / "calibration-x.json")
    assert SpreadCalibration.read(tmp_path / "calibration-x.json") == calibration
    same: dict[str, Any] = {"htransform_sha256": "a", "prior_sha256": "b", "settings": settings, "samples": 4}
    assert calibration.differences(**same) == []
    assert calibration.differences(**same | {"settings": DEFTConfig(steps=20, batch_size=2).sampling}) == []
    assert calibration.differences(**same | {"htransform_sha256": "c"}) == ["another h-transform"]
    other = DEFTConfig(steps=50, grid="karras").sampling
    assert calibration.differences(**same | {"settings": other}) == ["another grid, steps"]
    assert calibration.differences(**same | {"samples": 8}) == ["another number of samples"]  # it has a floor
    array, tensor = np.array([0.0, 10.0]), torch.tensor([0.0, 10.0], dtype=torch.float64)
    np.testing.assert_allclose(calibration.rescaled(array, 4), calibration.rescaled(tensor, 4).numpy())
    np.testing.assert_allclose(
        calibration.rescaled(array, 4), np.sqrt(2.25 * array**2 + 9) * interval_factor(0.9, 4) / normal_factor(0.9)
    )
    (tmp_path / "calibration-bad.json").write_text('{"scale": 2}')
    with pytest.raises(ValueError, match=r"calibration-bad\.json: is not a calibration"):
        SpreadCalibration.read(tmp_path / "calibration-bad.json")


@pytest.mark.parametrize("bad", [{"factor": -1.0}, {"factor": float("nan")}, {"factor": 0.0}, {"factor": float("inf")}])
def test_impossible_calibrations_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="factor and floor_hu"):
        SpreadCalibration(**bad)


def test_draws_of_other_shapes_are_refused() -> None:
    image, body = np.zeros((2, 8, 8)), np.ones((2, 8, 8), bool)
    for samples, match in ((np.zeros((2, 1, 8, 8)), "two samples"), (np.zeros((3, 4, 8, 8)), "samples must be")):
        with pytest.raises(ValueError, match=match):
            Draws(truth=image, centre=image, samples=samples, mask=body)
    with pytest.raises(ValueError, match="truth, centre and mask"):
        Draws(truth=image, centre=image[:1], samples=np.zeros((2, 4, 8, 8)), mask=body)
    with pytest.raises(ValueError, match="the mask is empty"):
        fit_spread(Draws(truth=image, centre=image, samples=np.zeros((2, 4, 8, 8)), mask=~body))
    for level, count in ((1.0, 4), (0.0, 4), (0.9, 1)):
        with pytest.raises(ValueError):
            interval_factor(level, count)
