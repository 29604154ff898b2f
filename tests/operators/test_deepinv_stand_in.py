"""Our operators as physics of deepinv, with stand-ins for its classes where deepinv is not installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from deft_ct.operators import HDR, Decomposable, Inpainting, MaskedFourier, SuperResolution
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.image.blur import Blur
from deft_ct.operators.interop import as_deepinv_physics


class _Physics:
    def __init__(self, **options: Any) -> None:
        self.options = options


class _LinearPhysics(_Physics):
    pass


class _DecomposablePhysics(_LinearPhysics):
    pass


@pytest.fixture(autouse=True)
def _deepinv(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("deepinv"), ModuleType("deepinv.physics")
    for kind in (_Physics, _LinearPhysics, _DecomposablePhysics):
        setattr(module, kind.__name__[1:], kind)
    monkeypatch.setitem(sys.modules, "deepinv", package)
    monkeypatch.setitem(sys.modules, "deepinv.physics", module)


def test_the_methods_of_deepinv_call_ours() -> None:
    operator = RayTransform(
        ParallelGeometry(image_shape=(12, 10), pixel_mm=1.0, views=5, detectors=18, detector_mm=1.0)
    )
    physics = as_deepinv_physics(operator)
    assert isinstance(physics, _LinearPhysics) and not isinstance(physics, _DecomposablePhysics)
    x = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    y = operator(x)
    assert torch.equal(physics.A(x, anything=1), y)
    assert torch.equal(physics.A_adjoint(y), operator.adjoint(y))
    assert torch.equal(physics.A_dagger(y), operator.pseudo_inverse(y))
    assert physics.options == {} and as_deepinv_physics(operator, "noise").options == {"noise_model": "noise"}


def test_a_decomposition_is_handed_on() -> None:
    """``A = U diag(mask) V^T`` and each map is the transpose of the other."""
    operator = SuperResolution((1, 6, 8), 2)
    assert isinstance(operator, Decomposable)
    physics = as_deepinv_physics(operator, "noise")
    assert isinstance(physics, _DecomposablePhysics) and physics.options["noise_model"] == "noise"
    x = torch.rand(2, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    mask = physics.options["mask"]
    assert mask.dtype == torch.float32 and mask.shape[0] == 1
    again = physics.options["U"](mask * physics.options["V_adjoint"](x))
    torch.testing.assert_close(again, operator(x), rtol=1e-5, atol=1e-6)
    back = physics.options["V"](mask * physics.options["U_adjoint"](operator(x)))
    torch.testing.assert_close(back, operator.adjoint(operator(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "operator",
    [
        Blur((1, 8, 8), torch.ones(3, 3) / 9, boundary="reflect"), MaskedFourier((1, 4, 4), torch.ones(2, 4, 4)),
        Inpainting((1, 4, 4), torch.ones(2, 1, 4, 4)),
    ],
    ids=["another boundary", "a mask for each image", "a hole for each image"],
)  # fmt: skip
def test_without_one_decomposition_for_all_it_is_only_linear(operator: Any) -> None:
    physics = as_deepinv_physics(operator)
    assert isinstance(physics, _LinearPhysics) and not isinstance(physics, _DecomposablePhysics)
    assert physics.options == {}


def test_a_nonlinear_operator_is_plain_physics() -> None:
    operator = HDR((3, 4, 4))
    physics = as_deepinv_physics(operator, "noise")
    assert isinstance(physics, _Physics) and not isinstance(physics, _LinearPhysics)
    assert physics.options == {"noise_model": "noise"} and as_deepinv_physics(operator).options == {}
    x = 2 * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    v = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(physics.A(x, anything=1), operator(x))
    assert torch.equal(physics.A_vjp(x, v), operator.vjp(x, v))
    assert torch.equal(physics.A_dagger(operator(x)), operator.pseudo_inverse(operator(x)))
