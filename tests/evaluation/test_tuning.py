"""The search for parameters: on validation data only, never worse than the defaults, resumable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.tuning import Budget, NoTrialSucceeded, Search, tune
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.operators.identity import Identity
from deft_ct.operators.noise import GaussianNoise
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.search_space import Choice, Range

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

SCAN = Scan(views=16, detectors=48)


@pytest.fixture
def problem(tmp_path: Path) -> CTProblem:
    return CTProblem(CTPack(write_tiny_pack(tmp_path / "val.h5", count=2)), SCAN)


FBP = Search(method="fbp")


def build(method: str, options: dict[str, Any]) -> Reconstructor:
    return load_reconstructor(method, **options)


def test_declared_spaces_name_fields_of_the_configuration() -> None:
    declared = 0
    for name in methods():
        cls = method_class(name)
        fields = cls.config_type.__dataclass_fields__
        for field, where in cls.search_space.items():
            assert field in fields, f"{name}: {field}"
            assert isinstance(where, Range | Choice)
            declared += 1
    assert declared >= 5


def test_the_best_is_kept_with_its_provenance_and_beats_the_defaults(problem: CTProblem, tmp_path: Path) -> None:
    lines: list[str] = []
    preset = tune(FBP, build, problem, tmp_path / "study", Budget(trials=8), log=lines.append)
    assert len(lines) == 8
    assert preset.provenance["best_value"] >= preset.provenance["default_value"]
    assert preset.provenance["trials"] == 8 and preset.provenance["data"] == "val.h5"
    assert preset.scan == "parallel16_1e5_48bins"
    solver = load_reconstructor("fbp", preset=tmp_path / "study" / "fbp.json")
    assert {"filter": solver.config.filter, "cutoff": solver.config.cutoff} == preset.options


def test_a_stopped_study_goes_on_as_if_it_had_not_stopped(problem: CTProblem, tmp_path: Path) -> None:
    whole: list[str] = []
    tune(FBP, build, problem, tmp_path / "whole", Budget(trials=6), log=whole.append)
    parts: list[str] = []
    stopped = 0

    def dying(method: str, options: dict[str, Any]) -> Reconstructor:
        nonlocal stopped
        stopped += 1
        if stopped == 5:
            raise KeyboardInterrupt
        return build(method, options)

    with pytest.raises(KeyboardInterrupt):
        tune(FBP, dying, problem, tmp_path / "parts", Budget(trials=6), log=parts.append)
    tune(FBP, build, problem, tmp_path / "parts", Budget(trials=6), log=parts.append)
    assert parts == whole
    with pytest.raises(ValueError, match="was started with seed 0 and this run has seed 1"):
        tune(FBP, build, replace(problem, seed=1), tmp_path / "parts", Budget(trials=6))

    def retrained(method: str, options: dict[str, Any]) -> Reconstructor:
        solver = build(method, options)
        solver.describe = lambda: {"prior_sha256": "of another prior"}  # type: ignore[method-assign]
        return solver

    with pytest.raises(ValueError, match=r"this run has networks\.prior_sha256 'of another prior'"):
        tune(FBP, retrained, problem, tmp_path / "parts", Budget(trials=6))


def test_failing_trials_are_passed_over(problem: CTProblem, tmp_path: Path) -> None:
    def picky(method: str, options: dict[str, Any]) -> Reconstructor:
        if options.get("filter") not in (None, "hann"):
            raise ValueError("not this one")
        return build(method, options)

    lines: list[str] = []
    preset = tune(FBP, picky, problem, tmp_path / "study", Budget(trials=6), log=lines.append)
    assert preset.options["filter"] == "hann"
    assert any("failed (not this one)" in line for line in lines)


def test_when_every_trial_fails_it_is_said(problem: CTProblem, tmp_path: Path) -> None:
    def broken(method: str, options: dict[str, Any]) -> Reconstructor:
        if len(options) == 2:
            raise ValueError("not this one")
        return build(method, options)

    with pytest.raises(NoTrialSucceeded, match="no trial of fbp succeeded"):
        tune(FBP, broken, problem, tmp_path / "study", Budget(trials=2))


def test_a_method_that_is_not_for_the_measurement_is_left_at_once(problem: CTProblem, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def unsuited(method: str, options: dict[str, Any]) -> Reconstructor:
        made = build(method, options)

        def refuse(*_: Any, **__: Any) -> Reconstruction:
            asked.append(options)
            raise UnsupportedError("needs another operator")

        made.reconstruct = refuse  # type: ignore[method-assign]
        return made

    for runs in (1, 2):
        with pytest.raises(NoTrialSucceeded, match="not applicable: needs another operator"):
            tune(FBP, unsuited, problem, tmp_path / "study", Budget(trials=6))
        assert len(asked) == runs


def test_a_late_start_is_searched_where_there_is_a_quick_reconstruction(problem: CTProblem) -> None:
    photograph = Measurement(Identity((3, 8, 8)), GaussianNoise(0.1))
    for name in ("dds", "ddnm", "diffpir", "pigdm", "daps", "dps"):
        space = Search(method=name).space(photograph)
        assert space and "start" not in space
        assert "start" in Search(method=name).space(problem.batches[0].measurement)


def test_test_data_and_methods_without_parameters_are_refused(problem: CTProblem, tmp_path: Path) -> None:
    secret = CTProblem(CTPack(write_tiny_pack(tmp_path / "test_volumes.h5", count=1)), SCAN)
    with pytest.raises(ValueError, match=r"test_volumes\.h5 is a test set"):
        tune(FBP, build, secret, tmp_path / "study", Budget())
    with pytest.raises(ValueError, match="declares no parameters to tune"):
        tune(
            Search(method="fbp", fixed={"filter": "hann", "cutoff": 1.0}), build, problem, tmp_path / "study", Budget()
        )
    with pytest.raises(ValueError, match=r"objective must be one of psnr, psnr_body, ssim, rmse, .*, got 'bias'"):
        tune(FBP, build, problem, tmp_path / "study", Budget(objective="bias"))
    assert not (tmp_path / "study").exists()


def test_the_split_is_an_attribute_of_the_data_and_not_a_part_of_its_name(tmp_path: Path) -> None:
    lines: list[str] = []
    latest = CTProblem(CTPack(write_tiny_pack(tmp_path / "latest_val.h5", count=1)), SCAN)
    preset = tune(FBP, build, latest, tmp_path / "study", Budget(trials=1), log=lines.append)
    assert preset.provenance["split"] is None
    assert lines[0] == "latest_val.h5 does not say which split it is; make sure that it is not a test set"
    path = write_tiny_pack(tmp_path / "mine.h5", count=1)
    with h5py.File(path, "a") as file:
        file.attrs["split"] = "test"
    with pytest.raises(ValueError, match=r"mine\.h5 is a test set"):
        tune(FBP, build, CTProblem(CTPack(path), SCAN), tmp_path / "other", Budget(trials=1))


def test_declared_ranges_are_distributions_of_optuna() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert Range(1, 50, log=True).distribution() == IntDistribution(1, 50, log=True)
    assert Range(0.5, 2.0).distribution() == FloatDistribution(0.5, 2.0)
    assert Choice(("a", "b")).distribution() == CategoricalDistribution(("a", "b"))


@pytest.mark.parametrize("bad", [lambda: Range(2, 1), lambda: Range(0.0, 1.0, log=True), lambda: Choice((1,))])
def test_bad_ranges_are_refused(bad) -> None:
    with pytest.raises(ValueError):
        bad()


def test_the_command_line_tunes(problem: CTProblem, tmp_path: Path) -> None:
    command = ["tune", "tv:iterations=5", "--data", str(problem.pack.path), "--every", "2", "--scan", SCAN.name]
    result = CliRunner().invoke(app, [*command, "--trials", "2", "--out", str(tmp_path / "out"), "--objective", "rmse"])
    assert result.exit_code == 0, result.output
    preset = json.loads((tmp_path / "out" / "presets" / SCAN.name / "tv.json").read_text())
    assert preset["options"]["iterations"] == 5 and "strength" in preset["options"]
    assert preset["provenance"]["best_value"] <= preset["provenance"]["default_value"]
