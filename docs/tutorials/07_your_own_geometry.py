"""
Your own geometry
=================

A geometry is a value in millimetres and degrees or radians. Here a fan-beam scanner takes a limited arc.
"""

import matplotlib.pyplot as plt
import numpy as np

import deft_ct as dc
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform

# %%
# Two scanners
# ------------
# The object is a slice of the shipped series, averaged to 128 x 128 pixels.

series = dc.io.read_dicom_series(dc.io.sample_series_path()).resampled(4).slices(3, 4)
shape, pixel = series.image_shape, series.pixel_mm
scanners = {
    "parallel, 180 degrees": ParallelGeometry(
        image_shape=shape, pixel_mm=pixel, views=90, detectors=192, detector_mm=pixel
    ),
    "fan, 120 degrees": FanGeometry(
        image_shape=shape,
        pixel_mm=pixel,
        angles=np.deg2rad(np.linspace(0, 120, 60, endpoint=False)),
        detectors=384,
        detector_mm=pixel,
        source_to_center_mm=600.0,
        source_to_detector_mm=1000.0,
    ),
}

# %%
# Scan and reconstruct
# --------------------
# Across the missing angles edges are lost. Total variation brings back some of them.

truth = series.attenuation(nonnegative=True)
figure, axes = plt.subplots(2, 3, figsize=(8, 5.6))
for row, (title, geometry) in zip(axes, scanners.items(), strict=True):
    scan = dc.Measurement(RayTransform(geometry), dc.operators.PoissonNoise(photons=1e5), units=series.units)
    y = scan.simulate(truth, seed=0, refine=2)
    row[0].imshow(y[0, 0], cmap="gray", aspect="auto")
    row[0].set_title(title)
    for axis, name in zip(row[1:], ("fbp", "tv"), strict=True):
        axis.imshow(
            dc.load_reconstructor(name).reconstruct(y, scan).in_units.mean[0, 0], cmap="gray", vmin=-1000, vmax=400
        )
        axis.set_title(name)
for axis in axes.flat:
    axis.axis("off")
figure.tight_layout()

# %%
# Written down
# ------------
# A geometry becomes a plain dictionary and comes back equal. Measured scans are described in YAML by the same words.

fan = scanners["fan, 120 degrees"]
assert dc.operators.ct.geometry_from_dict(fan.to_dict()) == fan
print(sorted(fan.to_dict()))
