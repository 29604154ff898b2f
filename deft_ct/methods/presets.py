"""Tuned options of methods: one JSON file for each measurement and method, with the record of the search."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.fields import from_values
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.read_error import ReadError

MOTIF_PRESET = "motif"
"""Name under which the options for scaffolds of protein motifs are stored."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Options of one method for one measurement.

    Attributes:
        method: its name.
        scan: name of the measurement that they were tuned for, for example the scan ``"parallel60_1e5"``.
        options: fields of the method's configuration.
        provenance: measurement, data, seed, trials, score, versions.
    """

    method: str
    scan: str
    options: dict[str, Any]
    provenance: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the JSON file, in one step."""
        content = {
            "method": self.method, "scan": self.scan, "options": self.options, "provenance": self.provenance
        }  # fmt: skip
        write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def load_preset(method: str, name_or_path: str | Path) -> Preset:
    """Load a preset by file, or by the name of a scan.

    Args:
        method: the method that it must be for.
        name_or_path: a JSON file of ``deft-ct tune``, or a scan that presets are shipped for.

    Raises:
        FileNotFoundError: there is none; the message lists those that are shipped for the method.
        ReadError: the file is not a preset, or one for another method.
    """
    path = Path(name_or_path)
    if not path.is_file():
        known = shipped_presets(method)
        if str(name_or_path) not in known:
            raise FileNotFoundError(
                f"no preset {str(name_or_path)!r} for {method}: not a file, and the shipped ones are {known}; "
                f"make one with `deft-ct tune {method}`"
            )
        path = _root() / str(name_or_path) / f"{method}.json"
    content = read_json_object(path, "a preset")
    known = [entry.name for entry in fields(Preset)]
    try:
        preset = from_values(Preset, {key: value for key, value in content.items() if key in known})
    except ValueError as error:
        raise ReadError(path, f"is not a preset of deft-ct ({error})") from error
    if preset.method != method:
        raise ReadError(path, f"is a preset for {preset.method[:80]}, not for {method}")
    return preset


def shipped_presets(method: str) -> list[str]:
    """Names of the scans that a method has a shipped preset for, sorted."""
    root = _root()
    return sorted(path.parent.name for path in root.glob(f"*/{method}.json")) if root.is_dir() else []


def _root() -> Path:
    return Path(str(resources.files("deft_ct"))) / "assets" / "presets"
