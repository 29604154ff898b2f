"""One h-transform for several degradations against one for each: both are trained, judged and kept."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import NETWORK

from deft_ct.diffusion import Prior, save_prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.networks import UNet

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "experiments" / "amortised_photographs.py"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # the weights are random
def test_two_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    save_prior(Prior(UNet(NETWORK.with_channels(3, 3)), Schedule(), image_shape=(3, 16, 16)), tmp_path / "prior")
    with h5py.File(tmp_path / "crops.h5", "w") as file:
        for part in ("train", "test"):
            file[part] = np.tile(np.arange(16, dtype=np.uint8)[:, None, None] * 15, (4, 1, 16, 3))
    words = [
        "--data", f"photos:{tmp_path / 'crops.h5'}", "--prior", str(tmp_path / "prior"), "--operator",
        "sr4+inpaint_random", "--images", "2", "--steps", "1", "--batch-size", "2", "--channels", "32",
        "--work", str(tmp_path / "work"), "--json", str(tmp_path / "rows.json"),
    ]  # fmt: skip
    SCRIPT["main"](words)
    said = capsys.readouterr().out
    assert "1 training steps of 2 images for each task" in said and "n = 2 held-out images of crops.h5" in said
    stored = json.loads((tmp_path / "rows.json").read_text())
    assert set(stored["rows"]) == {"sr4", "inpaint_random"}
    for row in stored["rows"].values():
        assert {len(row[net][kind]["psnr_db"]) for net in ("single", "shared") for kind in ("mean", "sample")} == {2}
    folders = {path.parent.name for path in tmp_path.glob("work/*/htransform")}
    assert folders == {"shared", "sr4", "inpaint_random"}
    before = (tmp_path / "rows.json").stat().st_mtime_ns
    SCRIPT["main"](words)  # nothing is trained or measured again
    assert (tmp_path / "rows.json").stat().st_mtime_ns == before
