"""Helices and strands from C-alpha atoms: textbook shapes, and pydssp on real chains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.untrusted import HDF5File
from deft_ct.protein.secondary import HELIX, STRAND, letters, secondary_structure, shares
from deft_ct.runtime.extras import MissingExtraError, optional_library


def helix(count: int, hand: float = 1.0) -> Tensor:
    """An alpha helix along z: 2.3 A, 100 degrees and 1.5 A a residue."""
    n = torch.arange(count, dtype=torch.float64)
    angle = torch.deg2rad(100.0 * n)
    return torch.stack([2.3 * angle.cos(), hand * 2.3 * angle.sin(), 1.5 * n], -1)


def strand(count: int) -> Tensor:
    """A pleated strand along x, 3.3 A a residue."""
    n = torch.arange(count, dtype=torch.float64)
    return torch.stack([3.3 * n, torch.zeros_like(n), 0.9 * (-1.0) ** n], -1)


def hairpin(count: int, apart: float = 4.9) -> Tensor:
    """Two strands side by side in opposite directions, joined by four residues far from either."""
    first = strand(count)
    second = first.flip(0) + torch.tensor([0.0, apart, 0.0])
    end = first[-1]
    loop = torch.tensor([[3.5, -1.0, 1.0], [6.5, 1.0, 2.0], [6.5, 4.0, 2.0], [3.5, 6.0, 1.0]], dtype=torch.float64)
    return torch.cat([first, end + loop, second])


def test_helices_have_a_hand() -> None:
    assert letters(secondary_structure(helix(12))) == "CHHHHHHHHHHC"
    assert letters(secondary_structure(helix(12, hand=-1.0))) == "C" * 12
    h, e = shares(torch.stack([helix(12), helix(12, -1.0)]))
    assert h.tolist() == pytest.approx([10 / 12, 0.0]) and e.tolist() == [0.0, 0.0]


def test_strands_need_a_partner() -> None:
    assert letters(secondary_structure(strand(12))) == "C" * 12
    found = letters(secondary_structure(hairpin(8)))
    assert found.count("E") >= 12 and "H" not in found and found[8:12] == "CCCC"
    assert "E" not in letters(secondary_structure(hairpin(8, apart=7.0)))


def test_parallel_strands() -> None:
    first, third = strand(7), strand(7) + torch.tensor([0.0, 4.8, 0.0])
    away = torch.tensor([[0.0, 0.0, 15.0]], dtype=torch.float64) + strand(6)
    assert letters(secondary_structure(torch.cat([first, away, third]))).count("E") >= 10


def test_the_pose_does_not_matter() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    for chain in (helix(12), hairpin(8)):
        assert torch.equal(secondary_structure(chain @ turn + 3.0), secondary_structure(chain))


def _oxygens(n: NDArray[np.float32], ca: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where a planar peptide has its oxygen, which the file does not hold."""
    following = np.concatenate([n[1:], n[-1:] + 1.0])

    def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
        return vector / np.linalg.norm(vector, axis=-1, keepdims=True)

    return c - 1.231 * unit(unit(ca - c) + unit(following - c))


@pytest.mark.data
def test_real_chains_agree_with_dssp(data_root: Path) -> None:
    """40 of the test chains, on which no threshold was chosen."""
    path = data_root / "proteins" / "backbones.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    try:
        pydssp = optional_library("pydssp", "test")
    except MissingExtraError as error:
        pytest.skip(str(error))
    file = HDF5File(path)
    atoms, offsets = file.read("coordinates"), file.read("offsets")
    complete, compact = file.read("has_n_c"), file.read("compact")
    table = np.zeros((3, 3))
    for k in [k for k in range(1493, 1623) if complete[k] and compact[k]][:40]:
        chain = atoms[offsets[k] : offsets[k + 1]]
        n, ca, c = chain[:, 0], chain[:, 1], chain[:, 2]
        backbone = torch.tensor(np.stack([n, ca, c, _oxygens(n, ca, c)], 1))
        expected = pydssp.assign(backbone, out_type="index").numpy()
        np.add.at(table, (expected, secondary_structure(torch.tensor(ca)).numpy()), 1)
    table /= table.sum()
    assert np.trace(table) > 0.8
    for kind in (HELIX, STRAND):
        assert table[:, kind].sum() == pytest.approx(table[kind].sum(), abs=0.05)
    assert table[HELIX, STRAND] + table[STRAND, HELIX] < 0.01
