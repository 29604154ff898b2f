"""The geometry of helical scans, against lines computed ray by ray."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.helix_orientation import row_order_evidence
from deft_ct.operators.ct.helix_rebinning import Beam, ParallelBeams, cubic, rebin_slices


def helix(*, views: int = 64, turns: float = 2.0, feed: float = 12.0, spot: tuple[float, ...] = (), **more: Any):
    """A scan of 4 x 9 elements; ``spot`` shifts the source by (radians, mm, mm) to both sides in turn."""
    angles = 0.3 + np.arange(views) * 2 * math.pi * turns / views
    sign = np.where(np.arange(views) % 2, -1.0, 1.0)
    values: dict[str, Any] = {
        "angles": angles, "z_mm": feed * angles / (2 * math.pi), "radius_mm": np.full(views, 500.0),
        "source_shifts": sign[:, None] * np.array(spot or (0.0, 0.0, 0.0)), "source_to_detector_mm": 900.0,
        "detectors": (4, 9), "detector_mm": (6.0, 30.0), "central": (1.5, 4.25),
    }  # fmt: skip
    return HelicalScan(**(values | more))


def test_the_source_and_the_detector_lie_where_a_fan_has_them() -> None:
    scan = helix()
    b, gamma = scan.angles[5], scan.fan_angles
    np.testing.assert_allclose(scan.sources()[5], [500 * math.sin(b), -500 * math.cos(b), scan.z_mm[5]])
    ray = scan.columns()[5] - scan.sources()[5]
    np.testing.assert_allclose(np.hypot(ray[:, 0], ray[:, 1]), 900.0)
    np.testing.assert_allclose(np.arctan2(-ray[:, 0], ray[:, 1]), np.mod(b - gamma + math.pi, 2 * math.pi) - math.pi)
    np.testing.assert_allclose(ray[:, 2], scan.heights[0])
    assert scan.feed_mm == pytest.approx(12.0) and scan.views_per_turn == pytest.approx(32.0)
    assert scan.collimation_mm == pytest.approx(24.0 * 500 / 900)


@pytest.mark.parametrize("spot", [(), (0.01, 0.5, 0.0), (0.02, -1.0, 3.0)])
def test_the_spot_knows_the_parallel_view_of_each_ray(spot: tuple[float, ...]) -> None:
    scan = helix(spot=spot)
    count = scan.states()
    assert count == (2 if spot else 1)
    for view in (4, 7):
        state = view % count
        found = scan.spot(state, count)
        source, element = scan.sources()[view], scan.columns()[view]
        ray = element - source
        length = np.hypot(ray[:, 0], ray[:, 1])
        direction = ray[:, :2] / length[:, None]
        theta = scan.angles[view] + found.turn
        np.testing.assert_allclose(np.stack([-np.sin(theta), np.cos(theta)], -1), direction, atol=1e-12)
        across = np.stack([np.cos(theta), np.sin(theta)], -1)
        np.testing.assert_allclose(across @ source[:2], found.lateral, atol=1e-9)
        np.testing.assert_allclose((direction * source[:2]).sum(-1), found.start, atol=1e-9)
        np.testing.assert_allclose(length, found.length)
        assert found.axial == pytest.approx(source[2] - scan.z_mm[view])


def test_a_point_of_a_ray_is_seen_in_the_row_of_the_ray() -> None:
    """Also where the source stands above the detector: halfway along each ray, and near its end."""
    scan = helix(spot=(0.02, 4.0, 3.0))
    beams, found, view = ParallelBeams(torch.zeros(scan.data_shape, dtype=torch.float64), scan), scan.spot(1, 2), 7
    start, length = torch.from_numpy(found.start), torch.from_numpy(found.length)
    center = torch.full((9,), float(scan.z_mm[view]), dtype=torch.float64)
    beam = Beam(0.0, torch.zeros(9, 4, dtype=torch.float64), center, start, length, found.axial)
    source, element = scan.sources()[view], scan.columns()[view]
    for row in range(4):
        for share in (0.5, 0.9):
            z = source[2] + (element[:, 2] + row * 6.0 - source[2]) * share
            seen = beams.rows_at(beam, torch.from_numpy(z), start + share * length)
            torch.testing.assert_close(seen, torch.full((9,), float(row), dtype=torch.float64))


def test_the_cycle_of_the_focal_spot() -> None:
    angle = np.tile([1.0, 1.0, -1.0, -1.0], 16) * 0.004
    z = np.tile([1.0, -1.0, -1.0, 1.0], 16)
    assert helix(source_shifts=np.stack([angle, z, 0 * z], -1)).states() == 4
    assert helix(source_shifts=np.full((64, 3), 0.01)).states() == 1  # a constant shift
    with pytest.raises(ValueError, match="cycle of 1, 2 or 4 views"):
        helix(source_shifts=np.random.default_rng(0).normal(size=(64, 3))).states()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"angles": np.zeros(64)}, "rise or fall"),
        ({"z_mm": np.zeros(3)}, r"z_mm must be finite, of shape \(64,\)"),
        ({"z_mm": np.full(64, np.nan)}, "z_mm must be finite"),
        ({"radius_mm": np.full(64, 950.0)}, "between the source and the detector"),
        ({"detector_mm": (1.0, 400.0)}, "half a turn or more"),
        ({"detectors": (0, 9)}, "detectors.*must be >= 1"),
    ],
)
def test_scans_that_are_none(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        helix(**change)


def test_less_than_half_a_turn_of_parallel_views_is_refused() -> None:
    scan = helix(views=40, turns=0.5)
    with pytest.raises(ValueError, match="at least half a turn and the angle of the fan"):
        ParallelBeams(torch.zeros(scan.data_shape), scan)
    with pytest.raises(ValueError, match="data of shape"):
        ParallelBeams(torch.zeros(3, 4, 9), scan)


def test_cubic_convolution_keeps_quadratics_and_repeats_the_ends() -> None:
    samples = 3 + 2 * np.arange(8.0) - 0.5 * np.arange(8.0) ** 2
    at = np.array([1.0, 2.25, 4.5, 5.75])
    taps, weights = cubic(at, 8)
    np.testing.assert_allclose((samples[taps] * weights).sum(0), 3 + 2 * at - 0.5 * at**2)
    taps, _ = cubic(np.array([0.0, 7.0]), 8)
    assert taps.min() == 0 and taps.max() == 7


def test_the_grid_and_its_slices() -> None:
    grid = VolumeGrid(image_shape=(5, 3, 4), voxel_zyx=(2.0, 1.0, 1.0), z_mm=10.0)
    np.testing.assert_allclose(grid.z, [6, 8, 10, 12, 14])
    np.testing.assert_allclose(grid.x, [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(grid.y, [1, 0, -1])
    np.testing.assert_allclose(grid.slices(1, 3).z, [8, 10])
    np.testing.assert_allclose(grid.slices(-2, 5).z, [2, 4, 6, 8, 10, 12, 14])


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("feed", [12.0, -12.0])
def test_a_slab_that_is_constant_in_its_plane_comes_out_at_its_place(feed: float, falling: bool) -> None:
    """Data that depend on the place along z alone, where the ray passes the axis: a slice is what it should be."""
    scan = helix(views=128, feed=feed, detectors=(16, 9), detector_mm=(1.5, 30.0), central=(7.5, 4.25))
    if falling:
        scan = replace(scan, angles=-scan.angles)
    grid = VolumeGrid(image_shape=(3, 4, 4), voxel_zyx=(3.0, 1.0, 1.0), z_mm=float(scan.z_mm.mean()))
    heights = scan.heights * 500 / 900
    at_axis = scan.z_mm[:, None, None] + heights[None, :, None] * np.cos(scan.fan_angles)
    slope = scan.heights / 900.0
    data = torch.from_numpy(at_axis * np.hypot(1.0, slope)[:, None])
    y, geometry, missing = rebin_slices(data, scan, grid)
    assert y.shape == (3, 1, 32, geometry.detectors) and float(missing.max()) == 0
    inner = slice(2, -2)
    expected = torch.from_numpy(grid.z)[:, None, None].expand(-1, 32, geometry.detectors)
    torch.testing.assert_close(y[:, 0, :, inner], expected[..., inner], atol=0.05, rtol=0)


def test_slices_without_rays_are_told() -> None:
    scan = helix(feed=60.0)
    grid = VolumeGrid(image_shape=(1, 4, 4), voxel_zyx=(1.0, 1.0, 1.0), z_mm=float(scan.z_mm.mean()))
    _, _, missing = rebin_slices(torch.ones(scan.data_shape), scan, grid)
    assert 0.1 < float(missing) < 1
    _, _, missing = rebin_slices(torch.ones(scan.data_shape), scan, replace(grid, z_mm=1e4))
    assert float(missing) == pytest.approx(1.0)  # every line of a slice far away


def test_the_complete_range_is_complete_and_not_far_from_the_longest() -> None:
    scan = helix(views=192, turns=6.0)
    low, high = scan.complete_range(60.0)
    zs = np.linspace(scan.z_mm.min(), scan.z_mm.max(), 49)
    grid = VolumeGrid(image_shape=(49, 4, 4), voxel_zyx=(float(zs[1] - zs[0]), 1.0, 1.0), z_mm=float(zs.mean()))
    _, _, missing = rebin_slices(torch.ones(scan.data_shape), scan, grid)
    complete = zs[missing.numpy() == 0]
    inside = (zs >= low) & (zs <= high)
    assert inside.sum() > 20 and (missing.numpy()[inside] == 0).all()
    assert low - complete[0] < 6.0 and complete[-1] - high < 6.0


def test_the_order_of_the_rows_shows_in_the_data() -> None:
    scan = helix(views=256, turns=3.0)
    at_axis = scan.z_mm[:, None, None] + (scan.heights * 500 / 900)[None, :, None] * np.cos(scan.fan_angles)
    data = torch.from_numpy(np.sin(at_axis / 6))
    right = row_order_evidence(data, scan)
    assert right.clear and not right.speaks_for_reversed and right.as_given < 0.3 * right.reversed
    assert row_order_evidence(data.flip(1), scan).speaks_for_reversed
    flat = row_order_evidence(torch.ones_like(data), scan)
    assert not flat.speaks_for_reversed


def test_slices_are_those_of_a_parallel_scan_of_half_a_turn() -> None:
    scan = helix()
    grid = VolumeGrid(image_shape=(2, 5, 6), voxel_zyx=(1.0, 2.0, 3.0), z_mm=float(scan.z_mm.mean()))
    y, geometry, _ = rebin_slices(torch.ones(scan.data_shape), scan, grid)
    assert y.shape == (2, 1, *geometry.sinogram_shape) and geometry.image_shape == (5, 6)
    np.testing.assert_allclose(geometry.angle_array, np.arange(16) * math.pi / 16)
    assert geometry.pixel_rc == (2.0, 3.0) and geometry.detector_mm == pytest.approx(30.0 * 500 / 900)


def test_the_reach_is_that_of_the_nearer_end_of_the_detector() -> None:
    """Columns 0 to 8 of 30 mm about 4.25, on an arc of 900 mm: the last one is 3.75 columns from the middle."""
    assert helix().reach_mm == pytest.approx(500 * math.sin(3.75 * 30 / 900))
    with pytest.raises(ValueError, match="two views or more, got 1"):
        helix(views=1)


@pytest.mark.parametrize("half_turn", [7, 16])
def test_every_other_half_turn_runs_backwards(half_turn: int) -> None:
    beams = SimpleNamespace(half_turn=half_turn)
    for n in range(-half_turn, 4 * half_turn):
        beam = SimpleNamespace(angle=n * math.pi / half_turn)
        assert ParallelBeams.is_turned(beams, beam) == (n // half_turn in (-1, 1, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("feed", [12.0, -12.0])
def test_the_complete_range_in_closed_form(feed: float) -> None:
    """Half a turn and the fan from either end, less half the detector as it is seen at the far side of the field."""
    scan = helix(feed=feed)
    fan = np.ptp(scan.fan_angles)
    radius = 0.5 * scan.reach_mm
    half = 0.5 * scan.collimation_mm * (1 - radius / scan.radius_mm.mean())
    margin = 12.0 * (math.pi + fan) / (2 * math.pi) - half
    assert scan.complete_range(radius) == pytest.approx((scan.z_mm.min() + margin, scan.z_mm.max() - margin))
    assert scan.complete_range(10 * scan.radius_mm.mean())[0] == pytest.approx(scan.z_mm.min() + margin + half)


def test_one_sample_is_repeated_everywhere() -> None:
    taps, weights = cubic(np.array([-1.0, 0.0, 0.4]), 1)
    assert taps.tolist() == [[0] * 3] * 4
    np.testing.assert_allclose(weights.sum(0), 1)


def test_the_axes_of_a_grid_of_three_different_sides() -> None:
    grid = VolumeGrid(image_shape=(2, 3, 4), voxel_zyx=(5.0, 2.0, 3.0), z_mm=1.0)
    assert grid.z.tolist() == [-1.5, 3.5] and grid.x.tolist() == [-4.5, -1.5, 1.5, 4.5]
    assert grid.y.tolist() == [2.0, 0.0, -2.0]
