"""Masks of a task that are drawn by chance: every image has its own, as in DPS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.image.conventions import ImageShape
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.problems.natural_by_name import NaturalTask
from deft_ct.runtime.seeds import derive_seed


def has_random_masks(task: NaturalTask, image_shape: ImageShape) -> bool:
    """Whether a task has a mask that depends on its seed.

    Args:
        task: the degradation.
        image_shape: ``(C, H, W)``.
    """
    first, second = (_mask(task, image_shape, seed) for seed in (0, 1))
    return first is not None and second is not None and not torch.equal(first, second)


def masks_of_images(
    task: NaturalTask, image_shape: ImageShape, *, seed: int, image_ids: Sequence[str]
) -> Inpainting:  # fmt: skip
    """The operator of a batch in which the mask of an image depends on the seed and its name alone.

    Args:
        task: with random masks, see :func:`has_random_masks`.
        image_shape: ``(C, H, W)``.
        seed: of the problem.
        image_ids: names of the images.

    Raises:
        ValueError: the task has no mask, or there is no image.
    """
    masks = [_mask(task, image_shape, derive_seed(seed, "mask", name)) for name in image_ids]
    found = [mask for mask in masks if mask is not None]
    if not found or len(found) < len(masks):
        raise ValueError(f"{task.text} has no masks, or there are no images")
    return Inpainting(image_shape, torch.stack(found))


def _mask(task: NaturalTask, image_shape: ImageShape, seed: int) -> Tensor | None:
    operator, _ = task.build(image_shape, seed=seed)
    return operator.mask if isinstance(operator, Inpainting) else None
