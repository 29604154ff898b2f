"""Mixed precision: networks only, never the operators."""

from __future__ import annotations

import pytest
import torch

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.methods.registry import load_reconstructor
from deft_ct.networks import UNet, UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform


def _prior(precision: str = "float32") -> Prior:
    torch.manual_seed(0)
    config = UNetConfig(channels=(32, 32), attention=(False, False), patch=2)
    return Prior(UNet(config), Schedule(), image_shape=(1, 16, 16), precision=precision)  # type: ignore[arg-type]


def test_bfloat16_changes_the_network_a_little_and_the_type_not_at_all() -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    exact, coarse = _prior().eps(x, 500), _prior("bfloat16").eps(x, 500)
    assert coarse.dtype == torch.float32
    difference = float((exact - coarse).norm() / exact.norm())
    assert 1e-5 < difference < 0.03  # bfloat16 has 8 bits: 0.4 % for each rounding


def test_operators_ignore_autocast() -> None:
    operator = RayTransform(ParallelGeometry.for_image((16, 16), 1.0, 12))
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    y = operator(x)
    (back,) = torch.autograd.grad(y.square().sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = operator(x)
        (mixed_back,) = torch.autograd.grad(mixed.square().sum(), x)
    assert torch.equal(y, mixed)
    assert torch.equal(back, mixed_back)


def test_kernels_run_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = RayTransform(ParallelGeometry.for_image((16, 16), 1.0, 12))
    seen: list[bool] = []
    kernel = operator._forward_kernel

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return kernel(x)

    monkeypatch.setattr(operator, "_forward_kernel", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        operator(torch.rand(1, 1, 16, 16))
    assert seen == [False]


def test_a_method_takes_its_own_precision_and_leaves_the_prior_as_it_was() -> None:
    prior = _prior()
    method = load_reconstructor("unconditional", prior=prior, precision="bfloat16")
    assert prior.precision == "float32"
    assert method.prior.precision == "bfloat16"  # type: ignore[attr-defined]
    assert method.describe()["network_precision"] == "bfloat16"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precision 'bf8'; known: float32, bfloat16, float16"):
        load_reconstructor("unconditional", prior=_prior(), precision="bf8")  # type: ignore[arg-type]
