"""
Read the spread
===============

DEFT gives a mean and a spread: the standard deviation of its error, as a network predicts it. The network does not know
errors of a kind that it has never seen. Samples are there to look at.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import deft_ct as dc
from deft_ct.problems.ct_null_space import unmeasured_map_hu

series = dc.io.read_dicom_series(dc.io.sample_series_path()).resampled(2).slices(3, 4)
geometry = dc.operators.ct.ParallelGeometry.for_volume(series, views=60)
scan = dc.Measurement(
    dc.operators.ct.RayTransform(geometry), dc.operators.PoissonNoise(photons=1e5), units=series.units
)
y = scan.simulate(series.attenuation(nonnegative=True), seed=0, refine=2)

# %%
# Four samples
# ------------
# ``mean`` and ``std`` need no samples: ``num_samples=0`` gives the same ones in a fraction of the time.

result = dc.load_reconstructor("deft").reconstruct(y, scan, num_samples=4, seed=0)
images = result.in_units  # HU
spread = result.provenance["spread"]
print("calibrated:", spread["calibrated"], "by the", spread["by"])

# %%
# Two samples differ in fine texture. Neither is the patient's: that texture comes from the prior.

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9))
shown = {
    "sample 1": (images.samples[0, 0, 0], -160, 240, "gray"),
    "sample 2": (images.samples[0, 1, 0], -160, 240, "gray"),
    "mean": (images.mean[0, 0], -160, 240, "gray"),
    "spread (HU)": (images.std[0, 0], 0, 150, "magma"),
}
for axis, (title, (image, low, high, colours)) in zip(axes, shown.items(), strict=True):
    axis.imshow(image, cmap=colours, vmin=low, vmax=high)
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()

# %%
# Does the spread know the error?
# -------------------------------
# A calibrated 90 % interval should hold the truth in 90 % of the pixels, on average over the body. On one slice it may
# be more or less.

hu = series.hu[0]
body = hu > -500
error = np.abs(images.mean[0, 0].numpy() - hu)
inside = error < 1.645 * images.std[0, 0].numpy()
print(f"90 % intervals cover {100 * inside[body].mean():.0f} % of the pixels above -500 HU of this slice")

# %%
# And by size of the spread: where the spread is larger, the error should be larger.

edges = np.quantile(images.std[0, 0].numpy()[body], np.linspace(0, 1, 9))
centre, rms = [], []
for low, high in pairwise(edges):
    chosen = body & (images.std[0, 0].numpy() >= low) & (images.std[0, 0].numpy() <= high)
    centre.append(images.std[0, 0].numpy()[chosen].mean())
    rms.append((error[chosen] ** 2).mean() ** 0.5)
plt.figure(figsize=(4, 3.2))
plt.plot(centre, rms, "o-")
plt.plot([0, max(centre)], [0, max(centre)], "k:", label="as large as the spread")
plt.xlabel("spread (HU)")
plt.ylabel("RMS error (HU)")
plt.legend()
plt.tight_layout()

# %%
# What the scan did not measure
# -----------------------------
# The spread is one map. Another one shows the strength of what the data do not see: other content there would explain
# the same data. With 60 views these are sharp edges, of the body and of bones. ``deft-ct reconstruct --unmeasured-map``
# writes this map.

unmeasured = unmeasured_map_hu(result.mean, y, scan)[0, 0]
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
maps = {
    "error of the mean (HU)": (images.mean[0, 0].numpy() - hu, 200),
    "spread (HU)": (images.std[0, 0], 200),
    "not measured (HU)": (unmeasured, 200),
}
for axis, (title, (image, limit)) in zip(axes, maps.items(), strict=True):
    colours, low = ("RdBu_r", -limit) if title.startswith("error") else ("magma", 0)
    axis.imshow(image, cmap=colours, vmin=low, vmax=limit)
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()
