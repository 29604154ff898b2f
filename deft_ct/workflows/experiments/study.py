"""H-transforms that are trained at equal cost on halved slices and measured on the same data.

Every network and every measurement is kept in a folder under a name that follows from its settings, so a study that
was interrupted resumes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.datasets.halved import halved_pack
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import Prior, load_prior
from deft_ct.evaluation.store import Record, cached_json, content_name
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
from deft_ct.problems.ct import CTProblem
from deft_ct.runtime.machine import processor_name, versions
from deft_ct.training import CHECKPOINT, TrainingConfig
from deft_ct.workflows.experiments.arguments import add_training_arguments, training_config
from deft_ct.workflows.experiments.measures import measure_deft, slice_metrics

_REPORTED = ("steps", "batch_size", "learning_rate", "optimizer", "ema_decay", "precision", "seed")


def add_study_arguments(parser: argparse.ArgumentParser, *, steps: int, learning_rate: float = 2e-3) -> None:
    """The arguments of a study; :meth:`StudySettings.from_arguments` reads them."""
    parser.add_argument("--work", type=Path, default=Path("runs/halved"), help="folder of data, networks and cells")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the tables")
    parser.add_argument("--every", type=int, default=16, help="every k-th slice of the val dataset is measured")
    add_training_arguments(parser, steps=steps, learning_rate=learning_rate)


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What all networks of a study have in common.

    Args:
        work: folder of the halved datasets and the prior (``prior``), and of what the study makes.
        training: of every network; its seed is also that of noise and sampling.
        every: every k-th slice of the val dataset is measured.
        samples: posterior samples of each slice.
    """

    work: Path
    training: TrainingConfig
    every: int = 16
    samples: int = 4

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace, *, samples: int = 4) -> StudySettings:
        """The settings that :func:`add_study_arguments` describes."""
        training = training_config(arguments)
        return cls(work=arguments.work, training=training, every=arguments.every, samples=samples)


@dataclass(frozen=True, kw_only=True)
class HTransformTask:
    """An h-transform to train.

    Args:
        config: of the h-transform.
        measurements: scans whose data it is trained on.
        weights: how often each of them is drawn; equally often if None.
        card: further entries of its card.
        refinement: trained network that improves the initial reconstruction, if any.
        references: makes the table of initial reconstructions; they are computed during the training if None.
        from_prior: start from the weights of the prior instead of random ones.
    """

    config: HTransformConfig
    measurements: Sequence[Measurement]
    weights: Sequence[float] | None = None
    card: Record | None = None
    refinement: Refinement | None = None
    references: Callable[[], ReferenceTable] | None = None
    from_prior: bool = True


class Study:
    """The frozen prior, the slices, and the h-transforms that are trained with them.

    Args:
        settings: what all networks have in common.
        log: is called with a line for each network that was trained.
    """

    def __init__(self, settings: StudySettings, log: Callable[[str], None] = lambda _: None) -> None:
        self.settings, self.training, self.log = settings, settings.training, log
        self.source = CTPack(halved_pack(settings.work, "train"))
        self._problems: dict[str, CTProblem] = {}

    @cached_property
    def prior(self) -> Prior:
        """The frozen prior of halved slices, which ``benchmarks/experiments/halved.py`` trains."""
        prior = load_prior(self.settings.work / "prior")
        prior.precision = self.training.precision
        return prior

    @cached_property
    def val(self) -> CTPack:
        """The slices that are measured."""
        return CTPack(halved_pack(self.settings.work, "val"), every=self.settings.every)

    @property
    def pixel_mm(self) -> float:
        """Median pixel size of the training slices."""
        return float(np.median(self.source.pixel_mm))

    def network(self) -> UNetConfig:
        """The configuration of the prior's network, so that an h-transform can start from its weights."""
        assert isinstance(self.prior.network, UNet)
        return self.prior.network.config

    def measurement(self, scan: Scan) -> Measurement:
        """A scan of slices of the typical pixel size."""
        return scan.unit_measurement(self.source.image_shape, self.pixel_mm)

    def problem(self, scan: Scan) -> CTProblem:
        """Val slices with simulated data of a scan, the same for every method."""
        if scan.name not in self._problems:
            self._problems[scan.name] = CTProblem(self.val, scan, seed=self.training.seed)
        return self._problems[scan.name]

    def train(self, label: str, task: HTransformTask) -> HTransform:
        """The h-transform of a task; it is trained if it is not in the folder yet.

        Its card holds ``seconds``, the processor time of the training, or None for a training that was resumed.
        """
        training, refinement = self.training, task.refinement
        pairs = SlicePairs(self.source, task.measurements, self.prior.value_range, weights=task.weights)
        identity: list[Any] = [task.config.to_dict(), asdict(training), task.card]
        identity += [pairs.description(), self.prior.content_hash()]
        identity += [refinement.content_hash() if refinement else None]
        identity += [] if task.from_prior else ["random weights"]
        folder = self.settings.work / "heads" / content_name(label, *identity)
        if not (folder / "htransform" / "htransform.json").is_file():
            resumed = (folder / CHECKPOINT).is_file()
            began = time.process_time()
            made = train_htransform(
                pairs, self.prior, folder, config=task.config, training=training, progress=False,
                options=HTransformTraining(
                    refinement=refinement, table=task.references() if task.references else None,
                    from_prior=task.from_prior,
                ),
            )  # fmt: skip
            seconds = None if resumed else round(time.process_time() - began)
            made.card |= {**(task.card or {}), "training_steps": training.steps, "seconds": seconds}
            save_htransform(made, folder / "htransform", dtype=torch.float32)
            self.log(f"{label}: trained, {seconds} s of one core")
        htransform = load_htransform(folder / "htransform")
        htransform.precision = training.precision
        return htransform

    def train_for_scan(self, scan: Scan, guidance: str = "fbp") -> HTransform:
        """An h-transform of the shipped form (initial reconstruction: TV) for a single scan."""
        measurement = self.measurement(scan)
        config = HTransformConfig(spread=initial_error(measurement), guidance=guidance, network=self.network())
        task = HTransformTask(config=config, measurements=[measurement], card={"of": scan.name})
        return self.train(f"{scan.name} {guidance}", task)

    def measure(self, htransform: HTransform, scan: Scan, **settings: Any) -> Record:
        """:func:`~deft_ct.workflows.experiments.measures.measure_deft` of an h-transform; a finished cell is read.

        Args:
            htransform: to be measured.
            scan: whose data are reconstructed.
            settings: fields of :class:`~deft_ct.methods.deft.reconstructor.DEFTConfig`.
        """
        identity = [
            htransform.content_hash(), self.prior.content_hash(), htransform.precision, scan.name, self.settings.every,
            self.training.seed, self.settings.samples, settings, self.val.content_hash(),
        ]  # fmt: skip

        def compute() -> Record:
            config = DEFTConfig(**{"batch_size": 16, "calibrated": False, **settings})
            # A copy without its card, which would warn of scans outside of its training.
            bare = HTransform(htransform.config, htransform.schedule, prior_hash=htransform.prior_hash)
            bare.load_state_dict(htransform.state_dict())
            bare.precision = htransform.precision
            count = 1 if config.estimate == "mean" else self.settings.samples
            return measure_deft(DEFT(self.prior, bare, config), self.problem(scan), count)

        return cached_json(self.settings.work / "cells" / f"{content_name('cell', identity)}.json", compute)

    @torch.no_grad()
    def measure_initial(self, scan: Scan, htransform: HTransform | None = None) -> Record:
        """Metrics of the initial reconstruction of an h-transform; of TV if there is none."""
        problem, span, found = self.problem(scan), self.prior.value_range, []
        for y, measurement, _ in problem.batches:
            likelihood = measurement.likelihood(y, span)
            image = None if htransform is None else condition_for(likelihood, htransform).initial
            found.append(likelihood.to_physical(reference_reconstruction(likelihood, "tv") if image is None else image))
        return slice_metrics(HounsfieldScale().to_hu(torch.cat(found))[:, 0].numpy(), problem)

    def protocol(self, *, prior: bool = True) -> Record:
        """Record of everything that the results depend on: data, prior if used, training, versions and machine."""
        used = {"prior": self.prior.card | {"sha256": self.prior.content_hash()}} if prior else {}
        return used | {
            "data": f"ct256, 2x2 means (128 x 128); trained on train ({len(self.source)} slices), measured on val",
            "every": self.settings.every, "series": len(self.val.groups), "seed": self.training.seed,
            "samples": self.settings.samples,
            "training": {key: value for key, value in asdict(self.training).items() if key in _REPORTED},
            "machine": f"{processor_name()}, {torch.get_num_threads()} thread", "versions": versions(),
        }  # fmt: skip


def initial_error(measurement: Measurement) -> float:
    """Expected error of the TV reconstruction of a scan in the prior's range.

    It follows the rule that h-transforms for many scans use, so that a network for a single scan starts equally well.
    """
    y = torch.zeros(1, 1, *measurement.operator.range_shape[-2:])
    features = scan_features(Likelihood(measurement, y, AffineMap(1.0, 0.0)))[0]
    slope = sum(float(a) * b for a, b in zip(features, SPREAD_SLOPES, strict=True))
    return round(HTransformConfig().spread * math.exp(slope), 5)


def footnote(record: Record, slices: int) -> str:
    """Data, intervals, training and machine of a study, in sentences for the foot of a table.

    Args:
        record: with a :meth:`Study.protocol` under ``"protocol"``.
        slices: number of slices that were measured.
    """
    protocol, training = record["protocol"], record["protocol"]["training"]
    return (
        f"Data: {protocol['data']} (every {protocol['every']}: n = {slices} slices of {protocol['series']} series), "
        "whole slices, range 2000 HU. Intervals: 95 %, of the paired differences over slices; each network was trained "
        f"once. Training: {training['steps']} steps of {training['batch_size']} slices, seed {training['seed']}, "
        f"{training['optimizer']} at {training['learning_rate']:g}, {training['precision']}. "
        f"Machine: {protocol['machine']}. Not for clinical use."
    )
