"""Masks: exact fractions, limits and seeds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.image.masks import box_mask, expand_mask, freeform_mask, half_mask, lattice_mask, random_mask


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([(256, 256), (64, 64), (40, 90)]))
def test_freeform_masks_keep_to_their_coverage(seed: int, size: tuple[int, int]) -> None:
    for coverage in ((0.2, 0.3), (0.1, 0.2)):
        mask = freeform_mask(size, rng(seed), coverage=coverage)
        assert mask.shape == (1, *size) and mask.unique().tolist() == [0, 1]
        assert coverage[0] <= 1 - float(mask.mean()) <= coverage[1]
        assert torch.equal(mask, freeform_mask(size, rng(seed), coverage=coverage))


def test_freeform_masks_are_strokes_not_dust_and_differ() -> None:
    masks = [freeform_mask((256, 256), rng(seed))[0] for seed in range(20)]
    for mask in masks:
        _, strokes = scipy.ndimage.label(1 - mask.numpy())
        assert 1 <= strokes <= 15
        widest = scipy.ndimage.distance_transform_edt(1 - mask.numpy()).max()
        assert 3 < widest < 40
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 20
    coverage = torch.stack([1 - mask.mean() for mask in masks])
    assert float(coverage.max() - coverage.min()) > 0.04  # all of the interval is used
    missing_anywhere = 1 - torch.stack(masks).mean(0)
    assert float(missing_anywhere[64:192, 64:192].mean()) > 0.1 and float(missing_anywhere[:32].mean()) > 0.05


def _strokes(size: tuple[int, int], seed: int, coverage: tuple[float, float]) -> np.ndarray:
    """The brush strokes in NumPy, with the same random numbers: 2 to 6 segments, each turning back from the last."""
    source = rng(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=source, dtype=torch.float64).item()

    height, width = size
    side = (height * width) ** 0.5
    pixels = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).astype(float)
    fewest, most = int(np.ceil(coverage[0] * height * width)), int(coverage[1] * height * width)
    target = round(uniform(fewest, most))
    missing, brush = np.zeros(size, bool), 1.0
    while missing.sum() < target:
        at = np.array([uniform(0, height), uniform(0, width)])
        heading, radius = uniform(0, 2 * np.pi), brush * side * uniform(0.015, 0.04)
        stroke = np.zeros(size, bool)
        for segment in range(int(uniform(2, 7))):
            turn = heading + segment % 2 * np.pi + uniform(-np.pi / 5, np.pi / 5)
            step = brush * side * uniform(0.08, 0.3) * np.array([np.sin(turn), np.cos(turn)])
            end = np.clip(at + step, 0, [height - 1, width - 1])
            share = np.clip((pixels - at) @ (end - at) / ((end - at) @ (end - at)), 0, 1)
            nearest = at + share[..., None] * (end - at)
            stroke |= np.linalg.norm(pixels - nearest, axis=-1) <= max(radius, 0.5)
            at = end
        if (missing | stroke).sum() <= most:
            missing |= stroke
        else:
            brush *= 0.7
    return ~missing


@pytest.mark.parametrize("coverage", [(0.2, 0.3), (0.1, 0.105)])
def test_freeform_masks_are_those_of_a_second_program(coverage: tuple[float, float]) -> None:
    for seed in range(6):
        mask = freeform_mask((48, 64), rng(seed), coverage=coverage)[0].numpy()
        np.testing.assert_array_equal(mask, _strokes((48, 64), seed, coverage))


def test_a_narrow_coverage_is_met() -> None:
    mask = freeform_mask((32, 32), rng(), coverage=(0.25, 0.2525))
    assert 0.25 <= 1 - float(mask.mean()) <= 0.2525


@given(seed=st.integers(0, 1000), missing=st.floats(0, 1))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_random_masks_miss_the_exact_number(seed: int, missing: float) -> None:
    mask = random_mask((17, 23), missing, rng(seed))
    assert mask.shape == (1, 17, 23) and int((mask == 0).sum()) == round(missing * 17 * 23)
    assert torch.equal(mask, random_mask((17, 23), missing, rng(seed)))


def test_boxes_are_centred_or_random_inside_the_margin() -> None:
    mask = box_mask((10, 12), (4, 6))
    assert int((mask == 0).sum()) == 24 and bool((mask[0, 3:7, 3:9] == 0).all())
    corners = set()
    for seed in range(300):
        mask = box_mask((12, 12), (4, 4), rng(seed), margin=2)
        rows, columns = torch.nonzero(mask[0] == 0, as_tuple=True)
        assert len(rows) == 16 and int(rows.min()) >= 2 and int(columns.max()) <= 9
        corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) == 25  # every position occurs


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        box_mask((10, 10), (8, 8), rng(), margin=2)
    with pytest.raises(ValueError, match=r"fraction in \[0, 1\]"):
        random_mask((4, 4), 1.2, rng())
    for coverage in ((0.3, 0.2), (0.2, 1.0), (0.2, 0.2001)):
        with pytest.raises(ValueError, match="coverage"):
            freeform_mask((16, 16), rng(), coverage=coverage)


def test_masks_of_repaint() -> None:
    half = half_mask((4, 7))
    assert half.shape == (1, 4, 7) and half[0].tolist() == [[1.0] * 4 + [0.0] * 3] * 4
    assert torch.equal(half_mask((4, 7), "left"), half.flip(-1))
    assert torch.equal(half_mask((7, 4), "bottom"), half.transpose(-1, -2))
    assert torch.equal(half_mask((7, 4), "top"), half.transpose(-1, -2).flip(-2))
    expand = expand_mask((256, 256))
    assert int(expand.sum()) == 64 * 64 and bool(expand[0, 96:160, 96:160].all())
    assert lattice_mask((4, 4))[0].tolist() == [[1, 0, 1, 0], [0] * 4] * 2
    assert lattice_mask((3, 2), columns=1)[0].tolist() == [[1, 1], [0, 0], [1, 1]]
    for wrong in (
        lambda: half_mask((4, 4), "middle"),
        lambda: expand_mask((4, 4), 0.0),
        lambda: lattice_mask((4, 4), 0),
    ):
        with pytest.raises(ValueError, match="must be"):
            wrong()
