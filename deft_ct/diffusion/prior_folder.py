"""Priors on disk: a diffusers folder with safetensors, plus one JSON file of what diffusers does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deft_ct.diffusion.diffusers_files import diffusers_config, scheduler_config
from deft_ct.diffusion.importers.files import import_prior, is_foreign
from deft_ct.diffusion.prior import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks import TimeNetwork, UNetConfig, network_config
from deft_ct.networks.diffusers_unet import DiffusersUNetConfig
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
    more = {SCHEDULER: scheduler_config(prior)}
    if isinstance(config, UNetConfig):
        more[NETWORK] = diffusers_config(config, prior.image_shape[-1])
    elif isinstance(config, DiffusersUNetConfig):
        more[NETWORK] = {"_class_name": "UNet2DModel", **config.values}
    _FORMAT.write(folder, prior.network.state_dict(), meta, dtype=dtype, more=more)


def load_prior(name_or_path: str | Path | None = None) -> Prior:
    """Load a prior by path, by the name of a shipped one, or from the Hugging Face Hub.

    Args:
        name_or_path: folder written by :func:`save_prior`, or ``"hf:OWNER/NAME"`` for one on the Hub. The name of a
            shipped prior, or None for the default one. A folder of diffusers or a checkpoint of guided-diffusion:
            :func:`~deft_ct.diffusion.importers.import_prior` says what such files leave open.

    Returns:
        The prior in float32 on the CPU.

    Raises:
        FileNotFoundError: neither a folder nor a shipped prior has this name.
        ReadError: the folder is not a prior, is damaged, or its content does not match its SHA-256.
    """
    if name_or_path is not None and Path(name_or_path).is_file():
        return import_prior(name_or_path)
    folder = _FORMAT.find(name_or_path)
    if is_foreign(folder) and not (folder / METADATA).is_file():
        return import_prior(folder)
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
