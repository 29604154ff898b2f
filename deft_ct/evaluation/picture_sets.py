"""Distances of two sets of pictures, FID and KID, by the features of the Inception network that they are defined with.

The network is NVIDIA's port of the network of 2015. It is never downloaded. Its file is TorchScript and holds code,
which the interpreter of TorchScript runs. So its SHA-256 is compared first, and no other file is opened.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deft_ct.runtime.device import check_device
from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.read_error import ReadError

EXTRA = "picture-sets"
INCEPTION = "inception-2015-12-05.pt"
"""Name of the network's file."""
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
"""Of its content, as in the sources of k-diffusion and other projects that compute FID with it."""
SUBSETS = 100
MOST_IN_SUBSET = 1000
"""Number and size of the subsets of KID in its paper."""

_MOST_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """How far two sets of pictures are from each other.

    Attributes:
        fid: squared Frechet distance of two Gaussians that are fitted to the features (Heusel et al. 2017, equation 6).
            0 for equal sets; higher is worse.
        kid: unbiased estimate of the squared maximum mean discrepancy with the kernel ``(x y / d + 1)^3``, mean over
            subsets (Binkowski et al. 2018, section 4). Around 0 for sets that look the same, also below it.
        kid_std: standard deviation over the subsets.
        counts: pictures of the true and of the restored set.
        subset_size: pictures of each set in a subset.
        features: numbers of a picture that were compared.
    """

    fid: float
    kid: float
    kid_std: float
    counts: tuple[int, int]
    subset_size: int
    features: int


def inception_missing(path: str | Path | None = None) -> str:
    """Why FID and KID cannot be computed here; empty if they can.

    Args:
        path: of the network; the place in PyTorch's cache when None.
    """
    if find_spec("torchmetrics") is None:
        return f"FID and KID are not measured: torchmetrics is not installed (pip install 'deft-ct[{EXTRA}]')"
    file = _file(path)
    if not file.is_file():
        return (
            f"FID and KID are not measured: there is no Inception network at {file}; name NVIDIA's file {INCEPTION} "
            "with --inception"
        )
    return ""


def load_inception(path: str | Path | None = None, *, device: str = "cpu") -> nn.Module:
    """The Inception network: of pictures ``(N, 3, H, W)`` uint8 it gives features with ``return_features=True``.

    Args:
        path: of the file; the place in PyTorch's cache when None.
        device: where it is run.

    Raises:
        FileNotFoundError: the file or the library torchmetrics is missing.
        ReadError: it is another file. It is not opened, because code in it would be run.
        ValueError: there is no such device.
    """
    check_device(device)
    if missing := inception_missing(path):
        raise FileNotFoundError(missing)
    file = _file(path)
    content = file.read_bytes() if file.stat().st_size <= _MOST_BYTES else b""
    if hashlib.sha256(content).hexdigest() != INCEPTION_SHA256:
        raise ReadError(
            file,
            f"is not {INCEPTION}, with which FID and KID are defined: its SHA-256 is not {INCEPTION_SHA256}; other "
            "files are not opened, because code in them would be run",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        network: nn.Module = torch.jit.load(io.BytesIO(content), map_location=device)  # what was hashed, and no more
    return network.eval()


def picture_features(
    pictures: Iterable[Tensor], network: nn.Module, *, device: str = "cpu", batch_size: int = 32
) -> Tensor:
    """Features of pictures.

    Args:
        pictures: ``(3, H, W)`` uint8; they may differ in size.
        network: of :func:`load_inception`.
        device: where it is.
        batch_size: pictures at once, if their size is the same.

    Returns:
        ``(N, features)`` float64 on the CPU, in the order of the pictures.

    Raises:
        ValueError: there is no picture, or the features are not finite.
    """
    with torch.no_grad():
        found = [
            network(batch.to(device), return_features=True).cpu().double() for batch in _batches(pictures, batch_size)
        ]
    if not found:
        raise ValueError("there are no pictures")
    features = torch.cat(found)
    if not bool(torch.isfinite(features).all()):
        raise ValueError("the Inception network gives features that are not finite")
    return features


def set_distance(truth: Tensor, restored: Tensor, *, seed: int = 0) -> SetDistance:
    """FID and KID of two sets by their features, whatever their order.

    KID has :data:`SUBSETS` subsets of :data:`MOST_IN_SUBSET` pictures. Of smaller sets a subset has half of the smaller
    one, so that the subsets differ.

    Args:
        truth: ``(N, features)`` of the true pictures.
        restored: ``(M, features)`` of the restored ones.
        seed: of the subsets.

    Raises:
        MissingExtraError: torchmetrics is not installed.
        ValueError: a set has fewer than two pictures, or the features are others.

    Warns:
        UserWarning: a set has no more pictures than features, so that FID is too high.
    """
    if truth.ndim != 2 or restored.ndim != 2 or truth.shape[1] != restored.shape[1]:
        raise ValueError(
            f"expected features (N, d) and (M, d), got {tuple(truth.shape)} and {tuple(restored.shape)}"
        )  # fmt: skip
    counts, width = (len(truth), len(restored)), truth.shape[1]
    if min(counts) < 2:
        raise ValueError(f"FID and KID need two pictures or more of each set, got {counts[0]} and {counts[1]}")
    if min(counts) <= width:
        warnings.warn(
            f"FID is too high for {min(counts)} pictures, because they have {width} features: compare it with FIDs of "
            "as many pictures only, or use KID, which is unbiased",
            UserWarning,
            stacklevel=2,
        )
    size = min(MOST_IN_SUBSET, max(2, min(counts) // 2))
    fid = _metric("fid", "FrechetInceptionDistance", width)
    kid = _metric("kid", "KernelInceptionDistance", width, subsets=SUBSETS, subset_size=size)
    for features, real in ((truth, True), (restored, False)):
        values = features.double()
        ordered = values[values.sum(1).argsort()]  # the subsets are drawn by place
        fid.update(ordered, real=real)
        kid.update(ordered, real=real)
    with torch.random.fork_rng(devices=[]):  # torchmetrics takes no generator
        torch.manual_seed(seed)
        mean, std = (float(value) for value in kid.compute())
    return SetDistance(
        fid=max(0.0, float(fid.compute())), kid=mean, kid_std=std, counts=counts, subset_size=size, features=width
    )  # fmt: skip


class _GivenFeatures(nn.Module):
    """Stands for the network of a metric whose features were computed before."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _metric(module: str, name: str, width: int, **options: int) -> Any:
    library = optional_library(f"torchmetrics.image.{module}", EXTRA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the features of KID are kept
        return getattr(library, name)(feature=_GivenFeatures(width), **options)


def _file(path: str | Path | None) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION if path is None else Path(path).expanduser()


def _batches(pictures: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Pictures of one size beside each other."""
    batch: list[Tensor] = []
    for picture in pictures:
        if batch and (len(batch) == size or picture.shape != batch[0].shape):
            yield torch.stack(batch)
            batch = []
        batch.append(picture)
    if batch:
        yield torch.stack(batch)
