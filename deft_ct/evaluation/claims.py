"""Claims of workers on pieces of work in one folder, also of workers on several machines.

A claim is a lease of the library filelock: a file that its owner touches now and then. The claim of a worker that was
killed is free at once for workers on the same machine. Elsewhere it is free when it was not touched for
:data:`EXPIRES_S`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

CLAIMS = "claims"
EXPIRES_S = 120.0
"""Seconds without a sign of life after which a claim is free. The owner gives one three times as often."""


class Claims:
    """The claims in a folder, as one worker sees them.

    Args:
        folder: where they are; made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / CLAIMS
        # A claim of another machine expires by the time for which this object has seen it untouched.
        self._seen: dict[str, SoftFileLease] = {}

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a piece of work for the block; yields whether it worked. It does not if another worker has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lease = self._seen.pop(name, None) or SoftFileLease(
            self.folder / f"{name}.claim", lease_duration=EXPIRES_S, timeout=0
        )
        try:
            lease.acquire()
        except Timeout:
            self._seen[name] = lease
            yield False
            return
        try:
            yield True
        finally:
            lease.release()

    def held_by_others(self) -> bool:
        """Whether another worker is at work; claims of killed ones are removed."""
        found = False
        for path in sorted(self.folder.glob("*.claim")):
            with self.claim(path.stem) as mine:
                found |= not mine
        return found
