"""Shapes of the point network that do not fit together."""

from __future__ import annotations

import pytest
import torch

from deft_ct.networks import PointNetwork
from deft_ct.networks.point import MOST_LAYERS, PointNetworkConfig


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"width": 0}, "at least 1"), ({"layers": 0}, "at least 1"), ({"heads": 0}, "at least 1"),
     ({"layers": MOST_LAYERS + 1}, "at most"), ({"width": 30, "heads": 4}, "multiple of heads 4"),
     ({"width": 9, "heads": 3}, "must be even")],
)  # fmt: skip
def test_a_shape_that_is_refused(values: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PointNetworkConfig(**values)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 4)])
def test_points_of_another_shape(shape: tuple[int, ...]) -> None:
    network = PointNetworkConfig(width=8, heads=2, layers=1).build()
    with pytest.raises(ValueError, match=r"expected points of shape \(B, N, 3\)"):
        network(torch.zeros(shape), torch.zeros(2))


def test_an_unordered_network_does_not_see_the_order() -> None:
    torch.manual_seed(0)
    network: PointNetwork = PointNetworkConfig(width=8, heads=2, layers=1, ordered=False).build()
    torch.nn.init.normal_(network.out.weight)
    x, order = torch.randn(1, 6, 3), torch.randperm(6)
    t = torch.tensor([3.0])
    torch.testing.assert_close(network(x[:, order], t), network(x, t)[:, order], rtol=1e-4, atol=1e-5)
    told = PointNetworkConfig(width=8, heads=2, layers=1).build()
    torch.nn.init.normal_(told.out.weight)
    assert not torch.allclose(told(x[:, order], t), told(x, t)[:, order])
