"""U-Nets of OpenAI's guided-diffusion ("ADM", Dhariwal and Nichol 2021, arXiv 2105.05233) in the names of diffusers.

The shape of the network is read from the shapes of its weights. Two things cannot be seen there and must be given.
One is the number of channels of an attention head. The other is the order of the rows of query, key and value: by head
(the older order, the default of guided-diffusion) or by kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deft_ct.runtime.fields import check_fields

State = Mapping[str, Tensor]
_RESIDUAL = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
MARK = "input_blocks.0.0.weight"
"""A weight that every such network has."""


@dataclass(frozen=True, kw_only=True)
class ADMShape:
    """What the shapes of the weights say.

    Attributes:
        in_channels: of the image.
        out_channels: of the output, twice as many where a variance is predicted.
        channels: of each level.
        layers: residual blocks of a level on the way down.
        attention: whether each level has self-attention.
        residual_resampling: whether residual blocks change the resolution, and not convolutions.
        scale_shift: whether the embedding of the time scales and shifts.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    layers: int
    attention: tuple[bool, ...]
    residual_resampling: bool
    scale_shift: bool

    def __post_init__(self) -> None:
        check_fields(self)


def adm_shape(state: State) -> ADMShape:
    """The shape of a network.

    Raises:
        ValueError: the weights are of another kind of network, or of one that is conditioned on classes.
    """
    if MARK not in state or "time_embed.0.weight" not in state or "out.2.weight" not in state:
        raise ValueError("the weights are not those of a U-Net of guided-diffusion")
    if any(name.startswith("label_emb") for name in state):
        raise ValueError("the network is conditioned on classes; only unconditional ones can be priors here")
    down, up = _count(state, "input_blocks"), _count(state, "output_blocks")
    if down != up or not down:
        raise ValueError(f"the network has {down} blocks on the way down and {up} on the way up; expected as many")
    resampling = [k for k in range(up) if _upsampler(state, k) is not None]
    per_level = resampling[0] + 1 if resampling else up
    if up % per_level or per_level < 2 or resampling != list(range(per_level - 1, up - 1, per_level)):
        raise ValueError("the blocks of the network are not in the order of guided-diffusion")
    firsts = range(1, down, per_level)
    channels = tuple(len(_weight(state, f"input_blocks.{k}.0.out_layers.3.weight")) for k in firsts)
    embedded = len(_weight(state, "input_blocks.1.0.emb_layers.1.weight"))
    return ADMShape(
        in_channels=state[MARK].shape[1], out_channels=len(state["out.2.weight"]), channels=channels,
        layers=per_level - 1, attention=tuple(f"input_blocks.{k}.1.qkv.weight" in state for k in firsts),
        residual_resampling=bool(resampling) and f"{_upsampler(state, resampling[0])}.in_layers.2.weight" in state,
        scale_shift=embedded == 2 * channels[0],
    )  # fmt: skip


def diffusers_values(shape: ADMShape, image_size: int, head_channels: int) -> dict[str, Any]:
    """The ``config.json`` of the ``UNet2DModel`` that computes the same.

    Args:
        shape: of the network.
        image_size: of the training images.
        head_channels: of one attention head.

    Raises:
        ValueError: the channels of a level with attention are no multiple of ``head_channels``.
    """
    attended = {c for c, a in zip(shape.channels, shape.attention, strict=True) if a} | {shape.channels[-1]}
    if head_channels < 1 or any(c % head_channels for c in attended):
        raise ValueError(
            f"levels with attention have {sorted(attended)} channels, no multiple of head_channels {head_channels}: "
            "pass the num_head_channels (or channels / num_heads) that the network was trained with"
        )
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if shape.residual_resampling else None
    down, up = plain or ("DownBlock2D", "UpBlock2D")
    resample = "resnet" if shape.residual_resampling else "conv"
    return {
        "sample_size": image_size, "in_channels": shape.in_channels, "out_channels": shape.out_channels,
        "block_out_channels": list(shape.channels), "layers_per_block": shape.layers,
        "down_block_types": ["AttnDownBlock2D" if a else down for a in shape.attention],
        "up_block_types": ["AttnUpBlock2D" if a else up for a in reversed(shape.attention)],
        "downsample_type": resample, "upsample_type": resample, "attention_head_dim": head_channels,
        "resnet_time_scale_shift": "scale_shift" if shape.scale_shift else "default", "norm_num_groups": 32,
        "attn_norm_num_groups": 32, "norm_eps": 1e-5,
    }  # fmt: skip


def diffusers_state(state: State, shape: ADMShape, head_channels: int, *, by_kind: bool = False) -> dict[str, Tensor]:
    """The weights under the names of diffusers.

    Args:
        state: the weights.
        shape: of :func:`adm_shape`.
        head_channels: of one attention head.
        by_kind: whether all queries come first, then all keys ("new attention order"); by head otherwise.

    Raises:
        ValueError: a weight has a name that such a network does not have.
    """
    made: dict[str, Tensor] = {}
    for name, value in state.items():
        place, leaf = name.rsplit(".", 1)
        if place in _ENDS:
            made[f"{_ENDS[place]}.{leaf}"] = value
            continue
        block, rest = _block(place, state, shape)
        if rest in _RESIDUAL:
            made[f"{block}.{_RESIDUAL[rest]}.{leaf}"] = value
        elif rest in ("op", "conv"):
            made[f"{block}.conv.{leaf}"] = value
        elif rest == "norm":
            made[f"{block}.group_norm.{leaf}"] = value
        elif rest == "proj_out":
            made[f"{block}.to_out.0.{leaf}"] = value.flatten(1) if leaf == "weight" else value
        elif rest == "qkv":
            for kind, part in zip("qkv", _split(value, head_channels, by_kind=by_kind), strict=True):
                made[f"{block}.to_{kind}.{leaf}"] = part
        else:
            raise ValueError(f"unknown weight {name[:80]}")
    return made


def _split(value: Tensor, head_channels: int, *, by_kind: bool) -> tuple[Tensor, ...]:
    """Query, key and value of a joint projection ``(3 C, C, 1)`` or its bias ``(3 C,)``."""
    value = value.flatten(1) if value.ndim > 1 else value
    if not by_kind:  # heads x (query, key, value) x channels of a head
        parts = value.reshape(-1, 3, head_channels, *value.shape[1:])
        value = parts.transpose(0, 1).reshape(value.shape)
    return tuple(part.contiguous() for part in value.chunk(3))


def _block(place: str, state: State, shape: ADMShape) -> tuple[str, str]:
    """The block of diffusers that a place in the network belongs to, and the place within the block."""
    found = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)|middle_block\.(\d+)\.(.+)", place)
    if found is None:
        raise ValueError(f"unknown weight {place[:80]}")
    way, number, part, rest, middle, within = found.groups()
    if way is None:
        blocks = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}
        if middle not in blocks:
            raise ValueError(f"unknown weight {place[:80]}")
        return blocks[middle], within
    per_level = shape.layers + 1
    k, sub = int(number), int(part)
    if way == "input_blocks":
        level, j = divmod(k - 1, per_level)
        if j == shape.layers:
            return f"down_blocks.{level}.downsamplers.0", rest
        return f"down_blocks.{level}.{'attentions' if sub else 'resnets'}.{j}", rest
    level, j = divmod(k, per_level)
    if _upsampler(state, k) == f"output_blocks.{k}.{sub}":
        return f"up_blocks.{level}.upsamplers.0", rest
    return f"up_blocks.{level}.{'attentions' if sub else 'resnets'}.{j}", rest


def _upsampler(state: State, k: int) -> str | None:
    """The place that doubles the resolution after a block on the way up; None where there is none."""
    places = (f"output_blocks.{k}.{sub}" for sub in (1, 2))
    return next((p for p in places if f"{p}.conv.weight" in state or f"{p}.in_layers.2.weight" in state), None)


def _count(state: State, way: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{way}.")})


def _weight(state: State, name: str) -> Tensor:
    if name not in state:
        raise ValueError(f"the network lacks the weight {name}")
    return state[name]


def without_variance(state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """The weights, in the names of diffusers, without the half of the last layer that predicts a variance.

    Args:
        state: the weights.
        channels: of the image.

    Raises:
        ValueError: the output has neither as many channels as the image nor twice as many.
    """
    outputs = len(state["conv_out.weight"])
    if outputs not in (channels, 2 * channels):
        raise ValueError(
            f"the network maps {channels} channels to {outputs}; expected as many, or twice with a variance"
        )
    return state | {name: state[name][:channels].clone() for name in ("conv_out.weight", "conv_out.bias")}


def adm_weights(content: Any) -> dict[str, Tensor]:
    """The weights in what a checkpoint file holds: at its top, or under a usual name.

    Raises:
        ValueError: there are none.
    """
    for key in (None, "state_dict", "model", "ema", "ema_model", "model_state_dict"):
        found = content if key is None else content.get(key)
        if isinstance(found, Mapping):
            state = {str(name).removeprefix("module."): value for name, value in found.items()}
            if MARK in state and all(isinstance(value, Tensor) for value in state.values()):
                return {name: value.float() for name, value in state.items()}
    raise ValueError("it holds no weights of a U-Net of guided-diffusion")
