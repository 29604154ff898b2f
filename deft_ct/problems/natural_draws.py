"""Masks and kernels of a task that are drawn by chance: every image has its own, as in DPS."""

from __future__ import annotations

from collections.abc import Sequence

from deft_ct.operators.base import Operator
from deft_ct.operators.image.conventions import ImageShape
from deft_ct.problems.natural_by_name import NaturalTask
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.seeds import derive_seed


def draws_for_images(task: NaturalTask, image_shape: ImageShape) -> bool:
    """Whether a task has a mask or a kernel that depends on its seed, so that each image can have its own.

    Args:
        task: the degradation.
        image_shape: ``(C, H, W)``.
    """
    first, second = (task.build(image_shape, seed=seed)[0] for seed in (0, 1))
    if type(first).joined([first, second]) is None:
        return False
    return content_digest(first.buffers()) != content_digest(second.buffers())


def operator_of_images(
    task: NaturalTask, image_shape: ImageShape, *, seed: int, image_ids: Sequence[str]
) -> Operator:  # fmt: skip
    """The operator of a batch in which what an image is given depends on the seed and its name alone.

    Args:
        task: one for which :func:`draws_for_images` is true.
        image_shape: ``(C, H, W)``.
        seed: of the problem.
        image_ids: names of the images.

    Raises:
        ValueError: all images of the task share one operator, or there is no image.
    """
    drawn = [task.build(image_shape, seed=derive_seed(seed, "mask", name))[0] for name in image_ids]
    joined = type(drawn[0]).joined(drawn) if drawn else None
    if joined is None:
        raise ValueError(f"{task.text} has nothing that is drawn for each image, or there are no images")
    return joined
