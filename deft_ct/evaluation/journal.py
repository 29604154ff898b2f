"""The journal of a study of Optuna, for a folder that this process holds. Needs Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.durable import write_errors


class _Held(JournalFileOpenLock):
    """No further lock: the folder is held. Optuna's own lock stays behind when a process is killed."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to release."""


class _Backend(JournalFileBackend):
    """A journal whose errors name it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with write_errors(path):
            super().__init__(str(path), lock_obj=_Held(str(path)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines."""
        with write_errors(self._path):
            super().append_logs(logs)


def journal_backend(path: Path) -> JournalFileBackend:
    """The journal at ``path``, new or resumed, in a folder that this process holds.

    A process that was killed, or met a full disk, while it added a line has left half of it. Such an end is cut off:
    the trial counts as interrupted.
    """
    if path.is_file():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with atomic_file(path) as part:
                part.write_bytes(whole)
    return _Backend(path)
