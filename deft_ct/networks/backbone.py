"""A network on chains of C-alpha atoms: attention between residues, equivariant to rotations.

Each residue has a frame from its neighbours along the chain (:mod:`deft_ct.networks.chain_frames`). The network sees
the chain only through distances and through vectors in these frames. Its output is a sum of vectors that turn with the
chain, with weights that do not depend on its pose: for a rotation ``R``, ``f(x R) = f(x) R``. Reflections are no
symmetry, because proteins have a hand.

The frames of a noisy chain are noisy. The network therefore works in stages: each ends with a better chain, from whose
frames and distances the next one starts.

Attention by frames and distances follows the invariant point attention of Jumper et al. 2021 (Nature 596, 583,
algorithm 22). The weighted sums of differences follow Satorras et al. 2021 (arXiv 2102.09844, eq. 4).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.networks import chain_frames
from deft_ct.networks.network import TimeNetwork
from deft_ct.networks.unet import timestep_embedding
from deft_ct.runtime.fields import check_fields

MOST_LAYERS = 100
SHORTEST = 3
"""Residues of the shortest chain that has a frame."""
_REACH = 4
"""Neighbours along the chain, on either side, that a residue sees directly: one turn of an alpha helix."""
_LOCAL_BUMPS, _PAIR_BUMPS = 12, 16
_LONGEST = 3.0
"""Largest distance on the grids of distances, in the unit of the prior (standard deviations of a coordinate)."""
_FARTHEST = 32
"""Separations along the chain beyond this are one."""
_LEAST_FEATURES = 4
"""Features of an attention head, at least."""
_POINTS = 4
"""Points of each head whose mean position a residue sees in its own frame."""


def heads_for(width: int) -> int:
    """Attention heads of a network of ``width`` features: up to eight, with four features or more each.

    Few features each would leave nothing to compare residues by, and every head costs parameters of its own.
    """
    suited = [heads for heads in (8, 4, 2) if width % heads == 0 and width >= _LEAST_FEATURES * heads]
    return suited[0] if suited else 1


@dataclass(frozen=True, kw_only=True)
class BackboneNetworkConfig:
    """Shape of a :class:`BackboneNetwork`.

    Args:
        in_channels: three for each input: the chain, then further ones.
        out_channels: three for each vector that leaves.
        scalars: how many of the inputs, the last ones, hold numbers that do not turn with the chain, such as a mask.
        width: features of each residue, a multiple of ``heads``.
        layers: attention blocks of each stage.
        heads: attention heads.
        pair_width: features of each pair of residues.
        stages: how often frames and distances are computed.

    Raises:
        ValueError: the values do not fit together.
    """

    in_channels: int = 3
    out_channels: int = 3
    scalars: int = 0
    width: int = 128
    layers: int = 3
    heads: int = 8
    pair_width: int = 32
    stages: int = 2

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.width, self.layers, self.heads, self.pair_width, self.stages) < 1:
            raise ValueError("width, layers, heads, pair_width and stages must be at least 1")
        if self.layers * self.stages > MOST_LAYERS:
            raise ValueError(f"at most {MOST_LAYERS} layers in all stages, got {self.layers * self.stages}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.in_channels % 3 or self.out_channels % 3 or self.out_channels < 3:
            raise ValueError(
                f"in_channels and out_channels must be multiples of 3, got {self.in_channels} and {self.out_channels}"
            )
        if not 0 <= self.scalars < self.in_channels // 3:
            raise ValueError(f"scalars must leave one of the {self.in_channels // 3} inputs, got {self.scalars}")

    def build(self) -> BackboneNetwork:
        """The network, with random weights."""
        return BackboneNetwork(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, with the kind of the network."""
        return {"kind": "backbone", **asdict(self)}

    def small(self, width: int) -> BackboneNetworkConfig:
        """The same network with ``width`` features, and the attention heads that suit them."""
        return replace(self, width=width, heads=min(self.heads, heads_for(width)))

    def with_channels(self, inputs: int, outputs: int) -> BackboneNetworkConfig:
        """The same shape for other numbers of channels in and out."""
        return replace(self, in_channels=inputs, out_channels=outputs)

    def layout(self, channels: int) -> tuple[int | str, ...]:
        """``("N", channels)``: points."""
        return "N", channels

    @property
    def vectors(self) -> int:
        """Inputs that turn with the chain, the chain itself included."""
        return self.in_channels // 3 - self.scalars

    @property
    def local_features(self) -> int:
        """Features of each residue before any attention."""
        around = 2 * _REACH
        return around * (3 + _LOCAL_BUMPS + 1) + 2 + 4 + 3 * (self.vectors - 1) + 3 * self.scalars

    @property
    def directions(self) -> int:
        """Vectors of each residue that a stage may move it along."""
        return 3 + self.heads + 2 + self.vectors


class BackboneNetwork(TimeNetwork):
    """Time-conditioned attention on an ordered chain, equivariant to rotations.

    ``forward(x, t, extra=None)`` takes ``x`` of shape ``(B, N, in_channels)`` for any ``N >= 3`` and times ``t`` of
    shape ``(B,)``, and returns ``(B, N, out_channels)``. The first three channels are the chain, whose mean is taken
    off. The mean of the output over the residues is zero: as a velocity this is the exact answer where the centre of a
    chain of ``N`` residues is normal with variance ``1 / N``, as :func:`deft_ct.protein.pose.posed` makes it. The
    length of the chain is part of the time embedding. ``extra`` ``(B, embedding_width)`` is added to it. Computed in
    the precision of the weights, never in mixed precision: frames need it.
    """

    config: BackboneNetworkConfig
    first_layer = "stages.0.local"
    last_layer = "out"

    def __init__(self, config: BackboneNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time_embedding = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.length_embedding = nn.Linear(width, width)
        self.stages = nn.ModuleList(_Stage(config) for _ in range(config.stages))
        self.moves = nn.ModuleList(nn.Linear(width, config.directions) for _ in range(config.stages - 1))
        for parameter in self.moves.parameters():
            nn.init.zeros_(parameter)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.stages))
        # The directions of the last stage, and the way from the input to where the stages moved each residue.
        self.out = nn.Linear(width, config.out_channels // 3 * (config.directions + 1))

    @torch.no_grad()
    def continue_from(self, other: BackboneNetwork) -> None:
        """Take over the weights of a network with fewer inputs, to compute at first what it does.

        Args:
            other: of the same shape but for further vectors and scalars, of which it has none.

        Raises:
            ValueError: it is of another shape.
        """
        wanted = replace(self.config, in_channels=3, scalars=0)
        if other.config != wanted:
            raise ValueError(f"expected a network of the shape {wanted}, got {other.config}")
        known = 3 + self.config.heads + 2 + 1  # directions of a network without further vectors
        rows = torch.arange(known)
        # In the last layer the way from the input to where the stages moved each residue is the last direction.
        own_rows = torch.cat([rows, rows.new_tensor([self.config.directions])])
        outputs = torch.arange(self.config.out_channels // 3)[:, None] * (self.config.directions + 1)
        ends = (outputs + own_rows).flatten()
        own = self.state_dict()  # shares memory with the parameters
        for name, value in other.state_dict().items():
            weight = own[name]
            if weight.shape == value.shape:
                weight.copy_(value)
                continue
            weight.zero_()
            if name.startswith("moves."):
                weight[rows] = value
            elif name.startswith(f"{self.last_layer}."):
                weight[ends] = value
            else:  # features of further inputs come after those of the chain
                weight[:, : value.shape[1]] = value

    @property
    def embedding_width(self) -> int:
        """Features of the time embedding."""
        return self.config.width

    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class.

        Raises:
            ValueError: the shape of ``x`` is wrong.
        """
        if x.ndim != 3 or x.shape[2] != self.config.in_channels or x.shape[1] < SHORTEST:
            raise ValueError(
                f"expected chains of shape (B, N, {self.config.in_channels}) with N >= {SHORTEST}, got {tuple(x.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            return self._evaluate(x.to(self.out.weight.dtype), t, extra)

    def _evaluate(self, x: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        config = self.config
        b, n = x.shape[:2]
        emb = self.time_embedding(timestep_embedding(t, config.width).to(x.dtype))
        count = torch.full((1,), n, device=x.device)
        emb = emb + self.length_embedding(timestep_embedding(count, config.width).to(x.dtype))
        emb = functional.silu(emb if extra is None else emb + extra.to(emb.dtype))
        inputs = x.reshape(b, n, -1, 3)
        start = inputs[:, :, 0] - inputs[:, :, 0].mean(1, keepdim=True)
        vectors, scalars = inputs[:, :, 1 : config.vectors], inputs[:, :, config.vectors :].flatten(2)
        chain, h = start, x.new_zeros(b, n, config.width)
        for k, stage in enumerate(self.stages):
            h, ways = stage(h, chain, vectors, scalars, emb)
            if k < len(self.moves):
                chain = chain + (self.moves[k](self.norms[k](h))[..., None] * ways).sum(2)
                chain = chain - chain.mean(1, keepdim=True)
        ways = torch.cat([ways, (chain - start)[:, :, None]], 2)
        weights = self.out(self.norms[-1](h)).reshape(b, n, -1, config.directions + 1)
        moved = torch.matmul(weights, ways)
        return (moved - moved.mean(1, keepdim=True)).flatten(2)


class _Stage(nn.Module):
    """Attention blocks around the frames and distances of one chain."""

    def __init__(self, config: BackboneNetworkConfig) -> None:
        super().__init__()
        self.local = nn.Linear(config.local_features, config.width)
        self.pair_in = nn.Linear(_PAIR_BUMPS + 3 + 3 + 9, config.pair_width)
        self.pair_time = nn.Linear(config.width, config.pair_width)
        self.separation = nn.Embedding(2 * _FARTHEST + 1, config.pair_width)
        self.pair_out = nn.Linear(config.pair_width, config.pair_width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))

    def forward(self, h: Tensor, chain: Tensor, vectors: Tensor, scalars: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(B, N, width)`` and directions ``(B, N, directions, 3)``."""
        frame = chain_frames.frames(chain)
        around, there = chain_frames.neighbours(chain, _REACH)
        h = h + self.local(torch.cat([_local(chain, frame, around, there), _flat(frame, vectors), scalars], -1))
        pairs = self._pairs(chain, frame, emb)
        for block in self.blocks:
            h, attention = block(h, emb, pairs, chain, frame)
        pulls = torch.matmul(attention, chain[:, None]).transpose(1, 2) - chain[:, :, None]
        bonds = chain_frames.unit(around[:, :, _REACH - 1 : _REACH + 1])
        axes = frame.transpose(-1, -2)
        return h, torch.cat([axes, pulls, bonds, chain[:, :, None], vectors], 2)

    def _pairs(self, chain: Tensor, frame: Tensor, emb: Tensor) -> Tensor:
        """``(B, N, N, pair_width)`` features of each pair of residues."""
        b, n = chain.shape[:2]
        away = chain[:, None] - chain[:, :, None]
        bumps = chain_frames.gaussians(chain_frames.length(away), 0.0, _LONGEST, _PAIR_BUMPS)
        seen = chain_frames.unit(chain_frames.into(frame, away))
        turned = torch.einsum("biac,bjad->bijcd", frame, frame).reshape(b, n, n, 9)
        features = torch.cat([bumps, seen, seen.transpose(1, 2), turned], -1)
        index = torch.arange(n, device=chain.device)
        apart = (index[None] - index[:, None]).clamp(-_FARTHEST, _FARTHEST) + _FARTHEST
        mixed = self.pair_in(features)
        mixed += self.separation(apart)
        mixed += self.pair_time(emb)[:, None, None]
        out: Tensor = self.pair_out(functional.silu(mixed))
        return out


def _local(chain: Tensor, frame: Tensor, around: Tensor, there: Tensor) -> Tensor:
    """What a residue sees of its neighbours along the chain, of the ends and of the centre."""
    b, n = chain.shape[:2]
    bumps = chain_frames.gaussians(chain_frames.length(around), 0.0, _LONGEST / 2, _LOCAL_BUMPS) * there[..., None]
    index = torch.arange(n, device=chain.device, dtype=chain.dtype)
    ends = torch.tanh(torch.stack([index, n - 1 - index], -1) / 8)
    return torch.cat(
        [
            _flat(frame, around), bumps.flatten(2), there.expand(b, -1, -1), ends.expand(b, -1, -1),
            _flat(frame, -chain[:, :, None]), chain_frames.length(chain)[..., None],
        ], -1,
    )  # fmt: skip


def _flat(frame: Tensor, vectors: Tensor) -> Tensor:
    return chain_frames.into(frame, vectors).flatten(2)


class _Block(nn.Module):
    """Attention with the bias of pairs, to features, pairs and points, and a small network on each residue."""

    def __init__(self, config: BackboneNetworkConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 4 * width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_points = nn.Linear(width, config.heads * _POINTS * 3)
        self.bias = nn.Linear(config.pair_width, config.heads)
        self.to_out = nn.Linear(width + config.heads * (config.pair_width + 4 * _POINTS), width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(
        self, h: Tensor, emb: Tensor, pairs: Tensor, chain: Tensor, frame: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Features, and attention ``(B, heads, N, N)``."""
        scale1, shift1, scale2, shift2 = self.modulation(emb)[:, None].chunk(4, dim=-1)
        b, n, width = h.shape
        tokens = self.norm1(h) * (1 + scale1) + shift1
        q, k, v = self.to_qkv(tokens).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = torch.matmul(self.bias.weight, pairs.transpose(-1, -2)) + self.bias.bias[:, None]  # (B, N, heads, N)
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + bias.transpose(1, 2)
        attention = logits.softmax(-1)
        mixed = torch.matmul(attention, v).transpose(1, 2).reshape(b, n, width)
        pooled = torch.matmul(attention.transpose(1, 2), pairs).flatten(2)
        own = self.to_points(tokens).reshape(b, n, -1, 3)
        points = (chain[:, :, None] + chain_frames.out_of(frame, own)).reshape(b, n, self.heads, -1).transpose(1, 2)
        mean = torch.matmul(attention, points).transpose(1, 2).reshape(b, n, -1, 3) - chain[:, :, None]
        distances = chain_frames.length(mean)
        h = h + self.to_out(torch.cat([mixed, pooled, _flat(frame, mean), distances], -1))
        return h + self.mlp(self.norm2(h) * (1 + scale2) + shift2), attention
