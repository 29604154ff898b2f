"""The frozen, unconditional diffusion model that every diffusion method of the package starts from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deft_ct.diffusion.schedule import Schedule
from deft_ct.diffusion.slices import slice_by_slice
from deft_ct.measurement.scales import AffineMap, PriorRange
from deft_ct.networks import channel_axis, content_hash
from deft_ct.networks.precision import Precision, check_precision, network_precision
from deft_ct.runtime.evaluations import add_evaluations

Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample")


class Prior(nn.Module):
    """A diffusion model of clean images, frozen.

    Args:
        network: maps ``(x_t, t)`` with ``x_t`` ``(B, *image_shape)`` and ``t`` ``(B,)`` to a tensor of as many
            channels. If the model also predicts a variance (Nichol and Dhariwal 2021), there are twice as many; the
            second half is not used.
        schedule: the noise schedule it was trained with.
        prediction: what the network predicts, in diffusers' words.
        value_range: values, in the unit of a scale (HU for CT), of -1 and +1; None for a domain without a scale.
        image_shape: of the training data: ``(C, H, W)`` for images, ``(N, F)`` for points. Networks without a fixed
            size accept other sides and other numbers of points.
        card: free JSON metadata (data, licences, training), kept with the model.
        precision: of the network evaluations, see ``network_precision``; not a part of the model.

    Raises:
        ValueError: ``prediction`` or ``precision`` is unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        *,
        prediction: Prediction = "epsilon",
        value_range: PriorRange | None = None,
        image_shape: tuple[int, ...] = (1, 256, 256),
        card: dict[str, Any] | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(PREDICTIONS)}")
        self.network = network.eval().requires_grad_(False)
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.value_range = value_range
        self.image_shape = tuple(image_shape)
        self.card = dict(card or {})
        self.precision = check_precision(precision)
        self.evaluations = 0
        """Network evaluations so far, one for each image of each call: the cost that methods are compared by."""

    def train(self, mode: bool = True) -> Prior:
        """A prior stays in evaluation mode: it is never trained after loading."""
        return super().train(False)

    @property
    def is_image(self) -> bool:
        """Whether the first axis of an image numbers channels and the others may have any length."""
        return len(self.image_shape) == 3

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the prior takes images of a shape: any ``(channels, H, W)``, or any number of points."""
        if self.is_image:
            return len(shape) == 3 and shape[0] == self.channels
        return len(shape) == len(self.image_shape) and shape[-1] == self.channels

    @property
    def channels(self) -> int:
        """Channels of an image, or features of a point."""
        return self.image_shape[-1] if len(self.image_shape) == 2 else self.image_shape[0]

    def fits_slices(self, shape: tuple[int, ...]) -> bool:
        """Whether the prior takes the slices of volumes of a shape ``(channels, slices, rows, columns)``."""
        return self.is_image and len(shape) == 4 and shape[0] == self.channels

    def shape_of(self, domain_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one image for an operator with this domain, which may leave out the channels: ``(H, W)``."""
        return (*self.image_shape[: len(self.image_shape) - len(domain_shape)], *domain_shape)

    @property
    def unit_range(self) -> AffineMap:
        """The map from the prior's values to the unit of the scale, or the identity without a scale."""
        return AffineMap(1.0, 0.0) if self.value_range is None else self.value_range.affine

    def predict(self, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Tweedie's estimate of ``x_0`` and the noise, from one network evaluation.

        Differentiable with respect to ``x_t`` (methods such as DPS need it; DEFT calls it without a graph).

        Args:
            x_t: noisy images ``(B, *image_shape)``, or volumes ``(B, C, Z, H, W)`` for a prior of images, whose
                slices are then denoised one by one (:func:`~deft_ct.diffusion.slices.slice_by_slice`).
            t: times in ``[0, schedule.steps - 1]``, ``(B,)`` or one for all.

        Returns:
            ``(x0, eps)``, each of the shape of ``x_t``; ``x0`` is not clamped.

        Raises:
            ValueError: the number of axes or of channels is wrong.
        """
        times = torch.as_tensor(t, dtype=torch.float32, device=x_t.device).expand(x_t.shape[0])
        if self.fits_slices(tuple(x_t.shape[1:])):
            return slice_by_slice(self.predict, x_t, times)
        axis = channel_axis(x_t)
        if x_t.ndim != len(self.image_shape) + 1 or x_t.shape[axis] != self.channels:
            wanted = "N, {}" if len(self.image_shape) == 2 else "{}, H, W"
            raise ValueError(
                f"the prior takes images of shape (B, {wanted.format(self.channels)}), got {tuple(x_t.shape)}"
            )
        self.evaluations += x_t.shape[0]
        add_evaluations(x_t.shape[0])
        with network_precision(x_t.device, self.precision):
            out = self.network(x_t, times).narrow(axis, 0, self.channels).to(x_t.dtype)
        if self.prediction == "v_prediction":
            return self.schedule.x0_eps_from_v(x_t, out, times)
        if self.prediction == "epsilon":
            return self.schedule.x0_from_eps(x_t, out, times), out
        return out, self.schedule.eps_from_x0(x_t, out, times)

    def eps(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """The noise in ``x_t``; the score is ``-eps / sqrt(1 - abar_t)``. See :meth:`predict`."""
        return self.predict(x_t, t)[1]

    def denoise(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """``E[x_0 | x_t]`` as the prior sees it. See :meth:`predict`."""
        return self.predict(x_t, t)[0]

    def content_hash(self) -> str:
        """SHA-256 of the weights (as stored, float16) and of what gives them meaning; identifies the prior."""
        return content_hash(self.network, self.description())

    def description(self) -> dict[str, Any]:
        """Schedule, prediction, shape and range: everything but the weights and the card, JSON-ready.

        The shape of square images is written as it always was, so that the hash of a stored prior stays.
        """
        span, shape = self.value_range, self.image_shape
        square = len(shape) == 3 and shape[1] == shape[2]
        return {
            "schedule": asdict(self.schedule),
            "prediction": self.prediction,
            **({"channels": shape[0], "image_size": shape[1]} if square else {"image_shape": list(shape)}),
            "value_range_hu": None if span is None else [span.low, span.high],
        }
