"""Nonlinear blur: a blur that happens in the camera before its response curve, or a neural one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from deft_ct.operators.base import Operator
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.image.bkse import BKSEBlur, load_bkse, sample_code
from deft_ct.operators.image.blur import Blur
from deft_ct.operators.image.blur_kernels import motion_kernel
from deft_ct.operators.image.value_range import ValueRange, check_range, rescale


class NonlinearBlur(Operator):
    """A fixed nonlinear blur of images, clipped to their range; ``(C, H, W) -> (C, H, W)``.

    ``NonlinearBlur(image_shape, model)`` takes any module that maps ``(N, C, H, W)`` images in [0, 1] to the same;
    :meth:`camera` builds our own physical model, which needs no weights, and :meth:`bkse` the neural blur of DPS, DAPS,
    RED-diff and DEFT from the authors' weights. Numbers obtained with one are not comparable with the other.

    Args:
        image_shape: ``(C, H, W)``.
        model: the blur; it is frozen and put in evaluation mode. Left out: :meth:`camera` with seed 0.
        value_range: range of ``x`` and ``y``.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        model: nn.Module | None = None,
        *,
        value_range: ValueRange = (-1.0, 1.0),
    ) -> None:
        super().__init__(image_shape, image_shape)
        self.value_range = check_range("NonlinearBlur", value_range)
        if model is None:
            model = CameraShake(image_shape, torch.Generator().manual_seed(0))
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def camera(
        cls,
        image_shape: tuple[int, int, int],
        generator: torch.Generator,
        *,
        kernel_size: int = 41,
        intensity: float = 0.5,
        exposure: float = 1.25,
        value_range: ValueRange = (-1.0, 1.0),
    ) -> NonlinearBlur:
        """Spatially varying shake in linear light, saturation and response curve; see :class:`CameraShake`."""
        model = CameraShake(image_shape, generator, kernel_size=kernel_size, intensity=intensity, exposure=exposure)
        return cls(image_shape, model, value_range=value_range)

    @classmethod
    def bkse(
        cls,
        image_shape: tuple[int, int, int],
        weights: str | Path,
        *,
        code: Tensor | None = None,
        value_range: ValueRange = (-1.0, 1.0),
    ) -> NonlinearBlur:
        """The neural blur of BKSE with one fixed kernel code.

        Args:
            image_shape: ``(C, H, W)``, sides multiples of 128.
            weights: the authors' ``GOPRO_wVAE.pth``; see :func:`deft_ct.operators.image.bkse.load_bkse`.
            code: ``(512, H / 128, W / 128)``; by default the code that DEFT uses (torch seed 42,
                times 1.2).
            value_range: range of ``x`` and ``y``.

        Raises:
            FileNotFoundError: there are no weights.
            ValueError: the file holds other weights, or a side is no multiple of 128.
        """
        network = load_bkse(weights)
        if code is None:
            code = sample_code(image_shape[1:], code_channels=network.code_channels)
        return cls(image_shape, BKSEBlur(network, code), value_range=value_range)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        blurred = self.model(rescale(x, self.value_range, (0.0, 1.0)))
        return rescale(blurred, (0.0, 1.0), self.value_range).clamp(*self.value_range)

    @property
    def feature_images(self) -> tuple[FeatureImage, ...]:
        """The blurred image."""
        return (FeatureImage(name="data"),)

    def data_images(self, y: Tensor) -> Tensor:
        """See :attr:`feature_images`."""
        return y.unsqueeze(1)


class CameraShake(nn.Module):
    """Blur of a hand-held camera: response curve, shake that varies over the image, saturation, response curve.

    The sRGB curve (IEC 61966-2-1) takes the image to linear light. There it is blurred by four random shakes, one for
    each corner, blended bilinearly in between, and multiplied by the exposure; the sensor saturates at one, and the
    curve takes it back. Blur and response do not commute, so the map is nonlinear (Tai et al., "Nonlinear camera
    response functions and image deblurring", IEEE TPAMI 2013).

    Args:
        image_shape: ``(C, H, W)``.
        generator: source of the four kernels.
        kernel_size: odd side of the kernels in pixels.
        intensity: of the shakes, 0 to 1; see :func:`deft_ct.operators.image.blur_kernels.motion_kernel`.
        exposure: gain before the saturation.

    Raises:
        ValueError: a parameter is out of range.
    """

    blend: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: torch.Generator,
        *,
        kernel_size: int = 41,
        intensity: float = 0.5,
        exposure: float = 1.25,
    ) -> None:
        super().__init__()
        if not exposure > 0:
            raise ValueError(f"CameraShake: exposure must be positive, got {exposure}")
        self.exposure = float(exposure)
        self.blurs = nn.ModuleList(
            Blur(image_shape, motion_kernel(kernel_size, intensity, generator)) for _ in range(4)
        )
        down = torch.linspace(0, 1, image_shape[1], dtype=torch.float64)[:, None]
        right = torch.linspace(0, 1, image_shape[2], dtype=torch.float64)[None, :]
        corners = ((1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right)
        self.register_buffer("blend", torch.stack(corners))

    def forward(self, image: Tensor) -> Tensor:
        """Blur ``(N, C, H, W)`` in [0, 1]; values outside are clipped first."""
        light = _srgb_to_linear(image.clamp(0, 1))
        blend = self.blend.to(image.dtype)
        blurred = torch.stack([blend[k] * blur(light) for k, blur in enumerate(self.blurs)]).sum(0)
        return _linear_to_srgb((self.exposure * blurred).clamp(0, 1))


def _srgb_to_linear(value: Tensor) -> Tensor:
    # The inner maximum keeps the derivative of the branch that is not taken finite.
    return torch.where(value <= 0.04045, value / 12.92, ((value.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def _linear_to_srgb(value: Tensor) -> Tensor:
    return torch.where(value <= 0.0031308, 12.92 * value, 1.055 * value.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)
