"""``--pictures``: every restored photograph as a file, also after a killed run, and never a file elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from counted_method import LOG, Counted, CountedConfig, logged
from PIL import Image
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.evaluation.estimates import EstimateStore
from deft_ct.evaluation.execution import Processes
from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.evaluation.runner import run_benchmark
from deft_ct.evaluation.worker import Benchmark
from deft_ct.io.photographs import read_photograph
from deft_ct.problems.natural_data import natural_problems
from deft_ct.problems.options import ProblemOptions
from deft_ct.report.benchmark_pictures import write_pictures
from deft_ct.runtime.read_error import ReadError
from deft_ct.workflows.benchmark import SuiteRun, run_suite
from deft_ct.workflows.suite import Suite, read_suite

COUNT, SIDE = 5, 16


@pytest.fixture
def photographs(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for n in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(tmp_path / "photographs" / f"{n}.png")
    return f"photos:{tmp_path / 'photographs'}:{SIDE}"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "log").mkdir()
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    return tmp_path / "log"


def counted(photographs: str, *, keep_all: bool = True, limit: int | None = None, **config: object) -> Benchmark:
    options = ProblemOptions(every=1, limit=limit, seed=0, batch_size=2, device="cpu")
    problems = natural_problems(photographs, ["denoise:noise=0.1"], options)
    methods = {"one": Counted(CountedConfig(gain=1e4)), "../two": Counted(CountedConfig(gain=3e4, **config))}  # type: ignore[arg-type]
    return Benchmark(problems, [methods], keep_all=keep_all)


def files(out: Path) -> dict[str, bytes]:
    root = out / "pictures"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_picture_is_that_which_was_judged(photographs: str, tmp_path: Path) -> None:
    suite = Suite(data=(photographs,), tasks=("sr4", "denoise"), methods=("tv", "cgls:iterations=2"), pictures=True)
    run_suite(suite, tmp_path / "out")
    names = [f"{n}.png" for n in range(COUNT)]
    folders = {"sr4": "sr4", "denoise": "denoise"}
    assert set(files(tmp_path / "out")) == {
        f"{problem}/{method}/{name}"
        for problem in folders
        for method in ("truth", "tv", "cgls-iterations=2")
        for name in names
    }
    rows = read_rows(tmp_path / "out").set_index(["problem", "method", "image_id"])
    for n in range(COUNT):
        truth, restored = (
            read_photograph(tmp_path / "out/pictures/sr4" / name / f"{n}.png").pixels for name in ("truth", "tv")
        )
        original = read_photograph(tmp_path / "photographs" / f"{n}.png").pixels
        assert torch.equal(truth, original)
        rmse = float((restored - truth).square().mean().sqrt())
        assert rmse == pytest.approx(rows.loc[("sr4", "tv", str(n)), "rmse"], abs=0.01)
        with Image.open(tmp_path / "out/pictures/sr4/tv" / f"{n}.png") as picture:
            assert picture.mode == "RGB" and picture.size == (SIDE, SIDE)


def test_values_are_clipped_and_names_are_safe(photographs: str, tmp_path: Path, log: Path) -> None:
    benchmark = counted(photographs)
    run_benchmark(benchmark, tmp_path / "out")
    write_pictures(tmp_path / "out", benchmark, print)
    (planned,), (problem,) = benchmark.plan.problems, benchmark.problems
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {planned.name.replace(":", "-")}
    place, store = tmp_path / "out" / "pictures" / planned.name, EstimateStore(tmp_path / "out")
    assert {path.name for path in place.iterdir()} == {"truth", "one", "two"} and len(problem) == COUNT
    cell = next(cell for cell in benchmark.plan.cells if cell.label == "../two")
    outside = 0
    for n in range(COUNT):
        image = store.load((cell.key, planned.image_ids[n], planned.contents[n]))
        assert image is not None
        outside += int((np.abs(image) > 1).sum())
        shown = read_photograph(place / "two" / f"{n}.png").pixels.numpy()
        np.testing.assert_allclose(shown, np.clip(image, -1, 1), atol=0.5 / 127.5 + 1e-6)
    assert outside > 0


def test_a_method_that_is_called_truth_does_not_replace_it(photographs: str, tmp_path: Path, log: Path) -> None:
    (problem,) = counted(photographs).problems
    benchmark = Benchmark([problem], [{"Truth": Counted(CountedConfig(gain=3e4))}], keep_all=True)
    run_benchmark(benchmark, tmp_path / "out")
    write_pictures(tmp_path / "out", benchmark, print)
    (place,) = (tmp_path / "out" / "pictures").iterdir()
    assert {path.name for path in place.iterdir()} == {"truth", "Truth-2"}
    original = read_photograph(tmp_path / "photographs" / "0.png").pixels
    assert torch.equal(read_photograph(place / "truth" / "0.png").pixels, original)


@pytest.mark.slow
def test_several_workers_write_what_one_writes(photographs: str, tmp_path: Path) -> None:
    suite = Suite(data=(photographs,), tasks=("sr4",), methods=("tv", "cgls:iterations=2"), pictures=True, batch_size=2)
    run_suite(suite, tmp_path / "one")
    run_suite(suite, tmp_path / "two", SuiteRun(engine=Processes(2)))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_killed_run_resumes(photographs: str, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = counted(photographs)
    run_benchmark(whole, tmp_path / "whole")
    write_pictures(tmp_path / "whole", whole, print)
    calls, save, before = len(logged(log)), EstimateStore.save, 0

    def killed(store: EstimateStore, *given: object) -> None:
        nonlocal before
        before += 1
        if before > 4:
            raise KeyboardInterrupt
        save(store, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(EstimateStore, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(counted(photographs), tmp_path / "out")
    monkeypatch.setattr(EstimateStore, "save", save)
    again = counted(photographs)
    run_benchmark(again, tmp_path / "out")
    write_pictures(tmp_path / "out", again, print)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    finished = len(logged(log))
    run_benchmark(counted(photographs), tmp_path / "out")
    assert len(logged(log)) == finished > calls, "a finished run measures nothing"


def test_pictures_of_a_run_without_them_are_made_and_its_rows_stay(photographs: str, tmp_path: Path, log: Path) -> None:
    run_benchmark(counted(photographs, keep_all=False), tmp_path / "out")
    before = read_rows(tmp_path / "out")
    benchmark = counted(photographs)
    run_benchmark(benchmark, tmp_path / "out")
    write_pictures(tmp_path / "out", benchmark, print)
    assert read_rows(tmp_path / "out").equals(before) and len(files(tmp_path / "out")) == 3 * COUNT


def test_a_set_that_is_not_whole_is_said(photographs: str, tmp_path: Path, log: Path) -> None:
    said: list[str] = []
    run_benchmark(counted(photographs, fails="refused"), tmp_path / "out")
    write_pictures(tmp_path / "out", counted(photographs, fails="refused"), said.append)
    (line,) = said
    assert f"lacks {COUNT} of {COUNT} pictures" in line and "two" in line
    said.clear()
    fewer = counted(photographs, limit=2)
    run_benchmark(fewer, tmp_path / "out")
    before = files(tmp_path / "out")
    write_pictures(tmp_path / "out", fewer, said.append)
    assert len(said) == 2 and all(f"has {COUNT - 2} other pictures" in line for line in said), said
    assert set(before) <= set(files(tmp_path / "out"))


def test_a_picture_that_is_there_is_not_written_again(photographs: str, tmp_path: Path, log: Path) -> None:
    benchmark = counted(photographs)
    run_benchmark(benchmark, tmp_path / "out")
    write_pictures(tmp_path / "out", benchmark, print)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").rglob("*.png")}
    damaged = sorted(written)[0]
    damaged.write_bytes(b"")
    write_pictures(tmp_path / "out", benchmark, print)
    assert damaged.stat().st_size > 0
    assert {path for path, time in written.items() if path.stat().st_mtime_ns != time} == {damaged}


def test_a_damaged_reconstruction_is_named(photographs: str, tmp_path: Path, log: Path) -> None:
    benchmark = counted(photographs)
    run_benchmark(benchmark, tmp_path / "out")
    for path in (tmp_path / "out" / "estimates").iterdir():
        path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ReadError, match="is damaged"):
        write_pictures(tmp_path / "out", benchmark, print)


def test_ct_is_refused_in_one_sentence(tmp_path: Path) -> None:
    words = ["compare", "--data", "val", "--method", "fbp", "--pictures", "--out", str(tmp_path / "out")]
    for given in (words, ["benchmark", "ct256", "--pictures", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 2 and "pictures (--pictures) are of photographs" in result.stderr
        assert result.stderr.count("\n") == 1
    assert read_suite("photos64", overrides={"pictures": True}).pictures
