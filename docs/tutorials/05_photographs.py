"""
Restore a photograph
====================

The same methods restore pictures. A degradation is simulated here and undone; ``measured=True`` takes a picture that is
degraded already.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import skimage

from deft_ct.workflows.restore import RestoreSettings, restore_photograph

# %%
# A picture
# ---------
# A cup of coffee that comes with scikit-image, averaged to 64 x 64 pixels: the size that the shipped prior of
# photographs was trained at. The prior knows mostly landscapes.

folder = Path(tempfile.mkdtemp())
picture = skimage.data.coffee()[:384, 100:484].reshape(64, 6, 64, 6, 3).mean((1, 3)).round().astype("uint8")
skimage.io.imsave(folder / "photo.png", picture, check_contrast=False)

# %%
# Restore it
# ----------
# On the command line: ``deft-ct restore photo.png --operator inpaint_random --method deft --out result``.

results = {}
for method in ("tv", "deft"):
    settings = RestoreSettings(operator="inpaint_random", method=method, seed=0)
    results[method] = restore_photograph(folder / "photo.png", folder / method, settings)
    print(method, {name: round(value, 3) for name, value in results[method].metrics.items()})

# %%
# The files of a result are pictures and a record.

print(sorted(path.name for path in (folder / "deft").iterdir()))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9))
shown = {
    "photograph": folder / "photo.png",
    "degraded": folder / "deft/degraded.png",
    "TV": folder / "tv/restored.png",
    "DEFT": folder / "deft/restored.png",
}
for axis, (title, path) in zip(axes, shown.items(), strict=True):
    axis.imshow(skimage.io.imread(path))
    axis.set_title(title)
    axis.axis("off")
figure.tight_layout()

# %%
# Other degradations
# ------------------
# One h-transform comes with the package for fourteen of them. DEFT is not the best method for each, see
# :doc:`the tables </photographs>`. The numbers are PSNR in dB of this one picture.

tasks = {"sr4": "a quarter of the size", "inpaint_box": "a box is missing", "gaussian_blur": "blurred"}
figure, axes = plt.subplots(len(tasks), 4, figsize=(9, 7))
for row, (task, title) in zip(axes, tasks.items(), strict=True):
    shown = {"photograph": folder / "photo.png", title: folder / f"{task}-deft/degraded.png"}
    for method in ("tv", "deft"):
        settings = RestoreSettings(operator=task, method=method, seed=0)
        found = restore_photograph(folder / "photo.png", folder / f"{task}-{method}", settings)
        shown[f"{method}: {found.metrics['psnr_db']:.1f}"] = folder / f"{task}-{method}/restored.png"
    for axis, (name, path) in zip(row, shown.items(), strict=True):
        axis.imshow(skimage.io.imread(path))
        axis.set_title(name)
        axis.axis("off")
figure.tight_layout()
