"""JSON files that are not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deft_ct.runtime.read_error import ReadError

MOST_BYTES = 64 * 2**20


def read_json_object(path: str | Path, noun: str) -> dict[str, Any]:
    """The object that a JSON file holds; NaN and infinity, which JSON does not have, become None.

    Args:
        path: the file.
        noun: what it should be, for messages: "a preset".

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is larger than 64 MiB, not UTF-8, not JSON, nested too deeply, or not an object.
    """
    source = Path(path)
    try:
        if source.stat().st_size > MOST_BYTES:
            raise ReadError(source, f"is not {noun} of deft-ct: it is larger than {MOST_BYTES // 2**20} MiB")
        content = json.loads(source.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(source, f"is not {noun} of deft-ct ({error}); is the copy complete?") from error
    if not isinstance(content, dict):
        raise ReadError(source, f"is not {noun} of deft-ct: it holds a JSON {type(content).__name__}, not an object")
    return content
