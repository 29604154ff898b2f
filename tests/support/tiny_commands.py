"""Every command that writes a folder, with settings so small that it takes seconds, and how its result is read.

As a program it is the command line with a small demo; it waits for a line on standard input, so that two of them begin
at the same moment: ``echo | python tiny_commands.py reconstruct ...``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import torch
from adm import ADMConfig, random_adm
from PIL import Image
from tiny import NETWORK, tiny_htransform, tiny_prior
from tiny_backbones import tiny_backbone_prior, write_backbones
from tiny_pack import write_tiny_pack

from deft_ct.cli import app
from deft_ct.diffusion import load_prior, save_prior
from deft_ct.io import sample_series_path
from deft_ct.methods.deft import load_htransform, load_refinement, load_spread_network, save_htransform
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.methods.supervised.conditional import ConditionalModel
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel
from deft_ct.methods.supervised.i2sb import I2SBModel
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.workflows.reconstruct_series import SparseView
from deft_ct.workflows.scaffold import ScaffoldSettings, scaffold_motif

SCAN = ("--scan", "parallel12_1e5_48bins")
STEPS = ("--steps", 6, "--batch-size", 2, "--no-progress")
Read = Callable[[Path], Any]
REPLACED = ("reconstruct", "restore", "scaffold", "demo", "prior import", "data motifbench")
"""Commands that write OUT as a whole, and refuse one that holds a file of the user."""
TINY_DEMO = partial(SparseView, method="fbp", compare=(), views=12)


def commands(root: Path) -> dict[str, tuple[list[object], Read]]:
    """Name -> arguments without --out, and what the result is."""
    prior, head, pack = root / "prior", root / "head", root / "val.h5"
    save_prior(tiny_prior(), prior)
    save_htransform(tiny_htransform(tiny_prior(), reference="fbp"), head)
    shape = RefinementConfig(network=replace(NETWORK, norm_groups=16), scan_features=True)
    refined = tiny_htransform(tiny_prior(), scan_features=True, refinement=shape, tv_iterations=2)
    save_htransform(refined, root / "refined")
    write_tiny_pack(pack, count=2)
    save_prior(tiny_backbone_prior(), root / "backbones")
    data = ("--data", pack)
    networks = ("--prior", prior, "--htransform", head)
    fbp_only = ("--method", "fbp", "--compare", "", "--views", 12, "--size", 32, "--overwrite", "--no-progress")
    network = ("--channels", "32,32", "--patch", 2)
    table = ("--batches", 3, "--tv-iterations", 2)
    return {
        "reconstruct": (["reconstruct", sample_series_path(), *fbp_only], _run),
        "compare": (
            ["compare", *data, "--every", 1, *SCAN, "--method", "fbp", "--method", "sirt:iterations=5"],
            _table,
        ),
        "benchmark run": (["benchmark", _suite(root, pack), "--no-progress"], _table),
        "tune": (["tune", "fbp", *data, "--every", 1, *SCAN, "--trials", 6], _preset),
        "calibrate": (
            ["calibrate", "deft:steps=2", *data, "--every", 1, *SCAN, "--samples", 2, *networks, "--no-progress"],
            _factor,
        ),
        "train prior": (["train", "prior", *data, *network, *STEPS], lambda p: load_prior(p / "prior").content_hash()),
        "train fbp-unet": (
            ["train", "fbp-unet", *data, *SCAN, *network, *STEPS],
            lambda p: FBPUNetModel.load(p / "model").content_hash(),
        ),
        "train learned-primal-dual": (
            ["train", "learned-primal-dual", *data, *SCAN, *STEPS, "--iterations", 2, "--features", 4],
            lambda p: PrimalDualModel.load(p / "model").content_hash(),
        ),
        "train conditional": (
            ["train", "conditional", *data, *SCAN, *network, *STEPS],
            lambda p: ConditionalModel.load(p / "model").content_hash(),
        ),
        "train amortised": (
            [
                "train", "amortised", "--data", f"backbones:{write_backbones(root / 'chains.h5')}", "--initial",
                root / "backbones", *STEPS,
            ],
            lambda p: AmortisedModel.load(p / "model").content_hash(),
        ),
        "train i2sb": (
            ["train", "i2sb", *data, *SCAN, *network, *STEPS],
            lambda p: I2SBModel.load(p / "model").content_hash(),
        ),
        "train refinement": (
            ["train", "refinement", *data, *SCAN, *network, *STEPS, *table],
            lambda p: load_refinement(p / "refinement").content_hash(),
        ),
        "train spread": (
            ["train", "spread", *data, *SCAN, *network, *STEPS, "--batches", 3, *networks],
            lambda p: load_spread_network(p / "spread").content_hash(),
        ),
        "train htransform": (
            ["train", "htransform", *data, *SCAN, "--channels", "32,32", *STEPS, *table, "--prior", prior],
            lambda p: load_htransform(p / "htransform").content_hash(),
        ),
        "finetune": (
            [
                "finetune", *data, *SCAN, *STEPS, "--prior", prior, "--initial", root / "refined", "--one-scan",
                "--refinement-steps", 7,
            ],
            lambda p: load_htransform(p / "htransform").content_hash(),
        ),
        "restore": (
            [
                "restore", _picture(root), "--operator", "sr4", "--method", "cgls:iterations=3", "--overwrite",
                "--no-progress",
            ],
            lambda p: json.loads((p / "run.json").read_text())["metrics"],
        ),
        "scaffold": (
            [
                "scaffold", _motif(root), "--contig", "3,A2-6,2-4", "--samples", 2, "--prior", root / "backbones",
                "--method", "unconditional:steps=2", "--overwrite", "--no-progress",
            ],
            lambda p: (p / "scaffolds.csv").read_text(),
        ),
        "data motifbench": (["data", "motifbench", f"01_1LDB={_scaffolds(root)}", "--overwrite"], _motif_places),
        "data challenge": (["data", "challenge", _challenge(root), "--method", "fbp"], _submission),
        "prior import": (
            ["prior", "import", _checkpoint(root), "--image-size", 16, "--head-channels", 16, "--overwrite"],
            lambda p: load_prior(p).content_hash(),
        ),
        "demo": (["demo", "--samples", 1, "--no-progress"], _run),
    }  # fmt: skip


def _suite(root: Path, pack: Path) -> Path:
    path = root / "suite.yaml"
    path.write_text(f"data: {pack}\nscans: [{SCAN[1]}]\nbatch_size: 1\nmethods: [fbp, 'sirt:iterations=5']\n")
    return path


def _picture(root: Path) -> Path:
    path = root / "picture.png"
    Image.linear_gradient("L").resize((8, 8)).save(path)
    return path


def _motif(root: Path) -> Path:
    path = root / "motif.pdb"
    row = "ATOM  {0:>5}  CA  ALA A{0:>4}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00  0.00           C"
    path.write_text("".join(row.format(k, 3.0 * k, k % 2, k % 3) + "\n" for k in range(1, 8)))
    return path


def _scaffolds(root: Path) -> Path:
    settings = ScaffoldSettings(
        contig="3,A2-6,2", prior=str(root / "backbones"), method="unconditional", options={"steps": 1}, samples=2
    )  # fmt: skip
    scaffold_motif(_motif(root), root / "scaffolds", settings)
    return root / "scaffolds"


def _motif_places(out: Path) -> str:
    return (out / "scaffolds" / "01_1LDB" / "scaffold_info.csv").read_text()


def _challenge(root: Path) -> Path:
    """The challenge set of LoDoPaB-CT with two samples; :func:`small` says that it has no more."""
    folder = root / "challenge"
    folder.mkdir()
    with h5py.File(folder / "observation_challenge_000.hdf5", "w") as file:
        file["data"] = np.random.default_rng(0).random((2, 1000, 513), np.float32) / 81.35858
    return folder


def _checkpoint(root: Path) -> Path:
    torch.save(random_adm(ADMConfig()).state_dict(), root / "model.pt")
    return root / "model.pt"


def _submission(out: Path) -> Any:
    with h5py.File(out / "reco_000.hdf5") as file:
        return np.asarray(file["data"][:2]).tobytes()


def _run(out: Path) -> Any:
    record = json.loads((out / "run.json").read_text())
    assert all((out / name).is_file() for name in record["files"]) and len(list(out.rglob("*.dcm"))) == 8
    return [row["metrics"] for row in record["metrics"]]


def _table(out: Path) -> Any:
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    return [cell["summary"] for cell in cells]


def _preset(out: Path) -> Any:
    [path] = (out / "presets").rglob("fbp.json")
    return json.loads(path.read_text())["options"]


def _factor(out: Path) -> Any:
    [path] = out.glob("calibration-*.json")
    return json.loads(path.read_text())["factor"]


@contextmanager
def small() -> Iterator[None]:
    """What has no option: the settings of the demo, the batches in a file of a table, the size of a challenge."""
    with (
        mock.patch("deft_ct.cli.demo.SparseView", TINY_DEMO),
        mock.patch("deft_ct.cli.demo.DEMO_SIZE", 32),
        mock.patch("deft_ct.training.blocks.BLOCK", 1),
        mock.patch.dict("deft_ct.datasets.lodopab.SAMPLES", challenge=2),
    ):
        yield


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders: locks and unfinished results."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*")]


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with small():
        app()
