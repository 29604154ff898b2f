"""Triton kernels: Joseph's interpolation for a whole batch. It lies last, so neighbouring threads read neighbours.

Both kernels take the weight of a ray in a pixel from the same two functions, so the matrix of the second is the
transpose of that of the first, bit for bit. Multiplications and additions are fused where it says so and nowhere else.
Neither kernel adds to what another program wrote: sums have one order, and no atomic operation is needed. Sums are in
float32, whatever type the images and sinograms are stored in.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs the kernels on the CPU, step by step: the variable has to be set before Triton is imported."""


@triton.jit
def _position(start, slope, line):
    """Where a ray meets an image line: the index of a cell, with a fraction."""
    return tl.fma(slope, line.to(tl.float32), start)


@triton.jit
def _share(position, cell):
    """Linear interpolation: one on the cell, zero from its neighbours on."""
    return tl.maximum(1.0 - tl.abs(position - cell.to(tl.float32)), 0.0)


@triton.jit
def project_batch(
    image, out, start, slope, weight, axis, first, last,
    views, elements, height, width, batch,
    VIEWS: tl.constexpr, ELEMENTS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Line integrals of neighbouring rays of neighbouring views, which cross the same pixels: they stay in the cache.

    A program follows its rays from one image line to the next. ``start`` and ``slope`` are ``(2, views, elements)``,
    for rays along the rows and along the columns; the other arrays of rays are ``(views, elements)``.
    """
    index = tl.arange(0, VIEWS * ELEMENTS)
    view = tl.program_id(1) * VIEWS + index // ELEMENTS
    element = tl.program_id(0) * ELEMENTS + index % ELEMENTS
    here = (view < views) & (element < elements)
    ray = view * elements + element
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    by_column = tl.load(axis + ray, mask=here, other=0) == 1
    along = by_column.to(tl.int32) * views * elements + ray
    a, b = tl.load(start + along, mask=here, other=0.0), tl.load(slope + along, mask=here, other=0.0)
    begin, end = tl.load(first + ray, mask=here, other=2**30), tl.load(last + ray, mask=here, other=0)
    line_step, cell_step = tl.where(by_column, 1, width), tl.where(by_column, width, 1)
    cells = tl.where(by_column, height, width)
    total = tl.zeros([VIEWS * ELEMENTS, LANES], tl.float32)
    for line in range(tl.min(begin), tl.max(end)):
        position = _position(a, b, line + tl.zeros_like(index))
        near = tl.floor(position).to(tl.int32)
        for side in tl.static_range(2):
            cell = near + side
            share = _share(position, cell)
            met = (share > 0) & (cell >= 0) & (cell < cells) & (line >= begin) & (line < end)
            pixel = line * line_step + cell * cell_step
            value = tl.load(image + pixel[:, None] * batch + lane, mask=met[:, None] & (lane < batch), other=0.0)
            total = tl.fma(share[:, None], value.to(tl.float32), total)
    total *= tl.load(weight + ray, mask=here, other=0.0)[:, None]
    tl.store(out + ray[:, None] * batch + lane, total, mask=here[:, None] & (lane < batch))


@triton.jit
def backproject_batch(
    data, out, start, slope, weight, windows, pass_view, pass_axis,
    views, elements, height, width, batch, passes,
    NEAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """The transpose of :func:`project_batch` as a gather: each pixel of a tile looks up the rays beside it.

    ``windows`` is ``(passes, height, width)``: the first of the ``NEAR`` elements that may be near enough.
    """
    index = tl.arange(0, ROWS * COLUMNS)
    row, column = tl.program_id(1) * ROWS + index // COLUMNS, tl.program_id(0) * COLUMNS + index % COLUMNS
    here = (row < height) & (column < width)
    pixel = row * width + column
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    total = tl.zeros([ROWS * COLUMNS, LANES], tl.float32)
    for number in range(passes):
        view, by_column = tl.load(pass_view + number), tl.load(pass_axis + number)
        line, cell = tl.where(by_column == 1, column, row), tl.where(by_column == 1, row, column)
        nearest = tl.load(windows + pixel, mask=here, other=elements).to(tl.int32)
        windows += height * width
        for step in tl.static_range(NEAR):
            element = nearest + step
            within = here & (element < elements)
            ray = view * elements + element
            along = by_column * views * elements + ray
            a = tl.load(start + along, mask=within, other=0.0)
            b = tl.load(slope + along, mask=within, other=0.0)
            share = tl.where(within, _share(_position(a, b, line), cell), 0.0)
            share *= tl.load(weight + ray, mask=within, other=0.0)
            met = (share > 0)[:, None] & (lane < batch)
            value = tl.load(data + ray[:, None] * batch + lane, mask=met, other=0.0)
            total = tl.fma(share[:, None], value.to(tl.float32), total)
    tl.store(out + pixel[:, None] * batch + lane, total, mask=here[:, None] & (lane < batch))
