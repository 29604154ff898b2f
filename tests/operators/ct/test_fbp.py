from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import FanGeometry, FilteredBackprojection, ParallelGeometry, RayTransform, fbp
from deft_ct.operators.ct.filters import filter_names
from deft_ct.operators.ct.redundancy import ray_weights
from deft_ct.testing import assert_adjoint, assert_gradients

RADIUS, CX, CY, MU = 24.0, 8.0, -11.0, 0.02
VIEWS = 720


def base(kind: str, views: int = VIEWS) -> ParallelGeometry | FanGeometry:
    if kind == "parallel":
        return ParallelGeometry.for_image((96, 96), 1.0, views)
    distances = {"source_to_center_mm": 300.0, "source_to_detector_mm": 500.0}
    return FanGeometry.for_image((96, 96), 1.0, views, detector=kind, **distances)


def short(kind: str, extra: float = 0.0) -> FanGeometry:
    geometry = base(kind)
    return geometry.replace(angular_range=math.pi + 2 * float(geometry.fan_angles.max()) + extra, start_angle=0.8)


def scans() -> dict[str, ParallelGeometry | FanGeometry]:
    parallel = base("parallel")
    out: dict[str, ParallelGeometry | FanGeometry] = {
        "parallel": parallel,
        "parallel, axis offset": parallel.replace(axis_offset_mm=6.3),
        "parallel, full turn": parallel.replace(angular_range=2 * math.pi),
        "parallel, 200 degrees": parallel.replace(angular_range=math.radians(200)),
        "parallel, golden angle": parallel.replace(angles=np.arange(VIEWS) * math.pi * (math.sqrt(5) - 1) / 2),
        "parallel, shuffled": parallel.replace(angles=np.random.default_rng(0).permutation(parallel.angle_array)),
        "parallel, half detector": parallel.replace(angular_range=2 * math.pi, detectors=90, detector_offset_mm=30),
        "parallel, rectangular pixels": parallel.replace(pixel_mm=(1.2, 0.8), image_shape=(76, 114)),
    }
    for kind in ("flat", "curved"):
        fan = base(kind)
        wide = fan.replace(detectors=fan.detectors + 20)
        out |= {
            kind: fan,
            f"{kind}, quarter offset": fan.replace(detector_offset_mm=fan.detector_mm / 4),
            f"{kind}, axis offset": wide.replace(axis_offset_mm=5.0),
            f"{kind}, short scan": short(kind),
            f"{kind}, overscan": short(kind, 0.7),
            f"{kind}, short scan, axis offset": wide.replace(axis_offset_mm=5.0, angular_range=math.pi + 0.6),
            f"{kind}, half detector": fan.replace(detectors=90, detector_offset_mm=45.0),
        }
    return out


@pytest.mark.parametrize("name", scans())
def test_disc_within_one_percent(name, line_integrals):
    geometry = scans()[name]
    image = fbp(line_integrals(geometry, [(MU, CX, CY, RADIUS, RADIUS, 0.0)]), geometry)
    (height, width), (dy, dx) = geometry.image_shape, geometry.pixel_rc
    x, y = (np.arange(width) - (width - 1) / 2) * dx, ((height - 1) / 2 - np.arange(height)) * dy
    distance = torch.from_numpy(np.hypot(x[None] - CX, y[:, None] - CY))
    inside = image[distance < RADIUS - 4] / MU
    assert float(inside.mean()) == pytest.approx(1, abs=1e-3)
    assert float((inside - 1).abs().max()) < 0.01
    # The image reaches the inscribed circle; the disc's edge rings outside, but there is no bias.
    field = torch.from_numpy(np.hypot(x[None], y[:, None])) < 42
    outside = image[(distance > RADIUS + 8) & field] / MU
    assert abs(float(outside.mean())) < 0.005


@pytest.mark.parametrize("source", ["closed form", "astra"])
@pytest.mark.parametrize(("views", "degrees"), [(60, 360), (60, 330), (60, 300), (60, 240), (20, 330), (20, 240)])
def test_sparse_short_scans_keep_the_values_of_ellipses(source, views, degrees, line_integrals, phantom_image):
    geometry = base("flat", views).replace(angular_range=math.radians(degrees))
    ellipses = [(MU, 0.0, 0.0, 38.0, 30.0, 0.3), (0.5 * MU, 15.0, -8.0, 9.0, 7.0, 0.0)]
    if source == "astra":
        pytest.importorskip("astra")
        y = RayTransform(geometry, "astra")(phantom_image(geometry, ellipses).float())
    else:
        y = line_integrals(geometry, ellipses)
    image = fbp(y, geometry)
    x = np.arange(96) - 47.5
    insert = torch.from_numpy(np.hypot((x[None] - 15) / 6, (-x[:, None] + 8) / 4) < 1)
    left = torch.from_numpy(np.hypot(x[None] + 16, x[:, None]) < 10)
    assert float(image[insert].mean()) == pytest.approx(1.5 * MU, rel=0.01)
    assert float(image[left].mean()) == pytest.approx(MU, rel=0.01)


@pytest.mark.parametrize("name", sorted(set(filter_names()) - {"ram-lak"}))
def test_every_filter_keeps_the_scale(name, line_integrals):
    geometry = base("flat")
    y = line_integrals(geometry, [(MU, 0.0, 0.0, RADIUS, RADIUS, 0.0)])
    center = (slice(40, 56), slice(40, 56))
    full, cut = fbp(y, geometry, name)[center], fbp(y, geometry, name, cutoff=0.5)[center]
    assert float(full.mean()) == pytest.approx(MU, rel=3e-3)
    assert float(cut.mean()) == pytest.approx(MU, rel=3e-3)


def test_softer_filters_and_lower_cutoffs_pass_less_noise():
    geometry = base("parallel", 60)
    noise = torch.randn(geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    spread = [float(fbp(noise, geometry, f).std()) for f in ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")]
    assert spread == sorted(spread, reverse=True)
    cut = [float(fbp(noise, geometry, "hann", c).std()) for c in (1.0, 0.7, 0.4)]
    assert cut == sorted(cut, reverse=True)


def test_agrees_with_scikit_image(phantom_image):
    transform = pytest.importorskip("skimage.transform")
    geometry = ParallelGeometry(image_shape=(65, 65), pixel_mm=1.0, views=90, detectors=65, detector_mm=1.0)
    truth = phantom_image(geometry, [(0.02, 0, 0, 25, 18, 0.4), (0.01, 8, 6, 6, 4, 1.0)])
    y = RayTransform(geometry)(truth)
    theirs = transform.iradon(y.numpy().T, theta=np.degrees(geometry.angle_array), filter_name="ramp", circle=True)
    ours = fbp(y, geometry).numpy()
    x = np.arange(65) - 32
    inside = np.hypot(x[None], x[:, None]) < 30
    # The conventions differ by a quarter turn or a mirror.
    turned = [np.rot90(t, k) for t in (theirs, theirs.T) for k in range(4)]
    difference = min(np.linalg.norm((ours - t)[inside]) for t in turned) / np.linalg.norm(ours[inside])
    assert difference < 0.01


def test_limited_angle_is_finite_and_keeps_most_of_the_mean(line_integrals):
    geometry = base("flat", 180).replace(angular_range=math.radians(120))
    image = fbp(line_integrals(geometry, [(MU, 0.0, 0.0, RADIUS, RADIUS, 0.0)]), geometry)
    assert bool(torch.isfinite(image).all())
    assert 0.5 * MU < float(image[40:56, 40:56].mean()) < 1.2 * MU


@pytest.mark.parametrize("kind", ["flat", "curved"])
@pytest.mark.parametrize("extra", [0.0, 0.5])
def test_parker_weights_count_every_line_once(kind, extra):
    # Views and detector such that the twin of a ray is again a ray of the scan: only for a continuous check in angle.
    from deft_ct.operators.ct.redundancy import _arc_weights

    delta = 0.5 * (float(short(kind).fan_angles.max()) + extra)
    spare = float(short(kind).fan_angles.max()) + extra / 2
    phase, gamma = np.meshgrid(np.linspace(0, math.pi + 2 * spare, 301), np.linspace(-0.2, 0.2, 41), indexing="ij")
    own = _arc_weights(phase, gamma, math.pi + 2 * spare)
    for sign in (1, -1):
        twin = phase + sign * math.pi - 2 * gamma
        both = (twin > 0) & (twin < math.pi + 2 * spare)
        total = own + _arc_weights(np.clip(twin, 0, math.pi + 2 * spare), -gamma, math.pi + 2 * spare)
        np.testing.assert_allclose(total[both], 1, atol=1e-9)
    assert delta > 0


def test_weights_of_views_add_up():
    assert ray_weights(base("parallel"))[:, 0].sum() == pytest.approx(math.pi)
    assert ray_weights(base("flat"))[:, 0].sum() == pytest.approx(math.pi)
    assert ray_weights(base("parallel").replace(angular_range=2.5, views=50))[:, 0].sum() == pytest.approx(2.5)


@pytest.mark.parametrize("kind", ["parallel", "flat", "curved"])
def test_is_differentiable_with_exact_adjoint(kind):
    small = {"image_shape": (9, 7), "pixel_mm": 1.3, "detectors": 15, "detector_mm": 1.1}
    geometry = (
        ParallelGeometry(**small, views=5)
        if kind == "parallel"
        else FanGeometry(**small, views=5, source_to_center_mm=30, source_to_detector_mm=45, detector=kind)
    )
    assert_gradients(FilteredBackprojection(geometry, "hann"))
    assert_adjoint(FilteredBackprojection(geometry))
    y = torch.rand(2, 1, 5, 15, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda z: fbp(z, geometry), y, fast_mode=True)


def test_batches_blocks_and_types(monkeypatch):
    geometry = base("flat", 24)
    y = torch.rand(3, 2, *geometry.sinogram_shape)
    whole = fbp(y, geometry)
    assert whole.shape == (3, 2, 96, 96)
    assert torch.equal(whole[2, 1], fbp(y[2, 1], geometry))
    assert torch.equal(RayTransform(geometry).pseudo_inverse(y), whole)
    torch.testing.assert_close(fbp(y.double(), geometry).float(), whole, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("deft_ct.operators.ct.backprojection._CACHED_BYTES", 0)
    monkeypatch.setattr("deft_ct.operators.ct.backprojection._BLOCK_BYTES", 5 * 24 * 96 * 96)
    blocked = FilteredBackprojection(geometry)
    assert_adjoint(blocked)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without Numba
    torch.testing.assert_close(blocked(y), whole, rtol=1e-4, atol=1e-7)
    assert_adjoint(blocked)


@pytest.mark.parametrize("kind", ["parallel", "flat", "curved"])
@pytest.mark.parametrize("shift", [0.0, 7.3])
def test_the_kernel_without_a_matrix_has_its_values(kind, shift, monkeypatch):
    """Where the matrix is too large to be kept; the detector is cut off, so that points fall beside it."""
    pytest.importorskip("numba")
    whole = base(kind, 24)
    geometry = whole.replace(detectors=whole.detectors // 2, detector_offset_mm=shift, pixel_mm=(0.8, 1.1))
    y = torch.rand(2, *geometry.sinogram_shape)
    expected = fbp(y, geometry)
    monkeypatch.setattr("deft_ct.operators.ct.backprojection._CACHED_BYTES", 0)
    monkeypatch.setattr("deft_ct.operators.ct.backprojection.backprojection_matrix", None)
    operator = FilteredBackprojection(geometry)
    found = operator(y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(operator(y[1]), found[1])
    torch.testing.assert_close(
        operator(y.double()).float(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(operator(y), found)
    finally:
        torch.set_num_threads(threads)


def test_bad_arguments_are_refused():
    geometry = base("parallel", 12)
    y = torch.rand(geometry.sinogram_shape)
    with pytest.raises(ValueError, match="unknown filter 'ramp'; choose one of cosine, hamming"):
        fbp(y, geometry, "ramp")
    with pytest.raises(ValueError, match="cutoff must be in"):
        fbp(y, geometry, cutoff=0)
    with pytest.raises(ValueError, match="trailing shape"):
        fbp(y.T, geometry)
    with pytest.raises(ValueError, match="does not reach the rotation axis"):
        fbp(y, geometry.replace(detector_offset_mm=200, angular_range=2 * math.pi))
