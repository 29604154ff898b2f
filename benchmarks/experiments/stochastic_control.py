"""Stochastic control without a clean image, against DPS on the same measurements, where the posterior is known.

CT slices are averaged to 16 x 16 pixels, and a mixture of Gaussians is fitted to the training pack: a prior whose score
is exact, and whose posterior for a sparse-view scan with Gaussian noise is known in closed form. A head is learned from
the measurements of other series alone, and with ``--online`` tuned on each measurement. DPS chooses its step size and
norm on measurements of those other series, by their true images, which favours DPS.

Run: python benchmarks/experiments/stochastic_control.py --out benchmarks/results    (DEFT_CT_DATA names the data packs)
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.deft.online import DEFTOnline, DEFTOnlineConfig, Learned
from deft_ct.methods.deft.train_control import StoredMeasurements, train_control
from deft_ct.methods.registry import load_reconstructor
from deft_ct.networks import UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import GaussianNoise
from deft_ct.reconstruction import Reconstruction
from deft_ct.training import TrainingConfig

SIDE, PIXEL_MM, CLUSTERS = 16, 20.0, 8
SPAN = PriorRange()


class Mixture(nn.Module):
    """Mixture of Gaussians on images ``(1, SIDE, SIDE)``: the exact noise prediction of a prior, and its posterior."""

    weights: Tensor
    means: Tensor
    covs: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        values, vectors = torch.linalg.eigh(covs)
        for name, value in (("weights", weights), ("means", means), ("values", values), ("vectors", vectors)):
            self.register_buffer(name, value.float())
        self.register_buffer("covs", covs.float())

    @staticmethod
    def fit(images: Tensor, seed: int, schedule: Schedule) -> Mixture:
        """k-means, then the covariance of each cluster, shrunk towards the pooled one."""
        flat = images.flatten(1).double()
        _, labels = kmeans2(flat.numpy(), CLUSTERS, minit="++", seed=seed)
        chosen = [flat[labels == k] for k in range(CLUSTERS) if (labels == k).sum() > 1]
        pooled = sum((len(c) * torch.cov(c.T, correction=0) for c in chosen), torch.zeros(1)) / len(flat)
        floor = 1e-3 * torch.eye(flat.shape[1]).double()
        covs = [0.8 * torch.cov(c.T, correction=0) + 0.2 * pooled + floor for c in chosen]
        weights = torch.tensor([len(c) / len(flat) for c in chosen], dtype=torch.float64)
        return Mixture(weights, torch.stack([c.mean(0) for c in chosen]), torch.stack(covs), schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in ``x``, ``(B, 1, SIDE, SIDE)``."""
        a = self.schedule.alpha_bar(t).to(x)[:, None, None]
        spread = a * self.values + (1 - a)  # (B, K, n)
        turned = torch.einsum("bkn,knm->bkm", x.flatten(1)[:, None] - a.sqrt() * self.means, self.vectors)
        log_share = self.weights.log() - 0.5 * (turned.square() / spread + spread.log()).sum(2)
        share = log_share.softmax(1)[:, :, None]
        eps = torch.einsum("bkm,knm->bn", share * turned / spread, self.vectors)
        return ((1 - a[:, 0]).sqrt() * eps).reshape(x.shape)

    def posterior_means(self, matrix: Tensor, offset: Tensor, sigma: float, y: Tensor) -> Tensor:
        """``E[x | y]`` for ``y = matrix x + offset + sigma n``, rows of ``(B, m)``, in float64."""
        y, eye = y.double() - offset, sigma**2 * torch.eye(len(matrix)).double()
        log_share, means = [], []
        for weight, mean, cov in zip(self.weights.double(), self.means.double(), self.covs.double(), strict=True):
            predicted = matrix @ cov @ matrix.T + eye
            law = torch.distributions.MultivariateNormal(matrix @ mean, predicted)
            log_share.append(weight.log() + law.log_prob(y))
            means.append(mean + torch.linalg.solve(predicted, (y - matrix @ mean).T).T @ matrix @ cov)
        share = torch.stack(log_share, 1).softmax(1)
        return (share[:, :, None] * torch.stack(means, 1)).sum(1)


def slices(name: str, every: int) -> tuple[Tensor, list[str]]:
    """Slices of a pack at 16 x 16 in the prior's range, and the series of each."""
    pack = CTPack(data_root() / "ct256" / f"{name}.h5", every=every)
    hu = functional.avg_pool2d(pack.batch(list(range(len(pack)))).clamp_min(-1000), 256 // SIDE)
    return SPAN.to_prior(hu), [pack[n].group for n in range(len(pack))]


class Experiment:
    """Prior, scan, data and exact answers.

    Args:
        views: of the scan.
        sigma: standard deviation of the line integrals.
        tests: measurements that are compared.
        seed: of everything.
    """

    def __init__(self, views: int, sigma: float, tests: int, seed: int) -> None:
        self.seed, self.sigma = seed, sigma
        schedule = Schedule()
        self.mixture = Mixture.fit(slices("train", 1)[0], seed, schedule)
        self.prior = Prior(self.mixture, schedule, value_range=SPAN, image_shape=(1, SIDE, SIDE))
        geometry = ParallelGeometry(
            image_shape=(SIDE, SIDE), pixel_mm=PIXEL_MM, views=views, detectors=SIDE, detector_mm=PIXEL_MM
        )
        self.measurement = Measurement(RayTransform(geometry), GaussianNoise(sigma), units=HounsfieldScale())
        images, series = slices("val", 1)
        half = sorted(set(series))[len(set(series)) // 2]
        other = torch.tensor([name < half for name in series])
        self.training = images[other]
        rest = images[~other]
        self.truth = rest[torch.linspace(0, len(rest) - 1, tests).round().long()]
        self.tuning = self.training[torch.linspace(0, len(self.training) - 1, 8).round().long()]
        self.scale = self.measurement.scale_to(SPAN)

    def data(self, images: Tensor, label: str) -> Tensor:
        """Measurements of images."""
        keys = [f"{label}{k}" for k in range(len(images))]
        return self.measurement.simulate(self.scale(images), seed=self.seed, keys=keys)

    def likelihood(self, y: Tensor) -> Likelihood:
        """Of data, in the prior's range."""
        return self.measurement.likelihood(y, SPAN)

    def exact(self, y: Tensor) -> Tensor:
        """Exact posterior means of the mixture."""
        eye = torch.eye(SIDE**2).reshape(-1, 1, SIDE, SIDE)
        operator = self.measurement.operator
        matrix = self.scale.scale * operator(eye).flatten(1).T.double()
        offset = self.scale.offset * operator(torch.ones(1, 1, SIDE, SIDE)).flatten().double()
        return self.mixture.posterior_means(matrix, offset, self.sigma, y.flatten(1)).reshape(-1, 1, SIDE, SIDE).float()


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each image for a range of 2, in dB."""
    return 10 * (4 / (x - truth).square().flatten(1).mean(1)).log10()


def score(experiment: Experiment, result: Reconstruction, exact: Tensor) -> dict[str, Any]:
    """PSNR of the mean and of single samples, and the distance to the exact posterior mean."""
    assert result.samples is not None
    mean, samples = experiment.scale.inverse(result.mean), experiment.scale.inverse(result.samples)
    values = psnr(mean, experiment.truth)
    distance = (mean - exact).square().flatten(1).mean(1).sqrt()
    return {
        "psnr_db": values.tolist(),
        "psnr_mean_db": float(values.mean()),
        "psnr_standard_error_db": float(values.std() / len(values) ** 0.5),
        "psnr_single_sample_db": float(psnr(samples[:, 0], experiment.truth).mean()),
        "distance_to_exact_mean": float(distance.mean()),
        "seconds_per_image": result.provenance["seconds_per_image"],
        "evaluations_per_image": result.provenance["network_evaluations_per_image"],
    }


def tune_dps(experiment: Experiment, steps: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """The step size and norm of DPS that are best on measurements of other series, by their true images."""
    y = experiment.data(experiment.tuning, "tuning")
    best: dict[str, Any] = {"psnr": -np.inf}
    for norm, sizes in (("l2", (0.1, 0.3, 1.0, 3.0)), ("l2sq", (0.1, 0.3, 1.0, 3.0))):
        for zeta in sizes:
            method = load_reconstructor("dps", prior=experiment.prior, steps=steps, zeta=zeta, norm=norm)
            try:
                found = method.reconstruct(y, experiment.measurement, num_samples=2).mean
            except FloatingPointError:
                tell(f"dps {norm} zeta {zeta}: diverged")
                continue
            value = float(psnr(experiment.scale.inverse(found), experiment.tuning).mean())
            tell(f"dps {norm} zeta {zeta}: {value:.2f} dB on the tuning measurements")
            if value > best["psnr"]:
                best = {"psnr": value, "zeta": zeta, "norm": norm}
    return best


def head_config() -> HTransformConfig:
    """A small head that starts from filtered back-projection; the spread is about the error of that reconstruction."""
    return HTransformConfig(
        guidance="fbp", reference="fbp", spread=0.15,
        network=UNetConfig(patch=4, channels=(64,), attention=(False,), head_channels=64, norm_groups=8),
    )  # fmt: skip


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole experiment."""
    experiment = Experiment(options.views, options.sigma, options.tests, options.seed)
    measurement, samples = experiment.measurement, options.samples
    y = experiment.data(experiment.truth, "test")
    exact = experiment.exact(y)
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, result: Reconstruction) -> None:
        rows[name] = score(experiment, result, exact)
        print(f"{name}: {rows[name]['psnr_mean_db']:.2f} dB", flush=True)

    config, prior = head_config(), experiment.prior
    torch.manual_seed(options.seed)
    start = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    method = DEFTOnlineConfig(steps=options.steps, batch_size=64)
    add("head before training", Learned(prior, method, start.eval()).reconstruct(y, measurement, num_samples=samples))
    began, spent = time.perf_counter(), time.process_time()
    training = experiment.data(experiment.training, "training")
    head = train_control(
        StoredMeasurements(experiment.likelihood(training)), prior, folder, config=config,
        control=ControlConfig(objective=options.objective, steps=options.steps, paths=8),
        training=TrainingConfig(
            steps=options.iterations, batch_size=4, learning_rate=3e-3, warmup=10, ema_decay=0.97, log_every=10,
            seed=options.seed,
        ),
        progress=False,
    )  # fmt: skip
    seconds = {"wall": time.perf_counter() - began, "processor": time.process_time() - spent}
    with (folder / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    add("stochastic control", Learned(prior, method, head.eval()).reconstruct(y, measurement, num_samples=samples))
    best = tune_dps(experiment, options.dps_steps, lambda text: print(text, flush=True))
    dps = load_reconstructor("dps", prior=prior, steps=options.dps_steps, zeta=best["zeta"], norm=best["norm"])
    add("DPS, tuned", dps.reconstruct(y, measurement, num_samples=samples))
    if options.online:
        online = DEFTOnline(prior, replace(method, iterations=options.online), head)
        add("stochastic control, then online", online.reconstruct(y, measurement, num_samples=samples))
    bound = psnr(exact, experiment.truth)
    gain = torch.tensor(rows["stochastic control"]["psnr_db"]) - torch.tensor(rows["DPS, tuned"]["psnr_db"])
    return {
        "setup": {key: value for key, value in vars(options).items() if key != "out"}
        | {"side": SIDE, "clusters": len(experiment.mixture.weights), "training_measurements": len(training)},
        "rows": rows,
        "exact_posterior_mean_psnr_db": float(bound.mean()),
        "gain_over_dps_db": {"mean": float(gain.mean()), "standard_error": float(gain.std() / len(gain) ** 0.5),
                             "better_on": int((gain > 0).sum())},
        "dps": best,
        "training": {"seconds": seconds, "log_variance": losses},
    }  # fmt: skip


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    setup, gain, losses = record["setup"], record["gain_over_dps_db"], record["training"]["log_variance"]
    lines = [
        "# Stochastic control against DPS", "",
        f"CT slices at {SIDE} x {SIDE}, {setup['views']} views, line integrals with noise {setup['sigma']}; prior with "
        f"an exact score (mixture of {setup['clusters']} Gaussians). n = {setup['tests']} measurements of series "
        f"that nothing was trained or tuned on, seed {setup['seed']}, mean of {setup['samples']} samples. PSNR for a "
        "range of 2; the distance is the RMS difference to the exact posterior mean (prior's range).", "",
        "| method | PSNR (dB) | one sample (dB) | distance | evaluations | s per image |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in record["rows"].items():
        lines.append(
            f"| {name} | {row['psnr_mean_db']:.2f} +- {row['psnr_standard_error_db']:.2f} "
            f"| {row['psnr_single_sample_db']:.2f} | {row['distance_to_exact_mean']:.4f} "
            f"| {row['evaluations_per_image']:.0f} | {row['seconds_per_image']:.2f} |"
        )
    lines += [
        f"| exact posterior mean | {record['exact_posterior_mean_psnr_db']:.2f} | | 0 | | |", "",
        f"Stochastic control minus DPS on the same measurement: {gain['mean']:+.2f} +- {gain['standard_error']:.2f} "
        f"dB, better on {gain['better_on']} of {setup['tests']}. Trained on {setup['training_measurements']} "
        f"measurements without images: {setup['iterations']} steps, "
        f"{record['training']['seconds']['processor']:.0f} s of one core; log-variance {losses[0]:.0f} at first, "
        f"{losses[-1]:.0f} at last. DPS: {setup['dps_steps']} steps, "
        f"{record['dps']['norm']}, zeta {record['dps']['zeta']}, tuned on 8 other measurements with their true "
        "images.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--objective", choices=("log-variance", "trajectory-balance"), default="log-variance")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--tests", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16, help="evaluations on a path of stochastic control")
    parser.add_argument("--dps-steps", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=100, help="training steps of the head")
    parser.add_argument("--online", type=int, default=0, help="steps of online fine-tuning on each measurement")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = run(options, Path(scratch))
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(record)
    (options.out / "stochastic_control.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "stochastic_control.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
