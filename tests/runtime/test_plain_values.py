"""Values for JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from deft_ct.runtime.plain_values import plain


def test_values_survive_json() -> None:
    given = {
        1: (np.float32(0.5), float("nan")), "array": np.array([1.0, np.inf]), "path": Path("a"), "on": True,
        "none": None,
    }  # fmt: skip
    expected = {"1": [0.5, None], "array": [1.0, None], "path": "a", "on": True, "none": None}
    assert plain(given) == expected
    assert json.loads(json.dumps(plain(given), allow_nan=False)) == expected
