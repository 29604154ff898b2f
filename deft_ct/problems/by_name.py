"""CT problems by the name of their data: what ``--data`` of the commands means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.problem import Problem
from deft_ct.problems.ct import CTProblem

DEFAULT_SCANS = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")
"""Scans that are simulated where the data have no observations of their own and none are named."""


@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """What is taken of the data, and how.

    Args:
        every: keep every k-th image of the whole list.
        limit: keep at most so many of these; all when None.
        seed: of simulated noise.
        batch_size: images at once.
        device: where the data are.

    Raises:
        ValueError: ``every``, ``limit`` or ``batch_size`` is below 1.
    """

    every: int = 1
    limit: int | None = None
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("every", "limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def ct_problems(data: str, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """The problems of a data set.

    Args:
        data: a slice dataset, see :func:`~deft_ct.datasets.packs.pack_path`.
        scans: simulated scans; when None, the data's own observations where they have them, else
            :data:`DEFAULT_SCANS`.
        options: which images, and how.

    Raises:
        FileNotFoundError: the data are not there.
        ReadError: a file of the data is damaged or of another kind.
        ValueError: a name of another form.
    """
    chosen = [Scan.from_name(name) for name in DEFAULT_SCANS] if scans is None else list(scans)
    pack = read_pack(data, options.every, options.limit)
    return [
        CTProblem(pack, scan, seed=options.seed, batch_size=options.batch_size, device=options.device)
        for scan in chosen
    ]
