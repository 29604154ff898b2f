"""Pictures of backbones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deft_ct.report.backbones import save_backbones


def test_the_motif_is_red_and_a_picture_has_the_same_bytes_again(tmp_path: Path) -> None:
    chain = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
    for name, motif in (("a", [3, 4, 5]), ("b", [3, 4, 5]), ("c", [])):
        save_backbones(tmp_path / f"{name}.png", [chain] * 5, [motif] * 5, ["one"] * 5, "note")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def red(name: str) -> int:
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        return int(((pixels[..., 0] - pixels[..., 2]) > 60).sum())

    assert red("a") > 50 and red("c") == 0
