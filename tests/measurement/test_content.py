"""What a measurement depends on: every parameter of every operator, and nothing that a first use leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Operator
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.image.compressed_sensing import CompressedSensing
from deft_ct.operators.image.hdr import HDR
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.image.jpeg import JPEG
from deft_ct.operators.points.selection import Selection
from deft_ct.runtime.content_key import ContentKey

SHAPE = (3, 16, 16)


def _mask(row: int) -> torch.Tensor:
    mask = torch.ones(SHAPE)
    mask[:, row] = 0
    return mask


def _rays(views: int, backend: str = "joseph") -> RayTransform:
    geometry = ParallelGeometry(image_shape=(16, 16), pixel_mm=1.0, views=views, detectors=24, detector_mm=1.0)
    return RayTransform(geometry, backend)


PAIRS: dict[str, tuple[Callable[[], Operator], Callable[[], Operator]]] = {
    "mask": (lambda: Inpainting(SHAPE, _mask(3)), lambda: Inpainting(SHAPE, _mask(4))),
    "gain": (lambda: HDR(SHAPE, gain=2.0), lambda: HDR(SHAPE, gain=3.0)),
    "quality": (lambda: JPEG(SHAPE, quality=10), lambda: JPEG(SHAPE, quality=20)),
    "seed": (
        lambda: CompressedSensing(SHAPE, ratio=0.5, generator=torch.Generator().manual_seed(0)),
        lambda: CompressedSensing(SHAPE, ratio=0.5, generator=torch.Generator().manual_seed(1)),
    ),
    "indices": (lambda: Selection(9, [0, 1, 2]), lambda: Selection(9, [0, 1, 3])),
    "views": (lambda: _rays(7), lambda: _rays(8)),
    "of a product": (lambda: 2.0 * Inpainting(SHAPE, _mask(3)), lambda: 2.0 * Inpainting(SHAPE, _mask(4))),
    "factor": (lambda: 2.0 * Inpainting(SHAPE, _mask(3)), lambda: 3.0 * Inpainting(SHAPE, _mask(3))),
}


def key(operator: Operator, sigma: float = 0.1) -> str:
    return ContentKey(measurement_content(Measurement(operator, GaussianNoise(sigma)))).digest


@pytest.mark.parametrize("name", PAIRS)
def test_operators_of_one_kind_with_other_parameters_differ(name: str) -> None:
    one, other = PAIRS[name]
    assert key(one()) == key(one()) != key(other())
    assert key(one()) != key(one(), sigma=0.2)


@pytest.mark.parametrize("name", PAIRS)
def test_use_changes_nothing(name: str) -> None:
    operator = PAIRS[name][0]()
    before = key(operator)
    x = torch.rand(2, *operator.domain_shape)
    y = operator(x)
    if hasattr(operator, "adjoint"):
        operator.adjoint(y)
        operator.norm()
    assert key(operator.eval()) == before


def test_the_code_of_a_ray_transform_does_not_count() -> None:
    assert key(_rays(7, "joseph")) == key(_rays(7, "matrix"))
