"""H-transforms on disk: safetensors, and one JSON file of what the weights mean."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deft_ct.diffusion.schedule import Schedule
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.familiarity import FILE, Familiarity
from deft_ct.methods.deft.htransform import HTransform
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.spread_calibration import PATTERN, SpreadCalibration
from deft_ct.methods.deft.spread_network import FittedIntervals, SpreadConfig, SpreadNetwork
from deft_ct.networks.storage import ModelFormat
from deft_ct.runtime.fields import fitted, from_values

WEIGHTS = "htransform.safetensors"
METADATA = "htransform.json"
CALIBRATIONS = "calibrations"
"""Key of the card for the calibrations that are stored with an h-transform."""
FAMILIARITY = "familiarity"
"""Key of the card for the limits that are stored with an h-transform."""

_FORMAT = ModelFormat(
    noun="h-transform", assets="htransforms", weights=WEIGHTS, metadata=METADATA,
    companions=("training_log*.csv", PATTERN, FILE, "spread.*"),
)  # fmt: skip


def save_htransform(htransform: HTransform, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write an h-transform as a folder; an existing one there is replaced in one step, and its calibrations are kept.

    A calibration names the weights that it was fitted to, and is not used with others.

    Args:
        htransform: what to write.
        folder: target.
        dtype: of the stored weights.
    """
    card = {key: value for key, value in htransform.card.items() if key not in (CALIBRATIONS, FAMILIARITY)}
    meta = {**htransform.description(), "card": card, "sha256": htransform.content_hash()}
    _FORMAT.write(folder, htransform.state_dict(), meta, dtype=dtype)


def load_htransform(name_or_path: str | Path | None = None) -> HTransform:
    """Load an h-transform by path, by the name of a shipped one, or from the Hugging Face Hub.

    Args:
        name_or_path: folder written by :func:`save_htransform`, a shipped name, None for the default one, or
            ``"hf:OWNER/NAME"``.

    Returns:
        The h-transform in float32 on the CPU, frozen. Its card holds the calibrations of the folder
        (``calibration*.json``), if there are any.

    Raises:
        FileNotFoundError: neither a folder nor a shipped h-transform has this name.
        ReadError: the folder is not an h-transform, is damaged, or its content does not match its SHA-256.
    """
    folder = _FORMAT.find(name_or_path)
    meta, weights = _FORMAT.read(folder)
    calibrations = _calibrations(folder)
    with _FORMAT.using(folder):
        config, card = HTransformConfig.from_dict(meta["config"]), fitted(meta["card"], dict, "card")
        prior_hash = fitted(meta["prior_sha256"], str, "prior_sha256")

        def make() -> HTransform:
            schedule = from_values(Schedule, meta["schedule"])
            return HTransform(config, schedule, prior_hash=prior_hash, card={**card, **calibrations})

        htransform = _FORMAT.build(make, weights)
        _FORMAT.check(folder, htransform.content_hash(), meta["sha256"])
    return htransform.eval().requires_grad_(False)


def _calibrations(folder: Path) -> dict[str, Any]:
    found = [asdict(SpreadCalibration.read(path)) for path in sorted(folder.glob(PATTERN))]
    limits = {FAMILIARITY: asdict(Familiarity.read(folder / FILE))} if (folder / FILE).is_file() else {}
    return ({CALIBRATIONS: found} if found else {}) | limits


def shipped_htransforms() -> list[str]:
    """Names of the h-transforms that come with the package, the default first."""
    return _FORMAT.shipped()


_REFINEMENT = ModelFormat(
    noun="refinement", assets="refinements", weights="refinement.safetensors", metadata="refinement.json"
)


def save_refinement(refinement: Refinement, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a refinement of the initial reconstruction as a folder; an existing one there is replaced in one step.

    Args:
        refinement: what to write.
        folder: target.
        dtype: of the stored weights.
    """
    meta = {
        "config": refinement.config.to_dict(), "relative_error": refinement.relative_error, "card": refinement.card,
        "sha256": refinement.content_hash(),
    }  # fmt: skip
    _REFINEMENT.write(folder, refinement.state_dict(), meta, dtype=dtype)


def load_refinement(folder: str | Path) -> Refinement:
    """Load a refinement that :func:`save_refinement` has written, in float32 on the CPU.

    Raises:
        FileNotFoundError: there is no such folder.
        ReadError: the folder is not a refinement, is damaged, or its content does not match its SHA-256.
    """
    path = _REFINEMENT.find(folder)
    meta, weights = _REFINEMENT.read(path)
    with _REFINEMENT.using(path):
        config, card = RefinementConfig.from_dict(meta["config"]), fitted(meta["card"], dict, "card")
        error = float(fitted(meta["relative_error"], float, "relative_error"))
        refinement = _REFINEMENT.build(lambda: Refinement(config, relative_error=error, card=card), weights)
        _REFINEMENT.check(path, refinement.content_hash(), meta["sha256"])
    return refinement.eval().requires_grad_(False)


_SPREAD = ModelFormat(
    noun="spread network", assets="htransforms", weights="spread.safetensors", metadata="spread.json",
    companions=("training_log*.csv", PATTERN, WEIGHTS, METADATA, "README.md"), has_card=False,
)  # fmt: skip


def save_spread_network(network: SpreadNetwork, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a spread network into a folder, beside the h-transform that may be there.

    Args:
        network: what to write.
        folder: target, which may be that of its h-transform; another spread network there is replaced in one step.
        dtype: of the stored weights.
    """
    meta = {
        **network.description(), "intervals": [asdict(one) for one in network.intervals], "card": network.card,
        "sha256": network.content_hash(),
    }  # fmt: skip
    _SPREAD.write(folder, network.state_dict(), meta, dtype=dtype)


def load_spread_network(name_or_path: str | Path | None = None) -> SpreadNetwork | None:
    """Load the spread network that lies in the folder of an h-transform.

    Args:
        name_or_path: folder, name of a shipped h-transform, or None for the default one.

    Returns:
        The network in float32 on the CPU, frozen; None if the folder has none.

    Raises:
        FileNotFoundError: neither a folder nor a shipped h-transform has this name.
        ReadError: the spread network is damaged, or its content does not match its SHA-256.
    """
    folder = _FORMAT.find(name_or_path)
    if not (folder / _SPREAD.metadata).exists():
        return None
    meta, weights = _SPREAD.read(folder)
    with _SPREAD.using(folder):
        config, card = SpreadConfig.from_dict(meta["config"]), fitted(meta["card"], dict, "card")
        intervals = [from_values(FittedIntervals, values) for values in fitted(meta["intervals"], list, "intervals")]

        def make() -> SpreadNetwork:
            return SpreadNetwork(
                config, htransform_hash=fitted(meta["htransform_sha256"], str, "htransform_sha256"),
                prior_hash=fitted(meta["prior_sha256"], str, "prior_sha256"), intervals=intervals, card=card,
            )  # fmt: skip

        network = _SPREAD.build(make, weights)
        _SPREAD.check(folder, network.content_hash(), meta["sha256"])
    return network.eval().requires_grad_(False)
