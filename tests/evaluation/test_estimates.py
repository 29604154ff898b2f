"""Reconstructions that a benchmark keeps for its pictures: which, when they are made, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from counted_method import Counted, CountedConfig, logged
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.estimates import ESTIMATES, EstimateStore, first_of_each
from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.evaluation.runner import RunOptions, run_benchmark
from deft_ct.evaluation.worker import Benchmark
from deft_ct.problems.ct import CTProblem
from deft_ct.report.benchmark_panels import draw_panels
from deft_ct.runtime.read_error import ReadError


def _make(pack: Path, panels: int, **config: object) -> Benchmark:
    problem = CTProblem(CTPack(pack), Scan(views=8, detectors=48), batch_size=2)
    methods = {"one": Counted(CountedConfig()), "two": Counted(CountedConfig(gain=2.0, **config))}  # type: ignore[arg-type]
    return Benchmark([problem], [methods], panels=panels)


def _estimates(benchmark: Benchmark, folder: Path) -> dict[str, list[np.ndarray | None]]:
    store, (planned,) = EstimateStore(folder), benchmark.plan.problems
    return {
        cell.label: [store.load((cell.key, planned.image_ids[n], planned.contents[n])) for n in benchmark.shown[0]]
        for cell in benchmark.plan.cells
    }


def test_the_first_image_of_each_patient() -> None:
    assert first_of_each(["a", "a", "b", "c", "a", "d"], 3) == [0, 2, 3]
    assert first_of_each(["a", "a"], 4) == [0] and first_of_each(["a"], 0) == []


def test_the_images_that_are_shown_are_those_that_were_judged(tmp_path: Path, log: Path) -> None:
    pack = write_tiny_pack(tmp_path / "val.h5")
    benchmark = _make(pack, 2)
    assert benchmark.shown == [[0, 2]] or len(benchmark.shown[0]) == 2
    rows = run_benchmark(benchmark, tmp_path / "out")
    problem = benchmark.problems[0]
    for label, images in _estimates(benchmark, tmp_path / "out").items():
        own = [row for row in rows if row["method"] == label]
        for n, image in zip(benchmark.shown[0], images, strict=True):
            assert image is not None and image.shape == problem.truth.shape[1:]
            error = np.sqrt(((image - problem.truth[n]) ** 2)[problem.body[n]].mean())
            assert error == pytest.approx(own[n]["rmse_body_hu"], rel=1e-5)
    lines: list[str] = []
    drawn = draw_panels(tmp_path / "out", benchmark, lines.append)
    assert len(drawn) == 2 and all(path.is_file() for path in drawn) and not lines


def test_rows_without_images_are_kept_and_only_the_images_are_made(tmp_path: Path, log: Path) -> None:
    pack = write_tiny_pack(tmp_path / "val.h5")
    run_benchmark(_make(pack, 0), tmp_path / "out")
    before, measured = read_rows(tmp_path / "out"), len(logged(log))
    assert not (tmp_path / "out" / ESTIMATES).exists()
    benchmark = _make(pack, 1)
    run_benchmark(benchmark, tmp_path / "out")
    assert read_rows(tmp_path / "out").equals(before), "times as well: no row was measured again"
    added = len(logged(log)) - measured
    assert 0 < added < measured, "of each method only the batch of the image"
    run_benchmark(_make(pack, 1), tmp_path / "out")
    assert len(logged(log)) == measured + added
    run_benchmark(_make(pack, 0), tmp_path / "out", RunOptions(overwrite=True))
    assert not list((tmp_path / "out" / ESTIMATES).iterdir())


def test_a_method_that_fails_has_no_picture_and_is_not_tried_for_ever(tmp_path: Path, log: Path) -> None:
    pack = write_tiny_pack(tmp_path / "val.h5")
    run_benchmark(_make(pack, 0, fails="refused"), tmp_path / "out")
    benchmark = _make(pack, 1, fails="refused")
    run_benchmark(benchmark, tmp_path / "out")
    found = _estimates(benchmark, tmp_path / "out")
    assert found["two"] == [None] and found["one"][0] is not None
    (picture,) = draw_panels(tmp_path / "out", benchmark, print)
    assert picture.is_file()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    store = EstimateStore(tmp_path)
    store.save(("key", "image", ""), np.ones((3, 4), np.float32))
    assert ("key", "image", "") in store and ("key", "image", "other") not in store
    (path,) = (tmp_path / ESTIMATES).iterdir()
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ReadError, match="is damaged"):
        store.load(("key", "image", ""))
