"""Backbones and motif problems: what is read, what may be trained on, and files that break their word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from tiny_backbones import LENGTHS, NAMES, helix_atoms, write_backbones

from deft_ct.datasets.backbones import SPLITS, BackboneFile, ChainSets, is_backbones
from deft_ct.io.errors import ReadError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_backbones(tmp_path / "backbones.h5")


def test_chains_of_each_split(path: Path) -> None:
    file = BackboneFile(f"backbones:{path}")
    assert is_backbones(f"backbones:{path}") and not is_backbones(str(path))
    assert {split: [c.name for c in file.chains(split)] for split in SPLITS} == {
        "train": ["1AAA_A", "1BBB_A", "1CCC_A"], "val": ["1DDD_A"], "test": ["1EEE_A"],
        "benchmark_homologue": ["1FFF_A"],
    }  # fmt: skip
    chain = file.chains("test")[0]
    expected = helix_atoms(18, 4)[:, 1]
    np.testing.assert_allclose(chain.ca.numpy(), expected - expected.mean(0), atol=1e-5)
    assert len(chain) == 18 and chain.sequence == "A" * 18 and chain.secondary == "H" * 18 and chain.representative


def test_only_compact_training_chains_and_windows_are_trained_on(path: Path) -> None:
    chains = BackboneFile(path).training_chains()
    assert [c.name for c in chains] == ["1AAA_A", "1BBB_A", "1GGG_B"]
    assert all(abs(float(c.ca.mean(0).norm())) < 1e-4 for c in chains)


def test_a_homologue_in_training_is_refused(tmp_path: Path) -> None:
    shared = write_backbones(tmp_path / "a.h5", homology_group=np.array([0, 1, 2, 3, 4, 1]))
    with pytest.raises(ReadError, match="homology group 1 is in train and in a split that is held out"):
        BackboneFile(shared).training_chains()
    window = write_backbones(
        tmp_path / "b.h5", windows__pdb_id=np.array(["1FFF"], h5py.string_dtype()),
        windows__chain_id=np.array(["A"], h5py.string_dtype()),
    )  # fmt: skip
    with pytest.raises(ReadError, match="chain 1FFF_A is for training and held out"):
        BackboneFile(window).training_chains()


def test_motif_cuts_and_benchmark_motifs(path: Path) -> None:
    file = BackboneFile(path)
    (cut,) = file.motif_cuts("val")
    assert (cut.name, cut.chain.name, cut.start, cut.stop) == ("1DDD_A_5-9", "1DDD_A", 4, 9)
    torch.testing.assert_close(cut.template, file.chains("val")[0].ca[4:9])
    assert file.motif_cuts("test")[0].chain.name == "1EEE_A"
    (motif,) = file.benchmark_motifs()
    assert motif.name == "1XYZ" and [len(s) for s in motif.segments] == [4, 3] and motif.length == 15
    np.testing.assert_array_equal(motif.segments[0].numpy(), helix_atoms(4)[:, 1])


TEXT = h5py.string_dtype()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"split": np.array(["train", "valid", *["test"] * 4], TEXT)}, "unknown split 'valid'"),
        ({"split": np.array(["train"] * 5, TEXT)}, "does not divide"),
        ({"coordinates": np.zeros((sum(LENGTHS), 3), "f4")}, "must have shape"),
        ({"coordinates": np.full((sum(LENGTHS), 3, 3), np.nan, "f4")}, "missing or out of place"),
        ({"coordinates": np.full((sum(LENGTHS), 3, 3), 1e30, "f4")}, "missing or out of place"),
        ({"offsets": np.cumsum([0, 1, *LENGTHS[1:-1], 23])}, "chains of 3 or more"),
        ({"offsets": np.cumsum([0, *LENGTHS[:-1], 10**9])}, "does not divide"),
        ({"pdb_id": np.array(NAMES[:5], TEXT)}, "'pdb_id' has 5 entries for 6 chains"),
        ({"sequence": None}, "holds no 'sequence'"),
        ({"homology_group": np.arange(5)}, "lists of different lengths"),
        ({"compact": np.ones((6, 2), bool)}, "must be a list"),
        ({"split": np.arange(6)}, "not a list of texts"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ReadError, match=why):
        BackboneFile(write_backbones(tmp_path / "x.h5", **changed))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"motifs__test_cut__index": np.array([3])}, "names no residues of a chain of test"),
        ({"motifs__test_cut__stop": np.array([19])}, "names no residues"),
        ({"motifs__test_cut__start": np.array([11])}, "names no residues"),
        ({"motifs__test_cut__start": np.array([1, 2])}, "lists of different lengths"),
        ({"contig": "5-10"}, "has no segment of a motif"),
        ({"contig": "5,A1-5,3,B1-3"}, "segment 0 has 4 residues, expected A1-5"),
    ],
)
def test_damaged_problems_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    file = BackboneFile(write_backbones(tmp_path / "x.h5", **changed))
    with pytest.raises(ReadError, match=why):
        file.motif_cuts("test")
        file.benchmark_motifs()


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file of backbones"):
        BackboneFile(f"backbones:{tmp_path / 'none.h5'}")


def test_sets_hold_chains_of_nearly_equal_lengths() -> None:
    chains = [torch.full((n, 3), float(n)) for n in torch.randperm(50).add(10).tolist()]
    sets = ChainSets(chains, 4)
    assert len(sets) == 50 and sets.longest == 59
    for n in range(50):
        batch = sets.batch([n])
        lengths = torch.isfinite(batch[..., 0]).sum(1)
        assert batch.shape == (4, int(lengths.max()), 3) and int(lengths[0]) == 10 + n
        assert len(set(lengths.tolist())) == 4 and int(lengths.max() - lengths.min()) < 16
        assert all(bool((row[:k] == k).all()) for row, k in zip(batch, lengths.tolist(), strict=True))
    torch.testing.assert_close(sets.batch([7]), ChainSets(chains, 4).batch([7]), equal_nan=True)
    assert sets.batch([0, 49]).shape[0] == 8
    for size in (0, 51):
        with pytest.raises(ValueError, match="need as many chains"):
            ChainSets(chains, size)


@pytest.mark.data
def test_the_real_file(data_root: Path) -> None:
    path = data_root / "proteins" / "backbones.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    file = BackboneFile(path)
    assert [len(file.chains(split)) for split in SPLITS] == [1429, 64, 130, 65]
    train = file.training_chains()
    assert len(train) == 1057 + 1105 and {len(c) for c in train} <= set(range(50, 129))
    assert len(file.motif_cuts("val")) == 53 and len(file.motif_cuts("test")) == 106
    motifs = file.benchmark_motifs()
    assert len(motifs) == 26 and sum(len(m.segments) == 1 for m in motifs) == 17
