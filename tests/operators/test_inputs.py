"""Unusual but legal inputs of every operator: subclasses, empty and strided batches, other default types."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from strict_tensor import StrictTensor

from deft_ct.operators import (
    HDR,
    JPEG,
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    Identity,
    Inpainting,
    PhaseRetrieval,
    Quantisation,
    Selection,
    SuperResolution,
    stack,
)
from deft_ct.operators.base import Operator
from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backprojection import FilteredBackprojection
from deft_ct.operators.linear import LinearOperator

PARALLEL = ParallelGeometry.for_image((16, 16), 1.0, 8)
FAN = FanGeometry.for_image((16, 16), 1.0, 8, source_to_center_mm=60, source_to_detector_mm=100)
CONE = ConeGeometry(
    image_shape=(4, 8, 8), pixel_mm=1.0, views=6, detectors=(6, 12), detector_mm=1.5, source_to_center_mm=60,
    source_to_detector_mm=100,
)  # fmt: skip
SHAPE = (3, 16, 16)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


OPERATORS: dict[str, Callable[[], Operator]] = {
    "identity": lambda: Identity(SHAPE),
    "inpainting": lambda: Inpainting(SHAPE, (torch.arange(256).reshape(1, 16, 16) % 3 > 0).float()),
    "super_resolution": lambda: SuperResolution(SHAPE, 4),
    "gaussian_blur": lambda: GaussianBlur(SHAPE, kernel_size=5, std=1.0),
    "blur": lambda: Blur(SHAPE, torch.full((3, 5), 1 / 15, dtype=torch.float32)),
    "circular_blur": lambda: Blur(SHAPE, torch.full((3, 5), 1 / 15, dtype=torch.float32), boundary="circular"),
    "colorization": lambda: Colorization(SHAPE),
    "compressed_sensing": lambda: CompressedSensing(SHAPE, 0.5, _generator()),
    "compressed_sensing_dct": lambda: CompressedSensing(SHAPE, 0.5, _generator(), transform="dct"),
    "hdr": lambda: HDR(SHAPE),
    "jpeg": lambda: JPEG(SHAPE, 10),
    "quantisation": lambda: Quantisation(SHAPE, 4),
    "phase_retrieval": lambda: PhaseRetrieval(SHAPE),
    "selection": lambda: Selection(9, [4, 0, 5]),
    "parallel": lambda: RayTransform(PARALLEL, backend="matrix"),
    "strip": lambda: RayTransform(PARALLEL, kernel="strip"),
    "fan": lambda: RayTransform(FAN, backend="matrix"),
    "joseph": lambda: RayTransform(FAN, backend="joseph"),
    "symmetric": lambda: RayTransform(PARALLEL, backend="symmetric"),
    "cone": lambda: RayTransform(CONE, backend="matrix"),
    "joseph_cone": lambda: RayTransform(CONE, backend="joseph"),
    "fbp": lambda: FilteredBackprojection(PARALLEL),
    "algebra": lambda: 2 * RayTransform(PARALLEL) @ (Identity((16, 16)) - Identity((16, 16)) / 3),
    "stack": lambda: stack([RayTransform(PARALLEL), RayTransform(PARALLEL)]),
}


@pytest.fixture(params=OPERATORS)
def operator(request) -> Operator:
    """One operator of each kind."""
    if request.param.startswith("joseph"):
        pytest.importorskip("numba")
    return OPERATORS[request.param]()


def _image(operator: Operator, batch: int = 2) -> torch.Tensor:
    return torch.rand((batch, *operator.domain_shape), generator=_generator())


def _maps(operator: Operator) -> list[tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]]:
    x = _image(operator)
    if not isinstance(operator, LinearOperator):
        return [(operator, x)]
    y = operator(x)
    return [(operator, x), (operator.adjoint, y), (operator.normal, x), (operator.pseudo_inverse, y)]


def test_tensor_subclasses_that_want_sizes_as_tuples(operator):
    for apply, x in _maps(operator):
        out = apply(x.as_subclass(StrictTensor))
        assert torch.equal(out.as_subclass(torch.Tensor), apply(x))
    if isinstance(operator, LinearOperator):
        y = operator(_image(operator)).as_subclass(StrictTensor)
        assert operator.first_guess(y).shape == (2, *operator.domain_shape)


def test_an_empty_batch_gives_an_empty_batch(operator):
    assert operator(_image(operator, 0)).shape == (0, *operator.range_shape)
    if isinstance(operator, LinearOperator):
        y = torch.zeros((0, *operator.range_shape))
        for apply in (operator.adjoint, operator.pseudo_inverse, operator.first_guess):
            assert apply(y).shape == (0, *operator.domain_shape)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.complex64])
def test_integers_are_refused_with_what_to_do(operator, dtype):
    with pytest.raises(TypeError, match=r"floating-point torch tensor, got torch\.\w+; convert it with x\.float\(\)"):
        operator(_image(operator).to(dtype))


def test_inference_mode(operator):
    with torch.inference_mode():  # first, so that whatever is cached is made in it
        inside = [apply(x).clone() for apply, x in _maps(operator)]
    for (apply, x), result in zip(_maps(operator), inside, strict=True):
        torch.testing.assert_close(result, apply(x), rtol=0, atol=0)
    # What inference mode has cached can be differentiated afterwards.
    x = _image(operator).requires_grad_()
    out = operator(x)
    if out.requires_grad:
        out.sum().backward()
        assert x.grad is not None


def test_the_default_type_does_not_matter(operator, request):
    expected = [apply(x) for apply, x in _maps(operator)]
    norm = operator.norm() if isinstance(operator, LinearOperator) else None
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        name = request.node.callspec.params["operator"]
        again = OPERATORS[name]()
        x = torch.rand((2, *operator.domain_shape), generator=_generator(), dtype=torch.float32)
        y = again(x)
        got = [y]
        if isinstance(again, LinearOperator):
            got += [again.adjoint(y), again.normal(x), again.pseudo_inverse(y)]
            assert again.norm() == pytest.approx(norm, rel=1e-6)
    finally:
        torch.set_default_dtype(previous)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_strided_inputs_and_inputs_with_gradients(operator):
    for apply, x in _maps(operator):
        strided = torch.stack([x, x], -1)[..., 0]
        assert not strided.is_contiguous()
        torch.testing.assert_close(apply(strided), apply(x), rtol=1e-6, atol=1e-6 * float(apply(x).abs().max()))
        expanded = x[:1].expand(3, *x.shape[1:])
        torch.testing.assert_close(apply(expanded)[2], apply(x)[0], rtol=1e-5, atol=1e-5 * float(apply(x).abs().max()))
        with_gradient = apply(x.clone().requires_grad_())
        assert torch.equal(with_gradient.detach(), apply(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(operator, dtype):
    for apply, x in _maps(operator)[:2]:
        out = apply(x.to(dtype))
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, apply(x.to(dtype).float()), rtol=0, atol=0)
