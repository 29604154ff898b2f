"""Tables of a benchmark: a row for each method, one table for each problem."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from deft_ct.evaluation.parquet_store import Row
from deft_ct.evaluation.problem import Metric, Problem
from deft_ct.evaluation.statistics import deviation, mean_interval
from deft_ct.evaluation.worker import Benchmark
from deft_ct.runtime.content_key import result_versions
from deft_ct.runtime.plain_values import plain

_COSTS = (
    ("evaluations_per_slice", "network evaluations", ".4g"),
    ("seconds_per_slice", "s / image", ".3g"),
    ("peak_memory_one_slice_mib", "peak memory (MiB)", ".0f"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one problem.

    Attributes:
        problem: name of the problem.
        label: name of the method in the table.
        values: key of each metric -> a value for every image, None where the method failed or it is undefined; and
            means of times, evaluations and the residual.
        failed: number of images on which the method failed.
        reason: why it failed on the first of them; empty if it did not.
        provenance: configuration, hashes, versions; empty if the method failed on every image.
        key: digest of the :class:`~deft_ct.runtime.content_key.ContentKey` of all that the values depend on.
    """

    problem: str
    label: str
    values: dict[str, Any]
    failed: int
    reason: str
    provenance: dict[str, Any]
    key: str

    @classmethod
    def from_rows(cls, rows: Sequence[Row], metrics: Sequence[Metric]) -> Cell:
        """The cell of the rows of one key."""
        failed = [row for row in rows if row["status"] == "failed"]
        fine = [row for row in rows if row["status"] == "ok"]
        costs = {
            "seconds_per_slice": "seconds", "evaluations_per_slice": "evaluations",
            "peak_memory_one_slice_mib": "peak_memory_mib", "data_residual": "data_residual",
        }  # fmt: skip
        return cls(
            problem=rows[0]["problem"], label=rows[0]["method"],
            values={metric.key: [row.get(metric.key) for row in rows] for metric in metrics}
            | {name: _mean([row[column] for row in fine]) for name, column in costs.items()},
            failed=len(failed), reason=failed[0]["reason"] if failed else "",
            provenance=json.loads(fine[0]["provenance"]) if fine else {}, key=rows[0]["key"],
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain values; the problem is under ``"scan"``."""
        return {
            "scan": self.problem, "label": self.label, "values": self.values, "failed": self.failed,
            "reason": self.reason, "provenance": self.provenance, "content_key": self.key,
        }  # fmt: skip


class Comparison:
    """The tables of a benchmark whose rows are there.

    Args:
        benchmark: what was measured.
        rows: of :func:`~deft_ct.evaluation.runner.run_benchmark`.
    """

    def __init__(self, benchmark: Benchmark, rows: Sequence[Row]) -> None:
        self.problems, self.samples = benchmark.problems, benchmark.samples
        self._names = benchmark.names
        by_key: dict[str, list[Row]] = {}
        for row in rows:
            by_key.setdefault(row["key"], []).append(row)
        self._tables: list[tuple[Problem, list[Cell]]] = [
            (
                problem,
                [
                    Cell.from_rows(by_key[cell.key], problem.metrics)
                    for cell in benchmark.plan.cells
                    if cell.problem == number and cell.key in by_key
                ],
            )
            for number, problem in enumerate(self.problems)
        ]

    @property
    def cells(self) -> list[Cell]:
        """All cells, problem by problem."""
        return [cell for _, cells in self._tables for cell in cells]

    def rich_tables(self) -> list[Table]:
        """The tables, one for each problem, for a terminal."""
        tables = []
        for (problem, cells), name in zip(self._tables, self._names, strict=True):
            table = Table(title=Text(f"{problem.title} ({name})"))
            for k, heading in enumerate(_headings(problem)):
                table.add_column(heading, justify="left" if k == 0 else "right")
            for cell in cells:
                table.add_row(*map(Text, _row(cell, problem)))
            tables.append(table)
        return tables

    def conventions(self) -> str:
        """How the numbers of :meth:`rich_tables` were taken."""
        return (
            f"{self.measured()} Means over images and their standard deviation over images, in brackets the 95 % "
            "bootstrap interval of the mean (images of one patient resemble each other, so it is too narrow for new "
            "patients)."
        )

    def measured(self) -> str:
        """How the data were made and the images were judged."""
        first = self.problems[0]
        said = list(dict.fromkeys(problem.conventions() for problem in self.problems))
        counts = ", ".join(dict.fromkeys(str(len(problem)) for problem in self.problems))
        seeds = ", ".join(dict.fromkeys(str(problem.seed) for problem in self.problems))
        return (
            f"{' '.join(said)} n = {counts} images. One noise draw for all methods (seed {seeds}); up to "
            f"{self.samples} posterior samples, of which the mean is judged. Times with batches of {first.batch_size} "
            f"on {first.device}; peak memory: one image, beyond what was in use before."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values: protocol, means with intervals, values of every image, provenance."""
        cells = [
            cell.to_dict() | {"summary": {metric.key: _summary(cell, metric) for metric in _columns(problem)}}
            for problem, cells in self._tables
            for cell in cells
        ]
        first = self.problems[0]
        protocol = {
            **first.settings(), "samples": self.samples, "batch_size": first.batch_size, "device": first.device,
            "versions": result_versions(),
        }  # fmt: skip
        problems = [{"problem": problem.name, **problem.settings()} for problem in self.problems]
        found: dict[str, Any] = plain({"protocol": protocol, "problems": problems, "cells": cells})
        return found


def _columns(problem: Problem) -> list[Metric]:
    return [metric for metric in problem.metrics if metric.in_table]


def _headings(problem: Problem) -> list[str]:
    return ["method", *(metric.heading for metric in _columns(problem)), *(h for _, h, _ in _COSTS), "n"]


def _row(cell: Cell, problem: Problem) -> list[str]:
    out = [cell.label]
    for metric in _columns(problem):
        found, digits = _summary(cell, metric), metric.digits
        if found is None:
            out.append("failed" if cell.failed else "-")
            continue
        mean, over, low, high = (f"{found[name]:.{digits}f}" for name in ("mean", "std", "low", "high"))
        known = math.isfinite(found["low"]) and math.isfinite(found["high"])
        out.append(f"{mean} ± {over} [{low}, {high}]" if known else mean)  # a single image has no interval
    for name, _, form in _COSTS:
        value = cell.values[name]
        out.append("-" if value is None else format(value, form))
    count = len(cell.values[problem.metrics[0].key])
    return [*out, f"{count - cell.failed} of {count}" if cell.failed else str(count)]


def _summary(cell: Cell, metric: Metric) -> dict[str, Any] | None:
    """Mean with interval and deviation over the images that have a value; None if none has."""
    values = [np.nan if value is None else value for value in cell.values[metric.key]]
    if np.isnan(values).all():
        return None
    return asdict(mean_interval(values)) | {"std": deviation(values)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
