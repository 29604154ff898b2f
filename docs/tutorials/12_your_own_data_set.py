"""
Write your own data set
=======================

A data set is a list of slices in HU. Whatever yields them can be scanned, reconstructed and judged like the data sets
of the package.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import skimage.io
import torch

from deft_ct.ct.scan import Scan
from deft_ct.datasets import CTSlice, Ellipse, EllipsePhantom
from deft_ct.datasets.slices import SliceStack, chosen
from deft_ct.evaluation.statistics import mean_interval
from deft_ct.methods.registry import load_reconstructor
from deft_ct.problems.ct import CTProblem

# %%
# Files of your own
# -----------------
# An archive has 16-bit pictures, and a text file that says what their values mean. No reader of the package knows this
# layout. Here the pictures are phantoms of 64 x 64 pixels.

archive = Path(tempfile.mkdtemp())
about = {"offset_hu": -1024, "pixel_mm": 5.0, "slice_mm": 3.0}
(archive / "about.json").write_text(json.dumps(about))
for patient in range(3):
    for number in range(2):
        generator = torch.Generator().manual_seed(10 * patient + number)
        organs = EllipsePhantom.random(generator, 200.0, count=5, max_value=0.008).ellipses
        body = Ellipse(value=0.02, center_mm=(0.0, 0.0), half_axes_mm=(130.0, 100.0))
        attenuation = EllipsePhantom((body, *organs)).image((64, 64), 5.0).clamp_min(0)
        hu = 1000 * (attenuation[0].numpy() / 0.02 - 1)
        picture = np.clip(hu + 1024, 0, 4095).astype(np.uint16)
        skimage.io.imsave(archive / f"patient{patient}_{number}.png", picture, check_contrast=False)

# %%
# The reader
# ----------
# It gives a ``SliceStack``: every slice with the patient that it is of. The name of a series and the number of a slice
# are the seeds of its simulated noise, so that a slice has the same data in every benchmark. ``every`` and ``limit``
# choose slices for short runs.


def picture_archive(folder: Path, *, every: int = 1, limit: int | None = None) -> SliceStack:
    """The slices of a folder of 16-bit pictures."""
    about = json.loads((folder / "about.json").read_text())
    files = sorted(folder.glob("patient*.png"))
    patients = [path.stem.partition("_")[0] for path in files]
    items = []
    for position in chosen(patients, every, limit):
        index = int(files[position].stem.partition("_")[2])
        hu = torch.from_numpy(skimage.io.imread(files[position]).astype(np.float32) + about["offset_hu"])
        one = CTSlice(
            hu=hu[None],
            pixel_mm=about["pixel_mm"],
            group=patients[position],
            index=index,
            position=position,
            z_mm=index * about["slice_mm"],
        )
        items.append((one, patients[position]))
    return SliceStack(folder.name, items, every=every, limit=limit)


slices = picture_archive(archive)
print(len(slices), "slices of", sorted(set(slices.patients)), "with", slices.image_shape, "pixels")

# %%
# Judge methods on it
# -------------------
# A problem is data, a scan and metrics. It simulates the data of each slice on a finer grid.

problem = CTProblem(slices, Scan.from_name("parallel30_1e5"))
for name in ("fbp", "cgls", "tv"):
    method = load_reconstructor(name)
    images = [method.reconstruct(batch.y, batch.measurement, seed=0).in_units.mean for batch in problem.batches]
    values = problem.measure(torch.cat(images)[:, 0].numpy())
    psnr = mean_interval(values["psnr"])
    print(f"{name}: {psnr.mean:.2f} dB [{psnr.low:.2f}, {psnr.high:.2f}], n = {psnr.n} slices")

# %%
# In the package
# --------------
# To give it a name for ``--data``, put the reader into ``datasets/`` and add a kind to ``KINDS`` in
# ``deft_ct/problems/by_name.py``. Without that, write your slices once as HDF5: a path to such a file, or to a folder
# of DICOM or NIfTI, is a name already (``--data folder:PATH``).
