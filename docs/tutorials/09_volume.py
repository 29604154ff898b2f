"""
A volume from a cone beam
=========================

A flat detector sees all slices at once, and so do the methods: they reconstruct volumes ``(B, 1, Z, H, W)``. The result
is shown as a slider over its slices.
"""

import matplotlib.animation
import matplotlib.pyplot as plt
import torch

import deft_ct as dc
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.operators.ct import ConeGeometry, RayTransform

# %%
# The scan
# --------
# The object is a head of ellipsoids. Its line integrals are known in closed form, so that no discrete model makes the
# data. There are 24 views and few photons.

size, voxel = 40, 1.8  # voxels along a side, mm
geometry = ConeGeometry.for_image((size, size, size), (voxel, voxel, voxel), views=24)
scan = dc.Measurement(RayTransform(geometry), dc.operators.PoissonNoise(photons=5e3), units=dc.HounsfieldScale())
head = EllipsoidPhantom.head(0.85 * voxel * size)
clean = head.line_integrals(geometry.rays()).float()[None, None]  # (1, 1, views, rows, columns)
y = scan.noise.sample(clean, [torch.Generator().manual_seed(0)])
truth = head.volume((size, size, size), (voxel, voxel, voxel)).float()
print("volume", tuple(truth.shape), "data", tuple(y.shape[2:]))

# %%
# Three methods
# -------------
# Filtered back-projection is FDK here. Total variation couples neighbours in all three directions. Its default strength
# is too weak here: the edges of the phantom do not fit voxels as large as these, so that the data must be trusted less.

volumes = {"truth": dc.HounsfieldScale().to_hu(truth)}
for name, options in (("fbp", {}), ("cgls", {"iterations": 6}), ("tv", {"strength": 700, "iterations": 60})):
    result = dc.load_reconstructor(name, **options).reconstruct(y, scan, seed=0)
    volumes[name] = result.in_units.mean[0, 0]
    error = (volumes[name] - volumes["truth"]).square().mean().sqrt()
    print(f"{name}: {error:.0f} HU root mean square error")

# %%
# Look through it
# ---------------
# Drag the slider, or play it. The window is -400 to 600 HU.

figure, axes = plt.subplots(1, 4, figsize=(10, 3))
shown = []
for axis, (name, volume) in zip(axes, volumes.items(), strict=True):
    shown.append(axis.imshow(volume[size // 2], cmap="gray", vmin=-400, vmax=600, animated=True))
    axis.set_title(name)
    axis.axis("off")
figure.tight_layout()


def show_slice(z: int) -> list[matplotlib.artist.Artist]:
    """One picture of the animation."""
    for image, volume in zip(shown, volumes.values(), strict=True):
        image.set_data(volume[z])
    return list(shown)


animation = matplotlib.animation.FuncAnimation(figure, show_slice, frames=range(9, size - 7), interval=150)

# %%
# Three planes
# ------------
# The same volume from the front and from the side. The slices at the top and the bottom are seen by few rays.

figure, axes = plt.subplots(2, 3, figsize=(8, 5.4))
for row, name in zip(axes, ("truth", "tv"), strict=True):
    middle = size // 2
    planes = (volumes[name][middle], volumes[name][:, middle].flip(0), volumes[name][:, :, middle].flip(0))
    for axis, title, plane in zip(row, ("axial", "coronal", "sagittal"), planes, strict=True):
        axis.imshow(plane, cmap="gray", vmin=-400, vmax=600)
        axis.set_title(f"{name}, {title}")
        axis.axis("off")
figure.tight_layout()

# %%
# Series of slices
# ----------------
# ``deft-ct reconstruct`` works slice by slice, which is right for parallel and fan beams. Its report has the same
# three planes, with mean, spread and error.
