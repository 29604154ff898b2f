"""What a chain costs with a method, measured with a few steps."""

from __future__ import annotations

import time
from dataclasses import replace

from deft_ct.workflows.experiments.backbone_problems import ScaffoldProblem
from deft_ct.workflows.experiments.backbone_study import Contender

FEW = 4


def core_hours(contender: Contender, problem: ScaffoldProblem, *, samples: int) -> float:
    """Processor time of one chain in hours, scaled from a few steps to all of them.

    Args:
        contender: the method.
        problem: of a typical length.
        samples: chains at once.
    """
    steps = int(contender.options["steps"])
    few = min(FEW, steps)
    short = replace(contender, options={**contender.options, "steps": few}).build({}, samples)

    def run(count: int) -> None:
        short.reconstruct(
            problem.template[None], problem.measurement, num_samples=count, seed=0, image_ids=[problem.name]
        )  # fmt: skip

    run(1)  # what is set up only once
    began = time.process_time()
    run(samples)
    return (time.process_time() - began) * steps / few / samples / 3600
