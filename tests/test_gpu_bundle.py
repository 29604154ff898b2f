"""The GPU bundle, rehearsed with tiny networks on any machine."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, repository_root: Path) -> Path:
    """Eight slices in each pack, two of them of a patient that is kept for the network of the error."""
    data = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, side in (("ct256/train", 256), ("ct256/train_more", 256), ("ct512/train", 512)):
        path = data / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            for patient, count in (("p009", 2), ("p001", 2)):
                group = file.create_group(patient)
                group["hu"] = (100 * rng.standard_normal((count, side, side))).astype(np.int16)
                group.attrs.update({"pixel_mm": 1.5, "collection": "LCTSC", "patient": patient})
    out = tmp_path_factory.mktemp("packs")
    run(repository_root, "pack", "--packs", str(out), "--data", str(data))
    return out


def run(root: Path, *arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(root / "scripts" / "gpu_bundle.py"), *arguments]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def stages(out: Path) -> dict[str, dict[str, object]]:
    found = [json.loads(line) for line in (out / "stages.jsonl").read_text().splitlines()]
    return {line["stage"]: line for line in found}


def test_checks_run_and_agree(packs: Path, tmp_path: Path, repository_root: Path) -> None:
    run(repository_root, "check", "--packs", str(packs), "--out", str(tmp_path), "--rehearse")
    found = stages(tmp_path)
    limits = {"matrix": 1e-6, "triton": 1e-5, "triton_fp16": 1e-3}
    for name, backend in itertools.product(("parallel60_1e5", "fan60_1e5"), limits):
        stage = found[f"ray transform {name} {backend}"]
        if backend != "matrix" and importlib.util.find_spec("triton") is None:
            assert "pip install deft-ct[triton]" in str(stage["left_out"])
            continue
        for error in ("forward_error", "adjoint_error"):
            assert float(stage[error]) < limits[backend]  # type: ignore[arg-type]
        assert ("tiles_us_a_slice" in stage) == (backend != "matrix")
    assert "CUDA" in str(found["ray transform parallel60_1e5 astra_cuda"]["left_out"]) or torch.cuda.is_available()
    assert "failed" not in found["step"]


@pytest.mark.slow
def test_trainings_end_in_time_and_go_on_from_what_they_wrote(
    packs: Path, tmp_path: Path, repository_root: Path
) -> None:
    common = ("train", "--packs", str(packs), "--rehearse", "--minutes", "0.3")
    run(repository_root, *common, "--out", str(tmp_path / "one"))
    run(repository_root, *common, "--out", str(tmp_path / "two"), "--initial", str(tmp_path / "one"))
    weights = load_file(tmp_path / "two" / "unrolled-0.safetensors")
    assert any(name.startswith("spread_network") for name in weights)
    assert float(stages(tmp_path / "one")["stages"]["seconds"]) < 40  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_prior_is_trained(packs: Path, tmp_path: Path, repository_root: Path) -> None:
    arguments = ("--packs", str(packs), "--out", str(tmp_path), "--rehearse", "--minutes", "0.1", "--domain", "ct")
    run(repository_root, "prior", *arguments)
    assert (tmp_path / "prior-ct" / "deft_ct.json").is_file()
