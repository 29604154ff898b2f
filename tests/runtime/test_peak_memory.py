"""Peak memory of a block, on the CPU and by a GPU's allocator."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.runtime import memory
from deft_ct.runtime.memory import peak_memory


def test_an_array_that_is_gone_again_is_seen() -> None:
    with peak_memory() as peak:
        array = np.ones(64 * 2**17)  # 64 MiB, written to
        time.sleep(0.05)
        del array
    assert 48 < peak.mib < 200 and peak.total_mib > peak.mib


def test_an_error_in_the_block_ends_the_watch() -> None:
    with pytest.raises(RuntimeError, match="on purpose"), peak_memory():
        raise RuntimeError("on purpose")


def test_a_gpu_says_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def say(name: str, value: int = 0) -> Any:
        def call(*_: Any) -> int:
            calls.append(name)
            return value

        return call

    for name, value in (
        ("synchronize", 0), ("memory_allocated", 3 * 2**20), ("reset_peak_memory_stats", 0),
        ("max_memory_allocated", 10 * 2**20),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, say(name, value))
    with peak_memory("cuda") as peak:
        assert calls == ["synchronize", "memory_allocated", "reset_peak_memory_stats"]
    assert (peak.mib, peak.total_mib) == (7.0, 10.0)
    assert calls[3:] == ["synchronize", "max_memory_allocated"]


def test_other_systems_keep_their_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("no such library there"))
    memory._give_back()
