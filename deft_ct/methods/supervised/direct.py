"""Trained methods that give one image for each measurement, without samples."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.reconstruction import Estimate, Request
from deft_ct.runtime.fields import check_fields


@dataclass(frozen=True, kw_only=True)
class DirectConfig:
    """Settings of a :class:`DirectReconstructor`.

    Attributes:
        batch_size: images at once; changes memory and speed, not results.

    Raises:
        ValueError: it is below 1.
    """

    batch_size: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


class DirectReconstructor(TrainedReconstructor):
    """A network, and what it needs of the data, evaluated once for each image."""

    config_type: ClassVar[type] = DirectConfig

    @abc.abstractmethod
    def _image(self, likelihood: Likelihood) -> Tensor:
        """The images of some data, ``(B, C, H, W)`` in the range of the model."""

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        likelihood = self._likelihood(request)
        parts = []
        with self._bar(request, len(request.y)) as tick:
            for start in range(0, len(request.y), self.config.batch_size):
                parts.append(self._image(likelihood[start : start + self.config.batch_size]))
                tick(len(parts[-1]))
        return Estimate(mean=likelihood.to_physical(torch.cat(parts)))
