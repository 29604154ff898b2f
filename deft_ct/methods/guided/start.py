"""Start of the sampling of a guided method: pure noise, or a quick reconstruction with added noise.

The second is "come closer, diffuse faster" (Chung, Sim and Ye 2022, arXiv 2112.05146, algorithm 1): what a quick
reconstruction gets right survives the noise, and sampling takes fewer steps.
"""

from __future__ import annotations

from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import WarmStartConfig
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.operators.linear import LinearOperator
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.search_space import Range

START = Range(0.02, 1.0, log=True)
"""Where to look for the best ``start``; the weaker the prior, the later."""


def warm_start(likelihood: Likelihood, config: WarmStartConfig) -> Tensor | None:
    """The clean images ``(B, C, H, W)`` that noise is added to, or None for a start from pure noise.

    Raises:
        UnsupportedError: see :func:`check_warm_start`.
    """
    check_warm_start(likelihood, config)
    return None if config.start == 1 else reference_reconstruction(likelihood, config.start_from)


def check_warm_start(likelihood: Likelihood, config: WarmStartConfig) -> None:
    """Refuse a start below 1 where there is no quick reconstruction, before any work.

    Raises:
        UnsupportedError: the expected data are not linear in the image, or TV is asked of an operator that is not a ray
            transform.
    """
    if config.start == 1:
        return
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator) or not likelihood.measurement.post_log(likelihood.y):
        raise UnsupportedError(
            "a start below 1 needs data whose mean is linear in the image (a linear operator, post-log data): there is "
            "no quick reconstruction of others; use start=1"
        )
    if config.start_from == "tv" and operator.regularisation_hint(likelihood.y, likelihood.noise_weights) is None:
        raise UnsupportedError(
            f"start_from='tv' needs a CT scan, not {type(operator).__name__}: use start=1, or start_from='fbp', which "
            "is the pseudo-inverse of another operator and is not regularised"
        )
