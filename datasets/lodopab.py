"""LoDoPaB-CT: low-dose parallel-beam data simulated from LIDC-IDRI slices.

Leuschner, Schmidt, Baguer and Maass (2021), Scientific Data 8:109, doi:10.1038/s41597-021-00893-z. The files are at
Zenodo 3384092. One folder holds ``ground_truth_{part}_{000...}.hdf5`` and ``observation_{part}_{000...}.hdf5``, 128
samples a file under the key ``data``; sample ``n`` is row ``n % 128`` of file ``n // 128``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deft_ct.io.errors import ReadError
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import ParallelGeometry

Part = Literal["train", "validation", "test"]

SAMPLES = {"train": 35820, "validation": 3522, "test": 3553}
"""Samples of each part. The last ground-truth file may hold more rows than that: never count its rows."""
PATIENTS = {"train": 632, "validation": 60, "test": 60}
SAMPLES_PER_FILE = 128
IMAGE_SHAPE = (362, 362)
SINOGRAM_SHAPE = (1000, 513)
SHAPES = {"ground_truth": IMAGE_SHAPE, "observation": SINOGRAM_SHAPE}
MU_WATER, MU_AIR = 20.0, 0.02
MU_MAX = 3071 * (MU_WATER - MU_AIR) / 1000 + MU_WATER
"""What the stored values were divided by, 1/m (81.35858)."""
PHOTONS = 4096
MIN_PHOTONS = 0.1


@dataclass(frozen=True)
class LoDoPaBSample:
    """One sample in physical units.

    Attributes:
        attenuation: (1, 362, 362) float32, 1/mm, 0 to 0.08136.
        observation: (1, views, 513) float32 post-log line integrals, dimensionless.
        index: number of the sample in its part.
        patient: patient number (0 to 751), or None without the patient lists.
    """

    attenuation: Tensor
    observation: Tensor
    index: int
    patient: int | None


class LoDoPaB(Dataset[LoDoPaBSample]):
    """One part of LoDoPaB-CT, read from disk sample by sample.

    Args:
        root: the folder of the unpacked HDF5 files.
        part: "train", "validation" or "test".
        views: keep every ``1000 / views``-th view; must divide 1000.

    Raises:
        FileNotFoundError: a file of the part is missing; the message names the first one.
        ReadError: a file that is damaged or not of the data set.
        ValueError: an unknown part, or ``views`` that do not divide 1000.
    """

    def __init__(self, root: str | Path, part: Part, *, views: int = 1000) -> None:
        if part not in SAMPLES:
            raise ValueError(f"part must be one of {sorted(SAMPLES)}, got {part!r}")
        if views < 1 or SINOGRAM_SHAPE[0] % views:
            raise ValueError(f"views must divide 1000, got {views}")
        self.root, self.part, self.views = Path(root), part, views
        count = math.ceil(SAMPLES[part] / SAMPLES_PER_FILE)
        for kind in ("ground_truth", "observation"):
            for number in range(count):
                path = self._file(kind, number)
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} is missing: the part {part!r} of LoDoPaB-CT has {count} files "
                        f"ground_truth_{part}_*.hdf5 and as many observation_{part}_*.hdf5 (Zenodo 3384092); unpack "
                        "them into one folder"
                    )
        self._files: dict[Path, HDF5File] = {}
        for kind in SHAPES:
            self._open(kind, 0)
        self._patients = self._read_patients()

    @property
    def geometry(self) -> ParallelGeometry:
        """The scan of :attr:`LoDoPaBSample.observation`."""
        return ParallelGeometry.lodopab(self.views)

    def __len__(self) -> int:
        return SAMPLES[self.part]

    def __getitem__(self, n: int) -> LoDoPaBSample:
        """Sample ``n``; negative counts from the end.

        Raises:
            IndexError: there is no such sample.
        """
        if not -len(self) <= n < len(self):
            raise IndexError(f"sample {n} of {len(self)}")
        n %= len(self)
        truth = self._read("ground_truth", n)
        observation = self._read("observation", n)[:: SINOGRAM_SHAPE[0] // self.views]
        return LoDoPaBSample(
            # Stored truth is mu / MU_MAX in 1/m; stored line integrals are divided by MU_MAX as well.
            attenuation=torch.from_numpy(truth * np.float32(MU_MAX / 1000.0))[None],
            observation=torch.from_numpy(observation * np.float32(MU_MAX))[None],
            index=n,
            patient=None if self._patients is None else int(self._patients[n]),
        )

    def _file(self, kind: str, number: int) -> Path:
        return self.root / f"{kind}_{self.part}_{number:03d}.hdf5"

    def _read(self, kind: str, n: int) -> NDArray[np.float32]:
        file = self._open(kind, n // SAMPLES_PER_FILE)
        row = n % SAMPLES_PER_FILE
        if row >= file.item("data").shape[0]:
            raise ReadError(file.path, f"holds {file.item('data').shape[0]} samples; number {row} is missing")
        values: NDArray[np.float32] = file.read("data", chosen=(slice(row, row + 1),), dtype=np.float32)[0]
        if not np.isfinite(values).all():
            raise ReadError(file.path, f"sample {row} holds values that are not finite")
        return values

    def _open(self, kind: str, number: int) -> HDF5File:
        """A file whose declared shape is right; its structure is read once."""
        path = self._file(kind, number)
        if path not in self._files:
            file, shape = HDF5File(path, depth=1), SHAPES[kind]
            if not file.is_dataset("data") or file.item("data").shape[1:] != shape:
                raise ReadError(path, f"is not of LoDoPaB-CT: expected a dataset 'data' of shape (n, *{shape})")
            self._files[path] = file
        return self._files[path]

    def _read_patients(self) -> NDArray[np.int64] | None:
        path = self.root / f"patient_ids_rand_{self.part}.csv"
        if not path.is_file():
            return None
        try:
            patients = np.loadtxt(path, dtype=np.int64, ndmin=1)
        except (ValueError, OverflowError) as error:
            raise ReadError(path, f"is not a list of patient numbers ({error})") from error
        if patients.shape != (len(self),):
            raise ReadError(path, f"lists {patients.size} samples, expected {len(self)}")
        return patients


def ground_truth_from_hu(hu: NDArray[np.floating], dequantisation: NDArray[np.floating]) -> NDArray[np.float32]:
    """The normalised ground truth that the data set makes of a 512 x 512 slice.

    The slice is cut by 75 pixels on every side and transposed, uniform noise on [0, 1) HU undoes the quantisation, and
    the attenuation is divided by ``MU_MAX`` and clipped to [0, 1].

    Args:
        hu: (512, 512) CT numbers.
        dequantisation: (362, 362) values of U(0, 1).

    Returns:
        (362, 362) float32 in [0, 1].
    """
    if hu.shape != (512, 512) or dequantisation.shape != IMAGE_SHAPE:
        raise ValueError(
            f"expected hu (512, 512) and dequantisation {IMAGE_SHAPE}, got {hu.shape}, {dequantisation.shape}"
        )
    cut = hu[75:-75, 75:-75].T.astype(np.float64) + dequantisation
    mu = cut * (MU_WATER - MU_AIR) / 1000 + MU_WATER
    return np.clip(mu / MU_MAX, 0.0, 1.0).astype(np.float32)
