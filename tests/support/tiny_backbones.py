"""A small file of backbones in the layout of the real one: helices of several lengths in every split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.networks import BackboneNetworkConfig
from deft_ct.protein.scale import BACKBONE_RANGE

NAMES = ["1AAA", "1BBB", "1CCC", "1DDD", "1EEE", "1FFF"]
SPLITS = ["train", "train", "train", "val", "test", "benchmark_homologue"]
LENGTHS = [12, 14, 16, 15, 18, 12]


SMALL_BACKBONE = BackboneNetworkConfig(width=16, layers=1, heads=2, pair_width=8)


def tiny_backbone_prior(seed: int = 0) -> Prior:
    """A prior of backbones with random weights, which follow from the seed."""
    torch.manual_seed(seed)
    return Prior(
        SMALL_BACKBONE.build(), Schedule(), prediction="v_prediction", value_range=BACKBONE_RANGE, image_shape=(16, 3)
    )


def helix_atoms(length: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """``(length, 3, 3)`` atoms N, CA, C, of which only CA is a helix; a little noise tells chains apart."""
    n = np.arange(length)
    angle = np.deg2rad(100.0 * n)
    ca = np.stack([2.3 * np.cos(angle), 2.3 * np.sin(angle), 1.5 * n], -1)
    ca = ca - ca.mean(0) + 0.01 * np.random.default_rng(seed).standard_normal(ca.shape)
    return np.stack([ca - 0.5, ca, ca + 0.5], 1).astype(np.float32)


def write_backbones(path: Path, **changed: Any) -> Path:
    """The file, with some of its datasets changed by name; None leaves one out."""
    chains = [helix_atoms(length, k) for k, length in enumerate(LENGTHS)]
    text = h5py.string_dtype()
    content: dict[str, Any] = {
        "coordinates": np.concatenate(chains), "offsets": np.cumsum([0, *LENGTHS]),
        "pdb_id": np.array(NAMES, text), "chain_id": np.array(["A"] * 6, text), "split": np.array(SPLITS, text),
        "sequence": np.array(["A" * n for n in LENGTHS], text), "ss_ca": np.array(["H" * n for n in LENGTHS], text),
        "compact": np.array([True, True, False, True, True, True]), "representative": np.ones(6, bool),
        "homology_group": np.arange(6),
        "windows/ca": helix_atoms(13, 7)[:, 1], "windows/offsets": np.array([0, 13]),
        "windows/pdb_id": np.array(["1GGG"], text), "windows/chain_id": np.array(["B"], text),
        "windows/sequence": np.array(["A" * 13], text),
        "motifs/val_cut/name": np.array(["1DDD_A_5-9"], text), "motifs/val_cut/index": np.array([3]),
        "motifs/val_cut/start": np.array([4]), "motifs/val_cut/stop": np.array([9]),
        "motifs/test_cut/name": np.array(["1EEE_A_6-11"], text), "motifs/test_cut/index": np.array([4]),
        "motifs/test_cut/start": np.array([5]), "motifs/test_cut/stop": np.array([11]),
        "motifs/rfdiffusion/1XYZ/segment0": helix_atoms(4)[:4], "motifs/rfdiffusion/1XYZ/segment1": helix_atoms(3)[:3],
    }  # fmt: skip
    content |= {name.replace("__", "/"): value for name, value in changed.items() if name != "contig"}
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
        if "motifs/rfdiffusion/1XYZ" in file:
            attributes = {"contig": changed.get("contig", "2-4,A5-8,3,B1-3,2-4"), "length_fixed": 15}
            file["motifs/rfdiffusion/1XYZ"].attrs.update(attributes)
    return path
