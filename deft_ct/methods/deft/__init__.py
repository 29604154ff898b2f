"""The generalised h-transform: features, network, training, storage."""

from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.folder import (
    load_htransform,
    load_refinement,
    save_htransform,
    save_refinement,
    shipped_htransforms,
)
from deft_ct.methods.deft.htransform import Condition, HTransform

__all__ = [
    "Condition", "HTransform", "HTransformConfig", "condition_for", "load_htransform", "load_refinement",
    "save_htransform", "save_refinement", "shipped_htransforms",
]  # fmt: skip
