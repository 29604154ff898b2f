"""Tiles: the answer of a local network, blended without a seam; the hash and the gradient stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deft_ct.networks import content_hash
from deft_ct.networks.tiles import TiledNetwork


class Pointwise(nn.Module):
    """Twice the image, plus the time: it sees single pixels, so tiles must not change it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        self.sizes.append(tuple(x.shape))
        return self.weight * x + t[:, None, None, None] + (0 if extra is None else extra[:, :1, None, None])


class Border(Pointwise):
    """The distance from the middle of its input: as inconsistent between tiles as can be."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        row = torch.linspace(-1, 1, x.shape[-1])
        return row.expand(x.shape)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 8), (20, 33), (7, 40)])
def test_a_network_of_single_pixels_is_the_same_with_tiles(size: tuple[int, int]) -> None:
    network, x, t = Pointwise(), torch.randn(2, 3, *size), torch.tensor([1.0, 5.0])
    extra = torch.randn(2, 4)
    tiled = TiledNetwork(network, side=8, overlap=3, at_once=5)
    assert torch.allclose(tiled(x, t), network(x, t), atol=1e-6)
    assert torch.allclose(tiled(x, t, extra), network(x, t, extra), atol=1e-6)
    assert all(max(shape[-2:]) <= 8 for shape in network.sizes if shape[-2:] != size)


def test_the_answer_has_no_jump_where_tiles_meet() -> None:
    x = torch.zeros(1, 1, 16, 64)
    (out,) = TiledNetwork(Border(), side=16, overlap=8)(x, torch.zeros(1))[0, :, 0]
    inside = (out[1:] - out[:-1]).abs().max()
    hard = TiledNetwork(Border(), side=16, overlap=0)(x, torch.zeros(1))[0, 0, 0]
    assert float(inside) < 0.4 < 1.9 < float((hard[1:] - hard[:-1]).abs().max())


def test_weights_keep_their_names_and_gradients_flow() -> None:
    network = Pointwise()
    tiled = TiledNetwork(network, side=4, overlap=1)
    holder, plain = nn.Module(), nn.Module()
    holder.network, plain.network = tiled, network
    assert content_hash(holder, {}) == content_hash(plain, {}) and content_hash(tiled, {}) == content_hash(network, {})
    x = torch.randn(1, 1, 6, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(tiled(x, torch.zeros(1)).sum(), x)
    assert torch.allclose(gradient, torch.full_like(x, 2.0), atol=1e-6)


@pytest.mark.parametrize("values", [{"overlap": 4}, {"overlap": -1}, {"side": 0}, {"at_once": 0}])
def test_impossible_tiles_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="tiles need side"):
        TiledNetwork(Pointwise(), **{"side": 4, "overlap": 1, **values})
