"""Names of devices."""

from __future__ import annotations

import pytest
import torch

from deft_ct.runtime.device import check_device


def _machine(monkeypatch: pytest.MonkeyPatch, gpus: int, metal: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: metal)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1", "mps"])
def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _machine(monkeypatch, 2, metal=True)
    assert check_device(name) == name


@pytest.mark.parametrize(
    ("name", "gpus", "problem"),
    [("cuda", 0, "torch sees no CUDA device; use cpu"), ("cuda:1", 1, "the last one is cuda:0"),
     ("mps", 1, "no Metal device"), ("meta", 1, "does not compute on device 'meta'"),
     ("gpu", 1, "unknown device 'gpu': use cpu, cuda or cuda:1")],
)  # fmt: skip
def test_devices_that_are_not(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, problem: str) -> None:
    _machine(monkeypatch, gpus)
    with pytest.raises(ValueError, match=problem):
        check_device(name)
