"""Numba kernel of the helical back-projection; the same values as the tensor code of ``helical_fbp``."""

from __future__ import annotations

from deft_ct.operators.ct.backends._compile import compiled


@compiled
def backproject_beam(data, rays, pixels, angle, steps, edges, sums, begin, end):  # type: ignore[no-untyped-def]
    """Add one parallel view to the pixels ``begin:end``.

    Args:
        data: ``(bins, rows)``.
        rays: ``(3, bins)``: place along z, start and length of each ray.
        pixels: ``(2, pixels)``: x and y.
        angle: cosine and sine of the view.
        steps: bin width, first slice, slice distance, shift of the source along z, row height, central row.
        edges: share of the half height where the weight begins to fall; share up to which the last row is used; its
            weight there.
        begin: first pixel.
        end: pixel after the last one.
        sums: ``(3, pixels, slices)``: values, weights, weights of measured rays.
    """
    bins, rows = data.shape
    cos, sin = angle
    bin_mm, z_first, z_step, axial, row_mm, central = steps
    smooth_from, beyond, least = edges
    slices, middle, half = sums.shape[2], 0.5 * (rows - 1), 0.5 * rows
    for p in range(begin, end):
        x, y = pixels[0, p], pixels[1, p]
        at = (x * cos + y * sin) / bin_mm + 0.5 * (bins - 1)
        low = min(max(int(at), 0), bins - 2)
        aside = min(max(at - low, 0.0), 1.0)
        center = rays[0, low] + (rays[0, low + 1] - rays[0, low]) * aside
        start = rays[1, low] + (rays[1, low + 1] - rays[1, low]) * aside
        length = rays[2, low] + (rays[2, low + 1] - rays[2, low]) * aside
        ratio = length / (y * cos - x * sin - start)
        slope = z_step * ratio / row_mm
        row_0 = (axial + (z_first - center - axial) * ratio) / row_mm + central
        first = max(0, int((middle - beyond * half - row_0) / slope))
        last = min(slices, int((middle + beyond * half - row_0) / slope) + 2)
        for k in range(first, last):
            row = row_0 + slope * k
            edge = abs(row - middle) / half
            if edge > beyond:
                continue
            t = (min(max(edge, smooth_from), 1.0) - smooth_from) / (1.0 - smooth_from)
            weight = 1.0 - t * t * (3.0 - 2.0 * t)
            share = max(weight, least)
            place = min(max(row, 0.0), rows - 1.0)
            below = min(int(place), max(rows - 2, 0))
            above = min(below + 1, rows - 1)
            part = place - below
            near = data[low, below] + (data[low, above] - data[low, below]) * part
            far = data[low + 1, below] + (data[low + 1, above] - data[low + 1, below]) * part
            sums[0, p, k] += share * (near + (far - near) * aside)
            sums[1, p, k] += share
            sums[2, p, k] += weight
