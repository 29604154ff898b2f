"""A series in batches of slices: simulated, reconstructed and judged one batch at a time, each stored when it is done.

Memory is bounded by the batch, not by the series, and a run that was killed goes on after its last finished batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.memory import free_bytes
from deft_ct.problems.ct_metrics import CTMetrics, metric_names
from deft_ct.reconstruction import Reconstruction
from deft_ct.runtime.memory import process_bytes
from deft_ct.runtime.parts import Part

MOST_SLICES = 8
"""Slices of a batch where memory allows it; more are not faster."""
LEAST_SLICES = 4
"""Slices of a batch below which there are no more batches at a time: one slice takes as long to project as four."""
IMAGES_AT_ONCE, IMAGES_OF_A_SLICE = 600, 50
"""Peak memory of a batch in float32 images: of the samples that are drawn together, and of each slice. Measured with
the shipped networks, which take most of it: 710 for 2 samples of 4 slices; without samples 200, and 20 for a slice."""
IMAGES_OF_THE_OUTPUT = 16
"""Peak memory of writing the results, in float32 images for each slice of the series."""
_SHARE_OF_FREE = 0.8
_GIB = 2**30


@dataclass(frozen=True)
class SliceBatch:
    """Consecutive slices with the results of every method.

    Attributes:
        start: number of the first slice in the series.
        stop: one more than that of the last.
        means: method -> ``(n, H, W)`` in 1/mm.
        stds: the same for the posterior standard deviation, where a method has one.
        metrics: method -> its metrics, slice by slice.
        records: method -> provenance of the batch, JSON-ready.
        unmeasured_hu: ``(n, H, W)`` part of the main result that was not measured, in HU; None unless it was asked for.
        samples: ``(n, S, H, W)`` posterior samples of the main method in 1/mm; None unless they were asked for.
    """

    start: int
    stop: int
    means: Mapping[str, NDArray[np.float32]]
    stds: Mapping[str, NDArray[np.float32]]
    metrics: Mapping[str, CTMetrics]
    records: Mapping[str, Mapping[str, Any]]
    unmeasured_hu: NDArray[np.float32] | None = None
    samples: NDArray[np.float32] | None = None

    def beside(self, count: int) -> SliceBatch:
        """The same, with the seconds of a slice by the clock where ``count`` batches are worked on at a time."""
        key = "seconds_per_image"
        records = {
            name: {**record, key: record[key] / count} if key in record else record
            for name, record in self.records.items()
        }
        return replace(self, records=records)

    def to_part(self) -> Part:
        """What is stored of it."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in self.records:
            arrays |= {f"mean/{name}": self.means[name]}
            arrays |= {f"metrics/{name}/{key}": getattr(self.metrics[name], key) for key in metric_names()}
        arrays |= {f"std/{name}": std for name, std in self.stds.items()}
        if self.unmeasured_hu is not None:
            arrays["unmeasured"] = self.unmeasured_hu
        if self.samples is not None:
            arrays["samples"] = self.samples
        ranges = {name: metrics.data_range_hu for name, metrics in self.metrics.items()}
        return Part(arrays, {"start": self.start, "stop": self.stop, "records": self.records, "ranges": ranges})

    @classmethod
    def from_part(cls, part: Part) -> SliceBatch:
        """The inverse of :meth:`to_part`."""
        arrays, record = part.arrays, part.record
        return cls(
            start=record["start"], stop=record["stop"], records=record["records"],
            means={name: arrays[f"mean/{name}"] for name in record["records"]},
            stds={name: arrays[f"std/{name}"] for name in record["records"] if f"std/{name}" in arrays},
            metrics={
                name: CTMetrics(
                    **{key: arrays[f"metrics/{name}/{key}"] for key in metric_names()}, data_range_hu=reach
                )
                for name, reach in record["ranges"].items()
            },
            unmeasured_hu=arrays.get("unmeasured"), samples=arrays.get("samples"),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Division:
    """How the work on a series is divided.

    Attributes:
        slices: of a batch.
        workers: batches at a time; results do not depend on it.
        threads: of PyTorch for each batch.
    """

    slices: int
    workers: int = 1
    threads: int = 1

    def resumed(self, plan: Mapping[str, Any], *, bounded: bool) -> Division:
        """That of an earlier run, whose results have to come out to the bit, on the machine as it is now.

        Args:
            plan: :attr:`plan` of the earlier run.
            bounded: whether batches must not be larger than now, because the user has bounded the memory. Larger ones
                are then given up.
        """
        slices, threads = int(plan["slices_at_once"]), int(plan.get("threads", self.threads))
        if bounded and slices > self.slices:
            return self
        fits = slices <= self.slices and threads <= self.threads
        return Division(slices=slices, threads=threads, workers=self.workers if fits else 1)

    @property
    def plan(self) -> dict[str, int]:
        """What results depend on, by rounding."""
        return {"slices_at_once": self.slices, "threads": self.threads}


def division_of(size: int, count: int, max_bytes: float | None = None, *, cores: int) -> Division:
    """As many batches at a time as there are cores and slices for, of as many slices as fit into memory.

    Args:
        size: side of the slices in pixels.
        count: slices of the series.
        max_bytes: most memory of the whole process; None: most of what is free.
        cores: to work with; 1 where the work is done elsewhere, on a GPU.

    Raises:
        ValueError: a single slice, or the results of the series, do not fit.
    """
    image = 4 * size**2
    given = _SHARE_OF_FREE * free_bytes() if max_bytes is None else max_bytes - process_bytes()
    needed = max((IMAGES_AT_ONCE + IMAGES_OF_A_SLICE) * image, IMAGES_OF_THE_OUTPUT * count * image)
    if needed > given:
        beside = "" if max_bytes is None else f" beside the {process_bytes() / _GIB:.2g} GiB that are in use"
        raise ValueError(
            f"{count} slices of {size} x {size} pixels need about {needed / _GIB:.2g} GiB of memory{beside}, and there "
            f"are {max(given, 0) / _GIB:.2g} GiB: allow more (--max-memory), take smaller slices (--size) or fewer "
            "(--slices)"
        )
    workers = min(cores, -(-count // LEAST_SLICES), int(given // ((IMAGES_AT_ONCE + IMAGES_OF_A_SLICE) * image)))
    most = min(MOST_SLICES, int((given / workers - IMAGES_AT_ONCE * image) // (IMAGES_OF_A_SLICE * image)))
    rounds = -(-count // (workers * most))
    return Division(slices=-(-count // (workers * rounds)), workers=workers, threads=max(1, cores // workers))


def ranges(count: int, at_once: int) -> list[tuple[int, int]]:
    """First slice, and one more than the last, of every batch."""
    return [(start, min(start + at_once, count)) for start in range(0, count, at_once)]


def joined(
    batches: Callable[[], Iterator[SliceBatch]], name: str, measurement: Measurement, provenance: dict[str, Any]
) -> Reconstruction:
    """The result of one method for the whole series.

    Args:
        batches: gives all batches, in order; read anew for each volume, so that no more than one batch is in memory.
        name: of the method.
        measurement: of the series.
        provenance: of the whole, see :func:`joined_provenance`.
    """
    mean = whole_volume(batches, lambda batch: batch.means[name])
    std = volume_of(batches, lambda batch: batch.stds.get(name))
    return Reconstruction(
        mean=torch.from_numpy(mean)[:, None], std=None if std is None else torch.from_numpy(std)[:, None],
        samples=None, measurement=measurement, provenance=provenance,
    )  # fmt: skip


def volume_of(
    batches: Callable[[], Iterator[SliceBatch]], of_batch: Callable[[SliceBatch], NDArray[np.float32] | None]
) -> NDArray[np.float32] | None:
    """The slices of all batches as one volume; None where a batch has none.

    Args:
        batches: gives all batches, in order.
        of_batch: the ``(n, H, W)`` array of a batch.
    """
    volume: NDArray[np.float32] | None = None
    count = max(batch.stop for batch in batches())
    for batch in batches():
        part = of_batch(batch)
        if part is None:
            return None
        if volume is None:
            volume = np.empty((count, *part.shape[1:]), np.float32)
        volume[batch.start : batch.stop] = part
    return volume


def whole_volume(
    batches: Callable[[], Iterator[SliceBatch]], of_batch: Callable[[SliceBatch], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The slices of all batches as one volume, of what every batch has; see :func:`volume_of`."""
    volume = volume_of(batches, of_batch)
    assert volume is not None
    return volume


def joined_metrics(batches: list[CTMetrics]) -> CTMetrics:
    """The metrics of all slices."""
    values = {key: np.concatenate([getattr(one, key) for one in batches]) for key in metric_names()}
    return CTMetrics(**values, data_range_hu=batches[0].data_range_hu)


def joined_provenance(records: list[tuple[int, int, Mapping[str, Any]]]) -> dict[str, Any]:
    """One record of a method for the whole series.

    Numbers for each image are averaged, the data residual by its square. A warning that not all batches have, or that
    names images of its batch, says which slices it is about.

    Args:
        records: first slice, one more than the last, and provenance of every batch.
    """
    counts = [stop - start for start, stop, _ in records]
    total = sum(counts)
    found = dict(records[0][2])

    def mean(key: str, power: int = 1) -> float:
        weighted = (n * record[key] ** power for n, (_, _, record) in zip(counts, records, strict=True))
        return float((sum(weighted) / total) ** (1 / power))

    found |= {key: mean(key) for key in ("seconds_per_image", "network_evaluations_per_image") if key in found}
    if "data_residual" in found:
        found["data_residual"] = found["data_residual"] if len(records) == 1 else mean("data_residual", 2)
    if len(records) > 1:
        found["warnings"] = _joined_warnings(records)
    return found | {"images": total}


def _joined_warnings(records: list[tuple[int, int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    common = [one for one in records[0][2]["warnings"] if all(one in record["warnings"] for _, _, record in records)]
    common = [one for one in common if "images at" not in one["text"]]
    found = [dict(one) for one in common]
    for start, stop, record in records:
        for one in record["warnings"]:
            if one not in common:
                found.append({**one, "text": f"of slices {start + 1} to {stop}: {one['text']}"})
    return found
