"""The kinds of networks by the name that is stored with a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deft_ct.networks.network import NetworkConfig
from deft_ct.networks.point import PointNetworkConfig
from deft_ct.networks.unet import UNetConfig

NETWORKS: dict[str, Callable[..., NetworkConfig]] = {"unet": UNetConfig, "point": PointNetworkConfig}
"""Configurations by kind; a configuration stored without a kind is that of a U-Net."""


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """The inverse of ``NetworkConfig.to_dict``.

    Raises:
        ValueError: the kind is unknown.
    """
    kind = values.get("kind", "unet")
    if kind not in NETWORKS:
        raise ValueError(f"unknown kind of network {kind!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[kind](**{name: value for name, value in values.items() if name != "kind"})
