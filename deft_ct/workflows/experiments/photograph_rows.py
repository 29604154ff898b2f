"""Rows of experiments on photographs, kept in a JSON file that a later run with the same settings continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deft_ct.evaluation.metrics import psnr
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.content_key import OtherContentError

DATA_RANGE = 2.0


def image_psnr(images: Tensor, truth: Tensor) -> list[float]:
    """PSNR of each image in [-1, 1], dB, nothing clipped."""
    found = psnr(images.double().numpy(), truth.double().numpy(), data_range=DATA_RANGE)
    return [round(float(value), 4) for value in np.ravel(found)]


@dataclass(frozen=True)
class StoredRows:
    """Rows by name, and the file where they are kept.

    Attributes:
        path: the file; None to keep nothing.
        settings: what the rows depend on.
        rows: those that are done.
    """

    path: Path | None
    settings: Mapping[str, Any]
    rows: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, settings: Mapping[str, Any]) -> StoredRows:
        """The rows of a file, or none where there is no file.

        Raises:
            OtherContentError: the file holds rows of other settings.
        """
        if path is None or not path.is_file():
            return cls(path, settings)
        stored = json.loads(path.read_text())
        held = {name: stored["settings"].get(name) for name in settings}
        if held != dict(settings):
            raise OtherContentError(f"{path} holds rows of other settings, {held}: choose another file")
        return cls(path, settings, stored["rows"])

    def write(self, **more: Any) -> None:
        """Write the rows, with further entries of the settings that they do not depend on."""
        if self.path is not None:
            content = {"settings": {**self.settings, **more}, "rows": self.rows}
            write_text(self.path, json.dumps(content, indent=1, allow_nan=False) + "\n")
