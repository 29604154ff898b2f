"""Filtered back-projection beside ODL's with the same filter: where they differ, and why.

ODL samples the ramp in frequency, on the grid of rows padded to ``2 n - 1``, and halfway between the frequencies of
that grid (its Fourier transforms are shifted by default). In space its filter is therefore not the ramp ``h`` but
``h(k) - h(k - L) - h(k + L) + ...`` with ``L = 2 n - 1``. The images of every row reach into the row with the wrong
sign, and add a constant to the image. Ours samples the ramp in space, which has no such constant.

Slices are reconstructed in four ways. The first two are our FBP and ODL's. The third is ODL's back-projection of rows
that our filter has filtered. The fourth is the transpose of our rays, applied to the same rows: it is what ODL
computes. A disc without noise shows the constant, because its attenuation is known.

Run: python benchmarks/experiments/odl_fbp.py --out benchmarks/results
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.evaluation.metrics import psnr
from deft_ct.evaluation.store import write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.operators.ct import ParallelGeometry, RayTransform, fbp
from deft_ct.operators.ct.convert import to_odl
from deft_ct.operators.ct.filters import apply_filter, ramp_response
from deft_ct.problems.ct import CTProblem
from deft_ct.workflows.experiments.arguments import add_data_arguments, experiment_parser
from deft_ct.workflows.experiments.measures import RANGE_HU

OURS, ODL, FILTERED, TRANSPOSE = "ours", "ODL", "our filter, ODL's back-projection", "our filter, transpose of our rays"
DISC_MM, MU = 0.375, 0.02
"""Radius of the disc in widths of the image, and its attenuation in 1/mm."""


def reconstructions(y: Tensor, geometry: ParallelGeometry, filter: str) -> dict[str, NDArray[np.float64]]:
    """``(H, W)`` 1/mm of line integrals ``(views, detectors)``, by each way."""
    tomo: Any = importlib.import_module("odl.applications.tomo")
    space, scan = to_odl(geometry)
    transform = tomo.RayTransform(space, scan, impl="astra_cpu")
    names = {"ram-lak": "Ram-Lak", "hann": "Hann"}
    odl = tomo.fbp_op(transform, filter_type=names[filter], padding=True)(y.float().numpy())
    response = torch.from_numpy(ramp_response(geometry.detectors, geometry.detector_mm, filter, 1.0))
    rows = apply_filter(y.double(), response).float()
    turned = transform.adjoint(rows.numpy())
    # The transpose of a ray sums values times lengths; an integral over the angles is its mean per area.
    area = geometry.pixel_rc[0] * geometry.pixel_rc[1]
    step = np.pi / geometry.sinogram_shape[0] * geometry.detector_mm / area
    summed = RayTransform(geometry).adjoint(rows[None, None]) * step
    return {
        OURS: fbp(y[None, None].float(), geometry, filter)[0, 0].double().numpy(),
        ODL: np.asarray(odl.data, np.float64),
        FILTERED: np.asarray(turned.data, np.float64),
        TRANSPOSE: summed[0, 0].double().numpy(),
    }


def disc_means(geometry: ParallelGeometry) -> dict[str, tuple[float, float]]:
    """Mean inside and outside of a disc without noise, as a share of its attenuation."""
    side = geometry.image_shape[0] * geometry.pixel_rc[0]
    lines = EllipsePhantom.disc(DISC_MM * side, MU).sinogram(geometry)[0]
    y, x = (np.mgrid[: geometry.image_shape[0], : geometry.image_shape[1]] + 0.5) / geometry.image_shape[0] - 0.5
    radius = np.hypot(x, y)
    inside, outside = radius < 0.85 * DISC_MM, (radius > 1.15 * DISC_MM) & (radius < 0.5)
    found = reconstructions(lines, geometry, "ram-lak")
    return {
        name: (float(image[inside].mean() / MU), float(image[outside].mean() / MU)) for name, image in found.items()
    }


def measure(problem: CTProblem, filter: str) -> dict[str, Any]:
    """PSNR of every slice and mean brightness by each way."""
    scale, quality, bright = HounsfieldScale(), {}, {}
    n = 0
    for y, measurement, _ in problem.batches:
        for lines in y:
            found = reconstructions(lines[0], measurement.operator.geometry, filter)  # type: ignore[arg-type]
            for name, image in found.items():
                value = float(psnr(scale.to_hu(image), problem.truth[n], data_range=RANGE_HU)[0])
                quality.setdefault(name, []).append(value)
                bright.setdefault(name, []).append(float(image.mean() / scale.affine(problem.truth[n]).mean()))
            n += 1
    return {"psnr_db": quality, "mean_of_truth": bright}


def markdown(record: Mapping[str, Any]) -> str:
    """The table of slices, and that of the disc."""
    settings, parts = record["settings"], ["# FBP beside ODL"]
    for filter, found in record["filters"].items():
        rows = [
            [name, f"{np.mean(values):.2f}", f"{np.mean(np.subtract(values, found['psnr_db'][OURS])):+.2f}",
             f"{np.mean(found['mean_of_truth'][name]):.4f}"]
            for name, values in found["psnr_db"].items()
        ]  # fmt: skip
        parts.append(markdown_table([filter, "PSNR (dB)", "above ours (dB)", "mean / mean of truth"], rows))
        gap = np.subtract(found["psnr_db"][FILTERED], found["psnr_db"][TRANSPOSE])
        most = np.abs(gap).max()
        parts.append(f"With one filter, ODL and the transpose of our rays differ by at most {most:.3f} dB.")
    rows = [[name, f"{inside:.4f}", f"{outside:+.4f}"] for name, (inside, outside) in record["disc"].items()]
    parts.append(markdown_table(["disc without noise, Ram-Lak", "inside (true: 1)", "outside (true: 0)"], rows))
    parts.append(
        f"{settings['pack']}, every {settings['every']}: n = {settings['slices']} slices, {settings['scan']}, seed "
        f"{settings['seed']}, data range {RANGE_HU:g} HU. Made by `benchmarks/experiments/odl_fbp.py`."
    )
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=21)
    parser.add_argument("--scan", default="parallel1000_4.096e3")
    parser.add_argument("--filters", nargs="+", default=["hann", "ram-lak"], choices=["hann", "ram-lak"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    arguments = parser.parse_args(argv)
    pack = read_pack(arguments.data, arguments.every)
    problem = CTProblem(pack, Scan.from_name(arguments.scan), seed=arguments.seed)
    geometry = problem.batches[0].measurement.operator.geometry  # type: ignore[attr-defined]
    record = {
        "settings": {
            "pack": pack.path.name, "every": arguments.every, "slices": len(pack), "scan": arguments.scan,
            "seed": arguments.seed,
        },
        "filters": {filter: measure(problem, filter) for filter in arguments.filters},
        "disc": disc_means(geometry),
    }  # fmt: skip
    text = markdown(record)
    print(text)
    write_result(arguments.out, "odl_fbp", record, text)


if __name__ == "__main__":
    main()
