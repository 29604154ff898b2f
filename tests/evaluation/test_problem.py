"""Benchmarks and comparisons: one noise draw, honest numbers, resumable."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from overriding import overriding
from skimage.metrics import peak_signal_noise_ratio
from terminal_tables import terminal_text
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli.options import ScanOptions
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation import worker
from deft_ct.evaluation.comparison import Comparison
from deft_ct.evaluation.runner import RunOptions, run_benchmark
from deft_ct.evaluation.score import score
from deft_ct.evaluation.worker import Benchmark
from deft_ct.methods.presets import Preset, load_preset
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators.ct import FanGeometry
from deft_ct.operators.ct.backends.matrix import _PAIRS
from deft_ct.problems.ct import CTProblem, nearest_preset
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.memory import peak_memory
from deft_ct.training.pairs import images_digest
from deft_ct.workflows.benchmark import default_methods

SCAN = Scan(views=16, detectors=48)
OTHER = Scan(views=16, detectors=48, degrees=120)


@pytest.fixture
def pack(tmp_path: Path) -> CTPack:
    return CTPack(write_tiny_pack(tmp_path / "val.h5"))


@pytest.mark.parametrize(
    "name",
    [
        "parallel60_1e5", "parallel20_2.5e4", "parallel60_1e5_120deg", "fan90_noisefree", "parallel12_1e5_48bins",
        "fan60_1e5_240deg", "fan60_1e5_180deg",
    ],
)  # fmt: skip
def test_scans_have_names_that_lead_back(name: str) -> None:
    assert Scan.from_name(name).name == name


def test_scan_names_say_everything_and_bad_ones_are_refused() -> None:
    assert Scan.from_name("parallel60_1e5") == Scan()
    assert Scan.from_name(Scan(photons=12345.0).name) == Scan(photons=12345.0)
    limited = Scan.from_name("parallel60_1e5_120deg").measurement((32, 32), 1.0)
    assert limited.operator.geometry.angle_array[-1] == pytest.approx(np.deg2rad(118))
    with pytest.raises(ValueError, match="unknown scan 'spiral'; expected GEOMETRYVIEWS_PHOTONS"):
        Scan.from_name("spiral")
    with pytest.raises(ValueError, match="photons must be a positive number"):
        Scan(photons=-1.0)


def test_a_fan_covers_a_full_turn_unless_told_otherwise() -> None:
    assert Scan.from_name("fan60_1e5") == Scan(geometry="fan") == Scan(geometry="fan", degrees=360)
    assert Scan.from_name("fan60_1e5") != Scan.from_name("fan60_1e5_180deg")
    full, short = (Scan(views=12, geometry="fan", degrees=arc).measurement((32, 32), 1.0) for arc in (360, 240))
    assert full.operator.geometry == FanGeometry.for_image((32, 32), 1.0, 12)
    assert short.operator.geometry.angle_array == pytest.approx(np.deg2rad(20 * np.arange(12)))
    assert short.operator.geometry.detectors == full.operator.geometry.detectors
    assert "12 fan views over 240 degrees" in str(Scan(views=12, geometry="fan", degrees=240))


def test_full_turns_keep_the_dictionaries_that_calibrations_are_stored_with() -> None:
    stored = {"views": 60, "photons": 1e5, "geometry": "fan", "degrees": 180.0, "name": "fan60_1e5"}
    assert Scan(geometry="fan").to_dict() == stored
    assert Scan(geometry="fan", detectors=364).to_dict() == stored | {"detectors": 364, "name": "fan60_1e5_364bins"}
    assert Scan().to_dict() == stored | {"geometry": "parallel", "name": "parallel60_1e5"}
    short = Scan(geometry="fan", degrees=240).to_dict()
    assert short == stored | {"name": "fan60_1e5_240deg", "fan_degrees": 240}


@pytest.mark.parametrize(
    ("geometry", "degrees", "name"),
    [("parallel", None, "parallel60_1e5"), ("fan", None, "fan60_1e5"), ("fan", 240.0, "fan60_1e5_240deg")],
)
def test_options_without_degrees_are_full_scans(geometry: str, degrees: float | None, name: str) -> None:
    assert ScanOptions(views=60, geometry=geometry, degrees=degrees, photons=1e5).scans()[0].name == name


@pytest.mark.parametrize("name", ["parallel10_noisefree", "fan10_noisefree", "fan10_noisefree_200deg"])
def test_a_scan_in_units_of_the_pixel_measures_the_same(name: str) -> None:
    scan = Scan.from_name(name)
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    real, unit = scan.measurement((32, 32), 8.0), scan.unit_measurement((32, 32), 8.0)
    torch.testing.assert_close(unit.operator(8.0 * x), real.operator(x), rtol=1e-4, atol=1e-3)


def test_scores_are_those_of_scikit_image_and_data_do_not_depend_on_the_batch(pack: CTPack) -> None:
    one = CTProblem(pack, SCAN, batch_size=1)
    three = CTProblem(pack, SCAN, batch_size=3)
    together = [torch.cat([y for y, _, _ in problem.batches]) for problem in (one, three)]
    torch.testing.assert_close(together[0], together[1], rtol=1e-5, atol=1e-5)
    found = score("fbp", load_reconstructor("fbp"), three)
    pairs = zip(three.truth, found.estimate, strict=True)
    expected = [peak_signal_noise_ratio(t, e, data_range=2000.0) for t, e in pairs]
    np.testing.assert_allclose(found.values["psnr"], expected, rtol=1e-6)
    assert found.evaluations_per_image == 0


def test_the_finer_grids_of_the_simulation_are_not_kept(pack: CTPack) -> None:
    problem = CTProblem(pack, SCAN, batch_size=2)
    kept = {id(m): m for _, m, _ in problem.batches}.values()
    assert len(kept) > 1  # of several pixel sizes
    finer = [m.operator.geometry.refined(2) for m in kept]
    gc.collect()
    assert not any((geometry, "joseph") in _PAIRS for geometry in finer)


def test_peak_memory_sees_what_was_freed() -> None:
    with peak_memory() as peak:
        block = np.ones(2**24)  # 128 MiB
        block += 1.0
        del block
    assert 100 < peak.mib < 400
    with peak_memory() as idle:
        pass
    assert idle.mib < 50


def _methods() -> dict[str, Reconstructor]:
    return {"fbp": load_reconstructor("fbp"), "tv:iterations=5": load_reconstructor("tv", iterations=5)}


def _compare(
    pack: CTPack, folder: Path, *, scans: tuple[Scan, ...] = (SCAN, OTHER), seed: int = 0, tv: int = 5
) -> Comparison:
    problems = [CTProblem(pack, scan, seed=seed) for scan in scans]
    methods = _methods() | {"tv:iterations=5": load_reconstructor("tv", iterations=tv)}
    benchmark = Benchmark(problems, [methods] * len(problems), samples=4)
    return Comparison(benchmark, run_benchmark(benchmark, folder))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Problem and method of every batch that is measured; the fifth is interrupted if the list begins with a stop."""
    found: list[tuple[str, str]] = []
    real = worker.measure_part

    def counting(part: CTProblem, method: Reconstructor, **options: object) -> object:
        if found[:1] == [("stop", "")] and len(found) == 4:
            raise KeyboardInterrupt
        found.append((part.name, method.name))
        return real(part, method, **options)

    monkeypatch.setattr(worker, "measure_part", counting)
    return found


def test_an_interrupted_comparison_loses_nothing(pack: CTPack, tmp_path: Path, measured: list[tuple[str, str]]) -> None:
    whole = _compare(pack, tmp_path / "whole").cells
    labels = ("fbp", "tv:iterations=5")
    assert [(c.problem, c.label) for c in whole] == [(s.name, label) for s in (SCAN, OTHER) for label in labels]
    every = list(measured)
    assert len(every) == 2 * 2 * 2  # scans, methods, and batches: one for each pixel size
    measured[:] = [("stop", "")]
    with pytest.raises(KeyboardInterrupt):
        _compare(pack, tmp_path / "parts")
    first = measured[1:]
    measured.clear()
    parts = _compare(pack, tmp_path / "parts").cells
    assert first + measured == every
    for a, b in zip(whole, parts, strict=True):
        assert a.values["psnr_db"] == b.values["psnr_db"]


def test_what_is_the_same_is_used_again_and_what_has_changed_is_measured(
    pack: CTPack, tmp_path: Path, measured: list[tuple[str, str]]
) -> None:
    before = _compare(pack, tmp_path, scans=(SCAN,)).cells
    measured.clear()
    after = _compare(pack, tmp_path, scans=(SCAN,), tv=6).cells
    assert measured == [(SCAN.name, "tv")] * 2  # another configuration under the same label
    assert after[0] == before[0] and after[1].values["psnr_db"] != before[1].values["psnr_db"]
    measured.clear()
    other = _compare(pack, tmp_path, scans=(SCAN,), seed=1).cells
    assert len(measured) == 4 and other[0].values["psnr_db"] != before[0].values["psnr_db"]
    measured.clear()
    assert _compare(pack, tmp_path, scans=(SCAN,)).cells == before and not measured


def test_data_are_made_when_needed_and_let_go(pack: CTPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = CTProblem(pack, SCAN)
    made: list[int] = []
    real = CTProblem.simulate
    monkeypatch.setattr(CTProblem, "simulate", lambda self: made.append(1) or real(self))
    benchmark = Benchmark([problem], [_methods()])
    run_benchmark(benchmark, tmp_path)
    assert made == [1] and not {"batches", "truth", "body"} & problem.__dict__.keys()
    run_benchmark(benchmark, tmp_path)
    assert made == [1]  # all rows were there
    run_benchmark(benchmark, tmp_path, RunOptions(overwrite=True))
    assert made == [1, 1]


def test_a_problem_that_is_there_twice_is_refused(pack: CTPack) -> None:
    with pytest.raises(ValueError, match="a problem is there twice"):
        Benchmark([CTProblem(pack, SCAN), CTProblem(pack, SCAN)], [_methods()] * 2)
    with pytest.raises(ValueError, match="at least one problem"):
        Benchmark([], [])


def test_other_data_for_the_same_images(pack: CTPack) -> None:
    problem = CTProblem(pack, SCAN)
    doubled = problem.with_batches([batch._replace(y=2 * batch.y) for batch in problem.batches])
    torch.testing.assert_close(doubled.batches[0].y, 2 * problem.batches[0].y)
    assert doubled.image_ids == problem.image_ids and doubled.image_ids[:2] == ["series0/0", "series0/1"]
    np.testing.assert_array_equal(doubled.truth, problem.truth)
    assert doubled.patients == ["series0"] * 4 + ["series1"] * 4


def test_brackets_in_names_are_shown(tmp_path: Path) -> None:
    """They are the marks of colours and links to the library that prints."""
    pack = CTPack(write_tiny_pack(tmp_path / "a[red]b.h5"))
    label = "fbp[bold]@[/]"
    benchmark = Benchmark([CTProblem(pack, SCAN)], [{label: load_reconstructor("fbp")}])
    text = terminal_text(Comparison(benchmark, run_benchmark(benchmark, tmp_path / "out")))
    assert "a[red]b.h5" in text and label in text


def test_tables_and_json_state_the_protocol(pack: CTPack, tmp_path: Path) -> None:
    comparison = _compare(pack, tmp_path / "out")
    text = terminal_text(comparison)
    assert "16 parallel views over 120 degrees, 100000 photons" in text
    assert re.search(r"tv:iterations=5 \S \d+\.\d\d ± \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] .* 8 ", text)
    assert "n = 8 images" in text and "data range 2000 HU" in text and "One noise draw" in text
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert record["protocol"]["data"] == "val.h5" and record["cells"][2]["scan"] == OTHER.name
    summary = record["cells"][0]["summary"]["psnr_db"]
    assert summary["n"] == 8 and summary["low"] < summary["mean"] < summary["high"]
    assert summary["mean"] == pytest.approx(np.mean(record["cells"][0]["values"]["psnr_db"]))
    assert summary["std"] == pytest.approx(np.std(record["cells"][0]["values"]["psnr_db"], ddof=1))
    assert record["cells"][0]["provenance"]["config"] == {"filter": "hann", "cutoff": 1.0}


def test_presets_give_options_and_explicit_ones_win(tmp_path: Path) -> None:
    path = tmp_path / "tv.json"
    Preset(method="tv", scan=SCAN.name, options={"strength": 77.0, "iterations": 9}, provenance={}).write(path)
    solver = load_reconstructor("tv", preset=path, iterations=4)
    assert (solver.config.strength, solver.config.iterations) == (77.0, 4)
    assert load_preset("tv", path).scan == SCAN.name
    with pytest.raises(ValueError, match="is a preset for tv, not for fbp"):
        load_reconstructor("fbp", preset=path)
    with pytest.raises(FileNotFoundError, match=r"no preset 'nowhere' for tv: not a file.*deft-ct tune tv"):
        load_reconstructor("tv", preset="nowhere")
    path.write_text("{}")
    with pytest.raises(ValueError, match="is not a preset"):
        load_preset("tv", path)


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        ("parallel60_1e5", "parallel60_1e5"),
        ("parallel50_2e5", "parallel60_1e5"),
        ("parallel24_1e5", "parallel20_1e5"),
        ("parallel60_3e5_100deg", "parallel60_1e5_120deg"),
        ("parallel60_1e5_170deg", "parallel60_1e5"),
        ("parallel60_1e7", "parallel60_noisefree"),
        ("fan80_1e5", "fan60_1e5"),
        ("fan60_1e5_240deg", "fan60_1e5"),
    ],
)
def test_a_scan_without_a_preset_takes_that_of_the_most_similar(
    scan: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg", "parallel60_noisefree", "fan60_1e5")
    for name in names:
        Preset(method="tv", scan=name, options={}, provenance={}).write(tmp_path / name / "tv.json")
    monkeypatch.setattr("deft_ct.methods.presets._root", lambda: tmp_path)
    assert nearest_preset("tv", Scan.from_name(scan)) == expected
    assert nearest_preset("fbp", Scan.from_name(scan)) is None


def _invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_the_command_line_compares_and_goes_on(pack: CTPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "presets"
    Preset(method="tv", scan=SCAN.name, options={"iterations": 6}, provenance={}).write(shipped / SCAN.name / "tv.json")
    monkeypatch.setattr("deft_ct.methods.presets._root", lambda: shipped)
    out = tmp_path / "out"
    command = ("compare", "--data", pack.path, "--every", 2, "--scan", SCAN.name, "--out", out, "--no-progress")
    code, text = _invoke(*command, "--method", "fbp", "--method", "tv")
    assert code == 0, text
    assert f"tv: preset {SCAN.name}" in text and "not for clinical use" in text
    assert "peak memory (MiB)" in text and "summary.md" in {path.name for path in out.iterdir()}
    record = json.loads((out / "comparison.json").read_text())
    assert record["cells"][1]["provenance"]["config"]["iterations"] == 6
    code, text = _invoke(*command, "--method", "fbp", "--method", "tv")
    assert code == 0 and "tv was measured before" in text
    own = tmp_path / "own"
    Preset(method="tv", scan=SCAN.name, options={"iterations": 7}, provenance={}).write(own / SCAN.name / "tv.json")
    code, text = _invoke(*command, "--method", "fbp", "--method", "tv", "--preset-folder", own)
    assert code == 0 and "fbp was measured before" in text
    assert json.loads((out / "comparison.json").read_text())["cells"][1]["provenance"]["config"]["iterations"] == 7
    code, text = _invoke(*command, "--method", "tv", "--preset-folder", tmp_path / "none")
    assert code == 2 and "there is no folder" in text
    monkeypatch.setattr("deft_ct.networks.storage.ModelFormat.shipped", lambda _: [])  # an installation without models
    code, text = _invoke(*command, "--method", "fbp_unet")
    assert code == 2 and "train one with `deft-ct train fbp-unet`" in text
    code, text = _invoke(*command, "--method", "fbp", "--model", "tv=folder")
    assert code == 2 and "tv takes no trained model" in text


def test_all_methods_are_those_that_apply_to_ct_and_both_estimates_of_deft() -> None:
    chosen = default_methods()
    assert {"fbp", "tv", "dds", "dps", "deft", "deft:estimate=samples", "i2sb"} <= set(chosen)
    assert not {"ddrm", "deft_online"} & set(chosen)


def test_a_method_with_a_broken_option_is_refused(pack: CTPack, tmp_path: Path) -> None:
    code, text = _invoke("compare", "--data", pack.path, "--method", "fbp:filter", "--out", tmp_path)
    assert code == 2 and "expected option=value" in text


@pytest.mark.parametrize(
    ("kind", "options", "folder", "method"),
    [
        ("fbp-unet", ("--channels", "32,32", "--patch", 2), "model", "fbp_unet"),
        ("learned-primal-dual", ("--iterations", 1, "--features", 4, "--memory", 2), "model", "learned_primal_dual"),
        ("conditional", ("--channels", "32,32", "--patch", 2), "model", "conditional:steps=2"),
        ("i2sb", ("--channels", "32,32", "--patch", 2), "model", "i2sb:steps=2"),
    ],
)
def test_the_command_line_trains_what_it_can_benchmark(
    kind: str, options: tuple[object, ...], folder: str, method: str, pack: CTPack, tmp_path: Path
) -> None:
    common = ("--data", pack.path, "--steps", 2, "--batch-size", 2, "--warmup", 1, "--no-progress", "--views", 16)
    code, text = _invoke("train", kind, "--out", tmp_path / "t", *common, "--detectors", 48, *options)
    assert code == 0, text
    trained = tmp_path / "t" / folder / "model.json"
    card = json.loads(trained.read_text())["card"]
    assert card["scan"]["name"] == SCAN.name and card["data"] == {
        "name": "val.h5", "slices": 8, "sha256": images_digest(pack)
    }  # fmt: skip
    name = method.partition(":")[0]
    code, text = _invoke(
        "compare", "--data", pack.path, "--every", 4, "--scan", SCAN.name, "--out", tmp_path / "c", "--samples", 1,
        "--method", method, "--model", f"{name}={tmp_path / 't' / folder}", "--no-progress",
    )  # fmt: skip
    assert code == 0, text
    code, text = _invoke(
        "train", kind, "--out", tmp_path / "on", "--initial", trained.parent, *common, "--detectors", 48
    )
    assert code == 0, text  # in the shape of the first, without its options
    card = json.loads((tmp_path / "on" / folder / "model.json").read_text())["card"]
    assert card["initial_sha256"] == json.loads(trained.read_text())["sha256"]


def test_the_command_line_trains_a_prior_and_its_h_transform(pack: CTPack, tmp_path: Path) -> None:
    common = ("--data", pack.path, "--steps", 1, "--batch-size", 2, "--warmup", 1, "--no-progress")
    common = (*common, "--channels", "32,32")
    code, text = _invoke("train", "prior", "--out", tmp_path / "p", *common, "--patch", 2)
    assert code == 0, text
    code, text = _invoke(
        "train", "htransform", "--out", tmp_path / "h", *common, "--prior", tmp_path / "p" / "prior",
        "--scan", "parallel8_1e5_48bins", "--scan", "parallel16_1e4_48bins",
    )  # fmt: skip
    assert code == 0, text
    card = json.loads((tmp_path / "h" / "htransform" / "htransform.json").read_text())["card"]
    assert card["scan"]["views"] == [8, 16] and card["scan"]["photons"] == [1e4, 1e5]
    code, text = _invoke("train", "prior", "--out", tmp_path / "q", *overriding(common, ["--channels", "a,b"]))
    assert code == 2 and "channels must be whole numbers" in text
