"""
Write your own operator
=======================

An operator has two kernels. Derivatives of any order, sums, products and stacks come with the base class. Every method
can use it at once.
"""

import matplotlib.pyplot as plt
import torch

import deft_ct as dc
from deft_ct.operators import GaussianNoise, LinearOperator
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

# %%
# The operator
# ------------
# This one sums along the columns and along the rows: a scan from two sides only.


class TwoSides(LinearOperator):
    """Sums over columns and over rows, ``(1, H, W) -> (1, H + W)``."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        channels, height, width = image_shape
        super().__init__(image_shape, (channels, height + width))

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.sum(-1), x.sum(-2)], dim=-1)

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        height = self.domain_shape[-2]
        return y[..., :height, None] + y[..., None, height:]


# %%
# The checks
# ----------
# ``deft_ct.testing`` has the checks that the operators of the package pass. Each raises if an error is too large.

operator = TwoSides((1, 16, 16))
print("adjoint:", assert_adjoint(operator))
print("linear:", assert_linear(operator))
assert_batch_invariant(operator)
assert_gradients(TwoSides((1, 4, 4)))

# %%
# A method
# --------
# Two shadows of a disc do not determine it. Least squares and total variation fill in different images.

grid = torch.linspace(-1, 1, 16)
disc = ((grid[:, None] ** 2 + (grid[None, :] - 0.2) ** 2) < 0.3).float()[None, None]
scan = dc.Measurement(operator, GaussianNoise(0.05))
y = scan.simulate(disc, seed=0)

figure, axes = plt.subplots(1, 3, figsize=(7, 2.6))
axes[0].imshow(disc[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0].set_title("truth")
for axis, name in zip(axes[1:], ("cgls", "tv"), strict=True):
    axis.imshow(dc.load_reconstructor(name).reconstruct(y, scan).mean[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
for axis in axes:
    axis.axis("off")
figure.tight_layout()

# %%
# Operators combine
# -----------------
# ``A | B`` measures with both, ``2 * A`` scales, ``A @ B`` applies B first.

both = operator | 0.5 * operator  # the second measurement has half the signal
print(both.domain_shape, "->", both.range_shape, "adjoint:", assert_adjoint(both))
