"""Eight small problems of three kinds of image, and every method with tiny networks of random weights for them."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny import NETWORK, tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from tiny_backbones import SMALL_BACKBONE
from torch import Tensor, nn

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import Networks, method_class, methods
from deft_ct.methods.supervised import (
    AmortisedModel,
    AmortisedShape,
    ConditionalShape,
    FBPUNetShape,
    I2SBShape,
    PrimalDualShape,
    TrainedModel,
)
from deft_ct.methods.supervised.conditional import ConditionalModel
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel
from deft_ct.methods.supervised.i2sb import I2SBModel
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.networks import PointNetworkConfig, UNet, UNetConfig
from deft_ct.operators import HDR, GaussianNoise, Inpainting, PhaseRetrieval, Selection, SuperResolution
from deft_ct.operators.ct import FanGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.reconstructor import Reconstructor, UnsupportedError

COUNT = 3
RGB = (3, 32, 32)
POINTS = (12, 3)
POINT_NETWORK = PointNetworkConfig(width=16, layers=1)
FEW = {
    "steps": 3, "ode_steps": 2, "langevin_steps": 5, "cg_iterations": 3, "iterations": 4, "paths": 2, "channels": 32,
    "batch_size": 2,
}  # fmt: skip
MODELS = {
    "fbp_unet": (FBPUNetModel, FBPUNetShape(network=NETWORK)),
    "learned_primal_dual": (PrimalDualModel, PrimalDualShape(iterations=2, channels=8, memory=3)),
    "conditional": (ConditionalModel, ConditionalShape(network=NETWORK)),
    "i2sb": (I2SBModel, I2SBShape(network=NETWORK)),
    "amortised": (AmortisedModel, AmortisedShape(network=SMALL_BACKBONE)),
}


def rgb_prior() -> Prior:
    torch.manual_seed(0)
    network = UNet(UNetConfig(**NETWORK.to_dict() | {"in_channels": 3, "out_channels": 3}))
    return Prior(network, Schedule(), prediction="v_prediction", image_shape=(3, 32, 32))


def point_prior() -> Prior:
    torch.manual_seed(0)
    return Prior(POINT_NETWORK.build(), Schedule(), prediction="v_prediction", image_shape=POINTS)


def photographs(count: int) -> Tensor:
    """Smooth colours in [-0.8, 0.8]."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 1.6 - 0.8
    return nn.functional.interpolate(coarse, size=RGB[1:], mode="bilinear")


def points(count: int) -> Tensor:
    return torch.randn(count, *POINTS, generator=torch.Generator().manual_seed(3))


def _fan() -> Measurement:
    geometry = FanGeometry(
        image_shape=(32, 32), pixel_mm=8.0, views=12, detectors=48, detector_mm=16.0, source_to_center_mm=600.0,
        source_to_detector_mm=1200.0,
    )  # fmt: skip
    return Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())


@dataclass(frozen=True)
class Problem:
    """A measurement of :data:`COUNT` images, the first images, and a prior for them."""

    measurement: Callable[[], Measurement]
    images: Callable[[int], Tensor]
    prior: Callable[[], Prior]


def _mask(*batch: int) -> Tensor:
    return (torch.rand(*batch, 1, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.3).float()


PROBLEMS = {
    "CT parallel": Problem(tiny_scan, tiny_slices, tiny_prior),
    "CT fan": Problem(_fan, tiny_slices, tiny_prior),
    "inpainting": Problem(lambda: Measurement(Inpainting(RGB, _mask()), GaussianNoise(0.05)), photographs, rgb_prior),
    "inpainting, a mask for each image": Problem(
        lambda: Measurement(Inpainting(RGB, _mask(COUNT)), GaussianNoise(0.05)), photographs, rgb_prior
    ),
    "super-resolution": Problem(
        lambda: Measurement(SuperResolution(RGB, 4), GaussianNoise(0.05)), photographs, rgb_prior
    ),
    "HDR": Problem(lambda: Measurement(HDR(RGB), GaussianNoise(0.05)), photographs, rgb_prior),
    "phase retrieval": Problem(lambda: Measurement(PhaseRetrieval(RGB), GaussianNoise(0.05)), photographs, rgb_prior),
    "points": Problem(
        lambda: Measurement(Selection(POINTS[0], [0, 2, 3, 7, 9]), GaussianNoise(0.05)), points, point_prior
    ),
}


def tiny_model(name: str) -> TrainedModel:
    torch.manual_seed(3)
    model_type, shape = MODELS[name]
    return model_type(shape)


def build(name: str, problem: Problem) -> Reconstructor:
    """A method with tiny networks for a problem."""
    prior = problem.prior()
    network = NETWORK if prior.is_image else POINT_NETWORK
    head = tiny_htransform(prior, reference="none", guidance="score", channels=prior.channels, network=network)
    networks = Networks(
        prior=prior,
        htransform=head if name == "deft" else None,
        models={name: tiny_model(name)} if name in MODELS else {},
    )
    known = {field.name for field in dataclasses.fields(method_class(name).config_type)}
    return networks.build(name, {key: value for key, value in FEW.items() if key in known})


def outcome(name: str, problem_name: str) -> str:
    """``"ok"``, or the sentence of the refusal."""
    problem = PROBLEMS[problem_name]
    measurement = problem.measurement()[:1]
    y = measurement.simulate(problem.images(1), seed=4)
    try:
        build(name, problem).reconstruct(y, measurement)
    except UnsupportedError as refusal:
        return str(refusal)
    return "ok"


def outcomes() -> str:
    """The table of all outcomes in Markdown: ok, or a number that stands for the reason below."""
    reasons: dict[str, int] = {}
    rows = []
    for name in methods():
        cells = [outcome(name, problem) for problem in PROBLEMS]
        marks = ["ok" if cell == "ok" else str(reasons.setdefault(cell, len(reasons) + 1)) for cell in cells]
        rows.append([name, *marks])
    table = markdown_table(["method", *PROBLEMS], rows, align="l" * (len(PROBLEMS) + 1))
    return "\n".join([table, "", *(f"{number}. {reason}" for reason, number in reasons.items())]) + "\n"


def documented(text: str) -> dict[tuple[str, str], str]:
    """The outcome of each method and problem in a table of :func:`outcomes`."""
    lines = text.splitlines()
    reasons = dict(line.split(". ", 1) for line in lines if line[:1].isdigit())
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|"))
    return {
        (row[0], problem): reasons.get(mark, mark)
        for row in rows
        for problem, mark in zip(head[1:], row[1:], strict=True)
    }


TITLE = """# Methods and problems

Every method has either a result or one refusal, before any network is evaluated. The table is that of
`tests/methods/test_contract.py`, with small random networks: the supervised ones are for CT, and the h-transform of
`deft` has no initial reconstruction. A number stands for the refusal below.

Made by `PYTHONPATH=.:tests/support python tests/support/contract.py --out docs/contract.md`.

"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the table of methods and problems.")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights diverge
        parser.parse_args().out.write_text(TITLE + outcomes())
