"""A table of methods on problems: every cell is measured once and kept, so that an interrupted comparison resumes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from deft_ct.evaluation.problem import Metric, Problem, score, score_json
from deft_ct.evaluation.statistics import Interval, deviation, mean_interval
from deft_ct.evaluation.tables import markdown_table
from deft_ct.networks import weights_digest
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.content_key import ANEW, ContentKey, OtherContentError, result_versions
from deft_ct.runtime.plain_values import plain

RESULTS = "results"
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
        values: see :func:`~deft_ct.evaluation.problem.score_json`.
        provenance: configuration, hashes, versions.
        key: digest of the :class:`~deft_ct.runtime.content_key.ContentKey` of all that the values depend on.
    """

    problem: str
    label: str
    values: dict[str, Any]
    provenance: dict[str, Any]
    key: str

    def to_dict(self) -> dict[str, Any]:
        """As it is stored; the problem is under ``"scan"``."""
        return {
            "scan": self.problem, "label": self.label, "values": self.values, "provenance": self.provenance,
            "content_key": self.key,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Cell:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: something is missing.
        """
        return cls(
            problem=stored["scan"], label=stored["label"], values=stored["values"], provenance=stored["provenance"],
            key=stored["content_key"],
        )  # fmt: skip


class Comparison:
    """Methods on problems that differ in the measurement alone: one table for each problem.

    Args:
        problems: what is judged; they share data, metrics and settings.
        samples: posterior samples of each image, for methods that draw them.

    Raises:
        ValueError: there is no problem, or their settings differ.
    """

    def __init__(self, problems: Sequence[Problem], *, samples: int = 4) -> None:
        if not problems:
            raise ValueError("a comparison needs at least one problem")
        self.problems, self.samples = list(problems), samples
        first = self.problems[0]
        if any(problem.settings() != first.settings() for problem in self.problems):
            raise ValueError("the problems of a comparison must share their data and settings")
        self.protocol: dict[str, Any] = {
            **first.settings(), "samples": samples, "batch_size": first.batch_size, "device": first.device,
            "versions": result_versions(),
        }  # fmt: skip
        self.cells: list[Cell] = []

    def run(
        self,
        reconstructors: Mapping[str, Mapping[str, Reconstructor]],
        folder: Path,
        *,
        overwrite: bool = False,
        progress: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> list[Cell]:
        """Measure every method on every problem, with the same noise for all methods of a problem.

        Each finished pair of problem and method is written to ``folder/results``. A pair that is there already is read
        instead of measured if all that it depends on is the same: data, measurement, settings, configuration, networks
        and versions.

        Args:
            reconstructors: name of the problem -> label -> method.
            folder: of the results.
            overwrite: measure everything anew, also in a folder with results of other data or settings.
            progress: show progress bars.
            log: gets a line on what is being done.

        Returns:
            The cells, problem by problem; also kept in :attr:`cells`.

        Raises:
            OtherContentError: the folder holds results of other data or settings, and ``overwrite`` is false.
        """
        self._check_protocol(folder, overwrite)
        say = log or (lambda _: None)
        self.cells = []
        for problem in self.problems:
            for label, reconstructor in reconstructors[problem.name].items():
                path = _path(folder, problem.name, label)
                key = self._key(problem, label, reconstructor)
                cell = None if overwrite else _read(path, key)
                if cell is not None:
                    say(f"{problem.name}: {label} was measured before")
                else:
                    say(f"{problem.name}: {label}")
                    result = score(
                        label, reconstructor, problem, samples=self.samples, measure_memory=True, progress=progress
                    )
                    cell = Cell(
                        problem=problem.name, label=label, values=score_json(result),
                        provenance=plain(result.provenance), key=key,
                    )  # fmt: skip
                    write_text(path, json.dumps(cell.to_dict(), indent=1) + "\n")
                self.cells.append(cell)
            problem.release()
        return self.cells

    def markdown(self) -> str:
        """The tables, one for each problem, with a line that states the conventions."""
        parts = []
        for problem, cells in self._by_problem():
            table = markdown_table(self._headings(), [self._row(cell) for cell in cells])
            parts.append(f"### {problem.title} (`{problem.name}`)\n\n{table}\n")
        return "\n".join([*parts, self.conventions() + "\n"])

    def rich_tables(self) -> list[Table]:
        """The same tables for a terminal."""
        tables = []
        for problem, cells in self._by_problem():
            table = Table(title=f"{problem.title} ({problem.name})")
            for k, heading in enumerate(self._headings()):
                table.add_column(heading, justify="left" if k == 0 else "right")
            for cell in cells:
                table.add_row(*self._row(cell))
            tables.append(table)
        return tables

    def conventions(self) -> str:
        """How the numbers of the tables were taken."""
        first = self.problems[0]
        return (
            f"{first.conventions()} Means over n = {len(first)} images and their standard deviation over images, in "
            f"brackets the 95 % bootstrap interval of the mean (images of one patient resemble each other, so it is "
            f"too narrow for new patients). One noise draw for all methods (seed {first.seed}); up to {self.samples} "
            f"posterior samples, of which the mean is judged. Times with batches of {first.batch_size} on "
            f"{first.device}; peak memory: one image, beyond what was in use before."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values: protocol, means with intervals, values of every image, provenance."""

        def summary(cell: Cell, metric: Metric) -> dict[str, Any]:
            return plain(asdict(_interval(cell, metric)) | {"std": _deviation(cell, metric)})

        return {
            "protocol": self.protocol,
            "cells": [
                cell.to_dict() | {"summary": {metric.key: summary(cell, metric) for metric in self._columns()}}
                for cell in self.cells
            ],
        }

    def _columns(self) -> list[Metric]:
        return [metric for metric in self.problems[0].metrics if metric.in_table]

    def _by_problem(self) -> list[tuple[Problem, list[Cell]]]:
        found = [(problem, [c for c in self.cells if c.problem == problem.name]) for problem in self.problems]
        return [(problem, cells) for problem, cells in found if cells]

    def _headings(self) -> list[str]:
        return ["method", *(metric.heading for metric in self._columns()), *(h for _, h, _ in _COSTS), "n"]

    def _row(self, cell: Cell) -> list[str]:
        out = [cell.label]
        for metric in self._columns():
            found, digits = _interval(cell, metric), metric.digits
            over = _deviation(cell, metric)
            out.append(f"{found.mean:.{digits}f} ± {over:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]")
        for name, _, form in _COSTS:
            value = cell.values[name]
            out.append("-" if value is None else format(value, form))
        return [*out, str(len(cell.values[self._columns()[0].key]))]

    def _key(self, problem: Problem, label: str, reconstructor: Reconstructor) -> str:
        method = {
            "name": reconstructor.name, "config": asdict(reconstructor.config), "networks": reconstructor.describe(),
            "weights": weights_digest(reconstructor),
        }  # fmt: skip
        parts = {**self.protocol, "problem": problem.name, "content": problem.content(), "label": label}
        return ContentKey(parts | {"method": method}).digest

    def _check_protocol(self, folder: Path, overwrite: bool) -> None:
        path = folder / "protocol.json"
        if path.is_file() and not overwrite:
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise OtherContentError(f"{path} is damaged, so its results cannot be resumed: {ANEW}") from error
            ContentKey(self.protocol).check(before, folder)
            return
        write_text(path, json.dumps(self.protocol, indent=1) + "\n")


def _values(cell: Cell, metric: Metric) -> list[float]:
    return [np.nan if v is None else v for v in cell.values[metric.key]]


def _interval(cell: Cell, metric: Metric) -> Interval:
    return mean_interval(_values(cell, metric))


def _deviation(cell: Cell, metric: Metric) -> float:
    return deviation(_values(cell, metric))


def _path(folder: Path, problem: str, label: str) -> Path:
    return folder / RESULTS / problem / (re.sub(r"[^A-Za-z0-9=.,_-]+", "-", label) + ".json")


def _read(path: Path, key: str) -> Cell | None:
    """An earlier result, if it depends on the same."""
    if not path.is_file():
        return None
    try:
        cell = Cell.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        return None
    return cell if cell.key == key else None
