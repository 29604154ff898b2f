"""Fitting the calibration of a head on a pack, using it, and reporting on another pack."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from markdown_tables import unpadded
from overriding import overriding
from tiny import tiny_htransform, tiny_prior, tiny_slices
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import load_prior
from deft_ct.diffusion.prior_folder import save_prior
from deft_ct.evaluation.spread_fit import calibrate_spread, draw, report, report_markdown
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.spread_calibration import SpreadCalibration, size_distance
from deft_ct.problems.ct import CTProblem
from deft_ct.report import calibration_figure, save_png
from deft_ct.runtime.intervals import LEVELS, interval_factor, normal_factor

SCAN = Scan(views=12, detectors=48)
SAMPLES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior, a head and two packs."""
    root = tmp_path_factory.mktemp("calibrate")
    prior = tiny_prior()
    save_prior(prior, root / "prior", dtype=torch.float32)
    save_htransform(tiny_htransform(prior, reference="fbp"), root / "head", dtype=torch.float32)
    for name in ("val", "other", "test_volumes"):
        write_tiny_pack(root / f"{name}.h5", count=2)
    return root


def solver(folder: Path, **options: object) -> DEFT:
    return DEFT(
        load_prior(folder / "prior"), load_htransform(folder / "head"), DEFTConfig(steps=3, batch_size=12, **options)
    )


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def command(folder: Path, out: Path, *more: object) -> list[str]:
    words = [
        "calibrate", "deft:steps=3", "--data", folder / "val.h5", "--every", 1, "--scan", SCAN.name, "--samples", 3,
        "--prior", folder / "prior", "--htransform", folder / "head", "--out", out, "--no-progress",
    ]  # fmt: skip
    return overriding(words, more)


def test_the_command_fits_on_one_pack_and_reports_on_another(
    folder: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke(*command(folder, tmp_path, "--report", folder / "test_volumes.h5"))
    assert result.exit_code == 0, result.output
    fitted = SpreadCalibration.read(tmp_path / f"calibration-{SCAN.name}.json")
    assert fitted.samples == 3 and fitted.scan["name"] == SCAN.name
    assert fitted.provenance["slices"] == 4 and fitted.provenance["data"] == "val.h5"
    assert fitted.provenance["coverage_90_calibrated"] == pytest.approx(0.9, abs=0.002)
    record = json.loads((tmp_path / "spread.json").read_text())
    on_val, on_test = record["packs"].values()
    assert on_val["calibrated"]["coverage"]["body"]["0.9"] == fitted.provenance["coverage_90_calibrated"]
    assert on_test["raw"]["images"] == 4
    assert "calibrated" in on_test
    assert "not for clinical use" in (tmp_path / "spread.md").read_text()
    assert {p.name for p in tmp_path.glob("*.png")} == {"spread-val.png", "spread-test_volumes.png"}
    again = invoke(
        "calibrate", "deft:steps=3", "--data", folder / "test_volumes.h5", "--every", 1, "--scan", SCAN.name,
        "--samples", 3, "--prior", folder / "prior", "--htransform", folder / "head", "--out", tmp_path / "again",
        "--calibration", tmp_path / f"calibration-{SCAN.name}.json", "--no-progress",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert not list((tmp_path / "again").glob("calibration*"))
    (only,) = json.loads((tmp_path / "again" / "spread.json").read_text())["packs"].values()
    assert only == on_test


def test_a_calibration_of_something_else_is_not_reported_on(
    folder: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    assert invoke(*command(folder, tmp_path / "a")).exit_code == 0
    given = ("--calibration", tmp_path / "a" / f"calibration-{SCAN.name}.json")
    prior = tiny_prior()
    save_htransform(tiny_htransform(prior, reference="fbp", seed=5), tmp_path / "head5", dtype=torch.float32)
    for more, words in (
        (("--htransform", tmp_path / "head5"), "another h-transform"),
        (("--scan", "parallel10_1e5_48bins"), "another scan"),
        (("--samples", 4), "another number of samples"),
    ):
        wanted = command(folder, tmp_path / "b", *given)
        for name, value in [more]:
            wanted[wanted.index(name) + 1] = value
        refused = invoke(*wanted)
        text = " ".join(refused.output.split())
        assert refused.exit_code == 2 and f"was fitted for {words}" in text, text
        assert not (tmp_path / "b").exists()


def test_two_files_of_one_name_get_two_pictures(folder: Path, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_tiny_pack(tmp_path / "elsewhere" / "val.h5", count=1)
    result = invoke(*command(folder, tmp_path / "out", "--report", tmp_path / "elsewhere" / "val.h5"))
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"spread-val.png", "spread-val-2.png"}


def test_test_packs_are_refused_before_any_work(folder: Path, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    problem = CTProblem(CTPack(folder / "test_volumes.h5"), SCAN)
    method = solver(folder)
    with pytest.raises(ValueError, match="test set"):
        calibrate_spread(problem, draw(problem, method, samples=SAMPLES), method)
    result = invoke(*command(folder, tmp_path, "--data", folder / "test_volumes.h5"))
    assert result.exit_code != 0
    assert "test set" in result.output
    assert not list(tmp_path.iterdir())
    other = invoke("calibrate", "dps", "--out", tmp_path, "--data", folder / "val.h5")
    assert other.exit_code != 0 and "only deft can be calibrated" in other.output
    with pytest.raises(ValueError, match="two samples"):
        draw(problem, method, samples=1)


def test_a_calibration_beside_the_head_rescales_the_reported_spread(folder: Path, tmp_path: Path) -> None:
    method = solver(folder)
    problem = CTProblem(CTPack(folder / "val.h5"), SCAN)
    fitted = calibrate_spread(problem, draw(problem, method, samples=SAMPLES), method)
    scan = SCAN.measurement((32, 32), 8.0)
    y = scan.simulate(tiny_slices(2), seed=3)
    raw = method.reconstruct(y, scan, num_samples=3)
    assert raw.provenance["spread"] == {"calibrated": False, "reason": "none was fitted for this h-transform"}
    try:
        fitted.write(folder / "head" / f"calibration-{SCAN.name}.json")
        beside = solver(folder).reconstruct(y, scan, num_samples=3)
        assert beside.provenance["spread"]["calibrated"] is True
        assert beside.provenance["spread"]["factor"] == fitted.factor
        assert beside.in_units.std is not None and raw.in_units.std is not None
        few = interval_factor(0.9, 3, around_samples=False) / normal_factor(0.9)
        expected = (fitted.factor**2 * raw.in_units.std**2 + fitted.floor_hu**2) ** 0.5 * few
        torch.testing.assert_close(beside.in_units.std, expected, rtol=1e-4, atol=1e-3)
        assert torch.equal(beside.mean, raw.mean)
        # Where it does not hold it is not used, and the record says why.
        for changed, count, here, why in (
            ({"calibrated": False}, 3, scan, "switched off"),
            ({"eta": 0.0}, 3, scan, "another eta"),
            ({"grid": "karras"}, 3, scan, "another grid"),
            ({}, 2, scan, "another number of samples"),
            ({}, 3, replace(SCAN, photons=1e3).measurement((32, 32), 8.0), "the scan has 1000"),
        ):
            odd = solver(folder, **changed).reconstruct(y, here, num_samples=count)
            assert odd.provenance["spread"]["calibrated"] is False
            assert why in odd.provenance["spread"]["reason"]
        # The nearest size is taken, if it is near enough.
        assert fitted.image_shape == (32, 32)
        assert size_distance(fitted.image_shape, (1, 64, 32)) == pytest.approx(np.log(2))
        sized = solver(folder)
        wide, narrow = (replace(fitted, image_shape=(side, side), factor=side / 10) for side in (45, 25))
        for known, factor in (((wide, narrow), 2.5), ((wide, fitted), fitted.factor), ((wide,), 4.5)):
            sized.calibrations = known
            assert sized.reconstruct(y, scan, num_samples=3).provenance["spread"]["factor"] == factor
        sized.calibrations = (replace(fitted, image_shape=(64, 64)),)
        reason = sized.reconstruct(y, scan, num_samples=3).provenance["spread"]["reason"]
        assert reason == "fitted for something else: images of another size"
        # It does not move to another head with the card.
        save_htransform(load_htransform(folder / "head"), tmp_path / "copy", dtype=torch.float32)
        assert "calibrations" not in load_htransform(tmp_path / "copy").card
    finally:
        (folder / "head" / f"calibration-{SCAN.name}.json").unlink()
    single = method.reconstruct(y, scan)
    assert single.std is None and single.provenance["spread"] is None


def test_the_direct_mean_has_a_calibration_of_its_own(folder: Path) -> None:
    method = solver(folder, estimate="mean")
    problem = CTProblem(CTPack(folder / "val.h5"), SCAN)
    draws = draw(problem, method, samples=SAMPLES)
    assert not draws.around_samples
    fitted = calibrate_spread(problem, draws, method)
    assert not fitted.around_samples and fitted.settings["estimate"] == "mean"


def test_report_and_figure(folder: Path, tmp_path: Path) -> None:
    method, problem = solver(folder), CTProblem(CTPack(folder / "val.h5"), SCAN)
    draws = draw(problem, method, samples=SAMPLES)
    fitted = calibrate_spread(problem, draws, method, floor=False)
    assert fitted.floor_hu == 0
    whole = report(problem, draws, fitted)
    text = unpadded(report_markdown({"val": whole}))
    assert all(f"{100 * level:g} %" in text for level in LEVELS)
    assert "| val | calibrated | body |" in text and "| val | raw | edges |" in text
    figure = calibration_figure(whole, title="a title")
    words = " ".join(t.get_text() for t in figure.findobj(match=lambda o: hasattr(o, "get_text")))
    for expected in ("a title", "not for clinical use", "nominal level (%)", "RMS spread (HU)", "sparsification"):
        assert expected in words
    first, second = (save_png(calibration_figure(whole), tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    calibration_figure({"raw": whole["raw"]})
    with pytest.raises(ValueError, match="raw or a calibrated"):
        calibration_figure({})
    assert np.isfinite(whole["psnr_db"])
