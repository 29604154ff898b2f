"""Priors on disk: a diffusers folder with safetensors, plus one JSON file of what diffusers does not know."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import TimeNetwork, UNetConfig, network_config
from deft_ct.networks.storage import ModelFormat
from deft_ct.runtime.fields import fitted, from_values

WEIGHTS = "diffusion_pytorch_model.safetensors"
NETWORK = "config.json"
SCHEDULER = "scheduler_config.json"
METADATA = "deft_ct.json"
MOST_PIXELS = 100_000

_FORMAT = ModelFormat(noun="prior", assets="priors", weights=WEIGHTS, metadata=METADATA, extras=(NETWORK, SCHEDULER))


def save_prior(prior: Prior, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a prior as a folder; an existing prior there is replaced in one step.

    ``deft_ct.json`` holds the shape of the network, the range of values, the card and the SHA-256 of the content. For
    a U-Net, ``config.json`` and the weights fit a diffusers ``UNet2DModel`` behind the space-to-depth stem.
    ``scheduler_config.json`` fits a ``DDPMScheduler``.

    Args:
        prior: its network must be one of :data:`~deft_ct.networks.NETWORKS`.
        folder: target.
        dtype: of the stored weights.

    Raises:
        TypeError: the network is of another kind.
        FileExistsError: the folder holds files that this program did not write.
    """
    if not isinstance(prior.network, TimeNetwork):
        raise TypeError(f"only priors with a network of this package can be saved, got {type(prior.network).__name__}")
    config = prior.network.config
    meta = {"network": config.to_dict(), **prior.description(), "card": prior.card, "sha256": prior.content_hash()}
    more = {SCHEDULER: _scheduler_config(prior)}
    if isinstance(config, UNetConfig):
        more[NETWORK] = diffusers_config(config, prior.image_shape[-1])
    _FORMAT.write(folder, prior.network.state_dict(), meta, dtype=dtype, more=more)


def load_prior(name_or_path: str | Path | None = None) -> Prior:
    """Load a prior by path, or by the name of a shipped one.

    Args:
        name_or_path: folder written by :func:`save_prior`, the name of a shipped prior, or None for the default one.

    Returns:
        The prior in float32 on the CPU.

    Raises:
        FileNotFoundError: neither a folder nor a shipped prior has this name.
        ReadError: the folder is not a prior, is damaged, or its content does not match its SHA-256.
    """
    folder = _FORMAT.find(name_or_path)
    meta, weights = _FORMAT.read(folder)
    with _FORMAT.using(folder):
        config, span = network_config(meta["network"]), meta["value_range_hu"]
        schedule = from_values(Schedule, meta["schedule"])
        prior = Prior(
            _FORMAT.build(config.build, weights),
            schedule,
            prediction=fitted(meta["prediction"], str, "prediction"),
            value_range=None if span is None else PriorRange(*fitted(span, tuple[float, float], "value_range_hu")),
            image_shape=_image_shape(meta),
            card=fitted(meta["card"], dict, "card"),
        )
        _FORMAT.check(folder, prior.content_hash(), meta["sha256"])
    return prior


def _image_shape(meta: dict[str, Any]) -> tuple[int, ...]:
    shape = meta.get("image_shape") or (meta["channels"], meta["image_size"], meta["image_size"])
    sides: tuple[int, ...] = fitted(shape, tuple[int, ...], "image_shape")
    if len(sides) not in (2, 3) or not all(0 < side <= MOST_PIXELS for side in sides):
        raise ValueError(f"image_shape must be (C, H, W) or (N, F) of 1 to {MOST_PIXELS}, got {sides}")
    return sides


def shipped_priors() -> list[str]:
    """Names of the priors that come with the package, the default first."""
    return _FORMAT.shipped()


def diffusers_config(config: UNetConfig, image_size: int) -> dict[str, Any]:
    """The ``config.json`` with which diffusers' ``UNet2DModel`` computes what ours computes behind its stem."""
    pixels = config.patch**2
    return {
        "_class_name": "UNet2DModel",
        "sample_size": image_size // config.patch,
        "in_channels": config.in_channels * pixels,
        "out_channels": config.out_channels * pixels,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.layers,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in config.attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)],
        "attention_head_dim": config.head_channels,
        "norm_num_groups": config.norm_groups,
        "norm_eps": 1e-5,
        "attn_norm_num_groups": config.norm_groups,  # else the middle has none beside "scale_shift"
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
    }


def _scheduler_config(prior: Prior) -> dict[str, Any]:
    schedule = asdict(prior.schedule)
    if prior.schedule.continuous:
        steps = prior.schedule.steps
        return {
            "_class_name": "ScoreSdeVpScheduler", "num_train_timesteps": steps,
            "beta_min": steps * schedule["beta_start"], "beta_max": steps * schedule["beta_end"],
            "prediction_type": prior.prediction,
        }  # fmt: skip
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule["steps"],
        "beta_start": schedule["beta_start"],
        "beta_end": schedule["beta_end"],
        "beta_schedule": schedule["kind"],
        "prediction_type": prior.prediction,
        "clip_sample": False,
    }
