"""A table of methods on scans: every cell is measured once and kept, so that an interrupted comparison goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.problem import Problem, prepare, score, score_json
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.reconstructor import Reconstructor

RESULTS = "results"
_SUMMARY = (("psnr_db", "PSNR (dB)", 2), ("ssim", "SSIM", 4), ("rmse_body_hu", "RMSE in body (HU)", 1))
_COSTS = (
    ("evaluations_per_slice", "network evaluations", ".4g"),
    ("seconds_per_slice", "s / slice", ".3g"),
    ("peak_memory_one_slice_mib", "peak memory (MiB)", ".0f"),
)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every cell of a comparison has in common.

    Args:
        pack: name of the pack of slices.
        every: every k-th slice of it.
        samples: posterior samples of each slice.
        seed: of noise and sampling.
        refine: grid refinement of the simulation.
        data_range_hu: of PSNR and SSIM.
        batch_size: slices at once.
        device: where to compute.
    """

    pack: str
    every: int = 1
    samples: int = 4
    seed: int = 0
    refine: int = 2
    data_range_hu: float = 2000.0
    batch_size: int = 8
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one scan.

    Attributes:
        scan: name of the scan.
        label: name of the method in the table.
        values: see :func:`~deft_ct.evaluation.problem.score_json`.
        provenance: configuration, hashes, versions.
    """

    scan: str
    label: str
    values: dict[str, Any]
    provenance: dict[str, Any]


def run_comparison(
    pack: CTPack,
    scans: Sequence[Scan],
    solvers: Mapping[str, Mapping[str, Reconstructor]],
    folder: Path,
    protocol: Protocol,
    *,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[Cell]:
    """Measure every method on every scan, with the same noise for all methods of a scan.

    Each finished pair of scan and method is written to ``folder/results``; what is there already, from the same
    protocol and configuration, is read instead of measured.

    Args:
        pack: the slices.
        scans: what is simulated.
        solvers: name of the scan -> label -> method.
        folder: of the results.
        protocol: settings in common; ``pack`` must be what it names.
        progress: show progress bars.
        tell: is told what is being done.

    Returns:
        The cells, scan by scan.

    Raises:
        ValueError: the folder holds results of another protocol.
    """
    _check_protocol(folder, protocol)
    say = tell or (lambda _: None)
    cells = []
    for scan in scans:
        problem: Problem | None = None
        for label, solver in solvers[scan.name].items():
            path = _path(folder, scan, label)
            cell = _read(path, scan, label, solver)
            if cell is not None:
                say(f"{scan.name}: {label} was measured before")
            else:
                say(f"{scan.name}: {label}")
                problem = problem or prepare(
                    pack, scan, seed=protocol.seed, refine=protocol.refine, batch_size=protocol.batch_size,
                    device=protocol.device,
                )  # fmt: skip
                result = score(
                    label, solver, problem, samples=protocol.samples, data_range_hu=protocol.data_range_hu,
                    measure_memory=True, progress=progress,
                )  # fmt: skip
                cell = Cell(
                    scan=scan.name, label=label, values=score_json(result), provenance=_plain(result.provenance)
                )
                _write(path, json.dumps(asdict(cell), indent=1) + "\n")
            cells.append(cell)
    return cells


def comparison_markdown(cells: Sequence[Cell], protocol: Protocol) -> str:
    """The tables, one for each scan, with the line that states the conventions."""
    parts = []
    for scan in dict.fromkeys(cell.scan for cell in cells):
        rows = [_cells(cell) for cell in cells if cell.scan == scan]
        lines = [_headings(), ["---", *["---:"] * (len(_headings()) - 1)], *rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"### {Scan.from_name(scan)} (`{scan}`)\n\n{table}\n")
    return "\n".join([*parts, conventions(cells, protocol) + "\n"])


def comparison_tables(cells: Sequence[Cell]) -> list[Table]:
    """The same tables for a terminal."""
    tables = []
    for scan in dict.fromkeys(cell.scan for cell in cells):
        table = Table(title=f"{Scan.from_name(scan)} ({scan})")
        for k, heading in enumerate(_headings()):
            table.add_column(heading, justify="left" if k == 0 else "right")
        for cell in cells:
            if cell.scan == scan:
                table.add_row(*_cells(cell))
        tables.append(table)
    return tables


def conventions(cells: Sequence[Cell], protocol: Protocol) -> str:
    """How the numbers of the tables were taken."""
    count = len(cells[0].values["psnr_db"])
    return (
        f"Pack {protocol.pack}, every {protocol.every}: means over n = {count} slices and their standard deviation "
        f"over slices, in brackets the 95 % bootstrap interval of the mean (slices of a patient resemble each other, "
        f"so it is too narrow for new patients). "
        f"PSNR and SSIM: whole slice, data range {protocol.data_range_hu:g} HU, nothing clipped. One noise draw for "
        f"all methods (seed {protocol.seed}); up to {protocol.samples} posterior samples, of which the mean is judged. "
        f"Times with batches of {protocol.batch_size} on {protocol.device}; peak memory: one slice, beyond what was in "
        f"use before."
    )


def comparison_json(cells: Sequence[Cell], protocol: Protocol) -> dict[str, Any]:
    """Everything as plain values: protocol, means with intervals, values of every slice, provenance."""

    def summary(cell: Cell, name: str) -> dict[str, Any]:
        return _plain(asdict(_interval(cell, name)) | {"std": _spread(cell, name)})

    return {
        "protocol": asdict(protocol),
        "cells": [asdict(cell) | {"summary": {name: summary(cell, name) for name, _, _ in _SUMMARY}} for cell in cells],
    }


def _interval(cell: Cell, name: str) -> Any:
    return mean_interval([np.nan if v is None else v for v in cell.values[name]])


def _spread(cell: Cell, name: str) -> float:
    """Standard deviation over slices; NaN for fewer than two."""
    values = np.array([v for v in cell.values[name] if v is not None])
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _headings() -> list[str]:
    return ["method", *(h for _, h, _ in _SUMMARY), *(h for _, h, _ in _COSTS), "n"]


def _cells(cell: Cell) -> list[str]:
    out = [cell.label]
    for name, _, digits in _SUMMARY:
        found = _interval(cell, name)
        spread = _spread(cell, name)
        out.append(f"{found.mean:.{digits}f} ± {spread:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]")
    for name, _, form in _COSTS:
        value = cell.values[name]
        out.append("-" if value is None else format(value, form))
    return [*out, str(len(cell.values["psnr_db"]))]


def _path(folder: Path, scan: Scan, label: str) -> Path:
    return folder / RESULTS / scan.name / (re.sub(r"[^A-Za-z0-9=.,_-]+", "-", label) + ".json")


def _read(path: Path, scan: Scan, label: str, solver: Reconstructor) -> Cell | None:
    """An earlier result, if it is of the same label and configuration."""
    if not path.is_file():
        return None
    try:
        cell = Cell(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError):
        return None
    fresh = _plain(asdict(solver.config) | solver.describe())
    before = cell.provenance["config"] | {key: cell.provenance.get(key) for key in solver.describe()}
    return cell if (cell.scan, cell.label) == (scan.name, label) and before == fresh else None


def _check_protocol(folder: Path, protocol: Protocol) -> None:
    path = folder / "protocol.json"
    wanted = asdict(protocol)
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in wanted if before.get(key) != wanted[key])
        if changed:
            raise ValueError(
                f"{folder} holds a comparison with another {', '.join(changed)}: use the same settings to go on, or "
                "another folder"
            )
        return
    _write(path, json.dumps(wanted, indent=1) + "\n")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back; NaN becomes null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if isinstance(value, float) and not np.isfinite(value):
            return None
        return value if isinstance(value, str | int | float | bool | None) else str(value)

    found: dict[str, Any] = clean(values)
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
