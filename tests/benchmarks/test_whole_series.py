"""The measurement of a whole series: its input, what it compares, and its table."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pydicom
from markdown_tables import unpadded

from deft_ct.io import read_dicom_series, sample_series_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed" / "whole_series.py"
MODULE = runpy.run_path(str(SCRIPT))


def test_a_lengthened_series_is_one_series(tmp_path: Path) -> None:
    MODULE["lengthened"](sample_series_path(), tmp_path / "series", 11)
    series, source = read_dicom_series(tmp_path / "series"), read_dicom_series(sample_series_path())
    assert len(series) == 11 and len(set(series.slice_uids)) == 11
    np.testing.assert_array_equal(series.hu, np.concatenate([source.hu, source.hu])[:11])
    assert series.volume.spacing_mm == source.volume.spacing_mm


def test_any_change_of_a_pixel_or_a_number_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    image = pydicom.dcmread(next(sample_series_path().glob("*.dcm")))
    image.save_as(folder / "a.dcm")
    (folder / "run.json").write_text(json.dumps({"metrics": [{"metrics": {"psnr": 30.0}, "seconds": 1.0}]}))
    (folder / "figure.png").write_bytes(b"a")
    content = MODULE["content"]
    before = content(folder)
    (folder / "run.json").write_text(json.dumps({"metrics": [{"metrics": {"psnr": 30.0}, "seconds": 2.0}]}))
    assert content(folder) == before
    (folder / "figure.png").write_bytes(b"b")
    assert content(folder) != before
    (folder / "figure.png").write_bytes(b"a")
    image.PixelData = bytes([image.PixelData[0] ^ 1]) + image.PixelData[1:]
    image.save_as(folder / "a.dcm")
    assert content(folder) != before


def test_seconds_and_memory_of_a_process() -> None:
    found = MODULE["timed"]([sys.executable, "-c", "x = bytearray(200 * 2**20); sum(range(10**7))"])
    assert found["user_seconds"] > 0.05 and found["seconds"] > 0.05 and found["peak_mib"] > 200


def test_the_table_says_how_many_runs_were_the_same() -> None:
    kill = {"killed_after": 1.0, "was_killed": True, "parts": 2, "user_seconds": 1.0, "same": True}
    record = {
        "slices": 40, "side": 512, "options": [], "processor": "a processor", "load": 1.0, "seed": 0,
        "whole": {"seconds": 100.0, "user_seconds": 180.0, "system_seconds": 2.0, "peak_mib": 2048.0},
        "kills": [kill, kill | {"same": False}], "killed_slices": 6, "killed_options": ["--size=256"],
    }  # fmt: skip
    text = unpadded(MODULE["markdown"](record))
    assert "| 40 | 512 | 100 | 180 | 2 | 2.00 |" in text and "to the bit in 1 of 2 runs" in text
