"""Slices on the device of the training, and the scans that they are drawn with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.compact_packs import CompactPack, read_compact
from deft_ct.ct.resident_pairs import ScanGroup
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform

NAMED = {
    "parallel60_1e5": 4.0, "parallel20_1e5": 3.0, "parallel60_1e5_120deg": 2.0, "fan60_1e5": 1.5,
    "parallel120_1e5": 1.5, "parallel60_1e4": 1.5, "parallel60_noisefree": 0.5, "parallel1000_4096": 0.5,
}  # fmt: skip
"""Common scans and how often each is drawn, beside :data:`DRAWN` for the random ones."""
DRAWN = 14.0
FAMILY = ScanRange(views=(10, 400), photons=(1e3, 1e6), any_start=True)
NAMED_512 = {"parallel60_1e5": 1.0, "parallel120_1e5": 1.0, "parallel60_2.5e4": 0.5, "fan120_1e5": 0.5}
DRAWN_512 = 2.5
FAMILY_512 = ScanRange(views=(20, 200), photons=(3e3, 1e6), any_start=True)
HELD = ("LCTSC_p009", "TCGA-LIHC_p001", "C4KC-KiTS_p001", "Lung-Fused-CT-Pathology_p002")
"""Training patients whose slices are kept for the network of the error."""


def slices(packs: Path, rehearse: bool, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """``(hu, pixel_mm)`` on the device: ``train256``, ``train512`` and ``held256``, by what is there."""
    workers = min(14, os.cpu_count() or 1)
    small = read_compact(packs / "ct256.npz", processes=workers)
    parts = [(small.hu, small.pixel_mm, small.patient)]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    if (packs / "ct512.npz").is_file():
        large = read_compact(packs / "ct512.npz", processes=workers)
        kept = ~np.isin(large.patient, HELD)
        found["train512"] = torch.from_numpy(large.hu[kept]), torch.from_numpy(large.pixel_mm[kept])
        parts += list(phases(large))
    hu, pixel_mm, patient = (np.concatenate(values) for values in zip(*parts, strict=True))
    held = np.isin(patient, HELD)
    found["train256"] = torch.from_numpy(hu[~held]), torch.from_numpy(pixel_mm[~held])
    found["held256"] = torch.from_numpy(hu[held]), torch.from_numpy(pixel_mm[held])
    if rehearse:
        found = {name: (a[:8, :64, :64].contiguous(), b[:8]) for name, (a, b) in found.items()}
    return {name: (a.to(device), b.to(device)) for name, (a, b) in found.items()}


def phases(pack: CompactPack) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The 2 x 2 means of 512 x 512 slices at the three other positions of the coarse grid."""
    for down, right in ((0, 1), (1, 0), (1, 1)):
        moved = np.roll(pack.hu, (-down, -right), (1, 2)).astype(np.float32)
        mean = moved.reshape(len(moved), 256, 2, 256, 2).mean((2, 4)).round().astype(np.int16)
        yield mean, 2 * pack.pixel_mm, pack.patient


def group(
    held: tuple[Tensor, Tensor], named: dict[str, float], drawn: float, family: ScanRange, geometries: int, batch: int,
    share: float = 1.0,
) -> ScanGroup:  # fmt: skip
    """Scans of one size, with their matrices on the device."""
    hu, pixel_mm = held
    scans = [Scan.from_name(name) for name in named] + family.draw(geometries, 3, levels=4)
    weights = [*named.values()] + [drawn / (4 * geometries)] * (4 * geometries)
    shape = (int(hu.shape[-2]), int(hu.shape[-1]))
    made = unit_measurements(scans, shape, float(pixel_mm.median()))
    made = [m.to(hu.device) for m in made]
    prepare(made, hu.device)
    return ScanGroup(hu=hu, pixel_mm=pixel_mm, measurements=made, weights=[share * w for w in weights], batch=batch)


def prepare(measurements: Sequence[Measurement], device: torch.device) -> None:
    """Build the matrices of all scans in threads, instead of one by one when they are first drawn."""

    def build(measurement: Measurement) -> None:
        operator = measurement.operator
        assert isinstance(operator, RayTransform)
        y = torch.zeros((1, *operator.range_shape), device=device)
        operator.adjoint(operator(operator.pseudo_inverse(y)))
        measurement.noise_free(torch.zeros((1, 1, *operator.domain_shape), device=device), refine=2)

    if device.type == "cpu":  # which needs no matrices
        return
    first = {id(measurement.operator): measurement for measurement in measurements}
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(build, first.values()))
    for measurement in measurements:
        build(measurement)


class Held:
    """Images on the device of the training."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """The images ``indices`` in float32."""
        return self.images[indices.to(self.images.device)].float()
