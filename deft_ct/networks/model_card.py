"""Model cards in the format of the Hugging Face Hub: ``README.md`` next to the weights, with YAML front matter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from tabulate import tabulate

FILE = "README.md"
MARK = "<!-- Written by deft-ct with the weights, and replaced with them. -->"
NOTICE = "Research only, not for clinical use."
_LOADERS = {
    "prior": 'import deft_ct\n\ndeft_ct.load_prior("{place}")',
    "h-transform": 'import deft_ct\n\ndeft_ct.load_reconstructor("deft", htransform="{place}")',
    "trained model": 'import deft_ct\n\ndeft_ct.load_reconstructor("{kind}", model="{place}")',
    "refinement": 'from deft_ct.methods.deft import load_refinement\n\nload_refinement("{place}")',
}
_PIPELINES = {"prior": "unconditional-image-generation"}
_OWN_SECTIONS = ("title", "limits", "data", "citation", "license", "training")
_TABLE = ("collection", "licence", "doi", "patients", "slices")


def model_card(noun: str, metadata: Mapping[str, Any]) -> str:
    """The text of a card. It follows from the metadata alone.

    Args:
        noun: what the model is: ``"prior"``, ``"h-transform"``, ``"refinement"`` or ``"trained model"``.
        metadata: what is stored next to the weights, with the entries of the training under ``"card"`` and the SHA-256
            of the content under ``"sha256"``.
    """
    card = metadata.get("card")
    entries: Mapping[str, Any] = card if isinstance(card, Mapping) else {}
    kind = str(metadata.get("kind", noun))
    name = kind if noun == "trained model" else noun
    tags = ["deft-ct", "diffusion", "inverse-problems"]
    front: dict[str, Any] = {
        "library_name": "deft-ct",
        "tags": [*tags, "computed-tomography"] if _of_ct(metadata, entries) else tags,
        "pipeline_tag": _PIPELINES.get(noun, "image-to-image"),
    }
    if isinstance(license_name := entries.get("license"), str):
        front["license"] = license_name
    loader = _LOADERS.get(noun, "").format(place="FOLDER or hf:OWNER/NAME", kind=kind)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        MARK,
        f"# {entries.get('title', f'{name[0].upper()}{name[1:]} of deft-ct')}",
        str(entries.get("limits", NOTICE)),
        f"## Use\n\n```python\n{loader}\n```" if loader else "",
        _data(entries.get("data")),
        _training(entries),
        f"## Content\n\nSHA-256 of weights and description: `{metadata.get('sha256')}`. It is checked when the "
        "model is loaded.",
    ]
    if "citation" in entries:
        parts.append(f"## Citation\n\n{entries['citation']}")
    return "\n\n".join(part for part in parts if part) + "\n"


def is_written_card(text: str) -> bool:
    """Whether a card was written by this program."""
    return MARK in text


def _of_ct(metadata: Mapping[str, Any], entries: Mapping[str, Any]) -> bool:
    """Whether the images are CT slices, as far as the metadata say it."""
    data = entries.get("data")
    photographs = isinstance(data, Mapping) and "photographs" in data
    return not photographs and "domain" not in entries and metadata.get("value_range_hu", ()) is not None


def _data(data: Any) -> str:
    """The training data: a table for several collections."""
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        columns = [name for name in _TABLE if any(name in row for row in data)]
        cells = [[str(row.get(name, "")).replace("|", "\\|") for name in columns] for row in data]
        return f"## Training data\n\n{tabulate(cells, columns, tablefmt='pipe', disable_numparse=True)}"
    if isinstance(data, Mapping):
        return "## Training data\n\n" + "\n".join(f"- {key}: {value}" for key, value in sorted(data.items()))
    return ""


def _training(entries: Mapping[str, Any]) -> str:
    """How it was trained: the command, and every other entry."""
    rest = {key: value for key, value in sorted(entries.items()) if key not in _OWN_SECTIONS}
    text = ""
    if "training" in entries:
        text = f"```\n{entries['training']}\n```\n\n"
    if rest:
        text += f"```json\n{json.dumps(rest, indent=1, sort_keys=True)}\n```"
    return f"## Training\n\n{text}".rstrip() if text else ""
