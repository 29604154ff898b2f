"""A ``UNet2DModel`` of diffusers as a network of this package, for priors whose shape our own U-Net does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from deft_ct.networks.any_size import continued
from deft_ct.networks.network import TimeNetwork
from deft_ct.networks.unet import UNetConfig
from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.fields import check_fields

_NATIVE_BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True}
_NATIVE_UP = {"UpBlock2D": False, "AttnUpBlock2D": True}
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu",), "add_attention": (True,), "center_input_sample": (False,), "class_embed_type": (None,),
    "downsample_padding": (1,), "downsample_type": (None, "conv"), "flip_sin_to_cos": (True,), "freq_shift": (0,),
    "mid_block_scale_factor": (1,), "mid_block_type": ("UNetMidBlock2D", "auto"), "norm_eps": (1e-5,),
    "num_class_embeds": (None,), "num_train_timesteps": (None,), "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",), "upsample_type": (None, "conv"),
}  # fmt: skip
"""Settings of diffusers for which its U-Net computes what ours computes."""


@dataclass(frozen=True, kw_only=True)
class DiffusersUNetConfig:
    """Shape of a :class:`DiffusersUNet`.

    Args:
        values: keyword arguments of diffusers' ``UNet2DModel``, as in its ``config.json``; JSON-ready.

    Raises:
        ValueError: ``values`` is not an object, or lacks the number of channels.
    """

    values: dict[str, Any]

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("in_channels", "out_channels"):
            found = self.values.get(name)
            if not isinstance(found, int) or isinstance(found, bool) or found < 1:
                raise ValueError(f"values must name the {name} of the network, a whole number from 1, got {found!r}")

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this."""
        return int(2 ** (len(self.values.get("down_block_types", (0,) * 4)) - 1))

    def build(self) -> DiffusersUNet:
        """The network, with random weights.

        Raises:
            MissingExtraError: diffusers is not installed.
        """
        return DiffusersUNet(self)

    def small(self, width: int) -> UNetConfig:
        """One level of our own U-Net: what is trained beside an imported network does not need diffusers."""
        return UNetConfig(
            in_channels=self.values["in_channels"], out_channels=self.values["out_channels"], patch=4,
            channels=(width,), attention=(False,), norm_groups=min(32, width), head_channels=width,
        )  # fmt: skip

    def with_channels(self, inputs: int, outputs: int) -> DiffusersUNetConfig:
        """The same shape for other numbers of channels in and out."""
        return DiffusersUNetConfig(values=self.values | {"in_channels": inputs, "out_channels": outputs})

    def layout(self, channels: int) -> tuple[int | str, ...]:
        """``(channels, "H", "W")``: images."""
        return channels, "H", "W"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"kind": "diffusers", "values": dict(self.values)}


class DiffusersUNet(TimeNetwork):
    """A ``UNet2DModel``; its weights have diffusers' own names.

    ``forward(x, t)`` takes ``(B, in_channels, H, W)`` and times ``(B,)``; it returns ``(B, out_channels, H, W)``.

    Args:
        config: its shape.

    Raises:
        MissingExtraError: diffusers is not installed.
    """

    config: DiffusersUNetConfig
    first_layer = "model.conv_in"
    last_layer = "model.conv_out"

    def __init__(self, config: DiffusersUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.model: Any = optional_library("diffusers", "diffusers").UNet2DModel.from_config(config.values)
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    @property
    def embedding_width(self) -> int:
        """Features of the embedding of the time."""
        width: int = self.model.time_embedding.linear_2.out_features
        return width

    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class.

        Raises:
            ValueError: the shape of ``x`` is wrong, or ``extra`` is given, for which diffusers has no place here.
        """
        channels, multiple = self.config.values["in_channels"], self.config.multiple
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"expected an image of shape (B, {channels}, H, W), got {tuple(x.shape)}")
        if extra is not None:
            raise ValueError("a network of diffusers takes no features beside the time")
        dtype, (height, width) = self.model.conv_in.weight.dtype, x.shape[2:]
        whole, top, left = continued(x.to(dtype), multiple)
        found: Tensor = self.model(whole, t, return_dict=False)[0]
        return found[..., top : top + height, left : left + width]


def native_config(values: Mapping[str, Any]) -> UNetConfig | None:
    """Our own U-Net that computes what a ``UNet2DModel`` computes, under the same names of the weights.

    Args:
        values: keyword arguments of the ``UNet2DModel``; those that are left out have diffusers' defaults.

    Returns:
        Its shape; None where ours has no such network.
    """
    given = {**_DEFAULTS, **{name: value for name, value in values.items() if not name.startswith("_")}}
    down, up = list(given.pop("down_block_types")), list(given.pop("up_block_types"))
    same = all(given.pop(name) in allowed for name, allowed in _FIXED.items())
    known = all(block in _NATIVE_BLOCKS for block in down) and all(block in _NATIVE_UP for block in up)
    if not (same and known):
        return None
    attention = [_NATIVE_BLOCKS[block] for block in down]
    scale_shift = given.pop("resnet_time_scale_shift") == "scale_shift"
    groups, in_attention = given.pop("norm_num_groups"), given.pop("attn_norm_num_groups")
    # Without groups of its own, the attention in the middle has no normalisation beside "scale_shift".
    fits = in_attention == groups or (in_attention is None and not scale_shift)
    heads = given.pop("attention_head_dim")
    channels = given.pop("block_out_channels")
    layers, inputs, outputs = given.pop("layers_per_block"), given.pop("in_channels"), given.pop("out_channels")
    given.pop("sample_size"), given.pop("dropout")
    if given or not fits or [_NATIVE_UP[block] for block in reversed(up)] != attention or heads is None:
        return None
    try:
        return UNetConfig(
            in_channels=inputs, out_channels=outputs, patch=1, channels=tuple(channels), layers=layers,
            attention=tuple(attention), head_channels=heads, norm_groups=groups, scale_shift=scale_shift,
        )  # fmt: skip
    except ValueError:
        return None


_DEFAULTS: Mapping[str, Any] = {
    "sample_size": None, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
    "time_embedding_type": "positional", "time_embedding_dim": None, "freq_shift": 0, "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896), "layers_per_block": 2, "mid_block_scale_factor": 1,
    "downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv", "dropout": 0.0, "act_fn": "silu",
    "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None, "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default", "add_attention": True, "class_embed_type": None, "num_class_embeds": None,
    "num_train_timesteps": None,
}  # fmt: skip
"""Defaults of ``UNet2DModel``; a test compares them with diffusers'."""


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}model.")]:
        state[prefix + name.removeprefix(f"{prefix}model.")] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)
