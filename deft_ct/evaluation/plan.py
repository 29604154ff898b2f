"""What a benchmark consists of: problems, methods on them, and batches; the key of every result is its content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from deft_ct.evaluation.problem import Problem
from deft_ct.networks import weights_digest
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.content_key import ContentKey, content_digest, result_versions
from deft_ct.runtime.fields import from_values

_LIBRARIES = ("numpy", "scipy", "scikit-image")
"""Besides deft-ct and PyTorch: libraries that the numbers of a row depend on."""

Methods = Mapping[str, Reconstructor]
"""Label in the tables -> method."""


@dataclass(frozen=True, kw_only=True)
class PlannedProblem:
    """The images of one problem, as they are stored.

    Attributes:
        data: name of the data set.
        split: which part of it; empty if that is not known.
        name: of the measurement.
        seed: of noise and sampling.
        image_ids: name of each image.
        patients: of each image.
        contents: digest of each image, see ``Problem.image_contents``.
        batches: number of images in each batch.
    """

    data: str
    split: str
    name: str
    seed: int
    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    contents: tuple[str, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One method on one problem.

    Attributes:
        key: digest of all that its rows depend on, but the image.
        problem: number of the problem.
        label: of the method.
        protocol: the parts of the key that are not of the method, as JSON.
    """

    key: str
    problem: int
    label: str
    protocol: str


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One method on one batch: what a worker does in one go.

    Attributes:
        cell: number of the cell.
        batch: number of the batch.
        images: numbers of its images within the problem.
        name: of its file; depends on the content of the cell and of the images.
    """

    cell: int
    batch: int
    images: range
    name: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every row that a benchmark will have, in the order of the final table.

    Attributes:
        problems: what is judged.
        cells: methods on problems.
    """

    problems: tuple[PlannedProblem, ...]
    cells: tuple[PlannedCell, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: two workers with the same do the same work."""
        return content_digest([self.to_dict()])

    def units(self) -> list[Unit]:
        """All batches of all cells."""
        return list(self._units())

    def rows(self) -> Iterator[tuple[PlannedCell, str, str]]:
        """Cell, name and content of the image of every row, in order."""
        for cell in self.cells:
            problem = self.problems[cell.problem]
            for image_id, content in zip(problem.image_ids, problem.contents, strict=True):
                yield cell, image_id, content

    def images_of(self, unit: Unit) -> list[tuple[str, str]]:
        """Name and content of each image of a unit."""
        problem = self.problems[self.cells[unit.cell].problem]
        return [(problem.image_ids[n], problem.contents[n]) for n in unit.images]

    def _units(self) -> Iterator[Unit]:
        for number, cell in enumerate(self.cells):
            problem, first = self.problems[cell.problem], 0
            for batch, count in enumerate(problem.batches):
                images = range(first, first + count)
                content = content_digest([(problem.image_ids[n], problem.contents[n]) for n in images])
                yield Unit(cell=number, batch=batch, images=images, name=f"{cell.key[:24]}-{content[:16]}")
                first += count

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: it is something else.
        """
        if set(stored) != {"problems", "cells"}:
            raise ValueError(f"expected the keys problems and cells, got {', '.join(stored)[:100]}")
        return cls(
            problems=tuple(from_values(PlannedProblem, item) for item in stored["problems"]),
            cells=tuple(from_values(PlannedCell, item) for item in stored["cells"]),
        )


def make_plan(problems: Sequence[Problem], methods: Sequence[Methods], *, samples: int) -> Plan:
    """The plan of methods on problems.

    Args:
        problems: what is judged.
        methods: those of each problem.
        samples: posterior samples of each image.

    Raises:
        ValueError: two images of a problem have the same name, or two problems with the same data and settings.
    """
    planned, cells = [], []
    for number, (problem, chosen) in enumerate(zip(problems, methods, strict=True)):
        names = problem.batch_names()
        image_ids = tuple(name for batch in names for name in batch)
        if len(set(image_ids)) < len(image_ids):
            double = next(name for n, name in enumerate(image_ids) if name in image_ids[:n])
            raise ValueError(f"{problem.data}: two images are called {double!r}; names must differ")
        planned.append(
            PlannedProblem(
                data=problem.data, split=problem.split or "", name=problem.name, seed=problem.seed,
                image_ids=image_ids, patients=tuple(problem.patients), contents=tuple(problem.image_contents()),
                batches=tuple(len(batch) for batch in names),
            )
        )  # fmt: skip
        shared = _protocol(problem, samples)
        protocol = json.dumps(ContentKey(shared).parts, sort_keys=True)
        cells += [
            PlannedCell(key=_key(shared, label, method), problem=number, label=label, protocol=protocol)
            for label, method in chosen.items()
        ]
    double_keys = len({cell.key for cell in cells}) < len(cells)
    if double_keys:
        raise ValueError("a problem is there twice: name data, scans and seeds once each")
    return Plan(problems=tuple(planned), cells=tuple(cells))


def _protocol(problem: Problem, samples: int) -> dict[str, Any]:
    """Everything that the rows of a problem depend on, but the method and the image."""
    return {
        "data": problem.data, "split": problem.split, "problem": problem.name, "seed": problem.seed,
        "samples": samples, "batch_size": problem.batch_size, "device": problem.device,
        "metrics": [metric.key for metric in problem.metrics],
        "versions": result_versions() | {name: version(name) for name in _LIBRARIES},
        "content": problem.shared_content(),
    }  # fmt: skip


def _key(shared: Mapping[str, Any], label: str, method: Reconstructor) -> str:
    described = {
        "name": method.name, "config": asdict(method.config), "networks": method.describe(),
        "weights": weights_digest(method),
    }  # fmt: skip
    return ContentKey({**shared, "label": label, "method": described}).digest
