"""Shared set-up of the tests: a deterministic hypothesis profile, the data packs, and what is skipped where."""

from __future__ import annotations

import os
from pathlib import Path

# Workers of pytest-xdist share the cores; before torch is imported.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import pytest
import torch
from documented_tables import Pages
from hypothesis import HealthCheck, settings

# Triton reads it when it is imported, by whichever test.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile(
    "deft-ct", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deft-ct")

ROOT = Path(__file__).resolve().parents[1]

# The library takes data from where it is told to alone; the tests tell it to use the packs beside the checkout.
if "DEFT_CT_DATA" not in os.environ and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["DEFT_CT_DATA"] = str(ROOT.parent / "shared" / "data")


def _data_root() -> Path | None:
    configured = os.environ.get("DEFT_CT_DATA")
    return Path(configured) if configured and Path(configured).is_dir() else None


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout that the tests run from."""
    return ROOT


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the data packs; a test that asks for it is skipped where there is none."""
    root = _data_root()
    if root is None:
        pytest.skip("no data packs: neither ../shared/data nor DEFT_CT_DATA is a folder")
    return root


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--write-figures`."""
    parser.addoption("--write-figures", action="store_true", help="write figures of stored results into the pages")


def pytest_configure(config: pytest.Config) -> None:
    """Let the tests of the pages write them, in one process."""
    Pages.writing = config.getoption("--write-figures")
    if Pages.writing and config.getoption("numprocesses", None):
        raise pytest.UsageError("--write-figures writes the pages from one process: leave out -n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without CUDA and `data` tests without the packs, with the reason in the summary."""
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    no_data = pytest.mark.skip(reason="no data packs: neither ../shared/data nor DEFT_CT_DATA is a folder")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("data") and _data_root() is None:
            item.add_marker(no_data)
