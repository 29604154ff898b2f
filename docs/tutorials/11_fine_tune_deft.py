"""
Fine-tune DEFT on your own data
===============================

The prior stays frozen. What is fitted is the small network next to it, the h-transform. A few steps on one series show
how it is done; a useful fit takes hundreds of steps and many patients.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import deft_ct as dc
from deft_ct.ct.scan import Scan
from deft_ct.methods.deft import save_htransform
from deft_ct.training import TrainingConfig
from deft_ct.workflows.finetune import FinetuneSettings, finetune
from deft_ct.workflows.training_setup import FolderSource

# %%
# Your slices
# -----------
# The folder holds CT slices: DICOM, NIfTI or HDF5, in any sub-folders. Here it is the shipped series.

series = dc.io.sample_series_path()
source = FolderSource(data=str(series))

# %%
# Fit it
# ------
# On the command line::
#
#     deft-ct finetune --data FOLDER --one-scan --scan parallel20_1e5 --steps 400 --out OUT
#
# It starts from the shipped h-transform. First its refinement network is trained, then the h-transform network. The
# same command resumes. Here both take 4 steps of 2 slices. ``any_scan=False`` fits it to one scan alone.

training = TrainingConfig(steps=4, batch_size=2, learning_rate=2e-4, warmup=2, ema_decay=0.8)
settings = FinetuneSettings(
    training=training,
    scans=(Scan.from_name("parallel20_1e5"),),
    any_scan=False,
    refinement_steps=4,
    refinement_rate=2e-4,
)
folder = Path(tempfile.mkdtemp())
fitted = finetune(source, folder, settings, log=print)
assert fitted is not None  # None: a time limit came first
save_htransform(fitted, folder / "htransform")
print(*sorted(path.name for path in (folder / "htransform").iterdir()), sep="\n")

# %%
# The card beside the weights says what they were made from.

print({name: fitted.card[name] for name in ("training_steps", "refinement_steps", "data")})

# %%
# Use it
# ------
# On the command line: ``deft-ct reconstruct SERIES_FOLDER --htransform OUT/htransform --views 20 --out RESULT``. This
# slice is one of the training, so that the comparison says nothing about quality: judge a fit on other patients, with
# ``deft-ct compare``.

slice_hu = dc.io.read_dicom_series(series).resampled(2).slices(3, 4)
scan = Scan.from_name("parallel20_1e5").measurement(slice_hu.image_shape, slice_hu.pixel_mm)
y = scan.simulate(slice_hu.attenuation(nonnegative=True), seed=0, refine=2)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
images = {"truth": slice_hu.hu[0]}
for name, htransform in (("shipped", None), ("fine-tuned", folder / "htransform")):
    method = dc.load_reconstructor("deft", htransform=htransform)
    images[name] = method.reconstruct(y, scan, seed=0).in_units.mean[0, 0].numpy()
for axis, (name, image) in zip(axes, images.items(), strict=True):
    error = ((image - images["truth"]) ** 2).mean() ** 0.5
    axis.imshow(image, cmap="gray", vmin=-1000, vmax=400)
    axis.set_title(name if name == "truth" else f"{name}: {error:.0f} HU")
    axis.axis("off")
figure.tight_layout()
