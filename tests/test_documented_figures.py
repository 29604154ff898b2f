"""The tables of README and docs/results.md are those of the stored results: every cell is made anew and compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from documented_tables import stored, table_after, table_holds

README, RESULTS = "README.md", "docs/results.md"
LABELS = {
    "FBP": "fbp", "SIRT": "sirt", "CGLS": "cgls", "Tikhonov": "tikhonov", "TV": "tv", "DPS": "dps:steps=100",
    "RED-diff": "reddiff", "DAPS": "daps", "DDS": "dds", "MCG": "mcg:steps=100", "DiffPIR": "diffpir", "DDNM+": "ddnm",
    "PiGDM": "pigdm", "PiGDM, the best zero-shot method": "pigdm", "DEFT, one sample": "deft:estimate=samples",
    "FBP + U-Net": "fbp_unet", "learned primal-dual": "learned_primal_dual", "DEFT, direct mean": "deft",
}  # fmt: skip
SCANS = {
    "20 parallel views, 1e5 photons": "parallel20_1e5", "120 parallel views": "parallel120_1e5",
    "60 parallel views over 120 degrees": "parallel60_1e5_120deg",
    "the same, from 45 degrees on": "parallel60_1e5_120deg_from45", "60 fan views, full turn": "fan60_1e5",
    "60 fan views over 240 degrees": "fan60_1e5_240deg", "60 parallel views, 1e4 photons": "parallel60_1e4",
    "60 parallel views, 1e6 photons": "parallel60_1e6",
}  # fmt: skip
FAULTS = {
    "none": "nominal", "views shuffled": "views shuffled", "views at golden angles": "golden angle",
    "one dead element (reads 0)": "one dead element (0)", "one noisy element": "one noisy element",
    "detector a fifth too short on each side": "truncated", "sign of the data": "y = -y",
    "transmittance instead of line integrals": "transmittance", "counts instead of line integrals": "counts",
    "a tenth of the rays without photons": "photon starvation", "a rod of metal": "metal",
}  # fmt: skip


@cache
def cells(name: str) -> dict[tuple[str, str], Any]:
    """Cells of a comparison by scan and method."""
    return {(cell["scan"], cell["label"]): cell for cell in stored(name)["cells"]}


def table(page: str, heading: str) -> list[list[str]]:
    """The first table below a heading."""
    return table_after(page, f"\n## {heading}\n")


def decibels(cell: Any) -> str:
    """PSNR with its interval."""
    psnr = cell["summary"]["psnr_db"]
    return f"{psnr['mean']:.2f} [{psnr['low']:.2f}, {psnr['high']:.2f}]"


def rmse(cell: Any) -> str:
    """RMSE in the body, HU."""
    return f"{cell['summary']['rmse_body_hu']['mean']:.0f}"


def ssim(cell: Any) -> str:
    """SSIM."""
    return f"{cell['summary']['ssim']['mean']:.3f}"


def evaluations(cell: Any) -> str:
    """Network evaluations of a slice."""
    return f"{cell['values']['evaluations_per_slice']:.0f}"


def short_table(row: list[str]) -> list[str]:
    cell = cells("compare_test_volumes_parallel60_1e5")["parallel60_1e5", LABELS[row[0]]]
    return [row[0], decibels(cell), rmse(cell), evaluations(cell)]


def long_table(row: list[str]) -> list[str]:
    place = ("parallel60_1e5", LABELS[row[0]])
    cell, timed = cells("compare_test_volumes_parallel60_1e5")[place], cells("compare_parallel60_1e5")[place]
    seconds = f"{timed['values']['seconds_per_slice']:.2g}"
    return [row[0], decibels(cell), ssim(cell), rmse(cell), evaluations(cell), seconds]


def two_scans(row: list[str]) -> list[str]:
    found = []
    for scan in ("parallel20_1e5", "parallel60_1e5_120deg"):
        cell = cells(f"compare_all_{scan}")[scan, LABELS[row[0]]]
        found.append(f"{decibels(cell)} / {rmse(cell)}")
    return [row[0], *found]


def other_scans(row: list[str]) -> list[str]:
    scan = SCANS[row[0]]
    file = "compare_test_volumes_parallel20_1e5" if scan == "parallel20_1e5" else "compare_other_scans"
    tv, mean, sample = (cells(file)[scan, method] for method in ("tv", "deft", "deft:estimate=samples"))
    gains = np.subtract(mean["values"]["psnr_db"], tv["values"]["psnr_db"])
    both = [f"{cell['summary']['psnr_db']['mean']:.2f} / {rmse(cell)}" for cell in (tv, mean)]
    return [row[0], str(len(gains)), *both, f"{gains.min():.2f}", f"{sample['summary']['psnr_db']['mean']:.2f}"]


def other_scanners(row: list[str]) -> list[str]:
    cell = cells("compare_test_singles_parallel60_1e5")["parallel60_1e5", LABELS[row[0]]]
    return [row[0], decibels(cell), ssim(cell), rmse(cell)]


def more_views(row: list[str]) -> list[str]:
    methods = {
        "TV": "tv", "learned primal-dual, any scan": "learned_primal_dual",
        "DEFT, conditioned on the scan as it is": "deft:fallback=false", "DEFT": "deft",
    }  # fmt: skip
    found = stored("more_data")
    keys = [f"parallel{views}_4.096e3 {methods[row[0]]}" for views in found["settings"]["views"]]
    return [row[0], *(f"{np.mean(found['cells'][key]['psnr_db']):.2f}" for key in keys)]


@pytest.mark.parametrize(
    ("page", "heading", "expected", "rows"),
    [
        (README, "How good is it?", short_table, 7),
        (RESULTS, "Every method on 60 views", long_table, 17),
        (RESULTS, "Other scans, one h-transform", other_scans, 8),
        (RESULTS, "Every method on two harder scans", two_scans, 15),
        (RESULTS, "Other scanners and kernels", other_scanners, 17),
        (RESULTS, "More views at the same photons", more_views, 4),
    ],
)
def test_a_table_is_that_of_the_stored_results(
    page: str, heading: str, expected: Callable[[list[str]], list[str]], rows: int
) -> None:
    found = table(page, heading)
    assert len(found) == rows
    table_holds(page, f"\n## {heading}\n", [expected(row) for row in found])


def test_damaged_data_are_those_of_the_stored_results() -> None:
    found = table(RESULTS, "When the data are damaged")
    rows = {row["fault"]: row for row in stored("data_faults")["rows"]}
    methods = ("learned_primal_dual", "deft", "fbp_unet", "tv")
    assert len(found) == len(rows)
    expected = [
        [name, *(f"{rows[FAULTS[name]][method]['rmse_hu']:,.0f}" for method in methods), shown[-1]]
        for name, *shown in found
    ]
    table_holds(RESULTS, "\n## When the data are damaged\n", expected)
    for name, *shown in found:
        warned = {warning for method in methods for warning in rows[FAULTS[name]][method]["warnings"]}
        assert set(filter(None, shown[4].split(", "))) == warned, name
