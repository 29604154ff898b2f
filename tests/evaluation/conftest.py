from __future__ import annotations

from pathlib import Path

import pytest
from counted_method import LOG


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the log of ``counted_method``."""
    folder = tmp_path / "log"
    folder.mkdir()
    monkeypatch.setenv(LOG, str(folder))
    return folder
