from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from skimage.data import shepp_logan_phantom

from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.operators.ct import FanGeometry, ParallelGeometry

PARALLEL = ParallelGeometry(image_shape=(64, 64), pixel_mm=2.0, views=12, detectors=91, detector_mm=2.0)
FAN = FanGeometry(
    image_shape=(64, 64), pixel_mm=2.0, views=16, detectors=91, detector_mm=3.0,
    source_to_center_mm=300.0, source_to_detector_mm=500.0,
)  # fmt: skip


def test_disc_has_the_textbook_sinogram() -> None:
    sinogram = EllipsePhantom.disc(40.0, 0.02).sinogram(PARALLEL)
    s = PARALLEL.detector_positions
    exact = 2 * 0.02 * np.sqrt(np.maximum(40.0**2 - s**2, 0))
    assert sinogram.shape == (1, 12, 91)
    np.testing.assert_allclose(sinogram[0].numpy(), np.tile(exact, (12, 1)), atol=1e-6)


def test_moved_disc_in_a_fan() -> None:
    """Distance of the disc's centre to each ray, by vector algebra."""
    sinogram = EllipsePhantom.disc(20.0, 1.0, (15.0, -25.0)).sinogram(FAN)[0].numpy()
    rays = FAN.rays()
    away = np.array([15.0, -25.0]) - rays.origin
    distance = np.abs(away[..., 0] * rays.direction[..., 1] - away[..., 1] * rays.direction[..., 0])
    np.testing.assert_allclose(sinogram, 2 * np.sqrt(np.maximum(400 - distance**2, 0)), atol=1e-4)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    a=st.floats(3, 30), b=st.floats(3, 30), x=st.floats(-20, 20), y=st.floats(-20, 20), angle=st.floats(0, 3.1),
    s=st.floats(-30, 30), view=st.floats(0, 3.1),
)  # fmt: skip
def test_chord_is_the_integral_of_the_indicator(
    a: float, b: float, x: float, y: float, angle: float, s: float, view: float
) -> None:
    ellipse = Ellipse(value=1.0, center_mm=(x, y), half_axes_mm=(a, b), angle=angle)
    u, along = np.array([math.cos(view), math.sin(view)]), np.array([-math.sin(view), math.cos(view)])

    t = np.linspace(-80, 80, 32001)
    dx, dy = (s * u[:, None] + along[:, None] * t) - np.array([[x], [y]])
    first, second = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    numeric = float(((first / a) ** 2 + (second / b) ** 2 <= 1).sum() * (t[1] - t[0]))
    assert float(ellipse.chords(s * u, along)) == pytest.approx(numeric, abs=0.02)


def test_mass_is_kept_by_every_view() -> None:
    """The integral over the detector of a parallel view is the area integral of the phantom."""
    phantom = EllipsePhantom.shepp_logan(120.0, 0.02)
    mass = sum(e.value * math.pi * e.half_axes_mm[0] * e.half_axes_mm[1] for e in phantom.ellipses)
    views = phantom.sinogram(PARALLEL.replace(detectors=1001, detector_mm=0.2))[0].sum(-1) * 0.2
    np.testing.assert_allclose(views.numpy(), mass, rtol=1e-3)
    assert float(phantom.image((60, 60), 2.0).sum()) * 4.0 == pytest.approx(mass, rel=5e-3)


def test_shepp_logan_is_that_of_scikit_image() -> None:
    ours = EllipsePhantom.shepp_logan(400.0, 1.0).image((400, 400), 1.0)[0].numpy()
    theirs = shepp_logan_phantom()
    equal = [float((np.abs(ours - other) < 0.01).mean()) for other in (theirs, theirs[::-1], theirs[:, ::-1])]
    assert equal[0] > 0.98, "all but pixels on an edge"
    assert max(equal[1:]) < 0.95, "the comparison sees the orientation"


def test_image_of_a_disc_averages_over_pixels() -> None:
    image = EllipsePhantom.disc(10.0, 2.0).image((32, 32), 1.0, oversampling=16)
    assert image.shape == (1, 32, 32) and image.dtype == torch.float32
    assert float(image.sum()) == pytest.approx(2.0 * math.pi * 100, rel=2e-3)
    assert float(image[0, 16, 16]) == 2.0 and float(image[0, 0, 0]) == 0.0
    up = EllipsePhantom.disc(2.0, 1.0, (0.0, 10.0)).image((32, 32), 1.0)[0]
    assert float(up[:16].sum()) > 0 and float(up[16:].sum()) == 0, "y points up, row 0 is the top"


def test_random_phantoms_follow_the_generator() -> None:
    one, two = (EllipsePhantom.random(torch.Generator().manual_seed(3), 100.0) for _ in range(2))
    assert one == two != EllipsePhantom.random(torch.Generator().manual_seed(4), 100.0)
    for ellipse in one.ellipses:
        assert math.hypot(*ellipse.center_mm) + max(ellipse.half_axes_mm) <= 50.0 + 1e-9
    assert len(EllipsePhantom.random(torch.Generator().manual_seed(0), 10.0, count=3).ellipses) == 3


def test_line_integral_with_scipy() -> None:
    phantom = EllipsePhantom.random(torch.Generator().manual_seed(1), 100.0, count=4)
    rays = FAN.rays()
    start, along = rays.origin[3, 50], rays.direction[3, 50]

    def value(t: float) -> float:
        p = start + t * along
        return sum(e.value * float((e.normalised(p) ** 2).sum() <= 1) for e in phantom.ellipses)

    numeric = quad(value, 200, 400, limit=2000, epsabs=1e-5, points=np.linspace(210, 390, 60))[0]
    assert float(phantom.sinogram(FAN)[0, 3, 50]) == pytest.approx(numeric, abs=2e-3)


def test_bad_ellipses() -> None:
    with pytest.raises(ValueError, match="positive"):
        Ellipse(value=1.0, center_mm=(0, 0), half_axes_mm=(1, 0))
    with pytest.raises(ValueError, match="finite"):
        EllipsePhantom.disc(1.0, float("nan"))


def test_shepp_logan_differs_from_scikit_image_on_edges_alone() -> None:
    """Each of the ten ellipses has its value, place, size and angle: away from edges the pictures are the same."""
    ours = EllipsePhantom.shepp_logan(400.0, 1.0).image((400, 400), 1.0)[0].numpy()
    theirs = shepp_logan_phantom()
    flat = scipy.ndimage.maximum_filter(theirs, 7) - scipy.ndimage.minimum_filter(theirs, 7) < 1e-6
    assert flat.mean() > 0.8
    np.testing.assert_allclose(ours[flat], theirs[flat], atol=0.5 / 255 + 1e-4)  # theirs has 8 bits
    assert len(np.unique(np.round(theirs[flat], 6))) == 5  # sums of the ten values


def test_random_ellipses_are_those_of_a_second_program() -> None:
    """Half axes of 2 to 20 % of the side, places uniform in the circle, values of -0.4 to 1 times the most."""
    draws = torch.Generator().manual_seed(5)
    count = int(torch.randint(5, 21, (), generator=draws))
    u = torch.rand(count, 6, generator=draws, dtype=torch.float64).numpy()
    found = EllipsePhantom.random(torch.Generator().manual_seed(5), 100.0, max_value=0.5).ellipses
    assert len(found) == count
    for ellipse, (first, second, share, turn, angle, value) in zip(found, u, strict=True):
        half = (2 + 18 * first, 2 + 18 * second)
        away, phi = (50 - max(half)) * share**0.5, 2 * np.pi * turn
        assert ellipse.half_axes_mm == pytest.approx(half)
        assert ellipse.center_mm == pytest.approx((away * np.cos(phi), away * np.sin(phi)))
        assert ellipse.angle == pytest.approx(np.pi * angle) and ellipse.value == pytest.approx(0.7 * value - 0.2)
    counts = {len(EllipsePhantom.random(torch.Generator().manual_seed(n), 100.0).ellipses) for n in range(200)}
    assert counts == set(range(5, 21))


@pytest.mark.parametrize("name", ["value", "center_mm", "half_axes_mm", "angle"])
def test_each_number_of_an_ellipse_must_be_finite(name: str) -> None:
    sound = {"value": 1.0, "center_mm": (0.0, 0.0), "half_axes_mm": (1.0, 1.0), "angle": 0.0}
    for position in range(2 if isinstance(sound[name], tuple) else 1):
        bad = (np.nan, 1.0)[:: 1 - 2 * position] if isinstance(sound[name], tuple) else np.nan
        with pytest.raises(ValueError, match="finite"):
            Ellipse(**{**sound, name: bad})
    for half in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="positive"):
            Ellipse(value=1.0, center_mm=(0, 0), half_axes_mm=half)
