"""The experiment on familiarity: its limits, what is scanned wrongly, and its table."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_tables import unpadded
from tiny import tiny_htransform, tiny_prior

from deft_ct.methods.deft.familiarity import MISFIT, UNFAMILIAR
from deft_ct.methods.deft.reconstructor import DEFT

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "familiarity.py"
MODULE = runpy.run_path(str(SCRIPT))


def solver() -> DEFT:
    prior = tiny_prior()
    return DEFT(prior, tiny_htransform(prior))


def row(fit: float | None, residual: float) -> dict[str, Any]:
    return {"fit": fit, "residual": residual, "others": []}


def test_limits_are_quantiles_on_both_sides() -> None:
    deft = solver()
    rows = [row(float(k), k / 1000) for k in range(1, 402)] + [row(None, 0.001)]
    limits = MODULE["limits_of"](rows, deft, {})
    assert limits.fit == pytest.approx((3.0, 399.0)) and limits.residual == pytest.approx(
        np.quantile([one["residual"] for one in rows], 0.995)
    )
    assert limits.htransform_sha256 == deft.htransform.content_hash()


def test_what_the_method_is_told_differs_from_what_was_scanned() -> None:
    deft = solver()
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    disc = torch.where((x - 3) ** 2 + y**2 < 100, 0.0, -1000.0)[None, None]
    trial = MODULE["Trial"]("disc", "a", disc, 8.0, scan="parallel24_1e5")
    right = MODULE["measured"](trial, deft, 0)
    assert set(right) == {"fit", "residual", "others"}
    shifted = MODULE["Trial"]("disc", "a", disc, 8.0, scan="parallel24_1e5", shift=1.0)
    turned = MODULE["Trial"]("disc", "a", disc, 8.0, scan="parallel24_1e5", turned=0.8)
    for wrong in (shifted, turned):
        assert MODULE["measured"](wrong, deft, 0)["residual"] != right["residual"]


def test_phantoms_are_of_water_and_air() -> None:
    groups = [trial.group for trial in MODULE["phantoms"]()]
    assert len(groups) == 6 and len(set(groups)) == 4
    water, *_ = MODULE["phantoms"]()
    assert set(water.hu.unique().tolist()) == {-1000.0, 0.0}


def test_the_table_counts_what_was_told() -> None:
    limits = {"fit": [0.02, 0.05], "residual": 0.01, "prior_sha256": "", "htransform_sha256": "", "provenance": {}}
    strange = row(0.06, 0.02) | {"others": ["shifted detector"]}
    record = {
        "limits": limits, "groups": {"test": [row(0.03, 0.0), row(0.06, 0.0)], "shift": [strange]}, "fitted": 9,
        "every": 8, "seed": 0, "precision": "float32",
    }  # fmt: skip
    text = unpadded(MODULE["markdown"](record))
    assert f"| slices | n | {UNFAMILIAR} | {MISFIT} | either |" in text
    assert "| test | 2 | 1 | 0 | 1 | 0.0300 to 0.0600 | 0.0000 | |" in text
    assert "| shift | 1 | 1 | 1 | 1 | 0.0600 to 0.0600 | 0.0200 | shifted detector |" in text
