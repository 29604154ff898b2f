"""Tuned options of methods: one JSON file for each scan and method, with the record of how they were found."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from deft_ct.ct.scan import Scan


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Options of one method for one scan.

    Attributes:
        method: its name.
        scan: name of the scan that they were tuned for, for example ``"parallel60_1e5"``.
        options: fields of the method's configuration.
        provenance: scan, data, seed, trials, score, versions.
    """

    method: str
    scan: str
    options: dict[str, Any]
    provenance: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the JSON file, in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        content = {
            "method": self.method, "scan": self.scan, "options": self.options, "provenance": self.provenance
        }  # fmt: skip
        part.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)


def load_preset(method: str, name_or_path: str | Path) -> Preset:
    """Load a preset by file, or by the name of a scan.

    Args:
        method: the method that it must be for.
        name_or_path: a JSON file of ``deft-ct tune``, or a scan that presets are shipped for.

    Raises:
        FileNotFoundError: there is none; the message lists those that are shipped for the method.
        ValueError: the file is not a preset, or one for another method.
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        preset = Preset(**{key: content[key] for key in ("method", "scan", "options", "provenance")})
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a preset of deft-ct ({error!r})") from error
    if preset.method != method:
        raise ValueError(f"{path} is a preset for {preset.method}, not for {method}")
    return preset


def shipped_presets(method: str) -> list[str]:
    """Names of the scans that a method has a shipped preset for, sorted."""
    root = _root()
    return sorted(path.parent.name for path in root.glob(f"*/{method}.json")) if root.is_dir() else []


def nearest_preset(method: str, scan: Scan) -> str | None:
    """Name of the shipped preset that suits a scan best: its own, or else that of the most similar scan.

    One unit of distance is a factor of two in views, of ten in photons, a sixth of the lines missing (30 degrees of
    parallel beams), or the other kind of beam. Noise-free data count as 1e8 photons.

    Args:
        method: the method that it must be for.
        scan: of slices of 256 x 256 pixels, which presets are tuned for.

    Returns:
        A name for :func:`load_preset`; None where the method has no shipped preset.
    """
    names = shipped_presets(method)
    if scan.name in names:
        return scan.name
    return min(names, key=lambda name: (_distance(scan, Scan.from_name(name)), name), default=None)


def _distance(a: Scan, b: Scan) -> float:
    def place(scan: Scan) -> tuple[float, ...]:
        fan = float(scan.geometry == "fan")
        return math.log2(scan.views), math.log10(scan.photons or 1e8), 6 * scan.missing, fan

    return math.dist(place(a), place(b))


def _root() -> Path:
    return Path(str(resources.files("deft_ct"))) / "assets" / "presets"
