"""A small U-Net with the names and the arithmetic of OpenAI's guided-diffusion, as a reference for the importer.

Written from the paper (Dhariwal and Nichol 2021, arXiv 2105.05233) and from the names in published checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class ADMConfig:
    """Shape of the network."""

    image_channels: int = 1
    outputs: int = 1
    channels: tuple[int, ...] = (32, 64)
    layers: int = 1
    attention: tuple[bool, ...] = (False, True)
    head_channels: int = 16
    residual_resampling: bool = False
    scale_shift: bool = False
    by_kind: bool = False


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int, *, scale_shift: bool, resample: str = "") -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * outputs if scale_shift else outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resample == "down":
            h, x = functional.avg_pool2d(h, 2), functional.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (functional.interpolate(v, scale_factor=2, mode="nearest") for v in (h, x))
        h = self.in_layers[2](h)
        told = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + told)
        out: Tensor = self.skip_connection(x) + h
        return out


class Attention(nn.Module):
    def __init__(self, channels: int, head_channels: int, *, by_kind: bool) -> None:
        super().__init__()
        self.head_channels, self.by_kind = head_channels, by_kind
        self.norm = nn.GroupNorm(32, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        joint = self.qkv(self.norm(x.flatten(2)))
        heads = c // self.head_channels
        shape = (b, 3, heads, self.head_channels, h * w) if self.by_kind else (b, heads, 3, self.head_channels, h * w)
        q, k, v = joint.reshape(shape).unbind(1 if self.by_kind else 2)
        weight = (torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(self.head_channels)).softmax(-1)
        out = torch.einsum("bhts,bhcs->bhct", weight, v).reshape(b, c, h * w)
        return x + self.proj_out(out).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))


class ADM(nn.Module):
    """The network: ``adm(x, t)``."""

    def __init__(self, config: ADMConfig) -> None:
        super().__init__()
        self.config, c = config, config.channels
        width = 4 * c[0]
        self.time_embed = nn.Sequential(nn.Linear(c[0], width), nn.SiLU(), nn.Linear(width, width))

        def residual(inputs: int, outputs: int, resample: str = "") -> Residual:
            return Residual(inputs, outputs, width, scale_shift=config.scale_shift, resample=resample)

        def attention(channels: int) -> Attention:
            return Attention(channels, config.head_channels, by_kind=config.by_kind)

        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(config.image_channels, c[0], 3, padding=1)])])
        skips, here = [c[0]], c[0]
        for level, channels in enumerate(c):
            for _ in range(config.layers):
                parts = [residual(here, channels), *([attention(channels)] if config.attention[level] else [])]
                self.input_blocks.append(nn.ModuleList(parts))
                here = channels
                skips.append(here)
            if level < len(c) - 1:
                resampling = residual(here, here, "down") if config.residual_resampling else Down(here)
                self.input_blocks.append(nn.ModuleList([resampling]))
                skips.append(here)
        self.middle_block = nn.ModuleList([residual(here, here), attention(here), residual(here, here)])
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(c))):
            for k in range(config.layers + 1):
                parts = [residual(here + skips.pop(), c[level])]
                here = c[level]
                parts += [attention(here)] if config.attention[level] else []
                if level and k == config.layers:
                    parts.append(residual(here, here, "up") if config.residual_resampling else Up(here))
                self.output_blocks.append(nn.ModuleList(parts))
        self.out = nn.Sequential(nn.GroupNorm(32, c[0]), nn.SiLU(), nn.Conv2d(c[0], config.outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.config.channels[0] // 2
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        kept = []
        for block in self.input_blocks:
            x = _through(block, x, emb)
            kept.append(x)
        x = _through(self.middle_block, x, emb)
        for block in self.output_blocks:
            x = _through(block, torch.cat([x, kept.pop()], 1), emb)
        found: Tensor = self.out(x)
        return found


def _through(block: nn.Module, x: Tensor, emb: Tensor) -> Tensor:
    for part in block.children():
        x = part(x, emb) if isinstance(part, Residual) else part(x)
    return x


def random_adm(config: ADMConfig, seed: int = 0) -> ADM:
    """A network with random weights, none of them zero."""
    torch.manual_seed(seed)
    network = ADM(config).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.05)
    return network
