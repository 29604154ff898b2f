"""FBP, least squares and TV on MEASURED sinograms: discs of HTC2022 (fan beam) and a tooth (parallel beam).

Nothing is tuned or random. CGLS stops after 20 iterations. TV has the default strength, takes 100 iterations, and
weights the data by one over the noise variance, which is estimated from the differences of neighbouring views.

Run: python benchmarks/experiments/measured_scans.py DATA_FOLDER --out docs/images \\
         --json benchmarks/results/measured_scans.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.methods.classical import StoppingRule, cgls, total_variation
from deft_ct.operators.ct import RayTransform, fbp
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.measured_discs import (
    Image,
    agreement_inside,
    read_disc_scan,
    read_shipped_disc,
    relative_residual,
)

METHODS = ("FBP", "least squares", "TV")
HTC_WHITE = 0.04
"""Attenuation that is shown as white, in 1/mm; the discs have about 0.033."""


def noise_variance(y: Tensor) -> Tensor:
    """Noise variance of ``(views, detectors)`` data, estimated from differences of neighbouring views (robust)."""
    second = y[2:] - 2 * y[1:-1] + y[:-2]
    return (second.abs().median() / 0.6745).square() / 6


def reconstruct(y: Tensor, geometry: PlanarGeometry) -> dict[str, Image]:
    """Images ``(H, W)`` in 1/mm of one sinogram ``(views, detectors)``, by method."""
    op = RayTransform(geometry)
    weights = (1 / noise_variance(y)).expand_as(y)
    images = (
        fbp(y, geometry, "hann"),
        cgls(y, op, stopping=StoppingRule(iterations=20, tolerance=1e-6))[0],
        total_variation(y, op, weights=weights, stopping=StoppingRule(iterations=100))[0],
    )
    return {name: image.numpy() for name, image in zip(METHODS, images, strict=True)}


def every(scan_y: Tensor, geometry: PlanarGeometry, step: int) -> tuple[Tensor, PlanarGeometry]:
    """Every ``step``-th view of ``(views, detectors)`` data, and its geometry."""
    return scan_y[::step], geometry.replace(angles=geometry.angle_array[::step])


def main(argv: Sequence[str] | None = None) -> None:
    """Read, reconstruct, compare, draw."""
    parser = experiment_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with the raw projections")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pixels", type=int, default=128, help="of the fan-beam images, a divisor of 512")
    arguments = parser.parse_args(argv)
    columns: list[tuple[str, dict[str, Image], float]] = []
    figures: dict[str, object] = {}
    references: dict[str, tuple[str, Image, float]] = {}

    for path in sorted(arguments.data.glob("lpd_*.mat")):
        scan = read_disc_scan(path, arguments.pixels)
        y = scan.sinogram[0, 0]
        images = reconstruct(y, scan.geometry)
        degrees = np.degrees(np.ptp(scan.geometry.angle_array))
        name = path.stem.removeprefix("lpd_").split("_subsample")[0].replace("_", " ")
        title = f"{name}, {degrees:.0f} deg, {len(y)} views"
        record: dict[str, object] = {
            method: {"unexplained": relative_residual(image, y, scan.geometry)} for method, image in images.items()
        }
        if "solid_disc" in path.stem:
            reference = read_shipped_disc(
                arguments.data / "htc2022_solid_disc_full_recon_fbp.mat",
                arguments.pixels,
                scan.geometry.pixel_rc[0],
            )
            references[METHODS[0]] = ("solid disc, shipped full-angle FBP", reference, HTC_WHITE)
            for method, image in images.items():
                record[method] = agreement_inside(image, reference)
        columns.append((title, images, HTC_WHITE))
        figures[title] = record
        sys.stderr.write(f"{title}: done\n")
        if len(y) > 180:  # the densest scan: keep every 6th view, predict the measured others
            few, geometry = every(y, scan.geometry, 6)
            others = torch.ones(len(y), dtype=torch.bool)
            others[::6] = False
            rest = scan.geometry.replace(angles=scan.geometry.angle_array[others.numpy()])
            figures[f"{name}, {len(few)} of {len(y)} views: the other {len(y) - len(few)}"] = {
                method: {"unexplained": relative_residual(image, y[others], rest)}
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
    figures[title] = {method: agreement_inside(image, reference) for method, image in images.items()}
    figures["tooth, estimated centre"] = estimate_center(y, tooth.geometry.angle_array)

    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(columns, references, arguments.out / "measured_scans.png")
    text = json.dumps(figures, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.json:
        write_text(arguments.json, text)


def draw(
    columns: list[tuple[str, dict[str, Image], float]], references: dict[str, tuple[str, Image, float]], path: Path
) -> None:
    """Draw a column for each scan and a row for each method; the last column holds the references."""
    _, axes = plt.subplots(3, len(columns) + 1, figsize=(2.6 * (len(columns) + 1), 8.2), squeeze=False)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for column, (title, images, bright) in enumerate(columns):
        axes[0, column].set_title(title, fontsize=9)
        for row, method in enumerate(METHODS):
            # FBP of a wedge of views has too low values, so it gets a grey scale of its own.
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
