"""The split into measured and unmeasured parts, against closed forms and a dense solution."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.evaluation.null_space import (
    MeasuredSplit,
    local_rms,
    null_space_report,
    split,
)
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import HDR, GaussianNoise, Inpainting, NoNoise, PoissonNoise
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.problems.ct_null_space import PRIOR_STD_HU, split_ct, unmeasured_map_hu

SIZE = 12


def tiny_ct(noise: Any = None) -> Measurement:
    geometry = ParallelGeometry(image_shape=(SIZE, SIZE), pixel_mm=2.0, views=5, detectors=20, detector_mm=2.0)
    return Measurement(RayTransform(geometry), noise or PoissonNoise(photons=1e4), units=HounsfieldScale())


def attenuation(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.02 + 0.004 * torch.randn(count, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)


def test_of_a_mask_the_split_is_the_mask() -> None:
    mask = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    sigma, spread = 0.05, 0.2
    measurement = Measurement(Inpainting((1, 8, 8), mask), GaussianNoise(sigma))
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    parts = split(x, torch.zeros_like(x), measurement, prior_std=spread, tolerance=1e-12)
    share = spread**2 / (spread**2 + sigma**2)
    torch.testing.assert_close(parts.measured, share * mask * x)
    torch.testing.assert_close(parts.measured + parts.unmeasured, x, rtol=0, atol=1e-15)


def test_of_a_scan_it_is_the_dense_solution() -> None:
    measurement = tiny_ct()
    x = attenuation(2)
    y = measurement.simulate(x, seed=1)
    parts = split_ct(x, y, measurement, tolerance=1e-12)
    columns = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, 1, SIZE, SIZE)
    matrix = measurement.operator(columns).flatten(1).T
    precision = torch.eye(SIZE * SIZE, dtype=torch.float64) / (PRIOR_STD_HU * HounsfieldScale().scale) ** 2
    for k, weights in enumerate(measurement.noise.weights(y).flatten(1)):
        normal = matrix.T @ (weights[:, None] * matrix)
        expected = torch.linalg.solve(normal + precision, normal @ x[k].flatten())
        torch.testing.assert_close(parts.measured[k].flatten(), expected, rtol=1e-8, atol=1e-11)


def test_of_the_null_space_nothing_is_measured() -> None:
    measurement = tiny_ct()
    y = measurement.simulate(attenuation(1))
    columns = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, 1, SIZE, SIZE)
    matrix = measurement.operator(columns).flatten(1).T
    _, values, vectors = torch.linalg.svd(matrix)
    assert values[-1] < 1e-6 * values[0] or len(vectors) > len(values)  # so there is a null space
    hidden = 0.004 * vectors[-1].reshape(1, 1, SIZE, SIZE)
    parts = split_ct(hidden, y, measurement, tolerance=1e-10)
    assert float(parts.measured.norm()) < 1e-5 * float(hidden.norm())


def test_an_image_does_not_depend_on_its_batch() -> None:
    measurement = tiny_ct()
    x = attenuation(3)
    y = measurement.simulate(x)
    torch.testing.assert_close(
        split_ct(x, y, measurement).unmeasured[1:2], split_ct(x[1:2], y[1:2], measurement).unmeasured
    )


def test_noise_free_data_are_weighed_as_a_million_photons() -> None:
    x = attenuation(1)
    y = tiny_ct(NoNoise()).simulate(x)
    free, counted = (split_ct(x, y, tiny_ct(noise)).measured for noise in (NoNoise(), PoissonNoise(photons=1e6)))
    torch.testing.assert_close(free, counted)


def test_local_rms_of_constants_and_of_an_impulse() -> None:
    torch.testing.assert_close(local_rms(torch.full((2, 1, 9, 7), -3.0)), torch.full((2, 1, 9, 7), 3.0))
    impulse = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    impulse[..., 15, 15] = 5
    found = local_rms(impulse, sigma=2.0)
    # The energy is spread, not lost; the peak is that of a normalised Gaussian.
    torch.testing.assert_close(found.square().sum(), torch.tensor(25.0, dtype=torch.float64))
    assert float(found[0, 0, 15, 15]) == pytest.approx(5 / (2 * torch.pi * 4) ** 0.5, rel=5e-3)
    with pytest.raises(ValueError, match="sigma must be a positive number, got 0"):
        local_rms(impulse, sigma=0)
    with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\)"):
        local_rms(impulse[0])


def test_the_map_is_in_hu() -> None:
    measurement = tiny_ct()
    x = attenuation(1)
    y = measurement.simulate(x)
    hu = local_rms(split_ct(x, y, measurement).unmeasured) / HounsfieldScale().scale
    torch.testing.assert_close(unmeasured_map_hu(x, y, measurement), hu)
    without = Measurement(measurement.operator, measurement.noise)
    with pytest.raises(ValueError, match="a map in HU needs a Hounsfield scale"):
        unmeasured_map_hu(x, y, without)


def test_report_of_known_parts() -> None:
    zero = torch.zeros(3, 1, 1, 2)
    truth = MeasuredSplit(measured=zero, unmeasured=torch.tensor([[3.0, 4.0]]).expand(3, 1, 1, 2))
    # The unmeasured parts of the reconstructions are (1.5, 2), (4, -3) and (3, 4).
    error = MeasuredSplit(
        measured=torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).reshape(3, 1, 1, 2),
        unmeasured=torch.tensor([[-1.5, -2.0], [1.0, -7.0], [0.0, 0.0]]).reshape(3, 1, 1, 2),
    )
    report = null_space_report(error, truth)
    torch.testing.assert_close(report.correlation, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(report.amount, torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(report.error_unmeasured, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(report.error_measured, 1 - report.error_unmeasured)
    with pytest.raises(ValueError, match="must have one shape"):
        null_space_report(error, MeasuredSplit(measured=zero[:1], unmeasured=zero[:1]))


def test_shares_of_an_error_lie_between_zero_and_one() -> None:
    measurement = tiny_ct()
    x = attenuation(4)
    y = measurement.simulate(x)
    report = null_space_report(
        *(split_ct(image, y, measurement, tolerance=1e-8) for image in (attenuation(4, 7) - x, x))
    )
    assert bool(((report.error_unmeasured > 0.05) & (report.error_unmeasured < 0.95)).all())


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(1, 1, SIZE, SIZE + 1)}, ValueError, r"must be \(B, C, H, W\) and end with \(12, 12\)"),
    ({"x": torch.zeros(SIZE, SIZE)}, ValueError, r"must be \(B, C, H, W\)"),
    ({"x": torch.full((1, 1, SIZE, SIZE), float("nan"))}, ValueError, "the images hold 144 NaN or infinite values"),
    ({"x": torch.zeros(2, 1, SIZE, SIZE)}, ValueError, "got 2 images and data of 1"),
    ({"y": torch.zeros(1, 1, 5, 19)}, ValueError, "the data must have shape"),
    ({"prior_std": 0.0}, ValueError, "prior_std must be a positive number, got 0.0"),
    ({"prior_std": -1.0}, ValueError, "prior_std must be a positive number, got -1.0"),
    ({"tolerance": float("nan")}, ValueError, "tolerance must be a positive number, got nan"),
    ({"measurement": tiny_ct(PoissonNoise(photons=1e4, post_log=False))}, ValueError, "needs post-log data"),
    ({"measurement": Measurement(HDR((1, SIZE, SIZE)))}, TypeError, "needs a LinearOperator, got HDR"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_gives_one_clear_error(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"x": torch.zeros(1, 1, SIZE, SIZE), "y": torch.zeros(1, 1, 5, 20), "measurement": tiny_ct()}
    with pytest.raises(error, match=message):
        split(**{**good, **change})


def test_too_few_iterations_are_said() -> None:
    measurement = tiny_ct()
    x = attenuation(1)
    with pytest.warns(UserWarning, match="stopped after 2 iterations"):
        split(x, measurement.simulate(x), measurement, iterations=2)
