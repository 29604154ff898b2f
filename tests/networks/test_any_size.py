"""Images whose sides do not divide: continued by their edges inside of the network, cropped afterwards."""

import itertools

import pytest
import torch

from deft_ct.networks import UNet, UNetConfig
from deft_ct.networks.any_size import continued

DEEP = UNetConfig(
    patch=2, channels=(8, 8, 8, 8), attention=(False,) * 4, norm_groups=4, head_channels=8
)  # works on multiples of 16


def network(config: UNetConfig = DEEP) -> UNet:
    torch.manual_seed(0)
    return UNet(config).eval()


@pytest.mark.parametrize(("height", "width"), [(30, 30), (25, 40), (17, 31)])
def test_the_margin_repeats_the_edge_as_torch_does(height, width):
    x = torch.randn(2, 3, height, width)
    got, top, left = continued(x, 16)
    assert got.shape[-2] % 16 == 0 and got.shape[-1] % 16 == 0
    rows, columns = -height % 16, -width % 16
    assert (top, left) == (rows // 2, columns // 2)
    margins = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    torch.testing.assert_close(got, torch.nn.functional.pad(x, margins, mode="replicate"), rtol=0, atol=0)


def test_a_size_that_divides_is_passed_on_untouched():
    x = torch.randn(1, 1, 32, 48)
    got, top, left = continued(x, 16)
    assert got is x and (top, left) == (0, 0)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_an_image_smaller_than_its_margin_is_continued(side):
    x = torch.arange(float(side))[None, None, None].expand(1, 1, 16, side)
    row = continued(x, 16)[0][0, 0, 0]
    assert row.shape == (16,)
    assert float(row.diff().abs().max()) <= 1  # without a jump
    assert set(row.tolist()) == set(range(side))


def test_every_size_from_8_to_40_pixels_comes_back_in_its_size():
    model = network()
    for height, width in itertools.product(range(8, 41, 3), range(8, 41, 5)):
        with torch.no_grad():
            out = model(torch.randn(1, 1, height, width), torch.tensor([10.0]))
        assert out.shape == (1, 1, height, width) and bool(torch.isfinite(out).all())


def test_the_network_sees_the_continued_image_and_the_crop_is_where_the_image_was():
    model, x, t = network(), torch.randn(2, 1, 27, 38), torch.tensor([5.0, 700.0])
    with torch.no_grad():
        whole, top, left = continued(x, 16)
        assert (top, left) == (2, 5)
        torch.testing.assert_close(model(x, t), model(whole, t)[..., 2:29, 5:43], rtol=0, atol=0)


def test_gradients_reach_the_image_through_the_margin():
    x = torch.randn(1, 1, 9, 11, dtype=torch.float32, requires_grad=True)
    network()(x, torch.zeros(1)).square().sum().backward()
    assert x.grad is not None and bool((x.grad != 0).all())
