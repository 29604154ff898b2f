"""Numba kernels for volumes: Joseph's bilinear interpolation along rays that are computed from the view's pose."""

from __future__ import annotations

from deft_ct.operators.ct.backends._compile import compiled


@compiled
def _range(start, slope, lines, cells):  # type: ignore[no-untyped-def]
    """Lines ``[first, last)`` with ``-1 < start + slope * k < cells``."""
    if abs(slope) < 1e-12:
        return (0, lines) if -1 < start < cells else (0, 0)
    enter, leave = (-1 - start) / slope, (cells - start) / slope
    if enter > leave:
        enter, leave = leave, enter
    if leave < 0 or enter > lines:
        return 0, 0
    first, last = int(max(enter + 1e-9, -1.0)), int(min(leave - 1e-9, lines + 1.0)) + 1
    if first < enter + 1e-9:
        first += 1
    return max(first, 0), min(last, lines)


@compiled
def project_cone(volume, shape, strides, spacing, poses, begin, end, out):  # type: ignore[no-untyped-def]
    """Line integrals of views ``begin:end`` in a flat volume padded by one voxel below and two above in each axis.

    ``poses`` is ``(views, 4, 3)``: source, element (0, 0), row step and column step in voxel indices (z, row, column).
    """
    for view in range(begin, end):
        source, corner, row_step, column_step = poses[view, 0], poses[view, 1], poses[view, 2], poses[view, 3]
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                d0 = corner[0] + i * row_step[0] + j * column_step[0] - source[0]
                d1 = corner[1] + i * row_step[1] + j * column_step[1] - source[1]
                d2 = corner[2] + i * row_step[2] + j * column_step[2] - source[2]
                length = ((d0 * spacing[0]) ** 2 + (d1 * spacing[1]) ** 2 + (d2 * spacing[2]) ** 2) ** 0.5
                m, p, q, dm, dp, dq = 0, 1, 2, d0, d1, d2
                if abs(d1) > abs(dm):
                    m, p, q, dm, dp, dq = 1, 0, 2, d1, d0, d2
                if abs(d2) > abs(dm):
                    m, p, q, dm, dp, dq = 2, 0, 1, d2, d0, d1
                bp, bq = dp / dm, dq / dm
                ap, aq = source[p] - bp * source[m], source[q] - bq * source[m]
                first, last = _range(ap, bp, shape[m], shape[p])
                low, high = _range(aq, bq, shape[m], shape[q])
                first, last = max(first, low), min(last, high)
                total = 0.0
                sp, sq = strides[p], strides[q]
                for k in range(first, last):
                    fp, fq = ap + 1.0 + bp * k, aq + 1.0 + bq * k
                    ip, iq = int(fp), int(fq)
                    fp, fq = fp - ip, fq - iq
                    at = (k + 1) * strides[m] + ip * sp + iq * sq
                    near = volume[at] * (1.0 - fq) + volume[at + sq] * fq
                    far = volume[at + sp] * (1.0 - fq) + volume[at + sp + sq] * fq
                    total += near * (1.0 - fp) + far * fp
                out[view, i, j] = total * length / abs(dm)


@compiled
def backproject_cone(volume, shape, strides, spacing, poses, axis, begin, end, data):  # type: ignore[no-untyped-def]
    """Add the transpose of :func:`project_cone` for the rays of one major axis to its lines ``begin:end``."""
    for view in range(data.shape[0]):
        source, corner, row_step, column_step = poses[view, 0], poses[view, 1], poses[view, 2], poses[view, 3]
        for i in range(data.shape[1]):
            for j in range(data.shape[2]):
                d0 = corner[0] + i * row_step[0] + j * column_step[0] - source[0]
                d1 = corner[1] + i * row_step[1] + j * column_step[1] - source[1]
                d2 = corner[2] + i * row_step[2] + j * column_step[2] - source[2]
                m, p, q, dm, dp, dq = 0, 1, 2, d0, d1, d2
                if abs(d1) > abs(dm):
                    m, p, q, dm, dp, dq = 1, 0, 2, d1, d0, d2
                if abs(d2) > abs(dm):
                    m, p, q, dm, dp, dq = 2, 0, 1, d2, d0, d1
                if m != axis:
                    continue
                length = ((d0 * spacing[0]) ** 2 + (d1 * spacing[1]) ** 2 + (d2 * spacing[2]) ** 2) ** 0.5
                bp, bq = dp / dm, dq / dm
                ap, aq = source[p] - bp * source[m], source[q] - bq * source[m]
                first, last = _range(ap, bp, shape[m], shape[p])
                low, high = _range(aq, bq, shape[m], shape[q])
                first, last = max(first, low, begin), min(last, high, end)
                value = data[view, i, j] * length / abs(dm)
                sp, sq = strides[p], strides[q]
                for k in range(first, last):
                    fp, fq = ap + 1.0 + bp * k, aq + 1.0 + bq * k
                    ip, iq = int(fp), int(fq)
                    fp, fq = fp - ip, fq - iq
                    at = (k + 1) * strides[m] + ip * sp + iq * sq
                    volume[at] += value * (1.0 - fp) * (1.0 - fq)
                    volume[at + sq] += value * (1.0 - fp) * fq
                    volume[at + sp] += value * fp * (1.0 - fq)
                    volume[at + sp + sq] += value * fp * fq
