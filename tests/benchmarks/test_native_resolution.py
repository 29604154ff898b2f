"""The experiment on native resolution: its cells are kept, its images are judged, and its table."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_tables import unpadded
from tiny_pack import write_tiny_pack

from deft_ct.datasets.packs import CTPack
from deft_ct.methods.classical.ct_fbp import FBP, FBPConfig
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.reconstructor import Reconstructor

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "native_resolution.py"
MODULE = runpy.run_path(str(SCRIPT))


class Counted(FBP):
    """FBP that counts the images it was given."""

    images: int = 0

    def reconstruct(self, y: torch.Tensor, measurement: Any, **options: Any) -> Any:
        self.images += len(y)
        return super().reconstruct(y, measurement, **options)


def cells(work: Path, solvers: dict[str, Reconstructor], seed: int = 0) -> Any:
    methods = {route: {"method": solver.name, "config": asdict(solver.config)} for route, solver in solvers.items()}
    return MODULE["Cells"](work, methods, seed)


def test_a_cell_is_measured_once(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "test.h5"), limit=2)
    solver = Counted(FBPConfig())
    solvers: dict[str, Reconstructor] = dict.fromkeys(MODULE["ROUTES"], solver)

    def run(views: int = 12, seed: int = 0) -> list[Any]:
        return [
            row for item in pack for row in cells(tmp_path / "work", solvers, seed).measured([item], views, solvers)
        ]

    first = run()
    assert solver.images == 6
    assert run() == first and solver.images == 6
    next((tmp_path / "work").glob("*half*")).unlink()  # as if it had been killed
    again = run()
    assert solver.images == 7 and [row["DEFT, half"]["psnr"] for row in again] == [
        row["DEFT, half"]["psnr"] for row in first
    ]
    run(views=13)
    run(seed=1)
    assert solver.images == 19


def test_slices_that_are_reconstructed_together_have_the_cells_of_single_ones(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "test.h5"))
    solver = Counted(FBPConfig())
    solvers: dict[str, Reconstructor] = dict.fromkeys(MODULE["ROUTES"], solver)
    groups = MODULE["together"](pack, 3)
    assert max(map(len, groups)) > 1 and [item.z_mm for group in groups for item in group] == [
        item.z_mm for item in pack
    ]
    assert all(len({(item.group, item.pixel_mm) for item in group}) == 1 for group in groups)
    assert all(len(group) == 1 for group in MODULE["together"](pack, 1))
    group = max(groups, key=len)
    alone = [cells(tmp_path / "alone", solvers).measured([item], 12, solvers)[0] for item in group]
    kept = cells(tmp_path / "work", solvers)
    kept.measured(group[1:2], 12, solvers)
    solver.images = 0
    both = kept.measured(group, 12, solvers)
    assert solver.images == 3 * (len(group) - 1), "the finished one is not made again"
    for route in MODULE["ROUTES"]:
        assert [row[route]["psnr"] for row in both] == pytest.approx([row[route]["psnr"] for row in alone], abs=1e-4)


def test_rows_of_an_earlier_table_are_kept(tmp_path: Path) -> None:
    record = {"side": 8, "pack": "p", "slices": 2, "patients": 1, "seed": 0, "precision": "float32"}
    (tmp_path / "native_resolution.json").write_text(json.dumps(record | {"views": {"60": [1]}}))
    assert MODULE["stored_views"](tmp_path, record) == {"views": {"60": [1]}, "at_once": {"60": 1}}
    with pytest.raises(ValueError, match=r"something else \(seed, precision\)"):
        MODULE["stored_views"](tmp_path, record | {"seed": 1, "precision": "bfloat16"})


def test_the_half_route_is_judged_at_the_fine_pixels(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "test.h5"), limit=1)
    fine, half = (
        MODULE["cells_of"]([pack[0]], 30, FBP(FBPConfig()), half=half, seed=0)[0]["psnr"] for half in (False, True)
    )
    assert fine != half and min(fine, half) > 10
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    assert MODULE["doubled"](MODULE["halved"](ramp))[0, 0, 8, 4:12] == pytest.approx(ramp[0, 0, 8, 4:12], abs=0.1)


def test_the_detail_that_half_the_resolution_loses_bounds_its_image(tmp_path: Path) -> None:
    """Lost detail and other errors, as squares, add up to the error of the half route."""
    pack = CTPack(write_tiny_pack(tmp_path / "test.h5"), limit=1)
    (limit,) = MODULE["half_limits"](pack)
    truth = pack[0].hu[None].clamp_min(-1000)
    lost = MODULE["doubled"](torch.nn.functional.avg_pool2d(truth, 2)) - truth
    assert limit == pytest.approx(float(evaluate(truth[:, 0] + lost[:, 0], truth[:, 0]).psnr[0]), abs=1e-4)
    total, detail = 10 ** (-30 / 10), 10 ** (-35 / 10)
    (gain,) = MODULE["detail_gains"]([{"DEFT, half": {"psnr": 30.0}}], [35.0])
    assert gain == pytest.approx(-10 * math.log10((total - detail) / total))


def test_the_table_has_the_gain_of_the_native_route() -> None:
    def row(*psnr: float) -> dict[str, Any]:
        return {
            route: {"psnr": value, "ssim": 0.9, "seconds": 2.0, "mib": 1024.0}
            for route, value in zip(MODULE["ROUTES"], psnr, strict=True)
        }

    record = {
        "views": {"60": [row(30, 29, 32), row(31, 30.5, 33)]}, "at_once": {"60": 4}, "pack": "ct512/test.h5",
        "side": 512, "slices": 2,
        "patients": 1, "seed": 0, "precision": "float32", "processor": "a processor", "half_limits": [39, 40.5],
    }  # fmt: skip
    text = unpadded(MODULE["markdown"](record))
    assert "| 60 | TV, native | 30.50 | 0.9000 | +2.00 (+2.00 to +2.00) | 2.0 | 1.00 |" in text
    assert "| 60 | DEFT, half | 29.75 | 0.9000 | +2.75" in text and "| 60 | DEFT, native | 32.50 | 0.9000 | |" in text
