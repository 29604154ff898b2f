"""LoDoPaB-CT in exactly the published layout: names, keys, shapes, counts. What is not written takes no space."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import torch

from deft_ct.datasets.lodopab import MU_MAX, PHOTONS, SAMPLES, SHAPES, Part
from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.operators.ct import ParallelGeometry
from deft_ct.operators.noise import PoissonNoise


def write_lodopab_layout(root: Path, part: Part, samples: Iterable[int] = (), *, patients: bool = True) -> Path:
    """All files of a part; some samples hold phantoms with exact line integrals and the noise of the data set.

    As in the published set, the last observation file is short and the last ground-truth file keeps 128 rows.

    Args:
        root: the folder; made if missing.
        part: of the data set.
        samples: numbers of the samples that hold something.
        patients: write the list of patients, too.
    """
    root.mkdir(parents=True, exist_ok=True)
    count = -(-SAMPLES[part] // 128)
    for number in range(count):
        last = SAMPLES[part] - (count - 1) * 128 if number == count - 1 else 128
        for kind, rows in (("ground_truth", 128), ("observation", last)):
            with h5py.File(root / f"{kind}_{part}_{number:03d}.hdf5", "w") as file:
                file.create_dataset(
                    "data", (rows, *SHAPES[kind]), np.float32, chunks=True, maxshape=(128, *SHAPES[kind])
                )
    for n in samples:
        truth, observation = phantom_sample(n)
        for kind, values in (("ground_truth", truth), ("observation", observation)):
            with h5py.File(root / f"{kind}_{part}_{n // 128:03d}.hdf5", "a") as file:
                file["data"][n % 128] = values
    if patients:
        numbers = [str(692 + n // 60) for n in range(SAMPLES[part])]
        (root / f"patient_ids_rand_{part}.csv").write_text("\n".join(numbers) + "\n")
    return root


def phantom_sample(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(362, 362) normalised ground truth and (1000, 513) normalised observation of random ellipses in a disc."""
    generator = torch.Generator().manual_seed(n)
    geometry = ParallelGeometry.lodopab()
    disc = EllipsePhantom.disc(100.0, 0.02).ellipses
    details = EllipsePhantom.random(generator, 150.0, count=8, max_value=0.008).ellipses
    phantom = EllipsePhantom((*disc, *details))
    image = phantom.image((362, 362), geometry.pixel_rc[0], oversampling=3)[0].clamp_min(0)
    clean = phantom.sinogram(geometry).clamp_min(0)[None]
    noisy = PoissonNoise(photons=PHOTONS).sample(clean, generator)[0, 0]
    return (image * 1000 / MU_MAX).numpy(), (noisy / MU_MAX).numpy()
