"""Lesions are inserted where there is room, by seed alone, and methods differ in whether they can be found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.methods.registry import load_reconstructor
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_lesions import Lesions, lesion_pair, score_lesions
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor

# The rim of a drawn ellipse meets the same detector elements in many views, and they are reported as noisy.
pytestmark = pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")

LESIONS = Lesions(contrast_hu=-60.0, diameter_px=5.0, per_slice=3)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> CTPack:
    """Four patients of three slices: an ellipse of tissue of slightly different size, 64 x 64."""
    path = tmp_path_factory.mktemp("lesions") / "val.h5"
    y, x = np.mgrid[:64, :64] - 31.5
    with h5py.File(path, "w") as file:
        for k in range(4):
            group = file.create_group(f"series{k}")
            bodies = [np.hypot(x / (27 - n), y / (22 + k)) < 1 for n in range(3)]
            group["hu"] = np.stack([np.where(body, 40, -1000) for body in bodies]).astype(np.int16)
            group["z_mm"] = np.arange(3, dtype=np.float32)
            group.attrs["pixel_mm"], group.attrs["patient"] = 2.0, f"p{k}"
    return CTPack(path)


@pytest.fixture(scope="module")
def problem(pack: CTPack) -> CTProblem:
    return CTProblem(pack, Scan(views=24, photons=1e5), refine=1)


def test_the_lesion_has_its_contrast_its_size_and_a_soft_edge() -> None:
    profile = Lesions(contrast_hu=-20.0, diameter_px=8.0).profile
    assert profile.shape == (25, 25) and profile[12, 12] == pytest.approx(-20.0, abs=0.01)
    assert profile.sum() == pytest.approx(-20.0 * np.pi * 4**2, rel=0.01)
    assert -19 < profile[12, 16] < -1  # the edge
    assert np.abs(profile[:, 0]).max() == 0


def test_lesions_lie_in_tissue_apart_from_each_other_and_depend_on_the_seed_alone(problem: CTProblem) -> None:
    pair = lesion_pair(problem, LESIONS)
    added = pair.present.truth - pair.absent.truth
    assert len(pair.places) >= 12 and pair.patients == [f"p{n // 3}" for n, _, _ in pair.places]
    for n, row, column in pair.places:
        assert added[n, row, column] == pytest.approx(-60.0, abs=0.5) and problem.truth[n, row, column] == 40
        near = [p for p in pair.places if p[0] == n and max(abs(p[1] - row), abs(p[2] - column)) < 10]
        assert len(near) == 1
    assert not added[problem.truth == -1000].any()
    again = lesion_pair(problem, LESIONS)
    np.testing.assert_array_equal(pair.places, again.places)
    assert pair.present.content() == again.present.content() != pair.absent.content()
    other = lesion_pair(problem, replace(LESIONS, seed=1))
    assert not np.array_equal(pair.places, other.places)
    # Both scans have noise of their own.
    empty = [present.y - absent.y for present, absent in zip(pair.present.batches, pair.absent.batches, strict=True)]
    assert all(float(gap.std()) > 0 for gap in empty)


@dataclass(frozen=True)
class NoConfig:
    """No parameters."""


class Blind(Reconstructor):
    """A blank image whatever the data."""

    name = "blind"
    config_type = NoConfig
    uses_data = False

    def _estimate(self, request: Request) -> Estimate:
        return Estimate(mean=torch.full((len(request.y), *request.image_shape), 0.02))


def test_fbp_finds_the_lesions_and_a_blind_method_does_not(problem: CTProblem) -> None:
    pair = lesion_pair(problem, LESIONS)
    found = score_lesions("fbp", load_reconstructor("fbp"), pair, channels=3)
    assert found.found.auc.mean > 0.8 and found.found.auc.low > 0.5 and found.contrast == pytest.approx(1, abs=0.4)
    assert found.found.auc.n == 4 and found.found.signals == len(pair.places) and found.absent.label == "fbp"
    blind = score_lesions("blind", Blind(NoConfig()), pair, channels=3)
    assert blind.found.auc.mean == 0.5 and blind.found.d_prime.mean == 0 and blind.contrast == 0
    # The same, from the same data.
    again = score_lesions("fbp", load_reconstructor("fbp"), lesion_pair(problem, LESIONS), channels=3)
    assert again.found == found.found


def test_weaker_lesions_are_found_less_often(problem: CTProblem) -> None:
    strong, weak = (
        score_lesions(
            "fbp", load_reconstructor("fbp"), lesion_pair(problem, replace(LESIONS, contrast_hu=c)), channels=3
        )
        for c in (-60.0, -6.0)
    )
    assert strong.found.auc.mean > weak.found.auc.mean + 0.15


def test_bad_values_are_named(problem: CTProblem, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a contrast other than 0"):
        Lesions(contrast_hu=0.0)
    with pytest.raises(ValueError, match=r"no slice of val\.h5 has uniform tissue for a lesion of 40 pixels"):
        lesion_pair(problem, Lesions(diameter_px=40.0))
