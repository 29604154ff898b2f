"""What operators and scales say of the values of images, and the norms of derivatives."""

from __future__ import annotations

import pytest
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import HDR, Identity, Inpainting, PhaseRetrieval
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.image_values import ATTENUATION, ImageValues

SHAPE = (3, 8, 8)


def rays() -> RayTransform:
    return RayTransform(ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, views=4, detectors=12, detector_mm=1.0))


def test_combinations_take_the_values_of_the_operand_on_the_image() -> None:
    base = rays()
    for operator in (base, 2 * base, base + base, base | base, base.T @ base):
        assert operator.image_values == ATTENUATION
    assert base.T.image_values == Identity(SHAPE).image_values == ImageValues()


def test_the_scale_of_a_measurement_goes_before_the_operator() -> None:
    assert Measurement(Identity((1, 8, 8)), units=HounsfieldScale()).image_values == ATTENUATION
    assert Measurement(rays()).image_values == ATTENUATION


def test_a_contrast_is_positive() -> None:
    with pytest.raises(ValueError, match="contrast must be above 0"):
        ImageValues(contrast=0.0)


@pytest.mark.parametrize("operator", [HDR(SHAPE), PhaseRetrieval(SHAPE)])
def test_norm_of_a_derivative_is_that_of_its_matrix(operator: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    point = 0.5 * torch.randn(1, *SHAPE, generator=generator)
    matrix = torch.autograd.functional.jacobian(lambda x: operator(x[None])[0], point[0])
    expected = float(torch.linalg.matrix_norm(matrix.reshape(-1, point.numel()), ord=2))
    assert operator.norms(iterations=300, tolerance=0.0) == pytest.approx([expected], rel=1e-3)


def test_norms_of_a_linear_operator_stay_its_norms() -> None:
    mask = torch.ones(2, 1, 8, 8)
    mask[1] = 0
    assert Inpainting(SHAPE, mask).norms() == [1.0, 0.0]


def test_values_of_images_in_general() -> None:
    """Around one, of either sign; attenuation is a hundredth of that and has no negative values."""
    assert (ImageValues().contrast, ImageValues().nonnegative) == (1.0, False)
    assert (ATTENUATION.contrast, ATTENUATION.nonnegative) == (0.02, True)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="contrast must be above 0"):
            ImageValues(contrast=wrong)
