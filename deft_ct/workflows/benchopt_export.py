"""A suite as a benchmark of benchopt (https://benchopt.github.io), so that its users can run ours.

The folder has benchopt's layout: ``objective.py``, ``datasets/`` and ``solvers/``, and the suite beside them. A data
set of benchopt is a problem of the suite, a solver is a method, and the objective is the mean of each metric over the
images. The files are short and call :class:`SuiteParts`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.evaluation.problem import Floats, Problem
from deft_ct.evaluation.score import values_in_unit
from deft_ct.evaluation.worker import Benchmark
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import atomic_folder
from deft_ct.workflows.benchmark import build_benchmark, with_methods
from deft_ct.workflows.suite import Suite, read_suite

_HEAD = '"""Written by `deft-ct benchmark export`. {}"""\n\nfrom pathlib import Path\n\n'

_OBJECTIVE = (
    _HEAD.format("The mean of each metric over the images of a problem.")
    + """from benchopt import BaseObjective

from deft_ct.workflows.benchopt_export import SuiteParts

SUITE = Path(__file__).parent / "suite.yaml"


class Objective(BaseObjective):
    name = {name!r}
    min_benchopt_version = "1.6"
    requirements = ["pip::deft-ct[benchmark]"]
    sampling_strategy = "run_once"

    def set_data(self, problem):
        self.problem = problem

    def get_objective(self):
        return dict(problem=self.problem)

    def evaluate_result(self, images):
        return SuiteParts(SUITE).judge(self.problem, images)

    def get_one_result(self):
        return dict(images=SuiteParts(SUITE).truth(self.problem))
"""
)

_DATASET = (
    _HEAD.format("A problem: the images of a data set, a measurement and a noise seed.")
    + """from benchopt import BaseDataset

from deft_ct.workflows.benchopt_export import SuiteParts

SUITE = Path(__file__).parents[1] / "suite.yaml"


class Dataset(BaseDataset):
    name = "problem"
    requirements = ["pip::deft-ct[benchmark]"]
    parameters = {{"problem": {problems!r}}}

    def get_data(self):
        SuiteParts(SUITE).check(self.problem)
        return dict(problem=self.problem)
"""
)

_SOLVER = (
    _HEAD.format("A method of the suite.")
    + """from benchopt import BaseSolver

from deft_ct.workflows.benchopt_export import SuiteParts

SUITE = Path(__file__).parents[1] / "suite.yaml"


class Solver(BaseSolver):
    name = {name!r}
    requirements = ["pip::deft-ct[benchmark]"]
    sampling_strategy = "run_once"
    parameters = {{"method": {methods!r}}}

    def set_objective(self, problem):
        self.problem, self.parts = problem, SuiteParts(SUITE)
        self.parts.prepare(problem, self.method)

    def run(self, _):
        self.images = self.parts.reconstruct(self.problem, self.method)

    def get_result(self):
        return dict(images=self.images)
"""
)


@dataclass(frozen=True)
class SuiteParts:
    """The problems and methods of a suite by name, for the files of an exported benchmark.

    Args:
        path: the suite.
    """

    path: Path

    @cached_property
    def benchmark(self) -> Benchmark:
        """The suite, read once for each process."""
        if self.path not in _READ:
            suite = read_suite(self.path)
            _READ[self.path] = build_benchmark(replace(suite, data=tuple(suite.data_names)))
        return _READ[self.path]

    def check(self, problem: str) -> None:
        """Find a problem.

        Raises:
            ValueError: it is not in the suite.
        """
        self._number(problem)

    def prepare(self, problem: str, method: str) -> None:
        """Make data and method, before the time is taken."""
        _ = self._problem(problem).batches, self._method(problem, method)

    def reconstruct(self, problem: str, method: str) -> Floats:
        """``(N, *shape)`` images of a problem in its unit."""
        found, solver = self._problem(problem), self._method(problem, method)
        images = []
        for y, measurement, image_ids in found.batches:
            result = solver.reconstruct(
                y, measurement, num_samples=self.benchmark.samples, seed=found.seed, image_ids=image_ids
            )
            images.append(found.to_numpy(values_in_unit(result)[0]))
        return np.concatenate(images)

    def judge(self, problem: str, images: Floats) -> dict[str, float]:
        """Key of each metric -> mean over the images."""
        found = self._problem(problem)
        values = found.measure(images)
        means = {metric.key: values[metric.name][~np.isnan(values[metric.name])] for metric in found.metrics}
        return {key: float(defined.mean()) for key, defined in means.items() if len(defined)}

    def truth(self, problem: str) -> Floats:
        """``(N, *shape)`` true images of a problem."""
        return self._problem(problem).truth

    def names(self) -> list[str]:
        """Of the problems."""
        return [f"{item.data}, {item.name}, seed {item.seed}" for item in self.benchmark.plan.problems]

    def _number(self, problem: str) -> int:
        if problem not in self.names():
            raise ValueError(f"{self.path} has no problem {problem!r}; it has {'; '.join(self.names())}")
        return self.names().index(problem)

    def _problem(self, problem: str) -> Problem:
        return self.benchmark.problems[self._number(problem)]

    def _method(self, problem: str, method: str) -> Reconstructor:
        return self.benchmark.methods[self._number(problem)][method]


_READ: dict[Path, Benchmark] = {}


def export_benchopt(suite: Suite, folder: Path, *, overwrite: bool = False) -> None:
    """Write a benchmark of benchopt that runs a suite.

    Args:
        suite: the suite; its data must be there, because benchopt lists the problems.
        folder: the target.
        overwrite: replace an earlier export.

    Raises:
        FileExistsError: the folder holds files, and ``overwrite`` is false or they are not of an export.
        FileNotFoundError: data or networks are not there.
    """
    import yaml

    named = with_methods(suite)
    with atomic_folder(folder, overwrite=overwrite, is_own=_is_exported if overwrite else None) as new:
        stored = {key: _plain(value) for key, value in asdict(named).items() if value is not None}
        (new / "suite.yaml").write_text(yaml.safe_dump(stored, sort_keys=False), encoding="utf-8")
        problems = SuiteParts(new / "suite.yaml").names()
        _READ.pop(new / "suite.yaml", None)
        methods = [method.title for method in named.chosen or ()]
        title = named.name or "deft-ct"
        _write(new / "objective.py", _OBJECTIVE.format(name=f"CT reconstruction ({title})"))
        _write(new / "datasets" / "problem.py", _DATASET.format(problems=problems))
        _write(new / "solvers" / "method.py", _SOLVER.format(name="deft-ct", methods=methods))
        _write(new / "README.md", _readme(title, problems, methods))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _is_exported(path: Path) -> bool:
    """A file that an export has written, or what benchopt has made of it."""
    made = ("__pycache__", "__cache__", "outputs")
    known = ("suite.yaml", "objective.py", "problem.py", "method.py", "README.md")
    return path.name in known or any(part in made for part in path.parts)


def _readme(title: str, problems: list[str], methods: list[str]) -> str:
    listed = "\n".join(f"- {item}" for item in problems)
    return (
        f"# {title}\n\nA benchmark of CT reconstruction for [benchopt](https://benchopt.github.io), written by "
        f"`deft-ct benchmark export`.\n\n    pip install benchopt 'deft-ct[benchmark]'\n    benchopt run . -n 1\n\n"
        f"Problems:\n\n{listed}\n\nMethods: {', '.join(methods)}.\n\nResearch only, not for clinical use.\n"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
