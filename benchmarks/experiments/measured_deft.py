"""DEFT on scans of acrylic discs (HTC2022), compared with FBP and TV.

The discs are far from the human CT that its networks were trained on. Some data are MEASURED wedges of views. For other
arcs there are no measured data; they are simulated from the measured full-view image of the solid disc. Nothing is
tuned. The data are brought into the range of the training:

- *Hounsfield scale.* Acrylic attenuates 0.033/mm in these scans. By the NIST tables that is its value at 33 keV, where
  water has 0.0333/mm. With this water, acrylic is at about 0 HU, like soft tissue, and holes at -1000 HU, like air.
- *Noise.* Photon noise; the number of photons is fitted to the differences of neighbouring views.
- *Detector.* Pairs of elements are averaged, so that neighbouring rays are one pixel apart at the axis.
- *First angle.* Angles count from the first view, which turns the image. One scan keeps its first angle.

Run: python benchmarks/experiments/measured_deft.py DATA_FOLDER
(again to resume: every finished image is kept in WORK)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.trained_range import outside_training
from deft_ct.evaluation.store import content_name
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import load_htransform
from deft_ct.operators.ct import FanGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import atomic_file, write_text
from deft_ct.runtime.content_key import content_digest
from deft_ct.workflows.experiments.arguments import (
    add_network_arguments,
    build_method,
    experiment_parser,
    network_hashes,
    networks_from,
)
from deft_ct.workflows.experiments.measured_discs import (
    SHIPPED_PIXELS,
    Image,
    agreement_inside,
    read_disc_scan,
    read_shipped_disc,
    relative_residual,
)

PIXELS = 256
SCALE = HounsfieldScale(mu_water=0.0333, mu_air=0.0)
METHODS = {
    "FBP": "fbp:filter=hann",
    "TV": "tv",
    "DEFT, direct mean": "deft",
    "DEFT, one sample": "deft:estimate=samples",
}
DISC = "htc2022_solid_disc_full_recon_fbp.mat"
WINDOW_HU = (-1000.0, 300.0)
FLAT_HU = (-200.0, 200.0)
GRAIN_PIXELS = 4.0
"""Standard deviation of the Gaussian that separates grain from trends such as cupping."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A scan to be reconstructed, and what its images are compared with.

    Attributes:
        title: of its column.
        y: (views, detectors) line integrals.
        geometry: of ``y``.
        photons: number of photons whose noise is as strong as the noise of ``y``.
        reference: ``(H, W)`` in 1/mm: the solid disc, turned as ``geometry`` sees it.
        held_out: further data of the same object with their geometry, by name; no method uses them.
    """

    title: str
    y: Tensor
    geometry: FanGeometry
    photons: float
    reference: Image | None = None
    held_out: dict[str, tuple[Tensor, FanGeometry]] = field(default_factory=dict)

    @property
    def measurement(self) -> Measurement:
        return Measurement(RayTransform(self.geometry), PoissonNoise(photons=self.photons), units=SCALE)


def equivalent_photons(y: Tensor) -> float:
    """Photons of an unattenuated ray: a robust estimate from second differences over neighbouring views.

    Photon noise has the variance ``exp(y) / photons``, and a second difference has six times that. Real changes of the
    object from view to view count as noise, so the estimate is somewhat too low.

    Args:
        y: (views, detectors) line integrals.
    """
    second = (y[2:] - 2 * y[1:-1] + y[:-2]) * (-y[1:-1] / 2).exp()
    return float(6 / (second.abs().median() / 0.6745).square())


def read(path: Path) -> tuple[Tensor, FanGeometry]:
    """Line integrals (views, detectors) of a measured scan with averaged pairs of elements, and their geometry."""
    scan = read_disc_scan(path, PIXELS)
    y = scan.sinogram[0, 0]
    geometry = scan.geometry.replace(detectors=scan.geometry.detectors // 2, detector_mm=2 * scan.geometry.detector_mm)
    return y.reshape(len(y), -1, 2).mean(-1), geometry


def turned(geometry: FanGeometry, degrees: float) -> FanGeometry:
    """The scan with all angles reduced by some degrees, which turns the image clockwise by as much."""
    return geometry.replace(angles=geometry.angle_array - np.radians(degrees))


def start_degrees(geometry: FanGeometry) -> float:
    """Angle of the first view."""
    return float(np.degrees(geometry.angle_array[0]))


def some(y: Tensor, geometry: FanGeometry, chosen: np.ndarray[Any, Any]) -> tuple[Tensor, FanGeometry]:
    """The views that a Boolean mask ``(views,)`` selects, and their geometry."""
    return y[torch.from_numpy(chosen)], geometry.replace(angles=geometry.angle_array[chosen])


def wedge_trials(data: Path) -> list[Trial]:
    """The perforated disc over 90 degrees from all, a third and a sixth of the views; a second wedge is held out."""
    y, measured = read(data / "lpd_tb_subsample_90.mat")
    photons, start = equivalent_photons(y), start_degrees(measured)
    far, far_measured = read(data / "lpd_tb_subsample_60.mat")
    geometry = turned(measured, start)
    other_side = {"other side": (far, turned(far_measured, start))}
    trials = []
    for step in (1, 3, 6):
        kept = np.arange(len(y)) % step == 0
        few, sparse = some(y, geometry, kept)
        between = {"views between": some(y, geometry, ~kept)} if step > 1 else {}
        title = f"measured perforated disc, 90 deg, {len(few)} views"
        trials.append(Trial(title=title, y=few, geometry=sparse, photons=photons, held_out=between | other_side))
    title = f"{trials[0].title}, arc from {start:.0f} deg"
    as_measured = {"other side": (far, far_measured)}
    return [*trials, Trial(title=title, y=y, geometry=measured, photons=photons, held_out=as_measured)]


def shipped_solid(data: Path, pixels: int, pixel_mm: float) -> Image:
    """The shipped full-view image of the solid disc in 1/mm; the halo of its FBP outside of the disc is set to zero."""
    image = read_shipped_disc(data / DISC, pixels, pixel_mm)
    return np.where(ndimage.binary_fill_holes(image > threshold_otsu(image)), image, 0).astype(np.float32)


def disc_trials(data: Path, seed: int) -> list[Trial]:
    """The solid disc: its measured wedge, and arcs that are simulated from its image."""
    y, measured = read(data / "lpd_solid_disc_subsample73.mat")
    photons, start = equivalent_photons(y), start_degrees(measured)
    width = measured.pixel_rc[0]
    disc = shipped_solid(data, PIXELS, width)
    wedge = Trial(
        title=f"measured solid disc, {np.degrees(np.ptp(measured.angle_array)):.0f} deg, {len(y)} views",
        y=y, geometry=turned(measured, start), photons=photons,
        reference=ndimage.rotate(disc, -start, reshape=False, order=1),
    )  # fmt: skip
    fine = torch.from_numpy(shipped_solid(data, SHIPPED_PIXELS, width * PIXELS / SHIPPED_PIXELS))[None, None]
    trials = [wedge]
    for views, degrees in ((60, 360), (60, 240), (60, 90)):
        geometry = measured.replace(angles=np.radians(np.arange(views) * degrees / views))
        clean = RayTransform(geometry.refined(SHIPPED_PIXELS // PIXELS))(fine)
        noisy = PoissonNoise(photons=photons).sample(clean, torch.Generator().manual_seed(seed))[0, 0]
        title = f"simulated solid disc, {degrees} deg, {views} views"
        trials.append(Trial(title=title, y=noisy, geometry=geometry, photons=photons, reference=disc))
    return trials


def reconstructed(path: Path, solver: Reconstructor, trial: Trial, measurement: Measurement, seed: int) -> Image:
    """The image of a method in 1/mm; it is read from ``path`` if it is there, and kept there otherwise."""
    if not path.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the record says what is outside of the training range
            result = solver.reconstruct(trial.y[None, None], measurement, seed=seed, image_ids=["disc"])
        with atomic_file(path) as part:
            np.save(part, result.mean[0, 0].numpy())
    found: Image = np.load(path)
    return found


def compare(image: Image, trial: Trial) -> dict[str, float]:
    """Measures of one image in 1/mm."""
    found = {"unexplained": relative_residual(image, trial.y, trial.geometry)}
    found |= {f"unexplained, {name}": relative_residual(image, *rest) for name, rest in trial.held_out.items()}
    if trial.reference is not None:
        found |= agreement_inside(image, trial.reference)
        body = trial.reference > threshold_otsu(trial.reference)
        found["error inside (HU)"] = float(np.sqrt(np.square((image - trial.reference)[body]).mean()) / SCALE.scale)
        # Fine structure in solid acrylic is noise or invented. The filter must not reach the edge of the disc.
        flat = ndimage.binary_erosion(body, iterations=round(4 * GRAIN_PIXELS))
        fine = image - ndimage.gaussian_filter(image, GRAIN_PIXELS)
        found["grain (HU)"] = float(fine[flat].std() / SCALE.scale)
    return found


def noise_share(y: Tensor, photons: float) -> float:
    """Expected :func:`relative_residual` of the true image, which comes from the noise alone."""
    return float((y.exp().sum() / photons).sqrt() / y.norm())


def main(argv: Sequence[str] | None = None) -> None:
    """Reconstruct, compare, draw."""
    parser = experiment_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with the raw projections")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/measured_deft.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/measured_deft"), help="folder of finished images")
    add_network_arguments(parser, precision="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    networks, card = networks_from(arguments), load_htransform(arguments.htransform).card
    solvers: dict[str, Reconstructor] = {name: build_method(networks, text) for name, text in METHODS.items()}
    settings = {
        "pixels": PIXELS, "mu_water_per_mm": SCALE.mu_water, "seed": arguments.seed,
        "precision": arguments.precision, "methods": METHODS, **network_hashes(networks),
    }  # fmt: skip
    figures: dict[str, Any] = {}
    drawn: list[tuple[Trial, dict[str, Image]]] = []
    for trial in [*wedge_trials(arguments.data), *disc_trials(arguments.data, arguments.seed)]:
        measurement = trial.measurement
        images = {}
        for name, solver in solvers.items():
            kept = content_name(
                f"{trial.title} {name}", settings, content_digest([trial.y]), measurement.describe(),
                asdict(solver.config),
            )  # fmt: skip
            images[name] = reconstructed(arguments.work / f"{kept}.npy", solver, trial, measurement, arguments.seed)
        drawn.append((trial, images))
        figures[trial.title] = {
            "photons": round(trial.photons),
            "outside of the training": outside_training(card, measurement),
            "unexplained by noise alone": noise_share(trial.y, trial.photons),
            "methods": {name: compare(image, trial) for name, image in images.items()},
        }  # fmt: skip
        if trial.reference is not None:
            figures[trial.title]["reference"] = compare(trial.reference, trial)
        print(json.dumps({trial.title: figures[trial.title]}, indent=1), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(drawn, arguments.out / "measured_deft.png")
    write_text(arguments.json, json.dumps({"settings": settings, "trials": figures}, indent=1) + "\n")


def draw(drawn: list[tuple[Trial, dict[str, Image]]], path: Path) -> None:
    """Draw a column for each trial and a row for each method; below, the direct mean in a narrow window."""
    rows = [*METHODS, "DEFT, direct mean"]
    _, axes = plt.subplots(len(rows) + 1, len(drawn), figsize=(2.3 * len(drawn), 2.4 * (len(rows) + 1)), squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for column, (trial, images) in enumerate(drawn):
        axes[0, column].set_title(trial.title.replace(", ", "\n", 1), fontsize=8)
        for row, name in enumerate(rows):
            low, high = WINDOW_HU if row < len(METHODS) else FLAT_HU
            axes[row, column].imshow(SCALE.to_hu(images[name]), cmap="gray", vmin=low, vmax=high)
        if trial.reference is not None:
            axes[-1, column].imshow(SCALE.to_hu(trial.reference), cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    narrow = f"direct mean, {FLAT_HU[0]:.0f} to {FLAT_HU[1]:.0f} HU"
    for row, name in enumerate([*METHODS, narrow, "reference"]):
        axes[row, 0].set_ylabel(name, fontsize=9)
    plt.tight_layout()
    plt.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
