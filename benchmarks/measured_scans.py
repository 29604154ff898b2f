"""Reconstruct measured sinograms (HTC2022 fan beam, tooth parallel beam) by FBP and draw them.

Run: python benchmarks/measured_scans.py DATA_FOLDER --out docs/images
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

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.datasets.htc2022 import HTCScan, read_htc2022
from deft_ct.operators.ct import RayTransform, fbp


def projection_mismatch(scan: HTCScan, image: NDArray[np.floating]) -> dict[str, float]:
    """Project an image along the rays of a measured scan: the best factor, and what remains, relative to the data."""
    projected = RayTransform(scan.geometry)(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)))
    measured = scan.sinogram[0, 0]
    factor = float((projected * measured).sum() / (projected**2).sum())
    return {"factor": factor, "remainder": float((factor * projected - measured).norm() / measured.norm())}


def main() -> None:
    """Read, reconstruct, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the raw projections")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    panels: list[tuple[str, NDArray[np.floating]]] = []
    figures: dict[str, object] = {}
    reference = np.asarray(scipy.io.loadmat(arguments.data / "htc2022_solid_disc_full_recon_fbp.mat")["reconFullFbp"])
    for path in sorted(arguments.data.glob("lpd_*.mat")):
        scan = read_htc2022(path)
        image = fbp(scan.sinogram, scan.geometry, "hann")[0, 0].numpy()
        panels.append((f"{path.stem}, {len(scan.geometry.angle_array)} views, FBP", image))
        if "solid_disc" in path.stem:
            figures[path.stem] = {
                "shipped full-angle FBP, projected": projection_mismatch(scan, reference),
                "the same, mirrored": projection_mismatch(scan, reference[:, ::-1]),
                "1 / pixel size (their unit is one pixel)": 1 / scan.geometry.pixel_rc[0],
            }
    panels.append(("solid disc, shipped full-angle FBP", reference))
    scan = read_data_exchange(arguments.data / "tomopy_tooth.h5", center=296.0)
    angles = scan.geometry.angle_array
    figures["tooth"] = {"estimated centre": estimate_center(scan.sinogram[0, 0], angles)}
    panels.append(("tooth, 181 views, FBP", fbp(scan.sinogram, scan.geometry, "hann")[0, 0].numpy()))
    columns = 4
    _, axes = plt.subplots(2, columns, figsize=(4 * columns, 8.4), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (title, image) in zip(axes.ravel(), panels, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=float(np.percentile(image, 99.5)))
        axis.set_title(title, fontsize=10)
    plt.tight_layout()
    plt.savefig(arguments.out / "measured_scans.png", dpi=60)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
