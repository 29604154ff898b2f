"""Networks and scans small enough for tests, with random weights."""

from __future__ import annotations

import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.networks import PointNetwork, UNet, UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise

SIZE = 32
NETWORK = UNetConfig(patch=2, channels=(32, 32), attention=(False, False))


def tiny_prior(seed: int = 0) -> Prior:
    """A CT prior with random weights."""
    torch.manual_seed(seed)
    return Prior(
        UNet(NETWORK), Schedule(), prediction="v_prediction", value_range=PriorRange(), image_shape=(1, SIZE, SIZE)
    )


def tiny_htransform(prior: Prior, *, seed: int = 1, **config: object) -> HTransform:
    """A head with random weights, the output layer too, so that it does something."""
    torch.manual_seed(seed)
    head = HTransform(
        HTransformConfig(**{"network": NETWORK, **config}), prior.schedule, prior_hash=prior.content_hash()
    )
    with torch.no_grad():
        last = head.network.out if isinstance(head.network, PointNetwork) else head.network.conv_out
        last.weight.normal_(0, 0.02)
        head.time_scale[-1].weight.normal_(0, 0.02)
    return head.eval()


def tiny_scan(views: int = 12, photons: float = 1e5, pixel_mm: float = 8.0) -> Measurement:
    """Parallel views of a 32 x 32 slice."""
    geometry = ParallelGeometry(
        image_shape=(SIZE, SIZE), pixel_mm=pixel_mm, views=views, detectors=48, detector_mm=pixel_mm
    )
    return Measurement(RayTransform(geometry), PoissonNoise(photons=photons), units=HounsfieldScale())


def tiny_slices(count: int) -> torch.Tensor:
    """``(count, 1, 32, 32)`` attenuation: discs of water with an insert, each a little different."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    radius = torch.hypot(axis[:, None], axis[None, :])
    out = torch.stack([0.02 * (radius < 10 + k % 4) + 0.01 * (radius < 3 + k % 3) for k in range(count)])
    return out[:, None].float()
