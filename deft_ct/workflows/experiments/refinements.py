"""Refinements of the TV reconstruction: one network for any scan, and specialists for single scans.

A refinement is a network that improves the initial reconstruction before DEFT starts. All of them are trained at equal
cost, for the same number of steps and from tables of the same size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.datasets.halved import halved_scan
from deft_ct.evaluation.store import Record, cached_json, content_name
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import load_refinement, save_refinement
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.initial_table import ReferenceTable, TableConfig, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.networks import UNetConfig
from deft_ct.problems.ct_metrics import evaluate
from deft_ct.training import TrainingConfig
from deft_ct.workflows.experiments.measures import RANGE_HU
from deft_ct.workflows.experiments.study import Study, initial_error

AMORTISED = "any scan"
"""Label of the network for any scan."""
NAMED_SCANS = (
    "parallel20_1e5", "parallel60_1e5", "parallel120_1e5", "fan60_1e5", "parallel60_1e5_120deg", "parallel60_1e4",
)  # fmt: skip
"""Scans that the network for any scan is trained on in half of its batches, and that all networks are measured on."""
LEARNING_RATE = 6e-3
MOMENTUM = 0.9


def refinement_training(training: TrainingConfig, steps: int) -> TrainingConfig:
    """A training with the optimiser settings that suit refinements, and another number of steps."""
    return replace(training, steps=steps, learning_rate=LEARNING_RATE, momentum=MOMENTUM, optimizer="muon")


@dataclass(frozen=True, kw_only=True)
class RefinementSettings:
    """What all refinements have in common.

    Args:
        network: as in the shipped refinement.
        batches: batches of initial reconstructions in the table of each refinement.
        tv_iterations: of the initial reconstruction.
        scans: range of the random scans.
        geometries: number of random geometries.
        noise_levels: number of noise levels of each.
    """

    network: UNetConfig = field(
        default_factory=lambda: UNetConfig(
            channels=(32, 64, 96, 128), attention=(False,) * 4, patch=2, norm_groups=8, scale_shift=True
        )
    )
    batches: int = 640
    tv_iterations: int = 40
    scans: ScanRange = field(default_factory=ScanRange)
    geometries: int = 32
    noise_levels: int = 4


@dataclass(frozen=True, kw_only=True)
class TrainedRefinement:
    """A refinement and the data that it was trained with.

    Args:
        refinement: the network.
        pairs: source of its slices and data.
        table_config: how its initial reconstructions are computed.
        folder: where they are kept.
    """

    refinement: Refinement
    pairs: SlicePairs
    table_config: TableConfig
    folder: Path

    def references(self) -> ReferenceTable:
        """The initial reconstructions, read from the folder; missing ones are computed."""
        found = tabulate(self.pairs, self.table_config, self.folder, progress=False)
        assert found is not None  # there is no time limit
        return found


class RefinementStudy:
    """Trains refinements once, and measures them.

    Args:
        study: slices, training and folder.
        settings: what all refinements have in common.
    """

    def __init__(self, study: Study, settings: RefinementSettings) -> None:
        self.study, self.settings = study, settings

    def for_any_scan(self, scans: Sequence[Scan]) -> TrainedRefinement:
        """The refinement for any scan; half of its batches show the given scans, half random ones."""
        config = RefinementConfig(scan_features=True, spread_slopes=SPREAD_SLOPES, network=self.settings.network)
        seed, levels = self.study.training.seed, self.settings.noise_levels
        drawn = [halved_scan(scan) for scan in self.settings.scans.draw(self.settings.geometries, seed, levels=levels)]
        measurements = unit_measurements([*scans, *drawn], self.study.source.image_shape, self.study.pixel_mm)
        weights = [0.5 / len(scans)] * len(scans) + [0.5 / len(drawn)] * len(drawn)
        pairs = SlicePairs(self.study.source, measurements, PriorRange(), weights=weights)
        return self._train(AMORTISED, config, pairs, self.study.training, self.settings.batches)

    def for_scan(self, scan: Scan) -> TrainedRefinement:
        """A specialist: all of its batches show one scan."""
        pairs = self._pairs(scan)
        config = RefinementConfig(spread=initial_error(pairs.measurements[0]), network=self.settings.network)
        return self._train(scan.name, config, pairs, self.study.training, self.settings.batches)

    def fine_tune(self, scan: Scan, initial: Refinement, steps: int) -> TrainedRefinement:
        """A refinement that is trained further on one scan, at a third of the learning rate."""
        full = self.study.training
        training = replace(full, steps=steps, learning_rate=full.learning_rate / 3, warmup=10)
        batches = math.ceil(self.settings.batches * steps / full.steps)
        return self._train(f"any to {scan.name}", initial.config, self._pairs(scan), training, batches, initial)

    def _pairs(self, scan: Scan) -> SlicePairs:
        return SlicePairs(self.study.source, [self.study.measurement(scan)], PriorRange())

    def _train(
        self, label: str, config: RefinementConfig, pairs: SlicePairs, training: TrainingConfig, batches: int,
        initial: Refinement | None = None,
    ) -> TrainedRefinement:  # fmt: skip
        table_config = TableConfig(
            batches=batches, batch_size=training.batch_size, tv_iterations=self.settings.tv_iterations,
            scan_features=config.scan_features, seed=training.seed,
        )  # fmt: skip
        identity: list[Any] = [config.to_dict(), asdict(training), table_config.to_dict(), pairs.description()]
        identity += [initial.content_hash()] if initial else []
        folder = self.study.settings.work / "refinements" / content_name(label, *identity)
        if not (folder / "refinement" / "refinement.json").is_file():
            began = time.process_time()
            made = train_refinement(
                Tabulated(pairs=pairs, table=table_config), folder, config=config, training=training, initial=initial,
                progress=False,
            )  # fmt: skip
            if made is None:
                raise ValueError(f"{label}: the time limit came before the initial reconstructions were complete")
            made.card |= {"training_steps": training.steps, "seconds": round(time.process_time() - began)}
            save_refinement(made, folder / "refinement", dtype=torch.float32)
            self.study.log(f"{label}: trained, {made.card['seconds']} s of one core")
        return TrainedRefinement(
            refinement=load_refinement(folder / "refinement"), pairs=pairs, table_config=table_config,
            folder=folder / "references",
        )  # fmt: skip

    @torch.no_grad()
    def psnr(self, scan: Scan, refinement: Refinement | None) -> list[float]:
        """PSNR (dB) of every slice after the refinement; of TV alone if there is none."""
        name = "tv" if refinement is None else refinement.content_hash()
        identity = (
            name, scan.name, self.study.settings.every, self.study.training.seed, self.settings.tv_iterations,
            self.study.val.content_hash(),
        )  # fmt: skip
        path = self.study.settings.work / "cells" / f"{content_name('refined', *identity)}.json"

        def compute() -> Record:
            problem, span, images = self.study.problem(scan), PriorRange(), []
            for y, measurement, _ in problem.batches:
                likelihood = measurement.likelihood(y, span)
                image = reference_reconstruction(likelihood, "tv", iterations=self.settings.tv_iterations)
                if refinement is not None:
                    features = scan_features(likelihood) if refinement.config.scan_features else None
                    image = refinement(image, refinement.guidance.of_initial(likelihood, image, 1.0), features)
                images.append(span.affine(image)[:, 0].numpy())
            found = evaluate(np.concatenate(images), problem.truth, data_range_hu=RANGE_HU, body=problem.body)
            return {"psnr_db": found.psnr.tolist()}

        return list(cached_json(path, compute)["psnr_db"])
