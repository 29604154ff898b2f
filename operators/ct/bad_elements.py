"""Detector elements that are dead, noisy or off by a constant: found in the data of a scan, and bridged.

Three statistics, each of one detector line ``(views, detectors)``. Lengths are in units of its scale, the upper end of
its line integrals.

- **Dead**: the element reads one constant in all views, and both neighbours read something else. Air that reads zero
  at the ends of a noise-free line is not dead; zeros from the end on in more than 4 elements are air.
- **Noisy**: the residual ``r`` of linear interpolation between the two neighbours varies over the views, by its median
  absolute deviation, more than 4 times as much as that of the 14 elements around, and by more than 5 % of the scale.
  Noise differs from view to view; a small dense thing passes by slowly. So the correlation of ``r`` between views that
  are neighbours by angle is at most 0.5. In a panel, the edge of an object that moves by an element or more from view
  to view shows in the rows beside, too; noise of one element does not. So ``r`` correlates by at most 0.5 with that of
  the elements near it in those rows, as far as theirs is at least a quarter as large.
- **Offset** (hot, or a wrong gain): the median of ``r`` over the views is beyond twice that variation and 4 % of the
  scale. At both neighbours it has the opposite sign and at least a fifth of the size (a constant gives a half). Rings
  of the object itself about the axis stay below, and the edge of a cylinder on the axis has one such neighbour.

No slice of the training and validation packs that was tried reaches the thresholds (simulated scans of 20 and 60
views).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LEAST_VIEWS, LEAST_DETECTORS = 8, 64
"""Smaller scans do not tell a fault from the object."""
MOST_REPAIRED = 0.05
"""Share of the elements that are repaired at most."""
LONGEST_RUN = 4
"""Elements side by side that are repaired at most."""

_CONSTANT = 1e-5
_DEAD = 0.05
_DEAD_AT_THE_END = 0.2
_NOISY, _NOISY_RATIO = 0.05, 4.0
_SLOW = 0.5
_SHARED, _SHARED_SIZE, _SHARED_REACH = 0.5, 0.25, 4
_OFFSET, _OFFSET_RATIO = 0.04, 2.0
_SHARE_BESIDE = 0.2
_FLOOR = 2e-3
_NEIGHBOURS = 8
_ROUNDS = 4
_MEDIAN_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class BadElements:
    """Which elements of each detector line are faulty.

    Attributes:
        dead: ``(lines, detectors)``, constant readings.
        noisy: ``(lines, detectors)``, far noisier than their neighbours.
        offset: ``(lines, detectors)``, off by a constant.
        data: ``(lines, views, detectors)`` with the faulty elements bridged; lines with too many faults as they were.
        repaired: ``(lines,)``, whether a line was repaired.
    """

    dead: Tensor
    noisy: Tensor
    offset: Tensor
    data: Tensor
    repaired: Tensor

    @property
    def any(self) -> Tensor:
        """``(lines, detectors)``, faulty for any reason."""
        return self.dead | self.noisy | self.offset


def bad_elements(lines: Tensor, order: Tensor | None = None, rows: int = 1) -> BadElements:
    """Find faulty elements and bridge them by linear interpolation between the nearest good elements of the view.

    Args:
        lines: ``(lines, views, detectors)`` line integrals.
        order: ``(views,)`` indices that sort the views by angle; None where they are sorted.
        rows: of the panel. So many lines after each other lie side by side; 1 for lines that have nothing in common.
    """
    count, views, detectors = lines.shape
    none = torch.zeros(count, detectors, dtype=torch.bool, device=lines.device)
    dead, noisy, offset = none.clone(), none.clone(), none.clone()
    data, repaired = lines, none[:, 0].clone()
    if views >= LEAST_VIEWS and detectors >= LEAST_DETECTORS and count:
        span = lines.amax(1) - lines.amin(1)
        scale = _scale(lines, span)
        constant = span <= _CONSTANT * scale[:, None]
        for i in constant.any(1).nonzero()[:, 0].tolist():
            if not bool(constant[i].all()):
                dead[i] = _dead(lines[i], constant[i], float(scale[i]))
        work = _bridged(lines, dead)
        for _ in range(_ROUNDS):
            sorted_views = work if order is None else work[:, order]
            loud, shifted = _outliers(sorted_views, scale)
            if rows > 1:
                loud &= ~_shared(sorted_views, loud, rows)
            if not bool((loud | shifted).any()):
                break
            noisy, offset = noisy | loud, offset | (shifted & ~loud)
            work = _bridged(lines, dead | noisy | offset)
        found = dead | noisy | offset
        repaired = found.any(1) & (found.double().mean(1) <= MOST_REPAIRED) & (_longest_run(found) <= LONGEST_RUN)
        data = torch.where(repaired[:, None, None], work, lines)
    return BadElements(dead, noisy, offset & ~noisy, data, repaired)


def _scale(lines: Tensor, span: Tensor) -> Tensor:
    """``(lines,)`` upper end of the readings; constant elements are left out, and a few loud ones do not matter."""
    high = lines.abs().kthvalue(max(1, round(0.9 * lines.shape[1])), 1).values
    varying = span > 0
    rank = (0.98 * varying.sum(1)).long().clamp_min(1) - 1 + (~varying).sum(1)
    ordered = high.masked_fill(~varying, -1.0).sort(1).values
    return ordered.gather(1, rank.clamp_max(ordered.shape[1] - 1)[:, None])[:, 0].clamp_min(1e-12)


def _dead(line: Tensor, constant: Tensor, scale: float) -> Tensor:
    """``(detectors,)``, which constant elements differ from the varying ones beside them."""
    dead = torch.zeros_like(constant)
    detectors = len(constant)
    varying = (~constant).nonzero()[:, 0]
    for j in constant.nonzero()[:, 0].tolist():
        place = int(torch.searchsorted(varying, j))
        sides = [int(varying[k]) for k in (place - 1, place) if 0 <= k < len(varying)]
        reading = float(line[0, j])
        distance = min(float((line[:, k] - reading).square().mean().sqrt()) for k in sides)
        air = len(sides) == 1 and abs(reading) <= _DEAD * scale  # at the end of the line, where air reads zero
        if air and (sides[0] if j < sides[0] else detectors - 1 - sides[0]) > LONGEST_RUN:
            continue  # more than a fault
        if air:
            distance = float(line[:, sides[0]].abs().median()) if 0 < j < detectors - 1 or len(varying) > 1 else 0.0
            dead[j] = distance > _DEAD_AT_THE_END * scale
        else:
            dead[j] = distance > _DEAD * scale
    return dead


def _outliers(lines: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """``(lines, detectors)`` each: elements that are noisier than those around, and elements with an offset.

    The views are sorted by angle.
    """
    residual = lines[..., 1:-1] - 0.5 * (lines[..., :-2] + lines[..., 2:])
    middle = residual.median(1).values
    spread = _MEDIAN_TO_SIGMA * (residual - middle[:, None]).abs().median(1).values
    usual = _around(spread) + _FLOOR * scale[:, None]
    loud = (spread > _NOISY_RATIO * usual) & (spread > _NOISY * scale[:, None])
    # A noisy element is seen in the residuals of both neighbours, at half its size.
    loud &= spread > 0.75 * functional.max_pool1d(spread[:, None], 5, 1, 2)[:, 0]
    loud &= _correlation(residual - middle[:, None], spread) <= _SLOW
    size = middle.abs()
    shifted = (size > _OFFSET_RATIO * usual) & (size > _OFFSET * scale[:, None])
    for side in (-1, 1):
        beside = middle.roll(side, 1)
        shifted &= (beside * middle < 0) & (size > 1.4 * beside.abs()) & (beside.abs() > _SHARE_BESIDE * size)
    return functional.pad(loud, (1, 1)), functional.pad(shifted, (1, 1))


def _shared(lines: Tensor, loud: Tensor, rows: int) -> Tensor:
    """``(lines, detectors)``, which loud elements vary as something in the rows beside them does.

    Args:
        lines: ``(lines, views, detectors)``.
        loud: ``(lines, detectors)``.
        rows: so many lines after each other are one panel.
    """
    residual = functional.pad(lines[..., 1:-1] - 0.5 * (lines[..., :-2] + lines[..., 2:]), (1, 1))
    residual = residual - residual.median(1).values[:, None]
    reach = torch.arange(-_SHARED_REACH, _SHARED_REACH + 1, device=lines.device)
    line, element = loud.nonzero(as_tuple=True)
    near = (element[:, None] + reach).clamp(0, lines.shape[-1] - 1)
    own = residual[line, :, element]
    same = torch.zeros_like(line, dtype=torch.bool)
    for step in (-1, 1):
        inside = (line % rows + step >= 0) & (line % rows + step < rows)
        others = residual[(line + step * inside)[:, None], :, near]
        size, others_size = own.norm(dim=-1)[:, None], others.norm(dim=-1)
        alike = (others @ own[..., None])[..., 0].abs() > _SHARED * size * others_size
        same |= inside & (alike & (others_size >= _SHARED_SIZE * size)).any(1)
    found = torch.zeros_like(loud)
    found[line, element] = same
    return found


def _correlation(residual: Tensor, spread: Tensor) -> Tensor:
    """``(lines, detectors)`` correlation between neighbouring views; single large values count no more than 3 sigma."""
    most = 3 * spread[:, None]
    limited = residual.maximum(-most).minimum(most)
    energy = limited.square().sum(1)
    return (limited[:, 1:] * limited[:, :-1]).sum(1) / energy.clamp_min(torch.finfo(energy.dtype).tiny)


def _around(values: Tensor) -> Tensor:
    """Median of the elements around each, without itself and its neighbours, ``(lines, detectors)``."""
    width = min(_NEIGHBOURS, values.shape[1] - 1)
    windows = functional.pad(values[:, None], (width, width), mode="replicate")[:, 0].unfold(-1, 2 * width + 1, 1)
    kept = [k for k in range(2 * width + 1) if abs(k - width) > 1]
    return windows[..., kept].median(-1).values


def _bridged(lines: Tensor, bad: Tensor) -> Tensor:
    """``lines`` with the bad elements interpolated linearly between the nearest good ones; copied at the ends."""
    out = lines
    index = torch.arange(lines.shape[-1], device=lines.device)
    for i in bad.any(1).nonzero()[:, 0].tolist():
        good = index[~bad[i]]
        if len(good) == 0:
            continue
        out = lines.clone() if out is lines else out
        for j in index[bad[i]].tolist():
            place = int(torch.searchsorted(good, j))
            low, high = int(good[max(0, place - 1)]), int(good[min(place, len(good) - 1)])
            part = 0.0 if high == low else (j - low) / (high - low)
            out[i, :, j] = lines[i, :, low] * (1 - part) + lines[i, :, high] * part
    return out


def _longest_run(bad: Tensor) -> Tensor:
    """``(lines,)`` most bad elements side by side, up to one more than :data:`LONGEST_RUN`."""
    windows = functional.pad(bad, (LONGEST_RUN, 0)).unfold(-1, LONGEST_RUN + 1, 1)
    full = windows.all(-1).any(-1)
    return torch.where(full, LONGEST_RUN + 1, LONGEST_RUN)
