"""Comparisons of methods in the stored results, slice by slice, as several tests of the pages need them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from documented_tables import ROOT, stored

RESULTS = "docs/results.md"
ZERO_SHOT = ("dps:steps=100", "reddiff", "daps", "dds", "mcg:steps=100", "diffpir", "ddnm", "pigdm")
SIXTY, TWENTY, ARC = "parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg"
MEAN, SAMPLE = "deft", "deft:estimate=samples"


@cache
def psnr(name: str) -> dict[str, np.ndarray]:
    """PSNR of every slice by method, in a comparison of one scan."""
    return {cell["label"]: np.array(cell["values"]["psnr_db"]) for cell in stored(name)["cells"]}


def gain(found: dict[str, np.ndarray], other: str, method: str = MEAN) -> np.ndarray:
    """How much better a method is than another, dB of every slice."""
    return found[method] - found[other]


def best_zero_shot(found: dict[str, np.ndarray], method: str = MEAN) -> float:
    """How much better a method is than the best zero-shot one, on average."""
    return float(min(gain(found, other, method).mean() for other in ZERO_SHOT if other in found))


def seconds() -> dict[str, float]:
    """Seconds a slice in batches of 4, relative to DEFT."""
    cells = {cell["label"]: cell["values"]["seconds_per_slice"] for cell in stored("compare_seconds_" + SIXTY)["cells"]}
    return {name: value / cells[MEAN] for name, value in cells.items()}


def seconds_in_twos() -> dict[str, float]:
    """The same in batches of 2, of the long table."""
    cells = {cell["label"]: cell["values"]["seconds_per_slice"] for cell in stored("compare_" + SIXTY)["cells"]}
    return {name: value / cells[MEAN] for name, value in cells.items()}


def stored_card(path: str) -> Any:
    """The card of a shipped network."""
    return json.loads((ROOT / "deft_ct/assets" / path).read_text(encoding="utf-8"))["card"]


def lost_db(case: str, method: str, key: str = "against_exact") -> float:
    """How much a wrong description costs on average."""
    (row,) = [row for row in stored("robustness")[key] if row["case"] == case and row["method"] == method]
    return -float(row["psnr_change_db"]["mean"])
