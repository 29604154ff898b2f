"""Content keys: what a stored result depends on. A result is only read again under the key that it was stored with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

_RELEASE = re.compile(r"\d+(\.\d+){0,2}", re.ASCII)
_LONG = 120
"""Characters of a value as JSON. A longer one is kept as its hash."""
_NAMED = 3
"""Differences that a message names."""
ANEW = "choose another folder (--out), or start anew (--overwrite)"


class OtherContentError(ValueError):
    """A folder holds results of other data, settings or versions. One sentence names what differs."""


@dataclass(frozen=True)
class ContentKey:
    """Everything that a result depends on, by name. Equal keys give equal results.

    Args:
        parts: values of any kind, nested in mappings. Arrays and tensors count by shape, type and content; objects
            that JSON does not know count by their text. They are kept flat, as plain values: ``{"a": {"b": 1}}``
            becomes ``{"a.b": 1}``, and long values become their hashes.
    """

    parts: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", dict(_flat("", dict(self.parts))))

    @property
    def digest(self) -> str:
        """SHA-256 of the key."""
        return _sha256(self.parts)

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Names of the parts that another key has not, or has with another value, in the order of this key."""
        before = ContentKey(stored).parts
        names = dict.fromkeys([*self.parts, *before])
        return [n for n in names if (n in before) != (n in self.parts) or _text(before[n]) != _text(self.parts[n])]

    def check(self, stored: Mapping[str, Any], where: Path, *, otherwise: str = ANEW) -> None:
        """Compare with the key that results were stored with.

        Args:
            stored: the parts of that key.
            where: the folder or file that holds the results.
            otherwise: what the user can do instead of using the values of before.

        Raises:
            OtherContentError: the keys differ.
        """
        changed = self.differences(stored)
        if not changed:
            return
        before, now = ContentKey(stored).parts, self.parts
        old = _list([_said(name, before) for name in changed])
        new = _list([_said(name, now) for name in changed])
        raise OtherContentError(
            f"{where} was started with {old} and this run has {new}: use {old} to resume, {otherwise}"
        )


def result_versions() -> dict[str, str]:
    """Versions that results depend on: of deft-ct and PyTorch."""
    return {"deft_ct": release_of(version("deft-ct")), "torch": version("torch")}


def release_of(installed: str) -> str:
    """The release that an installed version belongs to: ``"0.2.0"`` for ``"0.2.0.dev7+g1a2b3c"``.

    Between two releases the version changes with every commit. Results of interrupted work are still of use then.

    Args:
        installed: a version of the package, as its build has derived it from the tags of git.
    """
    found = _RELEASE.match(installed)
    numbers = found[0].split(".") if found else []
    return ".".join([*numbers, "0", "0", "0"][:3]) if numbers else installed


def content_digest(values: Iterable[Any]) -> str:
    """SHA-256 of a sequence of values, one at a time, so that data need not be in memory together.

    Args:
        values: as in :class:`ContentKey`.
    """
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype.str}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).data)
        else:
            found.update(_text(value).encode())
        found.update(b"\0")
    return found.hexdigest()


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], Mapping):
        yield from _flat(name, value[0])  # so that a message can name what differs in the only scan
    else:
        text = _text(value)
        yield name, json.loads(text) if len(text) <= _LONG else f"sha256:{_sha256(value)}"


def _sha256(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        return content_digest([value])
    return str(value)


def _said(name: str, parts: Mapping[str, Any]) -> str:
    """A part in words; hashes by their first characters."""
    if name not in parts:
        return f"no {name}"
    value = parts[name]
    if isinstance(value, str):
        bare = value.removeprefix("sha256:")
        return f"{name} {bare[:12]}" if len(bare) == 64 else f"{name} {value!r}"
    return f"{name} {_text(value)}"


def _list(phrases: list[str]) -> str:
    named, rest = phrases[:_NAMED], len(phrases) - _NAMED
    named += [f"{rest} more"] if rest > 0 else []
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
