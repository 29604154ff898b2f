"""Do the rows of a helical scan run the way they are said to? Lines that are seen from two turns or ends tell."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.helix import HelicalScan
from deft_ct.operators.ct.helix_rebinning import ParallelBeams

_DIRECTIONS = 12
_SLICES = 9
CLEAR = 1.5
"""Ratio of the disagreements from which on the data speak for one order."""


class RowOrderEvidence(NamedTuple):
    """How well rays agree that measured the same lines of a slice, as standard deviations of line integrals.

    Attributes:
        as_given: with the rows as they are.
        reversed: with the rows turned round.
    """

    as_given: float
    reversed: float

    @property
    def speaks_for_reversed(self) -> bool:
        """Whether the data clearly agree better with the rows turned round."""
        return self.as_given > CLEAR * self.reversed

    @property
    def clear(self) -> bool:
        """Whether the data tell the order at all; an object that is the same in all slices does not."""
        return max(self) > CLEAR * min(self)


def row_order_evidence(data: Tensor, scan: HelicalScan) -> RowOrderEvidence:
    """Compare the two orders of the detector rows.

    A row that is taken for its mirror image measures other slices than the scan says: then rays from neighbouring
    turns, and from opposite ends, differ on the same line.

    Args:
        data: ``(views, rows, columns)`` line integrals.
        scan: how they were taken.
    """
    middle = scan.detectors[0] - 1 - scan.central[0]
    turned = replace(scan, central=(middle, scan.central[1]))
    return RowOrderEvidence(_disagreement(data, scan), _disagreement(data.flip(1), turned))


def _disagreement(data: Tensor, scan: HelicalScan) -> float:
    """Weighted standard deviation of the rays of one line, over some directions and slices."""
    beams = ParallelBeams(data, scan)
    quarter = 0.25 * float(np.ptp(scan.z_mm))
    middle = 0.5 * float(scan.z_mm.min() + scan.z_mm.max())
    z = torch.linspace(middle - quarter, middle + quarter, _SLICES).to(data)[:, None]
    squares = count = 0.0
    for number in np.unique(np.linspace(0, beams.half_turn - 1, _DIRECTIONS).astype(int)).tolist():
        values, weights = [], []
        for beam in beams.of_direction(number):
            value, row = beams.slice_values(beam, z)
            backwards = beams.is_turned(beam)
            values.append(value.flip(-1) if backwards else value)
            weights.append(beams.row_weight(row.flip(-1) if backwards else row))
        value, weight = torch.stack(values).double(), torch.stack(weights).double()
        total = weight.sum(0).clamp_min(1e-12)
        mean = (weight * value).sum(0) / total
        squares += float((weight * (value - mean).square()).sum())
        count += float(weight.sum())
    return (squares / max(count, 1e-12)) ** 0.5
