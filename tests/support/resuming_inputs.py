"""The data and networks that the commands of :mod:`resuming` name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from resuming import SMALL
from tiny import NETWORK, tiny_htransform, tiny_prior
from tiny_backbones import LENGTHS, helix_atoms, tiny_backbone_prior, write_backbones
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import save_htransform, save_refinement
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.networks import UNetConfig


def change_hu(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the pixels of every group of a pack."""
    with h5py.File(path, "r+") as file:
        for name in file:
            file[name]["hu"][...] = change(file[name]["hu"][...])


def write_inputs(root: Path) -> None:
    """Write them all into a folder."""
    for folder, name in ((root, "one"), (root, "other")):
        write_tiny_pack(folder / f"{name}.h5", count=2)
        (root / name).mkdir()
        shutil.copy(folder / f"{name}.h5", root / name / "slices.h5")
    for path in (root / "other.h5", root / "other" / "slices.h5"):
        change_hu(path, lambda hu: hu + 7)
    save_prior(tiny_prior(), root / "prior")
    save_prior(tiny_prior(seed=1), root / "prior2")
    shape = RefinementConfig(network=SMALL)
    save_refinement(Refinement(shape), root / "refinement")
    PrimalDualModel(PrimalDualShape(iterations=1, channels=4, memory=2)).save(root / "second")
    prior = tiny_prior()
    save_htransform(tiny_htransform(prior, tv_iterations=2), root / "head")
    for seed, name in ((0, "chains"), (1, "chains2")):
        save_prior(tiny_backbone_prior(seed=seed), root / name)
    write_backbones(root / "chains.h5")
    write_backbones(root / "other_chains.h5", coordinates=np.concatenate([helix_atoms(n, 9) for n in LENGTHS]))
    small = UNetConfig(**{**NETWORK.to_dict(), "channels": (32,), "attention": (False,)})
    save_htransform(tiny_htransform(prior, reference="fbp", network=small), root / "head32")
    told = RefinementConfig(network=UNetConfig(**{**NETWORK.to_dict(), "norm_groups": 16}), scan_features=True)
    for seed, name in ((1, "refined"), (2, "refined2")):
        made = tiny_htransform(prior, seed=seed, scan_features=True, refinement=told, tv_iterations=2)
        save_htransform(made, root / name)
    made = CliRunner().invoke(
        app,
        ["train", "prior", "--data", str(root / "other.h5"), "--channels", "32", "--patch", "2", "--steps", "1",
         "--batch-size", "2", "--out", str(root / "run"), "--no-progress"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    (root / "run" / "prior").rename(root / "prior32")
