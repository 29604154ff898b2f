"""Sparse-view reconstruction as a MONAI transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_ct.runtime.extras import optional_library
from deft_ct.workflows.reconstruct_series import SparseView
from deft_ct.workflows.reconstruct_volume import array_of_volume, reconstruct_volume, volume_of_array

optional_library("monai.transforms", "monai")
from monai.data.meta_tensor import MetaTensor  # noqa: E402
from monai.transforms.transform import MapTransform, Transform  # noqa: E402

__all__ = ["SparseViewCT", "SparseViewCTd"]


class SparseViewCT(Transform):
    """Replace a CT volume by its reconstruction from a simulated sparse-view scan.

    Args:
        settings: scan and method; the defaults (60 views, 1e5 photons, DEFT) if None.
    """

    def __init__(self, settings: SparseView | None = None) -> None:
        self.settings = settings or SparseView()

    def __call__(self, data: Tensor) -> Any:
        """Reconstruct.

        Args:
            data: ``(1, I, J, K)`` CT numbers in HU with axial slices along the last axis, as ``LoadImage`` gives them
                after ``EnsureChannelFirst``. A ``MetaTensor`` brings its affine; a plain tensor has voxels of 1 mm.

        Returns:
            A ``MetaTensor`` of the same shape and affine, HU. ``meta["deft_ct"]`` holds the provenance, and
            ``meta["deft_ct_std_hu"]`` the posterior standard deviation ``(1, I, J, K)`` where the method has one.

        Raises:
            ValueError: see :func:`deft_ct.workflows.reconstruct_volume.reconstruct_volume`.
        """
        meta = dict(data.meta) if isinstance(data, MetaTensor) else {}
        affine = torch.as_tensor(np.asarray(meta.pop("affine", np.eye(4))))
        found = reconstruct_volume(volume_of_array(torch.as_tensor(data), affine.numpy()), self.settings)
        meta["deft_ct"] = found.provenance
        if found.std_hu is not None:
            meta["deft_ct_std_hu"] = array_of_volume(found.std_hu)
        return MetaTensor(array_of_volume(found.mean.hu), affine=affine, meta=meta)


class SparseViewCTd(MapTransform):
    """:class:`SparseViewCT` for some keys of a dictionary.

    Args:
        keys: of the volumes.
        settings: scan and method; the defaults if None.
        std_suffix: if given, the posterior standard deviation is stored under the key with this suffix.
        allow_missing_keys: do nothing for keys that are not there.
    """

    def __init__(
        self, keys: Any, settings: SparseView | None = None, *, std_suffix: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(keys, allow_missing_keys)
        self.transform = SparseViewCT(settings)
        self.std_suffix = std_suffix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of the dictionary with the reconstructions.

        Raises:
            KeyError: a key is missing.
            ValueError: see :class:`SparseViewCT`; or the method has no standard deviation and a suffix is given.
        """
        out = dict(data)
        for key in self.key_iterator(out):
            found = self.transform(data[key])
            out[key] = found
            if self.std_suffix is not None:
                std = found.meta.get("deft_ct_std_hu")
                if std is None:
                    raise ValueError(
                        f"{self.transform.settings.method} has no posterior standard deviation with "
                        f"{self.transform.settings.samples} samples: leave out std_suffix, or take deft and samples=4"
                    )
                out[f"{key}{self.std_suffix}"] = MetaTensor(std, affine=found.affine)
        return out
