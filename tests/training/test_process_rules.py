"""The rules of several processes, without starting them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import tiny_config

from deft_ct.training import processes
from deft_ct.training.processes import accelerator_for, is_main_process, training_folder


def test_the_main_process_alone_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Path] = []

    @contextlib.contextmanager
    def occupy(folder: Path) -> Iterator[None]:
        held.append(folder)
        yield

    monkeypatch.setattr(processes, "occupy_folder", occupy)
    assert is_main_process()
    with training_folder(tmp_path):
        assert held == [tmp_path]
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    with training_folder(tmp_path):
        assert held == [tmp_path]


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def accelerator(**options: Any) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(num_processes=1)

    monkeypatch.setattr(processes, "Accelerator", accelerator)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert accelerator_for(tiny_config()).num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, and accelerate sees 1"):
        accelerator_for(tiny_config(precision="bfloat16"))
    assert asked == [{"mixed_precision": "no", "cpu": False}, {"mixed_precision": "bf16", "cpu": True}]


def test_processes_are_parted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "Accelerator", lambda **_: SimpleNamespace(num_processes=2))
    registered: list[Any] = []
    monkeypatch.setattr(processes.atexit, "register", registered.append)
    accelerator_for(tiny_config())
    ended: list[bool] = []
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: ended.append(True))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    registered[0]()
    assert not ended
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    registered[0]()
    assert ended == [True]
