"""Numba kernel of planar filtered back-projection; the same values as the matrix of ``operators.ct.backprojection``."""

from __future__ import annotations

import math

import numpy as np

from deft_ct.operators.ct.backends._compile import compiled


@compiled
def backproject_lines(rows, turns, lengths, kind, out, begin, end):  # type: ignore[no-untyped-def]
    """Fill the lines ``begin:end`` of every image: linear interpolation on the detector, times the distance weight.

    Args:
        rows: ``(images, views, detectors)`` filtered rows.
        turns: ``(2, views)`` cosine and sine of the view angles.
        lengths: pixel height, pixel width, detector pitch, detector offset, axis offset, source to centre, source to
            detector; mm.
        kind: of the detector: 0 parallel, 1 flat, 2 curved.
        out: ``(images, height, width)``, of the type of the rows.
        begin: first line.
        end: line after the last one.
    """
    images, views, detectors = rows.shape
    height, width = out.shape[1], out.shape[2]
    pixel_y, pixel_x, pitch, offset, axis, to_center, to_detector = lengths
    low = np.empty(width, np.int64)
    near = np.empty(width, rows.dtype)
    far = np.empty(width, rows.dtype)
    for line in range(begin, end):
        y = (0.5 * (height - 1) - line) * pixel_y
        for n in range(images):
            out[n, line] = 0
        for view in range(views):
            cos, sin = turns[0, view], turns[1, view]
            for k in range(width):
                x = (k - 0.5 * (width - 1)) * pixel_x
                u, weight = x * cos + y * sin + axis, 1.0
                if kind == 1:
                    scale = to_detector / (to_center - x * sin + y * cos)
                    u, weight = u * scale, scale * scale
                elif kind == 2:
                    depth = to_center - x * sin + y * cos
                    u, weight = to_detector * math.atan2(u, depth), 1.0 / (u * u + depth * depth)
                position = (u - offset) / pitch + 0.5 * (detectors - 1)
                cell = math.floor(position)
                part = position - cell
                if 0 <= cell < detectors - 1:
                    low[k], near[k], far[k] = cell, (1 - part) * weight, part * weight
                elif cell == -1:  # between the first element and nothing
                    low[k], near[k], far[k] = 0, part * weight, 0.0
                elif cell == detectors - 1:  # between the last one and nothing
                    low[k], near[k], far[k] = detectors - 2, 0.0, (1 - part) * weight
                else:
                    low[k], near[k], far[k] = 0, 0.0, 0.0
            for n in range(images):
                for k in range(width):
                    out[n, line, k] += near[k] * rows[n, view, low[k]] + far[k] * rows[n, view, low[k] + 1]
