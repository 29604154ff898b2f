"""What does not fit into memory is refused before it is taken, and kernels run where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_scan, tiny_slices

from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import MOST_VIEWS, Scan
from deft_ct.evaluation.tuning import Budget
from deft_ct.methods.classical.tv import TV, TVConfig
from deft_ct.methods.deft.initial_table import TableConfig
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualShape
from deft_ct.networks import UNetConfig
from deft_ct.operators import memory
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.training import TrainingConfig


def test_the_check_names_what_is_needed_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**30)
    memory.check_memory(2**30, "a scan", "take fewer views")
    with pytest.raises(ValueError, match="a scan needs at least 2 GiB of memory and 1 GiB are free: take fewer views"):
        memory.check_memory(2**31, "a scan", "take fewer views")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = memory.free_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert memory.free_bytes() > 1e6
    (tmp_path / "memory.max").write_text("1500\n")
    assert memory.free_bytes() == 1000 < whole


def test_huge_numbers_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=f"views and detectors must be at most {MOST_VIEWS}, got 100000000"):
        Scan(views=100_000_000)
    with pytest.raises(ValueError, match=f"views and detectors must be at most {MOST_VIEWS}"):
        Scan(detectors=100_000_000)
    for name in ("views", "detectors"):
        values = {"views": 3, "detectors": 3, name: 10**8}
        with pytest.raises(ValueError, match=f"{name} must be at most 1000000, got 100000000"):
            ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, detector_mm=1.0, **values)
    with pytest.raises(ValueError, match=r"image_shape\[0\] must be at most 1000000"):
        ParallelGeometry(image_shape=(10**8, 8), pixel_mm=1.0, detector_mm=1.0, views=3, detectors=3)
    with pytest.raises(ValueError, match="channels, patch and layers must be at most 8192"):
        UNetConfig(channels=(32 * 10**6,), attention=(False,))
    with pytest.raises(ValueError, match="batch_size must be at most"):
        TrainingConfig(steps=1, batch_size=10**9)
    with pytest.raises(ValueError, match="a network of 10 iterations with 10000000 features needs at least"):
        PrimalDualShape(channels=10**7)
    with pytest.raises(ValueError, match="trials must be at most 100000, got 1000000000000"):
        Budget(trials=10**12)
    with pytest.raises(ValueError, match="tv_iterations must be at most 100000, got 1000000000000"):
        TableConfig(batches=1, tv_iterations=10**12)


def test_work_is_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    measurement, images = tiny_scan(), tiny_slices(2)
    y = measurement.simulate(images)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**4)
    with pytest.raises(ValueError, match="a scan with 12 views of 48 detector elements needs at least"):
        RayTransform(measurement.operator.geometry)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="simulating data of 2 images needs at least"):
        measurement.simulate(images)
    with pytest.raises(ValueError, match="1000 samples of each of 2 images needs at least"):
        TV(TVConfig(iterations=1)).reconstruct(y, measurement, num_samples=1000)
    with pytest.raises(ValueError, match="a network with channels"):
        UNetConfig(channels=(64,), attention=(False,))
    pairs = SlicePairs(TinySlices(), [measurement], refine=1)
    with pytest.raises(ValueError, match=r"a batch of 3 pairs needs at least .* take a smaller batch_size"):
        pairs.seeded(torch.zeros(3, dtype=torch.int64), 0)


class TinySlices:
    """Slices that must not be read."""

    pixel_mm = np.ones(2)

    def __len__(self) -> int:
        return 2

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        raise AssertionError("memory was taken")


def test_a_kernel_runs_where_its_cache_cannot_be_written(repository_root: Path) -> None:
    """A read-only file system, as Numba sees it: no place for the cache, so it refuses to decorate."""
    pytest.importorskip("numba")
    program = (
        "import torch, numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from deft_ct.operators.ct import ParallelGeometry, RayTransform\n"
        "geometry = ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, detector_mm=1.0, views=3, detectors=12)\n"
        "x = torch.ones(1, 1, 8, 8)\n"
        "a, b = (RayTransform(geometry, name)(x) for name in ('joseph', 'matrix'))\n"
        "torch.testing.assert_close(a, b)\n"
        "print('the same', float(a.sum()))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("the same"), done.stderr
    assert torch.tensor(float(done.stdout.split()[-1])) > 0
