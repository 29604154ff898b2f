"""Networks of the priors and of the h-transform."""

from deft_ct.networks.backbone import BackboneNetwork, BackboneNetworkConfig
from deft_ct.networks.digest import content_hash, weights_digest
from deft_ct.networks.kinds import NETWORKS, network_config
from deft_ct.networks.network import NetworkConfig, TimeNetwork, channel_axis
from deft_ct.networks.point import PointNetwork, PointNetworkConfig
from deft_ct.networks.unet import UNet, UNetConfig, timestep_embedding

__all__ = [
    "NETWORKS", "BackboneNetwork", "BackboneNetworkConfig", "NetworkConfig", "PointNetwork", "PointNetworkConfig",
    "TimeNetwork", "UNet", "UNetConfig", "channel_axis", "content_hash", "network_config", "timestep_embedding",
    "weights_digest",
]  # fmt: skip
