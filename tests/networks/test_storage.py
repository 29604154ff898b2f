from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deft_ct.networks.storage import ModelFormat

FORMAT = ModelFormat(
    noun="model", assets="models", weights="w.safetensors", metadata="model.json", extras=("other.json",)
)


def test_a_model_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    FORMAT.write(folder, {"a": torch.ones(2)}, {"sha256": "1"}, more={"other.json": {}})
    (folder / "training_log_1.csv").write_text("step\n")
    FORMAT.write(folder, {"a": torch.zeros(2)}, {"sha256": "2"})
    meta, weights = FORMAT.read(folder)
    assert meta == {"sha256": "2"} and torch.equal(weights["a"], torch.zeros(2))
    names = ["README.md", "model.json", "training_log_1.csv", "w.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_text("keep")
    with pytest.raises(FileExistsError, match=r"it holds scan\.dcm"):
        FORMAT.write(tmp_path, {"a": torch.ones(2)}, {"sha256": "1"})
    assert [p.name for p in tmp_path.iterdir()] == ["scan.dcm"]


def test_an_interrupted_write_keeps_the_old_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    FORMAT.write(folder, {"a": torch.ones(2)}, {"sha256": "1"})
    with pytest.raises(TypeError):
        FORMAT.write(folder, {"a": torch.zeros(2)}, {"sha256": object()})
    assert json.loads((folder / "model.json").read_text()) == {"sha256": "1"}
    assert torch.equal(FORMAT.read(folder)[1]["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
