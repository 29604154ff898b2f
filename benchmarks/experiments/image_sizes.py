"""What it costs that the sides of an image do not divide by the stride of the networks.

Twice the same pixels are judged: where they belong to an image whose sides divide, and where they belong to a smaller
one that the networks continue by its edges. First on windows whose border cuts through the anatomy: noisy slices,
denoised by the prior. Then on whole slices, by methods that reconstruct the same sinograms. The error in a band along
the border, beside that of everything, shows a seam.

Run: python benchmarks/experiments/image_sizes.py --out benchmarks/results
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, read_pack
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.registry import Networks
from deft_ct.runtime.seeds import generator_for, normal_like
from deft_ct.workflows.experiments.arguments import (
    add_data_arguments,
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)

TIMES = (50, 200, 500)
WINDOW, LESS = 176, 6
"""Side of a window that divides, and pixels by which the other one is smaller."""
BAND = 8
"""Pixels along the border that are judged by themselves."""
SPAN = PriorRange()


def rms(error: Tensor) -> dict[str, float]:
    """RMS in HU of errors ``(B, 1, H, W)`` in the prior's range: of all pixels, and of those along the border."""
    border = torch.ones(error.shape[-2:], dtype=torch.bool)
    border[BAND:-BAND, BAND:-BAND] = False
    square = (error * SPAN.scale).square()
    return {"all": float(square.mean().sqrt()), "border": float(square[..., border].mean().sqrt())}


def inner(values: Tensor, side: int) -> Tensor:
    """The central ``side`` x ``side`` pixels."""
    first = (values.shape[-1] - side) // 2
    return values[..., first : first + side, first : first + side]


@torch.no_grad()
def denoised(pack: CTPack, networks: Networks, seed: int) -> Record:
    """Errors of the prior on windows of both sizes, by time."""
    prior, found = networks.load_prior(), {}
    truth = torch.stack([SPAN.to_prior(item.hu.clamp_min(-1000.0)) for item in pack])
    large = inner(truth, WINDOW)
    for t in TIMES:
        times = torch.full((len(large),), t)
        noise = normal_like(large, [generator_for(seed, "sizes", k, t) for k in range(len(large))])
        noisy = prior.schedule.add_noise(large, noise, times)
        small = WINDOW - LESS
        divides = inner(prior.denoise(noisy, times), small)
        continued = prior.denoise(inner(noisy, small).contiguous(), times)
        target = inner(truth, small)
        found[f"prior, t = {t}"] = {"divides": rms(divides - target), "continued": rms(continued - target)}
    return found


def reconstructed(pack: CTPack, networks: Networks, method: str, seed: int) -> Record:
    """Errors of a method on slices of both sizes, from the same sinograms.

    The outermost pixels are set to air, so that both images can explain the data.
    """
    whole = pack.image_shape[0]
    side = whole - LESS
    scan = Scan(detectors=Scan().measurement((whole, whole), 1.0).operator.range_shape[-1])
    solver = build_method(networks, method)
    errors: dict[str, list[Tensor]] = {"divides": [], "continued": []}
    for item in pack:
        name = f"{item.group}/{item.index}"
        hu = torch.full_like(item.hu, -1000.0)
        inner(hu, side).copy_(inner(item.hu.clamp_min(-1000.0), side))
        full = scan.measurement((whole, whole), item.pixel_mm)
        assert full.units is not None
        y = full.simulate(full.units.affine(hu[None]), seed=seed, image_ids=[name], refine=2)
        for kind, shape in (("divides", whole), ("continued", side)):
            measurement = full if kind == "divides" else scan.measurement((shape, shape), item.pixel_mm)
            result = solver.reconstruct(y, measurement, seed=seed, image_ids=[name])
            errors[kind].append((inner(result.in_units.mean, side) - inner(hu[None], side)) / SPAN.scale)
    return {method: {kind: rms(torch.cat(found)) for kind, found in errors.items()}}


def markdown(record: Record) -> str:
    """RMS errors of both sizes, with the difference."""
    rows = []
    for label, found in record["rows"].items():
        cells = [label]
        for part in ("all", "border"):
            a, b = found["divides"][part], found["continued"][part]
            cells += [f"{a:.1f}", f"{b:.1f}", f"{100 * (b / a - 1):+.1f} %"]
        rows.append(cells)
    headings = [
        "", "all pixels, divides (HU)", "continued", "change", "border, divides (HU)", "continued", "change"
    ]  # fmt: skip
    return "\n\n".join([
        "# Image sizes",
        markdown_table(headings, rows),
        f"RMS error. Prior: windows of {WINDOW} and {WINDOW - LESS} pixels. Methods: slices of {record['side']} and "
        f"{record['side'] - LESS} pixels, 60 parallel views, 1e5 photons. Border: the outermost {BAND} pixels of the "
        f"smaller image. {record['pack']}, every {record['every']}: n = {record['slices']} slices, seed "
        f"{record['seed']}. Made by `benchmarks/experiments/image_sizes.py`.",
    ]) + "\n"  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both and write the table."""
    parser = experiment_parser(__doc__)
    add_data_arguments(parser, every=64)
    add_network_arguments(parser)
    parser.add_argument("--methods", nargs="*", default=["deft", "fbp_unet"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    networks, pack = networks_from(arguments), read_pack(arguments.data, arguments.every)
    rows = denoised(pack, networks, arguments.seed)
    for method in arguments.methods:
        rows |= reconstructed(pack, networks, method, arguments.seed)
    record = {
        "rows": rows, "side": int(np.max(pack.image_shape)), "pack": pack.path.name, "every": arguments.every,
        "slices": len(pack), "seed": arguments.seed,
    }  # fmt: skip
    print(markdown(record))
    write_result(arguments.out, "image_sizes", record, markdown(record))


if __name__ == "__main__":
    main()
