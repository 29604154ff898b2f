"""Submissions to the LoDoPaB-CT challenge: names, shapes, normalisation, and resuming."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch

from deft_ct.datasets.lodopab import MU_MAX, LoDoPaB
from deft_ct.reconstructor import Estimate, Reconstructor, Request
from deft_ct.workflows.lodopab_challenge import write_submission
from tests.support.lodopab_layout import write_lodopab_layout


@dataclass(frozen=True)
class _Config:
    value: float = 0.02


class _Numbers(Reconstructor):
    """Every image is a constant plus the largest line integral: cheap, and different for each sample."""

    name: ClassVar[str] = "numbers"
    config_type: ClassVar[type] = _Config
    uses_data: ClassVar[bool] = False

    def __init__(self, config: _Config) -> None:
        super().__init__(config)
        self.calls = 0

    def _estimate(self, request: Request) -> Estimate:
        self.calls += 1
        top = request.y.amax((1, 2, 3))[:, None, None, None]
        return Estimate(mean=torch.full((len(top), 1, 362, 362), self.config.value) + 0.01 * top)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LoDoPaB:
    root = write_lodopab_layout(tmp_path_factory.mktemp("challenge"), "challenge", patients=False)
    for path in root.glob("ground_truth_*"):
        path.unlink()
    with h5py.File(root / "observation_challenge_028.hdf5", "a") as file:
        assert len(file["data"]) == 94
        file["data"][93, 0] = 0.5 * np.hanning(513) / MU_MAX
    return LoDoPaB(root, "challenge", views=1)


@pytest.mark.slow  # 29 files of 67 MB, twice
def test_files_of_a_submission(data: LoDoPaB, tmp_path: Path) -> None:
    method = _Numbers(_Config())
    archive = write_submission(data, method, tmp_path, batch_size=128)
    assert method.calls == 29
    with zipfile.ZipFile(archive) as held:
        assert sorted(held.namelist()) == [f"reco_{n:03d}.hdf5" for n in range(29)]
    with h5py.File(tmp_path / "reco_028.hdf5") as file:
        images = file["data"]
        assert images.shape == (128, 362, 362) and images.dtype == np.float32
        assert images[92, 0, 0] == pytest.approx(20.0 / MU_MAX) and images[93, 0, 0] == pytest.approx(25.0 / MU_MAX)
        assert not images[94:].any()
    lines: list[str] = []
    (tmp_path / "reco_003.hdf5").write_bytes(b"half")
    write_submission(data, method, tmp_path, batch_size=128, log=lines.append)
    assert method.calls == 30 and sum("before" in line for line in lines) == 28, "only the damaged file is made again"
    other = _Numbers(_Config(0.03))
    (tmp_path / "reco_000.hdf5").unlink()
    with pytest.raises(ValueError, match="images of its own set"):
        write_submission(_other_part(data), other, tmp_path)
    write_submission(data, other, tmp_path, batch_size=128)
    assert other.calls == 29, "another configuration is another result"


def _other_part(data: LoDoPaB) -> LoDoPaB:
    write_lodopab_layout(data.root, "validation", patients=False)
    return LoDoPaB(data.root, "validation")
