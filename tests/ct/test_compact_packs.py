"""Slices packed to travel."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from deft_ct.ct.compact_packs import LEVELS, read_compact, write_compact


def test_slices_come_back_within_half_a_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 3072, (3, 32, 32), dtype=np.int16)
    with h5py.File(tmp_path / "pack.h5", "w") as file:
        for name in ("a", "b"):
            group = file.create_group(name)
            group["hu"] = hu
            group.attrs.update({"pixel_mm": 1.5, "collection": "C", "patient": f"p{name}"})
    assert write_compact([tmp_path / "pack.h5"], tmp_path / "pack.npz") == 6
    pack = read_compact(tmp_path / "pack.npz", processes=1)
    assert pack.hu.shape == (6, 32, 32) and pack.pixel_mm.tolist() == [1.5] * 6
    assert pack.patient.tolist() == ["C_pa"] * 3 + ["C_pb"] * 3
    clipped = np.clip(hu.astype(int), -1000, 2200)
    error = np.abs(pack.hu[:3] - clipped)
    assert error.max() <= 4 and error[(clipped > -200) & (clipped < 400)].max() <= 2
    assert np.isin(pack.hu, LEVELS).all()
