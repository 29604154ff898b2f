"""`deft-ct tune` on photographs: the training part, a preset under the label of the task, and one error else."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import Identity
from deft_ct.runtime.search_space import Range


@pytest.fixture
def crops(tmp_path: Path) -> str:
    with h5py.File(tmp_path / "crops.h5", "w") as file:
        rng = np.random.default_rng(0)
        for part in ("train", "test"):
            file[part] = np.repeat(np.repeat(rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8), 4, 1), 4, 2)
    return f"photos:{tmp_path / 'crops.h5'}"


def tuned(*words: object) -> Result:
    return CliRunner().invoke(app, ["tune", *(str(word) for word in words)])


def test_a_preset_for_each_task(crops: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tuned("cgls", "--data", crops, "--operator", "sr2+denoise:noise=0.5", "--every", 1, "--trials", 3, "-o", out)
    assert done.exit_code == 0, done.output
    assert {path.parent.name for path in out.glob("presets/*/cgls.json")} == {"sr2", "denoise-noise=0.5"}
    preset = json.loads((out / "presets" / "sr2" / "cgls.json").read_text())
    assert (preset["scan"], preset["provenance"]["split"]) == ("sr2", "train")
    assert preset["provenance"]["best_value"] >= preset["provenance"]["default_value"]
    again = tuned("cgls", "--data", crops, "--operator", "sr2", "--every", 1, "--trials", 3, "-o", out)
    assert "sr2 cgls: done before" in again.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "photographs are tuned for a task: name it with --operator"),
        (("--operator", "magic"), "unknown task 'magic'; known are"),
        (("--operator", "sr2", "--scan", "parallel60_1e5"), "leave out --scan"),
    ],
)
def test_a_task_is_asked_for(words: tuple[str, ...], message: str, crops: str, tmp_path: Path) -> None:
    refused = tuned("cgls", "--data", crops, *words, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and message in refused.output.replace("\n", " ")


def test_slices_have_no_operator(tmp_path: Path) -> None:
    refused = tuned("cgls", "--data", "val", "--operator", "sr2", "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "--operator is for photographs" in refused.output.replace("\n", " ")


def test_the_ranges_are_those_of_images() -> None:
    from deft_ct.evaluation.tuning import Search
    from deft_ct.problems.natural_data import NATURAL_RANGES

    measurement = Measurement(Identity((3, 8, 8)))
    given = Search(method="tv", ranges=NATURAL_RANGES["tv"]).space(measurement)
    assert given["strength"] == NATURAL_RANGES["tv"]["strength"]
    assert Search(method="tv").space(measurement)["strength"] == Range(0.4, 100.0, log=True)


COMPARE = ("compare", "--operator", "sr2+jpeg:quality=5", "--method", "cgls:iterations=2", "--no-progress")


def test_compare_takes_either_tasks_or_scans(crops: str, tmp_path: Path) -> None:
    words = [*COMPARE, "--data", crops, "--scan", "parallel60_1e5", "-o", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "scans is not for photographs" in refused.output.replace("\n", " ")


@pytest.mark.slow
def test_compare_takes_tasks_of_photographs(crops: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*COMPARE, "--data", crops, "--every", "1", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "jpeg-quality=5" in (tmp_path / "out" / "summary.md").read_text()
