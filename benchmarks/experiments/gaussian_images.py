"""Every method against the exact posterior mean of photographs' Gaussian, task by task.

A Gaussian is fitted to crops of photographs, and the truths are drawn from it. Its diffusion prior is exact, and so is
the posterior mean of every linear measurement. What separates a method from it is therefore the method alone. An exact
posterior sample lies 3 dB below the exact mean.

Each pair of task and method is stored when it is done, and a run with the same settings continues.

Run: python benchmarks/experiments/gaussian_images.py --data ../shared/data/photos/crops64.h5 \
    --json benchmarks/results/gaussian_images.json
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.datasets.images import PhotoCrops
from deft_ct.diffusion import Prior
from deft_ct.diffusion.gaussian_mixture import GaussianMixture
from deft_ct.diffusion.schedule import Schedule
from deft_ct.evaluation.metrics import psnr
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import Networks
from deft_ct.operators import (
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    GaussianNoise,
    Identity,
    Inpainting,
    LinearOperator,
    MotionBlur,
    SuperResolution,
)
from deft_ct.operators.image.blur_kernels import gaussian_taps
from deft_ct.operators.image.masks import box_mask, random_mask
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.arguments import build_method

SIDE = 32
SHAPE = (3, SIDE, SIDE)
FLOOR = 1e-4
"""Variance that is added to every value of a pixel; the images lie in [-1, 1]."""
DATA_RANGE = 2.0
METHODS = (
    "fbp", "cgls", "sirt", "tikhonov", "tv", "ddrm", "ddnm", "dds", "diffpir", "pigdm", "dps", "daps", "reddiff",
)  # fmt: skip


def _circular_blur() -> LinearOperator:
    taps = gaussian_taps(15, 2.0, truncate=4.0)
    return Blur(SHAPE, taps[:, None] * taps, boundary="circular")


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TASKS: dict[str, Callable[[], LinearOperator]] = {
    "denoise": lambda: Identity(SHAPE),
    "inpaint_random": lambda: Inpainting(SHAPE, random_mask(SHAPE[1:], 0.7, _seeded())),
    "inpaint_box": lambda: Inpainting(SHAPE, box_mask(SHAPE[1:], (16, 16))),
    "sr4": lambda: SuperResolution(SHAPE, 4),
    "sr4_bicubic": lambda: SuperResolution(SHAPE, 4, "bicubic"),
    "blur": lambda: GaussianBlur(SHAPE, 15, 2.0),
    "blur_circular": _circular_blur,
    "motion": lambda: MotionBlur(SHAPE, _seeded(), 15, 0.5),
    "colorize": lambda: Colorization(SHAPE, "mean"),
    "compressed": lambda: CompressedSensing(SHAPE, 0.25, _seeded()),
}
SIGMA = {"denoise": 0.2}
"""Of the noise where it is not :data:`COMMON_SIGMA`."""
COMMON_SIGMA = 0.05


@dataclass(frozen=True)
class World:
    """The Gaussian, and the truths drawn from it.

    Attributes:
        network: the exact noise prediction.
        truth: ``(n, *SHAPE)``.
    """

    network: GaussianMixture
    truth: Tensor

    @classmethod
    def fit(cls, path: Path, count: int, seed: int) -> World:
        """Fit to the quarters of the training crops of a file, and their mirror images; then draw truths."""
        crops = PhotoCrops(path, "train")
        images = torch.stack([crops[n] for n in range(len(crops))])
        quarters = images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).permute(0, 2, 3, 1, 4, 5).reshape(-1, *SHAPE)
        flat = torch.cat([quarters, quarters.flip(-1)]).flatten(1).double()
        cov = torch.cov(flat.T, correction=0) + FLOOR * torch.eye(flat.shape[1]).double()
        network = GaussianMixture(torch.ones(1).double(), flat.mean(0)[None], cov[None], Schedule())
        normal = torch.randn(count, flat.shape[1], generator=_seeded(seed), dtype=torch.float64)
        spread = network.vectors[0].double() * network.values[0].double().clamp_min(0).sqrt()
        truth = flat.mean(0) + normal @ spread.T
        return cls(network, truth.reshape(count, *SHAPE).float())

    def prior(self) -> Prior:
        """The exact prior."""
        return Prior(self.network, self.network.schedule, image_shape=SHAPE)

    def posterior_means(self, measurement: Measurement, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` of a linear measurement, exact."""
        unit = torch.eye(self.truth[0].numel(), dtype=torch.float64).reshape(-1, *SHAPE)
        matrix = measurement.operator(unit).flatten(1).T
        cov, mean = self.network.covs[0].double(), self.network.means[0].double()
        seen = matrix @ cov
        gram = seen @ matrix.T + sigma**2 * torch.eye(len(matrix)).double()
        innovation = y.flatten(1).double() - mean @ matrix.T
        return (mean + torch.linalg.solve(gram, innovation.T).T @ seen).reshape(-1, *SHAPE).float()


def score(images: Tensor, truth: Tensor) -> list[float]:
    """PSNR of each image, nothing clipped."""
    found = psnr(images.double().numpy(), truth.double().numpy(), data_range=DATA_RANGE)
    return [round(float(value), 4) for value in np.ravel(found)]


def run_method(method: Reconstructor, y: Tensor, measurement: Measurement, truth: Tensor, seed: int) -> dict[str, Any]:
    """PSNR of the answer, seconds and evaluations for each image, and what the method warned of."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = method.reconstruct(y, measurement, seed=seed)
        except UnsupportedError as refusal:
            return {"refused": str(refusal)}
        except FloatingPointError as failure:
            return {"failed": str(failure)}
    return {
        "psnr_db": score(result.mean, truth),
        "seconds_per_image": round((time.perf_counter() - began) / len(y), 4),
        "evaluations": result.provenance["network_evaluations_per_image"],
        "sampled": result.samples is not None,
        "warnings": sorted({str(one.message)[:200] for one in caught}),
    }


def markdown(cells: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Exact mean of each task, and the gap of each method to it."""
    tasks = [task for task in settings["tasks"] if task in cells]
    rows = []
    for name in ["exact", *settings["methods"]]:
        row = [name]
        for task in tasks:
            cell = cells[task].get(name)
            if cell is None:
                row.append("")
            elif "psnr_db" not in cell:
                row.append("refused" if "refused" in cell else "diverged")
            else:
                mean = float(np.mean(cell["psnr_db"]))
                exact = float(np.mean(cells[task]["exact"]["psnr_db"]))
                row.append(f"{mean:.2f}" if name == "exact" else f"{mean - exact:+.2f}")
        rows.append(row)
    head = markdown_table(["method", *tasks], rows, align="l" + "r" * len(tasks))
    return (
        f"{head}\n\nFirst row: PSNR (dB) of the exact posterior mean, data range {DATA_RANGE:g}, nothing clipped; below "
        f"it the gap of one answer of each method at its defaults. n = {settings['images']} images of {SIDE} x {SIDE} "
        f"RGB drawn from the Gaussian, noise of standard deviation {COMMON_SIGMA:g} (denoise: {SIGMA['denoise']:g}), "
        f"seed {settings['seed']}. An exact posterior sample has a gap of -3.01.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file of crops, photos/crops64.h5")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="repeat; default: all")
    parser.add_argument(
        "--method", action="append", help="name[:key=value,...]; repeat. Default: all that need no training"
    )
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the values of every image; continued if it is there")
    arguments = parser.parse_args(argv)
    methods, tasks = list(arguments.method or METHODS), list(arguments.task or TASKS)
    world = World.fit(arguments.data, arguments.images, arguments.seed)
    fixed = {
        "data": arguments.data.name, "images": arguments.images, "seed": arguments.seed,
        "prior_sha256": world.prior().content_hash(),
    }  # fmt: skip
    cells: dict[str, dict[str, Any]] = {}
    if arguments.json is not None and arguments.json.is_file():
        stored = json.loads(arguments.json.read_text())
        if {key: stored["settings"].get(key) for key in fixed} != fixed:
            parser.error(f"{arguments.json} holds results of other settings, {stored['settings']}: choose another file")
        cells = stored["cells"]
    settings = fixed | {"tasks": tasks, "methods": methods}
    networks = Networks(prior=world.prior())
    for task in tasks:
        sigma = SIGMA.get(task, COMMON_SIGMA)
        measurement = Measurement(TASKS[task](), GaussianNoise(sigma))
        y = measurement.simulate(world.truth, seed=arguments.seed)
        found = cells.setdefault(task, {})
        if "exact" not in found:
            found["exact"] = {"psnr_db": score(world.posterior_means(measurement, sigma, y), world.truth)}
        for text in methods:
            if text not in found:
                method = build_method(networks, text)
                found[text] = run_method(method, y, measurement, world.truth, arguments.seed)
                outcome = found[text]
                shown = f"{np.mean(outcome['psnr_db']):.2f} dB" if "psnr_db" in outcome else str(outcome)
                print(f"{task}, {text}: {shown}", flush=True)
                if arguments.json is not None:
                    content = {"settings": settings, "cells": cells}
                    write_text(arguments.json, json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(markdown(cells, settings))


if __name__ == "__main__":
    main()
