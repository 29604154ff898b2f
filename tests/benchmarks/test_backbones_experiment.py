"""The experiment on backbones, at its smallest: what it measures of known chains and estimates."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny_backbones import tiny_backbone_prior, write_backbones

from deft_ct.datasets.backbones import BackboneFile
from deft_ct.diffusion import save_prior
from deft_ct.methods.registry import load_reconstructor
from deft_ct.workflows.experiments.backbone_scores import (
    chain_geometry,
    denoising_errors,
    drawn_chains,
    scaffold_scores,
)


def test_the_samples_of_a_prior_depend_on_their_numbers_alone() -> None:
    prior = tiny_backbone_prior()
    three, one = (drawn_chains(prior, lengths, steps=3, seed=1) for lengths in ((7, 9, 8), (7,)))
    assert [len(chain) for chain in three] == [7, 9, 8] and torch.equal(three[0], one[0])
    assert not torch.allclose(drawn_chains(prior, (7,), steps=3, seed=2)[0], one[0])


def test_geometry_of_a_known_chain(tmp_path: Path) -> None:
    chain = BackboneFile(write_backbones(tmp_path / "x.h5")).chains("val")[0]
    found = chain_geometry(chain.ca)
    assert found["helix"] > 0.8 and found["left_helix"] == 0 and found["valid_bonds"] == 1 and found["bond_error"] < 0.1


def test_the_error_outside_of_the_motif_falls_with_the_noise(tmp_path: Path) -> None:
    """A network without weights takes the noisy chain, shrunk, for the clean one."""
    cuts = BackboneFile(write_backbones(tmp_path / "x.h5")).motif_cuts("test")
    prior = tiny_backbone_prior()
    prior.network.zero_output()  # type: ignore[operator]
    low, high = (denoising_errors(prior, None, cuts, sigma=sigma, seed=0)[0] for sigma in (0.5, 8.0))
    assert 0.3 < low < 1.5 < high


def test_scores_of_a_method(tmp_path: Path) -> None:
    (cut,) = BackboneFile(write_backbones(tmp_path / "x.h5")).motif_cuts("test")
    method = load_reconstructor("replacement", prior=tiny_backbone_prior(), steps=3)
    found = scaffold_scores(method, cut, samples=2, seed=0)
    assert len(found) == 2 and all(row["motif_rmsd"] < 0.05 and row["evaluations"] == 3 for row in found)


@pytest.mark.slow
def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    data = write_backbones(tmp_path / "x.h5")
    save_prior(tiny_backbone_prior(), tmp_path / "prior")
    words = [
        "--data", f"backbones:{data}", "--prior", tmp_path / "prior", "--out", tmp_path / "out", "--split", "test",
        "--draws", 2, "--steps", 2, "--method", "replacement:steps=2", "--samples", 2, "--seeds", 2,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["backbones.py", *map(str, words)])
    runpy.run_path(str(repository_root / "benchmarks/experiments/backbones.py"), run_name="__main__")
    record = json.loads((tmp_path / "out" / "backbones.json").read_text())
    assert len(record["methods"]["rows"]["replacement:steps=2"]) == 4 and len(record["prior"]["rows"]["samples"]) == 2
    assert "not comparable" in (tmp_path / "out" / "backbones.md").read_text()
