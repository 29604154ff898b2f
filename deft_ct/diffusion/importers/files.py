"""Files of other programs as priors: a folder of diffusers, or a checkpoint of guided-diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from deft_ct.diffusion.importers import adm
from deft_ct.diffusion.prior import PREDICTIONS, Prediction, Prior
from deft_ct.diffusion.schedule import BetaSchedule, Schedule
from deft_ct.measurement.scales import PriorRange
from deft_ct.networks.diffusers_unet import DiffusersUNetConfig, native_config
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.read_error import ReadError

PIPELINE, NETWORK, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the files do not say.

    Args:
        value_range: values, in the unit of a scale (HU for CT), of -1 and +1; None for photographs.
        image_size: side of the training images, where the files do not name it.
        head_channels: channels of one attention head of a checkpoint of guided-diffusion.
        by_kind: whether such a checkpoint has the newer order of queries, keys and values.
        schedule: of a network without a scheduler.
        prediction: of a network without a scheduler.
        card: kept with the prior: data, licence, source.

    Raises:
        ValueError: a value is out of range.
    """

    value_range: PriorRange | None = None
    image_size: int = 256
    head_channels: int = 64
    by_kind: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    prediction: Prediction = "epsilon"
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_size < 1 or self.head_channels < 1:
            raise ValueError("image_size and head_channels must be at least 1")


def import_prior(source: str | Path, options: ImportOptions | None = None) -> Prior:
    """A prior from the files of another program.

    Args:
        source: a folder of diffusers (a pipeline with ``unet`` and ``scheduler``, or a ``UNet2DModel`` alone), or a
            checkpoint of guided-diffusion (``.pt``). Nothing in it is run.
        options: what the files do not say.

    Returns:
        The prior in float32 on the CPU. Its network needs diffusers only where our U-Net does not have its shape.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ReadError: it is something else, is damaged, or is of a kind that cannot be a prior here.
        ImportError: the network needs diffusers, which is not installed.
    """
    path, options = Path(source), options or ImportOptions()
    if path.is_dir():
        values, weights, options = _read_folder(path, options)
    elif path.is_file():
        values, weights = _read_adm(path, options)
    else:
        raise FileNotFoundError(f"no such file or folder: {path}")
    try:
        return _prior(values, weights, options)
    except ImportError:
        raise
    except Exception as error:  # whatever a description leads to
        raise ReadError(path, f"cannot be used as a prior: {error}") from error


def is_foreign(folder: Path) -> bool:
    """Whether a folder is one of diffusers, by the names of its files."""
    return any((folder / name).is_file() for name in (PIPELINE, NETWORK))


def _prior(values: Mapping[str, Any], weights: dict[str, Tensor], options: ImportOptions) -> Prior:
    channels = int(values.get("in_channels", 3))
    weights = adm.without_variance(weights, channels)
    values = {**values, "out_channels": channels}
    config = native_config(values) or DiffusersUNetConfig(values=dict(values))
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in config.build().state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(
            f"{len(wrong)} weights do not fit the description of the network, the first is {wrong[0][:80]}: expected "
            f"{expected.get(wrong[0], 'none')}, got {found.get(wrong[0], 'none')}"
        )
    network = config.build()
    network.load_state_dict(weights)
    side = values.get("sample_size") or options.image_size
    rows, columns = side if isinstance(side, list | tuple) else (side, side)
    return Prior(
        network, options.schedule, prediction=options.prediction, value_range=options.value_range,
        image_shape=(channels, int(rows), int(columns)), card=dict(options.card),
    )  # fmt: skip


def _read_adm(path: Path, options: ImportOptions) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.suffix not in CHECKPOINTS:
        raise ReadError(
            path, f"is not a checkpoint: expected a file that ends in {', '.join(CHECKPOINTS)}, or a folder"
        )
    content = _torch_file(path)
    try:
        state = adm.adm_weights(content)
        shape = adm.adm_shape(state)
        values = adm.diffusers_values(shape, options.image_size, options.head_channels)
        return values, adm.diffusers_state(state, shape, options.head_channels, by_kind=options.by_kind)
    except (ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise ReadError(path, f"cannot be used as a prior: {error}") from error


def _torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises anything
        raise ReadError(path, "is damaged, or holds more than weights, which is not loaded") from error


def _read_folder(folder: Path, options: ImportOptions) -> tuple[dict[str, Any], dict[str, Tensor], ImportOptions]:
    pipeline = (folder / PIPELINE).is_file()
    network = folder / "unet" if pipeline else folder
    if not (network / NETWORK).is_file():
        raise ReadError(folder, f"is not a folder of diffusers: {(network / NETWORK).relative_to(folder)} is missing")
    values = read_json_object(network / NETWORK, "a network")
    kind = values.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ReadError(network, f"is a {str(kind)[:80]}; only a UNet2DModel can be a prior here")
    if values.get("class_embed_type") is not None or values.get("num_class_embeds") is not None:
        raise ReadError(network, "is conditioned on classes; only unconditional networks can be priors here")
    places = (folder / "scheduler" if pipeline else folder, folder.parent / "scheduler")
    scheduler = next((place / SCHEDULER for place in places if (place / SCHEDULER).is_file()), None)
    if scheduler is not None:
        options = _with_scheduler(scheduler, options)
    plain = {name: value for name, value in values.items() if not name.startswith("_")}
    return plain, _weights(network), options


def _with_scheduler(path: Path, options: ImportOptions) -> ImportOptions:
    values = read_json_object(path, "a scheduler")
    kind, prediction = values.get("beta_schedule", "linear"), values.get("prediction_type", "epsilon")
    problem = None
    if "Ve" in str(values.get("_class_name")) or "EDM" in str(values.get("_class_name")):
        problem = f"is a {values['_class_name']}, whose noise does not preserve the variance"
    elif values.get("trained_betas") is not None or values.get("rescale_betas_zero_snr"):
        problem = "has betas of its own"
    elif kind not in get_args(BetaSchedule):
        problem = f"has the beta_schedule {str(kind)[:80]!r}, expected one of {', '.join(get_args(BetaSchedule))}"
    elif prediction not in PREDICTIONS:
        problem = f"has the prediction_type {str(prediction)[:80]!r}, expected one of {', '.join(PREDICTIONS)}"
    if problem is not None:
        raise ReadError(path, problem)
    try:
        schedule = Schedule(
            steps=values.get("num_train_timesteps", 1000), beta_start=values.get("beta_start", 1e-4),
            beta_end=values.get("beta_end", 0.02), kind=kind,
        )  # fmt: skip
    except ValueError as error:
        raise ReadError(path, f"is not a usable schedule: {error}") from error
    return replace(options, schedule=schedule, prediction=prediction)


def _weights(folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ReadError(folder, f"has no weights: expected {' or '.join(WEIGHTS)}")
    if path.suffix != ".safetensors":
        content = _torch_file(path)
        if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
            raise ReadError(path, "holds something else than weights")
        return {str(name): value.float() for name, value in content.items()}
    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except Exception as error:  # safetensors raises types of its own
        raise ReadError(path, f"cannot be read as weights ({error}); is the copy complete?") from error
