"""Every reconstruction method by name."""

from __future__ import annotations

import copy
import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

from deft_ct.diffusion import Prior, load_prior
from deft_ct.methods.deft import HTransform, load_htransform
from deft_ct.methods.presets import load_preset
from deft_ct.methods.supervised.model import TrainedModel, TrainedReconstructor
from deft_ct.networks.precision import Precision, check_precision
from deft_ct.reconstructor import PriorReconstructor, Reconstructor

_METHODS = {
    "cgls": "deft_ct.methods.classical.cgls:CGLS",
    "conditional": "deft_ct.methods.supervised.conditional:Conditional",
    "daps": "deft_ct.methods.guided.daps:DAPS",
    "ddnm": "deft_ct.methods.guided.ddnm:DDNM",
    "ddrm": "deft_ct.methods.guided.ddrm:DDRM",
    "dds": "deft_ct.methods.guided.dds:DDS",
    "deft": "deft_ct.methods.deft.reconstructor:DEFT",
    "deft_online": "deft_ct.methods.deft.online:DEFTOnline",
    "diffpir": "deft_ct.methods.guided.diffpir:DiffPIR",
    "dps": "deft_ct.methods.guided.dps:DPS",
    "fbp": "deft_ct.methods.classical.ct_fbp:FBP",
    "fbp_unet": "deft_ct.methods.supervised.fbp_unet:FBPUNet",
    "i2sb": "deft_ct.methods.supervised.i2sb:I2SB",
    "learned_primal_dual": "deft_ct.methods.supervised.learned_primal_dual:LearnedPrimalDual",
    "mcg": "deft_ct.methods.guided.mcg:MCG",
    "pigdm": "deft_ct.methods.guided.pigdm:PiGDM",
    "reddiff": "deft_ct.methods.guided.reddiff:REDDiff",
    "sirt": "deft_ct.methods.classical.sirt:SIRT",
    "tikhonov": "deft_ct.methods.classical.cgls:Tikhonov",
    "tv": "deft_ct.methods.classical.tv:TV",
    "unconditional": "deft_ct.methods.guided.unconditional:Unconditional",
}

_SPELLINGS = {
    "conditional": "conditional diffusion", "ddnm": "DDNM+", "deft_online": "DEFT online", "diffpir": "DiffPIR",
    "fbp_unet": "FBP + U-Net", "learned_primal_dual": "learned primal-dual", "pigdm": "PiGDM", "reddiff": "RED-diff",
    "tikhonov": "Tikhonov", "unconditional": "unconditional",
}  # fmt: skip


def spelling(name: str) -> str:
    """How a method is written in figures and tables: as in its paper, for most in capitals."""
    return _SPELLINGS.get(name, name.upper())


def methods() -> list[str]:
    """Names of all reconstruction methods, sorted."""
    return sorted(_METHODS)


def method_class(name: str) -> type[Reconstructor]:
    """The class behind a name.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if name not in _METHODS:
        raise ValueError(f"unknown method {name!r}; known methods: {', '.join(methods())}")
    module, _, attribute = _METHODS[name].partition(":")
    found: type[Reconstructor] = getattr(import_module(module), attribute)
    return found


def load_reconstructor(
    name: str,
    *,
    prior: Prior | str | Path | None = None,
    htransform: HTransform | str | Path | None = None,
    model: TrainedModel | str | Path | None = None,
    preset: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    **options: Any,
) -> Reconstructor:
    """Build a reconstruction method.

    Args:
        name: one of :func:`methods`.
        prior: for diffusion methods: a prior, the path or name of one, or None for the shipped one.
        htransform: for ``"deft"``: an h-transform, the path or name of one, or None for the shipped one. For
            ``"deft_online"``: what every measurement starts from, or None to start from its reference alone.
        model: for supervised methods: a trained model, the path or name of one, or None for the shipped one.
        preset: tuned options, by the name of a scan such as ``"parallel60_1e5"`` or as a file of ``deft-ct tune``;
            ``options`` go before them.
        device: where the networks go.
        precision: of the evaluations of the prior and of the h-transform, ``"float32"``, ``"bfloat16"`` or
            ``"float16"``; everything else is computed in float32.
        options: fields of the method's configuration, for example ``steps=50``.

    Returns:
        The method, ready to :meth:`~deft_ct.reconstructor.Reconstructor.reconstruct`.

    Raises:
        ValueError: the method or an option is unknown, or a value is out of range.
        FileNotFoundError: a prior, an h-transform, a model or a preset is not there.
    """
    cls = method_class(name)
    if preset is not None:
        options = load_preset(name, preset).options | options
    known = [field.name for field in dataclasses.fields(cls.config_type)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; its options are: {', '.join(known) or 'none'}")
    config = cls.config_type(**options)
    if issubclass(cls, TrainedReconstructor):
        trained = copy.copy(model) if isinstance(model, TrainedModel) else cls.model_type.load(model)
        trained = trained.to(device)
        trained.precision = check_precision(precision)
        return cls(trained, config)
    if not issubclass(cls, PriorReconstructor):
        return cls(config)
    network = (copy.copy(prior) if isinstance(prior, Prior) else load_prior(prior)).to(device)
    network.precision = check_precision(precision)
    if name not in ("deft", "deft_online") or (name == "deft_online" and htransform is None):
        return cls(network, config)
    from deft_ct.methods.deft.online import DEFTOnline
    from deft_ct.methods.deft.reconstructor import DEFT

    head = copy.copy(htransform) if isinstance(htransform, HTransform) else load_htransform(htransform)
    head.precision = network.precision
    head = head.to(device)
    return DEFT(network, head, config) if name == "deft" else DEFTOnline(network, config, head)
