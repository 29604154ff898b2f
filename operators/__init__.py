"""Measurement operators."""

from deft_ct.operators.base import LinearOperator, Operator
from deft_ct.operators.faults import DeadDetectors, RingArtefact
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise, PoissonNoise

__all__ = [
    "DeadDetectors",
    "GaussianNoise",
    "LinearOperator",
    "NoNoise",
    "NoiseModel",
    "Operator",
    "PoissonNoise",
    "RingArtefact",
]
