"""One time limit for all parts of a training."""

from __future__ import annotations

import pytest
from tiny_training import tiny_config

from deft_ct.training import TimeLimit


def test_parts_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("deft_ct.training.time_limit.time.monotonic", lambda: clock[0])
    limit = TimeLimit(tiny_config(max_minutes=2.0))
    assert not limit.reached() and limit.rest(tiny_config(steps=3)) == tiny_config(steps=3, max_minutes=2.0)
    clock[0] += 90
    assert not limit.reached() and limit.rest(tiny_config()).max_minutes == pytest.approx(0.5)
    clock[0] += 31
    assert limit.reached() and limit.rest(tiny_config()).max_minutes == 0


def test_without_a_limit_nothing_ends() -> None:
    limit = TimeLimit(tiny_config())
    assert not limit.reached() and limit.rest(tiny_config(max_minutes=1.0)).max_minutes == 1
