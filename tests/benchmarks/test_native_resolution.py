"""The experiment on native resolution: its cells are kept, its images are judged, and its table."""

from __future__ import annotations

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
        return [cells(tmp_path / "work", solvers, seed).measured(item, views, solvers) for item in pack]

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


def test_the_half_route_is_judged_at_the_fine_pixels(tmp_path: Path) -> None:
    pack = CTPack(write_tiny_pack(tmp_path / "test.h5"), limit=1)
    fine, half = (MODULE["cell"](pack[0], 30, FBP(FBPConfig()), half=half, seed=0)["psnr"] for half in (False, True))
    assert fine != half and min(fine, half) > 10
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    assert MODULE["doubled"](MODULE["halved"](ramp))[0, 0, 8, 4:12] == pytest.approx(ramp[0, 0, 8, 4:12], abs=0.1)


def test_the_table_has_the_gain_of_the_native_route() -> None:
    def row(*psnr: float) -> dict[str, Any]:
        return {
            route: {"psnr": value, "ssim": 0.9, "seconds": 2.0, "mib": 1024.0}
            for route, value in zip(MODULE["ROUTES"], psnr, strict=True)
        }

    record = {
        "views": {"60": [row(30, 29, 32), row(31, 30.5, 33)]}, "pack": "ct512/test.h5", "side": 512, "slices": 2,
        "patients": 1, "seed": 0, "precision": "float32", "processor": "a processor",
    }  # fmt: skip
    text = unpadded(MODULE["markdown"](record))
    assert "| 60 | TV, native | 30.50 | 0.9000 | +2.00 (+2.00 to +2.00) | 2.0 | 1.00 |" in text
    assert "| 60 | DEFT, half | 29.75 | 0.9000 | +2.75" in text and "| 60 | DEFT, native | 32.50 | 0.9000 | |" in text
