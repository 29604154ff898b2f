"""Trainings in processes of their own: one that is killed, and two that share a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_config, tiny_loss, tiny_network

from deft_ct.training import CHECKPOINT, ema_weights, fit

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[1] / "support" / "tiny_training.py"
# Not `accelerate launch --cpu --num_processes 2`: accelerate 1.15 starts one process there without a word.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _two_processes(root: Path, folder: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *LAUNCH, str(PROGRAM), str(folder), json.dumps(changes)]
    return subprocess.run(command, env=_environment(root), capture_output=True, text=True, timeout=180, check=False)


def _one_process(folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    return fit(tiny_network(), tiny_loss, 10, tiny_config(**changes), folder, identity={}, progress=False).state_dict()


def _assert_close(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    for name, value in ema_weights(folder).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_a_run_that_was_killed_in_the_middle_ends_like_an_unbroken_one(tmp_path: Path, repository_root: Path) -> None:
    whole = _one_process(tmp_path / "whole")
    command = [sys.executable, str(PROGRAM), str(tmp_path / "broken"), json.dumps({"checkpoint_minutes": 1e-9}), "0.1"]
    checkpoint = tmp_path / "broken" / CHECKPOINT
    with subprocess.Popen(command, env=_environment(repository_root)) as process:
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:
            if checkpoint.is_file() and torch.load(checkpoint, weights_only=True)["step"] >= 9:
                break
            time.sleep(0.02)
        process.kill()  # SIGKILL: nothing is tidied up
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 9 <= step < 24 and process.returncode == -9
    resumed = _one_process(tmp_path / "broken")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    log = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", "4", "8", "12", "16", "20", "24"]


def test_two_processes_are_one_with_two_parts(tmp_path: Path, repository_root: Path) -> None:
    """The random numbers belong to the part of the batch, so the weights agree up to the order of sums."""
    expected = _one_process(tmp_path / "one", accumulate=2)
    other = _one_process(tmp_path / "other", accumulate=1)
    assert (expected["0.weight"] - other["0.weight"]).abs().max() > 1e-3  # other random numbers: the test can fail
    done = _two_processes(repository_root, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    _assert_close(tmp_path / "two", expected)


def test_two_processes_accumulate_and_resume(tmp_path: Path, repository_root: Path) -> None:
    expected = _one_process(tmp_path / "one", accumulate=4)
    folder = tmp_path / "two"
    first = _two_processes(repository_root, folder, accumulate=2, max_minutes=1e-9)
    assert first.returncode == 0, first.stderr
    assert "stopped by the time limit after step 1;" in first.stdout
    second = _two_processes(repository_root, folder, accumulate=2)
    assert second.returncode == 0, second.stderr
    assert "resuming at step 1 of 24" in second.stdout
    _assert_close(folder, expected)
    # Four parts in one process go on where two processes of two parts have stopped; two parts are another training.
    with pytest.raises(ValueError, match="accumulate x processes 4 and this run has accumulate x processes 2"):
        _one_process(folder, accumulate=2)
    _one_process(folder, accumulate=4)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path, repository_root: Path) -> None:
    done = _two_processes(repository_root, tmp_path, batch_size=6, accumulate=2)
    assert done.returncode != 0
    assert "batch_size 6 cannot be shared out over 2 processes of 2 parts each: use a multiple of 4" in done.stderr
