"""Stochastic control without a clean image against DPS on the same measurements, where the posterior is known.

CT slices are averaged to 16 x 16 pixels. The prior is a mixture of Gaussians, so its score is exact, and so is the
posterior mean for a sparse-view scan with Gaussian noise. An h-transform is trained on measurements of some series
alone; with ``--online`` it is then fine-tuned on each test measurement. The step size and the norm of DPS are chosen
with the true images of measurements of those series, which favours DPS.

Run: python benchmarks/experiments/stochastic_control.py --out benchmarks/results    (DEFT_CT_DATA names the data)
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import HTransform
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.deft.online import DEFTOnline, DEFTOnlineConfig, Learned
from deft_ct.methods.deft.train_control import ControlTraining, StoredMeasurements, train_control
from deft_ct.methods.registry import load_reconstructor
from deft_ct.reconstruction import Reconstruction
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.known_posterior import (
    SIDE,
    KnownPosterior,
    KnownPosteriorSettings,
    range_psnr,
    small_htransform,
)

STEP_SIZES = (0.1, 0.3, 1.0, 3.0)


def tune_dps(world: KnownPosterior, steps: int, log: Callable[[str], None]) -> dict[str, Any]:
    """The step size and norm of DPS with the highest PSNR on the tuning images; settings that diverge are skipped."""
    y = world.data(world.tuning, "tuning")
    best: dict[str, Any] = {"psnr": -np.inf}
    for norm in ("l2", "l2sq"):
        for zeta in STEP_SIZES:
            method = load_reconstructor("dps", prior=world.prior, steps=steps, zeta=zeta, norm=norm)
            try:
                found = method.reconstruct(y, world.measurement, num_samples=2).mean
            except FloatingPointError:
                log(f"dps {norm} zeta {zeta}: diverged")
                continue
            value = float(range_psnr(world.scale.inverse(found), world.tuning).mean())
            log(f"dps {norm} zeta {zeta}: {value:.2f} dB on the tuning measurements")
            if value > best["psnr"]:
                best = {"psnr": value, "zeta": zeta, "norm": norm}
    return best


def train(world: KnownPosterior, training: Tensor, arguments: argparse.Namespace) -> tuple[HTransform, Record]:
    """An h-transform that has seen measurements only, with the time and the losses of its training."""
    began, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        htransform = train_control(
            StoredMeasurements(world.likelihood(training)), world.prior, Path(scratch),
            ControlTraining(
                config=small_htransform(),
                control=ControlConfig(objective=arguments.objective, steps=arguments.steps, paths=8),
                training=TrainingConfig(
                    steps=arguments.iterations, batch_size=4, learning_rate=3e-3, warmup=10, ema_decay=0.97,
                    log_every=10, seed=arguments.seed,
                ),
            ),
            progress=False,
        )  # fmt: skip
        with (Path(scratch) / "log.csv").open(newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
    seconds = {"wall": time.perf_counter() - began, "processor": time.process_time() - spent}
    return htransform.eval(), {"seconds": seconds, "log_variance": losses}


def run(arguments: argparse.Namespace) -> Record:
    """The whole experiment."""
    settings = KnownPosteriorSettings(
        views=arguments.views, sigma=arguments.sigma, tests=arguments.tests, seed=arguments.seed
    )
    world = KnownPosterior(settings)
    y, prior, samples = world.data(world.truth, "test"), world.prior, arguments.samples
    exact = world.exact(y)
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, result: Reconstruction) -> None:
        rows[name] = world.score(result, exact)
        print(f"{name}: {rows[name]['psnr_mean_db']:.2f} dB", flush=True)

    torch.manual_seed(arguments.seed)
    untrained = HTransform(small_htransform(), prior.schedule, prior_hash=prior.content_hash()).eval()
    config = DEFTOnlineConfig(steps=arguments.steps, batch_size=64)
    result = Learned(prior, config, untrained).reconstruct(y, world.measurement, num_samples=samples)
    add("h-transform before training", result)
    measured = world.data(world.training, "training")
    htransform, training = train(world, measured, arguments)
    result = Learned(prior, config, htransform).reconstruct(y, world.measurement, num_samples=samples)
    add("stochastic control", result)
    best = tune_dps(world, arguments.dps_steps, lambda line: print(line, flush=True))
    dps = load_reconstructor("dps", prior=prior, steps=arguments.dps_steps, zeta=best["zeta"], norm=best["norm"])
    add("DPS, tuned", dps.reconstruct(y, world.measurement, num_samples=samples))
    if arguments.online:
        online = DEFTOnline(prior, htransform, replace(config, iterations=arguments.online))
        result = online.reconstruct(y, world.measurement, num_samples=samples)
        add("stochastic control, then online", result)
    gain = torch.tensor(rows["stochastic control"]["psnr_db"]) - torch.tensor(rows["DPS, tuned"]["psnr_db"])
    return {
        "setup": {key: value for key, value in vars(arguments).items() if key != "out"}
        | {"side": SIDE, "clusters": len(world.mixture.weights), "training_measurements": len(measured)},
        "rows": rows,
        "exact_posterior_mean_psnr_db": float(range_psnr(exact, world.truth).mean()),
        "gain_over_dps_db": {"mean": float(gain.mean()), "standard_error": float(gain.std() / len(gain) ** 0.5),
                             "better_on": int((gain > 0).sum())},
        "dps": best,
        "training": training,
    }  # fmt: skip


def markdown(record: Record) -> str:
    """The table and what it is about."""
    setup, gain, losses = record["setup"], record["gain_over_dps_db"], record["training"]["log_variance"]
    rows = [
        [
            name, f"{row['psnr_mean_db']:.2f} ± {row['psnr_standard_error_db']:.2f}",
            f"{row['psnr_single_sample_db']:.2f}", f"{row['distance_to_exact_mean']:.4f}",
            f"{row['evaluations_per_image']:.0f}", f"{row['seconds_per_image']:.2f}",
        ]
        for name, row in record["rows"].items()
    ]  # fmt: skip
    rows.append(["exact posterior mean", f"{record['exact_posterior_mean_psnr_db']:.2f}", "", "0", "", ""])
    headings = ["method", "PSNR (dB)", "one sample (dB)", "distance", "evaluations", "s per image"]
    return "\n\n".join([
        "# Stochastic control against DPS",
        f"CT slices of {SIDE} x {SIDE} pixels, {setup['views']} views, line integrals with noise {setup['sigma']}. The "
        f"prior is a mixture of {setup['clusters']} Gaussians with an exact score. n = {setup['tests']} measurements "
        f"of series that nothing was trained or tuned on, seed {setup['seed']}, mean of {setup['samples']} samples "
        "(± standard error). PSNR for a range of 2. The distance is the RMS difference to the exact posterior mean in "
        "the prior's range.",
        markdown_table(headings, rows),
        f"Stochastic control minus DPS on the same measurement: {gain['mean']:+.2f} ± {gain['standard_error']:.2f} dB, "
        f"better on {gain['better_on']} of {setup['tests']}. It was trained on {setup['training_measurements']} "
        f"measurements without images: {setup['iterations']} steps, "
        f"{record['training']['seconds']['processor']:.0f} s of one core. Its log-variance was {losses[0]:.0f} at the "
        f"start and {losses[-1]:.0f} at the end. DPS: {setup['dps_steps']} steps, {record['dps']['norm']}, zeta "
        f"{record['dps']['zeta']}, tuned on 8 other measurements with their true images.",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--objective", choices=("log-variance", "trajectory-balance"), default="log-variance")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--sigma", type=float, default=0.05, help="standard deviation of the line integrals")
    parser.add_argument("--tests", type=int, default=16, help="test measurements")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16, help="evaluations on a path of stochastic control")
    parser.add_argument("--dps-steps", type=int, default=100)
    parser.add_argument("--iterations", type=int, default=100, help="training steps of the h-transform")
    parser.add_argument("--online", type=int, default=0, help="steps of online fine-tuning on each measurement")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    record = run(arguments)
    write_result(arguments.out, "stochastic_control", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
