"""The search for the parameters of many methods: order, first guesses, resumption, budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.tuning import Budget, Search, seconds_per_trial, sweep
from deft_ct.methods.presets import load_preset
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.problems.ct import CT_STEPS, CTProblem
from deft_ct.reconstructor import PriorReconstructor, Reconstructor

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

SCANS = [Scan(views=16, detectors=48), Scan(views=8, detectors=48)]
FBP = Search(method="fbp")
METHODS = [FBP, Search(method="dds", fixed={"steps": 3})]


def build(name: str, options: dict[str, Any]) -> Reconstructor:
    prior = {"prior": tiny_prior()} if issubclass(method_class(name), PriorReconstructor) else {}
    return load_reconstructor(name, **prior, **options)


@pytest.fixture
def pack(tmp_path: Path) -> CTPack:
    return CTPack(write_tiny_pack(tmp_path / "val.h5", count=2), every=2)


def problems(pack: CTPack) -> list[CTProblem]:
    return [CTProblem(pack, scan) for scan in SCANS]


def test_the_cpu_budget_covers_what_applies_to_ct() -> None:
    searched = {name for name in methods() if method_class(name).search_space}
    supervised = {name for name in methods() if method_class(name).__module__.startswith("deft_ct.methods.supervised")}
    assert searched - supervised - {"ddrm", "replacement"} == set(CT_STEPS)
    for name, fixed in CT_STEPS.items():
        method_class(name).config_type(**fixed)


def test_every_pair_is_tuned_once_and_later_scans_begin_with_the_best_of_earlier_ones(
    pack: CTPack, tmp_path: Path
) -> None:
    lines: list[str] = []
    budget = Budget(trials=3)
    presets = sweep(METHODS, build, problems(pack), tmp_path / "out", budget, log=lines.append)
    assert [(p.scan, p.method) for p in presets] == [(s.name, name) for s in SCANS for name in ("fbp", "dds")]
    for preset in presets:
        path = tmp_path / "out" / "presets" / preset.scan / f"{preset.method}.json"
        assert load_preset(preset.method, path).options == preset.options
        assert preset.provenance["best_value"] >= preset.provenance["default_value"]
    guess = f"{SCANS[1].name} fbp: trial 2 of 3: filter={presets[0].options['filter']}, "
    assert any(line.startswith(guess + f"cutoff={presets[0].options['cutoff']:.4g}") for line in lines)
    again: list[str] = []
    assert sweep(METHODS, build, problems(pack), tmp_path / "out", budget, log=again.append) == presets
    assert again == [f"{scan.name} {name}: done before" for scan in SCANS for name in ("fbp", "dds")]
    more = Budget(trials=4)
    assert {p.provenance["trials"] for p in sweep(METHODS, build, problems(pack), tmp_path / "out", more)} == {4}


def test_out_of_time_keeps_what_was_found(pack: CTPack, tmp_path: Path) -> None:
    lines: list[str] = []
    presets = sweep([FBP], build, problems(pack), tmp_path, Budget(trials=50), seconds=1e-6, log=lines.append)
    assert presets == [] and lines == [f"{scan.name} fbp: no time left" for scan in SCANS]
    assert len(sweep([FBP], build, problems(pack)[:1], tmp_path, Budget(trials=200), seconds=0.5)) == 1


def test_a_method_without_a_successful_trial_does_not_end_the_sweep(pack: CTPack, tmp_path: Path) -> None:
    def broken(name: str, options: dict[str, Any]) -> Reconstructor:
        if name == "fbp" and options:
            raise ValueError("no trial of luck")
        return build(name, options)

    lines: list[str] = []
    searches = [FBP, Search(method="sirt")]
    presets = sweep(searches, broken, problems(pack)[:1], tmp_path, Budget(trials=1), log=lines.append)
    assert [preset.method for preset in presets] == ["sirt"]
    assert any("fbp: no trial of fbp succeeded" in line for line in lines)

    def other_error(name: str, options: dict[str, Any]) -> Reconstructor:
        if options:
            raise TypeError("no trial of anything: a fault in the code")
        return build(name, options)

    with pytest.raises(TypeError, match="a fault in the code"):
        sweep([FBP], other_error, problems(pack)[:1], tmp_path / "other", Budget(trials=1))


def test_costs_are_estimated_and_bad_settings_refused_before_any_work(pack: CTPack, tmp_path: Path) -> None:
    costs = seconds_per_trial(METHODS, build, problems(pack)[0], Budget())
    assert costs.keys() == {"fbp", "dds"} and all(0 < cost < 60 for cost in costs.values())
    with pytest.raises(ValueError, match="unconditional declares no parameters to tune"):
        sweep([Search(method="unconditional")], build, problems(pack), tmp_path / "out", Budget())
    with pytest.raises(ValueError, match="dds has no option stepz"):
        sweep([FBP, Search(method="dds", fixed={"stepz": 1})], build, problems(pack), tmp_path / "out", Budget())
    with pytest.raises(ValueError, match="trials must be at least 1"):
        Budget(trials=0)
    assert not (tmp_path / "out").exists()


def test_the_command_tunes_methods_on_scans(pack: CTPack, tmp_path: Path) -> None:
    command = ["tune", "tv:iterations=5", "sirt", "--data", str(pack.path), "--every", "2"]
    command += [*(word for scan in SCANS for word in ("--scan", scan.name)), "--trials", "2"]
    command += ["--out", str(tmp_path / "out")]
    estimate = CliRunner().invoke(app, [*command, "--estimate"])
    assert estimate.exit_code == 0, estimate.output
    assert "s a trial of 2 images" in estimate.output and not (tmp_path / "out").exists()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    for scan in SCANS:
        preset = json.loads((tmp_path / "out" / "presets" / scan.name / "tv.json").read_text())
        assert preset["options"]["iterations"] == 5
        assert (tmp_path / "out" / "presets" / scan.name / "sirt.json").is_file()
    again = CliRunner().invoke(app, command)
    assert again.output.count("done before") == 4
