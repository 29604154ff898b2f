"""Every method on images of any size from 8 x 8, whatever the strides of its networks."""

import pytest
import torch
from contract import FEW, MODELS
from tiny import tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.registry import Networks, method_class, methods
from deft_ct.methods.supervised import ConditionalShape, FBPUNetShape, I2SBShape, PrimalDualShape
from deft_ct.networks import UNet, UNetConfig
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.reconstructor import Reconstructor

DEEP = UNetConfig(patch=4, channels=(8, 8, 8), attention=(False,) * 3, norm_groups=4, head_channels=8)
"""Works on multiples of 16, as the shipped networks do."""
SHAPES = {
    "fbp_unet": FBPUNetShape(network=DEEP), "conditional": ConditionalShape(network=DEEP),
    "i2sb": I2SBShape(network=DEEP), "learned_primal_dual": PrimalDualShape(iterations=2, channels=8, memory=3),
}  # fmt: skip
CT_METHODS = [name for name in methods() if getattr(method_class(name), "needs", "any") not in ("svd", "projection")]


def scan(rows: int, columns: int) -> Measurement:
    geometry = ParallelGeometry(image_shape=(rows, columns), pixel_mm=4.0, views=7, detectors=38, detector_mm=4.0)
    return Measurement(RayTransform(geometry), PoissonNoise(photons=1e5), units=HounsfieldScale())


def build(name: str) -> Reconstructor:
    torch.manual_seed(0)
    prior = Prior(UNet(DEEP), Schedule(), prediction="v_prediction", value_range=PriorRange(), image_shape=(1, 32, 32))
    shape = HTransformConfig(network=DEEP, refinement=RefinementConfig(network=DEEP), tv_iterations=3)
    networks = Networks(
        prior=prior,
        htransform=HTransform(shape, prior.schedule, prior_hash=prior.content_hash()) if name == "deft" else None,
        models={name: MODELS[name][0](SHAPES[name])} if name in SHAPES else {},
    )
    known = method_class(name).config_type.__dataclass_fields__
    return networks.build(name, {key: value for key, value in FEW.items() if key in known and key != "channels"})


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (9, 21), (26, 13)])
@pytest.mark.parametrize("name", CT_METHODS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights explain no data
def test_every_method_takes_any_size(name: str, rows: int, columns: int) -> None:
    measurement = scan(rows, columns)
    image = tiny_slices(1)[..., :rows, :columns].contiguous()
    result = build(name).reconstruct(measurement.simulate(image, seed=1), measurement, num_samples=2)
    assert result.mean.shape == image.shape
    assert bool(torch.isfinite(result.mean).all())
