"""A wrong shape is named with the one that was expected, for every number of axes."""

from __future__ import annotations

import re

import pytest
import torch

from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import Inpainting, Operator
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform


def cone() -> RayTransform:
    geometry = ConeGeometry.for_image((3, 5, 6), 1.0, 4, source_to_center_mm=30, source_to_detector_mm=50)
    return RayTransform(geometry.replace(detectors=(7, 9)), "matrix")


def planar() -> RayTransform:
    return RayTransform(ParallelGeometry(image_shape=(5, 6), pixel_mm=1.0, views=4, detectors=9, detector_mm=1.0))


DATA = [
    (cone, (1, 1, 4, 9, 7), "(B, C, 4, 7, 9), got (1, 1, 4, 9, 7): the axes are in another order"),
    (cone, (1, 1, 4, 9), "(B, C, 4, 7, 9), got (1, 1, 4, 9)"),
    (cone, (4, 7, 9), "(B, C, 4, 7, 9), got (4, 7, 9): put a batch and a channel axis before them"),
    (cone, (7, 9), "(B, C, 4, 7, 9), got (7, 9)"),
    (cone, (1, 1, 1, 4, 7, 9), "(B, C, 4, 7, 9), got (1, 1, 1, 4, 7, 9)"),
    (planar, (1, 1, 9, 4), "(B, C, 4, 9), got (1, 1, 9, 4): the axes are in another order"),
    (planar, (4, 9), "(B, C, 4, 9), got (4, 9): put a batch and a channel axis before them"),
    (planar, (9,), "(B, C, 4, 9), got (9,)"),
    (planar, (1, 1, 3, 4, 9), "(B, C, 4, 9), got (1, 1, 3, 4, 9)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "shape", "message"), DATA, ids=[f"{make.__name__} {shape}" for make, shape, _ in DATA]
)
def test_data_of_another_shape(make: type[Operator], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"the data must have shape {message}") + "$"):
        Measurement(make()).check(torch.zeros(shape))


IMAGES = [
    (cone, (1, 1, 3, 6, 5), "(B, C, 3, 5, 6), got (1, 1, 3, 6, 5): the axes are in another order"),
    (cone, (3, 5, 6), "(B, C, 3, 5, 6), got (3, 5, 6): put a batch and a channel axis before them"),
    (cone, (1, 1, 5, 6), "(B, C, 3, 5, 6), got (1, 1, 5, 6)"),
    (planar, (5, 6), "(B, C, 5, 6), got (5, 6): put a batch and a channel axis before them"),
    (planar, (1, 1, 5, 7), "(B, C, 5, 6), got (1, 1, 5, 7)"),
    (planar, (6,), "(B, C, 5, 6), got (6,)"),
]  # fmt: skip


@pytest.mark.parametrize("refine", [1, 2])
@pytest.mark.parametrize(
    ("make", "shape", "message"), IMAGES, ids=[f"{make.__name__} {shape}" for make, shape, _ in IMAGES]
)
def test_images_of_another_shape(make: type[Operator], shape: tuple[int, ...], message: str, refine: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"the images must have shape {message}") + "$"):
        Measurement(make()).simulate(torch.zeros(shape), refine=refine)


def test_operators_with_channels_of_their_own_get_no_second_one() -> None:
    measurement = Measurement(Inpainting((3, 5, 6), torch.ones(1, 5, 6)))
    with pytest.raises(ValueError, match=re.escape("must have shape (B, 3, 5, 6), got (3, 5, 6): put a batch axis")):
        measurement.check(torch.zeros(3, 5, 6))


def test_a_refined_volume_needs_no_channel() -> None:
    operator, x = cone(), torch.rand(2, 3, 5, 6)
    alone = Measurement(operator).simulate(x, refine=2)
    with_channel = Measurement(operator).simulate(x[:, None], refine=2)
    assert torch.equal(alone, with_channel[:, 0])
    assert Measurement(planar()).simulate(x[:, 0], refine=2).shape == (2, 4, 9)
