"""The gallery draws one figure for each task, and says which methods do not suit it."""

from __future__ import annotations

import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "gallery.py"))


def test_one_figure_for_each_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "crops.h5", "w") as file:
        file["test"] = np.tile(np.arange(16, dtype=np.uint8)[:, None, None] * 15, (2, 1, 16, 3))
    words = [
        "--data", f"photos:{tmp_path / 'crops.h5'}", "--tasks", "sr2", "hdr", "--methods", "cgls:iterations=3",
        "--count", "2", "--every", "1", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    SCRIPT["main"](words)
    said = capsys.readouterr().out
    assert "hdr: cgls:iterations=3 is left out (" in said
    for name in ("sr2", "hdr"):
        with Image.open(tmp_path / "out" / f"{name}.png") as figure:
            assert min(figure.size) > 100
    SCRIPT["main"](words)
    assert "sr2.png is there" in capsys.readouterr().out
