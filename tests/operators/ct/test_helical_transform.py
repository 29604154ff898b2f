"""Projection and back-projection along the true rays of a helix."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.datasets.ellipsoids import Ellipsoid, EllipsoidPhantom
from deft_ct.operators import PoissonNoise, memory
from deft_ct.operators.ct import backends
from deft_ct.operators.ct.helical_fbp import helical_fbp
from deft_ct.operators.ct.helical_transform import HelicalTransform, covering_grid, views_through
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.rays import Rays
from deft_ct.operators.image_values import ATTENUATION

BALL = EllipsoidPhantom(
    (Ellipsoid(center_mm=(8.0, -5.0, 3.0), semi_axes_mm=(30.0, 24.0, 18.0), value=0.02, angle=0.4),)
)


def scan_of(views: int = 90, **more: Any) -> HelicalScan:
    """Three turns of 6 x 24 elements with a focal spot that moves both ways."""
    angles = np.arange(views) * 2 * math.pi / 30
    sign = np.where(np.arange(views) % 2, -1.0, 1.0)
    values: dict[str, Any] = {
        "angles": angles, "z_mm": 20.0 * (angles - angles.mean()) / (2 * math.pi), "radius_mm": np.full(views, 300.0),
        "source_shifts": sign[:, None] * np.array([0.01, 1.5, 2.0]), "source_to_detector_mm": 520.0,
        "detectors": (6, 24), "detector_mm": (6.0, 8.0), "central": (2.5, 11.75),
    }  # fmt: skip
    return HelicalScan(**(values | more))


def exact(scan: HelicalScan) -> torch.Tensor:
    """Line integrals of the ball, ``(views, rows, columns)``."""
    step = np.array([0.0, 0.0, scan.detector_mm[0]])
    element = scan.columns()[:, None] + np.arange(scan.detectors[0])[:, None, None] * step
    ray = element - scan.sources()[:, None, None]
    direction = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    origin = np.broadcast_to(scan.sources()[:, None, None], direction.shape)
    return BALL.line_integrals(Rays(origin=origin, direction=direction))


GRID = VolumeGrid(image_shape=(30, 40, 42), voxel_zyx=(2.0, 2.0, 2.0), z_mm=0.0)


def test_projections_of_voxels_are_those_of_the_ball() -> None:
    scan = scan_of()
    operator = HelicalTransform(scan, GRID)
    y = operator(BALL.volume(GRID.image_shape, GRID.voxel_zyx)[None])[0]
    truth = exact(scan)
    assert float((y - truth).square().mean().sqrt()) < 0.02 * float(truth.max())
    moved = VolumeGrid(image_shape=(30, 40, 42), voxel_zyx=(2.0, 2.0, 2.0), z_mm=4.0)
    wrong = HelicalTransform(scan, moved)(BALL.volume(GRID.image_shape, GRID.voxel_zyx)[None])[0]
    assert float((wrong - truth).square().mean().sqrt()) > 0.05 * float(truth.max())  # z_mm is the place of the grid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_adjoint_is_exact(dtype: torch.dtype) -> None:
    operator = HelicalTransform(scan_of(20), VolumeGrid(image_shape=(7, 9, 8), voxel_zyx=(3.0, 5.0, 5.0), z_mm=1.0))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *operator.domain_shape, generator=generator, dtype=dtype)
    y = torch.randn(2, *operator.range_shape, generator=generator, dtype=dtype)
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y)).sum()
    torch.testing.assert_close(left, right, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-4)
    assert float(left.abs()) > 1


def test_back_projection_is_the_same_with_and_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = scan_of()
    data, grid = exact(scan).float(), VolumeGrid(image_shape=(6, 20, 22), voxel_zyx=(3.0, 4.0, 4.0), z_mm=0.5)
    ticks: list[int] = []
    compiled = helical_fbp(data, scan, grid, tick=lambda: ticks.append(1))
    assert len(ticks) == round(scan.views_per_turn / 2)
    monkeypatch.setitem(sys.modules, f"{backends.__name__}._helix_kernels", None)
    monkeypatch.delattr(backends, "_helix_kernels")  # an import from the package would find it there
    plain = helical_fbp(data, scan, grid)
    torch.testing.assert_close(compiled.volume, plain.volume, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(compiled.missing, plain.missing)
    assert float(compiled.volume.max()) > 0.015


def test_the_pseudo_inverse_finds_the_ball() -> None:
    scan = scan_of(180, angles=np.arange(180) * 2 * math.pi / 60)
    z = 20.0 * (scan.angles - scan.angles.mean()) / (2 * math.pi)
    scan = scan_of(180, angles=scan.angles, z_mm=z)
    grid = VolumeGrid(image_shape=(5, 24, 24), voxel_zyx=(3.0, 4.0, 4.0), z_mm=0.0)
    operator = HelicalTransform(scan, grid)
    found = operator.pseudo_inverse(exact(scan).float()[None, None])[0, 0]
    truth = BALL.volume(grid.image_shape, grid.voxel_zyx)
    core = Ellipsoid(center_mm=(8.0, -5.0, 3.0), semi_axes_mm=(18.0, 14.0, 10.0), value=1.0, angle=0.4)
    inside = EllipsoidPhantom((core,)).volume(grid.image_shape, grid.voxel_zyx) > 0.99
    assert int(inside.sum()) > 100
    assert abs(float(found[inside].mean()) / 0.02 - 1) < 0.01
    assert float((found - truth).square().mean().sqrt()) < 0.0015


def test_the_covering_grid_holds_every_ray() -> None:
    scan = scan_of()
    wanted = VolumeGrid(image_shape=(4, 20, 20), voxel_zyx=(2.0, 4.0, 4.0), z_mm=3.0)
    used = views_through(scan, wanted)
    assert 0 <= used.start < used.stop <= 90
    part = scan.part(used)
    grid, below = covering_grid(part, wanted)
    np.testing.assert_allclose(grid.z[below : below + 4], wanted.z)
    # A volume of ones that is longer than the covering one projects to the same data: no ray leaves through an end.
    longer = grid.slices(-3, grid.image_shape[0] + 3)
    y, z = (HelicalTransform(part, g)(torch.ones(1, *g.image_shape, dtype=torch.float64)) for g in (grid, longer))
    torch.testing.assert_close(y, z)
    far = VolumeGrid(image_shape=(4, 20, 20), voxel_zyx=(2.0, 4.0, 4.0), z_mm=500.0)
    with pytest.raises(ValueError, match="no view sees the slices from 497 to 503 mm"):
        views_through(scan, far)


def test_views_that_are_left_out_see_nothing_of_the_slices() -> None:
    scan = scan_of()
    wanted = VolumeGrid(image_shape=(3, 20, 20), voxel_zyx=(2.0, 4.0, 4.0), z_mm=-18.0)
    used = views_through(scan, wanted)
    assert used.stop - used.start < 90
    y = HelicalTransform(scan, wanted)(torch.ones(1, *wanted.image_shape, dtype=torch.float64))[0]
    assert float(y[: used.start].abs().sum() + y[used.stop :].abs().sum()) == 0
    assert float(y[used].sum()) > 0


def test_a_source_within_the_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="the source passes through the volume"):
        HelicalTransform(scan_of(), VolumeGrid(image_shape=(2, 200, 200), voxel_zyx=(1.0, 4.0, 4.0)))


def test_a_scan_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """90 views of 24 columns: source, element and two steps in double precision, a pointer pair a row; two volumes."""
    grid = VolumeGrid(image_shape=(3, 8, 8), voxel_zyx=(3.0, 5.0, 5.0), z_mm=0.0)
    needed = 90 * 24 * (4 * 3 * 8 + 8 * 6) + 16 * 3 * 8 * 8
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    HelicalTransform(scan_of(), grid)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"90 views of 6 x 24 detector elements needs at least .* fewer slices"):
        HelicalTransform(scan_of(), grid)


def test_the_record_is_plain() -> None:
    found = HelicalTransform(scan_of(), GRID).describe()
    assert found["operator"] == "HelicalTransform" and found["views"] == 90
    assert found["feed_mm"] == pytest.approx(20.0) and found["detectors"] == [6, 24]


def test_what_a_helix_says_of_its_images_and_noise() -> None:
    scan = scan_of(views=40)
    operator = HelicalTransform(scan, VolumeGrid(image_shape=(4, 6, 8), voxel_zyx=(3.0, 2.5, 2.5), z_mm=1.0))
    assert operator.grid_spacing == (3.0, 2.5, 2.5) and operator.image_values == ATTENUATION
    y = torch.rand(2, *operator.range_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator.nominal_weights(y), PoissonNoise(photons=1e6).weights(y))
    for photons in (1e4, 1e5):
        weights = photons * torch.exp(-y)
        hint = operator.regularisation_hint(y, weights)
        assert hint.least_iterations == 40
        torch.testing.assert_close(hint.strength, torch.full((2,), (photons / 1e5) ** 0.4))
    assert operator.regularisation_hint(y, None).strength.tolist() == pytest.approx([10**0.4] * 2)


@pytest.mark.parametrize("z_mm", [-30.0, 3.0, 31.0])
def test_the_covering_grid_ends_where_the_rays_end(z_mm: float) -> None:
    """A slice less at either end would lose rays, which are looked for one by one over the pixels."""
    scan, wanted = scan_of(), VolumeGrid(image_shape=(4, 20, 20), voxel_zyx=(2.0, 4.0, 4.0), z_mm=z_mm)
    grid, below = covering_grid(scan, wanted)
    np.testing.assert_allclose(grid.z[below : below + 4], wanted.z)
    assert grid.image_shape[1:] == (20, 20)
    farthest = (300.0 + 2.0 + wanted.radius_mm) / (520.0 - 2.0 - 300.0 * 0.01)
    axial = scan.source_shifts[:, 1]
    low = (scan.z_mm + axial + np.minimum(-2.5 * 6.0 - axial, 0) * farthest).min()
    high = (scan.z_mm + axial + np.maximum(2.5 * 6.0 - axial, 0) * farthest).max()
    assert grid.z[0] <= low < grid.z[0] + 2.0 and grid.z[-1] - 2.0 < high <= grid.z[-1]
    small = scan.part(slice(44, 46))
    inner, none = covering_grid(small, VolumeGrid(image_shape=(400, 20, 20), voxel_zyx=(2.0, 4.0, 4.0), z_mm=0.0))
    assert none == 0 and inner.image_shape == (400, 20, 20)
