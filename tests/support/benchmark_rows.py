"""Rows of a benchmark as its store gives them, made up."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from deft_ct.evaluation.problem import Metric

PSNR = Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest")
SSIM = Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest")
RMSE = Metric(name="rmse", key="rmse_body_hu", heading="RMSE in body (HU)", digits=1, best="lowest")
BIAS = Metric(name="bias", key="bias_body_hu", heading="bias in body (HU)", digits=1, best=None, in_table=False)
METRICS = (PSNR, SSIM, RMSE, BIAS)


def benchmark_rows(
    methods: Mapping[str, float],
    *,
    problems: tuple[str, ...] = ("parallel60_1e5",),
    patients: int = 4,
    slices: int = 6,
    seed: int = 0,
) -> pd.DataFrame:
    """Every method on every problem, ``slices`` images of each patient.

    Args:
        methods: name -> mean PSNR in dB. Patients differ by 1.5 dB, images by 0.5, methods on an image by 0.1.
        problems: each 3 dB harder than the one before.
        patients: number of patients.
        slices: of each patient.
        seed: of the values.
    """
    rng = np.random.default_rng(seed)
    count = patients * slices
    who = np.repeat(np.arange(patients), slices)
    hard = rng.normal(0, 1.5, patients)[who] + rng.normal(0, 0.5, count)
    lines = []
    for step, problem in enumerate(problems):
        for number, (method, level) in enumerate(methods.items()):
            psnr = level - 3 * step + hard + rng.normal(0, 0.1, count)
            for n in range(count):
                rmse = 2000 / 10 ** (psnr[n] / 20)
                lines.append({
                    "key": f"{problem}-{method}", "data": "val.h5", "split": "val", "problem": problem,
                    "method": method, "seed": 0, "image_id": f"series{who[n]}/{n % slices}",
                    "patient": f"p{who[n]}", "status": "ok", "reason": "", "psnr_db": psnr[n],
                    "ssim": float(np.clip(1 - rmse / 600, 0, 1)), "rmse_body_hu": rmse, "bias_body_hu": 0.1 * rmse,
                    "seconds": 0.01 * 6.0**number * rng.uniform(0.9, 1.1), "evaluations": 20.0 * (number > 1),
                    "peak_memory_mib": 100.0 * (number + 1), "data_residual": 0.02, "note": "",
                    "provenance": json.dumps({"config": {"strength": 0.1}, "versions": {"deft_ct": "0.1.0"}}),
                    "protocol": json.dumps({"samples": 4, "seed": 0, "batch_size": 8, "device": "cpu"}),
                })  # fmt: skip
    return pd.DataFrame(lines)


def failed_row(rows: pd.DataFrame, method: str, reason: str) -> pd.DataFrame:
    """One row of a method that failed on the first image of the rows."""
    line = rows.iloc[:1].copy()
    line["method"], line["status"], line["reason"] = method, "failed", reason
    line[[metric.key for metric in METRICS]] = np.nan
    line[["seconds", "evaluations", "peak_memory_mib", "data_residual"]] = np.nan
    return line
