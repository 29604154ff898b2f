"""Slice datasets at half the resolution."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_pack import write_tiny_pack

from deft_ct.datasets.halved import halve, halved_pack, halved_scan
from deft_ct.datasets.packs import CTPack
from deft_ct.runtime.content_key import OtherContentError


def test_a_halved_pack_holds_means_of_four_pixels(tmp_path: Path) -> None:
    source = write_tiny_pack(tmp_path / "full.h5", count=2)
    with h5py.File(source, "a") as file:
        file["series0"].attrs["collection"] = "test"
    full, half = CTPack(source), CTPack(halve(source, tmp_path / "half.h5"))
    assert half.image_shape == (16, 16)
    np.testing.assert_allclose(half.pixel_mm, 2 * full.pixel_mm)
    assert half.groups[0].collection == "test" and half[1].z_mm == full[1].z_mm
    corner = full.array()[:, 6:8, 10:12].mean((1, 2))
    np.testing.assert_allclose(half.array()[:, 3, 5], corner, atol=0.5)


def test_a_pack_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    target = write_tiny_pack(tmp_path / "val.h5", count=1)
    before = target.stat().st_mtime_ns
    assert halved_pack(tmp_path, "val") == target and target.stat().st_mtime_ns == before


def test_a_pack_of_other_slices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ct256").mkdir()
    source = write_tiny_pack(tmp_path / "ct256" / "val.h5", count=1)
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path))
    target = halved_pack(tmp_path / "work", "val")
    assert halved_pack(tmp_path / "work", "val") == target
    with h5py.File(source, "a") as file:
        file["series0"]["hu"][...] += 1
    with pytest.raises(OtherContentError, match="was made from other slices than"):
        halved_pack(tmp_path / "work", "val")


def test_a_halved_scan_keeps_its_width() -> None:
    assert halved_scan("parallel60_1e5_120deg").name == "parallel60_1e5_120deg_182bins"
    assert halved_scan("fan60_1e5").name == "fan60_1e5"


def test_slices_that_cannot_be_halved(tmp_path: Path) -> None:
    for shape in ((2, 8, 7), (2, 7, 8)):
        with h5py.File(tmp_path / "odd.h5", "w") as file:
            file["a/hu"] = np.zeros(shape, np.int16)
            file["a"].attrs["pixel_mm"] = 1.0
        with pytest.raises(ValueError, match=r"'a/hu' must have an even number of rows and columns, got \(2, "):
            halve(tmp_path / "odd.h5", tmp_path / "half.h5")
        assert not (tmp_path / "half.h5").exists()
