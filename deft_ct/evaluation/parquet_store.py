"""Rows of a benchmark in Parquet: one for each method on a problem and image.

A folder holds

* ``plan.json``: which rows belong to the benchmark, in which order (:class:`~deft_ct.evaluation.plan.Plan`);
* ``metrics.json``: headings, digits and direction of the metrics;
* ``parts/``: one small file for each finished batch. It appears whole or not at all, and its name is its content, so
  that two workers that measure the same batch write the same file;
* ``results.parquet``: all rows of the plan, written by whoever finishes it. The parts that are in it are removed.

Rows of earlier plans stay in ``parts/`` and are used again when they are asked for under the same key. Needs pyarrow.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_ct.evaluation.measuring import OUT_OF_MEMORY
from deft_ct.evaluation.plan import Plan, Unit
from deft_ct.evaluation.problem import Metric
from deft_ct.runtime.atomic import atomic_file, occupy_folder, write_text
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.locks import InUseError
from deft_ct.runtime.read_error import ReadError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RESULTS, PARTS, PLAN, METRICS = "results.parquet", "parts", "plan.json", "metrics.json"

TEXT = ("key", "data", "split", "problem", "method", "image_id", "content", "patient", "status", "reason", "note",
        "provenance", "protocol")  # fmt: skip
"""Columns of text."""
NUMBERS = ("seconds", "evaluations", "peak_memory_mib", "data_residual")
"""Columns of numbers that every row has; null where the method failed."""
ORDER = ("key", "data", "split", "problem", "method", "seed", "image_id", "patient", "status", "reason")
"""The first columns; the metrics follow, then the costs and the records."""

_FIXED = frozenset({*ORDER, *NUMBERS, *TEXT})

PATIENCE_S = 600.0
"""How long a worker waits for another one that writes the results."""

Row = dict[str, Any]
Place = tuple[str, str, str]
"""Key, name of the image and content of the image: what makes a row one of its own."""


class ParquetStore:
    """The rows of a folder.

    Args:
        folder: of the benchmark; made when something is written.
        metrics: the columns of metrics.
        started: time of the start of this run in seconds since 1970. Images for which a method ran out of memory
            before are tried once more.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, metrics: Sequence[Metric], *, started: float = 0.0) -> None:
        optional_library("pyarrow", "benchmark")  # before any work
        self.folder, self.metrics, self.started = folder, tuple(metrics), started
        self._files: dict[str, tuple[int, int]] = {}
        self._rows: dict[Place, tuple[float, Row]] = {}
        self._in_results: list[Place] = []

    def append(self, unit: Unit, rows: Sequence[Row]) -> None:
        """Write the rows of a finished batch, in one step."""
        path = self.folder / PARTS / f"{unit.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _table(rows, self._keys))
        self.refresh()

    def refresh(self) -> None:
        """Read what other workers have written since the last time."""
        while not self._read_new():
            pass

    def has(self, plan: Plan, unit: Unit) -> bool:
        """Whether all rows of a batch are there."""
        return not self.missing(plan, unit)

    def missing(self, plan: Plan, unit: Unit) -> list[int]:
        """Places in a batch of the images whose rows are not there."""
        key = plan.cells[unit.cell].key
        return [k for k, (name, content) in enumerate(plan.images_of(unit)) if (key, name, content) not in self]

    def __contains__(self, place: Place) -> bool:
        if place not in self._rows:
            return False
        changed, row = self._rows[place]
        return changed >= self.started or not row["reason"].startswith(OUT_OF_MEMORY)

    def rows(self, plan: Plan) -> list[Row]:
        """The rows of a plan that are there, in its order."""
        places = ((cell.key, image_id, content) for cell, image_id, content in plan.rows())
        return [self._rows[place][1] for place in places if place in self._rows]

    def announce(self, plan: Plan) -> None:
        """Write down what the benchmark consists of, before the work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / PLAN, json.dumps(plan.to_dict()) + "\n")
        write_text(self.folder / METRICS, json.dumps([asdict(metric) for metric in self.metrics], indent=1) + "\n")

    def finish(self, plan: Plan) -> None:
        """Write ``results.parquet`` with the rows of a finished plan, and remove the parts that are in it.

        Rows of other plans are kept as parts. Several workers may call it at the same time.
        """
        with self.held():
            self.refresh()
            self.announce(plan)
            final = {(cell.key, image_id, content) for cell, image_id, content in plan.rows()}
            rows = self.rows(plan)
            kept = self._keep([row for place, (_, row) in self._rows.items() if place not in final])
            old = [path for path in self._parts() if path.name != kept]
            if old or self._in_results != [_place(row) for row in rows]:
                _write(self.folder / RESULTS, _table(rows, self._keys))
                for path in old:
                    path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all rows."""
        with self.held():
            for path in (*self._parts(), self.folder / RESULTS):
                path.unlink(missing_ok=True)
            self._files.clear()
            self._rows.clear()
            self._in_results.clear()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this process alone, to move or remove rows. Others wait; what killed ones left is removed.

        Raises:
            InUseError: another process holds it for more than :data:`PATIENCE_S`.
        """
        with contextlib.ExitStack() as stack:
            until = time.monotonic() + PATIENCE_S
            while True:
                try:
                    stack.enter_context(occupy_folder(self.folder))
                except InUseError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
                else:
                    break
            yield

    def _keep(self, rows: Sequence[Row]) -> str | None:
        """Put rows of other plans into a part of their own; its name."""
        if not rows:
            return None
        ordered = sorted(rows, key=_place)
        name = f"kept-{content_digest([_place(row) for row in ordered])[:24]}.parquet"
        if not (self.folder / PARTS / name).is_file():
            (self.folder / PARTS).mkdir(exist_ok=True)
            measured = dict.fromkeys(column for row in ordered for column in row if column not in _FIXED)
            _write(self.folder / PARTS / name, _table(ordered, list(measured)))
        return name

    @property
    def _keys(self) -> list[str]:
        return [metric.key for metric in self.metrics]

    def _parts(self) -> list[Path]:
        return sorted((self.folder / PARTS).glob("*.parquet"))

    def _read_new(self) -> bool:
        """Read new files; False if one has vanished meanwhile because another worker has finished."""
        for path in [self.folder / RESULTS, *self._parts()]:
            try:
                state = path.stat()
                mark = (state.st_mtime_ns, state.st_size)
                if self._files.get(path.name) == mark:
                    continue
                found = _read(path)
            except FileNotFoundError:
                if path.name == RESULTS:
                    continue
                return False
            for row in found:
                self._add(row, state.st_mtime)
            if path.name == RESULTS:
                self._in_results = [_place(row) for row in found]
            self._files[path.name] = mark
        return True

    def _add(self, row: Row, changed: float) -> None:
        """Keep a row; one of an image that was measured twice, because it succeeds or is newer."""
        before = self._rows.get(_place(row))
        rank = (row["status"] == "ok", changed)
        if before is None or rank >= (before[1]["status"] == "ok", before[0]):
            self._rows[_place(row)] = (changed, row)


def read_rows(folder: Path) -> pd.DataFrame:
    """The rows of a benchmark that are there, each (key, image) once, in the order of the plan.

    Args:
        folder: of the benchmark, finished or not.

    Raises:
        FileNotFoundError: no benchmark was run there.
        ReadError: ``plan.json`` is damaged.
    """
    plan, metrics = read_plan(folder), read_metrics(folder)
    store = ParquetStore(folder, metrics)
    store.refresh()
    return _table(store.rows(plan), [metric.key for metric in metrics]).to_pandas()


def read_plan(folder: Path) -> Plan:
    """The plan of a benchmark.

    Raises:
        FileNotFoundError: no benchmark was run there.
        ReadError: it is damaged.
    """
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no benchmark: there is no {PLAN}")
    try:
        return Plan.from_dict(read_json_object(path, "the plan of a benchmark"))
    except ValueError as error:
        raise ReadError(path, f"is not the plan of a benchmark ({error})") from error


def read_metrics(folder: Path) -> list[Metric]:
    """The metrics of a benchmark, in the order of its columns."""
    return [Metric(**item) for item in json.loads((folder / METRICS).read_text(encoding="utf-8"))]


def _place(row: Mapping[str, Any]) -> Place:
    return row["key"], row["image_id"], row["content"]


def _table(rows: Sequence[Row], keys: Sequence[str]) -> pa.Table:
    """Rows with these keys of metrics."""
    pa = optional_library("pyarrow", "benchmark")
    kinds = dict.fromkeys(TEXT, pa.string()) | {"seed": pa.int64()}
    columns = dict.fromkeys([*ORDER, *keys, *NUMBERS, *TEXT])
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], schema=schema)


def _write(path: Path, table: pa.Table) -> None:
    pq = optional_library("pyarrow.parquet", "benchmark")
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary)


def _read(path: Path) -> list[Row]:
    """The rows of a file; none, with a warning, if it is damaged: they are measured again."""
    pa, pq = (optional_library(name, "benchmark") for name in ("pyarrow", "pyarrow.parquet"))
    try:
        # Not by its path: a name such as `a=b` in it would be read as a column.
        rows: list[Row] = pq.ParquetFile(path).read().to_pylist()
    except pa.ArrowInvalid as error:
        warnings.warn(f"{path} is damaged and not used ({error})", UserWarning, stacklevel=5)
        return []
    return rows
