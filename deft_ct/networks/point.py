"""A small network on point clouds: attention between points, conditioned on the time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.networks.network import TimeNetwork
from deft_ct.networks.unet import timestep_embedding
from deft_ct.runtime.fields import check_fields

MOST_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class PointNetworkConfig:
    """Shape of a :class:`PointNetwork`.

    Args:
        in_channels: features of each point that enter.
        out_channels: features of each point that leave.
        width: features of each point inside, a multiple of ``heads``.
        layers: attention blocks.
        heads: attention heads.
        ordered: whether the points have an order, such as the residues of a chain: their index is then an input.

    Raises:
        ValueError: the values do not fit together.
    """

    in_channels: int = 3
    out_channels: int = 3
    width: int = 64
    layers: int = 3
    heads: int = 4
    ordered: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.in_channels, self.out_channels, self.width, self.layers, self.heads) < 1:
            raise ValueError("in_channels, out_channels, width, layers and heads must be at least 1")
        if self.layers > MOST_LAYERS:
            raise ValueError(f"at most {MOST_LAYERS} layers, got {self.layers}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")

    def build(self) -> PointNetwork:
        """The network, with random weights."""
        return PointNetwork(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, with the kind of the network."""
        return {"kind": "point", **asdict(self)}

    def small(self, width: int) -> PointNetworkConfig:
        """The same network with ``width`` features."""
        return replace(self, width=width)

    def with_channels(self, inputs: int, outputs: int) -> PointNetworkConfig:
        """The same shape for other numbers of channels in and out."""
        return replace(self, in_channels=inputs, out_channels=outputs)

    def layout(self, channels: int) -> tuple[int | str, ...]:
        """``("N", channels)``: points."""
        return "N", channels


class PointNetwork(TimeNetwork):
    """Time-conditioned attention on points.

    ``forward(x, t, extra=None)`` takes ``x`` of shape ``(B, N, in_channels)`` for any ``N`` and times ``t`` of shape
    ``(B,)``, and returns ``(B, N, out_channels)``. ``extra`` ``(B, embedding_width)`` is added to the time embedding.
    """

    config: PointNetworkConfig
    first_layer = "embed"
    last_layer = "out"

    def __init__(self, config: PointNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time_embedding = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width))
        self.embed = nn.Linear(config.in_channels, width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.out_channels)

    @property
    def embedding_width(self) -> int:
        """Features of the time embedding."""
        return 2 * self.config.width

    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class.

        Raises:
            ValueError: the shape of ``x`` is wrong.
        """
        if x.ndim != 3 or x.shape[2] != self.config.in_channels:
            raise ValueError(f"expected points of shape (B, N, {self.config.in_channels}), got {tuple(x.shape)}")
        x = x.to(self.embed.weight.dtype)
        emb = self.time_embedding(timestep_embedding(t, self.config.width).to(x.dtype))
        emb = functional.silu(emb if extra is None else emb + extra.to(emb.dtype))
        h = self.embed(x)
        if self.config.ordered:
            index = torch.arange(x.shape[1], device=x.device)
            h = h + timestep_embedding(index, self.config.width).to(h.dtype)
        for block in self.blocks:
            h = block(h, emb)
        out: Tensor = self.out(self.norm_out(h))
        return out


class _Block(nn.Module):
    def __init__(self, config: PointNetworkConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(2 * width, 4 * width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale1, shift1, scale2, shift2 = self.modulation(emb)[:, None].chunk(4, dim=-1)
        b, n, width = x.shape
        tokens = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.to_qkv(tokens).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        x = x + self.to_out(mixed)
        out: Tensor = x + self.mlp(self.norm2(x) * (1 + scale2) + shift2)
        return out
