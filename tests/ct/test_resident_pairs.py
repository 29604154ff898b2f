"""Training pairs whose slices and noise live on one device."""

from __future__ import annotations

import pytest
import torch

from deft_ct.ct.resident_pairs import ResidentPairs, ScanGroup
from deft_ct.ct.scan import Scan


def group(side: int, count: int, *names: str, batch: int = 4, weight: float = 1.0) -> ScanGroup:
    hu = (100 * torch.randn((count, side, side), generator=torch.Generator().manual_seed(side))).to(torch.int16)
    scans = [Scan.from_name(name).unit_measurement((side, side), 2.0) for name in names]
    return ScanGroup(
        hu=hu, pixel_mm=torch.full((count,), 2.0), measurements=scans, weights=[weight] * len(scans), batch=batch
    )


def test_a_draw_depends_on_indices_and_generator_alone() -> None:
    pairs = ResidentPairs([group(16, 6, "parallel9_1e4", "parallel12_1e3")])
    drawn = [pairs.draw(torch.arange(4), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0].x0, drawn[1].x0) and torch.equal(drawn[0].likelihood.y, drawn[1].likelihood.y)
    assert not torch.equal(drawn[0].x0, drawn[2].x0)


def test_data_are_those_of_the_images_up_to_noise() -> None:
    pairs = ResidentPairs([group(32, 4, "parallel24_noisefree")])
    drawn = pairs.draw(torch.arange(4), torch.Generator().manual_seed(0))
    likelihood = drawn.likelihood
    model = likelihood.operator(likelihood.to_physical(drawn.x0))
    assert (model - likelihood.y).norm() < 0.2 * likelihood.y.norm()  # simulated on a finer grid


def test_groups_are_drawn_by_weight_and_take_their_own_batch() -> None:
    pairs = ResidentPairs([group(16, 8, "parallel9_1e4"), group(32, 3, "parallel12_1e4", batch=2, weight=0.25)])
    assert len(pairs) == 8
    sizes = [tuple(pairs.draw(torch.arange(4), torch.Generator().manual_seed(k)).x0.shape) for k in range(60)]
    assert set(sizes) == {(4, 1, 16, 16), (2, 1, 32, 32)}
    assert 3 <= sizes.count((2, 1, 32, 32)) <= 24  # expected: 12


def test_the_description_knows_every_pixel() -> None:
    one, same, other = (group(16, 4, "parallel9_1e4") for _ in range(3))
    other.hu[3, 2, 1] += 1
    digests = [ResidentPairs([g]).description() for g in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_empty_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one group"):
        ResidentPairs([])
    with pytest.raises(ValueError, match="at least one group"):
        ResidentPairs([group(16, 4)])
