"""The panels of best, median and worst slice, in the small."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from markdown_tables import unpadded
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import save_htransform
from deft_ct.report import panel_figure
from deft_ct.report.figures import LUNG, SOFT_TISSUE
from deft_ct.report.panels import window_for

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "panels.py"))


def disc(inside: float) -> np.ndarray:
    axis = np.arange(48) - 23.5
    radius = np.hypot(axis[:, None], axis[None, :])
    return np.where(radius < 12, inside, np.where(radius < 18, 40.0, -1000.0))


def test_slices_are_ranked_without_those_that_have_no_body() -> None:
    assert SCRIPT["ranked"]([30.0, math.nan, 10.0, 20.0, 40.0]) == {"best": 2, "median": 3, "worst": 4}
    assert SCRIPT["ranked"]([5.0]) == {"best": 0, "median": 0, "worst": 0}
    with pytest.raises(ValueError, match="no slice has a body"):
        SCRIPT["ranked"]([math.nan])


def test_the_window_follows_the_lungs() -> None:
    assert window_for(disc(-800.0)) is LUNG
    assert window_for(disc(60.0)) is SOFT_TISSUE


def test_the_figure_shows_scores_and_the_notice() -> None:
    truth = disc(60.0)
    figure = panel_figure(truth, {"TV": truth + 20}, {"spread": np.abs(truth)}, errors_of=("TV",), title="60 views")
    titles = [axis.get_title() for axis in figure.axes]
    assert "TV\n40.0 dB, 20 HU" in titles and "error of TV" in titles and "spread" in titles
    words = [text.get_text() for text in figure.texts]
    assert any("Research only, not for clinical use" in text for text in words)
    assert any("60 views; soft tissue window" in text for text in words)
    assert figure.axes[0].get_images()[0].get_array().shape == (36 + 12, 36 + 12)  # the body and a margin
    with pytest.raises(ValueError, match="spread must have the shape of truth"):
        panel_figure(truth, {"TV": truth}, {"spread": truth[1:]}, errors_of=("TV",))
    with pytest.raises(ValueError, match="errors_of some of the reconstructions"):
        panel_figure(truth, {"TV": truth}, {"spread": truth}, errors_of=("DPS",))


def test_pictures_and_table_of_a_tiny_pack(tmp_path: Path) -> None:
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    save_htransform(tiny_htransform(prior), tmp_path / "head")
    options = {
        "--data": write_tiny_pack(tmp_path / "val.h5", count=2), "--every": 1, "--scan": "parallel12_1e4_48bins",
        "--samples": 2, "--method": "deft:steps=2", "--prior": tmp_path / "prior", "--htransform": tmp_path / "head",
        "--out": tmp_path / "out", "--results": tmp_path / "results",
    }  # fmt: skip
    SCRIPT["main"]([str(part) for item in options.items() for part in item])
    for which in ("best", "median", "worst"):
        assert (tmp_path / "out" / f"panel_{which}.png").stat().st_size > 10_000
    record = json.loads((tmp_path / "results" / "null_space.json").read_text())
    assert list(record["methods"]) == ["TV", "DEFT mean", "DEFT one sample"]
    for values in record["methods"].values():
        assert values["summary"]["correlation"]["n"] == 4
        shares = [np.array(values["per_slice"][f"error_{kind}"]) for kind in ("measured", "unmeasured")]
        np.testing.assert_allclose(shares[0] + shares[1], 1)
    errors = record["methods"]["DEFT mean"]["per_slice"]["rmse_body_hu"]
    assert record["shown"]["best"] == record["names"][int(np.argmin(errors))]
    text = (tmp_path / "results" / "null_space.md").read_text()
    assert "n = 4 slices, 12 parallel views, 10000 photons, seed 0" in text
    assert "| DEFT one sample | " in unpadded(text)
