"""Peak memory of a piece of work."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

_INTERVAL_S = 0.002


@dataclass
class PeakMemory:
    """Filled in when the block of :func:`peak_memory` ends.

    Attributes:
        mib: most memory during the block beyond what was in use when it began, MiB.
        total_mib: most memory of the whole process (of torch, on a GPU) during the block, MiB.
    """

    mib: float = 0.0
    total_mib: float = 0.0


@contextlib.contextmanager
def peak_memory(device: str | torch.device = "cpu") -> Iterator[PeakMemory]:
    """Measure the peak memory of the block.

    On a GPU it is what torch's allocator handed out, exactly. On the CPU it is the resident memory of the process,
    sampled every 2 ms. Shorter peaks are missed. Memory that the process has freed but not yet returned to the system
    is included.

    Args:
        device: where the work is done.
    """
    result = PeakMemory()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield result
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    else:
        _give_back()
        process = psutil.Process()
        before = peak = process.memory_info().rss
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(_INTERVAL_S):
                peak = max(peak, process.memory_info().rss)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield result
        finally:
            done.set()
            watcher.join()
        peak = max(peak, process.memory_info().rss)
    result.mib, result.total_mib = (peak - before) / 2**20, peak / 2**20


def process_bytes() -> int:
    """Resident memory of this process, without what it has freed."""
    _give_back()
    used: int = psutil.Process().memory_info().rss
    return used


def _give_back() -> None:
    """Return freed memory to the system, where the C library can, so that it is not hidden from the measurement."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
