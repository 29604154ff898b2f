"""Builder of the strip-area system matrix: what a detector element of its full width sees of a square pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deft_ct.operators.ct.geometry import ParallelGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.scan import RayGeometry
from deft_ct.operators.ct.system_matrix import CSR

_SAMPLES_A_CHUNK = 2**17  # keeps the temporaries of the builder in the cache


def strip_nonzeros(geometry: RayGeometry) -> int:
    """Upper bound of the stored entries of :func:`strip_matrix`."""
    scan = _parallel(geometry)
    height, width = scan.image_shape
    return height * width * int(_reach(scan, *_shadow(scan)).sum())


def strip_matrix(geometry: RayGeometry, dtype: type[np.floating] = np.float32) -> CSR:
    """Areas of the pixels in the strip of each detector element, over the width of the strip.

    The shadow of a pixel on the detector axis is a trapezoid, the convolution of the shadows of its two sides. An entry
    is the part of it within the detector element, which is the mean line integral over the element. It is exact for
    images that are constant in each pixel. So a view that covers the image keeps its mass. See Kak and Slaney 1988,
    section 7.2; ASTRA calls the model ``strip``.

    Args:
        geometry: a parallel scan; each strip is one ``detector_mm`` wide.
        dtype: ``numpy.float32`` or ``numpy.float64``; the areas are computed in float64.

    Returns:
        One row for each detector element, one column for each pixel; the entries are in mm.

    Raises:
        ValueError: a divergent beam, or more non-zeros than int32 can count.
    """
    scan = _parallel(geometry)
    if strip_nonzeros(scan) > np.iinfo(np.int32).max:
        raise ValueError(
            f"the strip matrix would have up to {strip_nonzeros(scan)} entries, more than int32 indices can address"
        )
    angles, (height, width), (pitch_y, pitch_x) = scan.angle_array, scan.image_shape, scan.pixel_rc
    views, detectors = scan.sinogram_shape
    cos, sin = np.cos(angles), np.sin(angles)
    long, short = _shadow(scan)
    reach = _reach(scan, long, short)
    x = (np.arange(width, dtype=np.float64) - (width - 1) / 2) * pitch_x
    y = ((height - 1) / 2 - np.arange(height, dtype=np.float64)) * pitch_y
    # Left edge of element 0, seen from the rotation axis.
    edge = float(scan.detector_positions[0]) - scan.axis_offset_mm - 0.5 * scan.detector_mm
    scale = pitch_x * pitch_y / scan.detector_mm
    # Pixel by pixel in turn, so it is the transpose that comes out in compressed rows. Views with the same reach are
    # computed together.
    data, indices, lengths = [], [], []
    rows = max(1, _SAMPLES_A_CHUNK // (width * views))
    most = int(reach.max())
    slot = np.arange(most)
    used = slot < reach[:, None]
    base = np.arange(views, dtype=np.int32)[:, None] * np.int32(detectors) + slot.astype(np.int32)
    for begin in range(0, height, rows):
        center = x[None, :, None] * cos + y[begin : begin + rows, None, None] * sin - edge
        first = np.floor((center - 0.5 * (long + short)) / scan.detector_mm)
        offset = first * scan.detector_mm - center
        below = _share_below(offset, long, short)
        share = np.empty((*center.shape, most), dtype)
        for n in range(most):
            above = _share_below(offset + (n + 1) * scan.detector_mm, long, short)
            share[..., n] = scale * (above - below)
            below = above
        element = first.astype(np.int32)[..., None] + slot.astype(np.int32)
        keep = (share > 0) & (element >= 0) & (element < detectors) & used
        data.append(share[keep])
        indices.append((first.astype(np.int32)[..., None] + base)[keep])
        lengths.append(np.count_nonzero(keep, axis=(-1, -2)).ravel())
    ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
    by_pixel = CSR(np.concatenate(data), np.concatenate(indices), ends, (height * width, views * detectors))
    return by_pixel.transposed()


def _parallel(geometry: RayGeometry) -> ParallelGeometry:
    if not isinstance(geometry, ParallelGeometry):
        raise ValueError(
            f"kernel 'strip' is for parallel beams, got a {type(geometry).__name__}, whose strips are wedges: use "
            "kernel='joseph'"
        )
    return geometry


def _shadow(geometry: ParallelGeometry) -> tuple[Array, Array]:
    """Lengths of the longer and the shorter shadow of a pixel's sides in each view, mm."""
    pitch_y, pitch_x = geometry.pixel_rc
    sides = np.stack([pitch_x * np.abs(np.cos(geometry.angle_array)), pitch_y * np.abs(np.sin(geometry.angle_array))])
    return sides.max(0), sides.min(0)


def _reach(geometry: ParallelGeometry, long: Array, short: Array) -> NDArray[np.int64]:
    """How many elements, at most, the shadow of a pixel meets in each view."""
    return np.ceil((long + short) / geometry.detector_mm - 1e-9).astype(np.int64) + 1


def _share_below(t: Array, long: Array, short: Array) -> Array:
    """The part of a unit trapezoid around 0, with the two lengths convolved, that lies below ``t``."""
    # The distance to the nearer end carries the ramp; the middle is linear.
    mirrored = 0.5 * (long + short) - np.abs(t)
    ramp = np.clip(mirrored, 0, short)
    tail = 0.5 * ramp * ramp / np.maximum(short, 1e-300) + np.clip(mirrored - short, 0, None)
    tail /= long
    return np.where(t < 0, tail, 1 - tail)
