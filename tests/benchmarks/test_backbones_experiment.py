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
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.workflows.experiments.backbone_problems import cut_problem, problems, scaffold_scores
from deft_ct.workflows.experiments.backbone_scores import (
    by_amortised,
    by_replacement,
    chain_geometry,
    denoising_errors,
    drawn_chains,
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
    given = by_replacement(prior)
    low, high = (denoising_errors(prior.schedule, given, cuts, sigma=sigma, seed=0)[0] for sigma in (0.5, 8.0))
    assert 0.3 < low < 1.5 < high
    same = by_amortised(AmortisedModel.from_prior(prior))  # untrained: the estimate of the prior alone
    assert denoising_errors(prior.schedule, same, cuts, sigma=0.5, seed=0)[0] < 1.5


def test_scores_of_a_method(tmp_path: Path) -> None:
    (cut,) = BackboneFile(write_backbones(tmp_path / "x.h5")).motif_cuts("test")
    method = load_reconstructor("replacement", prior=tiny_backbone_prior(), steps=3)
    found, chains = scaffold_scores(method, cut_problem(cut), samples=2, seed=0)
    assert len(found) == 2 and all(row["motif_rmsd"] < 0.05 and row["evaluations"] == 3 for row in found)
    assert chains.shape == (2, 18, 3)


def test_groups_of_problems(tmp_path: Path) -> None:
    segments = {"motifs__rfdiffusion__1XYZ__segment1": None, "contig": "2-9,A5-8,2-9"}
    file = BackboneFile(write_backbones(tmp_path / "x.h5", **segments))
    (first,), (again,), (other,) = (problems(file, "benchmark", seed) for seed in (0, 0, 3))
    assert first.content() == again.content() and len(first) == 15 and first.ends[0][1] - first.ends[0][0] == 4
    assert first.ends != other.ends and first.motif.domain_shape == other.motif.domain_shape
    assert [one.name for one in problems(file, "val", 0)] == ["1DDD_A_5-9"]
    with pytest.raises(ValueError, match="unknown group"):
        problems(file, "train", 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # an untrained prior diverges
def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    pytest.importorskip("tmtools", reason="the extra tm-score is not installed")
    segments = {"motifs__rfdiffusion__1XYZ__segment1": None, "contig": "2-9,A5-8,2-9"}
    data, prior = write_backbones(tmp_path / "x.h5", **segments), tiny_backbone_prior()
    save_prior(prior, tmp_path / "prior")
    AmortisedModel.from_prior(prior).save(tmp_path / "whole")

    def part(name: str, *more: object) -> str:
        words = [
            name, "--data", f"backbones:{data}", "--prior", tmp_path / "prior", "--out", tmp_path / "out", "--work",
            tmp_path / "work", "--evaluations", 4, "--draws", 2, "--samples", 2, "--seeds", 2, "--trials", 2,
            "--amortised", tmp_path / "whole", *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["backbones.py", *map(str, words)])
        runpy.run_path(str(repository_root / "benchmarks/experiments/backbones.py"), run_name="__main__")
        return (tmp_path / "out" / f"backbones_{name}.md").read_text()

    few = ("--only", "replacement", "--only", "dps", "--only", "amortised")
    assert "probe" in part("prior") and (tmp_path / "out" / "backbones_prior.png").is_file()
    assert "amortised less replacement: fails" in part("gate")
    assert "core hours" in part("cost", *few)
    with pytest.raises(ValueError, match="is not tuned"):
        part("table", *few)
    assert "fitness" in part("tune", *few)
    text = part("table", *few)
    assert "not comparable" in text and "### benchmark" in text and "amortised less dps" in text
    rows = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "rows").iterdir()}
    next((tmp_path / "work" / "rows").iterdir()).unlink()
    record = json.loads((tmp_path / "out" / "backbones_table.json").read_text())
    assert len(record["test"]) == len(record["benchmark"]) == 3 * 2
    part("tune", *few)
    assert part("table", *few).splitlines()[:3] == text.splitlines()[:3]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "rows").iterdir()}
    assert after.keys() == rows.keys() and sum(after[name] != rows[name] for name in rows) == 1  # only what was missing
