"""Scans given by vectors: calibrated cones and fans, moving detectors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical import StoppingRule
from deft_ct.methods.classical.cgls import cgls
from deft_ct.methods.classical.tv import total_variation
from deft_ct.operators import PoissonNoise
from deft_ct.operators.ct import (
    ConeGeometry,
    FanGeometry,
    RayTransform,
    VectorConeGeometry,
    VectorFanGeometry,
    geometry_from_dict,
)
from deft_ct.operators.ct.convert import to_astra, to_astra_3d
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

pytest.importorskip("numba")


def shaken(seed: int, geometry: VectorConeGeometry | VectorFanGeometry, amount: float = 1.0):
    """The scan with a source and a detector that wander, and a detector that turns, as a real gantry's do."""
    generator = np.random.default_rng(seed)
    changes = {}
    for name in geometry.vector_names:
        values = geometry.vectors(name)
        size = 0.03 * np.linalg.norm(values, axis=1).mean() if "step" in name else 1.5
        changes[name] = values + amount * size * generator.uniform(-1, 1, values.shape)
    return geometry.replace(**changes)


def cone(shape=(6, 8, 9), views: int = 5, seed: int = 0, **changes: object) -> VectorConeGeometry:
    circle = ConeGeometry.for_image(shape, (1.5, 1.0, 1.2), views, source_to_center_mm=60, source_to_detector_mm=100)
    return shaken(seed, VectorConeGeometry.from_cone(circle.replace(**changes)))


def fan(size: int = 16, views: int = 7, seed: int = 0, amount: float = 1.0) -> VectorFanGeometry:
    circle = FanGeometry.for_image((size, size), 1.0, views, source_to_center_mm=60, source_to_detector_mm=100)
    return shaken(seed, VectorFanGeometry.from_fan(circle), amount)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), planar=st.booleans())
def test_the_adjoint_is_exact_and_the_backends_agree(seed, planar):
    geometry = fan(seed=seed) if planar else cone(seed=seed)
    matrix, free = RayTransform(geometry, "matrix"), RayTransform(geometry, "joseph")
    for operator in (matrix, free):
        assert_adjoint(operator)
        assert_adjoint(operator, dtype=torch.float32)
        assert_linear(operator)
    x = torch.rand(geometry.image_shape, dtype=torch.float64)
    y = matrix(x)
    torch.testing.assert_close(free(x), y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(free.adjoint(y), matrix.adjoint(y), rtol=1e-9, atol=1e-9)


def test_gradients_and_batches():
    for geometry in (cone((3, 4, 5), 2), fan(6, 3)):
        assert_gradients(RayTransform(geometry, "joseph"))
        assert_batch_invariant(RayTransform(geometry, "joseph"), batch=3)


def test_a_circle_by_vectors_is_the_circle():
    circle = ConeGeometry.for_image((5, 8, 9), (1.5, 1.0, 1.2), 6, source_to_center_mm=40, source_to_detector_mm=70)
    moved = circle.replace(detector_offset_mm=(1.0, -2.0), axis_offset_mm=0.7, pitch_mm=4.0)
    flat = FanGeometry.for_image((8, 9), 1.0, 6, source_to_center_mm=40, source_to_detector_mm=70)
    flat = flat.replace(detector_offset_mm=-2.0, axis_offset_mm=0.7)
    for plain, by_vectors in (
        (moved, VectorConeGeometry.from_cone(moved)), (flat, VectorFanGeometry.from_fan(flat)),
    ):  # fmt: skip
        x = torch.rand(plain.image_shape, dtype=torch.float64)
        assert by_vectors.sinogram_shape == plain.sinogram_shape
        torch.testing.assert_close(
            RayTransform(by_vectors, "matrix")(x), RayTransform(plain, "matrix")(x), rtol=1e-9, atol=1e-9
        )


def test_a_fan_agrees_with_astra():
    pytest.importorskip("astra")
    geometry = fan(32, 24, amount=1.0)
    axis = torch.arange(32.0) - 15.5
    places = [(3.0, -4.0, 5.0), (-6.0, 2.0, 4.0)]  # a smooth hill in each of two images
    x = torch.stack([torch.exp(-((axis[:, None] - r) ** 2 + (axis - c) ** 2) / (2 * w**2)) for r, c, w in places])
    theirs = RayTransform(geometry, "astra")(x)
    ours = RayTransform(geometry, "joseph")(x)
    # ASTRA sums lengths of the ray in the pixels, Joseph interpolates.
    assert float((theirs - ours).norm() / ours.norm()) < 0.01
    wrong = RayTransform(fan(32, 24, amount=0.0), "joseph")(x)
    assert float((theirs - wrong).norm() / ours.norm()) > 0.05
    _, projection = to_astra(geometry)
    assert projection["type"] == "fanflat_vec"


def test_a_cone_as_vectors_of_astra_gives_its_rays():
    geometry = cone()
    _, projection = to_astra_3d(geometry)
    source, center, column, row = projection["Vectors"].reshape(-1, 4, 3).transpose(1, 0, 2)
    rows, columns = geometry.detectors
    last = center + 0.5 * (rows - 1) * row + 0.5 * (columns - 1) * column - source
    rays = geometry.rays()
    np.testing.assert_allclose(rays.direction[:, -1, -1], last / np.linalg.norm(last, axis=1, keepdims=True))
    np.testing.assert_allclose(rays.origin[:, 0, 0], source)


def moving_cone(shape, pixel: float, views: int) -> VectorConeGeometry:
    circle = ConeGeometry.for_image(
        shape,
        pixel,
        views,
        source_to_center_mm=150,
        source_to_detector_mm=250,
    )
    return shaken(3, VectorConeGeometry.from_cone(circle))


def test_projections_of_ellipsoids_converge():
    errors = []
    for factor in (1, 2):
        geometry = moving_cone((24, 24, 24), 1.5, 6).refined(factor)
        phantom = EllipsoidPhantom.head(30.0)
        exact = phantom.line_integrals(geometry.rays())
        volume = phantom.volume(geometry.image_shape, geometry.voxel_zyx, oversampling=4)
        errors.append(float((RayTransform(geometry, "joseph")(volume) - exact).norm() / exact.norm()))
    assert errors[1] < 0.6 * errors[0] < 0.06


def test_cgls_and_tv_reconstruct_a_calibrated_cone():
    geometry = moving_cone((16, 24, 24), 1.5, 30)
    phantom = EllipsoidPhantom.head(30.0)
    truth = phantom.volume(geometry.image_shape, geometry.voxel_zyx).float()[None, None]
    operator = RayTransform(geometry)
    clean = phantom.line_integrals(geometry.rays()).float()[None, None]
    y = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    weights = torch.full_like(y, 1e4)

    def error(x: torch.Tensor) -> float:
        return float((x - truth).norm() / truth.norm())

    least, _ = cgls(y, operator, stopping=StoppingRule(iterations=10))
    smooth, _ = total_variation(y, operator, weights=weights, strength=250.0, stopping=StoppingRule(iterations=60))
    nominal = ConeGeometry.for_image((16, 24, 24), 1.5, 30, source_to_center_mm=150, source_to_detector_mm=250)
    uncalibrated, _ = cgls(y, RayTransform(nominal), stopping=StoppingRule(iterations=10))
    assert error(smooth) < 0.75 * error(least)
    assert error(least) < 0.8 * error(uncalibrated)


def test_a_measurement_of_vectors_simulates_and_records():
    for geometry in (cone((4, 6, 6), 4), fan(12, 5)):
        measurement = Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())
        x = torch.full((1, 1, *geometry.image_shape), 0.02)
        y = measurement.simulate(x, refine=2)
        assert y.shape == (1, 1, *geometry.sinogram_shape)
        measurement.diagnose(y)
        described = json.loads(json.dumps(measurement.describe()))
        assert geometry_from_dict(described["geometry"]) == geometry
        assert hash(geometry_from_dict(described["geometry"])) == hash(geometry)
        with pytest.raises(ValueError, match="got a scan given by vectors"):
            measurement.operator.features(y, None)


def test_large_matrices_are_built_in_blocks(monkeypatch):
    geometry = cone()
    x = torch.rand(2, *geometry.image_shape)
    y = RayTransform(geometry, "matrix")(x)
    monkeypatch.setattr("deft_ct.operators.ct.backends.matrix.STORED_BYTES", 0)
    monkeypatch.setattr("deft_ct.operators.ct.backends.matrix.BLOCK_BYTES", 100_000)
    torch.testing.assert_close(RayTransform(geometry, "matrix")(x), y, rtol=1e-6, atol=1e-6)


def test_the_pseudo_inverse_is_the_least_squares_solution():
    geometry = fan(6, 20)
    operator = RayTransform(geometry, "matrix")
    x = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(operator.pseudo_inverse(operator(x)), x, rtol=1e-2, atol=1e-2)


BAD = [
    ({"source_mm": np.zeros((5, 2))}, r"source_mm must hold 3 numbers for each view, \(views, 3\), got shape \(5, 2\)"),
    ({"detector_mm": np.ones((4, 3))}, "must be of the same views, got"),
    ({"row_step_mm": np.full((5, 3), math.nan)}, "row_step_mm must be finite, view 0 is not"),
    ({"source_mm": np.zeros((5, 3))}, r"source of view \d, at \(0.0, 0.0, 0.0\) mm, does not have the whole image"),
    ({"row_step_mm": np.ones((5, 3)), "column_step_mm": np.ones((5, 3))}, "of view 0 span no area"),
    ({"detectors": 5}, "detectors must be 2 integers"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_vectors_are_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cone().replace(**changes)


def test_more_bad_vectors():
    geometry = fan()
    with pytest.raises(ValueError, match="step_mm of view 0 has no length"):
        geometry.replace(step_mm=np.zeros((7, 2)))
    with pytest.raises(ValueError, match="detector of view 0 lies in its source"):
        geometry.replace(detector_mm=geometry.source_mm)
    with pytest.raises(ValueError, match="whole image"):  # a source between the image and the detector
        geometry.replace(detector_mm=2.0 * geometry.vectors("source_mm"))
    with pytest.raises(TypeError, match=r"has no field \['pitch_mm'\]"):
        geometry.replace(pitch_mm=1.0)
    with pytest.raises(ValueError, match=r"not a fan_vectors geometry: kind 'fan', unknown fields \['views'\]"):
        VectorFanGeometry.from_dict({"kind": "fan", "views": 3})
    curved = FanGeometry.for_image((8, 8), 1.0, 4, detector="curved")
    with pytest.raises(ValueError, match="curved detector"):
        VectorFanGeometry.from_fan(curved)


@pytest.mark.parametrize("backend", ["odl", "tomosipo", "symmetric", "astra_cuda"])
def test_backends_without_vectors_say_so(backend):
    with pytest.raises(ValueError, match=r"use 'joseph'|use backend='"):
        RayTransform(fan(), backend)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (8, 0)}, r"image_shape\[1\] must be >= 1"),
        ({"image_shape": (8, 8, 8)}, "image_shape must be"),
        ({"pixel_mm": 0.0}, "pixel_mm must be"), ({"detectors": 0}, "detectors must be"),
        ({"detectors": 1.5}, "detectors must be"),
        ({"step_mm": np.zeros((6, 2))}, "all vectors must be of the same views"),
    ],
)  # fmt: skip
def test_bad_fans_are_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fan().replace(**changes)


def test_sizes_of_a_fan_are_plain_values():
    geometry = fan().replace(image_shape=np.array([12, 10]), pixel_mm=np.float32(2.0))
    assert geometry.image_shape == (12, 10) and all(type(n) is int for n in geometry.image_shape)
    assert geometry.pixel_rc == (2.0, 2.0)
