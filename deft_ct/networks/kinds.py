"""The kinds of networks by the name that is stored with a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deft_ct.networks.backbone import BackboneNetworkConfig
from deft_ct.networks.diffusers_unet import DiffusersUNetConfig
from deft_ct.networks.network import NetworkConfig
from deft_ct.networks.point import PointNetworkConfig
from deft_ct.networks.unet import UNetConfig
from deft_ct.runtime.fields import from_values

NETWORKS: dict[
    str, type[UNetConfig] | type[PointNetworkConfig] | type[DiffusersUNetConfig] | type[BackboneNetworkConfig]
] = {
    "unet": UNetConfig, "point": PointNetworkConfig, "diffusers": DiffusersUNetConfig,
    "backbone": BackboneNetworkConfig,
}  # fmt: skip
"""Configurations by kind; a configuration stored without a kind is that of a U-Net."""


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """The inverse of ``NetworkConfig.to_dict``.

    Raises:
        ValueError: the kind is unknown, or a value is missing, of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected the description of a network, got {str(values)[:80]}")
    kind = values.get("kind", "unet")
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise ValueError(f"unknown kind of network {str(kind)[:80]!r}; known: {', '.join(NETWORKS)}")
    return from_values(NETWORKS[kind], {name: value for name, value in values.items() if name != "kind"})
