"""Unusual but legal data for the classical methods: subclasses, strides, gradients, modes and types."""

from __future__ import annotations

import pytest
import torch
from strict_tensor import StrictTensor
from tiny import tiny_scan, tiny_slices

from deft_ct.methods.registry import load_reconstructor


@pytest.fixture(params=["fbp", "tv", "sirt", "cgls", "tikhonov"])
def method(request):
    """One classical method with its defaults."""
    return load_reconstructor(request.param)


@pytest.fixture
def data():
    """The scan and two sinograms."""
    scan = tiny_scan(views=24)
    return scan, scan.simulate(tiny_slices(2), seed=1)


def test_tensor_subclasses(method, data):
    scan, y = data
    mean = method.reconstruct(y.as_subclass(StrictTensor), scan).mean
    torch.testing.assert_close(mean.as_subclass(torch.Tensor), method.reconstruct(y, scan).mean, rtol=0, atol=1e-7)


def test_inference_mode_and_gradients(method, data):
    scan, y = data
    expected = method.reconstruct(y, scan).mean
    with torch.inference_mode():
        torch.testing.assert_close(method.reconstruct(y.clone(), scan).mean, expected, rtol=0, atol=1e-7)
    with_gradient = method.reconstruct(y.clone().requires_grad_(), scan).mean
    torch.testing.assert_close(with_gradient.detach(), expected, rtol=0, atol=1e-7)
    strided = torch.stack([y, y], -1)[..., 0]
    torch.testing.assert_close(method.reconstruct(strided, scan).mean, expected, rtol=0, atol=1e-7)


def test_the_default_type_does_not_matter(method, data):
    scan, y = data
    expected = method.reconstruct(y, scan).mean
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        mean = method.reconstruct(y, tiny_scan(views=24)).mean
    finally:
        torch.set_default_dtype(previous)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_is_computed_in_float32_and_other_types_are_refused(method, data):
    scan, y = data
    mean = method.reconstruct(y.half(), scan).mean
    assert torch.equal(mean, method.reconstruct(y.half().float(), scan).mean)
    with pytest.raises(TypeError, match="floating-point torch tensor"):
        method.reconstruct(y.to(torch.int16), scan)
    with pytest.raises(ValueError, match="empty batch"):
        method.reconstruct(y[:0], scan)
