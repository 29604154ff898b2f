"""Training pairs of CT whose slices and noise live on the device of the training, for GPUs that a CPU cannot feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deft_ct.ct.pairs import augment_slices
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PerImageMap, PriorRange
from deft_ct.runtime.content_key import content_digest
from deft_ct.training.order import mixed_seed
from deft_ct.training.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class ScanGroup:
    """Slices of one size with the scans that they are measured by.

    Attributes:
        hu: ``(N, H, W)`` int16, on the device of the training.
        pixel_mm: ``(N,)`` float32, there, too.
        measurements: with a pixel of 1 mm, on the device.
        weights: how often each is drawn, relative to those of all groups.
        batch: images of one draw.
        refine: grid refinement of the simulation.
    """

    hu: Tensor
    pixel_mm: Tensor
    measurements: Sequence[Measurement]
    weights: Sequence[float]
    batch: int
    refine: int = 2


class ResidentPairs:
    """Draws pairs from groups of slices; the group and the scan are drawn anew each time.

    The noise is drawn on the device, so results differ between devices, unlike those of
    :class:`~deft_ct.ct.pairs.SlicePairs`. On one device a draw depends on the indices and the generator alone.

    Args:
        groups: each with at least one slice and one scan, all on one device.
        value_range: HU of -1 and +1.

    Raises:
        ValueError: there is no group, or one is empty.
    """

    def __init__(self, groups: Sequence[ScanGroup], value_range: PriorRange | None = None) -> None:
        if not groups or not all(len(group.hu) and group.measurements for group in groups):
            raise ValueError("there must be at least one group, each with slices and scans")
        self.groups = list(groups)
        self.value_range = value_range or PriorRange()
        self.measurements = [m for group in groups for m in group.measurements]
        self._weights = torch.tensor([w for group in groups for w in group.weights], dtype=torch.float64)
        self._group = [number for number, group in enumerate(groups) for _ in group.measurements]

    def __len__(self) -> int:
        return max(len(group.hu) for group in self.groups)

    def description(self) -> dict[str, Any]:
        """What the pairs are drawn from, JSON-ready."""
        scans = [{k: v for k, v in m.describe().items() if k != "backend"} for m in self.measurements]
        parts = [[g.hu, g.pixel_mm, g.batch, g.refine] for g in self.groups]
        digest = content_digest(value for part in parts for value in part)
        return {"scans": scans, "weights": self._weights.tolist(), "slices_sha256": digest}

    def draw(self, indices: Tensor, generator: torch.Generator) -> Pairs:
        """Augmented slices with fresh data.

        Args:
            indices: int64 ``(B,)`` on the CPU; a group takes as many of them as its batch has.
            generator: on the device of the training.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        host = torch.Generator().manual_seed(seed)
        choice = int(torch.multinomial(self._weights, 1, generator=host))
        group = self.groups[self._group[choice]]
        measurement = self.measurements[choice]
        chosen = (indices[: group.batch] % len(group.hu)).to(group.hu.device)
        if len(group.hu) < len(self):  # a small group would always show the same slices with the same partners
            chosen = torch.randint(len(group.hu), (len(chosen),), generator=host).to(group.hu.device)
        images = augment_slices(group.hu[chosen].float()[:, None], host)
        noise = torch.Generator(group.hu.device)
        noise.manual_seed(mixed_seed(seed, 1, 0))
        return self._measured(images, group.pixel_mm[chosen], measurement, group.refine, noise)

    @torch.no_grad()
    def _measured(
        self, hu: Tensor, pixel_mm: Tensor, measurement: Measurement, refine: int, noise: torch.Generator
    ) -> Pairs:
        affine = measurement.scale_to(self.value_range)
        width = pixel_mm.reshape(-1, 1, 1, 1)
        to_physical = PerImageMap(width * affine.scale, width * affine.offset)
        x0 = self.value_range.to_prior(hu)
        clean = measurement.noise_free(to_physical(x0), refine=refine)
        return Pairs(x0=x0, likelihood=Likelihood(measurement, measurement.noise.sample(clean, noise), to_physical))
