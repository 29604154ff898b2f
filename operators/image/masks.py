"""Masks for inpainting: ``(1, H, W)``, one for observed and zero for missing pixels, drawn from given generators."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

_SIDES = Literal["left", "right", "top", "bottom"]


def box_mask(
    image_size: tuple[int, int],
    box_size: tuple[int, int],
    generator: torch.Generator | None = None,
    *,
    margin: int = 0,
) -> Tensor:
    """A missing rectangle.

    Args:
        image_size: ``(H, W)``.
        box_size: height and width of the missing box.
        generator: places the box uniformly; left out, the box is centred.
        margin: least distance of a random box from the border (DPS and DAPS: 128 x 128 boxes, margin 32 in DAPS).

    Raises:
        ValueError: the box and its margins do not fit in the image.
    """
    free = [n - b - 2 * margin for n, b in zip(image_size, box_size, strict=True)]
    if min(*free, *box_size, margin) < 0:
        raise ValueError(f"box_mask: a box {box_size} with margin {margin} does not fit in an image {image_size}")
    if generator is None:
        top, left = ((n - b) // 2 for n, b in zip(image_size, box_size, strict=True))
    else:
        device = generator.device
        draw = [int(torch.randint(f + 1, (), generator=generator, device=device)) for f in free]
        top, left = margin + draw[0], margin + draw[1]
    mask = torch.ones((1, *image_size), dtype=torch.float32)
    mask[:, top : top + box_size[0], left : left + box_size[1]] = 0
    return mask


def random_mask(image_size: tuple[int, int], missing: float, generator: torch.Generator) -> Tensor:
    """Pixels missing at random, the same in all channels; exactly ``round(missing * H * W)`` of them.

    Args:
        image_size: ``(H, W)``.
        missing: fraction of missing pixels in [0, 1] (0.7 in DAPS, 0.92 in the DPS paper).
        generator: source of the choice.

    Raises:
        ValueError: ``missing`` is not in [0, 1].
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"random_mask: missing must be a fraction in [0, 1], got {missing}")
    pixels = image_size[0] * image_size[1]
    order = torch.randperm(pixels, generator=generator, device=generator.device).cpu()
    mask = torch.ones(pixels, dtype=torch.float32)
    mask[order[: round(missing * pixels)]] = 0
    return mask.reshape(1, *image_size)


def half_mask(image_size: tuple[int, int], side: _SIDES = "right") -> Tensor:
    """One half missing ("Half" of RePaint, Lugmayr et al. 2022, arXiv:2201.09865, has the right one missing).

    Args:
        image_size: ``(H, W)``.
        side: which half is missing; of an odd side it is the smaller part.

    Raises:
        ValueError: the side is unknown.
    """
    height, width = image_size
    mask = torch.ones((1, height, width), dtype=torch.float32)
    if side not in get_args(_SIDES):
        raise ValueError(f"half_mask: side must be one of {get_args(_SIDES)}, got {side!r}")
    if side in ("left", "right"):
        mask[..., : width // 2] = 0
        return mask if side == "left" else mask.flip(-1)
    mask[:, : height // 2] = 0
    return mask if side == "top" else mask.flip(-2)


def expand_mask(image_size: tuple[int, int], kept: float = 0.25) -> Tensor:
    """Only a central rectangle is observed ("Expand" of RePaint: 64 x 64 of 256 x 256).

    Args:
        image_size: ``(H, W)``.
        kept: its share of each side.

    Raises:
        ValueError: the share is not in (0, 1].
    """
    if not 0 < kept <= 1:
        raise ValueError(f"expand_mask: kept must be a share in (0, 1], got {kept}")
    return 1 - box_mask(image_size, (max(1, round(kept * image_size[0])), max(1, round(kept * image_size[1]))))


def lattice_mask(image_size: tuple[int, int], rows: int = 2, columns: int = 2) -> Tensor:
    """Every ``rows``-th row and ``columns``-th column is observed, from the first.

    RePaint's "Super-Resolve 2x" has 2 and 2, its "Alternating Lines" 2 rows and 1 column.

    Args:
        image_size: ``(H, W)``.
        rows: distance of observed rows.
        columns: distance of observed columns.

    Raises:
        ValueError: a distance is below 1.
    """
    if min(rows, columns) < 1:
        raise ValueError(f"lattice_mask: rows and columns must be at least 1, got {rows} and {columns}")
    mask = torch.zeros((1, *image_size), dtype=torch.float32)
    mask[:, ::rows, ::columns] = 1
    return mask


def freeform_mask(
    image_size: tuple[int, int], generator: torch.Generator, *, coverage: tuple[float, float] = (0.2, 0.3)
) -> Tensor:
    """Missing brush strokes: polygonal lines with round ends, turning back and forth.

    The strokes follow the idea of Yu et al. 2019 (Free-form image inpainting with gated convolution, Algorithm 1): a
    random start, then a few segments whose direction alternates around a random heading. They are drawn with our own
    parameters until a target drawn uniformly in ``coverage`` is met, so that masks are alike at any image size. These
    are not the fixed mask files of Palette and I2SB, which cannot be redistributed.

    Args:
        image_size: ``(H, W)``.
        generator: source of all choices.
        coverage: smallest and largest fraction of missing pixels.

    Returns:
        ``(1, H, W)`` with a fraction of zeros inside ``coverage``.

    Raises:
        ValueError: ``coverage`` is no interval in [0, 1) of at least one pixel.
    """
    height, width = image_size
    low, high = coverage
    if not (0 <= low < high < 1 and (high - low) * height * width >= 1):
        raise ValueError(f"freeform_mask: coverage must be an interval in [0, 1) wider than one pixel, got {coverage}")
    rows = torch.arange(height, dtype=torch.float64)[:, None]
    columns = torch.arange(width, dtype=torch.float64)[None, :]
    size = math.sqrt(height * width)
    # In whole pixels, so that there is always a count between the target and the limit.
    fewest, most = math.ceil(low * height * width), math.floor(high * height * width)
    target = fewest + round((most - fewest) * _uniform(generator))
    missing = torch.zeros(height, width, dtype=torch.bool)
    brush = 1.0
    while int(missing.sum()) < target:
        row, column = height * _uniform(generator), width * _uniform(generator)
        heading = 2 * math.pi * _uniform(generator)
        radius = brush * size * (0.015 + 0.025 * _uniform(generator))
        stroke = torch.zeros_like(missing)
        for segment in range(2 + int(5 * _uniform(generator))):
            turn = heading + (math.pi if segment % 2 else 0) + (2 * _uniform(generator) - 1) * math.pi / 5
            length = brush * size * (0.08 + 0.22 * _uniform(generator))
            end = (
                min(max(row + length * math.sin(turn), 0.0), height - 1.0),
                min(max(column + length * math.cos(turn), 0.0), width - 1.0),
            )
            stroke |= _distance_to_segment(rows, columns, (row, column), end) <= max(radius, 0.5)
            row, column = end
        if int((missing | stroke).sum()) <= most:
            missing |= stroke
        else:
            brush *= 0.7  # the stroke was too long: go on with finer ones, down to single pixels
    return (~missing).to(torch.float32)[None]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64, device=generator.device))


def _distance_to_segment(rows: Tensor, columns: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance of every pixel centre to a line segment: ``(H, 1), (1, W) -> (H, W)``."""
    along = (end[0] - start[0], end[1] - start[1])
    length_squared = max(along[0] ** 2 + along[1] ** 2, 1e-12)
    position = ((rows - start[0]) * along[0] + (columns - start[1]) * along[1]) / length_squared
    position = position.clamp(0, 1)
    return torch.hypot(rows - start[0] - position * along[0], columns - start[1] - position * along[1])
