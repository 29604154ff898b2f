from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.scales import AffineMap, PriorRange

ALL_HU = np.arange(-1024, 4096, dtype=np.float32)


def test_default_scale_is_that_of_lodopab() -> None:
    # The published constants, in 1/m: MU_WATER = 20, MU_AIR = 0.02, MU_MAX = 3071*(20-0.02)/1000 + 20 = 81.35858.
    scale = HounsfieldScale()
    assert scale.to_attenuation(0.0) == 0.02
    assert scale.to_attenuation(-1000.0) == pytest.approx(0.00002, abs=1e-12)
    assert scale.to_attenuation(3071.0) == pytest.approx(81.35858e-3, abs=1e-12)


def test_water_only_convention() -> None:
    assert HounsfieldScale(mu_water=0.0192, mu_air=0.0).to_attenuation(500.0) == pytest.approx(0.0192 * 1.5)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_round_trip_is_exact_in_float32(convert) -> None:  # type: ignore[no-untyped-def]
    hu = convert(ALL_HU)
    for there, back in (
        (HounsfieldScale().to_attenuation, HounsfieldScale().to_hu),
        (PriorRange().to_prior, PriorRange().from_prior),
    ):
        result = back(there(hu))
        assert result.dtype == hu.dtype
        assert float(abs(result - hu).max()) <= 1e-3


def test_numpy_and_torch_agree_with_float64() -> None:
    exact = 0.02 + ALL_HU.astype(np.float64) * (0.02 - 0.00002) / 1000
    np.testing.assert_allclose(HounsfieldScale().to_attenuation(ALL_HU), exact, rtol=0, atol=1e-8)
    np.testing.assert_allclose(HounsfieldScale().to_attenuation(torch.from_numpy(ALL_HU)).numpy(), exact, atol=1e-8)


def test_prior_range_ends() -> None:
    prior = PriorRange(-1000.0, 1000.0)
    np.testing.assert_array_equal(prior.to_prior(np.array([-1000.0, 0.0, 1000.0, 3000.0])), [-1.0, 0.0, 1.0, 3.0])
    assert (prior.scale, prior.offset) == (1000.0, 0.0)
    assert PriorRange(-1024.0, 3072.0).from_prior(1.0) == 3072.0


@settings(deadline=None, derandomize=True)
@given(
    low=st.floats(-2000, 0),
    width=st.floats(10, 5000),
    water=st.floats(0.015, 0.05),
    hu=st.floats(-1024, 4000),
)
def test_composition_is_the_chain_of_both_maps(low: float, width: float, water: float, hu: float) -> None:
    prior, scale = PriorRange(low, low + width), HounsfieldScale(water, 1e-5)
    both = scale.after(prior)
    x = prior.to_prior(hu)
    assert both(x) == pytest.approx(scale.to_attenuation(hu), rel=1e-9)
    assert both.scale * x + both.offset == pytest.approx(scale.to_attenuation(hu), rel=1e-9)
    assert prior.from_prior(both.inverse(scale.to_attenuation(hu))) == pytest.approx(hu, abs=1e-6)


def test_integers_and_half_precision_become_float32() -> None:
    assert HounsfieldScale().to_attenuation(np.array([0, 40], dtype=np.int16)).dtype == np.float32
    assert HounsfieldScale().to_attenuation(torch.tensor([0, 40])).dtype == torch.float32
    assert PriorRange().from_prior(torch.zeros(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert HounsfieldScale().to_attenuation(np.zeros(2)).dtype == np.float64


def test_gradient_flows() -> None:
    hu = torch.zeros(3, requires_grad=True)
    HounsfieldScale().to_attenuation(hu).sum().backward()
    assert torch.allclose(hu.grad, torch.full((3,), 0.01998 / 1000))  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [(0.02, 0.03), (0.02, -1.0), (float("nan"), 0.0), (0.0, 0.0)])
def test_impossible_attenuations_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="mu_air < mu_water"):
        HounsfieldScale(*values)


def test_bad_prior_range_and_type() -> None:
    with pytest.raises(ValueError, match="low < high"):
        PriorRange(100.0, 100.0)
    with pytest.raises(ValueError, match="non-zero scale"):
        AffineMap(0.0, 1.0)
    with pytest.raises(TypeError, match="NumPy array"):
        HounsfieldScale().to_attenuation([1, 2])  # type: ignore[type-var]
