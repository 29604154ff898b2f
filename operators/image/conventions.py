"""The natural-image problems of the literature under their own parameters.

All operators work on images in [-1, 1] and every noise level is given in that range. Sizes in pixels are those of the
papers' 256 x 256 images; boxes scale with the image, blur kernels do not. Masks and motion kernels are drawn from the
caller's generator, because the originals draw theirs from a global random state that cannot be reproduced.

The parameters come from the public repositories of these papers:

- DPS: Chung et al. 2023
- DAPS: Zhang et al. 2025
- InverseBench: Zheng et al. 2025
- DiffPIR: Zhu et al. 2023
- RED-diff: Mardani et al. 2024
- DEFT: Denker et al. 2024
- DDRM: Kawar et al. 2022
- I2SB: Liu et al. 2023
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from deft_ct.operators.base import Operator
from deft_ct.operators.identity import Identity
from deft_ct.operators.image.bkse import sample_code
from deft_ct.operators.image.blur import GaussianBlur, MotionBlur, SeparableBlur
from deft_ct.operators.image.colorization import Colorization
from deft_ct.operators.image.compressed_sensing import CompressedSensing
from deft_ct.operators.image.hdr import HDR
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.image.jpeg import JPEG
from deft_ct.operators.image.masks import box_mask, freeform_mask, random_mask
from deft_ct.operators.image.nonlinear_blur import NonlinearBlur
from deft_ct.operators.image.phase_retrieval import PhaseRetrieval
from deft_ct.operators.image.super_resolution import SuperResolution
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise

ImageShape = tuple[int, int, int]
_Build = Callable[[ImageShape, torch.Generator], Operator]


def presets() -> dict[str, list[str]]:
    """Tasks of every convention, by name."""
    return {name: sorted([*tasks, *(["nonlinear-blur"] if name in _CODES else [])]) for name, tasks in _TASKS.items()}


def preset(
    convention: str,
    task: str,
    image_shape: ImageShape,
    generator: torch.Generator,
    *,
    bkse_weights: str | Path | None = None,
) -> tuple[Operator, NoiseModel]:
    """Operator and noise of one published problem.

    Args:
        convention: ``"dps"``, ``"daps"``, ``"inversebench"``, ``"diffpir"``, ``"red-diff"``, ``"deft"``, ``"ddrm"`` or
            ``"i2sb"``.
        task: one of ``presets()[convention]``, e.g. ``"sr4"``.
        image_shape: ``(C, H, W)``.
        generator: source of masks, motion kernels and random transforms.
        bkse_weights: the authors' ``GOPRO_wVAE.pth``, for ``"nonlinear-blur"`` only.

    Returns:
        The operator, for images in [-1, 1], and the noise model.

    Raises:
        ValueError: the convention or the task is unknown, the image does not suit the operator, or the nonlinear blur
            is asked for without its weights.
    """
    table = presets()
    if convention not in table:
        raise ValueError(f"convention must be one of {sorted(table)}, got {convention!r}")
    if task not in table[convention]:
        raise ValueError(f"task of {convention!r} must be one of {table[convention]}, got {task!r}")
    if task == "nonlinear-blur":
        operator = _published_nonlinear_blur(convention, image_shape, generator, bkse_weights)
    else:
        operator = _TASKS[convention][task](image_shape, generator)
    sigma = _SIGMA[convention]
    return operator, GaussianNoise(sigma) if sigma else NoNoise()


def _published_nonlinear_blur(
    convention: str, image_shape: ImageShape, generator: torch.Generator, weights: str | Path | None
) -> Operator:
    if weights is None:
        raise ValueError(
            f"the nonlinear blur of {convention!r} needs the authors' network: pass bkse_weights='.../GOPRO_wVAE.pth', "
            "or use NonlinearBlur.camera for a model without weights (whose results are not comparable)"
        )
    return NonlinearBlur.bkse(image_shape, weights, code=_CODES[convention](image_shape, generator))


def _random_code(image_shape: ImageShape, generator: torch.Generator) -> torch.Tensor:
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    return sample_code(image_shape[1:], seed=seed)


def _numpy_code(image_shape: ImageShape, generator: torch.Generator) -> torch.Tensor:
    """The fixed code of DAPS: NumPy's legacy generator with seed 0."""
    size = sample_code(image_shape[1:]).shape
    values = np.random.RandomState(0).randn(1, *size)  # the legacy generator gives these very numbers
    return torch.from_numpy(1.2 * values[0]).float()


# DPS and RED-diff draw a new code at every call of the operator, so there "random" is one draw from the generator.
_CODES: dict[str, Callable[[ImageShape, torch.Generator], torch.Tensor]] = {
    "dps": _random_code,
    "daps": _numpy_code,
    "deft": lambda shape, _: sample_code(shape[1:], seed=42),
}

_SIGMA = {
    "dps": 0.05,
    "daps": 0.05,
    "inversebench": 0.05,
    "diffpir": 0.1,  # 12.75/255 on [0, 1]
    "red-diff": 0.0,
    "deft": 0.0,
    "ddrm": 0.1,  # 0.05 on [0, 1]
    "i2sb": 0.0,
}


def _bicubic(scale: int) -> _Build:
    return lambda shape, _: SuperResolution(shape, scale, "bicubic")


def _average(scale: int) -> _Build:
    return lambda shape, _: SuperResolution(shape, scale, "average")


def _half_box(shape: ImageShape, generator: torch.Generator | None, margin: int) -> Operator:
    """A box of half the image (128 of 256) with a margin in pixels of a 256 x 256 image."""
    height, width = shape[1:]
    box = (height // 2, width // 2)
    return Inpainting(shape, box_mask((height, width), box, generator, margin=margin * min(height, width) // 256))


def _missing(low: float, high: float | None = None) -> _Build:
    def build(shape: ImageShape, generator: torch.Generator) -> Operator:
        share = (
            float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float32))
            if high is not None
            else 0.0
        )
        fraction = low + share * ((high if high is not None else low) - low)
        return Inpainting(shape, random_mask(shape[1:], fraction, generator))

    return build


def _freeform(low: float, high: float) -> _Build:
    return lambda shape, generator: Inpainting(shape, freeform_mask(shape[1:], generator, coverage=(low, high)))


def _phase(low: float) -> _Build:
    return lambda shape, _: PhaseRetrieval(shape, 2.0, amplitude_range=(low, 1.0))


_TASKS: dict[str, dict[str, _Build]] = {
    "dps": {
        "sr4": _bicubic(4),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 61, 3.0, boundary="reflect"),
        "motion-blur": lambda shape, generator: MotionBlur(shape, generator, 61, 0.5, boundary="reflect"),
        "inpainting-box": lambda shape, generator: _half_box(shape, generator, 16),
        "inpainting-random": _missing(0.92),  # the paper's figure
        "inpainting-random-30-70": _missing(0.3, 0.7),  # the repository's configuration
        "phase-retrieval": _phase(-1.0),
    },
    "daps": {
        "sr4": _bicubic(4),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 61, 3.0, boundary="reflect"),
        "motion-blur": lambda shape, generator: MotionBlur(shape, generator, 61, 0.5, boundary="reflect"),
        "inpainting-box": lambda shape, generator: _half_box(shape, generator, 32),
        "inpainting-random": _missing(0.7),
        "phase-retrieval": _phase(0.0),
        "hdr": lambda shape, _: HDR(shape),
    },
    "inversebench": {
        "sr2": _bicubic(2),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 61, 3.0, boundary="reflect"),
        "inpainting-random": _missing(0.7),
        "phase-retrieval": _phase(0.0),
    },
    "diffpir": {
        "sr4": _bicubic(4),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 61, 3.0, boundary="circular"),
        "motion-blur": lambda shape, generator: MotionBlur(shape, generator, 61, 0.5, boundary="circular"),
        "inpainting-box": lambda shape, generator: _half_box(shape, generator, 16),
        "inpainting-random": _missing(0.5),
    },
    "red-diff": {
        "sr4": _average(4),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 5, 25.0, boundary="circular"),
        "inpainting-freeform": _freeform(0.2, 0.3),
        "colorization": lambda shape, _: Colorization(shape, "mean"),
        "phase-retrieval": _phase(0.0),
        "hdr": lambda shape, _: HDR(shape),
    },
    "deft": {
        "sr4": _average(4),
        "inpainting-freeform": _freeform(0.2, 0.3),
        "phase-retrieval": _phase(0.0),
        "hdr": lambda shape, _: HDR(shape),
    },
    "ddrm": {
        "denoising": lambda shape, _: Identity(shape),
        "sr4": _average(4),
        "uniform-blur": lambda shape, _: SeparableBlur(
            shape, torch.full((9,), 1 / 9, dtype=torch.float32), boundary="zero"
        ),
        "gaussian-blur": lambda shape, _: GaussianBlur(shape, 5, 10.0, boundary="zero"),
        "inpainting-random": _missing(0.5),
        "colorization": lambda shape, _: Colorization(shape, "mean"),
        "compressed-sensing": lambda shape, generator: CompressedSensing(shape, 0.25, generator),
    },
    "i2sb": {
        "sr4-average": _average(4),
        "sr4-bicubic": _bicubic(4),
        "inpainting-centre": lambda shape, _: _half_box(shape, None, 0),
        "inpainting-freeform-10-20": _freeform(0.1, 0.2),
        "inpainting-freeform-20-30": _freeform(0.2, 0.3),
        "jpeg-5": lambda shape, _: JPEG(shape, 5),
        "jpeg-10": lambda shape, _: JPEG(shape, 10),
    },
}
