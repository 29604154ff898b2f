"""Batches of tensors in a folder, each computed once and used for several passes of a training.

Each block of batches is a file that is written in one step, so interrupted work resumes where it stopped. Every file
says what it depends on, and one that depends on anything else is computed anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from deft_ct.runtime.atomic import atomic_file, write_text
from deft_ct.runtime.content_key import ANEW, ContentKey, OtherContentError

BLOCK = 8
"""Batches in a file."""
RECORD = "table.json"
"""File that says what a folder of blocks depends on."""
KEY = "content_key"
"""Metadata of a file: digest of the key that its content depends on."""


def stored_batches(
    folder: Path,
    key: ContentKey,
    batches: int,
    make: Callable[[int], dict[str, Tensor]],
    *,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
    progress: str | None = None,
) -> dict[str, Tensor] | None:
    """Compute the batches of a table, or what is missing of them.

    Args:
        folder: of the blocks.
        key: all that the content depends on.
        batches: how many.
        make: the columns of a batch by its number, each ``(B, ...)``.
        overwrite: replace a table of another content.
        should_stop: asked before every block but the first, also before those that are there: the processes of a
            training ask equally often. True ends the work until the next call.
        progress: title of a progress bar; None for none.

    Returns:
        The columns of all batches, in order; None if ``should_stop`` ended the work before it was complete.

    Raises:
        OtherContentError: the folder holds another table, and ``overwrite`` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    if record.is_file() and not overwrite:
        key.check(_known(record), folder)
    write_text(record, json.dumps(dict(key.parts), indent=1, sort_keys=True) + "\n")
    blocks = []
    firsts = range(0, batches, BLOCK)
    for first in firsts if progress is None else track(firsts, progress):
        if first and should_stop is not None and should_stop():
            return None
        path = folder / f"{first:06d}.safetensors"
        block = _read(path, key.digest)
        if block is None:
            block = _joined([make(number) for number in range(first, min(first + BLOCK, batches))])
            with atomic_file(path) as part:  # another process of the training may write the same block
                part.write_bytes(save(block, metadata={KEY: key.digest}))
        blocks.append(block)
    return _joined(blocks)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _known(record: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OtherContentError(f"{record} is damaged, so its table cannot be resumed: {ANEW}") from error
    return found


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """A finished block; None where there is none, a damaged one, or one of another key: it is then computed anew."""
    try:
        with safe_open(path, "pt") as file:
            known = (file.metadata() or {}).get(KEY)
            return {name: file.get_tensor(name) for name in file.keys()} if known == key else None
    except (FileNotFoundError, SafetensorError):
        return None
