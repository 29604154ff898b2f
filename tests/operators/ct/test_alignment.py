"""The differentiable geometry, and calibration of misaligned scans from closed-form and measured data."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deft_ct.operators.ct import (
    FanGeometry,
    ParallelGeometry,
    RayTransform,
    align_scan,
    alignment,
    differentiable,
    project,
)

PARALLEL = ParallelGeometry.for_image((7, 6), (1.0, 1.2), 5).replace(
    angles=[0.1, 0.9, 1.7, 2.5, 4.0], axis_offset_mm=0.3
)
FAN = FanGeometry.for_image((7, 6), 1.0, 5, source_to_center_mm=30, source_to_detector_mm=50).replace(
    angles=[0.1, 0.9, 1.7, 2.5, 4.0], detector_offset_mm=0.2
)
CURVED = FAN.replace(detector="curved", axis_offset_mm=-0.4)
SCANS = pytest.mark.parametrize("geometry", [PARALLEL, FAN, CURVED], ids=["parallel", "flat", "curved"])
BODY = [
    (0.02, 2.0, -3.0, 42.0, 32.0, 0.4), (-0.01, -9.0, 6.0, 12.0, 7.0, -0.3), (-0.01, 22.0, -4.0, 6.0, 4.0, 0.2),
    (0.015, 4.0, -20.0, 5.0, 4.0, 0.0), (0.02, -26.0, -9.0, 3.0, 5.0, 1.0), (0.02, 28.0, 10.0, 2.0, 3.0, 0.5),
]  # fmt: skip


def tensors(geometry, *, each_view=False):
    names = ["angles", "detector_offset_mm", "axis_offset_mm"]
    names += ["source_to_center_mm", "source_to_detector_mm"] if isinstance(geometry, FanGeometry) else []
    values = {name: torch.tensor(getattr(geometry, name), dtype=torch.float64) for name in names}
    if each_view:
        values = {name: v.expand(len(geometry.angles)).clone() for name, v in values.items()}
    return {name: v.requires_grad_() for name, v in values.items()}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_equals_the_ray_transform(random_geometries, data):
    geometry = data.draw(random_geometries())
    x = torch.rand(2, 1, *geometry.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    op = RayTransform(geometry, "matrix")
    with torch.no_grad():
        torch.testing.assert_close(project(x, geometry), op(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(project(x, geometry, **tensors(geometry)), op(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(project(x.float(), geometry), op(x).float(), rtol=1e-4, atol=1e-4)


@SCANS
@pytest.mark.parametrize("each_view", [False, True])
def test_gradients(geometry, each_view):
    geometry = geometry.replace(image_shape=(4, 3), detectors=4, angles=geometry.angles[:3])
    x = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    values = tensors(geometry, each_view=each_view)

    def apply(image, *given):
        return project(image, geometry, **dict(zip(values, given, strict=True)))

    assert torch.autograd.gradcheck(apply, (x, *values.values()))
    if not each_view:
        assert torch.autograd.gradgradcheck(apply, (x, *values.values()), atol=1e-4)


@SCANS
def test_gradient_is_that_of_the_ray_transform_itself(geometry):
    x = torch.rand(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    v = torch.rand(geometry.sinogram_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = tensors(geometry)
    (project(x, geometry, **values) * v).sum().backward()
    step = 1e-6
    for name, value in values.items():
        if name == "angles":
            sides = [geometry.replace(angles=geometry.angle_array + s) for s in (step, -step)]
        else:
            sides = [geometry.replace(**{name: getattr(geometry, name) + s}) for s in (step, -step)]
        plus, minus = (float((RayTransform(side, "matrix")(x) * v).sum()) for side in sides)
        assert float(value.grad.sum()) == pytest.approx((plus - minus) / (2 * step), rel=1e-5, abs=1e-5), name


def test_chunks_of_views_give_the_same(monkeypatch):
    x = torch.rand(7, 6, dtype=torch.float64).requires_grad_()
    results = []
    for samples in (2**21, 1):
        monkeypatch.setattr(differentiable, "_SAMPLES_A_CHUNK", samples)
        values = tensors(CURVED)
        y = project(x, CURVED, **values)
        gradients = torch.autograd.grad(y.square().sum(), (x, *values.values()))
        results.append((y, *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [ParallelGeometry, FanGeometry])
def test_a_shifted_centre_is_found(make, line_integrals):
    options = {} if make is ParallelGeometry else {"source_to_center_mm": 200, "source_to_detector_mm": 300}
    nominal = make.for_image((96, 96), 1.0, 60, **options)
    true = nominal.replace(axis_offset_mm=2.3)
    y = line_integrals(true, BODY)
    noise = 0.005 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    found = align_scan((y + noise)[None, None], nominal)
    assert found.converged
    assert found.geometry.axis_offset_mm == pytest.approx(2.3, abs=0.05)  # a pixel is 1 mm
    assert found.geometry == nominal.replace(axis_offset_mm=found.geometry.axis_offset_mm)
    assert found.residual[-1] < 0.01


def test_a_shifted_detector_is_found(line_integrals):
    nominal = FanGeometry.for_image((96, 96), 1.0, 60, source_to_center_mm=200, source_to_detector_mm=300)
    y = line_integrals(nominal.replace(detector_offset_mm=-3.1), BODY)
    found = align_scan(y, nominal, ["detector_offset_mm"])
    assert found.geometry.detector_offset_mm == pytest.approx(-3.1, abs=0.05)


def test_perturbed_angles_and_the_centre_are_found_together(line_integrals):
    nominal = ParallelGeometry.for_image((96, 96), 1.0, 90)
    error = np.radians(0.6) * np.random.default_rng(0).standard_normal(90)
    true = nominal.replace(angles=nominal.angle_array + error, axis_offset_mm=2.3)
    found = align_scan(line_integrals(true, BODY), nominal, ["angles", "axis_offset_mm"])
    assert found.geometry.axis_offset_mm == pytest.approx(2.3, abs=0.05)
    left = found.geometry.angle_array - true.angle_array
    # Less than a quarter is left. At the rim of the body, 42 mm from the axis, that is a tenth of a pixel.
    assert np.std(left) < 0.25 * np.std(error)
    assert np.std(left) * 42 < 0.11
    assert np.mean(found.geometry.angle_array - nominal.angle_array) == pytest.approx(0, abs=1e-9)


@pytest.mark.data
def test_the_tooth_is_centred_from_anywhere(data_root):
    from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange

    path = data_root / "raw_projections" / "tomopy_tooth.h5"
    scan = read_data_exchange(path, center=290.0, rows=slice(0, 1))
    found = align_scan(scan.sinogram, scan.geometry, levels=(8,))
    centre = found.geometry.axis_offset_mm + (scan.geometry.detectors - 1) / 2
    assert centre == pytest.approx(295.82, abs=0.05)  # from 296 and 305 too
    assert centre == pytest.approx(estimate_center(scan.sinogram, scan.geometry.angle_array), abs=0.25)


def test_a_short_arc_is_said_not_to_determine_the_centre(line_integrals):
    nominal = ParallelGeometry.for_image((24, 24), 4.0, 20).replace(views=20, angular_range=math.radians(60))
    with pytest.warns(UserWarning, match="the views cover 60 degrees"):
        align_scan(line_integrals(nominal, BODY), nominal, levels=(2,), iterations=1)


def test_inference_mode_changes_nothing(line_integrals):
    nominal = ParallelGeometry.for_image((24, 24), 4.0, 20)
    y = line_integrals(nominal.replace(axis_offset_mm=3.0), BODY)
    expected = align_scan(y, nominal, levels=(2,), iterations=1)
    with torch.inference_mode():
        found = align_scan(y.clone(), nominal, levels=(2,), iterations=1)
    assert found.geometry == expected.geometry != nominal


def test_no_image_gives_no_sinogram():
    assert project(torch.zeros(0, 7, 6), FAN).shape == (0, *FAN.sinogram_shape)


def test_geometries_refuse_tensors_that_require_gradients():
    angles = torch.linspace(0, 3, 5, requires_grad=True)
    offset = torch.tensor(0.1, requires_grad=True)
    for change in (
        {"angles": angles}, {"angles": list(angles)}, {"axis_offset_mm": offset}, {"detector_offset_mm": offset},
        {"detector_mm": offset}, {"pixel_mm": (offset, 1.0)},
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"requires gradients.*deft_ct\.operators\.ct\.project\(image"):
            PARALLEL.replace(**change)
    with pytest.raises(TypeError, match="source_to_center_mm requires gradients"):
        FAN.replace(source_to_center_mm=offset + 60)
    assert PARALLEL.replace(angles=angles.detach()).angles == tuple(angles.detach().double().tolist())


def test_bad_input_is_refused():
    x, y = torch.rand(7, 6), torch.rand(PARALLEL.sinogram_shape)
    with pytest.raises(ValueError, match=r"angles must have shape \(5,\), got \(4,\)"):
        project(x, PARALLEL, angles=torch.zeros(4))
    with pytest.raises(ValueError, match="source_to_center_mm belongs to fan beams"):
        project(x, PARALLEL, source_to_center_mm=torch.tensor(3.0))
    with pytest.raises(TypeError, match="floating-point torch tensor"):
        project(x, PARALLEL, axis_offset_mm=0.1)
    with pytest.raises(ValueError, match=r"trailing shape \(7, 6\)"):
        project(x.T, PARALLEL)
    with pytest.raises(TypeError, match="float32 or float64"):
        project(x.half(), PARALLEL)
    with pytest.raises(TypeError, match="geometry must be"):
        project(x, (7, 6))
    with pytest.raises(ValueError, match="angles must be finite"):
        project(x, PARALLEL, angles=torch.full((5,), math.nan))
    with pytest.raises(ValueError, match=r"source_to_center_mm must exceed 4\.6.* got 2"):
        project(x, FAN, source_to_center_mm=torch.tensor(2.0))
    for geometry in (PARALLEL, FAN):
        with pytest.raises(ValueError, match="only the difference"):
            align_scan(torch.rand(geometry.sinogram_shape), geometry, ["axis_offset_mm", "detector_offset_mm"])
    with pytest.raises(ValueError, match="a single view fits any geometry"):
        align_scan(y[:1], PARALLEL.replace(angles=[0.3]))
    with pytest.raises(ValueError, match="parameters must be some of"):
        align_scan(y, PARALLEL, ["centre"])
    with pytest.raises(ValueError, match="trailing shape"):
        align_scan(y[1:], PARALLEL)
    with pytest.raises(ValueError, match="finite"):
        align_scan(y * math.nan, PARALLEL)
    with pytest.raises(ValueError, match="a quarter of the"):
        align_scan(y, PARALLEL, levels=(50,))
    with pytest.raises(ValueError, match="angle_error"):
        align_scan(y, PARALLEL, levels=(1,), angle_error=0)


def test_the_first_residual_is_that_of_the_smooth_image_of_numpy(line_integrals):
    """``(A^T A + w D^T D) x = A^T y`` solved densely; the image is not isotropic, so that both axes matter."""
    smoothness = 0.3
    geometry = ParallelGeometry.for_image((9, 6), 1.0, 24).replace(detectors=13, detector_mm=1.0)
    y = line_integrals(geometry, [(0.2, 0.4, -0.5, 2.1, 3.4, 0.3)])
    found = align_scan(y, geometry, levels=(1,), iterations=1, smoothness=smoothness)
    operator = RayTransform(geometry, "matrix")
    columns = [operator(e.reshape(1, 9, 6)).flatten() for e in torch.eye(54, dtype=torch.float64)]
    matrix = torch.stack(columns, 1).numpy()
    data = ndimage.gaussian_filter1d(y.numpy(), 1.0, axis=-1, mode="nearest", radius=4).ravel()
    slopes = [np.diff(np.eye(n), axis=0) for n in (9, 6)]
    penalty = np.kron(slopes[0].T @ slopes[0], np.eye(6)) + np.kron(np.eye(9), slopes[1].T @ slopes[1])
    square = np.linalg.norm(matrix.T @ matrix @ np.ones(54)) / np.linalg.norm(np.ones(54))
    x = np.linalg.solve(matrix.T @ matrix + smoothness * square * penalty, matrix.T @ data)
    expected = np.linalg.norm(data - matrix @ x) / np.linalg.norm(data)
    assert found.residual == (pytest.approx(expected, rel=1e-3),)


def test_a_small_expected_error_holds_the_angles(line_integrals):
    nominal = ParallelGeometry.for_image((24, 24), 4.0, 40)
    error = np.radians(1.0) * np.random.default_rng(0).standard_normal(40)
    y = line_integrals(nominal.replace(angles=nominal.angle_array + error), BODY)
    moved = []
    for expected in (math.radians(1.0), 1e-5):
        found = align_scan(y, nominal, ["angles"], levels=(2,), iterations=4, angle_error=expected).geometry
        moved.append(float(np.std(found.angle_array - nominal.angle_array)))
    assert moved[0] > 0.3 * np.std(error)
    assert moved[1] < 0.01 * moved[0]


def test_the_search_ends_when_nothing_moves(line_integrals):
    nominal = ParallelGeometry.for_image((24, 24), 4.0, 40)
    found = align_scan(line_integrals(nominal, BODY), nominal, levels=(2,), iterations=12)
    assert found.converged and len(found.residual) < 12
    with pytest.raises(FrozenInstanceError):
        found.converged = False


@pytest.mark.parametrize("make", [ParallelGeometry, FanGeometry])
@pytest.mark.parametrize("names", [["axis_offset_mm"], ["angles"]])
def test_the_unit_of_length_does_not_matter(line_integrals, make, names):
    """A step is judged in detector elements. The unit is 64 times another, which rounds nothing."""
    options = {} if make is ParallelGeometry else {"source_to_center_mm": 200, "source_to_detector_mm": 300}
    nominal = make.for_image((24, 24), 4.0, 40, **options)
    y = line_integrals(nominal.replace(axis_offset_mm=9.0, start_angle=0.0), BODY)
    lengths = ["detector_mm", "axis_offset_mm", "detector_offset_mm", *options]
    small = nominal.replace(
        pixel_mm=tuple(v / 64 for v in nominal.pixel_rc), **{n: getattr(nominal, n) / 64 for n in lengths}
    )
    found, other = (align_scan(y, one, names, levels=(2,), iterations=5) for one in (nominal, small))
    # The weight of the penalty follows the norm of the transform, so the images agree as well.
    assert other.residual == pytest.approx(found.residual, rel=1e-6) and other.converged == found.converged
    assert 64 * other.geometry.axis_offset_mm == pytest.approx(found.geometry.axis_offset_mm, rel=1e-6)
    np.testing.assert_allclose(other.geometry.angle_array, found.geometry.angle_array, atol=1e-9)
    assert len(found.residual) > 1


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("make", [ParallelGeometry, FanGeometry])
def test_coarse_data_lie_where_the_coarse_detector_is(make, level):
    """A straight line along the detector stays one under blur and averaging: each value tells its own place."""
    options = {} if make is ParallelGeometry else {"source_to_center_mm": 200, "source_to_detector_mm": 300}
    geometry = make.for_image((40, 30), (1.0, 1.5), 9, **options).replace(detectors=71, detector_offset_mm=0.7)
    data = torch.from_numpy(np.tile(geometry.detector_positions, (1, 9, 1)))
    binned, coarse = alignment._coarse(data, geometry, level)
    inner = slice(27 // level, -(27 // level))
    np.testing.assert_allclose(binned[0, 0, inner], coarse.detector_positions[inner], atol=1e-9)
    assert coarse.detectors == 71 // level and coarse.detector_mm == pytest.approx(level * geometry.detector_mm)
    sides = np.array(coarse.image_shape) * coarse.pixel_rc
    np.testing.assert_allclose(sides, [40.0, 45.0])
    assert np.prod(coarse.image_shape) <= 0.5 * coarse.detectors * 9 + sum(coarse.image_shape) + 1


def test_images_of_another_kind_are_named():
    for image, got in ((np.zeros((7, 6)), "ndarray"), (torch.zeros(7, 6, dtype=torch.int32), r"torch\.int32")):
        with pytest.raises(TypeError, match=rf"float32 or float64.* got {got}"):
            project(image, PARALLEL)
