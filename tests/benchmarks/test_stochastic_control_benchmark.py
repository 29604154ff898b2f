"""The experiment with stochastic control: how it tunes what it is compared with."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deft_ct.measurement.scales import AffineMap


def test_step_sizes_of_dps_that_diverge_are_passed_over(repository_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository_root / "benchmarks" / "experiments"))
    module = importlib.import_module("stochastic_control")
    truth = torch.zeros(2, 1, 4, 4)

    def load(name: str, *, zeta: float, norm: str, **_: object) -> SimpleNamespace:
        def reconstruct(*_: object, **__: object) -> SimpleNamespace:
            if zeta > 0.5:
                raise FloatingPointError("diverged")
            return SimpleNamespace(mean=truth + zeta)

        return SimpleNamespace(reconstruct=reconstruct)

    monkeypatch.setattr(module, "load_reconstructor", load)
    world = SimpleNamespace(tuning=truth, data=lambda *_: None, prior=None, measurement=None, scale=AffineMap(1.0, 0.0))
    told: list[str] = []
    best = module.tune_dps(world, 10, told.append)
    assert (best["zeta"], best["norm"]) == (0.1, "l2")
    assert sum("diverged" in line for line in told) == 4 and len(told) == 8
