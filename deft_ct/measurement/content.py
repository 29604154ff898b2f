"""What the data of a measurement depend on, for content keys."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from deft_ct.measurement.measurement import Measurement
from deft_ct.runtime.content_key import content_digest

_NOT_CONTENT = ("training", "backend")
"""Attributes that change no data: the mode of modules, and which code computes a ray transform."""
_PLAIN = (bool, int, float, str, tuple)


def measurement_content(measurement: Measurement) -> dict[str, Any]:
    """The description of a measurement with the parameters of its operator, such as a mask or a kernel, JSON-ready.

    Args:
        measurement: operators count by their description, the public plain attributes and the buffers of their modules.
    """
    described = {name: value for name, value in measurement.describe().items() if name != "backend"}
    state = {name: _state(module) for name, module in measurement.operator.named_modules()}
    return described | {"parameters": {name: found for name, found in state.items() if found}}


def _state(module: nn.Module) -> dict[str, Any]:
    """Public plain attributes and tensors of one module, tensors by their content."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        lazy = isinstance(inspect.getattr_static(type(module), name, None), cached_property)
        if name.startswith("_") or name in _NOT_CONTENT or lazy:
            continue
        if isinstance(value, _PLAIN):
            found[name] = value
        elif isinstance(value, Tensor):
            found[name] = content_digest([value])
    tensors = [*module.named_buffers(recurse=False), *module.named_parameters(recurse=False)]
    return found | {name: content_digest([value]) for name, value in tensors if value.numel()}
