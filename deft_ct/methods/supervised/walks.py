"""What trained models that draw samples share: several samples of each image, a few at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.reconstruction import Request
from deft_ct.runtime.seeds import generator_for


class TrainedSampler(TrainedReconstructor):
    """A trained model whose reconstruction is the mean of samples, each walked by itself."""

    @property
    def needs_samples(self) -> bool:
        """There is no reconstruction without samples."""
        return True

    def _walked(self, request: Request, walk: Callable[[slice, list[torch.Generator]], Tensor]) -> Tensor:
        """Draw ``request.num_samples`` samples of every image.

        Args:
            request: gives seed, keys and number of samples.
            walk: the samples ``(b, *image_shape)`` of a part of all of them, which are in the order of the images, with
                one generator for each.

        Returns:
            ``(B, S, *image_shape)``.
        """
        count, size = request.num_samples, self.config.batch_size
        names = [(key, k) for key in request.image_ids for k in range(count)]
        parts = []
        with self._bar(request, len(names)) as tick:
            for start in range(0, len(names), size):
                part = slice(start, min(start + size, len(names)))
                generators = [generator_for(request.seed, self.name, key, k) for key, k in names[part]]
                parts.append(walk(part, generators))
                tick(len(generators))
        return torch.cat(parts).unflatten(0, (len(request.y), count))
