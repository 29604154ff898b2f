"""
Scaffold a motif
================

Protein backbones go through the same methods as CT: a prior of chains, an operator that sees a few residues in any
pose, and a method that draws chains that carry them. The prior here is trained for seconds on nothing but helices. So
this page shows the calls, and says nothing about quality. It needs the extra ``protein``.
"""

import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch

from deft_ct.diffusion import save_prior
from deft_ct.io.structures import write_structure
from deft_ct.training import TrainingConfig
from deft_ct.workflows.scaffold import ScaffoldSettings, scaffold_motif
from deft_ct.workflows.train_backbones import BackboneRecipe, prior_on_backbones

# %%
# Chains
# ------
# A file of backbones holds the atoms N, C-alpha and C of every residue, in angstrom. The package uses C-alpha alone.
# The chains of this file are helices of 20 to 28 residues, 3.6 residues a turn, bent a little.

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)


def helix(length: int) -> np.ndarray:
    """C-alpha atoms of a helix, (length, 3)."""
    n = np.arange(length)
    turn = np.deg2rad(100) * n
    bend = rng.normal(0, 0.003, 2) * (n[:, None] - length / 2) ** 2
    return np.stack([2.3 * np.cos(turn) + bend[:, 0], 2.3 * np.sin(turn) + bend[:, 1], 1.5 * n], axis=1)


chains = [helix(length) for length in rng.integers(20, 29, 64)]
atoms = np.concatenate([np.stack([ca - 0.5, ca, ca + 0.5], axis=1) for ca in chains])
with h5py.File(folder / "backbones.h5", "w") as file:
    text = h5py.string_dtype()
    file["coordinates"] = atoms.astype(np.float32)
    file["offsets"] = np.cumsum([0, *map(len, chains)])
    file["pdb_id"] = np.array([f"{number:04d}" for number in range(64)], text)
    file["chain_id"] = np.array(["A"] * 64, text)
    file["sequence"] = np.array(["A" * len(ca) for ca in chains], text)
    file["ss_ca"] = np.array(["H" * len(ca) for ca in chains], text)
    file["split"] = np.array(["train"] * 64, text)
    file["homology_group"] = np.arange(64)
    file["compact"], file["representative"] = np.ones(64, bool), np.ones(64, bool)

# %%
# A prior
# -------
# On the command line::
#
#     deft-ct train prior --data backbones:backbones.h5 --channels 32 --layers 1 --steps 150 --batch-size 16 --out runs

training = TrainingConfig(steps=150, batch_size=16, learning_rate=2e-3, warmup=20, ema_decay=0.97)
recipe = BackboneRecipe(width=32, layers=1)
prior = prior_on_backbones(f"backbones:{folder / 'backbones.h5'}", folder / "runs", recipe, training)
save_prior(prior, folder / "prior")

# %%
# A motif
# -------
# Eight residues of a helix. A contig says where they go: 6 to 9 free residues, the residues 1 to 8 of chain A, and 6 to
# 9 more. DEFT, the default, needs an h-transform that was trained for the prior; DAPS needs none. On the command line::
#
#     deft-ct scaffold motif.pdb --contig "6-9,A1-8,6-9" --prior runs/prior --method daps --samples 3 --out scaffolds

write_structure(folder / "motif.pdb", torch.from_numpy(helix(8)))
settings = ScaffoldSettings(
    contig="6-9,A1-8,6-9", prior=str(folder / "prior"), samples=3, method="daps", options={"steps": 20, "ode_steps": 2}
)
found = scaffold_motif(folder / "motif.pdb", folder / "scaffolds", settings)
for one in found:
    scores = one.scores
    print(f"{one.name}: motif {scores.motif_rmsd:.2f} A, {scores.valid_bonds:.0%} of the bonds valid")

# %%
# The motif is red. It is held, but most of the other bonds are wrong: a prior of use trains for hours on real chains.

plt.figure(figsize=(9, 3.4))
plt.imshow(skimage.io.imread(folder / "scaffolds/scaffolds.png"))
plt.axis("off")
plt.tight_layout()
print(*sorted(path.name for path in (folder / "scaffolds").iterdir()), sep="\n")
