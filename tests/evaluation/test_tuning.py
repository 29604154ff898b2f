"""The search for parameters: on validation data only, never worse than the defaults, resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.tuning import tune
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.search_space import Choice, Range

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

SCAN = Scan(views=16, detectors=48)


@pytest.fixture
def pack(tmp_path: Path) -> CTPack:
    return CTPack(write_tiny_pack(tmp_path / "val.h5", count=2))


def build(**options: object) -> Reconstructor:
    return load_reconstructor("fbp", **options)


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


def test_the_best_is_kept_with_its_provenance_and_beats_the_defaults(pack: CTPack, tmp_path: Path) -> None:
    lines: list[str] = []
    preset = tune("fbp", build, pack, SCAN, tmp_path / "study", trials=8, tell=lines.append)
    assert len(lines) == 8
    assert preset.provenance["best_value"] >= preset.provenance["default_value"]
    assert preset.provenance["trials"] == 8 and preset.provenance["data"] == "val.h5"
    assert preset.scan == "parallel16_1e5_48bins"
    solver = load_reconstructor("fbp", preset=tmp_path / "study" / "fbp.json")
    assert {"filter": solver.config.filter, "cutoff": solver.config.cutoff} == preset.options


def test_a_stopped_study_goes_on_as_if_it_had_not_stopped(pack: CTPack, tmp_path: Path) -> None:
    whole: list[str] = []
    tune("fbp", build, pack, SCAN, tmp_path / "whole", trials=6, tell=whole.append)
    parts: list[str] = []
    stopped = 0

    def dying(**options: object) -> Reconstructor:
        nonlocal stopped
        stopped += 1
        if stopped == 5:
            raise KeyboardInterrupt
        return build(**options)

    with pytest.raises(KeyboardInterrupt):
        tune("fbp", dying, pack, SCAN, tmp_path / "parts", trials=6, tell=parts.append)
    tune("fbp", build, pack, SCAN, tmp_path / "parts", trials=6, tell=parts.append)
    assert parts == whole
    with pytest.raises(ValueError, match="holds a study with another seed"):
        tune("fbp", build, pack, SCAN, tmp_path / "parts", trials=6, seed=1)

    def retrained(**options: object) -> Reconstructor:
        solver = build(**options)
        solver._describe = lambda: {"prior_sha256": "of another prior"}  # type: ignore[method-assign]
        return solver

    with pytest.raises(ValueError, match="holds a study with another networks"):
        tune("fbp", retrained, pack, SCAN, tmp_path / "parts", trials=6)


def test_failing_trials_are_passed_over(pack: CTPack, tmp_path: Path) -> None:
    def picky(**options: object) -> Reconstructor:
        if options.get("filter") not in (None, "hann"):
            raise ValueError("not this one")
        return build(**options)

    lines: list[str] = []
    preset = tune("fbp", picky, pack, SCAN, tmp_path / "study", trials=6, tell=lines.append)
    assert preset.options["filter"] == "hann"
    assert any("failed (not this one)" in line for line in lines)


def test_test_data_and_methods_without_parameters_are_refused(pack: CTPack, tmp_path: Path) -> None:
    secret = CTPack(write_tiny_pack(tmp_path / "test_volumes.h5", count=1))
    with pytest.raises(ValueError, match=r"test_volumes\.h5 is a test set"):
        tune("fbp", build, secret, SCAN, tmp_path / "study")
    with pytest.raises(ValueError, match="declares no parameters to tune"):
        tune("fbp", build, pack, SCAN, tmp_path / "study", fixed={"filter": "hann", "cutoff": 1.0})
    with pytest.raises(ValueError, match="objective must be psnr or rmse"):
        tune("fbp", build, pack, SCAN, tmp_path / "study", objective="ssim")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("bad", [lambda: Range(2, 1), lambda: Range(0.0, 1.0, log=True), lambda: Choice((1,))])
def test_bad_ranges_are_refused(bad) -> None:
    with pytest.raises(ValueError):
        bad()


def test_the_command_line_tunes(pack: CTPack, tmp_path: Path) -> None:
    command = ["tune", "tv:iterations=5", "--data", str(pack.path), "--every", "2", "--scan", SCAN.name]
    result = CliRunner().invoke(app, [*command, "--trials", "2", "--out", str(tmp_path / "out"), "--objective", "rmse"])
    assert result.exit_code == 0, result.output
    preset = json.loads((tmp_path / "out" / "presets" / SCAN.name / "tv.json").read_text())
    assert preset["options"]["iterations"] == 5 and "strength" in preset["options"]
    assert preset["provenance"]["best_value"] <= preset["provenance"]["default_value"]
