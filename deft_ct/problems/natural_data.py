"""Problems of photographs by the name of their data: what ``photos:...`` means to the commands that judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal

from deft_ct.datasets.images import PhotoCrops
from deft_ct.datasets.photographs import PREFIX, photographs
from deft_ct.evaluation.problem import Problem
from deft_ct.problems.natural import ImageSource, NaturalProblem
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.problems.options import ProblemOptions
from deft_ct.problems.task_keys import NOISE_KEYS
from deft_ct.runtime.search_space import Range, SearchSpace

NATURAL_STEPS: Mapping[str, Mapping[str, Any]] = {
    "cgls": {}, "tikhonov": {}, "tv": {}, "sirt": {},
    "ddrm": {"steps": 20}, "dds": {"steps": 50}, "ddnm": {"steps": 50}, "diffpir": {"steps": 50},
    "pigdm": {"steps": 50}, "daps": {"steps": 40, "ode_steps": 4}, "reddiff": {"steps": 150}, "dps": {"steps": 200},
    "mcg": {"steps": 200}, "reconstruction_guidance": {"steps": 200}, "deft": {"steps": 10},
}  # fmt: skip
"""Fixed options of every method that applies to photographs: steps that a CPU affords."""

NATURAL_RANGES: Mapping[str, SearchSpace] = {
    "tv": {"strength": Range(0.2, 200.0, log=True)},
    "tikhonov": {"strength": Range(0.5, 5000.0, log=True)},
}
"""Where ``deft-ct tune`` searches for photographs, of methods whose own ranges are in the units of CT."""


def natural_problems(
    data: str, tasks: Sequence[str], options: ProblemOptions, *, split: Literal["train", "test"] = "test"
) -> list[Problem]:
    """The problems of photographs: one for each task.

    Args:
        data: ``photos:FILE`` or ``photos:FOLDER[@LIST][:SIZE]``, see
            :func:`~deft_ct.datasets.photographs.photographs`.
        tasks: texts for :func:`~deft_ct.problems.natural_by_name.parse_task`.
        options: which images, and how.
        split: which part of a file of crops; a folder has none.

    Raises:
        FileNotFoundError: the data are not there.
        ReadError: a file of the data is damaged or of another kind.
        ValueError: a name of another form, no task, or images that do not suit it.
    """
    if not tasks:
        raise ValueError("photographs need a task, for example sr4 or dps/sr4")
    wanted = [parse_task(text) for text in tasks]  # before the pictures are read
    images = photographs(data, split)
    source = ImageSource(
        name=data.removeprefix(PREFIX).rstrip("/").rpartition("/")[2], images=images,
        split=split if isinstance(images, PhotoCrops) else None, every=options.every, limit=options.limit,
    )  # fmt: skip
    return [
        NaturalProblem.of_task(
            source, task, seed=options.seed, batch_size=options.batch_size, device=options.device
        )
        for task in wanted
    ]  # fmt: skip


def with_noise(tasks: Sequence[str], noise: Sequence[float] | None) -> list[str]:
    """Tasks x noise levels; the tasks as they are where no level is given.

    Raises:
        ValueError: a task that names its own noise meets levels for all.
    """
    if noise is None:
        return list(tasks)
    named = [text for text in tasks if NOISE_KEYS.keys() & dict(parse_task(text).given)]
    if named:
        raise ValueError(f"noise is there twice: {named[0]!r} names its own, and there are levels for all tasks")
    return [f"{text}{',' if ':' in text else ':'}noise={level:g}" for text, level in product(tasks, noise)]
