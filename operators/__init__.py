"""Measurement operators and noise models.

``deft_ct.operators.ct`` (ray transforms and their geometries) is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deft_ct.operators.algebra import stack
from deft_ct.operators.base import Operator
from deft_ct.operators.identity import Identity
from deft_ct.operators.image.blur import Blur, GaussianBlur, MotionBlur, SeparableBlur
from deft_ct.operators.image.colorization import Colorization
from deft_ct.operators.image.compressed_sensing import CompressedSensing
from deft_ct.operators.image.conventions import preset, presets
from deft_ct.operators.image.hdr import HDR
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.image.jpeg import JPEG
from deft_ct.operators.image.masked_fourier import MaskedFourier, cartesian_mask
from deft_ct.operators.image.masks import box_mask, expand_mask, freeform_mask, half_mask, lattice_mask, random_mask
from deft_ct.operators.image.nonlinear_blur import NonlinearBlur
from deft_ct.operators.image.phase_retrieval import PhaseRetrieval
from deft_ct.operators.image.quantisation import Quantisation
from deft_ct.operators.image.super_resolution import SuperResolution
from deft_ct.operators.image_noise import PhotonNoise, UnknownGaussianNoise
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise, PoissonNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.operators.points.selection import Selection
from deft_ct.operators.solvers import conjugate_gradient
from deft_ct.operators.svd import Decomposable, SingularValueDecomposition

if TYPE_CHECKING:
    from deft_ct.operators import ct

__all__ = [
    "HDR",
    "JPEG",
    "Blur",
    "Colorization",
    "CompressedSensing",
    "Decomposable",
    "GaussianBlur",
    "GaussianNoise",
    "Identity",
    "Inpainting",
    "LinearOperator",
    "MaskedFourier",
    "Motif",
    "MotionBlur",
    "NoNoise",
    "NoiseModel",
    "NonlinearBlur",
    "Operator",
    "PhaseRetrieval",
    "PhotonNoise",
    "PoissonNoise",
    "Quantisation",
    "Selection",
    "SeparableBlur",
    "SingularValueDecomposition",
    "SuperResolution",
    "UnknownGaussianNoise",
    "box_mask",
    "cartesian_mask",
    "conjugate_gradient",
    "ct",
    "expand_mask",
    "freeform_mask",
    "half_mask",
    "lattice_mask",
    "preset",
    "presets",
    "random_mask",
    "stack",
]


def __getattr__(name: str) -> Any:
    if name == "ct":
        return importlib.import_module("deft_ct.operators.ct")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
