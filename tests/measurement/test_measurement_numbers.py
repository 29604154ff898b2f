"""Defaults, memory, what is known already and what is said: the numbers of a measurement, one by one."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_scan, tiny_slices
from torch.nn import functional

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement import content, residual, slice_coupling
from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import AffineMap, PerImageMap, PriorRange, Scale
from deft_ct.measurement.selection import best_by_residual
from deft_ct.operators import GaussianNoise, Identity, Inpainting, NoNoise, PoissonNoise, memory
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.image_values import ATTENUATION, ImageValues
from deft_ct.operators.linear import LinearOperator

SHAPE = (2, 3, 4)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DEFAULTS: list[tuple[Any, dict[str, Any]]] = [
    (Measurement, {"noise": None, "units": None}),
    (Measurement.simulate, {"seed": 0, "image_ids": None, "refine": 1}),
    (Measurement.noise_free, {"refine": 1}),
    (Measurement.likelihood, {"prior_range": None}),
    (DataTerm, {"weighted": False, "coupling": 0.0, "noise_free": 1e-3}),
    (DataTerm.solve, {"tolerance": 1e-4, "preconditioner": None, "coupling": None}),
    (DataTerm.correction, {"preconditioner": None}),
    (PriorRange, {"low": -1000.0, "high": 1000.0}),
]


@pytest.mark.parametrize(("made", "values"), DEFAULTS, ids=[made.__qualname__ for made, _ in DEFAULTS])
def test_what_is_left_out(made: Any, values: dict[str, Any]) -> None:
    found = inspect.signature(made).parameters
    assert {name: found[name].default for name in values} == values


def test_thresholds() -> None:
    assert (residual.LARGEST_RESIDUAL, residual.LARGEST_RESIDUAL_OF_IMAGES, residual.TIMES_NOISE) == (0.9, 0.3, 5.0)
    assert residual.NAME == "data not explained" and slice_coupling._SMOOTHING == 5e-3
    assert content._NOT_CONTENT == ("training", "backend")


# --- simulation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("refine", [1, 2, 3])
def test_data_that_do_not_fit_into_memory_are_refused(
    dtype: torch.dtype, refine: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clean and the noisy data, and the image on its grid."""
    geometry = ParallelGeometry(image_shape=(6, 5), pixel_mm=1.0, views=7, detectors=9, detector_mm=1.0)
    measurement, x = Measurement(RayTransform(geometry, "matrix")), torch.zeros(2, 1, 6, 5, dtype=dtype)
    measurement.simulate(x, refine=refine)  # so that the finer scan is there already
    needed = (4 if dtype == torch.float32 else 8) * (2 * 2 * 7 * 9 + 2 * 30 * refine**2)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    assert measurement.simulate(x, refine=refine).shape == (2, 1, 7, 9)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"simulating data of 2 images needs at least .*take fewer images at once"):
        measurement.simulate(x, refine=refine)
    with pytest.raises(ValueError, match="refine must be at least 1, got 0"):
        monkeypatch.setattr(memory, "free_bytes", lambda: 10**9)
        measurement.simulate(x, refine=0)


def test_noise_is_that_of_seed_zero_and_the_places() -> None:
    scan, x = tiny_scan(), tiny_slices(2)
    assert torch.equal(scan.simulate(x), scan.simulate(x, seed=0, image_ids=[0, 1]))
    assert not torch.equal(scan.simulate(x), scan.simulate(x, seed=1))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="the image holds NaN or infinite values"):
            scan.simulate(torch.full_like(x, bad))


@pytest.mark.parametrize("lead", [(2,), (2, 1), (2, 3)])
@pytest.mark.parametrize("axes", [2, 3])
def test_finer_images_are_those_of_torch(lead: tuple[int, ...], axes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (5, 4) if axes == 2 else (3, 5, 4)
    geometry: Any = ParallelGeometry.for_image((5, 4), 1.0, 3)
    if axes == 3:
        geometry = ConeGeometry.for_image((3, 5, 4), 1.0, 3, source_to_center_mm=30, source_to_detector_mm=50)
    measurement = Measurement(RayTransform(geometry, "matrix"))
    x, seen = uniform(*lead, *grid), []
    monkeypatch.setattr(measurement, "_refined", lambda factor: lambda fine: seen.append((factor, fine)) or fine)
    measurement.noise_free(x, refine=2)
    flat = x.reshape(-1, 1, *grid)
    mode = "bilinear" if axes == 2 else "trilinear"
    expected = functional.interpolate(flat, scale_factor=2, mode=mode, align_corners=False)
    assert seen[0][0] == 2
    torch.testing.assert_close(seen[0][1], expected.reshape(*lead, *(2 * n for n in grid)), rtol=0, atol=0)


def test_the_parts_of_a_measurement() -> None:
    noise, units = GaussianNoise(0.1), HounsfieldScale()
    measurement = Measurement(Inpainting(SHAPE, torch.ones(3, 1, 3, 4)), noise, units=units)
    for part, images in ((measurement[1:], 2), (measurement.repeat(2), 6), (measurement.to("cpu"), 3)):
        assert part.noise == noise and part.units is units and part.operator.images == images
    chosen = measurement.select_images(lambda values: values[:1])
    assert chosen.operator.images == 1 and chosen.noise == noise and chosen.units is units
    plain = Measurement(Identity(SHAPE))
    assert plain.select_images(lambda values: values[:1]) is plain and plain[:1] is plain
    assert plain.noise == NoNoise() and plain.units is None
    assert plain.describe() == {"operator": "Identity", "noise": {"type": "NoNoise"}}
    assert measurement.describe()["units"] == units.to_dict()
    assert plain.image_values == ImageValues() and measurement.image_values == units.image_values
    assert Measurement(tiny_scan().operator).image_values == ATTENUATION


def test_faults_are_looked_for_in_data_after_the_logarithm() -> None:
    seen: list[Any] = []

    class Asked(Identity):
        def diagnose(self, y: torch.Tensor, weights: torch.Tensor | None = None) -> Any:
            seen.append(weights)
            return super().diagnose(y, weights)

    y = uniform(2, *SHAPE)
    for noise in (NoNoise(), GaussianNoise(0.5), PoissonNoise(100.0, post_log=False), PoissonNoise(100.0)):
        Measurement(Asked(SHAPE), noise).diagnose(y)
    assert len(seen) == 3 and seen[0] is None
    torch.testing.assert_close(seen[1], torch.full_like(y, 4.0))
    torch.testing.assert_close(seen[2], 100 * torch.exp(-y))


# --- likelihood -------------------------------------------------------------------------------------------------------


def test_groups_of_rows_weigh_more_in_what_is_said_of_the_noise() -> None:
    y = uniform(3, *SHAPE)
    likelihood = Measurement(Identity(SHAPE), PoissonNoise(1e4)).likelihood(y)
    assert likelihood.grouped == 1.0 and likelihood.noise_weights is likelihood.weights
    assert likelihood.told(1.0) is likelihood
    grouped = likelihood.told(4.0)
    assert grouped.grouped == 4.0 and likelihood.grouped == 1.0 and grouped.told(4.0) is grouped
    torch.testing.assert_close(grouped.noise_weights, 4 * likelihood.weights)
    assert torch.equal(grouped.weights, likelihood.weights) and torch.equal(grouped.y, y)
    assert grouped[1:].grouped == grouped.repeat(2).grouped == 4.0
    assert Measurement(Identity(SHAPE)).likelihood(y).told(4.0).noise_weights is None


def test_features_are_of_the_noise_that_is_told() -> None:
    scan = tiny_scan(photons=1e4)
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2)), PriorRange())
    torch.testing.assert_close(likelihood.features, scan.operator.features(likelihood.y, likelihood.weights))
    told = likelihood.told(10.0)
    torch.testing.assert_close(told.features, scan.operator.features(likelihood.y, 10 * likelihood.weights))
    assert float((told.features - likelihood.features).abs().max()) > 0.1


def test_weights_are_computed_once_for_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = GaussianNoise.weights
    monkeypatch.setattr(GaussianNoise, "weights", lambda self, y: calls.append(len(y)) or real(self, y))
    likelihood = Measurement(Identity(SHAPE), GaussianNoise(0.1)).likelihood(uniform(3, *SHAPE))
    assert torch.equal(likelihood[1:].weights, likelihood.weights[1:])
    assert calls == [2, 3]  # the part was asked for before the whole was known
    assert torch.equal(likelihood[:1].weights, likelihood.weights[:1])
    assert likelihood.repeat(2).weights.shape[0] == 6 and likelihood.told(2.0).weights is likelihood.weights
    assert calls == [2, 3]


def test_a_map_of_each_image_goes_with_its_image() -> None:
    scale, offset = torch.tensor([1.0, 2, 3]).reshape(3, 1, 1, 1), torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1, 1)
    whole = Likelihood(Measurement(Identity(SHAPE)), uniform(3, *SHAPE).float(), PerImageMap(scale, offset))
    part, x = whole[1:], torch.ones(2, *SHAPE)
    torch.testing.assert_close(part.forward(x), scale[1:] * x + offset[1:])
    torch.testing.assert_close(part.pseudo_inverse(), (whole.y[1:] - offset[1:]) / scale[1:])
    torch.testing.assert_close(part.residual(x), part.y - part.forward(x))


def test_a_pseudo_inverse_that_needs_gradients_is_not_kept() -> None:
    y = uniform(1, *SHAPE).requires_grad_()
    likelihood = Measurement(3 * Identity(SHAPE)).likelihood(y)
    image = likelihood.pseudo_inverse()
    assert image.requires_grad and likelihood.pseudo_inverse() is not image
    (gradient,) = torch.autograd.grad(image.sum(), y)
    torch.testing.assert_close(gradient, torch.full_like(y, 1 / 3))
    with torch.no_grad():
        kept = likelihood.pseudo_inverse()
        assert likelihood.pseudo_inverse() is kept and not kept.requires_grad


# --- scales -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, -math.inf)])
def test_maps_are_finite_and_not_flat(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="an affine map needs a finite, non-zero scale and a finite offset"):
        AffineMap(*values)


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0), (1.0, 1.0), (2.0, 1.0)])
def test_ranges_are_finite_and_not_empty(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"expected finite low < high, got {ends[0]} and {ends[1]}"):
        PriorRange(*ends)


def test_maps_of_numbers_arrays_and_tensors() -> None:
    affine = AffineMap(-2.0, 0.5)
    values: list[Any] = [3, 3.0, np.int16(3), np.float32(3)]
    assert [affine(value) for value in values] == [-5.5] * 4
    assert [affine.inverse(value) for value in values] == [-1.25] * 4
    assert all(type(affine(value)) is float for value in values)
    for array in (np.array([3], np.int16), np.array([3], np.float16)):
        assert affine(array).dtype == np.float32 and affine(array).tolist() == [-5.5]
    for dtype in (torch.int32, torch.float16, torch.bfloat16, torch.bool):
        assert affine(torch.ones(1, dtype=dtype)).dtype == torch.float32
    assert affine(torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    assert affine(np.ones(1)).dtype == np.float64
    both = affine.after(AffineMap(3.0, 4.0))
    assert (both.scale, both.offset) == (-6.0, -7.5)
    assert dataclasses.astuple(PriorRange(-100.0, 300.0).affine) == (200.0, 100.0)


def test_a_step_of_the_contrast_is_one_unit() -> None:
    class Celsius(Scale):
        unit, plausible = "C", 1e3
        affine = AffineMap(-0.5, 3.0)
        background = 20.0

        def to_dict(self) -> dict[str, Any]:
            return {}

    assert Celsius().image_values == ImageValues(contrast=0.5)
    prior = Celsius().after(PriorRange(0.0, 10.0))
    assert (prior.scale, prior.offset) == (-2.5, 0.5)


# --- data term and residual -------------------------------------------------------------------------------------------


def test_the_norm_is_that_on_the_range_of_the_prior() -> None:
    """For one map and for one of each image, whatever their sign."""
    y = torch.zeros(2, *SHAPE)
    likelihood = Measurement(3 * Identity(SHAPE), GaussianNoise(0.5)).likelihood(y)
    likelihood.to_physical = AffineMap(-2.0, 1.0)
    torch.testing.assert_close(DataTerm(likelihood).norm, torch.tensor([6.0, 6.0]))
    likelihood.to_physical = PerImageMap(torch.tensor([-1.0, 4.0]).reshape(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    term = DataTerm(likelihood)
    torch.testing.assert_close(term.norm, torch.tensor([3.0, 12.0]))
    torch.testing.assert_close(term.sigma, torch.tensor([0.5, 0.5]))
    assert not term.exact and DataTerm(Measurement(Identity(SHAPE)).likelihood(y)).exact
    x = torch.ones(2, *SHAPE)
    torch.testing.assert_close(term.normal(x), torch.tensor([9.0, 144.0]).reshape(2, 1, 1, 1) * x)
    torch.testing.assert_close(term.descent(x), torch.tensor([3.0, -12.0]).reshape(2, 1, 1, 1) * term.residual(x) * -1)


def test_the_system_is_solved_to_a_ten_thousandth(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def solver(matrix: Any, rhs: torch.Tensor, **options: Any) -> tuple[torch.Tensor, int]:
        given.update(options)
        return rhs, 0

    monkeypatch.setattr("deft_ct.measurement.data_term.conjugate_gradient", solver)
    term = DataTerm(Measurement(Identity(SHAPE), GaussianNoise(0.5)).likelihood(torch.zeros(1, *SHAPE)))
    term.solve(torch.ones(1, *SHAPE), torch.ones(1), iterations=7)
    assert given == {"iterations": 7, "tolerance": 1e-4, "preconditioner": None}
    assert per_sample(torch.arange(3), torch.zeros(3, 1, 2, 2)).shape == (3, 1, 1, 1)


def test_a_finding_speaks_of_projections_where_there_is_a_scale() -> None:
    scan, image = tiny_scan(), tiny_slices(2)
    y = scan.noise_free(image)
    found = residual.unexplained(y, -image, scan)
    assert found is not None and found.text.startswith(
        "the projections of the images at [0, 1] (counted from 0) differ"
    )
    assert "of which noise explains" in found.text and "check their sign, logarithm and geometry, and" in found.text
    plain = Measurement(Identity(SHAPE))
    said = residual.unexplained(torch.ones(1, *SHAPE), -torch.ones(1, *SHAPE), plain)
    assert said is not None and said.text.startswith("the images at [0] (counted from 0), degraded again, differ from")
    assert "by up to 2 of their size, of which noise explains 0;" in said.text
    assert "check the operator and its noise, and" in said.text and not said.repaired
    assert residual.relative_residuals(torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE), plain).tolist() == [0.0]


def test_the_worst_is_of_those_that_are_named() -> None:
    """Noise may explain a larger residual of another image."""
    y = torch.ones(2, *SHAPE)
    image = y * torch.tensor([-9.0, 2.0]).reshape(2, 1, 1, 1)

    class Loud(GaussianNoise):
        def weights(self, y: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(y) * torch.tensor([1e-2, 1e6]).reshape(2, 1, 1, 1)

    found = residual.unexplained(y, image, Measurement(Identity(SHAPE), Loud(1.0)))
    assert found is not None and "images at [1]" in found.text and "by up to 1 of their size" in found.text


def test_the_best_sample_is_the_one_that_explains_the_data() -> None:
    y = torch.ones(2, *SHAPE)
    factors = torch.tensor([[1.5, 0.9, -1.0], [0.0, 3.0, 1.25]])
    samples = factors.reshape(2, 3, 1, 1, 1) * y[:, None]
    best, residuals = best_by_residual(y, samples, Measurement(Identity(SHAPE)))
    assert best.tolist() == [1, 2]
    torch.testing.assert_close(residuals, torch.tensor([[0.5, 0.1, 2.0], [1.0, 2.0, 0.25]]))


def test_lazy_and_private_attributes_are_no_content() -> None:
    class Odd(Identity):
        def __init__(self) -> None:
            super().__init__((2,))
            self.flag, self.level, self.name, self.sizes, self._hidden = True, 2.5, "a", (1, 2), 7
            self.table, self.ignored = torch.ones(2), [1, 2]
            self.register_buffer("empty", torch.empty(0))

    found = content.measurement_content(Measurement(Odd()))["parameters"][""]
    assert {"flag", "level", "name", "sizes", "table"} <= set(found)
    assert not {"_hidden", "ignored", "empty", "training", "backend"} & set(found)
    assert found["sizes"] == (1, 2) and isinstance(found["table"], str)
    assert isinstance(Odd(), LinearOperator)
