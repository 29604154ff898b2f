"""HDF5 slice datasets of CT, already averaged to the size of the prior: the data of training and of our benchmarks.

Layout of the file: one group per series with a dataset ``hu`` (N, H, W) of int16 CT numbers ordered by z, a dataset
``z_mm`` (N,), and the attributes ``pixel_mm``, ``collection``, ``patient``, ``licence``, ``doi``, ``kernel`` and
``slice_thickness_mm``. Splits are by patient: one file per split. The attribute ``split`` of the file says which one it
is: ``"train"``, ``"val"`` or ``"test"``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deft_ct.datasets.slices import CTSlice, check_choice, chosen
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.untrusted import HDF5File
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

DATA_ROOT_VARIABLE = "DEFT_CT_DATA"

_OFFICIAL: dict[str, DataSplit] = {
    "train.h5": "train", "train_more.h5": "train", "val.h5": "val", "test.h5": "test", "test_volumes.h5": "test",
    "test_singles.h5": "test",
}  # fmt: skip
"""Files that were made before there was an attribute ``split``."""


def data_root() -> Path:
    """The folder of the slice datasets: the environment variable ``DEFT_CT_DATA``, and no other place.

    Data that happen to lie near the working directory are not taken: a result must not depend on where it is computed.

    Raises:
        FileNotFoundError: it is not set, or names no folder; the message says what to do.
    """
    named = os.environ.get(DATA_ROOT_VARIABLE)
    if named:
        if Path(named).is_dir():
            return Path(named)
        raise FileNotFoundError(f"{DATA_ROOT_VARIABLE}={named} is not a folder; set it to the folder of the data packs")
    raise FileNotFoundError(
        f"no data packs: set the environment variable {DATA_ROOT_VARIABLE} to the folder that holds ct256/ and photos/"
    )


@dataclass(frozen=True)
class PackGroup:
    """Attributes of one series in a slice dataset."""

    name: str
    slices: int
    pixel_mm: float
    collection: str
    patient: str
    licence: str
    doi: str
    kernel: str
    slice_thickness_mm: float | None


class CTPack(Dataset[CTSlice]):
    """The slices of one HDF5 slice dataset, held in memory as int16.

    **Order.** The groups are sorted by name, in Python's string order. The slices of a group keep the order of the
    file. All slices are concatenated, so slice ``n`` of this list has position ``n``. ``every=k`` keeps the positions
    ``0, k, 2k, ...`` of the whole list (the count is not restarted at each group). The validation protocol is
    ``CTPack(data_root() / "ct256" / "val.h5", every=10)``: 26 slices of 255.

    Args:
        path: the HDF5 file.
        every: keep every k-th slice of the concatenated list.
        limit: of these, keep at most so many, spread over the patients, see :func:`~deft_ct.datasets.slices.chosen`;
            all when None.
        groups: names of the series to read; all of them when None. ``position`` counts within the chosen groups.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ReadError: the file is not a slice dataset, is damaged, names an unknown split, or exceeds the limits.
        ValueError: ``every`` or ``limit`` < 1, or a group is unknown.

    Attributes:
        path: the file.
        every: as above.
        limit: as above.
        split: ``"train"``, ``"val"`` or ``"test"``: the attribute of the file, or that of the official files by their
            exact names; None where neither says it.
        groups: what the file says about each series.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: int = 1,
        limit: int | None = None,
        groups: tuple[str, ...] | None = None,
    ) -> None:
        check_choice(every, limit)
        self.path = Path(path)
        check_pack(self.path)
        arrays: list[NDArray[np.int16]] = []
        infos: list[PackGroup] = []
        z_mm: list[NDArray[np.float32]] = []
        self.every, self.limit = every, limit
        file = HDF5File(self.path)
        self.split: DataSplit | None = _read_split(file)
        names = list(file)
        if groups is not None:
            unknown = sorted(set(groups) - set(names))
            if unknown:
                raise ValueError(f"{self.path.name} has no group {unknown}; it has {names}")
            names = sorted(groups)
        shapes = {_check_group(file, name)[1:] for name in names}
        if not shapes:
            raise ReadError(self.path, "holds no series; expected one group per series with a dataset 'hu'")
        if len(shapes) > 1:
            raise ReadError(self.path, f"its series differ in size: {sorted(shapes)}")
        data = [file.item(f"{name}/hu") for name in names]
        total, stored = sum(2 * math.prod(item.shape) for item in data), sum(item.stored for item in data)
        current_limits().check_expansion(self.path, total, stored, what="slices")
        for name in names:
            hu, z, info = _read_group(file, name)
            arrays.append(hu)
            z_mm.append(z)
            infos.append(info)
        self.groups: tuple[PackGroup, ...] = tuple(infos)
        origin = np.repeat(np.arange(len(infos)), [len(a) for a in arrays])
        starts = np.cumsum([0] + [len(a) for a in arrays])
        named = self.patients_of_groups
        self._positions = np.array(chosen([named[n] for n in origin], every, limit), np.int64)
        self._group_of = origin[self._positions]
        self._index_of = self._positions - starts[self._group_of]
        self._z_mm = np.concatenate(z_mm)[self._positions]
        self._hu: NDArray[np.int16] = np.concatenate(arrays)[self._positions]

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[CTSlice]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, n: int) -> CTSlice:
        """Slice ``n`` of those kept; negative counts from the end.

        Raises:
            IndexError: there is no such slice.
        """
        if not -len(self) <= n < len(self):
            raise IndexError(f"slice {n} of a pack of {len(self)}")
        group = self.groups[int(self._group_of[n])]
        return CTSlice(
            hu=torch.from_numpy(self._hu[n].astype(np.float32))[None],
            pixel_mm=group.pixel_mm,
            group=group.name,
            index=int(self._index_of[n]),
            position=int(self._positions[n]),
            z_mm=float(self._z_mm[n]),
        )

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of every slice."""
        return self._hu.shape[1], self._hu.shape[2]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def patients(self) -> list[str]:
        """Patient of each slice with the collection, which counts its patients anew; else the series."""
        named = self.patients_of_groups
        return [named[n] for n in self._group_of]

    @property
    def patients_of_groups(self) -> list[str]:
        """Patient of each of :attr:`groups`."""
        return ["_".join(filter(None, (g.collection, g.patient))) if g.patient else g.name for g in self.groups]

    @property
    def pixel_mm(self) -> NDArray[np.float64]:
        """(len,) pixel width of each slice."""
        return np.array([g.pixel_mm for g in self.groups])[self._group_of]

    def content_hash(self) -> str:
        """SHA-256 of the kept slices: CT numbers, pixel sizes, series, patients and places; the file does not count."""
        groups = [(group.name, group.patient, group.pixel_mm) for group in self.groups]
        return content_digest([groups, self._group_of, self._index_of, self._positions, self._z_mm, self._hu])

    def array(self) -> NDArray[np.int16]:
        """All kept slices, (len, H, W) int16 HU; a view that must not be written to."""
        view = self._hu.view()
        view.flags.writeable = False
        return view

    def batch(self, indices: Tensor | NDArray[np.integer] | list[int]) -> Tensor:
        """The slices ``indices`` at once, (len(indices), 1, H, W) float32 HU: the fast path of training loops."""
        chosen = self._hu[np.asarray(indices)]
        return torch.from_numpy(chosen.astype(np.float32))[:, None]


def _read_split(file: HDF5File) -> DataSplit | None:
    if not file.has_attribute("", "split"):
        return _OFFICIAL.get(file.path.name)
    named = file.attribute("", "split")
    for split in get_args(DataSplit):
        if named == split:
            return cast(DataSplit, split)
    raise ReadError(
        file.path, f"the attribute split must be one of {', '.join(get_args(DataSplit))}, got {str(named)[:80]!r}"
    )


def _check_group(file: HDF5File, name: str) -> tuple[int, ...]:
    """Shape of the slices of a series, from what the file declares."""
    file.item(name)
    if not file.is_group(name) or f"{name}/hu" not in file or not file.has_attribute(name, "pixel_mm"):
        raise ReadError(
            file.path, f"'{name}' is not a series; expected a group with dataset 'hu', attribute 'pixel_mm'"
        )
    data = file.item(f"{name}/hu")
    if len(data.shape) != 3 or data.dtype not in ("<i2", ">i2") or 0 in data.shape:
        raise ReadError(
            file.path, f"'{name}/hu' must be (N, H, W) int16 in HU and not empty, got {data.shape} {data.dtype}"
        )
    return data.shape


def _read_group(file: HDF5File, name: str) -> tuple[NDArray[np.int16], NDArray[np.float32], PackGroup]:
    hu: NDArray[np.int16] = file.read(f"{name}/hu")
    if f"{name}/z_mm" in file:
        declared = file.item(f"{name}/z_mm").shape
        if declared != (len(hu),):
            raise ReadError(file.path, f"'{name}/z_mm' has shape {declared}, expected ({len(hu)},)")
        z: NDArray[np.float32] = file.read(f"{name}/z_mm", dtype=np.float32)
    else:
        z = np.full(len(hu), np.nan, np.float32)
    text = {key: str(file.attribute(name, key, "")) for key in ("collection", "patient", "licence", "doi", "kernel")}
    thickness = str(file.attribute(name, "slice_thickness_mm", "")).strip()
    info = PackGroup(
        name=name,
        slices=len(hu),
        pixel_mm=current_limits().check_spacing(
            file.path, file.number(name, "pixel_mm"), what=f"the attribute pixel_mm of '{name}'"
        ),
        slice_thickness_mm=file.number(name, "slice_thickness_mm") if thickness else None,
        **text,
    )
    return hu, z, info


def check_pack(path: Path) -> None:
    """Look whether a slice dataset is there.

    Raises:
        FileNotFoundError: it is not.
    """
    if "\0" in str(path) or not path.is_file():
        raise FileNotFoundError(f"no such data pack: {path}; set {DATA_ROOT_VARIABLE} or pass its path")


def pack_path(name: str) -> Path:
    """The file of a slice dataset: a path that ends in ``.h5`` or ``.hdf5`` as it is, else ``DATA_ROOT/ct256/NAME.h5``.

    Raises:
        FileNotFoundError: a name was given and there is no data root.
    """
    if name.endswith((".h5", ".hdf5")):
        return Path(name)
    try:
        return data_root() / "ct256" / f"{name}.h5"
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no data {name!r}: {error}") from None


def read_pack(name: str, every: int = 1, limit: int | None = None) -> CTPack:
    """Every k-th slice of a slice dataset, at most ``limit`` of them, see :class:`CTPack` and :func:`pack_path`."""
    return CTPack(pack_path(name), every=every, limit=limit)
