"""The U-Net of our priors and h-transforms: small enough for a CPU.

It computes what the ``UNet2DModel`` of diffusers computes, under the same parameter names (a test holds both), so a
checkpoint can be opened by either; diffusers itself is not needed to run it. A space-to-depth stem in front makes
256x256 affordable: the network then works on ``(256 / patch)``-pixel maps with ``patch ** 2`` times the channels, and
nothing is lost because the rearrangement is invertible.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.networks.any_size import continued
from deft_ct.networks.memory_format import channels_together
from deft_ct.networks.network import TimeNetwork
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.fields import check_fields

MOST_FEATURES = 8192
"""Largest number of channels, layers and levels, and largest patch: far above any network that fits a GPU."""

MOST_LEVELS, MOST_LAYERS = 16, 64


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a :class:`UNet`.

    Args:
        in_channels: image channels that enter.
        out_channels: image channels that leave.
        patch: side of the space-to-depth stem; 1 for none. Images whose sides do not divide by ``patch * 2 ** (levels -
            1)`` are continued, see :func:`~deft_ct.networks.any_size.continued`.
        channels: features of each level, each a multiple of ``norm_groups``.
        layers: residual blocks of each level on the way down; one more on the way up.
        attention: whether each level has self-attention; the middle always has.
        head_channels: features of one attention head.
        norm_groups: groups of the group normalisation.
        scale_shift: whether the embedding of the time scales and shifts the normalised features, instead of being added
            before the normalisation (which takes out again what is the same over a group).

    Raises:
        ValueError: the values do not fit together.
    """

    in_channels: int = 1
    out_channels: int = 1
    patch: int = 4
    channels: tuple[int, ...] = (64, 128, 192)
    layers: int = 1
    attention: tuple[bool, ...] = (False, False, False)
    head_channels: int = 32
    norm_groups: int = 32
    scale_shift: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "attention", tuple(self.attention))
        if len(self.channels) != len(self.attention):
            raise ValueError(f"channels and attention must be equally long, got {self.channels} and {self.attention}")
        if min(self.norm_groups, self.head_channels, *self.channels, 1) < 1 or not self.channels:
            raise ValueError("channels, norm_groups and head_channels must be at least 1")
        if len(self.channels) > MOST_LEVELS or max(self.layers, self.patch) > MOST_LAYERS:
            raise ValueError(f"at most {MOST_LEVELS} levels of {MOST_LAYERS} layers, and patch at most {MOST_LAYERS}")
        if any(c % self.norm_groups or c % self.head_channels for c in self.channels):
            raise ValueError(
                f"channels {self.channels} must be multiples of norm_groups {self.norm_groups} "
                f"and head_channels {self.head_channels}"
            )
        if min(self.in_channels, self.out_channels, self.patch, self.layers, *self.channels) < 1:
            raise ValueError("in_channels, out_channels, patch, layers and channels must be at least 1")
        largest = max(self.in_channels, self.out_channels, self.patch, self.layers, len(self.channels), *self.channels)
        if largest > MOST_FEATURES:
            raise ValueError(f"channels, patch and layers must be at most {MOST_FEATURES}, got {largest}")
        convolutions = 4 * self.layers * sum(9 * features**2 for features in self.channels)
        check_memory(4 * convolutions, f"a network with channels {self.channels}", "take fewer channels or layers")

    @property
    def multiple(self) -> int:
        """The network works on image sides that are multiples of this; it continues others."""
        return int(self.patch * 2 ** (len(self.channels) - 1))

    def build(self) -> UNet:
        """The network, with random weights."""
        return UNet(self)

    def small(self, width: int) -> UNetConfig:
        """One level of ``width`` features behind the same space-to-depth stem."""
        return UNetConfig(
            channels=(width,), attention=(False,), patch=self.patch, norm_groups=min(32, width), head_channels=width
        )

    def with_channels(self, inputs: int, outputs: int) -> UNetConfig:
        """The same shape for other numbers of channels in and out."""
        return replace(self, in_channels=inputs, out_channels=outputs)

    def layout(self, channels: int) -> tuple[int | str, ...]:
        """``(channels, "H", "W")``: images."""
        return channels, "H", "W"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, ``scale_shift`` only where it is set: the hashes of older networks stay."""
        values = asdict(self) | {"channels": list(self.channels), "attention": list(self.attention)}
        return {name: value for name, value in values.items() if name != "scale_shift" or value}


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding ``[cos, sin]`` of times ``(B,)``, shape ``(B, width)`` (Vaswani et al. 2017; period 1e4)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNet(TimeNetwork):
    """Time-conditioned U-Net on images.

    ``forward(x, t, extra=None)`` takes ``x`` of shape ``(B, in_channels, H, W)`` and times ``t`` of shape ``(B,)``, and
    returns ``(B, out_channels, H, W)``, for any ``H`` and ``W``. ``extra`` ``(B, embedding_width)`` is added to the
    embedding of the time, where diffusers adds the class embedding of type "identity".
    """

    config: UNetConfig
    first_layer = "conv_in"
    last_layer = "conv_out"

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        pixels = config.patch**2
        width = self.embedding_width
        self.time_embedding = _TimeEmbedding(c[0], width)
        self.conv_in = nn.Conv2d(config.in_channels * pixels, c[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            _Down(c[max(i - 1, 0)], c[i], width, config, i, last=i == len(c) - 1) for i in range(len(c))
        )
        self.mid_block = _Middle(width, config)
        self.up_blocks = nn.ModuleList(_Up(width, config, i) for i in reversed(range(len(c))))
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, c[0], eps=1e-5)
        self.conv_out = nn.Conv2d(c[0], config.out_channels * pixels, 3, padding=1)

    @property
    def embedding_width(self) -> int:
        """Features of the embedding of the time."""
        return 4 * self.config.channels[0]

    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class."""
        config = self.config
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            raise ValueError(f"expected an image of shape (B, {config.in_channels}, H, W), got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        x, top, left = continued(x, config.multiple)
        if x.dtype == torch.float64:  # double-precision data; callers convert the result back
            x = x.to(self.conv_in.weight.dtype)
        emb = self.time_embedding(timestep_embedding(t, config.channels[0]).to(x.dtype))
        emb = functional.silu(emb if extra is None else emb + extra.to(emb.dtype))
        h = channels_together(self.conv_in(functional.pixel_unshuffle(x, config.patch)))
        skips = [h]
        for down in self.down_blocks:
            h = down(h, emb, skips)
        h = self.mid_block(h, emb)
        for up in self.up_blocks:
            h = up(h, emb, skips)
        h = self.conv_out(functional.silu(self.conv_norm_out(h)))
        return functional.pixel_shuffle(h, config.patch)[..., top : top + height, left : left + width]


class _TimeEmbedding(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, emb: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(emb)))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int, config: UNetConfig) -> None:
        super().__init__()
        groups, self.scale_shift = config.norm_groups, config.scale_shift
        self.norm1 = nn.GroupNorm(groups, inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(width, 2 * outputs if self.scale_shift else outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=1e-5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        embedded = self.time_emb_proj(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = embedded.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + embedded)
        h = self.conv2(functional.silu(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Attention(nn.Module):
    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.heads = channels // config.head_channels
        self.group_norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-5)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list, for diffusers' parameter names

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)

        def split(proj: nn.Linear) -> Tensor:
            out: Tensor = proj(tokens)
            return out.reshape(b, h * w, self.heads, -1).transpose(1, 2)

        out = functional.scaled_dot_product_attention(split(self.to_q), split(self.to_k), split(self.to_v))
        out = self.to_out[0](out.transpose(1, 2).reshape(b, h * w, c))
        return x + out.transpose(1, 2).reshape(b, c, h, w)


class _Resample(nn.Module):
    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)
        return out


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int, config: UNetConfig, level: int, *, last: bool) -> None:
        super().__init__()
        sizes = [inputs] + [outputs] * config.layers
        self.resnets = nn.ModuleList(_Residual(sizes[j], outputs, width, config) for j in range(config.layers))
        attend = config.attention[level]
        self.attentions = nn.ModuleList(_Attention(outputs, config) for _ in range(config.layers if attend else 0))
        self.downsamplers = nn.ModuleList([] if last else [_Resample(outputs, up=False)])

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for j, resnet in enumerate(self.resnets):
            x = resnet(x, emb)
            if self.attentions:
                x = self.attentions[j](x)
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x


class _Middle(nn.Module):
    def __init__(self, width: int, config: UNetConfig) -> None:
        super().__init__()
        channels = config.channels[-1]
        self.resnets = nn.ModuleList(_Residual(channels, channels, width, config) for _ in range(2))
        self.attentions = nn.ModuleList([_Attention(channels, config)])

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, emb))
        out: Tensor = self.resnets[1](x, emb)
        return out


class _Up(nn.Module):
    def __init__(self, width: int, config: UNetConfig, level: int) -> None:
        super().__init__()
        c = config.channels
        below, here, above = c[min(level + 1, len(c) - 1)], c[level], c[max(level - 1, 0)]
        count = config.layers + 1
        self.resnets = nn.ModuleList()
        for j in range(count):
            skip = above if j == count - 1 else here
            self.resnets.append(_Residual((below if j == 0 else here) + skip, here, width, config))
        attend = config.attention[level]
        self.attentions = nn.ModuleList(_Attention(here, config) for _ in range(count if attend else 0))
        self.upsamplers = nn.ModuleList([_Resample(here, up=True)] if level > 0 else [])

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for j, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
            if self.attentions:
                x = self.attentions[j](x)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x
