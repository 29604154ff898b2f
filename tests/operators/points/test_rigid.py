"""Rigid motions of points."""

from __future__ import annotations

import torch

from deft_ct.operators.points.rigid import rotation_onto


def test_points_that_are_not_finite_have_no_rotation_and_do_not_disturb_others() -> None:
    """A chain of a method that has diverged, beside a sane one."""
    sane = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sane = sane - sane.mean(1, keepdim=True)
    alone = rotation_onto(sane[:1], sane[1:])
    for value in (torch.nan, torch.inf):
        both = torch.stack([sane[0], torch.full_like(sane[0], value)])
        found = rotation_onto(both, sane[1:].expand(2, -1, -1))
        assert torch.equal(found[:1], alone) and bool(found[1].isnan().all())
