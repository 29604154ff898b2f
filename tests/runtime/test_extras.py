"""Libraries of extras: imported, or named with the extra that brings them."""

from __future__ import annotations

import json

import pytest

from deft_ct.runtime.extras import MissingExtraError, optional_library


def test_a_library_is_imported_or_its_extra_named() -> None:
    assert optional_library("json", "any") is json
    with pytest.raises(MissingExtraError, match=r"no_such_library is not installed: pip install 'deft-ct\[some\]'"):
        optional_library("no_such_library", "some")
