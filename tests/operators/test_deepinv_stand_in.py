"""Our operators as physics of deepinv, with a stand-in for its class where deepinv is not installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.interop import as_deepinv_physics


class _LinearPhysics:
    def __init__(self, **options: Any) -> None:
        self.options = options


def test_the_methods_of_deepinv_call_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("deepinv"), ModuleType("deepinv.physics")
    module.LinearPhysics = _LinearPhysics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deepinv", package)
    monkeypatch.setitem(sys.modules, "deepinv.physics", module)
    operator = RayTransform(
        ParallelGeometry(image_shape=(12, 10), pixel_mm=1.0, views=5, detectors=18, detector_mm=1.0)
    )
    physics = as_deepinv_physics(operator)
    x = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    y = operator(x)
    assert torch.equal(physics.A(x, anything=1), y)
    assert torch.equal(physics.A_adjoint(y), operator.adjoint(y))
    assert torch.equal(physics.A_dagger(y), operator.pseudo_inverse(y))
    assert physics.options == {} and as_deepinv_physics(operator, "noise").options == {"noise_model": "noise"}
