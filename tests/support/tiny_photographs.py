"""Small photographs, a prior of them, and the commands that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from overriding import overriding
from PIL import Image
from tiny import NETWORK
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.diffusion import Prior, save_prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.networks import UNet

SIDE = 16


def photograph_prior(channels: int = 3) -> Prior:
    torch.manual_seed(0)
    network = UNet(NETWORK.with_channels(channels, channels))
    return Prior(network, Schedule(), prediction="v_prediction", image_shape=(channels, SIDE, SIDE))


def photographs_and_prior(folder: Path) -> Path:
    """Write four pictures and a prior of random weights: ``folder/pictures`` and ``folder/prior``."""
    (folder / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    for k, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "pictures" / f"{k}.png")
    save_prior(photograph_prior(), folder / "prior")
    return folder


def train_on_photographs(what: str, place: Path, out: Path, *more: Any, steps: int = 2) -> Result:
    """``deft-ct train WHAT`` with tiny settings, or with those that are given."""
    arguments = [
        "train", what, "--data", f"photos:{place / 'pictures'}:{SIDE}", "--out", out, "--channels", "32,32",
        "--steps", steps, "--batch-size", 2, "--draws", 2, "--no-progress",
    ]  # fmt: skip
    return CliRunner().invoke(app, overriding(arguments, more))
