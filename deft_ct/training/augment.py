"""Random changes of training images that keep them plausible."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(hu: Tensor, generator: torch.Generator, *, air_hu: float = -1000.0) -> Tensor:
    """Mirror, shift, and at times rotate and scale slices a little: changes that keep anatomy plausible.

    Half are mirrored left to right; shifts are whole pixels, up to a 16th of the side; a third are rotated by up to 10
    degrees and scaled by up to 10 %. The resampling of the last kind smooths, so most slices keep their own noise
    texture.

    Args:
        hu: ``(B, 1, H, W)`` in HU.
        generator: source of all randomness, on the CPU.
        air_hu: fills what comes in from outside.

    Returns:
        ``(B, 1, H, W)`` in HU, never below ``air_hu``.
    """
    h, w = hu.shape[-2:]
    reach = min(h, w) // 16
    out = []
    for image in hu.clamp_min(air_hu).unbind(0):
        mirror, warp = torch.rand(2, generator=generator).tolist()
        dy, dx = (torch.randint(-reach, reach + 1, (2,), generator=generator)).tolist()
        angle, zoom = (2 * torch.rand(2, generator=generator) - 1).tolist()
        if mirror < 0.5:
            image = image.flip(-1)
        image = functional.pad(image, (reach, reach, reach, reach), value=air_hu)
        image = image[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]
        if warp < 1 / 3:
            image = _rotate_and_scale(image, 10 * angle, 1 + 0.1 * zoom, air_hu)
        out.append(image)
    return torch.stack(out)


def _rotate_and_scale(image: Tensor, degrees: float, zoom: float, fill: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([torch.stack([cos, -sin, cos * 0]), torch.stack([sin, cos, cos * 0])])[None]
    grid = functional.affine_grid(matrix, [1, *image.shape], align_corners=False)
    return functional.grid_sample(image[None] - fill, grid, align_corners=False)[0] + fill
