"""The benchmark of image sizes: its measures by hand, and its table."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch
from markdown_tables import unpadded

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "image_sizes.py"
MODULE = runpy.run_path(str(SCRIPT))


def test_the_border_is_judged_apart() -> None:
    error = torch.zeros(1, 1, 32, 32)
    error[..., :8, :] = 0.01  # 10 HU
    found = MODULE["rms"](error)
    assert abs(found["all"] - 10 * (8 / 32) ** 0.5) < 1e-3
    assert abs(found["border"] - 10 * (8 * 32 / (32 * 32 - 16 * 16)) ** 0.5) < 1e-3


def test_the_same_pixels_are_judged() -> None:
    image = torch.arange(176.0 * 176).reshape(1, 1, 176, 176)
    assert torch.equal(MODULE["inner"](image, 170), image[..., 3:-3, 3:-3])


def test_the_table_has_the_change_of_each_part() -> None:
    found = {"all": 10.0, "border": 20.0}
    record = {
        "rows": {"prior": {"divides": found, "continued": {"all": 10.1, "border": 22.0}}}, "side": 256,
        "pack": "val.h5", "every": 64, "slices": 4, "seed": 0,
    }  # fmt: skip
    text = unpadded(MODULE["markdown"](record))
    assert "| prior | 10.0 | 10.1 | +1.0 % | 20.0 | 22.0 | +10.0 % |" in text
