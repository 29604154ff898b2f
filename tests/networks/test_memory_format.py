"""In half precision, networks on images keep the channels of a pixel together in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.networks import UNet, UNetConfig
from deft_ct.networks.memory_format import channels_together


def layers(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A network with something that it takes."""
    torch.manual_seed(0)
    if name == "unet":
        config = UNetConfig(channels=(32, 32), attention=(False, False))
        return UNet(config), (torch.randn(2, 1, 24, 24), torch.tensor([5.0, 900.0]))
    return PrimalDualModel(PrimalDualShape(iterations=1, channels=8)).primal[0], (torch.randn(2, 6, 24, 24),)


@pytest.mark.parametrize("name", ["unet", "primal-dual"])
@pytest.mark.parametrize("lower", [False, True])
def test_hidden_features_are_in_that_order_in_half_precision_alone(name: str, lower: bool) -> None:
    network, given = layers(name)
    seen = []
    _, *hidden = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    for layer in hidden:
        layer.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16, enabled=lower):
        network(*given)
    assert len(seen) >= 2
    together = [features.is_contiguous(memory_format=torch.channels_last) for features in seen]
    assert together == [lower] * len(seen)


def test_the_values_do_not_change() -> None:
    features = torch.randn(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(channels_together(features), features)
    assert channels_together(features) is features
