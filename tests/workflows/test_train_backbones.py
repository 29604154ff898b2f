"""Training on backbones: a prior and an h-transform, resumed exactly, on no chain that is held out; then used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from overriding import overriding
from tiny_backbones import LENGTHS, helix_atoms, write_backbones
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.datasets.backbones import BackboneFile
from deft_ct.diffusion import load_prior
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import load_htransform
from deft_ct.methods.registry import load_reconstructor
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.networks import BackboneNetworkConfig
from deft_ct.operators import GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scale import BACKBONE_RANGE, Angstrom
from deft_ct.reconstructor import UnsupportedError

TRAIN = ("--channels", 16, "--steps", 4, "--batch-size", 2, "--no-progress")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    write_backbones(folder / "data.h5")
    for words in (
        ("train", "prior", "--data", f"backbones:{folder / 'data.h5'}", "--out", folder / "p", *TRAIN),
        ("train", "htransform", "--data", f"backbones:{folder / 'data.h5'}", "--out", folder / "h", *TRAIN[2:],
         "--channels", 32, "--prior", folder / "p" / "prior"),
    ):  # fmt: skip
        result = run(*words)
        assert result.exit_code == 0, result.output
    return folder


def test_a_prior_of_backbones(root: Path) -> None:
    prior = load_prior(root / "p" / "prior")
    assert isinstance(prior.network.config, BackboneNetworkConfig) and prior.network.config.width == 16  # type: ignore[union-attr]
    assert prior.value_range == BACKBONE_RANGE and prior.card["domain"] == "backbones"
    assert prior.card["data"]["chains"] == 3 and prior.card["batch_size"] == 2 and prior.card["training_steps"] == 4


def test_a_stopped_training_resumes_exactly(root: Path, tmp_path: Path) -> None:
    words = ("train", "prior", "--data", f"backbones:{root / 'data.h5'}", "--out", tmp_path, *TRAIN)
    assert run(*words, "--max-minutes", 0).exit_code == 0
    assert load_prior(tmp_path / "prior").card["training_steps"] < 4
    assert run(*words).exit_code == 0
    assert load_prior(tmp_path / "prior").content_hash() == load_prior(root / "p" / "prior").content_hash()
    other = run(*words[:-3], "--batch-size", 1, "--no-progress")
    assert other.exit_code == 2 and "was started with" in other.output


def test_held_out_chains_change_nothing_and_homologues_are_refused(root: Path, tmp_path: Path) -> None:
    atoms = np.concatenate([helix_atoms(n, k if k < 3 else k + 50) for k, n in enumerate(LENGTHS)])
    changed = write_backbones(tmp_path / "changed.h5", coordinates=atoms)
    assert run("train", "prior", "--data", f"backbones:{changed}", "--out", tmp_path / "a", *TRAIN).exit_code == 0
    assert load_prior(tmp_path / "a" / "prior").content_hash() == load_prior(root / "p" / "prior").content_hash()
    shared = write_backbones(tmp_path / "shared.h5", homology_group=np.array([0, 1, 2, 3, 4, 0]))
    result = run("train", "prior", "--data", f"backbones:{shared}", "--out", tmp_path / "b", *TRAIN)
    assert result.exit_code == 2 and "held out" in result.output and not (tmp_path / "b" / "prior").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("prior", "--channels", "32,32"), "one width"), (("prior", "--channels", 16, "--attention", 1), "--attention"),
        (("prior", "--channels", 15), "multiple of heads"), (("htransform", "--channels", 32), "need a prior"),
        (("htransform", "--channels", 32, "--any-scan"), "--any-scan"),
        (("htransform", "--channels", 32, "--operator", "sr4"), "--operator"),
        (("htransform", "--channels", 32, "--guidance", "cg", "--prior", "x"), "guidance project or score"),
    ],
)  # fmt: skip
def test_options_that_do_not_suit_are_refused(root: Path, tmp_path: Path, words: tuple[object, ...], why: str) -> None:
    result = run("train", *words, "--data", f"backbones:{root / 'data.h5'}", "--out", tmp_path, "--no-progress")
    assert result.exit_code == 2 and why in " ".join(result.output.split())


def test_a_small_head_of_any_width(root: Path, tmp_path: Path) -> None:
    words = ("train", "htransform", "--data", f"backbones:{root / 'data.h5'}", "--prior", root / "p" / "prior")
    result = run(*words, "--out", tmp_path, "--channels", 6, "--steps", 1, "--batch-size", 2, "--no-progress")
    assert result.exit_code == 0, result.output
    network = load_htransform(tmp_path / "htransform").config.network
    assert isinstance(network, BackboneNetworkConfig) and (network.width, network.heads) == (6, 1)


@pytest.mark.parametrize("objective", ["log-variance", "trajectory-balance"])
def test_stochastic_control_sees_motifs_alone(root: Path, tmp_path: Path, objective: str) -> None:
    data, rest = write_backbones(tmp_path / "data.h5"), ("--channels", 8, "--steps", 2, "--batch-size", 2)
    words = ("train", "htransform", "--prior", root / "p" / "prior", "--loss", objective, "--paths", 2)
    for name in ("a", "b"):
        more = ("--data", f"backbones:{data}", "--path-steps", 3, "--out", tmp_path / name, *rest, "--no-progress")
        result = run(*words, *more)
        assert result.exit_code == 0, result.output
    made, again = (load_htransform(tmp_path / name / "htransform") for name in ("a", "b"))
    assert made.card["control"] == {"objective": objective, "steps": 3, "paths": 2} and made.card["measurements"] == 3
    assert made.card["domain"] == "backbones" and made.content_hash() == again.content_hash()
    assert any(bool(p.any()) for p in made.network.get_submodule(made.network.last_layer).parameters())  # it learned


def test_the_whole_prior_is_fine_tuned(root: Path, tmp_path: Path) -> None:
    words = ("train", "amortised", "--data", f"backbones:{root / 'data.h5'}", "--steps", 2, "--batch-size", 2)
    result = run(*words, "--initial", root / "p" / "prior", "--out", tmp_path, "--no-progress")
    assert result.exit_code == 0, result.output
    model = AmortisedModel.load(tmp_path / "model")
    assert model.card["domain"] == "backbones" and model.card["data"]["chains"] == 3
    start = AmortisedModel.from_prior(load_prior(root / "p" / "prior"))
    assert model.shape == start.shape and model.content_hash() != start.content_hash()
    for more, why in ((("--data", "train"), "give --data backbones:FILE"), ((), "give --initial PRIOR")):
        refused = run(*overriding(words, more), "--out", tmp_path / "other", "--no-progress")
        assert refused.exit_code == 2 and why in " ".join(refused.output.split())


def test_deft_draws_chains_that_carry_the_motif(root: Path) -> None:
    (cut,) = BackboneFile(root / "data.h5").motif_cuts("test")
    motif = Motif(len(cut.chain), range(cut.start, cut.stop), cut.template)
    measurement = Measurement(motif, GaussianNoise(0.1), units=Angstrom())
    htransform = load_htransform(root / "h" / "htransform")
    assert htransform.card["domain"] == "backbones" and 0 < htransform.card["share_of_prior"]
    deft = load_reconstructor("deft", prior=root / "p" / "prior", htransform=htransform, estimate="samples", steps=8)
    result = deft.reconstruct(cut.template[None], measurement, num_samples=2)
    assert result.samples is not None and result.std is not None and result.std.shape == (1, 18, 3)
    assert float(motif.deviation(result.samples).max()) < 0.5  # untrained, it starts from replacement
    assert torch.equal(result.mean[0], result.samples[0, result.provenance["selected"]["samples"][0]])
    with pytest.raises(UnsupportedError, match="the mean of chains in any pose is not a chain"):
        load_reconstructor("deft", prior=root / "p" / "prior", htransform=htransform).reconstruct(
            cut.template[None], measurement
        )
    alone = deft.reconstruct(cut.template[None], measurement, num_samples=1)
    torch.testing.assert_close(alone.samples[0, 0], result.samples[0, 0], rtol=0, atol=1e-3)  # type: ignore[index]
