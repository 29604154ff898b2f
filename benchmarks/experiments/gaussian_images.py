"""Every method against the exact posterior mean of photographs' Gaussian, task by task.

A Gaussian is fitted to crops of photographs, and the truths are drawn from it. It is diagonal after a colour and a
cosine transform, so its diffusion prior is exact and cheap, and the posterior mean of every linear measurement is
known. What separates a method from it is therefore the method alone. An exact posterior sample lies 3 dB below the
exact mean.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deft_ct.datasets.images import PhotoCrops
from deft_ct.diffusion import Prior
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
from deft_ct.operators.image.transforms import dct_matrix
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
    "deft",
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
    "colorize": lambda: Colorization(SHAPE, "mean"),
    "compressed": lambda: CompressedSensing(SHAPE, 0.25, _seeded()),
    "motion": lambda: MotionBlur(SHAPE, _seeded(), 15, 0.5),
}
SIGMA = {"denoise": 0.2}
"""Of the noise where it is not :data:`COMMON_SIGMA`."""
COMMON_SIGMA = 0.05


class TransformedGaussian(nn.Module):
    """Exact noise prediction for a Gaussian whose values are independent after a colour and a cosine transform.

    Args:
        mean: ``SHAPE``.
        colours: ``(3, 3)``, orthogonal; its columns are the colour basis.
        variances: ``SHAPE``, of the coefficients.
    """

    mean: Tensor
    colours: Tensor
    variances: Tensor
    cosines: Tensor

    def __init__(self, mean: Tensor, colours: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.schedule = Schedule()
        for name, value in (
            ("mean", mean), ("colours", colours), ("variances", variances), ("cosines", dct_matrix(mean.shape[-1]))
        ):  # fmt: skip
            self.register_buffer(name, value.double())

    def coefficients(self, x: Tensor) -> Tensor:
        """Of centred images ``(B, *SHAPE)``."""
        cosines, colours = self.cosines.to(x), self.colours.to(x)
        return cosines @ torch.einsum("dc,bdhw->bchw", colours, x) @ cosines.T

    def images(self, coefficients: Tensor) -> Tensor:
        """The inverse of :meth:`coefficients`."""
        cosines, colours = self.cosines.to(coefficients), self.colours.to(coefficients)
        return torch.einsum("dc,bchw->bdhw", colours, cosines.T @ coefficients @ cosines)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """``sqrt(1 - a) (a S + 1 - a)^-1 (x - sqrt(a) m)`` at the times ``t`` ``(B,)``."""
        a = self.schedule.alpha_bar(t).to(x)[:, None, None, None]
        scaled = self.coefficients(x - a.sqrt() * self.mean.to(x)) / (a * self.variances.to(x) + 1 - a)
        return (1 - a).sqrt() * self.images(scaled)


@dataclass(frozen=True)
class World:
    """The Gaussian, and the truths drawn from it.

    Attributes:
        network: the exact noise prediction.
        truth: ``(n, *SHAPE)``.
    """

    network: TransformedGaussian
    truth: Tensor

    @classmethod
    def fit(cls, path: Path, count: int, seed: int) -> World:
        """Fit to the parts of the training crops of a file, and their mirror images; then draw truths.

        Of all Gaussians whose covariance the principal colours and the cosine transform make diagonal, it is the one of
        largest likelihood.
        """
        crops = PhotoCrops(path, "train")
        images = torch.stack([crops[n] for n in range(len(crops))]).double()
        parts = images.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).permute(0, 2, 3, 1, 4, 5).reshape(-1, *SHAPE)
        parts = torch.cat([parts, parts.flip(-1)])
        mean = parts.mean(0)
        centred = parts - mean
        _, colours = torch.linalg.eigh(torch.cov(centred.transpose(0, 1).flatten(1), correction=0))
        network = TransformedGaussian(mean, colours, torch.ones(SHAPE))
        network.variances = network.coefficients(centred).square().mean(0) + FLOOR
        normal = torch.randn(count, *SHAPE, generator=_seeded(seed), dtype=torch.float64)
        return cls(network, (mean + network.images(network.variances.sqrt() * normal)).float())

    def prior(self) -> Prior:
        """The exact prior."""
        return Prior(self.network, self.network.schedule, image_shape=SHAPE)

    def posterior_means(self, measurement: Measurement, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` of a linear measurement, exact."""
        unit = torch.eye(self.truth[0].numel(), dtype=torch.float64).reshape(-1, *SHAPE)
        matrix = measurement.operator(unit).flatten(1).T
        cov = self.network.images(self.network.variances * self.network.coefficients(unit)).flatten(1)
        seen, mean = matrix @ cov, self.network.mean.flatten()
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
        f"{head}\n\nFirst row: PSNR (dB) of the exact posterior mean, data range {DATA_RANGE:g}, nothing clipped; "
        f"below it the gap of one answer of each method at its defaults. n = {settings['images']} images of {SIDE} x "
        f"{SIDE} RGB drawn from the Gaussian, noise of standard deviation {COMMON_SIGMA:g} (denoise: "
        f"{SIGMA['denoise']:g}), seed {settings['seed']}. An exact posterior sample has a gap of -3.01.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write the values of every image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file of crops, photos/crops64.h5")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="repeat; default: all")
    parser.add_argument("--method", action="append", help="name[:key=value,...]; repeat. Default: all")
    parser.add_argument("--htransforms", type=Path, help="folder of the h-transforms of deft, one folder for each task")
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
    for task in tasks:
        head = None if arguments.htransforms is None else arguments.htransforms / task
        networks = Networks(prior=world.prior(), htransform=head)
        sigma = SIGMA.get(task, COMMON_SIGMA)
        measurement = Measurement(TASKS[task](), GaussianNoise(sigma))
        y = measurement.simulate(world.truth, seed=arguments.seed)
        found = cells.setdefault(task, {})
        if "exact" not in found:
            found["exact"] = {"psnr_db": score(world.posterior_means(measurement, sigma, y), world.truth)}
        for text in methods:
            if text not in found and not (text.startswith("deft") and head is None):
                method = build_method(networks, text)
                if hasattr(method.config, "batch_size"):  # changes speed and not results
                    method.config = replace(method.config, batch_size=arguments.images)
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
