"""The shift of a detector, from the moments of its data, against shifts that were put in."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

import deft_ct as dc
from deft_ct.operators import GaussianNoise, PoissonNoise
from deft_ct.operators.ct import (
    ConeGeometry,
    FanGeometry,
    ParallelGeometry,
    RayTransform,
    detector_offset,
    detector_shift,
)

SIZE = 64


def _object() -> torch.Tensor:
    """A head off the centre, 1/mm."""
    head = np.roll(np.pad(resize(shepp_logan_phantom(), (44, 44)), 10), (3, -5), (0, 1))
    return torch.from_numpy(0.02 * head.astype(np.float32))[None, None]


def _parallel(arc: float = 180.0, start: float = 0.0, views: int = 40, **options) -> ParallelGeometry:
    angles = np.deg2rad(start + arc * np.arange(views) / views)
    return ParallelGeometry(
        image_shape=(SIZE, SIZE), pixel_mm=1.5, angles=angles, detectors=96, detector_mm=1.5, **options
    )


def _fan(views: int = 40, degrees: float = 360.0, **options) -> FanGeometry:
    return FanGeometry(
        image_shape=(SIZE, SIZE), pixel_mm=1.5, views=views, angular_range=math.radians(degrees), detectors=120,
        detector_mm=2.0, source_to_center_mm=250.0, source_to_detector_mm=450.0, **options,
    )  # fmt: skip


@pytest.mark.parametrize("shift", [0.0, 0.5, -1.25])
@pytest.mark.parametrize(
    "geometry",
    [
        _parallel(), _parallel(120, start=33), _parallel(360), _parallel(detector_offset_mm=4.0),
        _parallel(axis_offset_mm=3.0),
        _fan(), _fan(detector="curved"), _fan(axis_offset_mm=3.0), _fan(detector_offset_mm=-3.0),
    ],
)  # fmt: skip
def test_it_finds_the_shift_that_was_put_in(geometry, shift: float) -> None:
    offset = geometry.detector_offset_mm + shift * geometry.detector_mm
    y = RayTransform(geometry.replace(detector_offset_mm=offset))(_object())
    assert detector_shift(y, geometry) == pytest.approx(shift, abs=0.03)
    assert detector_shift(y, geometry.replace(detector_offset_mm=offset)) == pytest.approx(0.0, abs=0.03)


def _second_program(y: np.ndarray, geometry: ParallelGeometry) -> float:
    """The shift by least squares, less a straight line through the outer half of the air on either side."""
    position = np.arange(geometry.detectors) - (geometry.detectors - 1) / 2
    beta = geometry.angle_array
    terms = np.stack([np.cos(beta), np.sin(beta), np.ones_like(beta)], 1)
    shifts = []
    for views in y:
        profile = views.mean(0)
        seen = np.flatnonzero(profile > 0.02 * profile.max())
        before, after = seen[0], geometry.detectors - 1 - seen[-1]
        air = np.r_[0 : math.ceil(before / 2), geometry.detectors - math.ceil(after / 2) : geometry.detectors]
        line = np.polyval(np.polyfit(position[air], profile[air], 1), position)
        clean = views - line
        centre = clean @ position / clean.sum(1).mean()
        shifts.append(np.linalg.lstsq(terms, centre, rcond=None)[0][2])
    return -float(np.mean(shifts))


@pytest.mark.parametrize("roll", [0, 1, 2, 3])
def test_the_background_is_the_outer_half_of_the_air_of_each_slice(roll: int) -> None:
    """Readings in the air that differ from element to element tell which of them count, of even and of odd numbers."""
    geometry = _parallel()
    wide = torch.nn.functional.pad(_object()[..., 8:-8, 8:-8], (8, 8, 8, 8))
    first, second = torch.roll(wide, roll, -1), torch.roll(wide.mT, (5 - roll, roll), (-2, -1))
    y = RayTransform(geometry)(torch.cat([first, second]).double())
    air = 1e-3 * torch.rand(1, 1, 1, geometry.detectors, generator=torch.Generator().manual_seed(roll)).double()
    y = y + float(y.max()) * air
    expected = _second_program(y[:, 0].numpy(), geometry)
    assert abs(expected) > 1e-4
    assert detector_shift(y, geometry) == pytest.approx(expected, abs=1e-9)


def test_it_stays_silent_where_the_data_do_not_tell() -> None:
    x = _object()
    y = RayTransform(_parallel())(x)
    assert detector_shift(y[..., 30:-30], _parallel().replace(detectors=36)) is None  # truncated
    assert detector_shift(torch.zeros_like(y), _parallel()) is None
    assert detector_shift(PoissonNoise(photons=30.0).sample(y, [torch.Generator().manual_seed(0)]), _parallel()) is None
    for geometry in (_parallel(60), _fan(degrees=240), _parallel(views=4)):
        assert detector_shift(RayTransform(geometry)(x), geometry) is None
    cone = ConeGeometry.for_image((8, 8, 8), 1.0, 10)
    assert detector_shift(torch.ones(cone.sinogram_shape), cone) is None
    with pytest.raises(ValueError, match="the sinogram must end in"):
        detector_shift(y[..., :-1], _parallel())


@pytest.mark.parametrize("geometry", [_parallel(), _fan(), _fan(detector="curved")])
def test_data_of_a_shifted_detector_are_moved_back(geometry) -> None:
    x, noise = _object(), PoissonNoise(photons=1e6)
    off = geometry.detector_offset_mm + 0.5 * geometry.detector_mm
    y = dc.Measurement(RayTransform(geometry.replace(detector_offset_mm=off)), noise).simulate(x, seed=0)
    told = dc.Measurement(RayTransform(geometry), noise)
    with pytest.warns(
        UserWarning, match=r"off by \+0\.[45]\d elements; repaired.*set detector_offset_mm=[01]"
    ) as caught:
        moved = dc.load_reconstructor("fbp").reconstruct(y, told)
    assert moved.provenance["detector_shift_elements"] == pytest.approx(0.5, abs=0.05)
    (finding,) = moved.provenance["warnings"]
    assert finding["name"] == "shifted detector" and finding["repaired"]
    advised = float(str(caught[0].message).split("detector_offset_mm=")[1].split(" ")[0])
    corrected = dc.Measurement(RayTransform(geometry.replace(detector_offset_mm=advised)), noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = dc.load_reconstructor("fbp").reconstruct(y, corrected)
    wrong = RayTransform(geometry).pseudo_inverse(y)
    error, best, bad = ((image - x).norm() for image in (moved.mean, right.mean, wrong))
    assert error < best + 0.1 * (bad - best)
    repaired = told.diagnose(y).repaired
    assert repaired is not None and told.diagnose(repaired).repaired is None


def test_each_slice_is_moved_by_its_own_shift() -> None:
    """So that an image does not depend on the rest of its batch; one that is in place is left alone, to the bit."""
    nominal = _parallel()
    x = torch.cat([_object(), _object().mT])
    y = torch.cat([
        RayTransform(nominal.replace(detector_offset_mm=offset))(image[None])
        for image, offset in zip(x, (0.0, -1.5), strict=True)
    ])  # fmt: skip
    found = dc.Measurement(RayTransform(nominal), PoissonNoise(photons=1e6)).diagnose(y)
    (finding,) = [one for one in found.findings if one.name == "shifted detector"]
    assert "of 1 of 2 slices" in finding.text and "-1.0" in finding.text
    assert found.repaired is not None and torch.equal(found.repaired[0], y[0])
    alone = dc.Measurement(RayTransform(nominal), PoissonNoise(photons=1e6)).diagnose(y[1:])
    assert alone.repaired is not None and torch.equal(found.repaired[1:], alone.repaired)
    clean = RayTransform(nominal)(x[1:])
    assert (found.repaired[1:] - clean).norm() < 0.02 * clean.norm() < 0.2 * (y[1:] - clean).norm()


def test_what_is_said_of_the_shift() -> None:
    x, nominal = _object(), _parallel()
    true = nominal.replace(detector_offset_mm=0.75)
    y = dc.Measurement(RayTransform(true), PoissonNoise(photons=1e6)).simulate(x, seed=0)
    told = dc.Measurement(RayTransform(nominal), PoissonNoise(photons=1e6))
    assert told.diagnose(y).record.get("detector_shift_elements") is not None
    counts = dc.Measurement(RayTransform(nominal), PoissonNoise(photons=1e5, post_log=False))
    assert counts.diagnose(y).record.get("detector_shift_elements") is None  # not line integrals
    noisy = dc.Measurement(RayTransform(nominal), GaussianNoise(sigma=0.01))
    assert noisy.diagnose(y).record.get("detector_shift_elements") == told.diagnose(y).record.get(
        "detector_shift_elements"
    )


@pytest.mark.parametrize(("photons", "told"), [(1e6, True), (20.0, False)])
def test_the_noise_of_a_fan_decides_whether_it_tells(photons: float, told: bool) -> None:
    """The error is that of the two halves of the views."""
    geometry = _fan()
    y = RayTransform(geometry.replace(detector_offset_mm=1.0))(_object())
    noisy = PoissonNoise(photons=photons).sample(y, [torch.Generator().manual_seed(0)])
    found = detector_shift(noisy, geometry)
    assert (found is not None) == told
    if told:
        assert found == pytest.approx(0.5, abs=0.05)


def test_the_error_of_parallel_views_is_that_of_least_squares() -> None:
    """As SciPy's covariance of the constant term, with the views less three degrees of freedom."""
    geometry, position = _parallel(views=9), torch.arange(96).double() - 47.5
    data = torch.rand(2, 9, 96, generator=torch.Generator().manual_seed(0)).double()
    found, error = detector_offset._centre_of_parallel_views(data, position, geometry)
    beta = geometry.angle_array
    for i in range(2):
        centre = (data[i] @ position / data[i].sum(1).mean()).numpy()

        def model(b: np.ndarray, cos: float, sin: float, constant: float) -> np.ndarray:
            return cos * np.cos(b) + sin * np.sin(b) + constant

        best, covariance = curve_fit(model, beta, centre)
        assert float(found[i]) == pytest.approx(best[2], rel=1e-6)
        assert float(error[i]) == pytest.approx(np.sqrt(covariance[2, 2]), rel=1e-6)


@pytest.mark.parametrize(
    ("errors", "change", "told"),
    [
        ([0.0599, 0.0], 0.0, True), ([0.1197, 0.0], 0.0, True), ([0.1203, 0.0], 0.0, False),
        ([0.084, 0.084], 0.0, True), ([0.086, 0.086], 0.0, False), ([0.0, 0.0], 0.0597, True),
        ([0.0, 0.0], -0.0603, False), ([0.07, 0.0], 0.048, True), ([0.07, 0.0], 0.049, False),
    ],
)  # fmt: skip
def test_an_error_of_six_hundredths_of_an_element_is_too_much(
    errors: list[float], change: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the mean over two slices, and the effect of the air, as the sum of their squares."""
    found = torch.tensor([0.3, 0.5], dtype=torch.float64)
    answers = iter([(found, torch.tensor(errors, dtype=torch.float64)), (found - change, torch.full((2,), 9.0))])
    monkeypatch.setattr(detector_offset, "_centre_of_parallel_views", lambda *_: next(answers))
    y = RayTransform(_parallel())(_object()).expand(2, -1, -1, -1)
    shift = detector_shift(y, _parallel())
    assert shift == (pytest.approx(-0.4 + change) if told else None)


def test_six_views_and_85_degrees_are_enough() -> None:
    for geometry, told in (
        (_parallel(views=5), False), (_parallel(views=6), True), (_parallel(84, views=60), False),
        (_parallel(86, views=60), True), (_fan(views=5), False), (_fan(views=6), True), (_fan(degrees=330), False),
    ):  # fmt: skip
        disc = torch.hypot(*torch.meshgrid(torch.arange(SIZE) - 31.5, torch.arange(SIZE) - 31.5, indexing="ij")) < 20
        y = RayTransform(geometry)(0.02 * disc.float()[None, None])
        assert (detector_shift(y, geometry) is not None) == told, geometry


@pytest.mark.parametrize(("element", "share", "told"), [(0, 0.019, True), (0, 0.021, False), (1, 0.021, False),
                                                        (2, 0.021, True), (-1, 0.021, False), (-2, 0.021, False),
                                                        (-3, 0.021, True), (-1, 0.019, True)])  # fmt: skip
def test_two_elements_on_either_side_see_air(
    element: int, share: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a fiftieth of the largest mean over the views."""
    zero = torch.zeros(1, dtype=torch.float64)
    monkeypatch.setattr(detector_offset, "_centre_of_parallel_views", lambda *_: (zero, zero))
    y = RayTransform(_parallel())(_object()).double()
    y[..., :8] = y[..., -8:] = 0
    y[..., element] = share * y.mean(-2).max()
    assert (detector_shift(y, _parallel()) is not None) == told
