"""Measurements: physics, noise and the scale of the numbers, and the likelihood that methods see."""

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import AffineMap, PerImageMap, PriorRange

__all__ = ["AffineMap", "Likelihood", "Measurement", "PerImageMap", "PriorRange"]
