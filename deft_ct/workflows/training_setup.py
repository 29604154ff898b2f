"""Slices and scans of a training, and the model card that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack, check_pack, pack_path
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import UNetConfig
from deft_ct.runtime.content_key import result_versions
from deft_ct.runtime.fields import check_fields

if TYPE_CHECKING:  # these import accelerate, which takes seconds
    from deft_ct.ct.pairs import SlicePairs
    from deft_ct.diffusion import Prior
    from deft_ct.methods.deft.initial_table import TableConfig
    from deft_ct.training import TrainingConfig

_Network = TypeVar("_Network")

GEOMETRIES, NOISE_LEVELS = 96, 4
"""Number of random geometries in a training for any scan, and of photon counts for each. A geometry takes seconds."""
NORM_GROUPS = 8
"""Groups of normalised features in new networks. More groups would remove feature levels that the networks need."""
PACK_NAMES = ("train", "val", "test_volumes", "test_singles")
"""Names of slice data sets. A folder of the same name is written with its path, for example ``./train``."""


def training_slices(data: str) -> CTPack | CTFolder:
    """Slices for training.

    Args:
        data: name of a slice data set (:data:`PACK_NAMES`), path of an HDF5 file, or a folder with CT files.
    """
    if data not in PACK_NAMES and Path(data).is_dir():
        return CTFolder(data)
    return CTPack(pack_path(data))


def continued_from(initial: str | None, network: _Network) -> tuple[Prior | None, _Network]:
    """The prior that a training continues from, and the shape of its network.

    Args:
        initial: name or folder of the prior; None for a training from the start.
        network: shape of a new network. It is kept without a prior, and for a prior of another kind, which the training
            refuses.
    """
    from deft_ct.diffusion import load_prior

    if initial is None:
        return None, network
    first = load_prior(initial)
    config = getattr(first.network, "config", None)
    return first, config if isinstance(config, type(network)) else network


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """CT slices of your own, resized to the images of a prior.

    Args:
        data: a folder with DICOM, NIfTI, HDF5, PNG or TIFF files; also as in :func:`training_slices`.
        hu_range: CT numbers of black and white pixels of PNG and TIFF files.
        pixel_mm: pixel width of PNG and TIFF files in mm.
        every: use every k-th slice.

    Raises:
        ValueError: only one of ``hu_range`` and ``pixel_mm`` is given.
    """

    data: str
    hu_range: tuple[float, float] | None = None
    pixel_mm: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.hu_range is None) != (self.pixel_mm is None):
            raise ValueError("pictures need both --hu-range BLACK WHITE and --pixel-mm, or neither for other files")

    def check(self) -> None:
        """Look whether the data are there, before networks are loaded.

        Raises:
            FileNotFoundError: the data do not exist.
        """
        if self.data in PACK_NAMES or not Path(self.data).is_dir():
            check_pack(self._path)

    @property
    def _path(self) -> Path:
        return pack_path(self.data) if self.data in PACK_NAMES else Path(self.data)

    def read(self, size: int) -> CTPack | CTFolder:
        """The slices at ``size`` x ``size`` pixels.

        Raises:
            ValueError: there are no usable slices, or a single HDF5 file has slices of another size.
            FileNotFoundError: the data do not exist.
        """
        if self.data not in PACK_NAMES and Path(self.data).is_dir():
            return CTFolder(
                self.data, size=size, every=self.every, picture_hu=self.hu_range, picture_pixel_mm=self.pixel_mm
            )
        pack = CTPack(self._path, every=self.every)
        if pack.image_shape != (size, size):
            raise ValueError(
                f"{self.data} has slices of {pack.image_shape[0]} x {pack.image_shape[1]} pixels and the prior is "
                f"for {size} x {size}: name the folder that holds it, and the slices are resized"
            )
        return pack


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Slices and scans of a training.

    Args:
        slices: the slices.
        scans: fixed scans, at least one.
        scan_range: random scans. Half of the training steps use them, the other half the fixed scans.
    """

    slices: CTPack | CTFolder
    scans: Sequence[Scan]
    scan_range: ScanRange | None = None

    def measurements(self, seed: int) -> tuple[list[Measurement], list[float] | None]:
        """The measurements, and how often each is drawn (None: equally often).

        Args:
            seed: of the random scans.
        """
        typical = float(np.median(self.slices.pixel_mm))
        if self.scan_range is None:
            return [scan.unit_measurement(self.slices.image_shape, typical) for scan in self.scans], None
        drawn = self.scan_range.draw(GEOMETRIES, seed, levels=NOISE_LEVELS)
        weights = [0.5 / len(self.scans)] * len(self.scans) + [0.5 / len(drawn)] * len(drawn)
        return unit_measurements([*self.scans, *drawn], self.slices.image_shape, typical), weights

    def pairs(self, seed: int, value_range: PriorRange | None = None) -> SlicePairs:
        """Images with their simulated data.

        Args:
            seed: of the random scans.
            value_range: CT numbers of -1 and +1; the default range if None.
        """
        from deft_ct.ct.pairs import SlicePairs

        measurements, weights = self.measurements(seed)
        return SlicePairs(self.slices, measurements, value_range or PriorRange(), weights=weights)

    def card(self, training: TrainingConfig, folder: Path) -> dict[str, Any]:
        """Entries of the model card: scans, and those of :func:`training_card`. Several scans give ranges.

        Args:
            training: settings of the training loop.
            folder: of the checkpoint.
        """
        return {"scan": self.scan_card(), **training_card(self.slices, training, folder)}

    def scan_card(self) -> dict[str, Any]:
        """The scans of the training for a model card. Several give ranges."""
        scans, random = self.scans, self.scan_range
        first, *others = [scan.to_dict() for scan in scans]
        described: dict[str, Any] = dict(first)
        for name in ("views", "photons", "degrees"):
            values = [cast(float, entry[name]) for entry in (first, *others)]
            described[name] = [min(values), max(values)] if others else values[0]
        detectors = [scan.detectors for scan in scans if scan.detectors is not None]
        if others and detectors:
            described["detectors"] = [min(detectors), max(detectors)]
        if others:
            described["geometry"] = sorted({str(entry["geometry"]) for entry in (first, *others)})
            described["name"] = [scan.name for scan in scans]
        if random is not None:
            described |= {"geometry": ["fan", "parallel"], "family": asdict(random), "name": [s.name for s in scans]}
            for name, limits in (("views", random.views), ("photons", random.photons)):
                values = [cast(float, scan.to_dict()[name]) for scan in scans]
                described[name] = [min(limits[0], *values), max(limits[1], *values)]
        for name, kind in (("degrees", "parallel"), ("fan_degrees", "fan")):
            arcs = [scan.degrees for scan in scans if scan.geometry == kind]
            arcs += [] if random is None else getattr(random, name)
            if arcs and (others or random is not None):
                described[name] = [min(arcs), max(arcs)]
        starts = {scan.start for scan in scans if not scan.full} | ({0.0} if random is not None else set())
        if random is not None and random.any_start:
            described["start_degrees"] = "any"
        elif any(starts):
            described["start_degrees"] = sorted(starts)
        return described


def training_card(slices: CTPack | CTFolder, training: TrainingConfig, folder: Path) -> dict[str, Any]:
    """The entries of :func:`record_card` for a training on CT slices.

    Args:
        slices: the training data.
        training: settings of the training loop.
        folder: of the checkpoint.
    """
    return record_card(slices_card(slices), training, folder)


def slices_card(slices: CTPack | CTFolder) -> dict[str, Any]:
    """Name and size of training slices for a model card."""
    where = slices.path if isinstance(slices, CTPack) else slices.root
    return {"name": where.name, "slices": len(slices)}


def record_card(data: Mapping[str, Any], training: TrainingConfig, folder: Path) -> dict[str, Any]:
    """Entries of the model card of any network: data, steps done, settings, versions and what it all depends on.

    ``training_steps_planned`` is there if the time limit ended the training before its last step.

    Args:
        data: name and size of the training data; their hash is added.
        training: settings of the training loop.
        folder: of the checkpoint.
    """
    from deft_ct.training import training_record

    record = training_record(folder)
    planned = {} if record.steps == training.steps else {"training_steps_planned": training.steps}
    return {
        "data": {**data, "sha256": record.key.parts["data"]},
        "training_steps": record.steps, **planned, "batch_size": training.batch_size, "seed": training.seed,
        "versions": result_versions(), "content_key": record.key.digest,
    }  # fmt: skip


def random_scans(any_scan: bool, any_start: bool) -> ScanRange | None:
    """The random scans of a training, or None for none.

    Args:
        any_scan: train for any scan.
        any_start: limited arcs of the random scans start at any angle.

    Raises:
        ValueError: ``any_start`` without ``any_scan``.
    """
    if any_start and not any_scan:
        raise ValueError("--any-start is for random scans: also give --any-scan")
    return ScanRange(any_start=any_start) if any_scan else None


def table_config(
    batches: int, training: TrainingConfig, tv_iterations: int, scan_range: ScanRange | None, second: str = ""
) -> TableConfig:
    """Settings of a table of initial reconstructions; ``second`` is the SHA-256 of the second model, if any."""
    from deft_ct.methods.deft.initial_table import TableConfig

    return TableConfig(
        batches=batches, batch_size=training.batch_size, tv_iterations=tv_iterations,
        scan_features=scan_range is not None, arc_direction=scan_range is not None and scan_range.any_start,
        second=second, seed=training.seed,
    )  # fmt: skip


def new_network(channels: str, patch: int = 4, layers: int = 1, attention: str = "") -> UNetConfig:
    """The shape of a U-Net for images of one channel.

    Args:
        channels: features of each level, for example ``"64,96,128"``.
        patch: side of the space-to-depth stem in pixels.
        layers: residual blocks of each level.
        attention: levels with self-attention beside the middle, counted from 1, for example ``"2,3"``.

    Raises:
        ValueError: ``channels`` or ``attention`` has another form.
    """
    levels = _whole_numbers("channels", channels)
    attended = _whole_numbers("attention", attention) if attention else ()
    if not set(attended) <= set(range(1, len(levels) + 1)):
        raise ValueError(f"attention must name levels from 1 to {len(levels)}, got {attention!r}")
    return UNetConfig(
        channels=levels, attention=tuple(k + 1 in attended for k in range(len(levels))), patch=patch, layers=layers,
        norm_groups=NORM_GROUPS, scale_shift=True,
    )  # fmt: skip


def _whole_numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be whole numbers separated by commas, got {text!r}") from None


def htransform_network(prior: Prior, channels: str) -> UNetConfig:
    """The shape of a new h-transform network: as the prior except for the channels, so that weights can be reused."""
    own = getattr(prior.network, "config", None)
    if not isinstance(own, UNetConfig):
        return new_network(channels)
    shape = new_network(channels, own.patch)
    return replace(shape, norm_groups=own.norm_groups, scale_shift=own.scale_shift)
