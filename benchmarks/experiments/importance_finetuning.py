"""Importance fine-tuning (SIFT) against log-variance: how far do the weights of paths carry?

    python benchmarks/experiments/importance_finetuning.py --out benchmarks/results

In the manner of Denker, Padhy, Vargas and Hertrich 2025 (arXiv 2502.04468), written from the idea: in rounds, draw
paths with the averaged head, weigh them by ``exp(-C)`` (exact for the chain, see ``htransform.control``), resample, and
train the head on the images at their ends by the denoising loss. Few paths of many rays have degenerate weights, so
they are tempered: ``exp(-a C)`` with the largest ``a <= 1`` that leaves a share of the paths. Two controls say what the
weights are worth: the same rounds without them, and the same updates on the true images.

The world is that of ``stochastic_control.py``: CT at 16 x 16, mixture prior with an exact score, exact posterior mean.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from stochastic_control import SIDE, Experiment, head_config, psnr, score
from torch import Tensor, nn

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform, condition_for
from deft_ct.methods.deft.control import ControlConfig, control_times, draw_paths
from deft_ct.methods.deft.online import DEFTOnlineConfig, Learned
from deft_ct.methods.deft.train import denoising_loss
from deft_ct.methods.deft.train_control import StoredMeasurements, train_control
from deft_ct.operators.noise import GaussianNoise
from deft_ct.training import TrainingConfig
from deft_ct.training.pairs import Pairs

STEPS = 16  # evaluations on a path, as in stochastic_control.py
BATCH, RATE, DECAY = 32, 3e-3, 0.97
UNWEIGHTED = 0.999
BELIEF, NONE = 0.15, 100.0  # spreads of the belief that a head starts with


class World(Experiment):
    """``Experiment`` with a head whose belief in its FBP has the given spread."""

    def __init__(self, views: int, sigma: float, tests: int, seed: int, spread: float) -> None:
        super().__init__(views, sigma, tests, seed)
        self.config = replace(head_config(), spread=spread)


def effective_number(weights: Tensor) -> Tensor:
    """Kish's ``(sum w)^2 / sum w^2`` of each row of ``(B, K)``, between 1 and K."""
    return weights.sum(1).square() / weights.square().sum(1)


def tempered_weights(costs: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Weights ``exp(-a C)`` of ``(B, K)`` paths, ``a <= 1`` the largest that leaves ``share * K`` of them, and ``a``.

    The effective number falls with ``a`` without exception, so bisection finds it.
    """
    relative = costs.double().amin(1, keepdim=True) - costs.double()
    low, high = torch.zeros(len(costs)).double(), torch.ones(len(costs)).double()
    enough = share * costs.shape[1]
    full = effective_number(relative.softmax(1)) >= enough
    for _ in range(40):
        middle = (low + high) / 2
        good = effective_number((middle[:, None] * relative).softmax(1)) >= enough
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    exponent = torch.where(full, torch.ones_like(low), low)
    return (exponent[:, None] * relative).softmax(1), exponent


def resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of ``(B * K, ...)`` paths drawn by their weights ``(B, K)``, K of each measurement (systematic)."""
    count, paths = weights.shape
    points = (torch.arange(paths) + torch.rand(count, 1, generator=generator, dtype=torch.float64)) / paths
    chosen = torch.searchsorted(weights.cumsum(1).contiguous(), points).clamp_max(paths - 1)
    return (chosen + paths * torch.arange(count)[:, None]).flatten()


def draw(
    experiment: World, head: HTransform, likelihood: Likelihood, paths: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Ends of ``paths`` paths of each measurement, and their costs ``(B, paths)``."""
    drawn = draw_paths(
        head, experiment.prior, likelihood.repeat(paths), condition_for(likelihood, head).repeat(paths),
        control_times(experiment.prior.schedule, STEPS), guidance=head.guidance,
        normal=lambda x: torch.randn(x.shape, generator=generator),
    )  # fmt: skip
    return drawn.x0, (drawn.log_ratio - drawn.reward).reshape(-1, paths)


def path_statistics(experiment: World, head: HTransform, y: Tensor, paths: int) -> dict[str, float]:
    """Medians over measurements: effective number of the paths, spread of the cost, exponent that leaves half."""
    generator = torch.Generator().manual_seed(1)
    costs = torch.cat([draw(experiment, head, experiment.likelihood(row[None]), paths, generator)[1] for row in y])
    return {
        "paths": paths,
        "effective_paths": float(effective_number((-costs).softmax(1)).median()),
        "cost_std": float(costs.std(1).median()),
        "exponent_half": float(tempered_weights(costs, 0.5)[1].median()),
    }


def fresh_head(experiment: World) -> HTransform:
    """Not trained: the belief that the image is near its FBP; with a wide spread, the prior alone."""
    prior = experiment.prior
    torch.manual_seed(experiment.seed)
    return HTransform(experiment.config, prior.schedule, prior_hash=prior.content_hash()).eval()


def log_variance(experiment: World, iterations: int) -> HTransform:
    """The head of ``stochastic_control.py``."""
    training = TrainingConfig(
        steps=iterations, batch_size=4, learning_rate=RATE, warmup=10, ema_decay=DECAY, seed=experiment.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        return train_control(
            StoredMeasurements(experiment.likelihood(experiment.data(experiment.training, "training"))),
            experiment.prior, Path(scratch), config=experiment.config, training=training,
            control=ControlConfig(steps=STEPS, paths=8), progress=False,
        ).eval()  # fmt: skip


def importance(experiment: World, seconds: float, paths: int, share: float | None, updates: int) -> HTransform:
    """Rounds of sampling, weighing and denoising score matching for about ``seconds`` of processor time.

    Without a share the updates take the true images of the measurements.
    """
    began, generator = time.process_time(), torch.Generator().manual_seed(experiment.seed)
    head = fresh_head(experiment).train()
    averaged, done = copy.deepcopy(head), 0
    pool = experiment.training
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0)
    measured = StoredMeasurements(experiment.likelihood(experiment.data(experiment.training, "training")))
    while time.process_time() - began < seconds:
        if share is not None:
            images = []
            for part in torch.arange(len(measured)).split(4):
                x0, costs = draw(experiment, averaged, measured.likelihood(part), paths, generator)
                images.append(x0[resample(tempered_weights(costs, share)[0], generator)])
            pool = torch.cat(images)
        for _ in range(updates):
            rows = torch.randint(len(pool), (BATCH,), generator=generator)
            t = sample_times(BATCH, experiment.prior.schedule, generator, 1.0)
            noise = torch.randn(pool[rows].shape, generator=generator)
            pairs = Pairs(x0=pool[rows], likelihood=measured.likelihood(rows // (len(pool) // len(measured))))
            denoising_loss(head, head, experiment.prior, pairs, t, noise).backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            for mean, value in zip(averaged.parameters(), head.parameters(), strict=True):
                mean.data.lerp_(value.data, 1 - min(DECAY, (1 + done) / (10 + done)))
    return averaged.eval()


def compare(
    views: int, sigma: float, spread: float, options: argparse.Namespace, seed: int, iterations: int
) -> dict[str, dict[str, Any]]:
    """Every way of training in one world."""
    experiment = World(views, sigma, options.tests, seed, spread)
    y = experiment.data(experiment.truth, "test")
    exact = experiment.exact(y)
    rows: dict[str, dict[str, Any]] = {"exact posterior mean": {"psnr_db": psnr(exact, experiment.truth).tolist()}}

    def add(name: str, head: HTransform, seconds: float) -> None:
        method = Learned(experiment.prior, DEFTOnlineConfig(steps=STEPS, batch_size=64), head)
        row = score(experiment, method.reconstruct(y, experiment.measurement, num_samples=4), exact)
        row |= path_statistics(experiment, head, y[:8], 64) | {"training_seconds": seconds}
        rows[name] = row
        print(views, sigma, seed, name, f"{row['psnr_mean_db']:.2f} dB, {seconds:.0f} s", flush=True)

    add("head before training", fresh_head(experiment), 0.0)
    spent = time.process_time()
    head = log_variance(experiment, iterations)
    budget = time.process_time() - spent
    add("log-variance", head, budget)
    ways = {"importance": options.share, "own samples, no weights": UNWEIGHTED, "true images": None}
    for name, share in ways.items():
        spent = time.process_time()
        # A round that has begun is finished, so the budget ends half a round early.
        head = importance(experiment, 0.9 * budget, options.paths, share, options.updates)
        add(name, head, time.process_time() - spent)
    return rows


def degeneracy(paths: int) -> list[dict[str, Any]]:
    """Effective number of the paths of untrained heads, against rays and noise; 8 measurements."""
    found = []
    for views in (1, 6):
        experiment = World(views, 0.05, 8, 0, BELIEF)
        for sigma in (0.05, 0.2, 0.8, 3.2):
            experiment.sigma = sigma
            experiment.measurement = Measurement(
                experiment.measurement.operator, GaussianNoise(sigma), units=HounsfieldScale()
            )
            y = experiment.data(experiment.truth, "degeneracy")
            for name, spread in (("prior", NONE), ("FBP belief", BELIEF)):
                experiment.config = replace(head_config(), spread=spread)
                row = path_statistics(experiment, fresh_head(experiment), y, paths)
                found.append({"rays": views * SIDE, "sigma": sigma, "head": name} | row)
                print(found[-1], flush=True)
    return found


def summary(worlds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each world and head: means over seeds and measurements, and the difference to the untrained head."""
    found = []
    for views, sigma in dict.fromkeys((world["views"], world["sigma"]) for world in worlds):
        runs = [world["rows"] for world in worlds if (world["views"], world["sigma"]) == (views, sigma)]
        for name in runs[0]:
            psnrs = torch.tensor([run[name]["psnr_db"] for run in runs])
            gains = psnrs - torch.tensor([run["head before training"]["psnr_db"] for run in runs])
            row = {"views": views, "sigma": sigma, "head": name, "psnr_db": float(psnrs.mean()),
                   "gain_db": float(gains.mean()), "gain_of_each_seed_db": gains.mean(1).tolist(),
                   "better_on": int((gains > 0).sum()), "of": gains.numel()}  # fmt: skip
            for key in ("distance_to_exact_mean", "cost_std", "effective_paths", "exponent_half", "training_seconds"):
                if key in runs[0][name]:
                    row[key] = sum(run[name][key] for run in runs) / len(runs)
            found.append(row)
    return found


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    setup = record["setup"]
    lines = [
        "# Importance fine-tuning against log-variance", "",
        f"CT slices at {SIDE} x {SIDE}, mixture prior with an exact score, {STEPS} steps on a path. Every head learns "
        f"from the same 100 measurements; importance draws {setup['paths']} paths of each in a round, leaves an "
        f"effective share of {setup['share']}, and takes {setup['updates']} denoising steps of {BATCH} images. "
        f"n = {setup['tests']} measurements of other series for each of {len(setup['seeds'])} seeds (data, prior, "
        "weights, order), mean of 4 samples. PSNR for a range of 2; gain over the head before training, with that of "
        "each seed; cost and effective number of 64 paths, medians over 8 measurements, mean over seeds; processor "
        "seconds.", "",
        "| views, noise | head | PSNR (dB) | gain (dB) | seeds | better on | distance to exact mean | std of C "
        "| effective paths of 64 | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in record["summary"]:
        seeds = ", ".join(f"{value:+.2f}" for value in row["gain_of_each_seed_db"])
        start = f"| {row['views']}, {row['sigma']} | {row['head']} | {row['psnr_db']:.2f} | {row['gain_db']:+.2f} "
        more = f"| {seeds} | {row['better_on']} of {row['of']} "
        if "cost_std" in row:
            more += f"| {row['distance_to_exact_mean']:.4f} | {row['cost_std']:.1f} | {row['effective_paths']:.1f} "
            more += f"| {row['training_seconds']:.0f} |"
        else:
            more += "| 0 | | | |"
        lines.append(start + more)
    lines += [
        "", f"Effective number of {record['degeneracy'][0]['paths']} paths of heads before training, the standard "
        "deviation of their cost `C`, and the exponent that leaves half of them (medians, 8 measurements, seed 0):", "",
        "| rays | noise | head | std of C | effective paths | exponent |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in record["degeneracy"]:
        lines.append(
            f"| {row['rays']} | {row['sigma']} | {row['head']} | {row['cost_std']:.1f} | {row['effective_paths']:.1f} "
            f"| {row['exponent_half']:.3f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tests", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=45, help="steps of log-variance; they set the time of all")
    parser.add_argument("--paths", type=int, default=16, help="paths of a measurement in a round")
    parser.add_argument("--share", type=float, default=0.125, help="effective share of the paths that tempering leaves")
    parser.add_argument("--updates", type=int, default=100, help="denoising steps in a round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    record: dict[str, Any] = {
        "setup": {key: value for key, value in vars(options).items() if key != "out"},
        "degeneracy": degeneracy(256),
    }
    # The world of stochastic_control.py, and one with little to learn, in which weights of paths are of use.
    worlds = [(6, 0.05, BELIEF, options.iterations), (1, 0.8, NONE, options.iterations // 3)]
    record["worlds"] = [
        {"views": views, "sigma": sigma, "spread": spread, "seed": seed, "iterations": iterations,
         "rows": compare(views, sigma, spread, options, seed, iterations)}
        for views, sigma, spread, iterations in worlds for seed in options.seeds
    ]  # fmt: skip
    record["summary"] = summary(record["worlds"])
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(record)
    (options.out / "importance_finetuning.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / "importance_finetuning.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
