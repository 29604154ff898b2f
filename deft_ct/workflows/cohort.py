"""Many patients: every series of a folder is reconstructed to a folder of its own, with a table of all results."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.evaluation.execution import RayCluster
from deft_ct.io import Chosen
from deft_ct.runtime.atomic import occupy_folder, write_text
from deft_ct.runtime.content_key import ContentKey, content_digest, result_versions
from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.plain_values import plain
from deft_ct.runtime.printable import printable
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import RUN_RECORD, Output

TABLE, RECORD = "cohort.csv", "cohort.json"
"""Files of a cohort: one line for each patient, and the settings with what became of every patient."""
DONE, FAILED = "done", "failed"
_FORESEEN = (ValueError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError)
_METRICS = ("psnr", "ssim", "rmse_hu")
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class PatientRun:
    """What became of one patient.

    Attributes:
        name: of the folder or file, and of the folder of the results.
        state: :data:`DONE` or :data:`FAILED`.
        reason: why it failed, or an empty text.
        source_sha256: of the files that were read.
        slices: of the result.
        metrics: means over the slices of the main method, None where no slice has one; empty if it failed.
        seconds_per_slice: of the main method.
    """

    name: str
    state: str
    reason: str = ""
    source_sha256: str = ""
    slices: int = 0
    metrics: Mapping[str, float | None] | None = None
    seconds_per_slice: float | None = None


@dataclass(frozen=True, kw_only=True)
class CohortTask:
    """What is done with every patient.

    Attributes:
        settings: scan and methods.
        output: optional files; ``overwrite`` starts all patients anew.
        chosen: which phase and slices.
        jobs: patients at once, each in a process of its own with its share of the cores.
        ray: address of a Ray cluster whose machines see the same folders, or ``"local"`` for one of ``jobs`` processors
            on this machine; None for no cluster.

    Raises:
        ValueError: ``jobs`` is below 1, or ``ray`` has another form.
    """

    settings: SparseView
    output: Output
    chosen: Chosen
    jobs: int = 1
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        _ = self.cluster

    @property
    def cluster(self) -> RayCluster | None:
        """The cluster, if there is one."""
        if self.ray is None:
            return None
        gpus = 1.0 if self.settings.device.startswith("cuda") else 0.0
        return RayCluster(self.ray, workers=self.jobs, gpus=gpus)

    @property
    def key(self) -> ContentKey:
        """Everything that the results of a patient depend on beside the files."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "max_bytes"}
        output = {name: value for name, value in asdict(self.output).items() if name != "overwrite"}
        return ContentKey(
            {"settings": settings, "output": output, "chosen": asdict(self.chosen), "versions": result_versions()}
        )


def reconstruct_cohort(
    cohort: str | Path, out: str | Path, task: CohortTask, *, say: Callable[[PatientRun], None] = lambda _: None
) -> list[PatientRun]:
    """Reconstruct the series of every patient of a folder.

    ``OUT/PATIENT`` holds what :func:`~deft_ct.workflows.reconstruct_series.reconstruct_series` writes.
    ``OUT/cohort.csv`` has a line for each patient, and ``OUT/cohort.json`` the settings, too. Both are written after
    every patient. A patient who fails does not stop the others. The same call goes on where a killed one was: finished
    patients whose files have not changed are kept, and unfinished ones go on after their last batch of slices.

    Args:
        cohort: a folder with a folder or a file (archive, NIfTI, ...) for each patient.
        out: folder for the results, apart from the cohort.
        task: what is done.
        say: called with every patient who is finished, also in an earlier run.

    Returns:
        What became of every patient, in the order of their names.

    Raises:
        FileNotFoundError: the cohort does not exist.
        ValueError: it holds nothing, or overlaps with the output.
        OtherContentError: the output folder holds results of other settings.
        InUseError: another process writes to the output folder.
    """
    root, target = Path(cohort).expanduser().absolute(), Path(out).expanduser().absolute()
    patients = patients_of(root)
    if root.resolve() in (target.resolve(), *target.resolve().parents) or target.resolve() in root.resolve().parents:
        raise ValueError(f"the output folder {target} overlaps with the input {root}: name a folder outside")
    with occupy_folder(target):
        before = _read(target / RECORD)
        if before is not None and not task.output.overwrite:
            task.key.check(before["key"], target)
        known = {} if before is None or task.output.overwrite else before["patients"]
        # What was left of the same task is kept; of another one, it is replaced.
        found: dict[str, PatientRun] = {}
        waiting: list[str] = []
        for name, source in patients.items():
            kept = known.get(name)
            if kept is not None and kept["state"] == DONE and (target / name / RUN_RECORD).is_file():
                if kept["source_sha256"] == source_digest(source):
                    found[name] = PatientRun(**kept)
                    say(found[name])
                    continue
            waiting.append(name)
        _write(target, task, found)
        calls = ((task, name, patients[name], target / name) for name in waiting)
        for one in _results(calls, task):
            found[one.name] = one
            _write(target, task, found)
            say(one)
    return [found[name] for name in patients]


def patients_of(cohort: Path) -> dict[str, Path]:
    """Name -> folder or file of every patient, sorted; hidden files are none.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is empty, or two files would have one name.
    """
    if not cohort.is_dir():
        raise FileNotFoundError(f"no folder {cohort}: a cohort is a folder with a folder or a file for each patient")
    found: dict[str, Path] = {}
    for path in sorted(cohort.iterdir()):
        name = path.name if path.is_dir() else path.name.split(".")[0]
        if path.name.startswith("."):
            continue
        if name in found or name in (TABLE, RECORD):
            raise ValueError(f"{path} and {found.get(name, name)} would have one folder of results: rename one of them")
        found[name] = path
    if not found:
        raise ValueError(f"{cohort} is empty: a cohort is a folder with a folder or a file for each patient")
    return found


def source_digest(source: Path) -> str:
    """SHA-256 of the names and the bytes of all files of a patient."""

    def parts() -> Iterator[Any]:
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for path in files:
            yield path.relative_to(source).as_posix()
            with path.open("rb") as file:
                while block := file.read(_MIB):
                    yield np.frombuffer(block, np.uint8)

    return content_digest(parts())


def _one(task: CohortTask, name: str, source: Path, target: Path) -> PatientRun:
    """Reconstruct one patient; an error becomes a reason."""
    output = Output(**{**asdict(task.output), "overwrite": True})  # it is known not to be there, or to be outdated
    try:
        digest = source_digest(source)
        run = reconstruct_series(source, target, task.settings, output=output, chosen=task.chosen)
    except _FORESEEN as error:
        return PatientRun(name=name, state=FAILED, reason=printable(str(error) or type(error).__name__, 1000))
    row = run.rows[-1]
    summary = row.metrics.summary()
    return PatientRun(
        name=name, state=DONE, source_sha256=digest, slices=len(row.metrics),
        metrics={key: plain(summary[key].mean) for key in _METRICS}, seconds_per_slice=row.seconds_per_slice,
    )  # fmt: skip


def _results(calls: Iterator[tuple[CohortTask, str, Path, Path]], task: CohortTask) -> Iterator[PatientRun]:
    jobs = task.jobs
    if task.cluster is not None:
        yield from task.cluster.each(_one, calls)
        return
    if jobs == 1:
        for call in calls:
            yield _one(*call)
        return
    joblib = optional_library("joblib", "benchmark")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=threads):
        run = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        yield from run(joblib.delayed(_with_threads)(threads, *call) for call in calls)


def _with_threads(threads: int, task: CohortTask, name: str, source: Path, target: Path) -> PatientRun:
    torch.set_num_threads(threads)
    return _one(task, name, source, target)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found["key"], dict) and isinstance(found["patients"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(target: Path, task: CohortTask, found: Mapping[str, PatientRun]) -> None:
    patients = {name: asdict(found[name]) for name in sorted(found)}
    content = {"program": "deft-ct", "key": dict(task.key.parts), "patients": patients}
    write_text(target / RECORD, json.dumps(content, indent=1, allow_nan=False) + "\n")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["patient", "state", "slices", *_METRICS, "seconds_per_slice", "reason"])
    for one in found.values():
        known = {key: value for key, value in (one.metrics or {}).items() if value is not None}
        values = [known.get(key, "") for key in _METRICS]
        seconds = "" if one.seconds_per_slice is None else one.seconds_per_slice
        rows.writerow([one.name, one.state, one.slices, *values, seconds, one.reason])
    write_text(target / TABLE, text.getvalue())
