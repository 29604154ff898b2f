"""Photographs: a degradation of images in [-1, 1], judged by PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.evaluation.alignment import aligned
from deft_ct.evaluation.metrics import psnr, rmse, ssim
from deft_ct.evaluation.perceptual import gmsd, lpips, lpips_missing
from deft_ct.evaluation.problem import Batch, Floats, Metric, SingleMeasurementProblem
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.image.conventions import ImageShape
from deft_ct.problems.natural_by_name import NaturalTask, parse_task
from deft_ct.problems.natural_draws import draws_for_images, operator_of_images
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

NATURAL_METRICS = (
    Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest"),
    Metric(name="rmse", key="rmse", heading="RMSE", digits=4, best="lowest"),
    Metric(name="gmsd", key="gmsd", heading="GMSD", digits=4, best="lowest"),
)
"""Of the whole image, all channels, at the data range 2 of images in [-1, 1]; GMSD is of the luminance."""

LPIPS = Metric(name="lpips", key="lpips", heading="LPIPS", digits=4, best="lowest")
"""Measured where its weights are at hand, see :mod:`deft_ct.evaluation.perceptual`."""

VALUE_RANGE = (-1.0, 1.0)
DATA_RANGE = VALUE_RANGE[1] - VALUE_RANGE[0]


class Images(Protocol):
    """What a data set of photographs offers, see :mod:`deft_ct.datasets.images`."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, n: int) -> Tensor:
        """Image ``n``, ``(C, H, W)`` in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Images and where they come from.

    Args:
        name: of the data set.
        images: the data set, with values in [-1, 1].
        split: which part of the data it is; None if that is not known.
        every: every k-th image is judged.
        limit: at most so many of these are; all when None.

    Raises:
        ValueError: ``every`` or ``limit`` is below 1, or there is no image.
    """

    name: str
    images: Images
    split: DataSplit | None = None
    every: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not len(self.images):
            raise ValueError(f"{self.name} holds no images")

    @property
    def positions(self) -> list[int]:
        """Of the images that are judged."""
        return list(range(0, len(self.images), self.every))[: self.limit]

    @property
    def image_shape(self) -> ImageShape:
        """``(C, H, W)`` of the first image."""
        channels, height, width = self.images[0].shape
        return channels, height, width


@dataclass(frozen=True)
class NaturalProblem(SingleMeasurementProblem):
    """Photographs with one measurement for all of them.

    Args:
        source: the images.
        label: name of the measurement; presets are stored by it.
        measurement: of images in [-1, 1].
        seed: of the noise.
        batch_size: images at once.
        device: where the data are.
        task: that the measurement is of, if it has a name. Masks and kernels that it draws by chance are then drawn for
            each image; ``measurement`` holds one of them.
    """

    source: ImageSource
    label: str
    measurement: Measurement
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"
    task: NaturalTask | None = None

    metrics = NATURAL_METRICS if lpips_missing() else (*NATURAL_METRICS, LPIPS)
    group_noun = "photograph"
    kind = "photograph"

    @classmethod
    def of_task(
        cls, source: ImageSource, task: NaturalTask, *, seed: int = 0, batch_size: int = 8, device: str = "cpu"
    ) -> NaturalProblem:
        """A degradation by name, see :mod:`deft_ct.problems.natural_by_name`.

        Args:
            source: the images.
            task: of :func:`~deft_ct.problems.natural_by_name.parse_task`.
            seed: of masks, kernels and noise.
            batch_size: images at once.
            device: where the data are.

        Raises:
            ValueError: the images do not suit the task.
        """
        operator, noise = task.build(source.image_shape, seed=seed)
        return cls(
            source, task.label, Measurement(operator, noise), seed=seed, batch_size=batch_size, device=device, task=task
        )  # fmt: skip

    @cached_property
    def own_operators(self) -> bool:
        """Whether every image has a mask or a kernel of its own."""
        return self.task is not None and draws_for_images(self.task, self.source.image_shape)

    def simulate(self) -> list[Batch]:
        """Simulated data of every image; they, and a random mask or kernel, depend on seed and position alone."""
        if self.task is None or not self.own_operators:
            return super().simulate()
        made = []
        for names in self.batch_names():
            operator = operator_of_images(self.task, self.source.image_shape, seed=self.seed, image_ids=names)
            measurement = Measurement(operator, self.measurement.noise).to(self.device)
            x = self.images_at([int(name) for name in names]).to(self.device)
            made.append(Batch(measurement.simulate(x, seed=self.seed, image_ids=names), measurement, names))
        return made

    @classmethod
    def of_convention(
        cls, source: ImageSource, convention: str, task: str, *, seed: int = 0, batch_size: int = 8, device: str = "cpu"
    ) -> NaturalProblem:
        """A published problem under its own parameters, see :mod:`deft_ct.operators.image.conventions`.

        Args:
            source: the images.
            convention: for example ``"dps"``.
            task: one of ``presets()[convention]``, for example ``"sr4"``.
            seed: of masks, kernels and noise.
            batch_size: images at once.
            device: where the data are.

        Raises:
            ValueError: convention or task is unknown, or the images do not suit it.
        """
        found = parse_task(f"{convention}/{task}")
        return cls.of_task(source, found, seed=seed, batch_size=batch_size, device=device)

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.source.name

    @property
    def split(self) -> DataSplit | None:
        """That of the images."""
        return self.source.split

    @property
    def positions(self) -> list[int]:
        """Every k-th image."""
        return self.source.positions

    def images_at(self, positions: list[int]) -> Tensor:
        """``(B, C, H, W)`` in [-1, 1]."""
        return torch.stack([self.source.images[n] for n in positions])

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """Metrics of ``(N, C, H, W)`` in [-1, 1], see :data:`NATURAL_METRICS`.

        Images of phase retrieval are aligned with the truth first, see :func:`~deft_ct.evaluation.alignment.aligned`.
        """
        if self.measurement.operator.has_equivalents:
            images = aligned(images, self.truth)
        found = {
            "psnr": psnr(images, self.truth, data_range=DATA_RANGE),
            "ssim": ssim(images, self.truth, data_range=DATA_RANGE),
            "rmse": rmse(images, self.truth),
            "gmsd": gmsd(images, self.truth, value_range=VALUE_RANGE),
        }
        return found | ({"lpips": lpips(images, self.truth)} if LPIPS in self.metrics else {})

    def settings(self) -> dict[str, Any]:
        """Data, seed and data range."""
        return {
            "data": self.data, "data_sha256": self._images_hash, "every": self.source.every,
            "limit": self.source.limit, "images": len(self), "seed": self.seed, "data_range": DATA_RANGE,
            "masks_and_kernels": "of each image" if self.own_operators else "shared",
        }  # fmt: skip

    def shared_content(self) -> dict[str, Any]:
        """Everything but the images themselves, see :meth:`image_contents`."""
        of_the_set = ("data_sha256", "every", "limit", "images")
        return {name: value for name, value in self.content().items() if name not in of_the_set}

    def image_contents(self) -> list[str]:
        """Of each image its pixels; its data are simulated from them and its name."""
        return [content_digest([self.source.images[n]]) for n in self.positions]

    @cached_property
    def _images_hash(self) -> str:
        return content_digest(self.source.images[n] for n in self.positions)

    def conventions(self) -> str:
        """Data, PSNR and SSIM in words."""
        return (
            f"Data: {self.data}, every {self.source.every}. Images in [-1, 1]; PSNR and SSIM: all pixels and channels, "
            f"data range {DATA_RANGE:g}, nothing clipped; GMSD: of the luminance, without weights. "
            f"{lpips_missing() or 'LPIPS: AlexNet, on [-1, 1]'}. FID and KID are of whole sets and not in the tables: "
            "`deft-ct data distance` measures them on the pictures of --pictures. A random mask or kernel is drawn for "
            "each image; all images of a task and seed share other random parts."
            + (
                " Turned and shifted images have the same data: the nearest to the truth is judged, in each channel."
                if self.measurement.operator.has_equivalents
                else ""
            )
        )
