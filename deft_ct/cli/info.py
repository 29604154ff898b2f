"""``deft-ct info``."""

from __future__ import annotations

import importlib.metadata
import platform

import torch
from rich.console import Console
from rich.table import Table

from deft_ct.diffusion.prior_folder import shipped_priors
from deft_ct.methods.deft.folder import shipped_htransforms
from deft_ct.methods.registry import methods
from deft_ct.methods.supervised.model import FORMAT

_CORE = ("deft-ct", "torch", "numpy", "scipy", "pydicom", "nibabel")
_OPTIONAL = {  # distribution -> extra
    "astra-toolbox": "astra",
    "odl": "odl",
    "tomosipo": "tomosipo",
    "numba": "numba",
    "triton": "triton",
    "highdicom": "parametric-map",
    "pylibjpeg": "dicom-compressed",
    "diffusers": "diffusers",
    "deepinv": "deepinv",
    "optuna": "tune",
    "tensorboard": "tensorboard",
}


def info() -> None:
    """Show versions and devices, for a bug report.

    Example: `deft-ct info`
    """
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _CORE:
        table.add_row(name, _version(name) or "missing")
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    table.add_row("devices", ", ".join([f"cpu ({torch.get_num_threads()} threads)", *devices]))
    for name, extra in _OPTIONAL.items():
        table.add_row(name, _version(name) or f"not installed (extra: {extra})")
    table.add_row("methods", ", ".join(methods()))
    table.add_row("priors", ", ".join(shipped_priors()) or "none")
    table.add_row("h-transforms", ", ".join(shipped_htransforms()) or "none")
    table.add_row("trained models", ", ".join(FORMAT.shipped()) or "none")
    Console().print(table)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
