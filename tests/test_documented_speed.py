"""Times that docs/results.md gives: every figure is made anew from the stored ones."""

from __future__ import annotations

from typing import Any

import pytest
from documented_comparisons import RESULTS
from documented_tables import page_says, stored, table_holds


def speed() -> list[str]:
    profile = stored("profile_cpu")
    parts = profile["milliseconds_per_slice"]
    evaluation = parts["evaluation of the prior"] + parts["evaluation of the h-transform"]
    convolution = dict(profile["kernels"]["a reconstructed slice, one sample"])["aten::mkldnn_convolution"]
    cells = stored("ray_transform")["cells"]
    (cell,) = [one for one in cells if (one["pixels"], one["views"], one["batch"]) == (256, 60, 8)]
    times = {one["name"]: (one["forward"], one["adjoint"]) for one in cell["times"]}
    ours = times["auto: matrix, 2 threads"]
    libraries = ("ODL (astra_cpu)", "scikit-image", "mbirjax", "diffct (torch)", "deepinv")
    peers = {name: value for name, value in times.items() if name.split(",")[0] in libraries}
    assert len(peers) == 5

    def faster(name: str, at: int) -> str:
        return f"{times[name][at] / ours[at]:.0f}"

    fastest = [min(value[at] for value in peers.values()) / ours[at] for at in (0, 1)]
    slower = 0
    for one in cells:
        named = {row["name"]: (row["forward"], row["adjoint"]) for row in one["times"]}
        auto = next(value for name, value in named.items() if name.startswith("auto") and name.endswith("2 threads"))
        astra = [named[f"ASTRA, {threads}"] for threads in ("1 thread", "2 threads")]
        slower += any(auto[at] > their[at] for at in (0, 1) for their in astra)
    assert slower == 0 and len(cells) == 27
    return [
        f"prior and h-transform network: {evaluation:.0f} ms",
        f"- TV: {parts['TV reference']:.0f} ms",
        f"the second reconstruction, learned primal-dual: {parts['second reconstruction']:.0f} ms",
        f"the refinement of both: {parts['refinement']:.0f} ms",
        f"training the h-transform network: {parts['training of the h-transform, a slice']:.0f} ms",
        f"bottleneck of a sample, too ({100 * convolution:.0f} %)",
        f"A slice takes {ours[0]:.2f} ms forward and {ours[1]:.2f} ms adjoint.",
        f"{faster('ASTRA, 1 thread', 0)} and {faster('ASTRA, 1 thread', 1)} times faster than ASTRA's CPU projector on "
        f"one thread ({faster('ASTRA, 2 threads', 0)} and {faster('ASTRA, 2 threads', 1)} times on two)",
        f"{fastest[0]:.0f} and {fastest[1]:.0f} times faster than the fastest of five other CT libraries",
        f"never slower than ASTRA in any of {len(cells)} cells",
    ]


def stored_matrices() -> list[str]:
    """The table of the compiled product, and the sentences below it."""
    found: dict[tuple[int, int], list[list[float]]] = {}
    for threads, name in ((1, "ray_transform_one_thread"), (2, "ray_transform_two_threads")):
        label = "1 thread" if threads == 1 else "2 threads"
        for cell in stored(name)["cells"]:
            times = {record["name"]: (record["forward"], record["adjoint"]) for record in cell["times"]}
            peer, ours = times["ASTRA, 1 thread"], times[f"auto: matrix, {label}"]
            found.setdefault((cell["pixels"], cell["batch"]), []).append([peer[at] / ours[at] for at in (0, 1)])
            if (threads, cell["pixels"], cell["batch"]) == (1, 512, 8):
                joseph = [times[f"joseph, {label}"][at] / times[f"matrix, {label}"][at] for at in (0, 1)]
            if (threads, cell["pixels"], cell["batch"]) == (1, 256, 1):
                symmetric = [peer[at] / times[f"symmetric, {label}"][at] for at in (0, 1)]
                (memory,) = {row["memory_mb"] for row in cell["times"] if row["name"] == f"matrix, {label}"}
    rows = [
        [f"{pixels}, {batch}", *(f"{forward:.1f} / {adjoint:.1f}" for forward, adjoint in gains)]
        for (pixels, batch), gains in found.items()
    ]
    table_holds(RESULTS, "forward and adjoint are so many times faster:", rows)
    return [
        f"the two matrices take {memory:.0f} MB",
        f"`matrix` is {joseph[0]:.1f} and {joseph[1]:.1f} times faster than `joseph`",
        f"`symmetric` ({symmetric[0]:.1f} and {symmetric[1]:.1f} times)",
    ]  # fmt: skip


@pytest.mark.parametrize("claims", [speed, stored_matrices])
def test_sentences_say_what_is_stored(claims: Any) -> None:
    page_says(RESULTS, *claims())
