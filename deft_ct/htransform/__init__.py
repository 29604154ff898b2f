"""The generalised h-transform: features, network, training, storage."""

from deft_ct.htransform.features import condition_for
from deft_ct.htransform.head import Condition, HTransform, HTransformConfig
from deft_ct.htransform.storage import (
    load_htransform,
    load_refinement,
    save_htransform,
    save_refinement,
    shipped_htransforms,
)

__all__ = [
    "Condition", "HTransform", "HTransformConfig", "condition_for", "load_htransform", "load_refinement",
    "save_htransform", "save_refinement", "shipped_htransforms",
]  # fmt: skip
