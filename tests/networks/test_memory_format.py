"""Networks on images keep the channels of a pixel together in memory, which changes results by rounding alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.networks import UNet, UNetConfig, content_hash

BUILT = {
    "unet": lambda: UNet(UNetConfig(channels=(32, 32), attention=(False, False))),
    "primal-dual": lambda: PrimalDualModel(PrimalDualShape(iterations=1, channels=8)),
}


@pytest.mark.parametrize("name", BUILT)
def test_all_convolutions_are_in_that_order(name: str) -> None:
    network = BUILT[name]()
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    other = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    assert content_hash(network, {}) == content_hash(other, {})


def test_the_order_changes_results_by_rounding_alone() -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(channels=(32, 32), attention=(False, False)))
    other = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    x, t = torch.randn(2, 1, 24, 24), torch.tensor([5.0, 900.0])
    torch.testing.assert_close(network(x, t), other(x, t), rtol=1e-4, atol=1e-5)
