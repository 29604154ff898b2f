"""Two generations of a checkpoint on disk: the last one, and the one before for the day when the last is damaged."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from deft_ct.runtime.atomic import atomic_file

PREVIOUS = "checkpoint.previous.pt"
"""The checkpoint before; it is used if the last one is damaged or missing."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; the one before is kept as :data:`PREVIOUS` beside it.

    Raises:
        WriteError: the disk is full or refuses.
    """
    content = io.BytesIO()  # torch does not say what the system said when it cannot write
    torch.save(state, content)
    # A truncated file has lost its list of contents, which is at the end. It must not push out a good one.
    previous = path.with_name(PREVIOUS) if zipfile.is_zipfile(path) else None
    with atomic_file(path, previous=previous) as part:
        part.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint at ``path`` or before it; None if there was never one. A fall-back is warned of.

    Raises:
        ValueError: none of them can be read.
    """
    damaged = []
    for candidate in (path, path.with_name(PREVIOUS)):
        if not candidate.is_file():
            continue
        try:
            state: dict[str, Any] = torch.load(candidate, map_location="cpu", weights_only=True)
            step = int(state["step"])
        except Exception:  # noqa: BLE001  (types of torch and pickle: whatever it is, this is no checkpoint)
            damaged.append(candidate)
            continue
        if candidate != path:
            reason = "is damaged" if damaged else "is missing"
            warnings.warn(
                f"{path} {reason}: the checkpoint before it, {candidate.name} of step {step}, is used",
                UserWarning,
                stacklevel=3,
            )
        return state
    if damaged:
        raise ValueError(
            f"{' and '.join(map(str, damaged))} cannot be read as a checkpoint: remove "
            f"{'it' if len(damaged) == 1 else 'them'} to start anew"
        )
    return None
