"""The files with which diffusers has a prior of ours: ``config.json`` and ``scheduler_config.json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from deft_ct.diffusion.prior import Prior
from deft_ct.networks import UNetConfig


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


def scheduler_config(prior: Prior) -> dict[str, Any]:
    """The ``scheduler_config.json`` with which diffusers has the schedule of a prior."""
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
