"""Finished parts of a long job, kept beside its output folder until the output is complete.

A job whose output appears as a whole, see :mod:`deft_ct.runtime.atomic`, would lose all of its work if it is killed. It
stores each finished part in a visible folder ``OUT.unfinished``. The same job finds them there and goes on; the folder
is removed when the output is there. Parts belong to a :class:`~deft_ct.runtime.content_key.ContentKey`: those of
another job, or of other data, are never read.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.runtime.atomic import atomic_file, write_text
from deft_ct.runtime.content_key import ContentKey

SUFFIX = ".unfinished"
"""Ending of the folder beside the output."""
_JOB, _RECORD = "job.json", "record"
_PART = "part-*.npz"


@dataclass(frozen=True)
class Part:
    """One finished part.

    Attributes:
        arrays: by name.
        record: JSON-ready.
    """

    arrays: Mapping[str, NDArray[Any]]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class PartStore:
    """The parts of one job.

    Attributes:
        folder: where they are.
        plan: what the first run of the job decided, for example how many images are worked on at once: a run that
            resumes it does the same.
        discarded: names of what differs in the key of an unfinished job that was found and removed.
    """

    folder: Path
    plan: Mapping[str, Any]
    discarded: tuple[str, ...] = ()

    def read(self, name: str) -> Part | None:
        """A finished part; None if it is not there, or if a failing disk has damaged it.

        Args:
            name: of the part.
        """
        path = self._path(name)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files if key != _RECORD}
                return Part(arrays, json.loads(str(stored[_RECORD])))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            return None

    def write(self, name: str, part: Part) -> None:
        """Store a part; it appears, complete, when this returns.

        Raises:
            WriteError: the disk is full, or cannot be written.
        """
        values: dict[str, Any] = {_RECORD: np.array(json.dumps(part.record)), **part.arrays}
        with atomic_file(self._path(name)) as temporary, temporary.open("wb") as file:
            np.savez(file, **values)

    def _path(self, name: str) -> Path:
        return self.folder / _PART.replace("*", name)


@contextlib.contextmanager
def part_store(target: Path, key: ContentKey, plan: Mapping[str, Any]) -> Iterator[PartStore]:
    """Open the parts of the job that writes ``target``; the caller holds ``target``, see ``reserve_folder``.

    At the end of the block all parts are removed. After an exception they stay if there are any, so that the same job
    can go on.

    Args:
        target: the output folder.
        key: everything that the parts depend on.
        plan: JSON-ready; kept with the parts; a resumed job takes the plan that was kept.

    Yields:
        The store. Parts of a job with another key are removed first; ``discarded`` says how it differs.
    """
    folder = unfinished_folder(target)
    stored = _stored_job(folder)
    same = stored is not None and not key.differences(stored["key"])
    discarded = tuple(key.differences(stored["key"])) if stored is not None and not same else ()
    if not same:
        remove_parts(target)
        write_text(folder / _JOB, json.dumps({"key": key.parts, "plan": dict(plan)}, indent=1) + "\n")
    store = PartStore(folder, stored["plan"] if stored is not None and same else dict(plan), discarded)
    try:
        yield store
    except BaseException:
        if not any(folder.glob(_PART)):
            remove_parts(target)
        raise
    remove_parts(target)


def unfinished_folder(target: Path) -> Path:
    """The folder of the parts of an output folder, beside it, where it really lies."""
    real = target.resolve()
    return real.with_name(real.name + SUFFIX)


def remove_parts(target: Path) -> None:
    """Remove the unfinished parts of an output folder, and no file that is none."""
    folder = unfinished_folder(target)
    if not folder.is_dir():
        return
    for path in [*folder.glob(_PART), folder / _JOB]:
        path.unlink(missing_ok=True)
    for left in folder.glob(".*.partial-*"):  # a process was killed while it wrote a part
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.suppress(OSError):  # it holds a file of somebody else
        folder.rmdir()


def _stored_job(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / _JOB).read_text(encoding="utf-8"))
        return found if isinstance(found["key"], dict) and isinstance(found["plan"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
