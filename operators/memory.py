"""Refuse what does not fit into memory before any of it is taken."""

from __future__ import annotations

from pathlib import Path

import psutil

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Memory that this process may still take: of the machine, or of its container if that is less."""
    free: int = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    return min(free, max(limit - used, 0))


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse work that needs more memory than there is.

    Args:
        needed: bytes, at least; a low estimate, so that nothing is refused that would fit.
        what: what needs them, in words, for example ``"a scan with 60 views"``.
        advice: what to change.

    Raises:
        ValueError: there is less free.
    """
    if needed > (free := free_bytes()):
        raise ValueError(
            f"{what} needs at least {needed / _GIB:.3g} GiB of memory and {free / _GIB:.3g} GiB are free: {advice}"
        )
