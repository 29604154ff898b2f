"""What the experiments with heads on halved slices share: training, measuring, paired differences."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from few_steps import measure, metrics
from halved import halved_pack

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import Prior, load_prior
from deft_ct.evaluation.problem import Problem, prepare
from deft_ct.evaluation.statistics import Interval, mean_interval
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import AffineMap
from deft_ct.methods.deft import HTransform, HTransformConfig, condition_for, load_htransform, save_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.initial_table import ReferenceTable
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.refinement import Refinement
from deft_ct.methods.deft.train import HTransformTraining, train_htransform
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.networks import UNet, UNetConfig
from deft_ct.training import CHECKPOINT, TrainingConfig

Record = dict[str, Any]


def add_options(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """The options of every experiment."""
    parser.add_argument("--work", type=Path, default=Path("runs/halved"), help="packs, prior, heads and finished cells")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=steps, help="of the training of each head")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--momentum", type=float, default=0.95, help="of muon")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of the networks")
    parser.add_argument("--every", type=int, default=16, help="every k-th slice of the val pack is measured")
    parser.add_argument("--seed", type=int, default=0)


class Workshop:
    """The frozen prior, the slices, and the heads that are made from them.

    Args:
        options: of :func:`add_options`.
        samples: posterior samples of each slice.
    """

    def __init__(self, options: argparse.Namespace, *, samples: int = 4) -> None:
        self.options, self.samples = options, samples
        self.training = TrainingConfig(
            steps=options.steps, batch_size=options.batch_size, learning_rate=options.learning_rate,
            optimizer=options.optimizer, momentum=options.momentum, warmup=50, ema_decay=0.995,
            precision=options.precision, seed=options.seed, checkpoint_minutes=1.0,
        )  # fmt: skip
        self.source = CTPack(halved_pack(options.work, "train"))
        self._problems: dict[str, Problem] = {}

    @cached_property
    def prior(self) -> Prior:
        """The frozen prior of halved slices, from ``halved.py``."""
        prior = load_prior(self.options.work / "prior")
        prior.precision = self.training.precision
        return prior

    def network(self) -> UNetConfig:
        """The shape of the prior's network, so that a head starts from its weights."""
        assert isinstance(self.prior.network, UNet)
        return self.prior.network.config

    def head(
        self, label: str, config: HTransformConfig, measurements: Sequence[Measurement], *,
        weights: Sequence[float] | None = None, card: Record | None = None, refinement: Refinement | None = None,
        references: Callable[[], ReferenceTable] | None = None, from_prior: bool = True,
    ) -> HTransform:  # fmt: skip
        """The head ``label``, trained unless it is there; its card says the processor time of the training."""
        training = self.training
        identity = [config.to_dict(), asdict(training), card, refinement.content_hash() if refinement else None]
        identity += [] if from_prior else ["random weights"]
        folder = self.options.work / "heads" / slug(label, *identity)
        if not (folder / "htransform" / "htransform.json").is_file():
            resumed = (folder / CHECKPOINT).is_file()
            began = time.process_time()
            made = train_htransform(
                SlicePairs(self.source, measurements, self.prior.value_range, weights=weights),
                self.prior,
                folder,
                config=config,
                training=training,
                options=HTransformTraining(
                    refinement=refinement, table=references() if references else None, from_prior=from_prior
                ),
                progress=False,
            )
            seconds = None if resumed else round(time.process_time() - began)
            made.card |= {**(card or {}), "training_steps": training.steps, "seconds": seconds}
            save_htransform(made, folder / "htransform", dtype=torch.float32)
            print(f"{label}: trained, {seconds} s of one core", flush=True)
        head = load_htransform(folder / "htransform")
        head.precision = self.training.precision
        return head

    @property
    def pixel_mm(self) -> float:
        """Typical pixel size of the training slices."""
        return float(np.median(self.source.pixel_mm))

    def one_scan_head(self, scan: Scan, guidance: str = "fbp") -> HTransform:
        """A head of the shipped form (TV reference) for one scan, with the spread that its reference has there."""
        measurement = scan.unit_measurement(self.source.image_shape, self.pixel_mm)
        config = HTransformConfig(spread=spread_of(measurement), guidance=guidance, network=self.network())
        return self.head(f"{scan.name} {guidance}", config, [measurement], card={"of": scan.name})

    def problem(self, scan: Scan) -> Problem:
        """Val slices with simulated data of a scan, the same for every head."""
        if scan.name not in self._problems:
            self._problems[scan.name] = prepare(self._val(), scan, seed=self.options.seed)
        return self._problems[scan.name]

    def _val(self) -> CTPack:
        return CTPack(halved_pack(self.options.work, "val"), every=self.options.every)

    def measured(self, head: HTransform, scan: Scan, **settings: Any) -> Record:
        """PSNR and other figures of DEFT with a head; a finished cell is read from the disk."""
        identity = [
            head.content_hash(), self.prior.content_hash(), head.precision, scan.name, self.options.every,
            self.options.seed, self.samples, settings,
        ]  # fmt: skip
        path = self.options.work / "cells" / f"{slug('cell', identity)}.json"

        def compute() -> Record:
            config = DEFTConfig(**{"batch_size": 16, "calibrated": False, **settings})
            bare = HTransform(head.config, head.schedule, prior_hash=head.prior_hash)  # without the card of its scan
            bare.load_state_dict(head.state_dict())
            bare.precision = head.precision
            count = 1 if config.estimate == "mean" else self.samples
            return measure(DEFT(self.prior, bare, config), self.problem(scan), count)

        return cached(path, compute)

    @torch.no_grad()
    def reference(self, scan: Scan, head: HTransform | None = None) -> Record:
        """The same figures of the TV reference alone, or of the one that a head starts from."""
        problem, span, found = self.problem(scan), self.prior.value_range, []
        for y, measurement, _ in problem.batches:
            likelihood = measurement.likelihood(y, span)
            image = None if head is None else condition_for(likelihood, head).initial
            found.append(likelihood.to_physical(reference_reconstruction(likelihood, "tv") if image is None else image))
        return metrics(HounsfieldScale().to_hu(torch.cat(found))[:, 0].numpy(), problem)

    def protocol(self, *, prior: bool = True) -> Record:
        """What the figures depend on, with the prior where it has a part, and where they were measured."""
        told = {"prior": self.prior.card | {"sha256": self.prior.content_hash()}} if prior else {}
        return told | {
            "data": f"ct256, 2x2 means (128 x 128); trained on train ({len(self.source)} slices), measured on val",
            "every": self.options.every, "series": len(self._val().groups), "seed": self.options.seed,
            "samples": self.samples,
            "training": {k: v for k, v in asdict(self.training).items() if k in _TOLD},
            "machine": f"{processor()}, {torch.get_num_threads()} thread",
            "versions": {"deft_ct": version("deft-ct"), "torch": version("torch"), "python": platform.python_version()},
        }  # fmt: skip


_TOLD = ("steps", "batch_size", "learning_rate", "optimizer", "ema_decay", "precision", "seed")


def spread_of(measurement: Measurement) -> float:
    """Spread around the TV reference of a scan, by the rule of the heads for any scan."""
    y = torch.zeros(1, 1, *measurement.operator.range_shape[-2:])
    features = scan_features(Likelihood(measurement, y, AffineMap(1.0, 0.0)))[0]
    slope = sum(float(a) * b for a, b in zip(features, SPREAD_SLOPES, strict=True))
    return round(HTransformConfig().spread * math.exp(slope), 5)


def slug(label: str, *identity: Any) -> str:
    """A name for a folder or file that changes with what it stands for."""
    text = json.dumps([label, *identity], sort_keys=True, default=str)
    word = "".join(c if c.isalnum() else "_" for c in label)
    return f"{word}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cached(path: Path, compute: Callable[[], Record]) -> Record:
    """The JSON of a path, computed and written when it is not there."""
    if path.is_file():
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        return found
    value = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value) + "\n", encoding="utf-8")
    part.replace(path)
    return value


def values(result: Record, which: str) -> list[float]:
    """PSNR of every slice: of ``"single"`` samples, of their ``"mean"``, or of the ``"direct_mean"``."""
    return list(result[which]["psnr_db"]["per_slice"])


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Mean of the paired differences with a 95 % interval (Student)."""
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)], method="t")


def interval_text(interval: Interval) -> str:
    return f"{interval.mean:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first column to the left."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *(list(row) for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def footer(record: Record, slices: int) -> str:
    """What the numbers of an experiment are about."""
    protocol, training = record["protocol"], record["protocol"]["training"]
    return (
        f"Data: {protocol['data']} (every {protocol['every']}: n = {slices} slices of {protocol['series']} series), "
        "whole slices, range 2000 HU; intervals: 95 %, of the paired differences over slices, one training of each "
        f"head. Training: {training['steps']} steps of {training['batch_size']} slices, seed {training['seed']}, "
        f"{training['optimizer']} at {training['learning_rate']:g}, {training['precision']}. "
        f"Machine: {protocol['machine']}. Not for clinical use."
    )


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, one of {os.cpu_count()} cores"


def write(out: Path, name: str, record: Record, text: str) -> None:
    """``name.json`` and ``name.md`` in the folder of results."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
