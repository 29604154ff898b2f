"""Weighted filtered back-projection of helical scans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from deft_ct.operators.ct.filters import apply_filter, check_filter, ramp_response
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.helix_rebinning import BEYOND, LEAST_WEIGHT, SMOOTH_FROM, Beam, ParallelBeams
from deft_ct.operators.threads import run_tasks


class HelicalImage(NamedTuple):
    """A reconstructed volume.

    Attributes:
        volume: ``(slices, rows, columns)`` attenuation in 1/mm, zero outside the field of view.
        missing: ``(slices,)`` share of the directions of a pixel in which no ray was measured, on average over the
            field of view; a complete slice has 0.
    """

    volume: Tensor
    missing: Tensor


def helical_fbp(
    data: Tensor,
    scan: HelicalScan,
    grid: VolumeGrid,
    filter: str = "ram-lak",
    cutoff: float = 1.0,
    tick: Callable[[], object] = lambda: None,
) -> HelicalImage:
    """Rebin to parallel beams, filter along the rows, back-project along the true rays.

    For each voxel and direction, all rays that see it are averaged, from both ends and all turns, with weights that
    fall towards the edges of the detector (Stierstorfer et al. 2004, Phys. Med. Biol. 49, 2209). Approximate for large
    cone angles; any pitch up to where rays are missing, either direction of the table, any focal spot of
    :class:`~deft_ct.operators.ct.helix.HelicalScan`.

    Args:
        data: ``(views, rows, columns)`` line integrals.
        scan: how they were taken.
        grid: the voxels.
        filter: as in :func:`~deft_ct.operators.ct.fbp`.
        cutoff: fraction of the Nyquist frequency where the filter ends.
        tick: called ``round(scan.views_per_turn / 2)`` times, after equal parts of the work.

    Returns:
        The volume, and what is missing in its slices.

    Raises:
        ValueError: as of :class:`~deft_ct.operators.ct.helix_rebinning.ParallelBeams`; an unknown filter.
    """
    check_filter(filter, cutoff)
    beams = ParallelBeams(data, scan)
    response = torch.from_numpy(ramp_response(beams.bins, beams.bin_mm, filter, cutoff)).to(data)
    y, x = (torch.from_numpy(values).to(data) for values in (grid.y, grid.x))
    seen = torch.hypot(x, y[:, None]) <= float(beams.position[-1])
    rows, columns = seen.nonzero(as_tuple=True)
    pixels = torch.stack([x[columns], y[rows]])
    z = torch.from_numpy(grid.z).to(data)
    image, missing = data.new_zeros(len(rows), len(z)), data.new_zeros(len(z))
    add = _kernel(beams, grid, pixels) or (lambda beam, sums: _backproject(beams, beam, z, pixels, sums))
    for number in range(beams.half_turn):
        sums = data.new_zeros(3, *image.shape)
        for beam in beams.of_direction(number):
            filtered = apply_filter((beam.data * beams.obliquity(beam)).mT, response).mT
            add(beam.with_data(filtered.contiguous()), sums)
        total, weight, measured = sums
        image += total / weight.clamp_min(torch.finfo(data.dtype).tiny) * (math.pi / beams.half_turn)
        missing += (measured <= 0).to(data).mean(0) / beams.half_turn
        tick()
    volume = data.new_zeros(grid.image_shape)
    volume[:, rows, columns] = image.T
    return HelicalImage(volume, missing)


def _kernel(beams: ParallelBeams, grid: VolumeGrid, pixels: Tensor) -> Callable[[Beam, Tensor], None] | None:
    """The compiled back-projection of a view; None without Numba, or where the data are not on the CPU."""
    if pixels.device.type != "cpu":
        return None
    try:
        from deft_ct.operators.ct.backends import _helix_kernels
    except ImportError:
        return None
    scan, places, count = beams.scan, pixels.numpy(), pixels.shape[1]
    cuts = [count * n // torch.get_num_threads() for n in range(torch.get_num_threads() + 1)]

    def add(beam: Beam, sums: Tensor) -> None:
        rays = torch.stack([beam.z, beam.start, beam.length]).double().numpy()
        step = (beams.bin_mm, float(grid.z[0]), grid.voxel_zyx[0], beam.axial, scan.detector_mm[0], scan.central[0])
        common = (
            beam.data.numpy(), rays, places, (math.cos(beam.angle), math.sin(beam.angle)), step,
            (SMOOTH_FROM, BEYOND, LEAST_WEIGHT), sums.numpy(),
        )  # fmt: skip
        run_tasks(_helix_kernels.backproject_beam, [(*common, a, b) for a, b in itertools.pairwise(cuts)])

    return add


def _backproject(beams: ParallelBeams, beam: Beam, z: Tensor, pixels: Tensor, sums: Tensor) -> None:
    """Add a filtered view to the sums of values, of weights, and of weights of measured rays, ``(pixels, slices)``."""
    cos, sin = math.cos(beam.angle), math.sin(beam.angle)
    bins = ((pixels[0] * cos + pixels[1] * sin) / beams.bin_mm + (beams.bins - 1) / 2)[:, None]
    depth = (pixels[1] * cos - pixels[0] * sin)[:, None]
    row, count = beams.rows_at(beam, z, depth, bins), beam.data.shape[1]
    share = beams.share(row)
    place = row.clamp(0, count - 1)
    low_row = place.floor().clamp_max(max(count - 2, 0))
    low_bin = bins.floor().clamp(0, beams.bins - 2)
    index, up = (low_bin.long() * count) + low_row.long(), min(1, count - 1)
    flat, part = beam.data.reshape(-1), place - low_row
    near = torch.lerp(flat[index], flat[index + up], part)
    far = torch.lerp(flat[index + count], flat[index + count + up], part)
    sums[0] += share * torch.lerp(near, far, (bins - low_bin).clamp(0, 1).expand_as(near))
    sums[1] += share
    sums[2] += beams.row_weight(row)
