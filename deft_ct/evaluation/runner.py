"""Run a benchmark in a folder: every row is measured once and kept, so that an interrupted run resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deft_ct.evaluation.claims import Claims
from deft_ct.evaluation.execution import Engine
from deft_ct.evaluation.measuring import NOT_APPLICABLE
from deft_ct.evaluation.parquet_store import ParquetStore, Row
from deft_ct.evaluation.worker import Benchmark, Log, Worker, WorkerJob
from deft_ct.runtime.locks import InUseError

_WAIT_S = 0.5
"""Between two looks at what other workers have finished."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a benchmark is run.

    Attributes:
        overwrite: measure everything anew.
        progress: show progress bars, if the work is done in this process.
        log: gets a line on what is being done.
        engine: where the work is done; this process when None.
        make: makes the benchmark in another process; needed with an engine.
    """

    overwrite: bool = False
    progress: bool = False
    log: Log | None = None
    engine: Engine | None = None
    make: Callable[[], Benchmark] | None = None


def run_benchmark(benchmark: Benchmark, folder: Path, options: RunOptions | None = None) -> list[Row]:
    """Measure every row of a benchmark that is not in the folder yet, and write ``folder/results.parquet``.

    Several processes, also on several machines, may do so in one folder at the same time: each measures the batches
    that nobody else has. A row is used again if all that it depends on is the same: data, measurement, settings,
    configuration, networks and versions. A method that fails has rows with the reason.

    Args:
        benchmark: what is measured.
        folder: of the results.
        options: how.

    Returns:
        The rows in the order of the plan.

    Raises:
        InUseError: ``overwrite``, while another process works in the folder.
        RuntimeError: processes of the engine were killed again and again.
        ValueError: an engine without ``make``.
    """
    options = options or RunOptions()
    say, plan = options.log or (lambda _: None), benchmark.plan
    worker = Worker(
        benchmark, folder, started=time.time(), progress=options.progress, log=options.log
    )  # fmt: skip
    store = worker.store
    if options.overwrite:
        if Claims(folder).held_by_others():
            raise InUseError(f"another process measures in {folder}: wait for it, or leave out --overwrite")
        store.clear()
        worker.estimates.clear()
    store.announce(plan)
    store.refresh()
    _say_what_is_there(benchmark, store, say)
    run = _runner(worker, folder, options)
    while todo := [n for n, unit in enumerate(benchmark.units) if not worker.finished(unit)]:
        run(todo)
        store.refresh()
        if any(not worker.finished(benchmark.units[n]) for n in todo):
            time.sleep(_WAIT_S)  # another worker has the rest
    for problem in benchmark.problems:
        problem.release()
    store.finish(plan)
    worker.claims.held_by_others()  # removes the claims of killed workers
    return store.rows(plan)


def _runner(worker: Worker, folder: Path, options: RunOptions) -> Callable[[Sequence[int]], None]:
    """What measures some units, or those of them that no other worker has."""

    def here(units: Sequence[int]) -> None:
        for number in units:
            worker.attempt(number)

    engine = options.engine
    if engine is None:
        return here
    if options.make is None:
        raise ValueError("an engine needs make, which makes the benchmark in another process")
    job = WorkerJob(options.make, folder, worker.store.started, worker.benchmark.plan.digest)
    return lambda units: engine.run(job, units)


def _say_what_is_there(benchmark: Benchmark, store: ParquetStore, say: Log) -> None:
    plan = benchmark.plan
    for number, cell in enumerate(plan.cells):
        units = [unit for unit in benchmark.units if unit.cell == number]
        there = sum(len(unit.images) - len(store.missing(plan, unit)) for unit in units)
        count = sum(len(unit.images) for unit in units)
        if there:
            which = "was measured before" if there == count else f"{there} of {count} were measured before"
            say(f"{benchmark.names[cell.problem]}: {cell.label} {which}")


def failures(rows: Sequence[Row]) -> list[str]:
    """A line on each method that failed on a problem: on how many images, and why.

    A method that cannot be used with a problem has failed only if no problem of the benchmark suits it. A suite of
    many degradations holds linear and nonlinear ones.
    """
    useful = {row["method"] for row in rows if row["status"] == "ok"}
    found: dict[tuple[str, str, str], list[str]] = {}
    count: dict[tuple[str, str, str], int] = {}
    for row in rows:
        place = (row["method"], row["data"], row["problem"])
        count[place] = count.get(place, 0) + 1
        expected = row["method"] in useful and row["reason"].startswith(NOT_APPLICABLE)
        if row["status"] == "failed" and not expected:
            found.setdefault(place, []).append(row["reason"])
    return [
        f"{method} failed on {len(reasons)} of {count[method, data, problem]} images of {data}, {problem}: "
        f"{reasons[0].removeprefix(NOT_APPLICABLE)}"
        for (method, data, problem), reasons in found.items()
    ]
