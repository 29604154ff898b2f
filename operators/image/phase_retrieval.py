"""Phase retrieval: the magnitude of an oversampled Fourier transform."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.image.transforms import one_by_one
from deft_ct.operators.image.value_range import ValueRange, check_range, rescale

FEATURE_ITERATIONS, FEATURE_REDUCTIONS = 10, 2
"""Steps of the image ``hybrid``; the official code of DEFT takes 350, far dearer than its network."""


class PhaseRetrieval(Operator):
    """``y = |F P x|``: zero padding, centred orthonormal discrete Fourier transform, magnitude, for every channel.

    The padding is ``oversample / 8`` of the image on each side: 64 pixels at 256, so the data are ``384 x 384``. DPS
    transforms the image as it is, in [-1, 1]; DAPS, RED-diff and DEFT map it to [0, 1] first. The two problems differ
    by ``amplitude_range`` only.

    Args:
        image_shape: ``(C, H, W)``.
        oversample: oversampling parameter, 2 in all of them; must give a whole number of pixels.
        value_range: range of ``x``.
        amplitude_range: range that is transformed: ``(0, 1)`` as in DAPS, ``(-1, 1)`` as in DPS.

    Raises:
        ValueError: the padding is no whole number of pixels, or a range is empty.
    """

    has_equivalents = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        oversample: float = 2.0,
        *,
        value_range: ValueRange = (-1.0, 1.0),
        amplitude_range: ValueRange = (0.0, 1.0),
    ) -> None:
        channels, height, width = image_shape
        pads = oversample / 8 * height, oversample / 8 * width
        if oversample < 0 or any(pad != int(pad) for pad in pads):
            raise ValueError(
                f"PhaseRetrieval: oversample / 8 of the image size {(height, width)} must be whole pixels, "
                f"got oversample {oversample}"
            )
        self.padding = int(pads[0]), int(pads[1])
        super().__init__(image_shape, (channels, height + 2 * self.padding[0], width + 2 * self.padding[1]))
        self.value_range = check_range("PhaseRetrieval", value_range)
        self.amplitude_range = check_range("PhaseRetrieval", amplitude_range)

    def spectrum(self, x: Tensor) -> Tensor:
        """Complex centred spectrum of ``(..., C, H, W)``, before the magnitude is taken."""
        top, left = self.padding
        amplitude = rescale(x, self.value_range, self.amplitude_range)
        padded = torch.nn.functional.pad(amplitude, (left, left, top, top))
        return _centred_transform(padded)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self.spectrum(x).abs()

    @property
    def feature_images(self) -> tuple[FeatureImage, ...]:
        """Of an estimate: its projection onto the magnitudes, and a few hybrid input-output steps from it."""
        return FeatureImage(name="projection", of_estimate=True), FeatureImage(name="hybrid", of_estimate=True)

    def estimate_images(self, x: Tensor, y: Tensor) -> Tensor:
        """See :attr:`feature_images`."""
        steps = {"iterations": FEATURE_ITERATIONS, "reductions": FEATURE_REDUCTIONS}
        return torch.stack([self.project_magnitude(x, y), self.hybrid_input_output(y, x, **steps)], 1)

    def _crop(self, padded: Tensor) -> Tensor:
        top, left = self.padding
        height, width = self.domain_shape[1:]
        return padded[..., top : top + height, left : left + width]

    def project_magnitude(self, x: Tensor, y: Tensor) -> Tensor:
        """Keep the phase of ``x``, take the magnitude from the data, and crop: one step of error reduction.

        Args:
            x: ``(..., C, H, W)`` in :attr:`value_range`.
            y: ``(..., *range_shape)``.

        Returns:
            ``(..., C, H, W)`` in :attr:`value_range` (not clipped).
        """
        projected = self._crop(_centred_inverse(torch.polar(y, self.spectrum(x).angle())).real)
        return rescale(projected, self.amplitude_range, self.value_range)

    def hybrid_input_output(
        self, y: Tensor, x: Tensor, *, iterations: int = 300, reductions: int = 50, beta: float = 0.95
    ) -> Tensor:
        """Hybrid input-output iterations, then error reduction (Fienup, Appl. Opt. 1982).

        The constraints are the support (the padding is zero) and the amplitude range. The result depends strongly on
        the start, and the flipped image and shifts of it fit the data as well.

        Args:
            y: ``(..., *range_shape)``.
            x: ``(..., C, H, W)``, the start, in :attr:`value_range`.
            iterations: number of hybrid input-output steps, which escape from stagnation but do not settle.
            reductions: number of error-reduction steps after them, which settle.
            beta: feedback where the constraints are broken.

        Returns:
            ``(..., C, H, W)`` in :attr:`value_range`.
        """
        low, high = self.amplitude_range
        top, left = self.padding
        inside = torch.nn.functional.pad(y.new_ones(self.domain_shape), (left, left, top, top))
        state = torch.nn.functional.pad(rescale(x, self.value_range, self.amplitude_range), (left, left, top, top))
        for step in range(iterations + reductions):
            projected = _centred_inverse(torch.polar(y, _centred_transform(state).angle())).real
            feasible = inside * projected.clamp(low, high)
            if step < iterations:
                state = torch.where(feasible == projected, projected, state - beta * projected)
            else:
                state = feasible
        return rescale(self._crop(state).clamp(low, high), self.amplitude_range, self.value_range)


def _centred_transform(image: Tensor) -> Tensor:
    """Orthonormal discrete Fourier transform with the origin of both spaces in the middle."""
    spectrum = one_by_one(lambda sample: torch.fft.fft2(sample, norm="ortho"), _to_corner(image))
    return torch.fft.fftshift(spectrum, dim=(-2, -1))


def _centred_inverse(spectrum: Tensor) -> Tensor:
    image = one_by_one(lambda sample: torch.fft.ifft2(sample, norm="ortho"), _to_corner(spectrum))
    return torch.fft.fftshift(image, dim=(-2, -1))


def _to_corner(x: Tensor) -> Tensor:
    return torch.fft.ifftshift(x, dim=(-2, -1))
