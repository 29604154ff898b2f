"""deepinv's checks of physics on all our operators, and its DDRM through our singular value decompositions.

deepinv imports torchvision, which does not import beside a torch of another build: the tests then skip with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.operators import (
    HDR,
    JPEG,
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    Identity,
    Inpainting,
    LinearOperator,
    MaskedFourier,
    MotionBlur,
    NonlinearBlur,
    Operator,
    PhaseRetrieval,
    Quantisation,
    SuperResolution,
)
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.interop import as_deepinv_physics
from deft_ct.operators.svd import Decomposable

SHAPE = (3, 16, 16)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=rng(seed))


def mask(*shape: int) -> torch.Tensor:
    return (rand(*shape) > 0.4).float()


LINEAR: dict[str, Callable[[], LinearOperator]] = {
    "identity": lambda: Identity(SHAPE),
    "inpainting": lambda: Inpainting(SHAPE, mask(1, 16, 16)),
    "average": lambda: SuperResolution(SHAPE, 4),
    "bicubic": lambda: SuperResolution(SHAPE, 4, "bicubic"),
    "gaussian": lambda: GaussianBlur(SHAPE, 9, 1.5),
    "circular": lambda: Blur(SHAPE, rand(3, 5), boundary="circular"),
    "motion": lambda: MotionBlur(SHAPE, rng(), 7, 0.5),
    "valid": lambda: Blur(SHAPE, rand(3, 5), boundary="valid"),
    "colour": lambda: Colorization(SHAPE),
    "compressed": lambda: CompressedSensing(SHAPE, 0.25, rng()),
    "fourier": lambda: MaskedFourier(SHAPE, mask(16, 16)),
    "rays": lambda: RayTransform(
        ParallelGeometry(image_shape=(16, 16), pixel_mm=1.0, views=6, detectors=24, detector_mm=1.0)
    ),
}
NONLINEAR: dict[str, Callable[[], Operator]] = {
    "hdr": lambda: HDR(SHAPE),
    "phase": lambda: PhaseRetrieval(SHAPE),
    "camera": lambda: NonlinearBlur.camera(SHAPE, rng(), kernel_size=5),
    "jpeg": lambda: JPEG(SHAPE, 20),
    "quantisation": lambda: Quantisation(SHAPE, 3),
}


@pytest.fixture
def deepinv() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # torchvision built for another torch raises RuntimeError.
        yield pytest.importorskip("deepinv", exc_type=(ImportError, RuntimeError))


def image(operator: Operator) -> torch.Tensor:
    channels = () if len(operator.domain_shape) == 3 else (1,)
    return rand(1, *channels, *operator.domain_shape, seed=1)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_physics(deepinv: Any, name: str) -> None:
    operator = LINEAR[name]()
    physics, x = as_deepinv_physics(operator), image(operator)
    y = physics.A(x)
    assert float(physics.adjointness_test(x).abs()) < 1e-3 * float(y.square().sum())
    assert float(physics.compute_norm(x, verbose=False)) ** 0.5 == pytest.approx(operator.norm(), rel=0.05) or float(
        physics.compute_norm(x, verbose=False)
    ) == pytest.approx(operator.norm() ** 2, rel=0.05)
    torch.testing.assert_close(physics.A_vjp(x, y), operator.adjoint(y), rtol=1e-4, atol=1e-5)
    # Its proximal step, closed by our singular values where they are, against conjugate gradients.
    found = physics.prox_l2(x, y, 2.0)
    descent = x - found + 2.0 * operator.adjoint(y - operator(found))
    assert float(descent.abs().max()) < 2e-2 * float(x.abs().max())


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_physics(deepinv: Any, name: str) -> None:
    operator = NONLINEAR[name]()
    physics, x = as_deepinv_physics(operator, deepinv.physics.GaussianNoise(0.01)), image(operator)
    assert not isinstance(physics, deepinv.physics.LinearPhysics)
    y = operator(x)
    assert torch.equal(physics.A(x), y)
    assert torch.equal(physics.A_vjp(x, y), operator.vjp(x, y))
    assert 0 < float((physics(x) - y).std()) < 0.02


@pytest.mark.parametrize("name", [name for name, build in LINEAR.items() if isinstance(build(), Decomposable)])
def test_ddrm_of_deepinv_through_our_decomposition(deepinv: Any, name: str) -> None:
    """With a denoiser that knows the truth, its sample explains the data and is the truth but for its last noise."""
    operator = LINEAR[name]()
    physics = as_deepinv_physics(operator, deepinv.physics.GaussianNoise(0.01))
    if not isinstance(physics, deepinv.physics.DecomposablePhysics):
        pytest.skip("this boundary has no cheap decomposition")
    x = image(operator)
    sampler = deepinv.sampling.DDRM(lambda noisy, sigma: x, sigmas=np.linspace(1, 0.001, 20), eta=0.85)
    found = sampler(operator(x), physics, seed=1)
    assert float((found - x).abs().mean()) < 0.02
