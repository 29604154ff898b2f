"""FID and KID against their formulas, written out, and the file of the network: which one is opened."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tiny_inception import FEATURES, TinyInception, write_tiny_inception
from torch import Tensor

from deft_ct.evaluation import picture_sets
from deft_ct.evaluation.picture_sets import inception_missing, load_inception, picture_features, set_distance
from deft_ct.runtime.read_error import ReadError


def gaussian(count: int, *, mean: float = 0.0, width: int = FEATURES, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(mean + rng.normal(size=(count, width)) @ rng.normal(size=(width, width)))


def fid_by_definition(x: Tensor, y: Tensor) -> float:
    """Heusel et al. 2017, equation 6."""
    (mx, cx), (my, cy) = ((one.numpy().mean(0), np.cov(one.numpy(), rowvar=False)) for one in (x, y))
    return float(((mx - my) ** 2).sum() + np.trace(cx + cy - 2 * sqrtm(cx @ cy).real))


def kid_by_definition(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate with the cubic kernel of Binkowski et al. 2018, section 4, term by term."""

    def k(a: Tensor, b: Tensor) -> float:
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z: Tensor) -> float:
        return sum(k(z[i], z[j]) for i, j in product(range(len(z)), repeat=2) if i != j) / len(z) / (len(z) - 1)

    across = sum(k(a, b) for a, b in product(x, y)) / len(x) / len(y)
    return within(x) + within(y) - 2 * across


def test_fid_is_its_formula() -> None:
    x, y = gaussian(60), gaussian(40, mean=0.7, seed=1)
    found = set_distance(x, y)
    assert found.fid == pytest.approx(fid_by_definition(x, y), rel=1e-9)
    assert found.counts == (60, 40) and found.features == FEATURES


def test_fid_of_two_gaussians_is_the_closed_form() -> None:
    """Of independent features with mean 0 and m, and deviations s and t: the sum of ``m^2 + (s - t)^2``."""
    rng, m, s, t = np.random.default_rng(0), np.array([0.5, -1.0, 2.0]), np.array([1.0, 2.0, 0.5]), np.ones(3)
    x, y = (torch.from_numpy(rng.normal(size=(40_000, 3))) for _ in range(2))
    found = set_distance(x * torch.from_numpy(s), torch.from_numpy(m) + y * torch.from_numpy(t)).fid
    assert found == pytest.approx((m**2 + (s - t) ** 2).sum(), rel=0.02)


@pytest.mark.filterwarnings("ignore:FID is too high")
def test_kid_of_one_subset_is_its_formula() -> None:
    x, y = gaussian(2), gaussian(2, mean=0.7, seed=1)
    found = set_distance(x, y)
    assert found.subset_size == 2 and found.kid_std == 0
    assert found.kid == pytest.approx(kid_by_definition(x, y), rel=1e-9)


def test_the_mean_of_kid_over_subsets_is_that_of_the_whole_sets() -> None:
    """Means over random subsets of an unbiased estimate have the estimate of the whole as their expectation."""
    x, y = gaussian(40), gaussian(30, mean=0.7, seed=1)
    found = set_distance(x, y)
    assert found.subset_size == 15 and found.kid_std > 0
    error = found.kid_std / picture_sets.SUBSETS**0.5
    assert abs(found.kid - kid_by_definition(x, y)) < 4 * error
    assert found.kid != set_distance(x, y, seed=1).kid and found == set_distance(x, y)


def test_large_sets_have_the_subsets_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_sets, "MOST_IN_SUBSET", 12)
    assert set_distance(gaussian(24), gaussian(50)).subset_size == 12
    assert set_distance(gaussian(23), gaussian(50)).subset_size == 11


def test_equal_sets_have_no_distance_and_others_have_one() -> None:
    x = gaussian(200)
    same, other = set_distance(x, x), set_distance(x, gaussian(200, mean=0.7, seed=1))
    assert 0 <= same.fid < 1e-6 < 0.1 < other.fid
    assert abs(same.kid) < same.kid_std and other.kid > 3 * other.kid_std


def test_the_order_does_not_matter_and_no_other_random_number_is_used() -> None:
    x, y = gaussian(60), gaussian(40, mean=0.7, seed=1)
    state = torch.get_rng_state()
    found = set_distance(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert set_distance(x.flip(0), y[torch.randperm(40)]) == found


def test_few_pictures_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="FID is too high for 5 pictures, because they have 5 features: .* use KID"):
        set_distance(gaussian(FEATURES), gaussian(9))
    set_distance(gaussian(FEATURES + 1), gaussian(9))


@pytest.mark.filterwarnings("ignore:FID is too high")
def test_the_fid_of_few_pictures_is_too_high_and_their_kid_is_not() -> None:
    """What the warning says, of sets of one distribution."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 8)))
    parts = [set_distance(x[n : n + 8], x[n + 8 : n + 16]) for n in range(0, 640, 16)]
    whole = set_distance(x[:2000], x[2000:])
    kid = np.array([part.kid for part in parts])
    assert min(part.fid for part in parts) > 20 * whole.fid
    assert abs(kid.mean()) < 3 * kid.std() / len(kid) ** 0.5


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (gaussian(1), gaussian(9), "two pictures or more of each set, got 1 and 9"),
        (gaussian(9), gaussian(9, width=3), r"got \(9, 5\) and \(9, 3\)"),
        (gaussian(9)[0], gaussian(9), "expected features"),
    ],
)
def test_other_sets_are_refused(x: Tensor, y: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        set_distance(x, y)


def pictures(count: int, size: tuple[int, int] = (9, 7), seed: int = 0) -> list[Tensor]:
    return list(torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, *size), np.uint8)))


def test_features_of_pictures_of_any_size_in_any_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_inception(write_tiny_inception(tmp_path / "tiny.pt", monkeypatch))
    mixed = [*pictures(3), *pictures(2, (12, 12)), *pictures(1, (9, 7), seed=1)]
    with torch.no_grad():
        expected = torch.cat([TinyInception()(one[None], True) for one in mixed]).double()
    for size in (1, 2, 32):
        found = picture_features(iter(mixed), network, batch_size=size)
        assert found.dtype == torch.float64 and not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_no_pictures_and_features_that_are_no_numbers_are_refused() -> None:
    network = TinyInception()
    with pytest.raises(ValueError, match="no pictures"):
        picture_features([], network)
    torch.nn.init.constant_(network.mix, torch.inf)
    with pytest.raises(ValueError, match="not finite"):
        picture_features(pictures(2), network)


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints" / "inception-2015-12-05.pt"
    assert f"FID and KID are not measured: there is no Inception network at {place}" in inception_missing()
    with pytest.raises(FileNotFoundError, match=r"no Inception network at .*other\.pt"):
        load_inception(tmp_path / "other.pt")
    monkeypatch.setattr(picture_sets, "find_spec", lambda _: None)
    assert inception_missing().endswith("torchmetrics is not installed (pip install 'deft-ct[picture-sets]')")


def test_the_network_is_found_in_the_cache_of_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    write_tiny_inception(tmp_path / "checkpoints" / picture_sets.INCEPTION, monkeypatch)
    assert inception_missing() == ""
    assert picture_features(pictures(2), load_inception()).shape == (2, FEATURES)


def test_no_other_torchscript_file_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    official = picture_sets.INCEPTION_SHA256
    path = write_tiny_inception(tmp_path / "tiny.pt", monkeypatch)
    monkeypatch.setattr(picture_sets, "INCEPTION_SHA256", official)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the file was opened")

    monkeypatch.setattr(torch.jit, "load", opened)
    said = f"{path}: is not inception-2015-12-05.pt, .* its SHA-256 is not {official}"
    with pytest.raises(ReadError, match=said):
        load_inception(path)
    monkeypatch.setattr(picture_sets, "_MOST_BYTES", 10)
    with pytest.raises(ReadError, match=re.escape(str(path))):
        load_inception(path)
