"""Dataclasses that lie in a JSON file of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.fields import from_values
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.read_error import ReadError


class StoredRecord:
    """Base of a frozen dataclass of plain values, which knows its file.

    Attributes:
        noun: what messages call it, with its article: "a calibration".
    """

    noun: ClassVar[str]

    def write(self, path: Path) -> None:
        """Write the JSON file, in one step."""
        values = asdict(cast(Any, self))
        write_text(path, json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            ValueError: the values do not make one.
        """
        return cast(Self, from_values(cast(Any, cls), values))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file of :meth:`write`.

        Raises:
            FileNotFoundError: it does not exist.
            ReadError: it holds something else.
        """
        values = read_json_object(path, cls.noun)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ReadError(path, f"is not {cls.noun} of deft-ct ({error})") from error
