"""Classical reconstruction: filtered back-projection, SIRT, CGLS, Tikhonov and total variation.

Functions take data and an operator; the classes of the same modules are :class:`~deft_ct.reconstructor.Reconstructor`
methods around them.
"""

from deft_ct.classical.common import SolverInfo

__all__ = ["SolverInfo"]
