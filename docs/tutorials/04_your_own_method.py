"""
Write your own method
=====================

A method is a class with a name, a frozen dataclass as configuration, and one function. Registered, it is in every list:
``deft_ct.methods()``, the command line and the benchmarks.
"""

from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import torch

import deft_ct as dc
from deft_ct.operators import GaussianNoise, Inpainting, random_mask
from deft_ct.reconstruction import Estimate, Request

# %%
# The method
# ----------
# Landweber's iteration: steps along the adjoint of the residual.


@dataclass(frozen=True, kw_only=True)
class LandweberConfig:
    """Settings: number of steps, and their size as a share of the largest that converges."""

    steps: int = 50
    relaxation: float = 0.9


@dc.register
class Landweber(dc.Reconstructor):
    """Landweber's iteration."""

    name: ClassVar[str] = "landweber"
    config_type: ClassVar[type] = LandweberConfig

    def _estimate(self, request: Request) -> Estimate:
        operator, config = request.measurement.operator, self.config
        size = config.relaxation / operator.norm() ** 2
        x = operator.adjoint(request.y) * size
        for _ in range(config.steps):
            x = x + size * operator.adjoint(request.y - operator(x))
        return Estimate(mean=x)


print([name for name in dc.methods() if name.startswith("l")])

# %%
# Use it
# ------
# Half of the pixels of an image are missing. Landweber's iteration leaves them at zero, total variation fills them.

axis = torch.linspace(-3, 3, 32)
image = torch.sin(axis[:, None]) * torch.cos(axis[None, :])
mask = random_mask((32, 32), 0.5, torch.Generator().manual_seed(0))
scan = dc.Measurement(Inpainting((1, 32, 32), mask), GaussianNoise(0.05))
y = scan.simulate(image[None, None], seed=0)
figure, axes = plt.subplots(1, 3, figsize=(7, 2.6))
shown = {"truth": image} | {
    name: dc.load_reconstructor(name).reconstruct(y, scan).mean[0, 0] for name in ("landweber", "tv")
}
for axes_of_one, (title, picture) in zip(axes, shown.items(), strict=True):
    axes_of_one.imshow(picture, cmap="gray", vmin=-1, vmax=1)
    axes_of_one.set_title(title)
    axes_of_one.axis("off")
figure.tight_layout()
