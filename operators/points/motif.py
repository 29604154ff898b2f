"""Motif: some residues of a chain, seen without their pose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.points.rigid import rotation_onto
from deft_ct.operators.points.selection import Selection

_FLAT = 1e-6
"""Second largest extent of a body over its largest, below which its points lie on a line."""


class Motif(Operator):
    """``y = (x_m - c) R + c_t``: the motif's residues of a chain, moved as a rigid body onto a template.

    ``R`` is the rotation, never a reflection, that brings the residues ``x_m`` about their centre ``c`` closest to the
    template about its centre ``c_t`` (Kabsch 1976; Horn 1987 for the solution). So ``y`` does not depend on where the
    chain is and how it is turned, but a mirrored motif does not fit. The data of a chain that carries the motif are the
    template. A motif of several bodies has a rotation for each. Computed in double precision; the derivative includes
    that of the rotation. It is undefined where two rotations fit equally well.

    Args:
        length: residues of the chain, ``N``.
        residues: the ``M`` residues of the motif, counted from 0, each at most once.
        template: ``(M, 3)`` their coordinates, in any pose and in the unit of the chain.
        bodies: how many of the residues, in their order, form each rigid body; one body if left out.

    Raises:
        TypeError: a residue is not an integer.
        ValueError: residues out of range or named twice, a template of another shape or with values that are not
            finite, bodies that do not add up, or a body of less than three residues or of points on one line.
    """

    has_equivalents = True

    def __init__(
        self, length: int, residues: Sequence[int] | Tensor, template: Tensor, *, bodies: Sequence[int] | None = None
    ) -> None:
        chosen = Selection(length, residues)
        count = len(chosen.indices)
        if tuple(template.shape) != (count, 3) or not bool(torch.isfinite(template).all()):
            raise ValueError(
                f"Motif: the template must be finite, of shape ({count}, 3) for {count} residues, got shape "
                f"{tuple(template.shape)}"
            )
        sizes = [count] if bodies is None else [int(size) for size in bodies]
        if sum(sizes) != count or min(sizes) < 3:
            raise ValueError(f"Motif: bodies must have three residues or more each and {count} together, got {sizes}")
        super().__init__((length, 3), (count, 3))
        self.bodies = tuple(sizes)
        self.register_buffer("indices", chosen.indices)
        self.register_buffer("template", template.detach().to(torch.float64).clone())
        self.indices: Tensor
        self.template: Tensor
        for part in self._parts():
            points = self.template[part] - self.template[part].mean(0)
            extent = torch.linalg.svdvals(points)
            if float(extent[1]) <= _FLAT * float(extent[0]):
                raise ValueError("Motif: the points of a body lie on one line, so its rotation is not determined")

    def _parts(self) -> list[slice]:
        ends = list(accumulate(self.bodies))
        return [slice(end - size, end) for end, size in zip(ends, self.bodies, strict=True)]

    def _forward_kernel(self, x: Tensor) -> Tensor:
        found = x.double().index_select(-2, self.indices)
        placed = [_onto(found[:, part], self.template[part].expand_as(found[:, part])) for part in self._parts()]
        return torch.cat(placed, -2).to(x.dtype)

    @property
    def feature_images(self) -> tuple[FeatureImage, ...]:
        """The mask: 1 in all three coordinates of the motif's residues."""
        return (FeatureImage(name="mask", dimensionless=True, absent=1.0),)

    def data_images(self, y: Tensor) -> Tensor:
        """``(B, 1, N, 3)``, the same for all data."""
        mask = y.new_zeros(self.domain_shape).index_fill(0, self.indices, 1.0)
        return mask.expand(len(y), 1, *self.domain_shape)

    def project(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The nearest chain that carries the motif: its residues give way to the motif, moved onto them.

        Nearest by the sum of squared distances. Residues outside of the motif stay.

        Args:
            x: ``(..., N, 3)`` chains.
            y: ``(..., M, 3)`` the motif in any pose; the template if left out.

        Returns:
            ``(..., N, 3)``, whose data are ``y``, moved onto the template.

        Raises:
            ValueError: a wrong shape.
        """
        if x.shape[-2:] != self.domain_shape or (y is not None and y.shape[-2:] != self.range_shape):
            raise ValueError(
                f"Motif: expected chains (..., {self.domain_shape[0]}, 3) and motifs (..., {self.range_shape[0]}, 3), "
                f"got {tuple(x.shape)}" + ("" if y is None else f" and {tuple(y.shape)}")
            )
        found = x.double().index_select(-2, self.indices)
        motif = (self.template if y is None else y.double()).expand_as(found)
        placed = torch.cat([_onto(motif[..., part, :], found[..., part, :]) for part in self._parts()], -2)
        return x.index_copy(-2, self.indices, placed.to(x.dtype))

    def deviation(self, x: Tensor) -> Tensor:
        """Motif RMSD of chains ``(..., N, 3)``, ``(...)``, after the superposition of each body."""
        difference = self(x).double() - self.template
        return difference.square().sum(-1).mean(-1).sqrt().to(x.dtype)

    def describe(self) -> dict[str, Any]:
        """Class, residues and bodies."""
        return {
            "operator": "Motif", "length": self.domain_shape[0], "residues": self.indices.tolist(),
            "bodies": list(self.bodies),
        }  # fmt: skip


def _onto(points: Tensor, target: Tensor) -> Tensor:
    """``points`` moved rigidly onto ``target``, both ``(..., M, 3)``."""
    center, goal = points.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    return (points - center) @ rotation_onto(points - center, target - goal) + goal
