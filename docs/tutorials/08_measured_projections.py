"""
Measured projections
====================

A scanner gives counts, not line integrals. Here a file of counts becomes an image in Hounsfield units. The file is made
on the spot from a phantom, in the layout of the data exchange format, so that nothing has to be downloaded.
"""

import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np

from deft_ct.ct.calibration import Disc, WaterAndAir
from deft_ct.datasets import Ellipse, EllipsePhantom
from deft_ct.datasets.scan_description import ScanDescription
from deft_ct.operators.ct import ParallelGeometry
from deft_ct.workflows.reconstruct_measured import MeasuredSettings, reconstruct_measured

# %%
# The file
# --------
# A cylinder of water holds a denser insert and an empty hole. The line integrals are exact, because those of an ellipse
# are known in closed form. The rotation axis lies 1.7 mm beside the middle of the detector, as on many real scanners.

water = 0.02  # 1/mm
phantom = EllipsePhantom(
    (
        Ellipse(value=water, center_mm=(3.0, -2.0), half_axes_mm=(22.0, 17.0)),
        Ellipse(value=0.01, center_mm=(-4.0, 6.0), half_axes_mm=(5.0, 3.0)),
        Ellipse(value=-water, center_mm=(12.0, -4.0), half_axes_mm=(4.0, 4.0)),
    )
)
geometry = ParallelGeometry(
    image_shape=(96, 96), pixel_mm=0.6, views=120, detectors=96, detector_mm=0.6, axis_offset_mm=1.7
)
rng = np.random.default_rng(0)
beam = rng.uniform(4e4, 6e4, geometry.detectors)  # photons of each detector element without an object
counts = rng.poisson(beam * np.exp(-phantom.sinogram(geometry)[0].numpy()))
folder = Path(tempfile.mkdtemp())
with h5py.File(folder / "scan.h5", "w") as file:
    file["exchange/data"] = counts[:, None, :]  # (views, slices, detector elements)
    file["exchange/data_white"] = rng.poisson(beam, (10, 1, geometry.detectors))
    file["exchange/data_dark"] = np.zeros((10, 1, geometry.detectors))
    file["exchange/theta"] = np.degrees(geometry.angle_array)

plt.figure(figsize=(6, 2.4))
plt.imshow(counts, cmap="gray", aspect="auto")
plt.xlabel("detector element")
plt.ylabel("view")
plt.title("counts")
plt.tight_layout()

# %%
# Reconstruct it
# --------------
# The file says nothing of the width of an element and of the axis. The first one is given. Without the second one there
# is a warning, and the image is doubled::
#
#     deft-ct reconstruct --projections scan.h5 --geometry scan.yaml --method tv --out wrong
#
# with ``detector_mm: 0.6`` in ``scan.yaml``. From Python:

scan = ScanDescription(detector_mm=0.6)
runs = {"axis in the middle": reconstruct_measured(folder / "scan.h5", folder / "wrong", MeasuredSettings(scan=scan))}

# %%
# ``--raw center=auto`` finds the axis in the data. ``water=0:-8:5`` says that the disc around (0, -8) mm with a radius
# of 5 mm is water, so that the image gets Hounsfield units::
#
#     deft-ct reconstruct --projections scan.h5 --geometry scan.yaml --method tv \
#         --raw center=auto,water=0:-8:5,air=-22:20:2 --out right

calibration = WaterAndAir(water=Disc(0.0, -8.0, 5.0), air=Disc(-22.0, 20.0, 2.0))
for method in ("fbp", "tv"):
    settings = MeasuredSettings(method=method, scan=scan, center="auto", calibration=calibration)
    runs[f"{method}, axis found"] = reconstruct_measured(folder / "scan.h5", folder / method, settings)
print(*runs["tv, axis found"].notes, sep="\n")

# %%
# The insert has 1.5 times the attenuation of water: 500 HU. The hole is air: -1000 HU.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for axis, (title, run) in zip(axes, runs.items(), strict=True):
    axis.imshow(run.mean[0], cmap="gray", vmin=0, vmax=0.035)
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()
tv = runs["tv, axis found"]
assert tv.units is not None
image, width = tv.units.to_hu(tv.mean)[0], tv.geometry.pixel_rc[0]


def mean_at(x: float, y: float) -> float:
    """Mean of 3 x 3 pixels around a place in mm, y up."""
    row, column = round(image.shape[0] / 2 - y / width), round(image.shape[1] / 2 + x / width)
    return float(image[row - 1 : row + 2, column - 1 : column + 2].mean())


print(f"insert {mean_at(-4, 6):.0f} HU, hole {mean_at(12, -4):.0f} HU, water {mean_at(0, -8):.0f} HU")

# %%
# The files
# ---------
# A DICOM series, NIfTI, HDF5, a picture, a report and the record.

print(*sorted(path.name for path in (folder / "tv").iterdir()), sep="\n")
