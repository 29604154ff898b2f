"""
First reconstruction
====================

One slice of the shipped CT series is scanned from 60 views and reconstructed by filtered back-projection (FBP), total
variation (TV) and DEFT.
"""

import matplotlib.pyplot as plt

import deft_ct as dc

# %%
# The series and the scan
# -----------------------
# The package holds a small series of LIDC-IDRI. ``resampled(2)`` averages 512 x 512 pixels to 256 x 256, the size that
# the shipped networks were trained at. ``slices`` takes one slice of it.

series = dc.io.read_dicom_series(dc.io.sample_series_path()).resampled(2).slices(3, 4)
geometry = dc.operators.ct.ParallelGeometry.for_volume(series, views=60)
scan = dc.Measurement(
    dc.operators.ct.RayTransform(geometry), dc.operators.PoissonNoise(photons=1e5), units=series.units
)
print(len(series), "slice,", series.image_shape, "pixels of", round(series.pixel_mm, 2), "mm")

# %%
# The scan is simulated on a grid twice as fine as the images that are reconstructed. Otherwise the methods would use
# the very model that made the data.

truth = series.attenuation(nonnegative=True)  # (1, 1, 256, 256) in 1/mm
y = scan.simulate(truth, seed=0, refine=2)  # (1, 1, views, detectors), line integrals
plt.figure(figsize=(6, 2.4))
plt.imshow(y[0, 0], cmap="gray", aspect="auto")
plt.xlabel("detector element")
plt.ylabel("view")
plt.tight_layout()

# %%
# Three methods
# -------------
# Every method has the same call. Names and options are those of the command line.

results = {name: dc.load_reconstructor(name).reconstruct(y, scan, seed=0) for name in ("fbp", "tv", "deft")}

# %%
# ``in_units`` gives HU. The root mean square error is over the whole slice.

hu = series.hu[0]
images = {"truth": hu} | {name: result.in_units.mean[0, 0].numpy() for name, result in results.items()}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9))
for axis, (name, image) in zip(axes, images.items(), strict=True):
    error = ((image - hu) ** 2).mean() ** 0.5
    axis.imshow(image, cmap="gray", vmin=-1000, vmax=400)
    axis.set_title(name if name == "truth" else f"{name}: {error:.0f} HU")
    axis.axis("off")
figure.tight_layout()

# %%
# The record
# ----------
# A result carries what it was made with: method, configuration, seed, versions, cost, and how much of the data it
# leaves unexplained.

record = results["deft"].provenance
for key in ("method", "seed", "network_evaluations_per_image", "data_residual"):
    print(key, "=", record[key])
