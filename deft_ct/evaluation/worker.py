"""Workers of a benchmark: each takes the next batch that nobody has, measures it, and stores its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deft_ct.evaluation.claims import Claims
from deft_ct.evaluation.estimates import EstimateStore, first_of_each
from deft_ct.evaluation.measuring import MeasuredImage, measure_part, memory_of_one_image
from deft_ct.evaluation.parquet_store import ParquetStore, Place, Row
from deft_ct.evaluation.plan import Methods, Plan, PlannedCell, PlannedProblem, Unit, make_plan
from deft_ct.evaluation.problem import COVERAGE, Metric, Problem

Log = Callable[[str], None]


class Benchmark:
    """Methods on problems: what is measured, without where the results go.

    Args:
        problems: what is judged.
        methods: those of each problem, label -> method.
        samples: posterior samples of each image, for methods that draw them.
        panels: of how many images of each problem the reconstructions are kept for the page: the first of each patient.
        keep_all: keep the reconstructions of all images.

    Raises:
        ValueError: there is no problem, or one is there twice.
    """

    def __init__(
        self, problems: Sequence[Problem], methods: Sequence[Methods], *, samples: int = 1, panels: int = 0,
        keep_all: bool = False,
    ) -> None:  # fmt: skip
        if not problems:
            raise ValueError("a benchmark needs at least one problem")
        self.problems, self.methods, self.samples = list(problems), list(methods), samples
        self.plan: Plan = make_plan(self.problems, self.methods, samples=samples)
        self.units: list[Unit] = self.plan.units()
        self.shown = [first_of_each(problem.patients, panels) for problem in self.plan.problems]
        self.kept: list[Sequence[int]] = [
            range(len(problem.image_ids)) if keep_all else shown
            for problem, shown in zip(self.plan.problems, self.shown, strict=True)
        ]

    @property
    def names(self) -> list[str]:
        """The name of each problem, with its data and seed where they differ between the problems."""
        problems = self.plan.problems
        several = [len({getattr(one, what) for one in problems}) > 1 for what in ("data", "seed")]

        def extra(one: PlannedProblem) -> list[str]:
            return [f"data {one.data}"] * several[0] + [f"seed {one.seed}"] * several[1]

        return [", ".join([one.name, *extra(one)]) for one in problems]

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of all problems, each once, and the coverage of intervals."""
        found = {metric.key: metric for problem in self.problems for metric in (*problem.metrics, COVERAGE)}
        return list(found.values())


class Worker:
    """Measures batches of a benchmark, one at a time.

    Args:
        benchmark: what is measured.
        folder: of the results; several workers may share it.
        started: see :class:`~deft_ct.evaluation.parquet_store.ParquetStore`.
        progress: show progress bars of the methods.
        log: gets a line on what is being done.
    """

    def __init__(
        self, benchmark: Benchmark, folder: Path, *, started: float, progress: bool = False, log: Log | None = None
    ) -> None:
        self.benchmark = benchmark
        self.store = ParquetStore(folder, benchmark.metrics, started=started)
        self.estimates = EstimateStore(folder)
        self.claims = Claims(folder)
        self._progress, self._log = progress, log or (lambda _: None)
        self._memory: dict[int, float | None] = {}
        self._said: set[str] = set()
        self._at = -1

    def attempt(self, number: int) -> bool:
        """Measure a unit unless its rows are there; False if another worker has claimed it.

        Args:
            number: of the unit, see ``Plan.units``.
        """
        unit = self.benchmark.units[number]
        with self.claims.claim(unit.name) as mine:
            if not mine:
                return False
            self.store.refresh()
            if missing := self.store.missing(self.benchmark.plan, unit):
                self.store.append(unit, [row for run in _runs(missing) for row in self._measure(unit, run)])
            for _, place in self._kept(unit):
                if place not in self.estimates:
                    self._measure(unit, range(len(unit.images)))  # its rows stay as they are
        return True

    def finished(self, unit: Unit) -> bool:
        """Whether the rows of a unit are there, and the reconstructions that are kept."""
        return self.store.has(self.benchmark.plan, unit) and not self._missing_estimates(unit)

    def _missing_estimates(self, unit: Unit) -> bool:
        return any(place not in self.estimates for _, place in self._kept(unit))

    def _kept(self, unit: Unit) -> list[tuple[int, Place]]:
        """Places in the batch, and in the store, of the images of a unit whose reconstructions are kept."""
        cell = self.benchmark.plan.cells[unit.cell]
        images = self.benchmark.plan.images_of(unit)
        wanted = self.benchmark.kept[cell.problem]
        return [(k, (cell.key, *images[k])) for k, n in enumerate(unit.images) if n in wanted]

    def _measure(self, unit: Unit, chosen: range) -> list[Row]:
        """Rows of some images of a batch, beside each other; reconstructions are kept where they are wanted."""
        benchmark = self.benchmark
        cell = benchmark.plan.cells[unit.cell]
        planned = benchmark.plan.problems[cell.problem]
        batches = len(planned.batches)
        which = f" (batch {unit.batch + 1} of {batches})" if batches > 1 else ""
        name = benchmark.names[cell.problem]
        self._log(f"{name}: {cell.label}{which}")
        run = slice(None) if len(chosen) == len(unit.images) else slice(chosen.start, chosen.stop)
        part = self._problem(cell.problem).one_batch(unit.batch, run)
        method = benchmark.methods[cell.problem][cell.label]
        if unit.cell not in self._memory:
            self._memory[unit.cell] = memory_of_one_image(part, method, samples=benchmark.samples)
        found = measure_part(part, method, samples=benchmark.samples, progress=self._progress)
        for image in found:
            self._say_once(f"{name}: {cell.label}: {image.reason or image.note}", image.reason or image.note)
        for k, place in self._kept(unit):
            if k in chosen:
                estimate = found[k - chosen.start].estimate
                self.estimates.save(place, None if estimate is None else part.picture(estimate))
        return [
            self._row(cell, planned, unit.images[k], image, self._memory[unit.cell])
            for k, image in zip(chosen, found, strict=True)
        ]

    def _say_once(self, line: str, text: str) -> None:
        if text and line not in self._said:
            self._said.add(line)
            self._log(line)

    def _problem(self, number: int) -> Problem:
        """A problem; the data of the one before are forgotten."""
        if self._at not in (number, -1):
            self.benchmark.problems[self._at].release()
        self._at = number
        return self.benchmark.problems[number]

    def _row(
        self, cell: PlannedCell, planned: PlannedProblem, n: int, image: MeasuredImage, memory: float | None
    ) -> Row:
        metrics = (*self.benchmark.problems[cell.problem].metrics, COVERAGE)
        values = {metric.key: image.values.get(metric.name) for metric in metrics}
        return {
            "key": cell.key, "data": planned.data, "split": planned.split, "problem": planned.name,
            "method": cell.label, "seed": planned.seed, "image_id": planned.image_ids[n],
            "content": planned.contents[n], "patient": planned.patients[n],
            "status": "failed" if image.reason else "ok", "reason": image.reason,
            **{key: None if value is None or value != value else value for key, value in values.items()},
            "seconds": image.seconds, "evaluations": image.evaluations,
            "peak_memory_mib": None if image.reason else memory, "data_residual": image.data_residual,
            "note": image.note, "provenance": json.dumps(image.provenance, sort_keys=True), "protocol": cell.protocol,
        }  # fmt: skip


def _runs(places: Sequence[int]) -> list[range]:
    """Ascending numbers as runs of neighbours."""
    found: list[range] = []
    for n in places:
        if found and found[-1].stop == n:
            found[-1] = range(found[-1].start, n + 1)
        else:
            found.append(range(n, n + 1))
    return found


@dataclass(frozen=True)
class WorkerJob:
    """Measure single units in another process, or on another machine that sees the same folder.

    The benchmark is made there, once for each process.

    Args:
        make: makes the benchmark; it can be pickled.
        folder: of the results.
        started: see :class:`Worker`.
        digest: of the plan; another one there means other data, networks or versions.
    """

    make: Callable[[], Benchmark]
    folder: Path
    started: float
    digest: str

    def __call__(self, number: int) -> bool:
        """See :meth:`Worker.attempt`.

        Raises:
            RuntimeError: the benchmark is another one there.
        """
        return self._worker().attempt(number)

    def all_units(self, first: int) -> int:
        """Measure every unit that nobody else has, beginning with some unit; the number of those that were tried."""
        worker = self._worker()
        count = len(worker.benchmark.units)
        return sum(worker.attempt((first + n) % count) for n in range(count))

    def _worker(self) -> Worker:
        name = (str(self.folder), self.started, self.digest)
        if name not in _WORKERS:
            _WORKERS.clear()
            worker = Worker(self.make(), self.folder, started=self.started)
            if worker.benchmark.plan.digest != self.digest:
                raise RuntimeError(
                    "a worker sees other data, networks or versions than the process that started it: use the same "
                    "files and the same installation on every machine"
                )
            _WORKERS[name] = worker
        return _WORKERS[name]


_WORKERS: dict[tuple[str, float, str], Worker] = {}
"""The worker of this process; a benchmark is not made anew for every batch."""
