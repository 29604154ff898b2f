"""Importance fine-tuning (SIFT) against the log-variance loss: are importance weights of paths of use?

Both train the same h-transform for the same processor time, in a small CT problem whose posterior is known (16 x 16
pixels, exact score; see ``deft_ct.workflows.experiments.known_posterior``). Two controls show what the weights are
worth: the same rounds without weights, and the same updates on the true images. The second problem has few rays and
much noise, so that little has to be learned and the weights are of use.

Run: python benchmarks/experiments/importance_finetuning.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.control import ControlConfig
from deft_ct.methods.deft.online import DEFTOnlineConfig, Learned
from deft_ct.methods.deft.train_control import ControlTraining, StoredMeasurements, train_control
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.importance import (
    PATH_STEPS,
    ImportanceConfig,
    importance_finetuning,
    path_statistics,
    untrained,
)
from deft_ct.workflows.experiments.known_posterior import (
    INITIAL_ERROR,
    SIDE,
    KnownPosterior,
    KnownPosteriorSettings,
    range_psnr,
    small_htransform,
)

UNWEIGHTED = 0.999
"""Effective share at which all paths have nearly the same weight."""
PRIOR_ALONE = 100.0
"""Expected initial error at which an untrained h-transform leaves the prior as it is."""
START = "h-transform before training"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One problem.

    Args:
        views: of the scan.
        sigma: standard deviation of the line integrals.
        initial_error: that the untrained h-transform expects of FBP.
        iterations: steps of the log-variance loss; its processor time is the budget of all.
    """

    views: int
    sigma: float
    initial_error: float
    iterations: int


def log_variance(world: KnownPosterior, config: HTransformConfig, iterations: int) -> HTransform:
    """An h-transform that is trained as in ``stochastic_control.py``."""
    training = TrainingConfig(
        steps=iterations, batch_size=4, learning_rate=3e-3, warmup=10, ema_decay=0.97, seed=world.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        return train_control(
            StoredMeasurements(world.likelihood(world.data(world.training, "training"))), world.prior, Path(scratch),
            ControlTraining(config=config, training=training, control=ControlConfig(steps=PATH_STEPS, paths=8)),
            progress=False,
        ).eval()  # fmt: skip


def compare(setting: Setting, seed: int, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every way of training in one problem."""
    world = KnownPosterior(
        KnownPosteriorSettings(views=setting.views, sigma=setting.sigma, tests=arguments.tests, seed=seed)
    )
    config = small_htransform(setting.initial_error)
    y = world.data(world.truth, "test")
    exact = world.exact(y)
    rows: dict[str, dict[str, Any]] = {"exact posterior mean": {"psnr_db": range_psnr(exact, world.truth).tolist()}}

    def add(name: str, htransform: HTransform, seconds: float) -> None:
        method = Learned(world.prior, DEFTOnlineConfig(steps=PATH_STEPS, batch_size=64), htransform)
        row = world.score(method.reconstruct(y, world.measurement, num_samples=4), exact)
        rows[name] = row | path_statistics(world, htransform, y[:8], 64) | {"training_seconds": seconds}
        print(setting, seed, name, f"{row['psnr_mean_db']:.2f} dB, {seconds:.0f} s", flush=True)

    add(START, untrained(world, config), 0.0)
    spent = time.process_time()
    htransform = log_variance(world, config, setting.iterations)
    budget = time.process_time() - spent
    add("log-variance", htransform, budget)
    ways = {"importance": arguments.share, "own samples, no weights": UNWEIGHTED, "true images": None}
    for name, share in ways.items():
        spent = time.process_time()
        method = ImportanceConfig(paths=arguments.paths, share=share, updates=arguments.updates)
        # A round that has begun is finished, so the budget ends half a round early.
        htransform = importance_finetuning(world, untrained(world, config), method, 0.9 * budget)
        add(name, htransform, time.process_time() - spent)
    return rows


def degeneracy(paths: int) -> list[dict[str, Any]]:
    """Effective number of the paths of untrained networks, by rays and noise; 8 measurements."""
    found = []
    for views in (1, 6):
        full = KnownPosterior(KnownPosteriorSettings(views=views, tests=8))
        for sigma in (0.05, 0.2, 0.8, 3.2):
            world = full.with_noise(sigma)
            y = world.data(world.truth, "degeneracy")
            for name, error in (("prior", PRIOR_ALONE), ("FBP belief", INITIAL_ERROR)):
                row = path_statistics(world, untrained(world, small_htransform(error)), y, paths)
                found.append({"rays": views * SIDE, "sigma": sigma, "head": name} | row)
    return found


def summary(worlds: Sequence[Record]) -> list[Record]:
    """For each problem and network: means over seeds and measurements, and the gain over the untrained network."""
    found = []
    for views, sigma in dict.fromkeys((world["views"], world["sigma"]) for world in worlds):
        runs = [world["rows"] for world in worlds if (world["views"], world["sigma"]) == (views, sigma)]
        for name in runs[0]:
            psnrs = torch.tensor([run[name]["psnr_db"] for run in runs])
            gains = psnrs - torch.tensor([run[START]["psnr_db"] for run in runs])
            row = {"views": views, "sigma": sigma, "head": name, "psnr_db": float(psnrs.mean()),
                   "gain_db": float(gains.mean()), "gain_of_each_seed_db": gains.mean(1).tolist(),
                   "better_on": int((gains > 0).sum()), "of": gains.numel()}  # fmt: skip
            for key in ("distance_to_exact_mean", "cost_std", "effective_paths", "exponent_half", "training_seconds"):
                if key in runs[0][name]:
                    row[key] = sum(run[name][key] for run in runs) / len(runs)
            found.append(row)
    return found


def quality_table(rows: Sequence[Record]) -> str:
    """Quality and path weights of every network."""
    headings = [
        "views, noise", "network", "PSNR (dB)", "gain (dB)", "seeds", "better on", "distance to exact mean",
        "std of C", "effective paths of 64", "s",
    ]  # fmt: skip
    body = []
    for row in rows:
        cells = [
            f"{row['views']}, {row['sigma']}", row["head"], f"{row['psnr_db']:.2f}", f"{row['gain_db']:+.2f}",
            ", ".join(f"{value:+.2f}" for value in row["gain_of_each_seed_db"]), f"{row['better_on']} of {row['of']}",
        ]  # fmt: skip
        if "cost_std" in row:
            cells += [f"{row['distance_to_exact_mean']:.4f}", f"{row['cost_std']:.1f}"]
            cells += [f"{row['effective_paths']:.1f}", f"{row['training_seconds']:.0f}"]
        else:
            cells += ["0", "", "", ""]
        body.append(cells)
    return markdown_table(headings, body)


def markdown(record: Record) -> str:
    """Both tables and what they are about."""
    setup = record["setup"]
    paths = [
        [str(row["rays"]), str(row["sigma"]), row["head"], f"{row['cost_std']:.1f}", f"{row['effective_paths']:.1f}",
         f"{row['exponent_half']:.3f}"]
        for row in record["degeneracy"]
    ]  # fmt: skip
    return "\n\n".join([
        "# Importance fine-tuning against log-variance",
        f"CT slices of {SIDE} x {SIDE} pixels, mixture prior with an exact score, {PATH_STEPS} steps on a path. Every "
        f"network learns from the same 100 measurements. Importance fine-tuning draws {setup['paths']} paths of each "
        f"in a round, tempers the weights to an effective share of {setup['share']}, and takes {setup['updates']} "
        f"denoising steps of {ImportanceConfig.batch_size} images. n = {setup['tests']} measurements of other series "
        f"for each of {len(setup['seeds'])} seeds (data, prior, weights, order), mean of 4 samples. PSNR for a range "
        f"of 2. Gain: over the {START}, also for each seed. Cost and effective number: 64 paths, medians over 8 "
        "measurements, mean over seeds. Time: processor seconds.",
        quality_table(record["summary"]),
        f"Effective number of {record['degeneracy'][0]['paths']} paths of networks before training, the standard "
        "deviation of their cost `C`, and the exponent that leaves half of them (medians, 8 measurements, seed 0):",
        markdown_table(["rays", "noise", "network", "std of C", "effective paths", "exponent"], paths),
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tests", type=int, default=16, help="test measurements")
    parser.add_argument("--iterations", type=int, default=45, help="steps of log-variance; their time is everyone's")
    parser.add_argument("--paths", type=int, default=16, help="paths of each measurement in a round")
    parser.add_argument("--share", type=float, default=0.125, help="effective share of the paths after tempering")
    parser.add_argument("--updates", type=int, default=100, help="denoising steps in a round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args(argv)
    settings = (
        Setting(views=6, sigma=0.05, initial_error=INITIAL_ERROR, iterations=arguments.iterations),
        Setting(views=1, sigma=0.8, initial_error=PRIOR_ALONE, iterations=arguments.iterations // 3),
    )
    worlds = [
        {"views": s.views, "sigma": s.sigma, "spread": s.initial_error, "seed": seed, "iterations": s.iterations,
         "rows": compare(s, seed, arguments)}
        for s in settings for seed in arguments.seeds
    ]  # fmt: skip
    record = {
        "setup": {key: value for key, value in vars(arguments).items() if key != "out"},
        "degeneracy": degeneracy(256), "worlds": worlds, "summary": summary(worlds),
    }  # fmt: skip
    write_result(arguments.out, "importance_finetuning", record, markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
