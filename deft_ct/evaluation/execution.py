"""Where the batches of a benchmark are computed: in this process, in others (joblib), on a cluster (Ray, Slurm).

Every engine runs the same job, one batch at a time, on one shared folder. None of them is a scheduler of our own.
"""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deft_ct.evaluation.worker import WorkerJob
from deft_ct.runtime.extras import optional_library

Result = TypeVar("Result")

_ADDRESS = re.compile(r"local|auto|(ray://)?[\w.-]+:\d+")

RETRIES = 3
"""How often a batch is given to another process after the one that had it was killed."""


class Engine(abc.ABC):
    """Runs a job on units of work, in processes of its own."""

    @abc.abstractmethod
    def run(self, job: WorkerJob, units: Sequence[int]) -> None:
        """Run the job on every unit, in any order. Units that another worker has claimed may be left out.

        Raises:
            RuntimeError: processes were killed more often than the engine tries again.
        """


@dataclass(frozen=True)
class Processes(Engine):
    """Processes on this machine, by joblib. Each takes batches until none is left.

    A process has one long task: joblib ends a process whose memory has grown by 300 MB between two tasks, as if it
    leaked, and ours keep networks and matrices.

    Args:
        workers: number of processes; each uses its share of the cores.
    """

    workers: int

    def run(self, job: WorkerJob, units: Sequence[int]) -> None:
        """See :meth:`Engine.run`; a killed process ends the others, and what they have stored stays."""
        joblib = optional_library("joblib", "benchmark")
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        threads = max(1, (os.cpu_count() or 1) // self.workers)
        first = _starts(units, self.workers)
        for attempt in range(RETRIES):
            try:
                with joblib.parallel_config(backend="loky", n_jobs=self.workers, inner_max_num_threads=threads):
                    joblib.Parallel(batch_size=1)(joblib.delayed(job.all_units)(unit) for unit in first)
                return
            except TerminatedWorkerError as error:
                if attempt == RETRIES - 1:
                    raise RuntimeError(
                        f"processes of the benchmark were killed {RETRIES} times, perhaps for want of memory: use "
                        "fewer --workers or a smaller --batch-size; finished batches are kept"
                    ) from error


@dataclass(frozen=True)
class RayCluster(Engine):
    """Machines of a Ray cluster that see the same folder and data.

    Args:
        address: of the cluster, for example ``"auto"`` or ``"ray://head:10001"``; ``"local"`` starts one here.
        workers: processors of a local cluster; its own number when None.
        gpus: GPUs of each batch.

    Raises:
        ValueError: ``address`` has another form.
    """

    address: str
    workers: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise ValueError(f"--ray must be local, auto, ray://HOST:PORT or HOST:PORT, got {self.address!r}")

    def run(self, job: WorkerJob, units: Sequence[int]) -> None:
        """See :meth:`Engine.run`; Ray gives the batch of a killed worker to another one."""
        with self._connected() as ray:
            shared = ray.put(job)
            for _ in self.each(_run_unit, ((shared, number) for number in units)):
                pass

    def each(self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """Results of a function, in the order in which they are done.

        Args:
            function: of a module, so that the workers can import it.
            calls: arguments of each call.

        Raises:
            RuntimeError: a worker was killed more often than Ray tries again.
        """
        with self._connected() as ray:
            remote = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=RETRIES)(function)
            waiting = [remote.remote(*call) for call in calls]
            while waiting:
                done, waiting = ray.wait(waiting)
                try:
                    yield from ray.get(done)
                except ray.exceptions.WorkerCrashedError as error:
                    raise RuntimeError(
                        f"a worker of Ray was killed {RETRIES + 1} times on one piece of work, perhaps for want of "
                        "memory: take a smaller --batch-size or --max-memory; what is finished is kept"
                    ) from error

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """The library while it is connected to the cluster; a connection that was there stays."""
        ray = optional_library("ray", "cluster")
        local = self.address == "local"
        started = not ray.is_initialized()
        if started:
            here = {"num_cpus": self.workers, "include_dashboard": False} if local else {}
            ray.init(address="local" if local else self.address, log_to_driver=False, **here)
        try:
            yield ray
        finally:
            if started:
                ray.shutdown()


@dataclass(frozen=True)
class Slurm(Engine):
    """Jobs of Slurm, by submitit. Each takes batches until none is left.

    Args:
        folder: for the files of submitit, seen by all machines.
        workers: number of jobs.
        options: of submitit, for example ``{"slurm_partition": "gpu", "timeout_min": 60}``. ``cluster`` chooses
            another way to start the jobs, for example ``"local"``.
    """

    folder: Path
    workers: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, job: WorkerJob, units: Sequence[int]) -> None:
        """See :meth:`Engine.run`; jobs that have ended early leave their batches to the next round."""
        submitit = optional_library("submitit", "cluster")
        options = dict(self.options)
        executor = submitit.AutoExecutor(folder=self.folder, cluster=options.pop("cluster", "slurm"))
        executor.update_parameters(**options)
        jobs = executor.map_array(job.all_units, _starts(units, self.workers))
        failures = [error for error in (one.exception() for one in jobs) if error is not None]
        if len(failures) == len(jobs):
            raise RuntimeError(f"every Slurm job has failed, the first with: {failures[0]}") from failures[0]


def _starts(units: Sequence[int], workers: int) -> list[int]:
    """Where each worker begins, far from the others."""
    return [units[len(units) * n // workers] for n in range(workers)]


def _run_unit(job: WorkerJob, number: int) -> bool:
    """A function, because Ray takes no objects that can be called."""
    return job(number)
