"""A submission to the LoDoPaB-CT challenge: its hidden set reconstructed, in the files that it takes.

The challenge (lodopab.grand-challenge.org) takes a zip of HDF5 files ``reco_000.hdf5`` ... ``reco_028.hdf5``. Each has
a dataset ``data`` of 128 x 362 x 362 float32: images in the normalisation of the data set, attenuation over 81.36/m.
The rows of the last file beyond the 3,678 samples are zero.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from deft_ct.datasets.lodopab import IMAGE_SHAPE, MU_MAX, SAMPLES_PER_FILE, LoDoPaB, file_count
from deft_ct.networks import weights_digest
from deft_ct.problems.ct_lodopab import lodopab_measurement
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.content_key import ContentKey, content_digest, result_versions

ARCHIVE = "submission.zip"
_KEY = "content_key"


def write_submission(
    data: LoDoPaB,
    method: Reconstructor,
    out: Path,
    *,
    batch_size: int = 8,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] | None = None,
) -> Path:
    """Reconstruct the challenge set and write the archive to upload. A file that is finished is not computed again.

    Args:
        data: the challenge set.
        method: what reconstructs it; the mean of its samples is submitted.
        out: folder of the files.
        batch_size: images at once.
        seed: of the sampling.
        device: where to compute.
        log: gets a line for each file.

    Returns:
        The archive.

    Raises:
        ValueError: another part of the data set.
        ReadError: a file of the data is damaged.
    """
    if data.part != "challenge":
        raise ValueError(f"the challenge takes images of its own set, got the part {data.part!r}")
    say = log or (lambda _: None)
    measurement = lodopab_measurement(data.views).to(device)
    count = file_count(data.part)
    for number in range(count):
        path = out / file_name(number)
        samples = list(range(number * SAMPLES_PER_FILE, min((number + 1) * SAMPLES_PER_FILE, len(data))))
        key = _key(data, method, samples, seed, batch_size, device)
        if _stored_key(path) == key:
            say(f"{path.name} was written before")
            continue
        images = np.zeros((SAMPLES_PER_FILE, *IMAGE_SHAPE), np.float32)
        for first in range(0, len(samples), batch_size):
            part = samples[first : first + batch_size]
            y = torch.stack([torch.from_numpy(data.observation(n))[None] for n in part]).to(device)
            result = method.reconstruct(y, measurement, seed=seed, image_ids=[str(n) for n in part])
            images[first : first + len(part)] = result.mean[:, 0].cpu().numpy() * np.float32(1000.0 / MU_MAX)
        _write(path, images, key)
        say(f"{path.name} ({number + 1} of {count})")
    with atomic_file(out / ARCHIVE) as work, zipfile.ZipFile(work, "w") as archive:
        for number in range(count):
            archive.write(out / file_name(number), file_name(number))
    return out / ARCHIVE


def file_name(number: int) -> str:
    """Of a file of the submission."""
    return f"reco_{number:03d}.hdf5"


def _key(data: LoDoPaB, method: Reconstructor, samples: list[int], seed: int, batch_size: int, device: str) -> str:
    observations = content_digest(data.observation(n) for n in samples)
    parts = {
        "observations": observations, "views": data.views, "seed": seed, "batch_size": batch_size, "device": device,
        "versions": result_versions(), "method": method.name, "config": asdict(method.config),
        "networks": method.describe(), "weights": weights_digest(method),
    }  # fmt: skip
    return ContentKey(parts).digest


def _stored_key(path: Path) -> str | None:
    """Of a file that we wrote, which appears when it is complete."""
    if not path.is_file():
        return None
    try:
        with h5py.File(path) as file:
            return str(file.attrs.get(_KEY))
    except OSError:
        return None


def _write(path: Path, images: NDArray[np.float32], key: str) -> None:
    with atomic_file(path) as work, h5py.File(work, "w") as file:
        file.create_dataset("data", data=images)
        file.attrs[_KEY] = key
