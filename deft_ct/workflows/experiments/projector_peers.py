"""What a benchmark of ray transforms times: our backends, and other libraries on the same parallel scan."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends.choice import matrix_bytes
from deft_ct.operators.ct.backends.matrix import STORED_BYTES
from deft_ct.operators.linear import LinearOperator

Pair = tuple[Callable[[], object], Callable[[], object]]
Maker = Callable[[ParallelGeometry, Tensor, Tensor, int], Pair]


@dataclass(frozen=True)
class Candidate:
    """Two calls to time.

    Attributes:
        name: row of the table.
        key: what the command line calls it.
        pair: forward and adjoint, each a call without arguments.
        slices: slices that a call handles.
        threads: threads that it is given; 0 where the library decides.
        backend: the backend of ours that does the work.
    """

    name: str
    key: str
    pair: Pair
    slices: int
    threads: int
    backend: str | None = None


def timed_pair(forward: Callable[[Tensor], object], x: Tensor, adjoint: Callable[[Tensor], object], y: Tensor) -> Pair:
    """Two calls on fixed arguments, without an autograd graph."""

    def fixed(apply: Callable[[Tensor], object], argument: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return apply(argument)

        return run

    return fixed(forward, x), fixed(adjoint, y)


def of_operator(op: LinearOperator, x: Tensor, y: Tensor) -> Pair:
    """Forward and adjoint of one of our operators."""
    return timed_pair(op, x, op.adjoint, y)


def of_astra(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """ASTRA's `linear` CPU projector by direct calls on torch's memory, slices over a pool of torch's threads."""
    return of_operator(RayTransform(geometry, "astra"), x, y)


def of_odl(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """ODL's RayTransform with ASTRA's CPU projector, one slice at a time."""
    from deft_ct.operators.interop import FromODL, import_odl

    odl = import_odl()
    tomo: Any = importlib.import_module("odl.applications.tomo")
    (height, width), (dy, dx) = geometry.image_shape, geometry.pixel_rc
    corner = [height * dy / 2, width * dx / 2]
    space = odl.uniform_discr([-c for c in corner], corner, geometry.image_shape, dtype="float32")
    scan = tomo.parallel_beam_geometry(space, geometry.sinogram_shape[0], geometry.detectors)
    return of_operator(FromODL(tomo.RayTransform(space, scan, impl="astra_cpu")), x, y)


def of_skimage(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """scikit-image's radon, and iradon without a filter."""
    from skimage.transform import iradon, radon

    theta = np.degrees(geometry.angle_array)
    image = x[0].numpy()
    sinogram = radon(image, theta, circle=False)
    size = geometry.image_shape[0]
    return (
        lambda: radon(image, theta, circle=False),
        lambda: iradon(sinogram, theta, filter_name=None, circle=False, output_size=size),
    )


def of_mbirjax(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """mbirjax, the batch as the slices of one volume; JAX compiles at the first call, which is not timed."""
    import mbirjax  # isort: skip  # before JAX, which it tells to use every core

    import jax

    views, detectors = geometry.sinogram_shape
    model = mbirjax.ParallelBeamModel((views, len(x), detectors), geometry.angle_array)
    model.set_params(recon_shape=(*geometry.image_shape, len(x)), verbose=0, no_warning=True)
    volume = jax.device_put(np.ascontiguousarray(x.permute(1, 2, 0).numpy()))
    data = jax.device_put(np.ascontiguousarray(y.permute(1, 0, 2).numpy()))
    return (
        lambda: jax.block_until_ready(model.forward_project(volume)),
        lambda: jax.block_until_ready(model.back_project(data)),
    )


def of_diffct(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """Diffct's Siddon projector in pixel units, by its torch backend (its other one needs CUDA)."""
    import diffct

    scan = diffct.circular_trajectory_2d_parallel(geometry.sinogram_shape[0], device="cpu")
    op = diffct.Projector(scan, geometry.image_shape, (geometry.detectors,), beam="parallel", backend="torch")
    return timed_pair(op.project, x, op.backproject, y)


def of_deepinv(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """Deepinv's Tomography with its defaults."""
    from deepinv.physics import Tomography

    # Measured: 1.6 GB for a slice of 512 x 512 pixels and 200 views.
    needed = 32 * x[0].numel() * geometry.sinogram_shape[0] * len(x)
    if needed > 0.7 * psutil.virtual_memory().available:
        raise MemoryError(f"it would take about {needed / 1e9:.0f} GB")
    physics = Tomography(angles=geometry.sinogram_shape[0], img_width=geometry.image_shape[0], circle=False)
    image = x[:, None]
    with torch.no_grad():
        data = physics.A(image)
    return timed_pair(physics.A, image, physics.A_adjoint, data)


def of_finufft(geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int) -> Pair:
    """Non-uniform FFTs of types 2 and 1 at 1e-4: another, band-limited model; the FFT along the detector left out."""
    import finufft

    angles, (height, width) = geometry.angle_array, geometry.image_shape
    radius = 2 * np.pi * np.fft.fftfreq(geometry.detectors)
    u = (-np.sin(angles)[:, None] * radius).ravel().astype(np.float32)
    v = (np.cos(angles)[:, None] * radius).ravel().astype(np.float32)
    plans = [
        finufft.Plan(kind, (height, width), n_trans=len(x), eps=1e-4, dtype="complex64", nthreads=threads)
        for kind in (2, 1)
    ]
    for plan in plans:
        plan.setpts(u, v)
    image = x.numpy().astype(np.complex64).reshape(len(x), height, width)
    data = y.numpy().astype(np.complex64).reshape(len(y), -1)
    image, data = (image[0], data[0]) if len(x) == 1 else (image, data)
    return lambda: plans[0].execute(image), lambda: plans[1].execute(data)


PEERS: dict[str, tuple[str, Maker]] = {
    "astra": ("ASTRA", of_astra),
    "odl": ("ODL (astra_cpu)", of_odl),
    "skimage": ("scikit-image", of_skimage),
    "mbirjax": ("mbirjax", of_mbirjax),
    "diffct": ("diffct (torch)", of_diffct),
    "deepinv": ("deepinv", of_deepinv),
    "finufft": ("finufft, 1e-4", of_finufft),
}
"""Key -> (name, maker)."""

ONE_BY_ONE = {"astra": 4, "odl": 2, "skimage": 1, "diffct": 1, "deepinv": 1}
"""Most slices to hand to peers that treat them one by one (ASTRA: at least two for each thread of its pool)."""

THREADS = {"odl": 1, "skimage": 1, "mbirjax": 0}
"""Peers whose number of threads is not ours to choose; 0: all cores that the process may use."""


def candidates(
    geometry: ParallelGeometry, x: Tensor, y: Tensor, threads: int, keys: list[str], left_out: dict[str, str]
) -> list[Candidate]:
    """Prepare what is to be timed; each has been called once.

    Args:
        geometry: the scan.
        x: (N, H, W) images.
        y: (N, views, detectors) sinograms.
        threads: for those that run in parallel.
        keys: keys of `PEERS`, and names of our backends.
        left_out: filled with the reason for each one that does not run.
    """
    found: list[Candidate] = []

    def add(name: str, key: str, make: Callable[[], Pair], slices: int, used: int, backend: str | None = None) -> None:
        torch.set_num_threads(used or threads)
        try:
            pair = make()
            for call in pair:
                call()
        except Exception as error:  # noqa: BLE001  (one broken peer must not end the run)
            left_out[key] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return
        found.append(Candidate(name, key, pair, slices, used, backend))

    for key in keys:
        if key in PEERS:
            name, maker = PEERS[key]
            most = ONE_BY_ONE.get(key, len(x))
            count = min(len(x), max(most, 2 * threads) if key == "astra" else most)
            for used in dict.fromkeys((1, threads) if key == "astra" else (THREADS.get(key, threads),)):
                label = f"{name}, {used or 'all'} thread{'s' * (used != 1)}"
                add(label, key, lambda m=maker, n=count, t=used: m(geometry, x[:n], y[:n], t or threads), count, used)  # type: ignore[misc]
            continue
        if key == "matrix" and matrix_bytes(geometry) > STORED_BYTES:
            left_out[key] = f"its {matrix_bytes(geometry) / 1e9:.1f} GB would be rebuilt for every call"
            continue
        try:
            op = RayTransform(geometry, key)
        except (ValueError, ImportError) as error:
            left_out[key] = str(error)
            continue
        shown = f"auto: {op.backend}" if key == "auto" else key
        for used in dict.fromkeys((1, threads) if key == "auto" else (threads,)):
            label = f"{shown}, {used} thread{'s' * (used != 1)}"
            add(label, key, lambda o=op: of_operator(o, x, y), len(x), used, op.backend)  # type: ignore[misc]
    return found
