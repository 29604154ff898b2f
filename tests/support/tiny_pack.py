"""A pack of a few 32 x 32 slices."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from tiny import tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale


def write_tiny_pack(path: Path, count: int = 4, pixel_mm: float = 8.0) -> Path:
    """Write a pack of two series with ``count`` slices each, and return its path."""
    hu = HounsfieldScale().to_hu(tiny_slices(2 * count))[:, 0].numpy()
    with h5py.File(path, "w") as file:
        for k in range(2):
            group = file.create_group(f"series{k}")
            group["hu"] = np.rint(hu[k * count : (k + 1) * count]).astype(np.int16)
            group["z_mm"] = np.arange(count, dtype=np.float32)
            group.attrs["pixel_mm"] = pixel_mm + k
    return path
