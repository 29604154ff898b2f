"""Perceptual measures: GMSD against its definition, written out; LPIPS says what is missing."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deft_ct.evaluation import perceptual
from deft_ct.evaluation.perceptual import gmsd, lpips, lpips_missing

RNG = np.random.default_rng(0)
RANGE = (-1.0, 1.0)


def by_definition(recon: np.ndarray, truth: np.ndarray) -> float:
    """GMSD of two grey images ``(H, W)`` on 0 to 255, pixel by pixel."""

    def magnitude(image: np.ndarray) -> np.ndarray:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        half = image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
        padded = np.pad(half, 1)
        out = np.zeros_like(half)
        for i in range(rows):
            for j in range(columns):
                around = padded[i : i + 3, j : j + 3]
                across = (around[:, 0] - around[:, 2]).sum() / 3
                down = (around[0] - around[2]).sum() / 3
                out[i, j] = np.sqrt(across**2 + down**2)
        return out

    a, b = magnitude(recon), magnitude(truth)
    return float(((2 * a * b + 170) / (a**2 + b**2 + 170)).std())


@pytest.mark.parametrize("shape", [(8, 10), (9, 13)])
def test_gmsd_is_its_definition(shape: tuple[int, int]) -> None:
    truth, recon = RNG.uniform(-1, 1, (2, 2, 1, *shape))
    expected = [by_definition((r[0] + 1) * 127.5, (t[0] + 1) * 127.5) for r, t in zip(recon, truth, strict=True)]
    np.testing.assert_allclose(gmsd(recon, truth, value_range=RANGE), expected, rtol=1e-12)
    unit = gmsd((recon + 1) / 2, (truth + 1) / 2, value_range=(0.0, 1.0))
    np.testing.assert_allclose(unit, expected, rtol=1e-9)
    colours = [np.repeat(images, 3, axis=1) for images in (recon, truth)]
    np.testing.assert_allclose(gmsd(*colours, value_range=RANGE), expected, rtol=1e-9)


def test_gmsd_is_zero_for_equal_images_and_grows_with_blur() -> None:
    truth = RNG.uniform(-1, 1, (1, 3, 32, 32)).cumsum(-1) / 6
    once = (truth + np.roll(truth, 1, -1) + np.roll(truth, 1, -2)) / 3
    more = (once + np.roll(once, 2, -1) + np.roll(once, 2, -2)) / 3
    none, little, much = (float(gmsd(image, truth, value_range=RANGE)[0]) for image in (truth, once, more))
    assert none == 0 < little < much


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (3, 16, 16), (1, 1, 7, 16)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="gmsd needs"):
        gmsd(np.zeros(shape), np.zeros(shape), value_range=RANGE)


def test_what_lpips_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda _: None)
    assert lpips_missing() == "LPIPS is not measured: lpips is not installed (pip install 'deft-ct[perceptual]')"
    monkeypatch.setattr(perceptual, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "there are no weights of AlexNet at" in lpips_missing()
    with pytest.raises(FileNotFoundError, match="no weights of AlexNet"):
        lpips(np.zeros((1, 3, 16, 16)), np.zeros((1, 3, 16, 16)))


def test_lpips_gets_colours_in_its_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            seen.append((a, b))
            return (a - b).abs().mean()

    monkeypatch.setattr(perceptual, "lpips_missing", lambda: "")
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda **_: Distance()))
    perceptual._network.cache_clear()
    try:
        found = lpips(np.full((2, 1, 16, 16), -1.0), np.stack([np.full((1, 16, 16), v) for v in (1.0, -1.0)]))
    finally:
        perceptual._network.cache_clear()
    assert found.tolist() == [2.0, 0.0] and seen[0][0].shape == (1, 3, 16, 16) and float(seen[0][1].max()) == 1.0
