"""Results of experiments on disk. Each is computed once and read from then on, so that an interrupted run resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.content_key import ContentKey, result_versions
from deft_ct.runtime.plain_values import plain

Record = dict[str, Any]
"""Plain values that JSON can hold."""


def content_name(label: str, *identity: Any) -> str:
    """A name for a file or folder: a readable label and a hash of everything that its content depends on.

    Args:
        label: its letters and digits are kept; any other character becomes an underscore.
        identity: settings, hashes of data and networks and the like, see
            :class:`~deft_ct.runtime.content_key.ContentKey`. Versions are added.
    """
    key = ContentKey({"label": label, "identity": list(identity), "versions": result_versions()})
    readable = "".join(c if c.isalnum() else "_" for c in label)
    return f"{readable}-{key.digest[:12]}"


def cached_json(path: Path, compute: Callable[[], Record]) -> Record:
    """The record of a JSON file. If there is no such file, it is computed and written."""
    if path.is_file():
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        return found
    value = compute()
    write_text(path, json.dumps(value) + "\n")
    return value


def write_result(folder: Path, name: str, record: Record, text: str) -> None:
    """Write ``name.json`` and ``name.md`` into a folder, which is made if it is missing.

    NaN and infinity, which JSON does not know, become null.
    """
    write_text(folder / f"{name}.json", json.dumps(plain(record), indent=1, allow_nan=False) + "\n")
    write_text(folder / f"{name}.md", text)
