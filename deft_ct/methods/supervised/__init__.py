"""Methods whose networks are trained for a scan: FBP and U-Net, learned primal-dual, conditional diffusion, I2SB."""

from deft_ct.methods.supervised.amortised import Amortised, AmortisedConfig, AmortisedModel, AmortisedShape
from deft_ct.methods.supervised.conditional import Conditional, ConditionalConfig, ConditionalModel, ConditionalShape
from deft_ct.methods.supervised.direct import DirectConfig, DirectReconstructor
from deft_ct.methods.supervised.fbp_unet import FBPUNet, FBPUNetModel, FBPUNetShape
from deft_ct.methods.supervised.i2sb import I2SB, I2SBConfig, I2SBModel, I2SBShape
from deft_ct.methods.supervised.learned_primal_dual import LearnedPrimalDual, PrimalDualModel, PrimalDualShape
from deft_ct.methods.supervised.model import TrainedModel, TrainedReconstructor

__all__ = [
    "I2SB", "Amortised", "AmortisedConfig", "AmortisedModel", "AmortisedShape", "Conditional", "ConditionalConfig",
    "ConditionalModel", "ConditionalShape", "DirectConfig", "DirectReconstructor", "FBPUNet", "FBPUNetModel",
    "FBPUNetShape", "I2SBConfig", "I2SBModel", "I2SBShape", "LearnedPrimalDual", "PrimalDualModel", "PrimalDualShape",
    "TrainedModel", "TrainedReconstructor",
]  # fmt: skip
