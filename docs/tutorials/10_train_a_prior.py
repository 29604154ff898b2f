"""
Train a prior on your own data
==============================

A prior is a diffusion model of images, without any scan. This one is trained for seconds on phantoms of 32 x 32 pixels.
It shows the steps; a useful prior needs thousands of real slices and hours.
"""

import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import torch

import deft_ct as dc
from deft_ct.ct.scan import Scan
from deft_ct.datasets import Ellipse, EllipsePhantom
from deft_ct.diffusion import save_prior
from deft_ct.training import TrainingConfig
from deft_ct.workflows.train_priors import PriorRecipe, image_domain, prior_on_images

# %%
# Your data
# ---------
# A folder with DICOM series, NIfTI volumes or HDF5 files will do. Here it is one HDF5 file: a group for each series,
# with CT numbers ``hu`` as int16 and the width of a pixel. The series are random bodies of water with random organs.

pixel_mm = 10.0


def body(generator: torch.Generator) -> torch.Tensor:
    """One slice in HU, (1, 32, 32)."""
    wide, high = (float(100 + 40 * torch.rand((), generator=generator)) for _ in range(2))
    water = Ellipse(value=0.02, center_mm=(0.0, 0.0), half_axes_mm=(wide, high))
    organs = EllipsePhantom.random(generator, 1.2 * min(wide, high), count=4, max_value=0.01).ellipses
    image = EllipsePhantom((water, *organs)).image((32, 32), pixel_mm).clamp_min(0)
    return dc.HounsfieldScale().to_hu(image)


generator = torch.Generator().manual_seed(0)
slices = torch.cat([body(generator) for _ in range(200)]).numpy()
folder = Path(tempfile.mkdtemp())
with h5py.File(folder / "slices.h5", "w") as file:
    for number in range(10):
        group = file.create_group(f"series{number}")
        group["hu"] = np.rint(slices[20 * number : 20 * (number + 1)]).astype(np.int16)
        group["z_mm"] = 5.0 * np.arange(20)
        group.attrs["pixel_mm"] = pixel_mm

# %%
# Train it
# --------
# On the command line::
#
#     deft-ct train prior --data slices.h5 --channels 32,64 --patch 2 --steps 240 --batch-size 12 --warmup 20 \
#         --learning-rate 2e-3 --ema-decay 0.98 --out runs
#
# The same command resumes a training that was interrupted. From Python:

training = TrainingConfig(steps=240, batch_size=12, warmup=20, learning_rate=2e-3, ema_decay=0.98)
recipe = PriorRecipe(channels="32,64", patch=2)
prior = prior_on_images(image_domain(str(folder / "slices.h5")), folder / "runs", recipe, training)
save_prior(prior, folder / "prior")
print(*sorted(path.name for path in (folder / "prior").iterdir()), sep="\n")

# %%
# The loss is in ``log.csv``.

log = np.genfromtxt(folder / "runs/log.csv", delimiter=",", names=True)
plt.figure(figsize=(4, 2.6))
plt.plot(log["step"], log["loss"])
plt.xlabel("step")
plt.ylabel("loss")
plt.tight_layout()

# %%
# Draw from it
# ------------
# The method ``unconditional`` does not look at the data. Its samples show what the prior believes in.

scan = Scan.from_name("parallel8_1e5").measurement((32, 32), pixel_mm)
truth = body(torch.Generator().manual_seed(1))  # not among the slices of the training
y = scan.simulate(dc.HounsfieldScale().to_attenuation(truth)[None], seed=0, refine=2)
alone = dc.load_reconstructor("unconditional", prior=folder / "prior", steps=50)
samples = alone.reconstruct(y, scan, num_samples=4, seed=0).in_units.samples
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, image in zip(axes, samples[0, :, 0], strict=True):
    axis.imshow(image, cmap="gray", vmin=-1000, vmax=500)
    axis.axis("off")
figure.tight_layout()

# %%
# Use it
# ------
# Every diffusion method takes the prior. On the command line it is ``--prior``. The data are 8 views. Total
# variation is made for images of a few flat regions, as these are: a prior that was trained for seconds does not beat
# it here.

methods = {"fbp": {}, "tv": {}, "diffpir": {"prior": prior, "steps": 50}}
images = {"truth": truth[0]}
for name, options in methods.items():
    images[name] = dc.load_reconstructor(name, **options).reconstruct(y, scan, seed=0).in_units.mean[0, 0]
figure, axes = plt.subplots(1, 4, figsize=(8, 2.4))
for axis, (name, image) in zip(axes, images.items(), strict=True):
    error = (image - truth[0]).square().mean().sqrt()
    axis.imshow(image, cmap="gray", vmin=-1000, vmax=500)
    axis.set_title(name if name == "truth" else f"{name}: {error:.0f} HU")
    axis.axis("off")
figure.tight_layout()
