"""Pixels that no ray meets: beside the detector in every view, and no others."""

import math

import numpy as np
import pytest
import torch

from deft_ct.operators import Inpainting
from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.unseen import unseen_beside_flat
from deft_ct.operators.ct.vector_geometry import VectorConeGeometry, VectorFanGeometry

WEDGE = ParallelGeometry(
    image_shape=(32, 32), pixel_mm=1.0, detectors=24, detector_mm=1.0,
    angles=tuple(np.linspace(0, math.radians(30), 8)),
)  # fmt: skip


def beside_the_detector(geometry: ParallelGeometry) -> np.ndarray:
    """By the definition: the centre of the pixel against the detector, view by view."""
    rows, columns = geometry.image_shape
    x, y = np.meshgrid(np.arange(columns) - (columns - 1) / 2, (rows - 1) / 2 - np.arange(rows))
    half = geometry.detectors * geometry.detector_mm / 2
    sees = [abs(x * math.cos(a) + y * math.sin(a)) <= half for a in geometry.angle_array]
    return ~np.any(sees, 0)


def test_a_wedge_with_a_narrow_detector_leaves_its_corners():
    unseen = RayTransform(WEDGE).unseen()
    assert unseen is not None and unseen.dtype == torch.bool and unseen.shape == (32, 32)
    clear = torch.from_numpy(beside_the_detector(WEDGE))
    assert bool((unseen & ~clear).sum() == 0), "a pixel that a view sees"
    assert int(unseen.sum()) >= 0.5 * int(clear.sum()) > 20
    assert float(RayTransform(WEDGE)(unseen.float()).abs().max()) == 0


def test_a_detector_that_covers_the_image_sees_every_pixel():
    assert RayTransform(WEDGE.replace(detectors=48)).unseen() is None


def test_a_gap_between_two_rays_is_seen():
    """Elements four pixels wide leave pixels that no line of the model meets, and a real beam does."""
    geometry = ParallelGeometry(
        image_shape=(32, 32), pixel_mm=1.0, detectors=12, detector_mm=4.0, angles=(0.0, math.pi / 2)
    )
    operator = RayTransform(geometry)
    assert bool((operator.adjoint(torch.ones(2, 12)) == 0).any())
    assert operator.unseen() is None


@pytest.mark.parametrize("detector", ["flat", "curved"])
def test_a_narrow_fan_leaves_the_sides(detector):
    geometry = FanGeometry(
        image_shape=(32, 32), pixel_mm=1.0, detectors=20, detector_mm=2.0, source_to_center_mm=100.0,
        source_to_detector_mm=200.0, angles=tuple(np.linspace(0, 0.3, 5)), detector=detector,
    )  # fmt: skip
    unseen = RayTransform(geometry).unseen()
    assert unseen is not None
    assert not bool(unseen[10:22, 10:22].any())
    assert float(RayTransform(geometry)(unseen.float()).abs().max()) == 0


CONE = ConeGeometry(
    image_shape=(20, 16, 16), pixel_mm=1.0, detectors=(6, 24), detector_mm=2.0, source_to_center_mm=60.0,
    source_to_detector_mm=90.0, views=12,
)  # fmt: skip


def beside_a_circular_cone(geometry: ConeGeometry, margin_mm: float) -> np.ndarray:
    """By similar triangles: heights at which no view has the middle of a voxel on its detector."""
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in geometry.image_shape), indexing="ij")
    half = geometry.detectors[0] * geometry.detector_vu[0] / 2 + margin_mm
    lowest = np.full(x.shape, np.inf)
    for angle in geometry.angle_array:
        depth = geometry.source_to_center_mm - x * math.sin(angle) - y * math.cos(angle)  # rows go down
        lowest = np.minimum(lowest, np.abs(z) * geometry.source_to_detector_mm / depth)
    return lowest > half


@pytest.mark.parametrize("geometry", [CONE, VectorConeGeometry.from_cone(CONE)])
def test_a_low_cone_leaves_the_ends_of_the_volume(geometry):
    unseen = RayTransform(geometry).unseen()
    assert unseen is not None and unseen.shape == CONE.image_shape
    assert not bool((unseen & ~torch.from_numpy(beside_a_circular_cone(CONE, 0.0))).any()), "a voxel that a view sees"
    clear = torch.from_numpy(beside_a_circular_cone(CONE, 2.0 * math.sqrt(3)))
    assert int(clear.sum()) > 100 and bool(unseen[clear].all())
    assert float(RayTransform(geometry)(unseen.float()).abs().max()) == 0


def test_a_high_cone_sees_every_voxel():
    assert RayTransform(CONE.replace(detectors=(40, 24))).unseen() is None


def test_a_fan_by_vectors_is_the_fan():
    fan = FanGeometry(
        image_shape=(32, 32), pixel_mm=1.0, detectors=20, detector_mm=2.0, source_to_center_mm=100.0,
        source_to_detector_mm=200.0, angles=tuple(np.linspace(0, 0.3, 5)),
    )  # fmt: skip
    ours, theirs = RayTransform(VectorFanGeometry.from_fan(fan)).unseen(), RayTransform(fan).unseen()
    assert ours is not None and theirs is not None
    assert int((ours ^ theirs).sum()) <= 0.05 * int(theirs.sum()), "the margins of the two differ a little"
    assert float(RayTransform(fan)(ours.float()).abs().max()) == 0


def test_combinations_pass_it_on_where_it_still_holds():
    operator, turned = RayTransform(WEDGE), RayTransform(WEDGE.replace(angles=(math.pi / 2, 1.8)))
    unseen, other = operator.unseen(), turned.unseen()
    assert unseen is not None and other is not None
    torch.testing.assert_close((2 * operator).unseen(), unseen)
    both = (operator | turned).unseen()
    expected = unseen & other
    assert (both is None) == (not bool(expected.any()))
    assert (operator | RayTransform(WEDGE.replace(detector_mm=2.0))).unseen() is None


def test_a_mask_of_inpainting_is_to_be_filled():
    assert Inpainting((1, 8, 8), torch.zeros(1, 8, 8)).unseen() is None


@pytest.mark.parametrize("pixel_mm", [(1.0, 3.0), (3.0, 1.0)])
@pytest.mark.parametrize("kind", ["parallel", "flat"])
def test_oblong_pixels_lie_where_their_sides_say(kind, pixel_mm):
    """No ray meets such a pixel, and a shadow of half its diagonal falls beside the detector in every view."""
    options = {"image_shape": (14, 12), "pixel_mm": pixel_mm, "detectors": 9, "detector_mm": 1.0, "angles": (0.1, 0.7)}
    if kind == "parallel":
        geometry, magnified = ParallelGeometry(**options), lambda depth: 1.0
    else:
        geometry = FanGeometry(**options, source_to_center_mm=80.0, source_to_detector_mm=120.0)
        magnified = lambda depth: 120.0 / (80.0 + depth)  # noqa: E731
    operator = RayTransform(geometry)
    x = (np.arange(12) - 5.5) * pixel_mm[1]
    y = (6.5 - np.arange(14))[:, None] * pixel_mm[0]
    seen = operator.adjoint(torch.ones(operator.range_shape)).numpy() > 0
    nearest = 80.0 - geometry.radius_mm
    half = 0.5 * math.hypot(*pixel_mm) * (1.0 if kind == "parallel" else 120.0 / nearest)
    for angle in geometry.angle_array:
        depth = -x * math.sin(angle) + y * math.cos(angle)
        along = (x * math.cos(angle) + y * math.sin(angle)) * magnified(depth)
        seen |= abs(along) <= 4.0 + 0.5 + half
    unseen = operator.unseen()
    assert unseen is not None and 10 < int(unseen.sum()) < unseen.numel()
    np.testing.assert_array_equal(unseen.numpy(), ~seen)


def test_two_scans_leave_what_neither_sees():
    operator = RayTransform(WEDGE)
    other = RayTransform(WEDGE.replace(angles=WEDGE.angle_array[::2]))  # it sees a little less
    mine, theirs = operator.unseen(), other.unseen()
    both = (operator | other).unseen()
    assert both is not None and int(both.sum()) == int((mine & theirs).sum()) > 0
    assert torch.equal(both, mine & theirs) and int(theirs.sum()) > int(mine.sum())


def beside_a_flat_detector(geometry: ConeGeometry | VectorConeGeometry | VectorFanGeometry) -> np.ndarray:
    """Where each point lies on the plane of the detector in each view, with the margin of a voxel to first order."""
    source, corner, *steps = geometry.poses()
    spacing = np.broadcast_to(geometry.pixel_mm, len(geometry.image_shape))
    counts = np.atleast_1d(geometry.detectors)
    beside = np.ones(geometry.image_shape, bool)
    for place in np.ndindex(*geometry.image_shape):
        centred = [(n - (size - 1) / 2) * d for n, size, d in zip(place, geometry.image_shape, spacing, strict=True)]
        point = np.array([centred[-1], -centred[-2], *centred[:-2][::-1]])
        for view in range(len(source)):
            axes = np.stack([*(step[view] for step in steps), corner[view] - source[view]], 1)
            *across, depth = np.linalg.solve(axes, point - source[view])
            lengths = np.linalg.norm(np.linalg.inv(axes), axis=1)
            hidden = False
            for n, value, length in zip(counts, across, lengths, strict=False):
                index = value / depth
                margin = 0.5 + 0.5 * math.hypot(*spacing) * (length + abs(index) * lengths[-1]) / depth
                hidden |= index < -margin or index > n - 1 + margin
            beside[place] &= hidden
    return beside


@pytest.mark.parametrize("kind", ["cone", "fan"])
def test_voxels_beside_a_flat_detector_are_those_of_a_second_program(kind: str) -> None:
    geometry: VectorConeGeometry | VectorFanGeometry
    if kind == "cone":
        geometry = VectorConeGeometry.from_cone(
            ConeGeometry(
                image_shape=(12, 8, 6), pixel_mm=(1.0, 2.0, 1.5), detectors=(4, 6), detector_mm=(1.5, 2.5), views=5,
                source_to_center_mm=40.0, source_to_detector_mm=70.0, detector_offset_mm=(1.0, 5.0), pitch_mm=3.0,
            )
        )  # fmt: skip
    else:
        geometry = VectorFanGeometry.from_fan(
            FanGeometry(
                image_shape=(12, 9), pixel_mm=(2.0, 1.5), detectors=6, detector_mm=2.0, source_to_center_mm=60.0,
                source_to_detector_mm=100.0, angles=(0.2, 0.5, 1.1), detector_offset_mm=7.0,
            )
        )  # fmt: skip
    expected = beside_a_flat_detector(geometry)
    found = unseen_beside_flat(geometry, torch.zeros(geometry.image_shape))
    assert found is not None and 0.05 < expected.mean() < 0.9
    np.testing.assert_array_equal(found.numpy(), expected)
    half = torch.from_numpy(np.random.default_rng(0).random(geometry.image_shape) < 0.5)
    some = unseen_beside_flat(geometry, half.float())
    assert some is not None and some.dtype == torch.bool
    np.testing.assert_array_equal(some.numpy(), expected & ~half.numpy())
    assert unseen_beside_flat(geometry, torch.ones(geometry.image_shape)) is None
    assert unseen_beside_flat(geometry, torch.from_numpy(expected).float()) is None
