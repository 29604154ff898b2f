"""Processor and versions, for the records of measurements."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def processor_name() -> str:
    """The processor and its number of cores, for example ``"AMD EPYC 9654, one of 2 cores"``."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, one of {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Versions of deft-ct, PyTorch and Python."""
    return {"deft_ct": version("deft-ct"), "torch": version("torch"), "python": platform.python_version()}
