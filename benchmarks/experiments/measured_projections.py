"""Attenuation of MEASURED projections by ``deft-ct reconstruct --projections``, against references by others.

- *Gel phantom* (72 fan views, Heikkila et al., Zenodo 3696817): frames 1 and 17, against filtered back-projections of
  720 and 1600 views by others, on the same pixels. The regions are the gel (within 10 % of its median in the
  reference, up to 11 mm from the axis), the straws with iodine (more than 15 % above it), and everything up to 12 mm.
  Frame 17 is the one before the scan of its reference, and iodine diffuses.
- *Solid disc* (HTC 2022, 61 fan views over 30 degrees): against the full-view image that the challenge ships, inside
  of the disc.
- *Neutron rods*: pixels that are 40 % denser than the mean of the rods (above Otsu's threshold), which only rings are,
  with and without their removal. There is no reference.

Nothing is tuned or random. Each row is one image (n = 1).

Run: python benchmarks/experiments/measured_projections.py DATA_FOLDER
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from deft_ct.datasets.scan_description import ScanDescription
from deft_ct.evaluation.tables import markdown_table
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.findings import DataWarning
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.measured_discs import SHIPPED_PIXELS, Image, agreement_inside, read_shipped_disc
from deft_ct.workflows.measured_output import MeasuredRun
from deft_ct.workflows.reconstruct_measured import MeasuredSettings, reconstruct_measured

GEL = "gel_phantom_fips/gel_phantom_72views_17frames.nxs"
REFERENCES = {
    1: "gel_phantom_fips/reference_fbp_frame01_720views.nxs",
    17: "gel_phantom_fips/reference_fbp_frame18_1600views.nxs",
}
DISC, SHIPPED = "lpd_solid_disc_subsample73.mat", "htc2022_solid_disc_full_recon_fbp.mat"
RODS = "neutron_rods_sarepy/sinogram_360_neutron_image.tif"
RODS_SCAN = ScanDescription(beam="parallel", arc=360.0, ends=True, counts=47600.0, center="auto")
DISC_PIXELS, DISC_PIXEL_MM = 128, 0.2 * 410.66 / 553.74
IMAGE = "entry1/tomo_entry/data/data"


def reference_image(path: Path) -> tuple[Image, float]:
    """The image of a NeXus file of CIL in 1/mm, and the width of its pixels."""
    file = HDF5File(path, depth=5)
    return file.read(IMAGE, dtype=np.float32), file.number(IMAGE, "voxel_size_x")


def gel_regions(reference: Image, pixel_mm: float) -> dict[str, NDArray[np.bool_]]:
    """Regions of the gel phantom by name, from its reference."""
    rows, columns = reference.shape
    y, x = np.mgrid[:rows, :columns]
    radius = pixel_mm * np.hypot(x - 0.5 * (columns - 1), y - 0.5 * (rows - 1))
    middle = float(np.median(reference[radius < 11]))
    return {
        "gel": (radius < 11) & (np.abs(reference - middle) < 0.1 * middle),
        "iodine": (radius < 11) & (reference > 1.15 * middle),
        "all": radius < 12,
    }


def run(data: Path, name: str, settings: MeasuredSettings) -> MeasuredRun:
    """What the command does, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the run keeps them
        return reconstruct_measured(data / name, Path(folder) / "out", settings)


def gel_rows(data: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Mean attenuation of the regions of the gel phantom."""
    rows = []
    for frame, name in REFERENCES.items():
        reference, pixel = reference_image(data / name)
        regions = gel_regions(reference, pixel)
        side = len(reference)
        for method in methods:
            settings = MeasuredSettings(method=method, chosen=(frame, frame), size=side, fov_mm=side * pixel)
            image = run(data, GEL, settings).mean[0]
            for region, where in regions.items():
                if where.sum() < 50:
                    continue
                ours, theirs = float(image[where].mean()), float(reference[where].mean())
                rows.append({
                    "frame": frame, "method": method, "region": region, "pixels": int(where.sum()), "ours": ours,
                    "reference": theirs, "difference_percent": 100 * (ours / theirs - 1),
                    "correlation": float(np.corrcoef(image.ravel(), reference.ravel())[0, 1]),
                })  # fmt: skip
    return rows


def disc_rows(data: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Agreement with the full-view image of the solid disc, inside of it."""
    pixel = DISC_PIXEL_MM * SHIPPED_PIXELS / DISC_PIXELS
    reference = read_shipped_disc(data / SHIPPED, DISC_PIXELS, pixel)
    rows = []
    for method in methods:
        settings = MeasuredSettings(method=method, size=DISC_PIXELS, fov_mm=DISC_PIXELS * pixel)
        rows.append({"method": method, **agreement_inside(run(data, DISC, settings).mean[0], reference)})
    return rows


def rod_rows(data: Path) -> list[dict[str, Any]]:
    """How many pixels are far denser than the rods."""
    rows = []
    for rings in (False, True):
        image = run(data, RODS, MeasuredSettings(scan=RODS_SCAN, rings=rings, size=251)).mean[0]
        rods = float(image[image > threshold_otsu(image)].mean())
        rows.append({"rings removed": rings, "rods": rods, "denser_pixels": int((image > 1.4 * rods).sum())})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Reconstruct, compare, write."""
    parser = experiment_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with the raw projections")
    parser.add_argument("--method", nargs="+", default=["fbp", "tv"], help="methods of the gel phantom and the disc")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/measured_projections.json"))
    arguments = parser.parse_args(argv)
    gel = gel_rows(arguments.data, arguments.method)
    disc, rods = disc_rows(arguments.data, arguments.method), rod_rows(arguments.data)
    gel_cells = [
        [
            str(r["frame"]), r["method"], r["region"], str(r["pixels"]), f"{r['ours']:.5f}", f"{r['reference']:.5f}",
            f"{r['difference_percent']:+.2f}", f"{r['correlation']:.4f}",
        ]
        for r in gel
    ]  # fmt: skip
    disc_cells = [
        [
            r["method"], f"{r['relative error']:.3f}", f"{r['mean / mean of the reference']:.3f}",
            f"{r['challenge score']:.3f}",
        ]
        for r in disc
    ]  # fmt: skip
    rod_cells = [["yes" if r["rings removed"] else "no", str(r["denser_pixels"])] for r in rods]
    tables = [
        markdown_table(
            ["frame", "method", "region", "pixels", "1/mm", "reference, 1/mm", "difference, %", "correlation"],
            gel_cells,
        ),
        markdown_table(["method", "relative error inside", "mean inside / reference", "score"], disc_cells),
        markdown_table(["rings removed", "pixels denser than the rods"], rod_cells),
    ]
    sys.stdout.write("\n\n".join(tables) + "\n")
    write_text(arguments.json, json.dumps({"gel": gel, "disc": disc, "rods": rods}, indent=1) + "\n")


if __name__ == "__main__":
    main()
