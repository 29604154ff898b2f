"""Networks of the priors and of the h-transform."""

from deft_ct.networks.unet import UNet, UNetConfig, timestep_embedding

__all__ = ["UNet", "UNetConfig", "timestep_embedding"]
