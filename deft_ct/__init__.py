"""deft-ct: sparse-view CT with a frozen diffusion prior and a learned Doob's h-transform. Research only.

Public names are imported on first use, so that ``import deft_ct`` stays fast.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deft_ct import datasets, io, operators
    from deft_ct.ct.hounsfield import HounsfieldScale
    from deft_ct.diffusion import Prior, load_prior
    from deft_ct.measurement.measurement import Measurement
    from deft_ct.measurement.scales import PriorRange
    from deft_ct.methods.deft import load_htransform
    from deft_ct.methods.registry import load_reconstructor, methods, register
    from deft_ct.reconstruction import Reconstruction
    from deft_ct.reconstructor import Reconstructor

# Threads that wait for each other sleep instead of spinning. On a machine with other work, spinning takes the time of
# the very thread that is waited for, and an operation takes ten times as long. Read when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# PyTorch may ask for large pages for its large arrays. Networks on images allocate and free them at every layer, and
# small pages are handed out one by one. Read at the first large array. Results do not depend on it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = version("deft-ct")

_HOME = {
    "HounsfieldScale": "deft_ct.ct.hounsfield",
    "Measurement": "deft_ct.measurement.measurement",
    "Prior": "deft_ct.diffusion",
    "PriorRange": "deft_ct.measurement.scales",
    "Reconstruction": "deft_ct.reconstruction",
    "Reconstructor": "deft_ct.reconstructor",
    "load_htransform": "deft_ct.methods.deft",
    "load_prior": "deft_ct.diffusion",
    "load_reconstructor": "deft_ct.methods.registry",
    "methods": "deft_ct.methods.registry",
    "register": "deft_ct.methods.registry",
}
_PACKAGES = ("datasets", "io", "operators")

__all__ = [
    "HounsfieldScale", "Measurement", "Prior", "PriorRange", "Reconstruction", "Reconstructor", "datasets", "io",
    "load_htransform", "load_prior", "load_reconstructor", "methods", "operators", "register",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"deft_ct.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'deft_ct' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
