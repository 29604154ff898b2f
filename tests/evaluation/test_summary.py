"""Summaries, paired tests and differences of benchmarks, on frames whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmark_rows import METRICS, PSNR, RMSE, benchmark_rows, failed_row
from scipy import stats

from deft_ct.evaluation.benchmark_diff import diff_markdown, diff_table
from deft_ct.evaluation.paired import paired_test
from deft_ct.evaluation.statistics import cluster_interval, mean_interval
from deft_ct.evaluation.summary import best_method, paired_frame, summary_frame


def clustered(patients: int, slices: int, between: float, within: float, seed: int = 0) -> tuple[Any, list[str]]:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, between, (patients, 1)) + rng.normal(0, within, (patients, slices))
    return values.ravel(), [f"p{k}" for k in range(patients) for _ in range(slices)]


def test_the_interval_over_patients_is_that_of_their_means_when_all_have_as_many_images() -> None:
    values, patients = clustered(12, 10, 1.0, 0.3)
    found = cluster_interval(values, patients)
    means = values.reshape(12, 10).mean(1)
    known = stats.bootstrap((means,), np.mean, n_resamples=10_000, method="percentile", rng=5).confidence_interval
    assert found.n == 12 and found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(known.low, abs=0.03) and found.high == pytest.approx(known.high, abs=0.03)
    over_images = mean_interval(values)
    assert found.high - found.low > 2 * (over_images.high - over_images.low)


def test_the_interval_over_patients_covers_where_that_over_images_does_not() -> None:
    covered = np.zeros(2)
    for seed in range(100):
        values, patients = clustered(15, 8, 1.0, 0.3, seed)
        intervals = [cluster_interval(values, patients, resamples=400), mean_interval(values, resamples=400)]
        covered += [interval.low <= 0 <= interval.high for interval in intervals]
    assert covered[0] >= 84 and covered[1] <= 70  # of 100; 15 patients are few for a bootstrap


def test_patients_with_more_images_weigh_more_and_nan_is_left_out() -> None:
    found = cluster_interval([1.0, 1.0, 1.0, 4.0, np.nan], ["a", "a", "a", "b", "b"])
    assert found.mean == 1.75 and (found.low, found.high) == (1.0, 4.0)
    alone = cluster_interval([1.0, 2.0], ["a", "a"])
    assert alone.mean == 1.5 and alone.n == 1 and np.isnan(alone.low)
    with pytest.raises(ValueError, match="got 2 values and 1 patients"):
        cluster_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="at least one value"):
        cluster_interval([np.nan], ["a"])


def test_the_paired_test_is_wilcoxons_on_the_means_of_patients() -> None:
    rng = np.random.default_rng(1)
    base, patients = clustered(8, 5, 3.0, 1.0)
    ours = base + 0.3 + rng.normal(0, 0.4, base.shape)
    found = paired_test(ours, base, patients)
    means = (ours - base).reshape(8, 5).mean(1)
    assert found.p_value == pytest.approx(stats.wilcoxon(means).pvalue)
    assert found.images.mean == pytest.approx(means.mean()) and found.patients.n == 8
    assert found.smallest_p == pytest.approx(2 / 2**8)
    # Six slices of one patient say nothing about patients.
    one = paired_test(ours[:5], base[:5], patients[:5])
    assert np.isnan(one.p_value) and np.isnan(one.patients.low) and one.images.n == 5
    same = paired_test(base, base, patients)
    assert np.isnan(same.p_value) and same.images.mean == 0
    with pytest.raises(ValueError, match="a patient for each image, got 2, 2 and 1"):
        paired_test([1.0, 2.0], [1.0, 2.0], ["a"])


def test_a_line_for_each_method_with_both_intervals_failures_and_notes() -> None:
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0, "deft": 33.0})
    rows = pd.concat([rows, failed_row(rows, "ddrm", "ddrm needs a singular value decomposition")], ignore_index=True)
    rows.loc[rows["method"] == "deft", "note"] = "1000 views are outside the training: TV was used"
    found = summary_frame(rows, METRICS).set_index("method")
    assert list(found.index) == ["fbp", "tv", "deft", "ddrm"]
    of_tv = rows[rows["method"] == "tv"]
    over = mean_interval(of_tv["psnr_db"])
    line = found.loc["tv"]
    assert line["psnr_db"] == pytest.approx(of_tv["psnr_db"].mean())
    assert (line["psnr_db_low"], line["psnr_db_high"]) == (over.low, over.high)
    assert line["psnr_db_patients_low"] < over.low and line["psnr_db_patients_high"] > over.high
    assert line["images"] == 24 and line["patients"] == 4 and line["failed"] == 0
    assert found.loc["ddrm", "failed"] == 1 and "singular value" in found.loc["ddrm", "reason"]
    assert np.isnan(found.loc["ddrm", "psnr_db"]) and "TV was used" in found.loc["deft", "note"]


def test_seeds_are_averaged_image_by_image() -> None:
    first = benchmark_rows({"tv": 30.0})
    second = first.assign(seed=1, psnr_db=first["psnr_db"] + 2.0)
    found = summary_frame(pd.concat([first, second]), METRICS).iloc[0]
    one = summary_frame(first, METRICS).iloc[0]
    assert found["seeds"] == 2 and found["images"] == one["images"]
    assert found["psnr_db"] == pytest.approx(one["psnr_db"] + 1.0)
    assert found["psnr_db_high"] - found["psnr_db_low"] == pytest.approx(one["psnr_db_high"] - one["psnr_db_low"])


def test_the_best_has_the_best_mean_among_those_that_finished_everything() -> None:
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0, "deft": 33.0})
    assert best_method(rows, PSNR) == "deft" and best_method(rows, RMSE) == "deft"
    assert (
        best_method(rows, replace(PSNR, best="lowest")) == "fbp" and best_method(rows, replace(PSNR, best=None)) is None
    )
    last = rows[rows["method"] == "deft"].index[-1]
    rows.loc[last, "status"] = "failed"
    assert best_method(rows, PSNR) == "tv"
    assert best_method(failed_row(rows, "ddrm", "no"), PSNR) is None


def test_every_method_against_one() -> None:
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0, "twin": 31.0})
    found = paired_frame(rows, PSNR, against="tv").set_index("method")
    assert list(found.index) == ["fbp", "twin"]
    assert found.loc["fbp", "difference"] == pytest.approx(-5.0, abs=0.3) and found.loc["fbp", "verdict"] == "worse"
    assert found.loc["twin", "verdict"] == "open" and found.loc["twin", "patients"] == 4
    assert paired_frame(rows, RMSE, against="fbp").set_index("method").loc["tv", "verdict"] == "better"
    with pytest.raises(ValueError, match="against must be one of fbp, tv, twin"):
        paired_frame(rows, PSNR, against="sirt")


def test_frames_that_are_no_benchmark_are_refused() -> None:
    rows = benchmark_rows({"tv": 30.0})
    with pytest.raises(ValueError, match="columns patient, psnr_db are missing"):
        summary_frame(rows.drop(columns=["patient", "psnr_db"]), METRICS)
    with pytest.raises(ValueError, match="no rows"):
        summary_frame(rows.iloc[:0], METRICS)


def test_differences_of_two_benchmarks() -> None:
    a = benchmark_rows({"fbp": 26.0, "tv": 31.0, "gone": 20.0})
    b = benchmark_rows({"fbp": 26.0, "tv": 31.0, "new": 30.0})
    better = b["method"] == "tv"
    b.loc[better, "psnr_db"] += 0.25
    b.loc[better, "seconds"] *= 2
    b.loc[better, "provenance"] = json.dumps({"config": {"strength": 0.2}, "versions": {"deft_ct": "0.1.0"}})
    b = b.drop(b[better].index[0])
    found = diff_table(a, b, METRICS)
    tv = found[(found["method"] == "tv") & (found["metric"] == "psnr_db")].iloc[0]
    assert tv["difference"] == pytest.approx(0.25) and tv["verdict"] == "better" and tv["images"] == 23
    assert tv["only_a"] == 1 and tv["only_b"] == 0 and tv["seconds_ratio"] == pytest.approx(2.0, rel=0.1)
    assert tv["changed"] == "config.strength: 0.1 -> 0.2"
    fbp = found[found["method"] == "fbp"]
    assert (fbp["difference"] == 0).all() and set(fbp["verdict"]) == {"open"} and set(fbp["changed"]) == {""}
    assert found.set_index("method").loc["gone", "status"] == "only a"
    assert found.set_index("method").loc["new", "status"] == "only b"
    text = diff_markdown(found, METRICS)
    assert "+0.25 [+0.25, +0.25]" in text and "23 / 4, 1 in A alone" in text and "- new on" in text
    with pytest.raises(ValueError, match="share no method"):
        diff_table(a, b.assign(data="other.h5"), METRICS)
