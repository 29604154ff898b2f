"""Motif problems of the experiments on backbones: what is known of a chain, and how its samples are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deft_ct.datasets.backbones import BackboneFile, BenchmarkMotif, MotifCut
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.noise import GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scaffolds import placed_motif, scores, segment_ends
from deft_ct.protein.scale import Angstrom
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.seeds import generator_for

TOLERANCE = 0.1
"""Standard deviation of the coordinates of a motif, angstrom."""


@dataclass(frozen=True, kw_only=True)
class ScaffoldProblem:
    """A motif with its places in a chain.

    Attributes:
        name: of the problem.
        motif: the operator.
        template: ``(M, 3)`` float32 coordinates of the motif, angstrom: its data.
        ends: first residue of each segment, and one more than its last.
    """

    name: str
    motif: Motif
    template: Tensor
    ends: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Residues of the chain."""
        return int(self.motif.domain_shape[0])

    @property
    def measurement(self) -> Measurement:
        """What is known of a chain."""
        return Measurement(self.motif, GaussianNoise(TOLERANCE), units=Angstrom())

    def content(self) -> list[Any]:
        """All that the data depend on, for content keys."""
        return [self.name, TOLERANCE, self.motif.describe(), content_digest([self.template])]


def cut_problem(cut: MotifCut) -> ScaffoldProblem:
    """The motif of a chain, in its own place."""
    motif = Motif(len(cut.chain), range(cut.start, cut.stop), cut.template)
    return ScaffoldProblem(name=cut.name, motif=motif, template=cut.template, ends=((cut.start, cut.stop),))


def benchmark_problem(motif: BenchmarkMotif, seed: int) -> ScaffoldProblem:
    """A motif of the RFdiffusion benchmark in a chain of its fixed length; its place is drawn.

    Args:
        motif: the problem.
        seed: of the place. All samples of a seed share it, so that they can be drawn at once.

    Raises:
        ValueError: the contig does not allow the length.
    """
    places = motif.contig.place(generator_for(seed, "contig", motif.name), (motif.length, motif.length))
    template = torch.cat(motif.segments)
    return ScaffoldProblem(
        name=motif.name, motif=placed_motif(motif.contig, places, template), template=template,
        ends=tuple(segment_ends(motif.contig, places)),
    )  # fmt: skip


def problems(file: BackboneFile, group: str, seed: int, limit: int | None = None) -> list[ScaffoldProblem]:
    """The problems of a group.

    Args:
        file: holds them.
        group: ``"val"`` to tune on; ``"test"`` and ``"benchmark"``, the benchmark motifs of one segment, to judge.
        seed: of the places of the benchmark motifs.
        limit: take the first ones only.

    Raises:
        ValueError: there is no such group.
    """
    if group == "benchmark":
        single = [motif for motif in file.benchmark_motifs() if len(motif.segments) == 1]
        return [benchmark_problem(motif, seed) for motif in single[:limit]]
    if group not in ("val", "test"):
        raise ValueError(f"unknown group of problems {group!r}; known: val, test, benchmark")
    return [cut_problem(cut) for cut in file.motif_cuts("val" if group == "val" else "test")[:limit]]


def scaffold_scores(
    method: Reconstructor, problem: ScaffoldProblem, *, samples: int, seed: int
) -> tuple[list[dict[str, Any]], Tensor]:
    """Scores of the samples of a method for one problem, with the evaluations and seconds of each; and the samples.

    Returns:
        One row for each sample, and ``(S, N, 3)`` chains in angstrom.
    """
    result = method.reconstruct(
        problem.template[None], problem.measurement, num_samples=samples, seed=seed, image_ids=[problem.name]
    )  # fmt: skip
    chains = (result.mean[:, None] if result.samples is None else result.samples)[0]
    cost = result.provenance
    each = {
        "evaluations": cost["network_evaluations_per_image"] / samples, "seconds": cost["seconds_per_image"] / samples
    }  # fmt: skip
    return [scores(chain, problem.motif, list(problem.ends)).to_dict() | each for chain in chains], chains
