"""The generalised h-transform: features, network, training, storage."""

from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.folder import (
    load_htransform,
    load_refinement,
    load_spread_network,
    save_htransform,
    save_refinement,
    save_spread_network,
    shipped_htransforms,
)
from deft_ct.methods.deft.htransform import Condition, HTransform
from deft_ct.methods.deft.spread_network import SpreadNetwork

__all__ = [
    "Condition", "HTransform", "HTransformConfig", "SpreadNetwork", "condition_for", "load_htransform",
    "load_refinement", "load_spread_network", "save_htransform", "save_refinement", "save_spread_network",
    "shipped_htransforms",
]  # fmt: skip
