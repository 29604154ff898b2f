"""JPEG against Pillow's libjpeg and the numbers of JFIF."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from pictures import picture, rng, to_tensor
from PIL import Image

from deft_ct.operators import JPEG
from deft_ct.operators.image import jpeg
from deft_ct.operators.image.jpeg import quantisation_tables


def compress(image: np.ndarray, quality: int, subsampling: int) -> tuple[np.ndarray, dict[int, list[int]]]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    decoded = Image.open(buffer)
    return np.asarray(decoded), decoded.quantization  # type: ignore[attr-defined]


@pytest.mark.parametrize("quality", [1, 5, 10, 49, 50, 75, 95, 100])
def test_quantisation_tables_are_those_of_pillow(quality: int) -> None:
    _, tables = compress(picture(16), quality, 0)
    for ours, theirs in zip(quantisation_tables(quality), tables.values(), strict=True):
        assert ours.flatten().tolist() == list(theirs)


@pytest.mark.parametrize("size", [(72, 72), (33, 47), (34, 5), (3, 3)])  # blocks that are not full, odd sides
@pytest.mark.parametrize(("subsampling", "code"), [("4:4:4", 0), ("4:2:0", 2)])
@pytest.mark.parametrize("quality", [5, 10, 50, 90])
def test_jpeg_is_that_of_pillow(quality: int, subsampling: str, code: int, size: tuple[int, int]) -> None:
    image = picture(72)[: size[0], : size[1]].copy()
    operator = JPEG((3, *size), quality, subsampling=subsampling)  # type: ignore[arg-type]
    ours = 127.5 * (operator(to_tensor(image))[0].permute(1, 2, 0).numpy() + 1)
    np.testing.assert_allclose(ours, ours.round(), atol=1e-4)
    error = np.abs(ours.round() - compress(image, quality, code)[0])
    # All but now and then a coefficient next to a tie, which the library's fixed-point transform takes the other way.
    assert np.sqrt(np.mean(error**2)) < 0.6 and np.mean(error > 1) < 0.02


def test_a_jpeg_quality_for_each_image() -> None:
    x = torch.cat([to_tensor(picture(24)), to_tensor(picture(24)).flip(-1)])
    operator = JPEG((3, 24, 24), (5, 60))
    assert operator.images == 2 and operator[1:].quality == (60,)
    for i, quality in enumerate((5, 60)):
        alone = JPEG((3, 24, 24), quality)(x[i : i + 1])
        assert torch.equal(operator(x)[i : i + 1], alone) and torch.equal(operator[i : i + 1](x[i : i + 1]), alone)
    assert torch.equal(operator.repeat(2)(x.repeat_interleave(2, 0))[::2], operator(x))
    with pytest.raises(ValueError, match="2 qualities need as many images"):
        operator(x[:1])


@pytest.mark.parametrize("quality", [5, 20, 50, 90])
def test_grey_jpeg_is_that_of_pillow(quality: int) -> None:
    image = picture()[..., 1]
    ours = 127.5 * (JPEG((1, 64, 64), quality)(torch.from_numpy(image / 127.5 - 1)[None]) + 1)
    # Blocks agree to a level, but for those with a coefficient next to a tie, which the library's fixed-point transform
    # takes the other way.
    blocks = np.abs(ours[0].numpy() - compress(image, quality, 0)[0]).reshape(8, 8, 8, 8).max((1, 3))
    assert np.mean(blocks < 1.5) > 0.9 and blocks.max() < 12


def test_straight_through_derivative_of_jpeg_is_a_projection() -> None:
    """With the rounding as the identity and nothing clipped, 4:4:4 is the identity; 4:2:0 smooths chroma alone."""
    x = 0.2 * to_tensor(picture())
    v = torch.rand(1, 3, 64, 64, generator=rng(), dtype=torch.float64)
    torch.testing.assert_close(JPEG((3, 64, 64), 90, subsampling="4:4:4").vjp(x, v), v, rtol=0, atol=1e-4)
    pulled = JPEG((3, 64, 64), 90).vjp(x, v)
    assert not torch.allclose(pulled, v, atol=1e-2)
    constant = torch.tensor([0.3, -0.7, 0.5], dtype=torch.float64)[:, None, None]
    # The colour matrices of JFIF have five decimals: their product is the identity up to 5e-5 of a grey level.
    error = ((pulled - v) * constant).sum().abs() / (v * constant.abs()).sum()
    assert float(error) < 5e-5
    grey = torch.rand(1, 1, 64, 64, generator=rng(1), dtype=torch.float64)  # has luma only, which is kept
    torch.testing.assert_close((pulled * grey).sum(), (v * grey).sum(), rtol=1e-4, atol=0)


def test_the_colours_of_jpeg_are_those_of_jfif() -> None:
    """Numbers of JFIF 1.02 with five digits, rounded to 16 binary digits as libjpeg rounds them."""
    forward = [(0.299, 0.587, 0.114), (-0.16874, -0.33126, 0.5), (0.5, -0.41869, -0.08131)]
    backward = [(1, 0, 1.402), (1, -0.34414, -0.71414), (1, 1.772, 0)]
    for ours, theirs in ((jpeg._RGB_TO_YCBCR, forward), (jpeg._YCBCR_TO_RGB, backward)):
        expected = np.sign(theirs) * np.floor(np.abs(theirs) * 65536 + 0.5)
        np.testing.assert_array_equal(65536 * np.array(ours), expected)
    assert np.ravel(jpeg._CENTRE).tolist() == [0, 128, 128]
