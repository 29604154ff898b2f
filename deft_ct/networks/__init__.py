"""Networks of the priors and of the h-transform."""

from deft_ct.networks.digest import content_hash
from deft_ct.networks.unet import UNet, UNetConfig, timestep_embedding

__all__ = ["UNet", "UNetConfig", "content_hash", "timestep_embedding"]
