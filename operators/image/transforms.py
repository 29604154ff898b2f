"""Orthonormal transforms that torch does not have, and Fourier transforms that do not depend on the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def one_by_one(transform: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a Fourier transform to one sample ``x[i]`` at a time on the CPU.

    MKL shares a batch out between threads, and the last bit of its result then depends on the size of the batch.
    """
    if x.device.type != "cpu" or x.shape[0] < 2:
        return transform(x)
    return torch.stack([transform(sample) for sample in x])


def fast_size(size: int) -> int:
    """The next size that has no prime factors but 2, 3 and 5, for which Fourier transforms are fast."""
    rest = size
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return size if rest == 1 else fast_size(size + 1)


def hartley(x: Tensor) -> Tensor:
    """Orthonormal two-dimensional Hartley transform (kernel ``cos + sin``) over the last two axes; its own inverse."""

    def transform(sample: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(sample, norm="ortho")
        return spectrum.real - spectrum.imag

    return one_by_one(transform, x)


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II matrix, ``(size, size)`` in float64; its transpose is the inverse transform."""
    k = torch.arange(size, dtype=torch.float64)[:, None]
    n = torch.arange(size, dtype=torch.float64)[None, :]
    matrix = math.sqrt(2 / size) * torch.cos(math.pi * (2 * n + 1) * k / (2 * size))
    matrix[0] /= math.sqrt(2)
    return matrix


def walsh_hadamard(x: Tensor) -> Tensor:
    """Orthonormal Walsh-Hadamard transform in natural order over the last axis; its own inverse.

    Args:
        x: ``(..., n)`` with ``n`` a power of two.

    Raises:
        ValueError: ``n`` is not a power of two.
    """
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"walsh_hadamard: the last axis must be a power of two, got {n}")
    out, half = x, 1
    while half < n:
        pairs = out.reshape(*x.shape[:-1], n // (2 * half), 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        out = torch.stack((first + second, first - second), dim=-2).reshape(x.shape)
        half *= 2
    return out / math.sqrt(n)
