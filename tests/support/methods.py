"""Every registered method, small enough for tests, with a measurement that suits it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from tiny import NETWORK, tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from tiny_backbones import helix_atoms, tiny_backbone_prior
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor, method_class
from deft_ct.networks import UNet
from deft_ct.operators import GaussianBlur, GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scale import Angstrom
from deft_ct.reconstructor import PriorReconstructor, Reconstructor

FEW = {"steps": 3, "ode_steps": 2, "cg_iterations": 3, "iterations": 5, "batch_size": 2}
"""Settings that any method may have, small."""


@dataclass(frozen=True)
class Case:
    """A method, a measurement and images."""

    method: Reconstructor
    measurement: Measurement
    images: Tensor

    def data(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.measurement.simulate(self.images.to(dtype), seed=4, image_ids=range(len(self.images)))


def case(name: str, *, batch_size: int = 2) -> Case:
    """Build a registered method: CT for all but those that need a singular value decomposition or a projection."""
    cls = method_class(name)
    known = {field.name for field in dataclasses.fields(cls.config_type)}
    options = {key: value for key, value in FEW.items() if key in known}
    if "batch_size" in known:
        options["batch_size"] = batch_size
    if getattr(cls, "needs", "any") == "svd":
        return Case(load_reconstructor(name, prior=image_prior(), **options), blurred(), tiny_slices(3) * 30 - 0.5)
    if getattr(cls, "needs", "any") == "projection":
        chains = torch.from_numpy(np.stack([helix_atoms(12, k)[:, 1] for k in range(3)]))
        return Case(load_reconstructor(name, prior=tiny_backbone_prior(), **options), carried(), chains)
    if not issubclass(cls, PriorReconstructor):
        return Case(load_reconstructor(name, **options), tiny_scan(), tiny_slices(3))
    prior = tiny_prior()
    extra = {"htransform": tiny_htransform(prior, reference="fbp")} if name == "deft" else {}
    return Case(load_reconstructor(name, prior=prior, **extra, **options), tiny_scan(), tiny_slices(3))


def image_prior(seed: int = 0) -> Prior:
    """A prior of images in [-1, 1], without HU."""
    torch.manual_seed(seed)
    return Prior(UNet(NETWORK), Schedule(), prediction="v_prediction", image_shape=(1, 32, 32))


def carried() -> Measurement:
    """A motif in a chain of 12 residues."""
    motif = Motif(12, range(4, 9), torch.from_numpy(helix_atoms(12)[4:9, 1]))
    return Measurement(motif, GaussianNoise(0.05), units=Angstrom())


def blurred() -> Measurement:
    """A circular blur with white noise: it has a singular value decomposition."""
    return Measurement(GaussianBlur((1, 32, 32), 5, 1.0, boundary="circular"), GaussianNoise(0.05))
