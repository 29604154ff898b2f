"""The images that operators declare for networks."""

from __future__ import annotations

import pytest
import torch

from deft_ct.operators import (
    HDR,
    JPEG,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    Identity,
    Inpainting,
    NonlinearBlur,
    Operator,
    PhaseRetrieval,
    SuperResolution,
    random_mask,
)

SHAPE = (3, 16, 16)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def operators() -> list[Operator]:
    return [
        Identity(SHAPE), Inpainting(SHAPE, random_mask(SHAPE[1:], 0.5, generator())), SuperResolution(SHAPE, 4),
        GaussianBlur(SHAPE, 5, 1.5), Colorization(SHAPE), CompressedSensing(SHAPE, 0.5, generator()), HDR(SHAPE),
        JPEG(SHAPE, 10), NonlinearBlur.camera(SHAPE, generator(), kernel_size=5), PhaseRetrieval(SHAPE, 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize("operator", operators(), ids=lambda operator: type(operator).__name__)
def test_declared_images_come_as_declared_and_at_the_scale_of_the_image(operator: Operator) -> None:
    x = torch.rand((2, *SHAPE), generator=generator()) * 2 - 1
    y = operator(x)
    declared = operator.feature_images
    of_data = [image for image in declared if not image.of_estimate]
    assert operator.data_images(y).shape == (2, len(of_data), *SHAPE)
    assert operator.estimate_images(x, y).shape == (2, len(declared) - len(of_data), *SHAPE)
    assert declared, "a network would know of the data by the gradient alone"
    largest = torch.cat([operator.data_images(y), operator.estimate_images(x, y)], 1).abs().max()
    assert 0.2 < largest < 3


def test_the_image_of_super_resolution_is_the_up_sampled_image() -> None:
    operator, x = SuperResolution(SHAPE, 4), torch.rand((2, *SHAPE), generator=generator())
    small = operator(x)
    torch.testing.assert_close(
        operator.data_images(small)[:, 0], small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    )


def test_inpainting_declares_the_masks_of_its_images() -> None:
    masks = torch.stack([random_mask(SHAPE[1:], share, generator()) for share in (0.2, 0.8)])
    operator = Inpainting(SHAPE, masks)
    x = torch.rand((2, *SHAPE), generator=generator())
    data, mask = operator.data_images(operator(x)).unbind(1)
    torch.testing.assert_close(mask, masks.float().expand_as(x))
    torch.testing.assert_close(data, masks * x)


def test_images_of_phase_retrieval_keep_the_true_image() -> None:
    operator = PhaseRetrieval(SHAPE, 2.0)
    x = torch.rand((1, *SHAPE), generator=generator()) * 2 - 1
    for image in operator.estimate_images(x, operator(x)).unbind(1):
        torch.testing.assert_close(image, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [(HDR(SHAPE, 2.0), 2.0), (PhaseRetrieval(SHAPE, 2.0), 0.5), (SuperResolution(SHAPE, 4), 0.25)],
    ids=lambda value: type(value).__name__,
)
def test_the_norm_of_an_operator_is_that_of_its_derivative(operator: Operator, expected: float) -> None:
    assert operator.norm() == pytest.approx(expected, rel=0.02)
    assert operator.norms() == [operator.norm()]
