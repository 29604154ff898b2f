"""Classical reconstruction: filtered back-projection, SIRT, CGLS, Tikhonov and total variation.

Functions take data and an operator; the classes of the same modules are :class:`~deft_ct.reconstructor.Reconstructor`
methods around them.
"""

from deft_ct.methods.classical.cgls import cgls, tikhonov
from deft_ct.methods.classical.common import SolverInfo, StoppingRule
from deft_ct.methods.classical.sirt import sirt
from deft_ct.methods.classical.tv import total_variation, tv_objective

__all__ = ["SolverInfo", "StoppingRule", "cgls", "sirt", "tikhonov", "total_variation", "tv_objective"]
