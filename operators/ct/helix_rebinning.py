"""Rebin a helical scan to parallel beams, and these to the sinograms of single slices.

A ray of a fan belongs to the parallel view of its own direction. So the columns of neighbouring views make up a view
whose rays are parallel seen along the axis, each with its own place of the source along z (the parallel rebinning of
Stierstorfer et al. 2004, Phys. Med. Biol. 49, 2209; Kachelriess et al. 2000). Views of different positions of a flying
focal spot are rebinned apart, with the rays of their own spot, and meet where they are summed up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.operators.ct.geometry import ParallelGeometry
from deft_ct.operators.ct.helix import HelicalScan, Spot, VolumeGrid
from deft_ct.operators.ct.rays import Array

Indices = NDArray[np.int64]

SMOOTH_FROM = 0.6
"""Where the weight of a detector row begins to fall, as a share of the half height (Stierstorfer et al. 2004)."""

LEAST_WEIGHT = 1e-3
"""Weight of a row beyond the detector, where the last one stands in; it counts only where nothing was measured."""

BEYOND = 1.5
"""How far beyond the detector the last row stands in, in half heights."""


class Beam(NamedTuple):
    """One parallel view with rows along z.

    Attributes:
        angle: radians, not wrapped.
        data: ``(bins, rows)`` line integrals.
        z: ``(bins,)`` place of the focal centre along the axis when each ray was measured, mm.
        start: ``(bins,)`` as :attr:`~deft_ct.operators.ct.helix.Spot.start`.
        length: ``(bins,)`` likewise.
        axial: shift of the source along z against the focal centre, mm.
    """

    angle: float
    data: Tensor
    z: Tensor
    start: Tensor
    length: Tensor
    axial: float

    def with_data(self, data: Tensor) -> Beam:
        """The same rays with other values."""
        return Beam(self.angle, data, self.z, self.start, self.length, self.axial)


class ParallelBeams:
    """The parallel views of a helical scan.

    The views are ``pi / half_turn`` apart from angle 0 on; view ``n`` and view ``n + half_turn`` see the same lines
    from the two ends.

    Args:
        data: ``(views, rows, columns)`` line integrals.
        scan: how they were taken.

    Attributes:
        half_turn: number of views in half a turn.
        bins: number of rays of a view.
        bin_mm: their distance; as the columns of the detector at the rotation axis.
        position: ``(bins,)`` their distance from the axis, mm, symmetric about 0.

    Raises:
        ValueError: data of another shape, a focal spot that moves in no cycle, or less than half a turn of data.
    """

    def __init__(self, data: Tensor, scan: HelicalScan) -> None:
        if tuple(data.shape) != scan.data_shape:
            raise ValueError(f"data of shape {tuple(data.shape)} for a scan of shape {scan.data_shape}")
        self.scan, self._device = scan, data.device
        count = scan.states()
        self._spots = [scan.spot(n, count) for n in range(count)]
        order = slice(None) if scan.angles[-1] > scan.angles[0] else slice(None, None, -1)
        self._views = [np.arange(len(scan.angles))[n::count][order] for n in range(count)]
        self._data = data.mT  # a column of all rows in a row of memory, where the caller stores it so
        self.half_turn = max(1, round(scan.views_per_turn / 2))
        self.bin_mm = scan.detector_mm[1] * float(scan.radius_mm.mean()) / scan.source_to_detector_mm
        reach = max(float(np.abs(spot.lateral).max()) for spot in self._spots)
        self.bins = 2 * math.ceil(reach / self.bin_mm) + 1
        self.position: Array = (np.arange(self.bins, dtype=np.float64) - (self.bins - 1) / 2) * self.bin_mm
        self._ranges = [
            self._range(spot, scan.angles[views]) for spot, views in zip(self._spots, self._views, strict=True)
        ]
        if min(high - low for low, high in self._ranges) < self.half_turn:
            raise ValueError(
                "the scan holds less than half a turn of complete parallel views: at least half a turn and the angle "
                "of the fan are needed"
            )

    def _range(self, spot: Spot, angles: Array) -> tuple[int, int]:
        """Numbers of the first view all of whose rays were measured, and one more than that of the last one."""
        step = math.pi / self.half_turn
        low, high = angles[0] + spot.turn.max(), angles[-1] + spot.turn.min()
        return math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1

    def of_direction(self, number: int) -> Iterator[Beam]:
        """All views of the lines of view ``number``, from both ends, of every turn and focal spot.

        Args:
            number: from 0 to below :attr:`half_turn`.
        """
        for spot, views, (low, high) in zip(self._spots, self._views, self._ranges, strict=True):
            numbers = np.arange(low, high)
            yield from self._beams(spot, views, numbers[numbers % self.half_turn == number])

    def _beams(self, spot: Spot, views: Indices, numbers: Indices) -> Iterator[Beam]:
        scan, columns = self.scan, self.scan.detectors[1]
        known, column = scan.angles[views], np.interp(self.position, spot.lateral, np.arange(columns))
        start, length = (np.interp(column, np.arange(columns), values) for values in (spot.start, spot.length))
        for angle in (numbers * math.pi / self.half_turn).tolist():
            wanted = angle - spot.turn
            at = np.interp(wanted, known, np.arange(len(known)))
            taps, weights = cubic(at, len(known))
            which = self._tensor(views[taps], torch.long)  # (4, columns)
            rows = self._data[which, torch.arange(columns, device=self._device)]
            fan = (rows * self._tensor(weights)[..., None]).sum(0)
            taps, weights = cubic(column, columns)
            data = (fan[self._tensor(taps, torch.long)] * self._tensor(weights)[..., None]).sum(0)
            z = np.interp(column, np.arange(columns), np.interp(wanted, known, scan.z_mm[views]))
            yield Beam(angle, data, self._tensor(z), self._tensor(start), self._tensor(length), spot.axial)

    def _tensor(self, values: Array | Indices, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, dtype or self._data.dtype)

    def rows_at(self, beam: Beam, z: Tensor, depth: Tensor, bins: Tensor | None = None) -> Tensor:
        """Detector row, counted from 0, in which a view sees points.

        Args:
            beam: the view.
            z: place of the points along the axis, mm.
            depth: their place along the direction of the view, from the foot of the axis, mm.
            bins: which ray sees each of them (fractions of bins); the rays in order if left out.
        """
        center, start, length = (
            values if bins is None else _linear(values, bins) for values in (beam.z, beam.start, beam.length)
        )
        height = beam.axial + (z - center - beam.axial) * (length / (depth - start))
        return height / self.scan.detector_mm[0] + self.scan.central[0]

    def row_weight(self, row: Tensor) -> Tensor:
        """Weight of a detector row: 1 in the middle, smoothly down to 0 at the edges, 0 beyond."""
        rows = self.scan.detectors[0]
        edge = ((row - (rows - 1) / 2).abs() / (rows / 2)).clamp(SMOOTH_FROM, 1.0)
        fall = (edge - SMOOTH_FROM) / (1 - SMOOTH_FROM)
        return 1 - fall.square() * (3 - 2 * fall)

    def share(self, row: Tensor) -> Tensor:
        """:meth:`row_weight`, with :data:`LEAST_WEIGHT` beyond the detector as far as the last row stands in."""
        rows = self.scan.detectors[0]
        near = (row - (rows - 1) / 2).abs() <= BEYOND * rows / 2
        return self.row_weight(row).clamp_min(LEAST_WEIGHT) * near

    def is_turned(self, beam: Beam) -> bool:
        """Whether a view runs against the view of the same lines in the first half turn: its bins count backwards."""
        return round(beam.angle * self.half_turn / math.pi) // self.half_turn % 2 == 1

    def slice_values(self, beam: Beam, z: Tensor) -> tuple[Tensor, Tensor]:
        """What a view says of the lines of slices: the rays that cross them where they pass the rotation axis.

        Args:
            beam: the view.
            z: ``(slices, 1)`` places along the axis, mm.

        Returns:
            Line integrals within the slices and the detector rows that they come from, each ``(slices, bins)``.
        """
        row = self.rows_at(beam, z, torch.zeros_like(beam.z))
        values = (beam.data * self.obliquity(beam)).expand(len(z), -1, -1)
        last = values.shape[-1] - 1
        place = row.clamp(0, last)
        low = place.floor().clamp_max(max(last - 1, 0))
        pair = values.gather(-1, torch.stack([low, (low + 1).clamp_max(last)], -1).long())
        return torch.lerp(pair[..., 0], pair[..., 1], place - low), row

    def obliquity(self, beam: Beam) -> Tensor:
        """``(bins, rows)`` cosine of the angle of each ray to the plane of a slice."""
        height = self._tensor(self.scan.heights) - beam.axial
        length = beam.length[:, None]
        return length / torch.hypot(length, height)


def cubic(at: Array, count: int) -> tuple[Indices, Array]:
    """Cubic convolution (Keys 1981, IEEE Trans. ASSP 29, 1153): which samples, and with which weights.

    Args:
        at: places between ``count`` samples, in samples.
        count: number of samples; the first and the last one are repeated beyond.

    Returns:
        Indices and weights, each ``(4, *at.shape)``.
    """
    low = np.clip(np.floor(at), 0, max(count - 2, 0))
    t = at - low
    weights = np.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )
    taps = np.clip(low.astype(np.int64) + np.arange(-1, 3).reshape(4, *(1,) * np.ndim(at)), 0, count - 1)
    return taps, weights


def _linear(values: Tensor, at: Tensor) -> Tensor:
    low = at.floor().clamp(0, len(values) - 2).long()
    return torch.lerp(values[low], values[low + 1], at - low)


def rebin_slices(data: Tensor, scan: HelicalScan, grid: VolumeGrid) -> tuple[Tensor, ParallelGeometry, Tensor]:
    """Sinograms of single slices, for every method of two dimensions.

    A line of a slice takes the rays that cross the slice where they pass the rotation axis (single-slice rebinning,
    Noo, Defrise and Clackdoyle 1999, Phys. Med. Biol. 44, 561): between two detector rows by linear interpolation,
    from both ends and from all turns that see it, with weights that fall towards the edges of the detector, times the
    cosine of their angle to the slice. What the cone angle does away from the axis is not corrected.

    Args:
        data: ``(views, rows, columns)`` line integrals.
        scan: how they were taken.
        grid: the slices; its rows and columns give the pixels of the geometry.

    Returns:
        ``(slices, 1, views, bins)`` line integrals, their geometry, and for each slice the share of its lines that no
        ray measured, ``(slices,)``.

    Raises:
        ValueError: as of :class:`ParallelBeams`.
    """
    beams = ParallelBeams(data, scan)
    z = torch.from_numpy(grid.z).to(data)[:, None]
    shape = (len(z), 1, beams.half_turn, beams.bins)
    out, missing = data.new_zeros(shape), data.new_zeros(len(z))
    for number in range(beams.half_turn):
        total, weight, measured = (data.new_zeros(len(z), beams.bins) for _ in range(3))
        for beam in beams.of_direction(number):
            value, row = beams.slice_values(beam, z)
            share, turned = beams.share(row), beams.is_turned(beam)
            parts = (share * value, share, beams.row_weight(row))
            for sum_, part in zip((total, weight, measured), parts, strict=True):
                sum_ += part.flip(-1) if turned else part
        out[:, 0, number] = total / weight.clamp_min(torch.finfo(data.dtype).tiny)
        missing += (measured <= 0).sum(-1) / (beams.half_turn * beams.bins)
    geometry = ParallelGeometry(
        image_shape=grid.image_shape[1:], pixel_mm=grid.voxel_zyx[1:],
        angles=np.arange(beams.half_turn) * math.pi / beams.half_turn, detectors=beams.bins, detector_mm=beams.bin_mm,
    )  # fmt: skip
    return out, geometry, missing
