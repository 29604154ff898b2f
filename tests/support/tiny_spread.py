"""Tiny spread networks, beside a tiny prior and h-transform that are told the scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior

from deft_ct.diffusion import Prior
from deft_ct.methods.deft import HTransform, SpreadNetwork
from deft_ct.methods.deft.reconstructor import DEFTConfig
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.deft.spread_network import FittedIntervals, SpreadConfig

CONFIG = SpreadConfig(network=replace(NETWORK, norm_groups=16), scan_features=True, spread_slopes=(-0.3, 1.0, -0.1, 0))
WIDTHS = {"0.5": 0.7, "0.8": 1.5, "0.9": 2.2, "0.95": 3.0}
MEAN = DEFTConfig(rounds=0).mean_settings


def tiny_networks() -> tuple[Prior, HTransform]:
    """A prior and an h-transform with a refinement, both told the scan."""
    prior = tiny_prior()
    shape = RefinementConfig(network=replace(NETWORK, norm_groups=16), scan_features=True)
    return prior, tiny_htransform(prior, scan_features=True, refinement=shape, tv_iterations=3)


def made_for(prior: Prior, htransform: HTransform, **changes: Any) -> SpreadNetwork:
    """A spread network that sees its inputs, with some attributes changed."""
    torch.manual_seed(4)
    made = SpreadNetwork(
        CONFIG, htransform_hash=htransform.content_hash(), prior_hash=prior.content_hash(),
        intervals=[FittedIntervals(half_widths=WIDTHS, image_shape=(SIZE, SIZE), settings=MEAN)],
    )  # fmt: skip
    with torch.no_grad():
        made.network.conv_out.weight.normal_(0, 0.1)
        made.scan_embedding[-1].weight.normal_(0, 1.0)
    for name, value in changes.items():
        setattr(made, name, value)
    return made.eval().requires_grad_(False)


def fitted_with(**changes: Any) -> FittedIntervals:
    """Intervals for tiny images."""
    return FittedIntervals(half_widths=WIDTHS, image_shape=(SIZE, SIZE), settings=MEAN, **changes)
