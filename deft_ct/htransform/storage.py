"""H-transforms on disk: safetensors, and one JSON file of what the weights mean."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from deft_ct.htransform.head import HTransform, HTransformConfig
from deft_ct.schedule import Schedule

WEIGHTS = "htransform.safetensors"
METADATA = "htransform.json"


def save_htransform(htransform: HTransform, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write an h-transform as a folder; an existing one there is replaced in one step.

    Args:
        htransform: what to write.
        folder: target.
        dtype: of the stored weights.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in htransform.state_dict().items()}
    save_file(weights, part / WEIGHTS, metadata={"format": "pt"})
    meta = {**htransform.description(), "card": htransform.card, "sha256": htransform.content_hash()}
    (part / METADATA).write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def load_htransform(name_or_path: str | Path | None = None) -> HTransform:
    """Load an h-transform by path, or by the name of a shipped one.

    Args:
        name_or_path: folder written by :func:`save_htransform`, a shipped name, or None for the default one.

    Returns:
        The h-transform in float32 on the CPU, frozen.

    Raises:
        FileNotFoundError: neither a folder nor a shipped h-transform has this name.
        ValueError: the folder is not an h-transform, or its content does not match its SHA-256.
    """
    folder = _find(name_or_path)
    try:
        meta = json.loads((folder / METADATA).read_text())
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not an h-transform: {Path(str(error.filename)).name} is missing") from error
    except Exception as error:  # safetensors and json raise types of their own
        raise ValueError(f"{folder} cannot be read as an h-transform ({error}); is the copy complete?") from error
    htransform = HTransform(
        HTransformConfig.from_dict(meta["config"]),
        Schedule(**meta["schedule"]),
        prior_hash=meta["prior_sha256"],
        card=meta["card"],
    )
    htransform.load_state_dict({key: value.float() for key, value in weights.items()})
    if htransform.content_hash() != meta["sha256"]:
        raise ValueError(f"the weights in {folder} do not match their SHA-256: the files are damaged or were changed")
    return htransform.eval().requires_grad_(False)


def shipped_htransforms() -> list[str]:
    """Names of the h-transforms that come with the package, the default first."""
    root = _assets()
    return sorted((p.name for p in root.iterdir() if (p / METADATA).is_file()), reverse=True) if root.is_dir() else []


def _assets() -> Path:
    return Path(str(resources.files("deft_ct"))) / "assets" / "htransforms"


def _find(name_or_path: str | Path | None) -> Path:
    known = shipped_htransforms()
    if name_or_path is None:
        if not known:
            raise FileNotFoundError("no h-transform comes with this installation; pass the folder of one")
        return _assets() / known[0]
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if str(name_or_path) in known:
        return _assets() / str(name_or_path)
    raise FileNotFoundError(f"no h-transform {str(name_or_path)!r}: not a folder, and the shipped ones are {known}")
