"""Rows of benchmarks on disk: each once, the same for any order of work, kept by content."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from counted_method import TIMES, Counted, CountedConfig, logged
from terminal_tables import terminal_text
from tiny import tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation import plan
from deft_ct.evaluation.comparison import Comparison
from deft_ct.evaluation.parquet_store import PARTS, RESULTS, ParquetStore, read_metrics, read_plan, read_rows
from deft_ct.evaluation.runner import RunOptions, failures, run_benchmark
from deft_ct.evaluation.worker import Benchmark, Worker
from deft_ct.methods.registry import load_reconstructor
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.read_error import ReadError

SCAN = Scan(views=8, detectors=48)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_pack(tmp_path / "val.h5")


def benchmark(path: Path, every: int = 1, *, scan: Scan = SCAN, seed: int = 0, **methods: Reconstructor) -> Benchmark:
    problem = CTProblem(CTPack(path, every=every), scan, seed=seed, batch_size=3)
    return Benchmark([problem], [methods or {"counted": counted()}])


def counted(**options: Any) -> Counted:
    return Counted(CountedConfig(**options))


def without_times(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=TIMES)


def test_the_columns_and_the_order_are_those_of_the_plan(path: Path, tmp_path: Path) -> None:
    made = benchmark(path, fbp=load_reconstructor("fbp"), counted=counted())
    run_benchmark(made, tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert list(rows.columns[:10]) == [
        "key", "data", "split", "problem", "method", "seed", "image_id", "patient", "status", "reason",
    ]  # fmt: skip
    keys = [metric.key for metric in read_metrics(tmp_path / "run")]
    assert keys == [metric.key for metric in made.metrics] and (rows[keys].dtypes == np.float64).all()
    assert {"seconds", "evaluations", "peak_memory_mib", "data_residual", "note", "provenance", "protocol"} <= {
        *rows.columns
    }
    names = [f"series{k}/{n}" for k in range(2) for n in range(4)]
    assert list(zip(rows["method"], rows["image_id"], strict=True)) == [
        (m, n) for m in ("fbp", "counted") for n in names
    ]
    assert set(rows["status"]) == {"ok"} and set(rows["reason"]) == {""} and list(rows["patient"][3:5]) == [
        "series0", "series1",
    ]  # fmt: skip
    assert rows["seconds"].gt(0).all() and json.loads(rows["provenance"][0])["config"]["filter"] == "hann"
    assert json.loads(rows["protocol"][0])["versions.torch"] == torch.__version__
    stored = pd.read_parquet(tmp_path / "run" / RESULTS)
    pd.testing.assert_frame_equal(stored, rows)


def test_the_result_is_the_same_for_any_order_of_work(path: Path, tmp_path: Path) -> None:
    run_benchmark(benchmark(path, fbp=load_reconstructor("fbp"), counted=counted()), tmp_path / "a")
    made = benchmark(path, fbp=load_reconstructor("fbp"), counted=counted())
    worker = Worker(made, tmp_path / "b", started=0.0)
    for number in reversed(range(len(made.units))):
        assert worker.attempt(number)
    worker.store.finish(made.plan)
    worker.store.announce(made.plan)
    a, b = read_rows(tmp_path / "a"), read_rows(tmp_path / "b")
    pd.testing.assert_frame_equal(without_times(a), without_times(b))


def test_rows_are_there_before_the_end_and_each_once(path: Path, tmp_path: Path, log: Path) -> None:
    made = benchmark(path)
    worker = Worker(made, tmp_path / "run", started=0.0)
    worker.store.announce(made.plan)
    with pytest.raises(FileNotFoundError, match=r"holds no benchmark: there is no plan\.json"):
        read_rows(tmp_path)
    assert len(read_rows(tmp_path / "run")) == 0
    worker.attempt(1)
    rows = read_rows(tmp_path / "run")
    assert list(rows["image_id"]) == ["series0/3"]
    [part] = (tmp_path / "run" / PARTS).iterdir()
    run_benchmark(benchmark(path), tmp_path / "run")
    assert not list((tmp_path / "run" / PARTS).iterdir()) and not part.exists()
    in_batches = [name for _, size, name in logged(log) if size > 1] + ["series0/3", "series1/3"]
    assert sorted(in_batches) == sorted(read_rows(tmp_path / "run")["image_id"])


def test_stale_data_are_measured_anew(path: Path, tmp_path: Path) -> None:
    """The same file name with other CT numbers: earlier versions printed the numbers of the data before."""
    before = run_benchmark(benchmark(path, fbp=load_reconstructor("fbp")), tmp_path / "run")
    with h5py.File(path, "r+") as file:
        file["series0/hu"][...] = file["series0/hu"][...] // 2
    after = run_benchmark(benchmark(path, fbp=load_reconstructor("fbp")), tmp_path / "run")
    fresh = run_benchmark(benchmark(path, fbp=load_reconstructor("fbp")), tmp_path / "fresh")
    psnr = [[row["psnr_db"] for row in rows] for rows in (before, after, fresh)]
    assert psnr[1] == psnr[2] and all(a != b for a, b in zip(psnr[0][:4], psnr[1][:4], strict=True))
    assert psnr[0][4:] == psnr[1][4:]
    assert list(read_rows(tmp_path / "run")["psnr_db"]) == psnr[1]


def test_one_pixel_is_measured_anew_and_the_other_batches_are_not(path: Path, tmp_path: Path, log: Path) -> None:
    run_benchmark(benchmark(path), tmp_path / "run")
    with h5py.File(path, "r+") as file:
        file["series1/hu"][3, 5, 5] += 1
    (log / "log").unlink()
    run_benchmark(benchmark(path), tmp_path / "run")
    assert {name for _, _, name in logged(log)} == {"series1/3"}


def test_a_longer_run_uses_the_rows_of_a_shorter_one(path: Path, tmp_path: Path, log: Path) -> None:
    problem = CTProblem(CTPack(path, limit=3), SCAN, batch_size=3)
    run_benchmark(Benchmark([problem], [{"counted": counted()}]), tmp_path / "run")
    (log / "log").unlink()
    run_benchmark(benchmark(path), tmp_path / "run")
    assert len(problem) == 3 and not set(problem.image_ids) & {name for _, _, name in logged(log)}
    assert len(read_rows(tmp_path / "run")) == 8


def keys(made: Benchmark) -> set[str]:
    return {cell.key + content for cell, _, content in made.plan.rows()}


def test_every_change_gives_a_new_key(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = tiny_prior()

    def made(**methods: Reconstructor) -> set[str]:
        return keys(benchmark(path, **methods))

    first = made(dds=load_reconstructor("dds", prior=prior, steps=3))
    assert first == made(dds=load_reconstructor("dds", prior=prior, steps=3))
    assert not first & made(dds=load_reconstructor("dds", prior=prior, steps=4))
    assert not first & keys(
        benchmark(path, scan=Scan(views=9, detectors=48), dds=load_reconstructor("dds", prior=prior))
    )
    assert not first & keys(benchmark(path, seed=1, dds=load_reconstructor("dds", prior=prior, steps=3)))
    with monkeypatch.context() as patched:
        patched.setattr(plan, "result_versions", lambda: {"deft_ct": "99", "torch": torch.__version__})
        assert not first & made(dds=load_reconstructor("dds", prior=prior, steps=3))
    weight = next(prior.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1e-6
    assert not first & made(dds=load_reconstructor("dds", prior=prior, steps=3))


def test_a_key_is_of_content_and_not_of_a_place(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / path.name
    copy.write_bytes(path.read_bytes())
    assert keys(benchmark(path)) == keys(benchmark(copy))


def test_a_failing_method_has_rows_with_its_reason_and_the_rest_goes_on(path: Path, tmp_path: Path) -> None:
    methods = {
        "fbp": load_reconstructor("fbp"), "refused": counted(fails="refused"), "memory": counted(fails="memory"),
        "broken": counted(fails="broken"), "one": counted(fails="series0/1"),
        "sirt": load_reconstructor("sirt", iterations=3),
    }  # fmt: skip
    made = benchmark(path, **methods)
    rows = run_benchmark(made, tmp_path / "run")
    table = read_rows(tmp_path / "run").set_index(["method", "image_id"])
    assert table["status"].groupby("method", sort=False).agg(lambda s: (s == "ok").sum()).to_dict() == {
        "fbp": 8, "refused": 0, "memory": 0, "broken": 0, "one": 7, "sirt": 8,
    }  # fmt: skip
    assert set(table.loc["refused", "reason"]) == {"not applicable: counted refuses this measurement"}
    assert all(reason.startswith("out of memory: ") for reason in table.loc["memory", "reason"])
    assert set(table.loc["broken", "reason"]) == {"KeyError: 'weights'"}
    assert "diverged to NaN" in table.loc[("one", "series0/1"), "reason"]
    assert np.isnan(table.loc[("one", "series0/1"), "psnr_db"]) and table.loc["refused", "seconds"].isna().all()
    alone = run_benchmark(benchmark(path, one=counted()), tmp_path / "alone")
    together = table.loc["one", "psnr_db"].drop("series0/1")
    assert together.to_list() == [row["psnr_db"] for row in alone if row["image_id"] != "series0/1"]
    lines = failures(rows)
    assert [line.split(":")[0] for line in lines] == [
        f"{name} failed on {n} of 8 images of val.h5, {SCAN.name}"
        for name, n in (("refused", 8), ("memory", 8), ("broken", 8), ("one", 1))
    ]
    assert "7 of 8" in terminal_text(Comparison(made, rows))
    json.dumps(Comparison(made, rows).to_dict(), allow_nan=False)


def test_only_what_ran_out_of_memory_is_tried_again(path: Path, tmp_path: Path, log: Path) -> None:
    made = {"memory": counted(fails="memory"), "one": counted(fails="series0/1"), "fine": counted(gain=2.0)}
    run_benchmark(benchmark(path, **made), tmp_path / "run")
    for part in (tmp_path / "run").rglob("*.parquet"):
        os.utime(part, (1e9, 1e9))
    (log / "log").unlink()
    lines: list[str] = []
    run_benchmark(benchmark(path, **made), tmp_path / "run", RunOptions(log=lines.append))
    assert len(logged(log)) == 8 + 1  # every image, and one for its memory
    assert f"{SCAN.name}: one was measured before" in lines and f"{SCAN.name}: fine was measured before" in lines


def test_rows_of_other_plans_are_kept_and_not_shown(path: Path, tmp_path: Path, log: Path) -> None:
    run_benchmark(benchmark(path, a=counted()), tmp_path / "run")
    first = read_rows(tmp_path / "run")
    run_benchmark(benchmark(path, b=counted(gain=3.0)), tmp_path / "run")
    assert set(read_rows(tmp_path / "run")["method"]) == {"b"}
    assert set(pd.read_parquet(tmp_path / "run" / RESULTS)["method"]) == {"b"}
    (log / "log").unlink()
    run_benchmark(benchmark(path, every=2, a=counted()), tmp_path / "run")
    run_benchmark(benchmark(path, a=counted()), tmp_path / "run")
    assert not logged(log)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "run"), first)
    run_benchmark(benchmark(path, a=counted()), tmp_path / "run", RunOptions(overwrite=True))
    assert logged(log) and not list((tmp_path / "run" / PARTS).iterdir())


def test_a_damaged_part_is_measured_again(path: Path, tmp_path: Path, log: Path) -> None:
    made = benchmark(path)
    Worker(made, tmp_path / "run", started=0.0).attempt(0)
    [part] = (tmp_path / "run" / PARTS).iterdir()
    part.write_bytes(part.read_bytes()[:200])
    (log / "log").unlink()
    with pytest.warns(UserWarning, match="is damaged and not used"):
        rows = run_benchmark(benchmark(path), tmp_path / "run")
    assert len(rows) == 8 and "series0/0" in {name for _, _, name in logged(log)}
    (tmp_path / "run" / "plan.json").write_text('{"problems": []}')
    with pytest.raises(ReadError, match=r"plan\.json: is not the plan of a benchmark"):
        read_plan(tmp_path / "run")


def test_a_warning_of_a_method_is_a_note(path: Path, tmp_path: Path) -> None:
    run_benchmark(benchmark(path, wild=counted(gain=1e6)), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert set(rows["status"]) == {"ok"} and all("counted diverged" in note for note in rows["note"])


def test_two_images_of_one_name_are_refused(path: Path) -> None:
    problem = CTProblem(CTPack(path), SCAN)
    doubled = problem.with_batches([problem.batches[0], problem.batches[0]])
    with pytest.raises(ValueError, match="two images are called 'series0/0'"):
        Benchmark([doubled], [{"counted": counted()}])


def test_the_residual_is_that_of_each_image(path: Path, tmp_path: Path) -> None:
    made = benchmark(path, fbp=load_reconstructor("fbp"))
    rows = run_benchmark(made, tmp_path / "run")
    y, measurement, _ = made.problems[0].batches[0]
    mean = load_reconstructor("fbp").reconstruct(y[:1], measurement).mean
    expected = (y[:1] - measurement.operator(mean)).norm() / y[:1].norm()
    assert rows[0]["data_residual"] == pytest.approx(float(expected), rel=1e-4)


def test_a_store_that_another_has_finished_is_read_to_the_end(path: Path, tmp_path: Path) -> None:
    """Parts vanish while they are read: another worker has moved them into the results."""
    made = benchmark(path)
    worker = Worker(made, tmp_path / "run", started=0.0)
    for number in range(len(made.units)):
        worker.attempt(number)
    store = ParquetStore(tmp_path / "run", made.metrics)
    real, gone = store._parts, []

    def vanishing() -> list[Path]:
        parts = real()
        if not gone:
            gone.append(1)
            worker.store.finish(made.plan)
        return parts

    store._parts = vanishing  # type: ignore[method-assign]
    store.refresh()
    assert len(store.rows(made.plan)) == 8 and gone


def test_a_plan_survives_its_file(path: Path, tmp_path: Path) -> None:
    made = benchmark(path)
    ParquetStore(tmp_path, made.metrics).announce(made.plan)
    assert read_plan(tmp_path) == made.plan
    other = replace(made.plan, cells=())
    assert other.digest != made.plan.digest
