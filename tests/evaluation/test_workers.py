"""Several workers on one folder, killed at random moments: nothing is lost, nothing is measured twice."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from counted_method import BATCH, METHODS, TIMES, counted_benchmark, logged
from tiny_pack import write_tiny_pack

from deft_ct.evaluation.claims import Claims
from deft_ct.evaluation.execution import Processes, RayCluster, Slurm
from deft_ct.evaluation.parquet_store import PARTS, read_rows
from deft_ct.evaluation.runner import RunOptions, run_benchmark
from deft_ct.evaluation.worker import WorkerJob
from deft_ct.runtime.extras import MissingExtraError
from deft_ct.runtime.locks import InUseError


def work(pack: Path, folder: Path, seconds: float = 0.0) -> None:
    run_benchmark(counted_benchmark(pack, seconds), folder)


def started(*arguments: Any) -> BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    return child


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_tiny_pack(tmp_path / "val.h5")


def in_batches(log: Path) -> list[tuple[int, str]]:
    """Process and name of the images that were measured; one alone is that of a first look at the memory."""
    return [(process, name) for process, size, name in logged(log) if size == BATCH]


def same(a: Path, b: Path) -> None:
    pd.testing.assert_frame_equal(*(read_rows(folder).drop(columns=TIMES) for folder in (a, b)))


def test_three_workers_share_the_work(pack: Path, tmp_path: Path, log: Path) -> None:
    children = [started(pack, tmp_path / "run", 0.1) for _ in range(3)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    measured = in_batches(log)
    assert len(measured) == 8 * METHODS  # each slice once for each method
    assert len({process for process, _ in measured}) > 1
    work(pack, tmp_path / "alone", 0.1)
    same(tmp_path / "run", tmp_path / "alone")
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == [
        "claims", "metrics.json", "parts", "plan.json", "results.parquet",
    ]  # fmt: skip
    assert not list((tmp_path / "run" / "claims").iterdir()) and not list((tmp_path / "run" / PARTS).iterdir())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_workers_lose_at_most_the_batch_that_they_had(seed: int, pack: Path, tmp_path: Path, log: Path) -> None:
    draw, kills = random.Random(seed), 0
    for _ in range(4):
        children = [started(pack, tmp_path / "run", 0.05) for _ in range(3)]
        for child in children[:2]:
            time.sleep(draw.uniform(0.0, 0.4))
            if child.is_alive():
                os.kill(child.pid or 0, signal.SIGKILL)
                kills += 1
        if draw.random() < 0.7:
            time.sleep(draw.uniform(0.0, 0.2))
            kills += children[2].is_alive()
            children[2].kill()
        for child in children:
            child.join()
    work(pack, tmp_path / "run", 0.05)
    measured = len(in_batches(log))
    assert kills >= 4
    assert 8 * METHODS <= measured <= 8 * METHODS + BATCH * kills
    (log / "log").unlink()
    work(pack, tmp_path / "run", 0.05)
    assert not logged(log)
    work(pack, tmp_path / "alone", 0.05)
    same(tmp_path / "run", tmp_path / "alone")
    hidden = [path.name for path in (tmp_path / "run").rglob(".*")]
    assert not hidden and not list((tmp_path / "run" / PARTS).iterdir())


def test_a_claim_is_of_one_worker_and_of_a_living_one(tmp_path: Path) -> None:
    ours, theirs = Claims(tmp_path), Claims(tmp_path)
    with ours.claim("a") as first, theirs.claim("a") as second, theirs.claim("b") as third:
        assert (first, second, third) == (True, False, True)
        assert theirs.held_by_others()
    assert not ours.held_by_others()

    def take_and_die() -> None:
        with Claims(tmp_path).claim("a"):
            os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=take_and_die)
    child.start()
    child.join()
    assert (tmp_path / "claims" / "a.claim").is_file()
    with ours.claim("a") as free:
        assert free


def test_a_claim_of_another_machine_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deft_ct.evaluation.claims.EXPIRES_S", 0.3)

    def take_and_die() -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        with Claims(tmp_path).claim("a"):
            os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=take_and_die)
    child.start()
    child.join()
    claims, before = Claims(tmp_path), time.monotonic()
    with claims.claim("a") as mine:
        assert not mine
    while True:
        with claims.claim("a") as mine:
            if mine:
                break
        assert time.monotonic() - before < 20
    assert time.monotonic() - before > 0.25


def test_overwriting_is_refused_while_another_works(pack: Path, tmp_path: Path) -> None:
    with Claims(tmp_path / "run").claim("x"), pytest.raises(InUseError, match="another process measures in"):
        run_benchmark(counted_benchmark(pack), tmp_path / "run", RunOptions(overwrite=True))


def options(pack: Path, engine: Any, seconds: float = 0.0) -> RunOptions:
    return RunOptions(engine=engine, make=functools.partial(counted_benchmark, pack, seconds))


@pytest.mark.slow
def test_processes_of_joblib(pack: Path, tmp_path: Path, log: Path) -> None:
    run_benchmark(counted_benchmark(pack), tmp_path / "run", options(pack, Processes(2)))
    assert len(in_batches(log)) == 8 * METHODS and os.getpid() not in {process for process, _ in in_batches(log)}
    work(pack, tmp_path / "alone")
    same(tmp_path / "run", tmp_path / "alone")


def test_a_worker_that_sees_other_data_refuses(pack: Path, tmp_path: Path) -> None:
    job = WorkerJob(
        functools.partial(counted_benchmark, pack, 1.0), tmp_path / "run", 0.0, counted_benchmark(pack).plan.digest
    )
    with pytest.raises(RuntimeError, match="a worker sees other data, networks or versions"):
        job(0)


def test_an_engine_needs_a_way_to_make_the_benchmark(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an engine needs make"):
        run_benchmark(counted_benchmark(pack), tmp_path / "run", RunOptions(engine=Processes(2)))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (RayCluster("local"), r"ray is not installed: pip install 'deft-ct\[cluster\]'"),
        (Slurm(Path("x")), r"submitit is not installed: pip install 'deft-ct\[cluster\]'"),
        (Processes(2), r"joblib is not installed: pip install 'deft-ct\[benchmark\]'"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    engine: Any, message: str, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = WorkerJob(functools.partial(counted_benchmark, pack), tmp_path / "run", 0.0, "")
    for name in ("ray", "submitit", "joblib"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=message):
        engine.run(job, [0])


def _paths() -> str:
    """Where other processes find the package, the method of these tests and this module."""
    here = Path(__file__)
    return os.pathsep.join(str(path) for path in (here.parents[2], here.parents[1] / "support", here.parent))


@pytest.mark.slow
def test_two_workers_of_ray_of_which_one_is_killed(pack: Path, tmp_path: Path, log: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    script = Path(__file__).parents[1] / "support" / "ray_killed_worker.py"
    subprocess.run(
        [sys.executable, script, pack, tmp_path / "run", log], check=True, timeout=500,
        env=os.environ | {"PYTHONPATH": _paths(), "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    measured = in_batches(log)
    assert len({process for process, _, _ in logged(log)}) >= 3  # two, and the one in the place of the killed one
    assert 8 * METHODS <= len(measured) <= 8 * METHODS + BATCH
    work(pack, tmp_path / "alone", 1.0)
    same(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
def test_jobs_of_submitit(pack: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="the extra 'cluster' is not installed")
    monkeypatch.setenv("PYTHONPATH", _paths())
    engine = Slurm(tmp_path / "jobs", workers=2, options={"cluster": "local", "timeout_min": 10})
    run_benchmark(counted_benchmark(pack), tmp_path / "run", options(pack, engine))
    assert len(in_batches(log)) == 8 * METHODS and os.getpid() not in {process for process, _ in in_batches(log)}
    work(pack, tmp_path / "alone")
    same(tmp_path / "run", tmp_path / "alone")
