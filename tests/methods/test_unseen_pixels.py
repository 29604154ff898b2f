"""Pixels that no ray meets stay at zero attenuation in every method."""

import math
import warnings

import numpy as np
import pytest
import torch
from contract import FEW, MODELS, tiny_model
from tiny import tiny_htransform, tiny_prior, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical import StoppingRule, total_variation, tv_objective
from deft_ct.methods.registry import Networks, method_class, methods
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise

CT_METHODS = [name for name in methods() if getattr(method_class(name), "needs", "any") not in ("svd", "projection")]
SCANS = {
    "limited wedge": {"angles": tuple(np.linspace(0, math.radians(30), 10)), "detectors": 26},
    "truncated field of view": {"angles": (0.0, 0.1, math.pi / 2, math.pi / 2 + 0.1), "detectors": 22},
}


def scan(kind: str) -> Measurement:
    geometry = ParallelGeometry(image_shape=(32, 32), pixel_mm=8.0, detector_mm=8.0, **SCANS[kind])
    return Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize("name", CT_METHODS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights explain no data
def test_every_method_leaves_them_at_zero(name: str, kind: str) -> None:
    measurement = scan(kind)
    unseen = measurement.operator.unseen()
    assert unseen is not None and 12 <= int(unseen.sum()) < 500
    prior = tiny_prior()
    networks = Networks(
        prior=prior, htransform=tiny_htransform(prior, tv_iterations=3) if name == "deft" else None,
        models={name: tiny_model(name)} if name in MODELS else {},
    )  # fmt: skip
    known = method_class(name).config_type.__dataclass_fields__
    method = networks.build(name, {key: value for key, value in FEW.items() if key in known and key != "channels"})
    result = method.reconstruct(measurement.simulate(tiny_slices(1), seed=2), measurement, num_samples=2)
    assert bool((result.mean[0, 0][unseen] == 0).all())
    assert result.provenance["unseen_pixels"] == int(unseen.sum())
    if result.samples is not None:
        assert bool((result.samples[..., unseen] == 0).all())
    assert float(result.mean.abs().max()) > 0


@pytest.mark.parametrize("nonnegative", [True, False])
def test_total_variation_holds_them_at_zero_and_knows_it_in_the_iteration(nonnegative: bool) -> None:
    """The rest of the image is the minimiser under this constraint: no change of a seen pixel lowers the objective."""
    measurement = scan("limited wedge")
    operator = measurement.operator
    unseen = operator.unseen()
    y = measurement.simulate(tiny_slices(1).double(), seed=2)[:, 0]
    weights = measurement.fit_weights(y)
    x, _ = total_variation(
        y, operator, weights=weights, strength=250.0, nonnegative=nonnegative,
        stopping=StoppingRule(iterations=1500, tolerance=1e-6),
    )  # fmt: skip
    assert bool((x[:, unseen] == 0).all())
    best = float(tv_objective(x, y, operator, weights=weights, strength=250.0))
    generator = torch.Generator().manual_seed(0)
    for size in (1e-5, 1e-4, 1e-3):
        step = size * torch.randn(x.shape, generator=generator, dtype=x.dtype).masked_fill(unseen, 0)
        trial = (x + step).clamp_min(0) if nonnegative else x + step
        assert float(tv_objective(trial, y, operator, weights=weights, strength=250.0)) > best


def test_a_scan_that_sees_everything_says_nothing_of_it() -> None:
    geometry = ParallelGeometry(image_shape=(32, 32), pixel_mm=8.0, detector_mm=8.0, views=8)
    measurement = Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = Networks().build("fbp", {}).reconstruct(measurement.simulate(tiny_slices(1)), measurement)
    assert "unseen_pixels" not in result.provenance


@pytest.mark.parametrize("name", ["tv", "sirt", "fbp"])
def test_voxels_beside_a_cone_stay_at_zero(name: str) -> None:
    cone = ConeGeometry(
        image_shape=(20, 16, 16), pixel_mm=8.0, detectors=(6, 24), detector_mm=16.0, source_to_center_mm=480.0,
        source_to_detector_mm=720.0, views=8,
    )  # fmt: skip
    measurement = Measurement(RayTransform(cone), PoissonNoise(photons=1e5), units=HounsfieldScale())
    unseen = measurement.operator.unseen()
    assert unseen is not None and int(unseen.sum()) > 100
    truth = torch.zeros(1, 20, 16, 16)
    truth[:, :, 5:11, 5:11] = 0.02  # water, in all slices
    config = {"iterations": 5} if name in ("tv", "sirt") else {}
    result = Networks().build(name, config).reconstruct(measurement.simulate(truth, seed=2), measurement)
    assert bool((result.mean[0][unseen] == 0).all())
    assert float(result.mean.max()) > 0.01
    assert result.provenance["unseen_pixels"] == int(unseen.sum())
