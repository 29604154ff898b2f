"""How long the backends of the ray transform take, and how far they are from double precision on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.ct.backends.triton import Tile, TritonBackend
from gpu_stages.common import seconds

BACKENDS = ("matrix", "triton", "triton_fp16", "astra_cuda", "tomosipo")
BATCH = 64
TILES = [
    Tile(rows=rows, columns=columns, lanes=lanes, warps=warps)
    for rows, columns, lanes, warps in (
        (1, 64, 64, 8), (2, 32, 64, 8), (4, 16, 64, 8), (8, 8, 64, 8), (4, 16, 64, 4), (4, 16, 32, 4), (8, 16, 32, 8)
    )
]  # fmt: skip


def ray_transform(name: str, backend: str, device: torch.device, rehearse: bool) -> dict[str, object]:
    """Largest difference to the CPU in double precision, and microseconds for a slice of a batch of 64.

    A rehearsal is small: without a GPU the Triton kernels run in Triton's interpreter, where TRITON_INTERPRET=1 is set.
    """
    side, batch, repeats = (8, 4, 1) if rehearse else (256, BATCH, 20)
    geometry = Scan.from_name(name).unit_geometry((side, side), 1.5)
    x = torch.rand((batch, side, side), generator=torch.Generator().manual_seed(0))
    exact = RayTransform(geometry, "matrix")
    y = exact(x.double())
    reference = exact.adjoint(y)
    try:
        operator = RayTransform(geometry, backend).to(device)
        images, data = x.to(device), y.float().to(device)
        fast, back = operator(images), operator.adjoint(data)
    except (ImportError, RuntimeError, ValueError) as error:  # an extra, a GPU or a beam that it lacks
        return {"left_out": str(error)}
    result: dict[str, object] = {"forward_error": error_of(fast, y), "adjoint_error": error_of(back, reference)}
    for what, call, argument in (
        ("forward", operator, images), ("adjoint", operator.adjoint, data), ("fbp", operator.pseudo_inverse, data)
    ):  # fmt: skip
        if what != "fbp" or backend == "matrix":
            took = seconds(lambda c=call, a=argument: c(a), device, repeats)  # type: ignore[misc]
            result[f"{what}_us_a_slice"] = round(1e6 * took / batch, 2)
    if backend.startswith("triton"):
        storage = torch.float16 if backend == "triton_fp16" else torch.float32
        result |= tile_times(TritonBackend(geometry, storage), images, data, repeats)
    return result


def error_of(found: Tensor, expected: Tensor) -> float:
    """Relative error over the batch."""
    return float((found.cpu() - expected).norm() / expected.norm())


def tile_times(backend: TritonBackend, images: Tensor, data: Tensor, repeats: int) -> dict[str, object]:
    """Microseconds for a slice with each tile: rows x columns x lanes / warps, forward and adjoint.

    The defaults of the backend are to be changed to the fastest.
    """
    times: dict[str, object] = {}
    for tile in TILES if repeats > 1 else TILES[-1:]:
        backend.forward_tile = backend.adjoint_tile = tile
        took = (
            seconds(lambda: backend.forward(images), images.device, repeats),
            seconds(lambda: backend.adjoint(data), images.device, repeats),
        )
        name = f"{tile.rows}x{tile.columns}x{tile.lanes}/{tile.warps}"
        times[name] = [round(1e6 * one / len(images), 2) for one in took]
    return {"tiles_us_a_slice": times}
