"""Motifs without the chains that they came from: the data of a training by stochastic control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.noise import GaussianNoise
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.motif_pairs import random_segment
from deft_ct.protein.scale import BACKBONE_RANGE, Angstrom
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.seeds import derive_seed


class MotifMeasurements:
    """One motif of each chain, in a chain of its length; of the chain itself nothing else is used.

    The motif is a segment by the rule of the training pairs (:func:`~deft_ct.protein.motif_pairs.random_segment`),
    drawn once. Its data are its residues, with noise.

    Args:
        chains: ``(N, 3)`` each, angstrom.
        tolerance: standard deviation of the data, angstrom.
        seed: of the segments and of the noise.
    """

    def __init__(self, chains: list[Tensor], tolerance: float, *, seed: int = 0) -> None:
        self._tolerance, self._seed = tolerance, seed
        self._lengths = [len(chain) for chain in chains]
        self._starts, self._motifs = [], list[Tensor]()
        for number, chain in enumerate(chains):
            host = torch.Generator().manual_seed(derive_seed(seed, "motif", number))
            start, stop = random_segment(len(chain), host)
            self._starts.append(start)
            self._motifs.append(chain[start:stop].float().clone())

    def __len__(self) -> int:
        return len(self._motifs)

    def likelihood(self, indices: Tensor) -> Likelihood:
        """The data of one motif, the same at every call.

        Args:
            indices: int64 ``(1,)``: chains of different lengths cannot be in one batch.

        Raises:
            ValueError: there are several indices.
        """
        if len(indices) != 1:
            raise ValueError(f"motifs in chains of different lengths are taken one at a time, got {len(indices)}")
        number = int(indices[0])
        motif, start = self._motifs[number], self._starts[number]
        operator = Motif(self._lengths[number], range(start, start + len(motif)), motif)
        measurement = Measurement(operator, GaussianNoise(self._tolerance), units=Angstrom())
        host = torch.Generator().manual_seed(derive_seed(self._seed, "measurement", number))
        noise = self._tolerance * torch.randn(motif.shape, generator=host)
        return measurement.likelihood((motif + noise)[None], BACKBONE_RANGE)

    def description(self) -> dict[str, Any]:
        """Motifs by their content, places, tolerance and seed, JSON-ready."""
        return {
            "data": content_digest([*self._motifs, self._starts, self._lengths]), "tolerance": self._tolerance,
            "motif_seed": self._seed,
        }  # fmt: skip
