"""TM-scores of known chains, and the extra that they need."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny_backbones import helix_atoms

from deft_ct.protein.similarity import mean_pairwise_tm, nearest, tm_score
from deft_ct.runtime.extras import MissingExtraError

HELIX = torch.from_numpy(helix_atoms(40)[:, 1])
WALK = 3.8 * torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
COIL = WALK.cumsum(0)


def test_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tmtools", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deft-ct\[tm-score\]'"):
        tm_score(HELIX, HELIX)


def test_the_pose_does_not_count_and_the_fold_does() -> None:
    pytest.importorskip("tmtools", reason="the extra tm-score is not installed")
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    turn = turn * torch.linalg.det(turn)
    assert tm_score(HELIX, HELIX @ turn + 5.0) == pytest.approx(1.0, abs=1e-6)
    assert tm_score(HELIX, COIL) < 0.5
    assert tm_score(HELIX, HELIX * torch.tensor([1.0, 1.0, -1.0])) < 0.7  # a left-handed helix is another fold
    assert tm_score(HELIX[:20], HELIX) == pytest.approx(1.0, abs=1e-3) and tm_score(HELIX, HELIX[:20]) < 0.6


def test_diversity_and_novelty() -> None:
    pytest.importorskip("tmtools", reason="the extra tm-score is not installed")
    assert mean_pairwise_tm([HELIX, HELIX, HELIX[:30]]) == pytest.approx(1.0, abs=2e-3)
    assert mean_pairwise_tm([HELIX, COIL]) < 0.5 and mean_pairwise_tm([HELIX]) != mean_pairwise_tm([HELIX])
    score, which = nearest(HELIX, [COIL, HELIX, COIL])
    assert which == 1 and score == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="there are none"):
        nearest(HELIX, [])
