"""A TorchScript file that is called as the Inception network of FID, with a few features."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deft_ct.evaluation import picture_sets

FEATURES = 5


class TinyInception(nn.Module):
    """Means of the colours and of their squares, at a size of its own, mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(0)))

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        sized = nn.functional.interpolate(img.to(torch.float32) / 255, size=[8, 8], mode="bilinear")
        features = torch.cat([sized.mean([2, 3]), sized.square().mean([2, 3])], 1) @ self.mix
        if return_features:
            return features
        return features.softmax(1)


def write_tiny_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the file, and let it count as the official one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(TinyInception()), str(path))
    monkeypatch.setattr(picture_sets, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path
