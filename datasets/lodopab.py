"""LoDoPaB-CT: low-dose parallel-beam data simulated from LIDC-IDRI slices.

Leuschner, Schmidt, Baguer and Maass (2021), Scientific Data 8:109, doi:10.1038/s41597-021-00893-z. The files are at
Zenodo 3384092, the challenge set at 3874937. One folder holds ``ground_truth_{part}_{000...}.hdf5`` and
``observation_{part}_{000...}.hdf5``, 128 samples a file under the key ``data``; sample ``n`` is row ``n % 128`` of file
``n // 128``. The challenge set may lack its ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.slices import CTSlice, check_choice, chosen
from deft_ct.io.errors import ReadError
from deft_ct.io.hdf5_rows import HDF5Rows
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import ParallelGeometry
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

Part = Literal["train", "validation", "test", "challenge"]

SAMPLES = {"train": 35820, "validation": 3522, "test": 3553, "challenge": 3678}
"""Samples of each part. The last ground-truth file may hold more rows than that: never count its rows."""
SPLITS: dict[Part, DataSplit] = {"train": "train", "validation": "val", "test": "test", "challenge": "test"}
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
        part: "train", "validation", "test" or "challenge".
        views: keep every ``1000 / views``-th view; must divide 1000.

    Raises:
        FileNotFoundError: a file of the part is missing; the message names the first one.
        ReadError: a file that is damaged or not of the data set.
        ValueError: an unknown part, or ``views`` that do not divide 1000.

    Attributes:
        has_truth: whether the ground truth is there; only the challenge set may lack it.
        patients: (len,) patient numbers, 0 to 751; None without the patient lists.
    """

    def __init__(self, root: str | Path, part: Part, *, views: int = 1000) -> None:
        if part not in SAMPLES:
            raise ValueError(f"part must be one of {sorted(SAMPLES)}, got {part!r}")
        if views < 1 or SINOGRAM_SHAPE[0] % views:
            raise ValueError(f"views must divide 1000, got {views}")
        self.root, self.part, self.views = Path(root), part, views
        kinds = dict.fromkeys(SHAPES)
        self.has_truth = part != "challenge" or self.file("ground_truth", 0).is_file()
        if not self.has_truth:
            del kinds["ground_truth"]
        for kind in kinds:
            for number in range(file_count(part)):
                path = self.file(kind, number)
                if not path.is_file():
                    raise FileNotFoundError(
                        f"{path} is missing: the part {part!r} of LoDoPaB-CT has {file_count(part)} files "
                        f"ground_truth_{part}_*.hdf5 and as many observation_{part}_*.hdf5 (Zenodo "
                        f"{3874937 if part == 'challenge' else 3384092}); unpack them into one folder. `deft-ct data "
                        f"check {self.root}` lists what is missing"
                    )
        self._rows: dict[Path, HDF5Rows] = {}
        for kind in kinds:
            self._open(kind, 0)
        listed = self.root / f"patient_ids_rand_{part}.csv"
        self.patients = read_patients(listed, part) if listed.is_file() else None

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
        return LoDoPaBSample(
            attenuation=torch.from_numpy(self.truth(n))[None],
            observation=torch.from_numpy(self.observation(n))[None],
            index=n,
            patient=None if self.patients is None else int(self.patients[n]),
        )

    def truth(self, n: int) -> NDArray[np.float32]:
        """(362, 362) attenuation of sample ``n``, 1/mm; stored is its ratio to ``MU_MAX``.

        Raises:
            FileNotFoundError: the challenge set without its ground truth.
            ReadError: a file is damaged, or lacks the sample.
        """
        if not self.has_truth:
            raise FileNotFoundError(f"{self.root} holds no ground truth of the part {self.part!r}")
        return self._read("ground_truth", n, np.float32(MU_MAX / 1000.0))

    def observation(self, n: int) -> NDArray[np.float32]:
        """(views, 513) line integrals of sample ``n``, dimensionless; stored is their ratio to ``MU_MAX``.

        Raises:
            ReadError: a file is damaged, or lacks the sample.
        """
        return self._read("observation", n, np.float32(MU_MAX), SINOGRAM_SHAPE[0] // self.views)

    def file(self, kind: str, number: int) -> Path:
        """The file of a kind ("ground_truth" or "observation") and number."""
        return self.root / f"{kind}_{self.part}_{number:03d}.hdf5"

    def _read(self, kind: str, n: int, scale: np.float32, every: int = 1) -> NDArray[np.float32]:
        rows, row = self._open(kind, n // SAMPLES_PER_FILE), n % SAMPLES_PER_FILE
        path = self.file(kind, n // SAMPLES_PER_FILE)
        if row >= len(rows):
            raise ReadError(path, f"holds {len(rows)} samples; number {row} is missing")
        values = rows.read(row)[::every].astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            values *= scale  # the row is ours, and a second array would take longer than the product
            # A sum of squares is quicker than a look at every value, and finds every NaN and infinity.
            sound = np.isfinite(np.vdot(values, values)) or np.isfinite(values).all()
        if not sound:
            raise ReadError(path, f"sample {row} holds values that are not finite")
        return values

    def _open(self, kind: str, number: int) -> HDF5Rows:
        """The rows of a file whose declared shape is right; its structure is read once."""
        path = self.file(kind, number)
        if path not in self._rows:
            self._rows[path] = HDF5Rows(lodopab_file(path, kind), "data")
        return self._rows[path]


@dataclass(frozen=True)
class LoDoPaBSlices:
    """The true images of a part as CT slices, read when they are needed: for other scans than the data set's own.

    Args:
        source: the part, with its ground truth.
        every: keep every k-th image.
        limit: of these, keep at most so many, spread over the patients.

    Raises:
        ValueError: ``every`` or ``limit`` < 1.
    """

    source: LoDoPaB
    every: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        check_choice(self.every, self.limit)

    @cached_property
    def positions(self) -> list[int]:
        """Numbers of the images in their part."""
        known = self.source.patients
        sources = [0] * len(self.source) if known is None else known.tolist()
        return chosen(sources, self.every, self.limit)

    @property
    def name(self) -> str:
        """Of the part."""
        return f"lodopab:{self.source.part}"

    @property
    def split(self) -> DataSplit:
        """Which part it is."""
        return SPLITS[self.source.part]

    @property
    def image_shape(self) -> tuple[int, int]:
        """(362, 362)."""
        return IMAGE_SHAPE

    @property
    def patients(self) -> list[str]:
        """Patient numbers; without the patient lists every image stands for itself."""
        known = self.source.patients
        return [str(n) if known is None else str(known[n]) for n in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[CTSlice]:
        for n in self.positions:
            hu = HounsfieldScale().to_hu(torch.from_numpy(self.source.truth(n)))
            yield CTSlice(hu[None], self.source.geometry.pixel_rc[0], self.source.part, n, n, math.nan)

    def content_hash(self) -> str:
        """SHA-256 of numbers, patients and images."""
        return content_digest([self.positions, self.patients, *(item.hu for item in self)])


def file_count(part: Part) -> int:
    """Files of a part, of each kind."""
    return math.ceil(SAMPLES[part] / SAMPLES_PER_FILE)


def read_patients(path: Path, part: Part) -> NDArray[np.int64]:
    """The patient number of each sample of a part.

    Raises:
        ReadError: it is not such a list, or of another length.
    """
    try:
        patients = np.loadtxt(path, dtype=np.int64, ndmin=1)
    except (ValueError, OverflowError) as error:
        raise ReadError(path, f"is not a list of patient numbers ({error})") from error
    if patients.shape != (SAMPLES[part],):
        raise ReadError(path, f"lists {patients.size} samples, expected {SAMPLES[part]}")
    return patients


def lodopab_file(path: Path, kind: str) -> HDF5File:
    """A file of a kind, whose declared shape is right.

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is damaged or of another shape.
    """
    file, shape = HDF5File(path, depth=1), SHAPES[kind]
    if not file.is_dataset("data") or file.item("data").shape[1:] != shape:
        raise ReadError(path, f"is not of LoDoPaB-CT: expected a dataset 'data' of shape (n, *{shape})")
    return file


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
