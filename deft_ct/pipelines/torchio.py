"""Sparse-view reconstruction as a TorchIO transform."""

from __future__ import annotations

from typing import Any

from deft_ct.runtime.extras import optional_library
from deft_ct.workflows.reconstruct_series import SparseView
from deft_ct.workflows.reconstruct_volume import array_of_volume, reconstruct_volume, volume_of_array

optional_library("torchio", "torchio")
from torchio import Subject  # noqa: E402
from torchio.transforms.intensity_transform import IntensityTransform  # noqa: E402

__all__ = ["SparseViewImages"]


class SparseViewImages(IntensityTransform):
    """Replace every scalar image of a subject by its reconstruction from a simulated sparse-view scan.

    Images hold CT numbers in HU, with axial slices along their last axis. Label maps stay as they are. Each image gets
    the provenance under ``image["deft_ct"]``.

    Args:
        settings: scan and method; the defaults (60 views, 1e5 photons, DEFT) if None.
        kwargs: of TorchIO's transforms, such as ``include`` and ``p``.
    """

    def __init__(self, settings: SparseView | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings or SparseView()
        self.args_names = ["settings"]

    def apply_transform(self, subject: Subject) -> Subject:
        """Called by TorchIO.

        Raises:
            ValueError: see :func:`deft_ct.workflows.reconstruct_volume.reconstruct_volume`.
        """
        for image in self.get_images(subject):
            found = reconstruct_volume(volume_of_array(image.data, image.affine), self.settings)
            image.set_data(array_of_volume(found.mean.hu))
            image["deft_ct"] = found.provenance
        return subject
