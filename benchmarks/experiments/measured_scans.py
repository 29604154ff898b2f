"""Reconstruct MEASURED sinograms (HTC2022 fan beam, tooth parallel beam) by FBP, least squares and TV; compare, draw.

Nothing is tuned: CGLS stops after 20 iterations; TV has the package's default strength, weights of one over the
variance that neighbouring views show, and 100 iterations. Nothing is random. Run:

    python benchmarks/experiments/measured_scans.py DATA_FOLDER --out docs/images \\
        --json benchmarks/results/measured_scans.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from torch import Tensor

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.datasets.htc2022 import HTCScan, challenge_score, read_htc2022
from deft_ct.methods.classical import cgls, total_variation
from deft_ct.operators.ct import RayTransform, fbp
from deft_ct.operators.ct.geometry import PlanarGeometry

Image = NDArray[np.float32]
METHODS = ("FBP", "least squares", "TV")
SHIPPED_PIXELS = 512
HTC_WHITE = 0.04  # 1/mm; the discs have about 0.033


def noise_variance(y: Tensor) -> Tensor:
    """Variance of the noise of (views, detectors), from second differences over neighbouring views (robust)."""
    second = y[2:] - 2 * y[1:-1] + y[:-2]
    return (second.abs().median() / 0.6745).square() / 6


def reconstruct(y: Tensor, geometry: PlanarGeometry) -> dict[str, Image]:
    """Every method on one sinogram (views, detectors)."""
    op = RayTransform(geometry)
    weights = (1 / noise_variance(y)).expand_as(y)
    images = (
        fbp(y, geometry, "hann"),
        cgls(y, op, iterations=20)[0],
        total_variation(y, op, weights=weights, iterations=100)[0],
    )
    return {name: image.numpy() for name, image in zip(METHODS, images, strict=True)}


def every(scan_y: Tensor, geometry: PlanarGeometry, step: int) -> tuple[Tensor, PlanarGeometry]:
    """Every ``step``-th view."""
    return scan_y[::step], geometry.replace(angles=geometry.angle_array[::step])


def inside(image: Image, reference: Image) -> dict[str, float]:
    """Agreement with a reference inside the object, which Otsu's threshold of the reference marks."""
    body = reference > threshold_otsu(reference)
    a, b = image[body], reference[body]
    return {
        "relative error": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "mean / mean of the reference": float(a.mean() / b.mean()),
        "correlation": float(np.corrcoef(a, b)[0, 1]),
        "challenge score": challenge_score(image > threshold_otsu(image), body),
    }


def unexplained(image: Image, y: Tensor, geometry: PlanarGeometry) -> float:
    """What an image leaves of the measured line integrals, relative to them."""
    return float((RayTransform(geometry)(torch.from_numpy(image)) - y).norm() / y.norm())


def of_htc(path: Path, pixels: int) -> HTCScan:
    """A scan, to be reconstructed on the field of view of the shipped image."""
    fine = read_htc2022(path).geometry.pixel_rc[0]
    return read_htc2022(path, image_shape=(pixels, pixels), pixel_mm=SHIPPED_PIXELS / pixels * fine)


def shipped_disc(path: Path, pixels: int, pixel_mm: float) -> Image:
    """The shipped full-angle FBP (its unit is one over its own pixel) in 1/mm, averaged to the pixels used here."""
    image = np.asarray(scipy.io.loadmat(path)["reconFullFbp"])
    step = SHIPPED_PIXELS // pixels
    averaged = image.reshape(pixels, step, pixels, step).mean((1, 3))
    return (averaged * step / pixel_mm).astype(np.float32)


def main() -> None:
    """Read, reconstruct, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the raw projections")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pixels", type=int, default=128, help="of the fan-beam images, a divisor of 512")
    arguments = parser.parse_args()
    columns: list[tuple[str, dict[str, Image], float]] = []
    figures: dict[str, object] = {}
    references: dict[str, tuple[str, Image, float]] = {}

    for path in sorted(arguments.data.glob("lpd_*.mat")):
        scan = of_htc(path, arguments.pixels)
        y = scan.sinogram[0, 0]
        images = reconstruct(y, scan.geometry)
        degrees = np.degrees(np.ptp(scan.geometry.angle_array))
        name = path.stem.removeprefix("lpd_").split("_subsample")[0].replace("_", " ")
        title = f"{name}, {degrees:.0f} deg, {len(y)} views"
        record: dict[str, object] = {
            method: {"unexplained": unexplained(image, y, scan.geometry)} for method, image in images.items()
        }
        if "solid_disc" in path.stem:
            reference = shipped_disc(
                arguments.data / "htc2022_solid_disc_full_recon_fbp.mat",
                arguments.pixels,
                scan.geometry.pixel_rc[0],
            )
            references[METHODS[0]] = ("solid disc, shipped full-angle FBP", reference, HTC_WHITE)
            for method, image in images.items():
                record[method] = inside(image, reference)
        columns.append((title, images, HTC_WHITE))
        figures[title] = record
        sys.stderr.write(f"{title}: done\n")
        if len(y) > 180:  # the densest scan: keep every 6th view, predict the measured others
            few, geometry = every(y, scan.geometry, 6)
            others = torch.ones(len(y), dtype=torch.bool)
            others[::6] = False
            rest = scan.geometry.replace(angles=scan.geometry.angle_array[others.numpy()])
            figures[f"{name}, {len(few)} of {len(y)} views: the other {len(y) - len(few)}"] = {
                method: {"unexplained": unexplained(image, y[others], rest)}
                for method, image in reconstruct(few, geometry).items()
            }

    tooth = read_data_exchange(arguments.data / "tomopy_tooth.h5", center=296.0, rows=slice(0, 1))
    geometry = tooth.geometry.replace(image_shape=(320, 320), pixel_mm=2.0)
    y = tooth.sinogram[0, 0]
    reference = fbp(y, geometry, "hann").numpy()
    few, sparse = every(y, geometry, 6)
    images = reconstruct(few, sparse)
    bright = float(np.percentile(reference, 99.5))
    title = f"tooth, {len(few)} of {len(y)} views"
    columns.append((title, images, bright))
    references[METHODS[2]] = (f"tooth, FBP of {len(y)} views", reference, bright)
    figures[title] = {method: inside(image, reference) for method, image in images.items()}
    figures["tooth, estimated centre"] = estimate_center(y, tooth.geometry.angle_array)

    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(columns, references, arguments.out / "measured_scans.png")
    text = json.dumps(figures, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.json:
        arguments.json.write_text(text)


def draw(
    columns: list[tuple[str, dict[str, Image], float]], references: dict[str, tuple[str, Image, float]], path: Path
) -> None:
    """A column for each scan, a row for each method; what they are compared with on the right."""
    _, axes = plt.subplots(3, len(columns) + 1, figsize=(2.6 * (len(columns) + 1), 8.2), squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for column, (title, images, bright) in enumerate(columns):
        axes[0, column].set_title(title, fontsize=9)
        for row, method in enumerate(METHODS):
            # FBP gives a wedge of views its share of the whole turn only: its grey scale is its own.
            own = float(np.percentile(images[method], 99.5)) if method == "FBP" else bright
            axes[row, column].imshow(images[method], cmap="gray", vmin=0, vmax=own)
    for row, method in enumerate(METHODS):
        axes[row, 0].set_ylabel(method, fontsize=10)
        if method in references:
            title, image, bright = references[method]
            axes[row, -1].imshow(image, cmap="gray", vmin=0, vmax=bright)
            axes[row, -1].set_title(title, fontsize=9)
    plt.tight_layout()
    plt.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
