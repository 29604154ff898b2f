"""The experiment with scans that are not what methods are told: the data of each case, and the table."""

from __future__ import annotations

import importlib
import json
import math

import pytest
import torch
from tiny_pack import write_tiny_pack
from typer import Typer
from typer.testing import CliRunner

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.problem import Problem, prepare
from deft_ct.evaluation.statistics import Interval

VIEWS = 16


@pytest.fixture
def script(repository_root, monkeypatch):
    """The experiment, imported as its own folder would."""
    monkeypatch.syspath_prepend(str(repository_root / "benchmarks" / "experiments"))
    return importlib.import_module("robustness")


@pytest.fixture
def pack(tmp_path):
    return CTPack(write_tiny_pack(tmp_path / "val.h5", count=2))


def _problem(pack: CTPack, photons: float | None) -> Problem:
    return prepare(pack, Scan(views=VIEWS, photons=photons), batch_size=2)


def _changes(changed: Problem, problem: Problem) -> torch.Tensor:
    """Data minus nominal data of all slices, ``(N, 1, views, detectors)``."""
    return torch.cat([a[0] - b[0] for a, b in zip(changed.batches, problem.batches, strict=True)])


def test_without_a_change_the_data_are_those_of_prepare(script, pack):
    problem = _problem(pack, 1e4)
    same = script.perturbed(problem, script.CASES[0])
    for (a, told, names), (b, nominal, others) in zip(same.batches, problem.batches, strict=True):
        assert torch.equal(a, b) and told is nominal and names == others


def test_an_offset_of_one_element_shifts_the_sinogram_by_a_column(script, pack):
    problem = _problem(pack, None)
    shifted = script.perturbed(problem, script.Case(name="offset", offset_elements=1.0))
    for (a, told, _), (b, nominal, _) in zip(shifted.batches, problem.batches, strict=True):
        assert told is nominal and float(b.max()) > 1
        torch.testing.assert_close(a[..., :-1], b[..., 1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_variance_of_the_noise_goes_with_one_over_the_photons(script, pack, factor):
    clean, problem = _problem(pack, None), _problem(pack, 1e6)
    changed = script.perturbed(problem, script.Case(name="photons", photons=factor))
    ratio = float(_changes(changed, clean).var() / _changes(problem, clean).var())
    assert ratio == pytest.approx(1 / factor, rel=0.15)
    assert all(told.noise.photons == 1e6 for _, told, _ in changed.batches)


def test_what_is_told_is_the_true_scan(script, pack):
    case = script.Case(name="told", photons=0.1, start_steps=0.5, told=True)
    for _, told, _ in script.perturbed(_problem(pack, 1e4), case).batches:
        assert told.noise.photons == pytest.approx(1e3)
        angles = torch.from_numpy(told.operator.geometry.angle_array)
        torch.testing.assert_close(angles, (torch.arange(VIEWS).double() + 0.5) * math.pi / VIEWS)


def test_gain_errors_are_stripes_of_a_few_elements(script, pack):
    problem = _problem(pack, 1e4)
    added = _changes(script.perturbed(problem, script.Case(name="gain", gain=0.05)), problem)
    stripes = added[0, 0, 0]
    torch.testing.assert_close(added, stripes.expand_as(added), atol=1e-5, rtol=0)
    values = stripes[stripes.abs() > 1e-5].sort().values
    expected = torch.tensor([-math.log(1.05)] * 2 + [-math.log(0.95)] * 2)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


def test_errors_of_the_angles_have_their_standard_deviation(script):
    nominal = Scan(views=1000, photons=1e4, detectors=9).measurement((8, 8), 1.0)
    true = script.true_measurement(nominal, script.Case(name="angles", angle_degrees=0.5), seed=0)
    errors = true.operator.geometry.angle_array - nominal.operator.geometry.angle_array
    assert math.degrees(errors.std()) == pytest.approx(0.5, rel=0.1)
    assert abs(math.degrees(errors.mean())) < 0.05


def test_noise_free_data_have_no_photons_to_change(script, pack):
    with pytest.raises(ValueError, match="needs a scan with photon noise"):
        script.perturbed(_problem(pack, None), script.Case(name="photons", photons=0.1))


def test_the_verdict_needs_an_interval_on_one_side_of_zero(script):
    def beyond(low: float, high: float) -> str:
        return script.verdict(Interval(mean=(low + high) / 2, low=low, high=high, n=3, confidence=0.95))

    assert [beyond(-2, -1), beyond(1, 2), beyond(-1, 1)] == ["more", "less", "no clear difference"]


@pytest.mark.filterwarnings("ignore:the data look like those of a detector that is off")  # it is, in one case
def test_the_tables_hold_paired_changes_and_finished_cells_are_kept(script, tmp_path, monkeypatch):
    named = {case.name: case for case in script.CASES}
    chosen = (script.EXACT, "1/10 of the photons", "1/10 of the photons, told", "detector off by 1 element")
    monkeypatch.setattr(script, "CASES", tuple(named[name] for name in chosen))
    monkeypatch.setitem(script.METHODS, "TV", "tv:iterations=10")
    app = Typer()
    app.command()(script.main)
    source, out = write_tiny_pack(tmp_path / "val.h5", count=1), tmp_path / "out"
    command = ["--data", str(source), "--every", "1", "--scan", f"parallel{VIEWS}_1e4", "--method", "TV"]
    command += ["--method", "FBP", "--work", str(tmp_path / "work"), "--out", str(out)]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        monkeypatch.setattr(script, "score", None)  # the second run measures nothing
    record = json.loads((out / "robustness.json").read_text())
    assert len(record["slices"]) == 8
    values = {(cell["case"], cell["method"]): cell["values"]["psnr_db"] for cell in record["slices"]}
    row = next(r for r in record["against_exact"] if (r["case"], r["method"]) == (chosen[3], "FBP"))
    exact, off = values[script.EXACT, "FBP"], values[chosen[3], "FBP"]
    mean = sum(a - b for a, b in zip(off, exact, strict=True)) / 2
    assert row["psnr_change_db"]["mean"] == pytest.approx(mean) and mean < 0
    low, high = row["psnr_change_db"]["low"], row["psnr_change_db"]["high"]
    assert low < mean < high
    text = (out / "robustness.md").read_text()
    assert f"| {chosen[3]} | FBP | {sum(off) / 2:.2f} |" in text and f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" in text
    # FBP takes no account of the noise level: told or not, the image is the same.
    (told,) = (r for r in record["against_told"] if r["method"] == "FBP")
    assert told["against"] == chosen[2] and told["psnr_change_db"]["mean"] == 0
