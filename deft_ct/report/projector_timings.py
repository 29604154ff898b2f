"""Markdown of ray transform timings: a summary of the backend ``auto`` against each peer, and a table for each cell.

A cell is an image size, a number of views and a batch size, as ``benchmarks/speed/ray_transform.py`` measures them.
"""

from __future__ import annotations

from typing import Any

from deft_ct.evaluation.tables import markdown_table

SLOWER = "**SLOWER THAN ASTRA**"
DIRECTIONS = ("forward", "adjoint")
CT_PEERS = ("odl", "skimage", "mbirjax", "diffct", "deepinv")
"""Peers that compute the same line integrals. finufft has another model, and ASTRA has columns of its own."""


def fastest(cell: dict[str, Any], direction: str, *keys: str, threads: int | None = None) -> dict[str, Any] | None:
    """The fastest record of some candidates in one direction."""
    found = [r for r in cell["times"] if r["key"] in keys and threads in (None, r["threads"])]
    return min(found, key=lambda r: r[direction]) if found else None


def slower_than_astra(cell: dict[str, Any]) -> list[str]:
    """The directions in which `auto` takes longer than ASTRA on as many threads as it likes."""
    out = []
    for direction in DIRECTIONS:
        ours, astra = fastest(cell, direction, "auto"), fastest(cell, direction, "astra")
        if ours and astra and ours[direction] > astra[direction]:
            out.append(direction)
    return out


def timings_markdown(content: dict[str, Any]) -> str:
    """All tables, with how the numbers were measured.

    Args:
        content: threads, machine, package versions, rounds, seconds and cells, as the JSON file holds them.
    """
    packages = ", ".join(f"{name} {version}" for name, version in content["packages"].items() if version)
    clock = " (processor time)" if content.get("clock") == "processor" else ""
    cells = content["cells"]
    lines = [
        f"{content['threads']} threads, {content['machine']}; {packages}.",
        f"Medians of up to {content['rounds']} interleaved rounds ({content['seconds']:g} s for each candidate), ms "
        f"per slice, forward / adjoint{clock}. Parallel beam over half a turn; inputs uniform noise, seed 0.",
        "",
        "## `auto` against the others",
        "",
        "How many times longer each peer takes, forward / adjoint. `auto` and the peers use all threads, ASTRA one and "
        "all. The CT peer is the fastest of those that compute the same line integrals, for each direction.",
        "",
        markdown_table(_SUMMARY, [_summary(cell, content["threads"]) for cell in cells], align="rrrlllllll"),
        "",
        _verdict(cells),
    ]
    for cell in cells:
        lines += ["", *_table(cell, content["threads"])]
    return "\n".join(lines) + "\n"


def _verdict(cells: list[dict[str, Any]]) -> str:
    compared = [c for c in cells if fastest(c, "forward", "auto") and fastest(c, "forward", "astra")]
    slow = [f"{c['pixels']} px, {c['views']} views, batch {c['batch']}" for c in compared if slower_than_astra(c)]
    if slow:
        return f"`auto` is {SLOWER} in {len(slow)} of {len(compared)} cells: {'; '.join(slow)}."
    return f"`auto` is slower than ASTRA in none of {len(compared)} cells."


_SUMMARY = (
    "px", "views", "batch", "auto takes", "ms", "ASTRA, 1 thread", "ASTRA, all threads", "fastest CT peer", "finufft",
    "",
)  # fmt: skip


def _summary(cell: dict[str, Any], threads: int) -> list[str]:
    ours = {direction: fastest(cell, direction, "auto", threads=threads) for direction in DIRECTIONS}
    forward, adjoint = ours["forward"], ours["adjoint"]
    size = [str(cell[key]) for key in ("pixels", "views", "batch")]
    if forward is None or adjoint is None:
        return [*size, *[""] * 7]

    def times_longer(*keys: str, threads: int | None = None, named: bool = False) -> str:
        parts = []
        for direction, record in ours.items():
            other = fastest(cell, direction, *keys, threads=threads)
            if other is None or record is None:
                return ""
            ratio = f"{other[direction] / record[direction]:.1f}x"
            parts.append(f"{ratio} ({other['key']})" if named else ratio)
        return " / ".join(parts)

    flag = f"{SLOWER} ({', '.join(slower_than_astra(cell))})" if slower_than_astra(cell) else ""
    return [
        *size, forward["backend"], f"{forward['forward']:.2f} / {adjoint['adjoint']:.2f}",
        times_longer("astra", threads=1), times_longer("astra", threads=threads), times_longer(*CT_PEERS, named=True),
        times_longer("finufft"), flag,
    ]  # fmt: skip


def _table(cell: dict[str, Any], threads: int) -> list[str]:
    base = {direction: fastest(cell, direction, "astra", threads=1) for direction in DIRECTIONS}
    slow = slower_than_astra(cell)
    lines = [
        f"### {cell['pixels']} px, {cell['views']} views, batch {cell['batch']}",
        "",
        f"Arithmetic floor {cell['floor_ms']:.2f} ms (sgemm {cell['sgemm_gflops']:.0f} GFLOP/s, memory "
        f"{cell['read_gb_per_s']:.0f} GB/s). Other processes took {cell['other_load_cores']:.2f} cores meanwhile.",
        "",
    ]
    rows = []
    for record in cell["times"]:
        forward, adjoint = base["forward"], base["adjoint"]
        ratio = ""
        if forward and adjoint:
            ratio = f"{forward['forward'] / record['forward']:.1f}x / {adjoint['adjoint'] / record['adjoint']:.1f}x"
        kept = "" if record["memory_mb"] is None else f"{record['memory_mb']:.0f}"
        flag = f" {SLOWER}" if slow and record["key"] == "auto" and record["threads"] == threads else ""
        rows.append([
            f"{record['name']}{flag}", f"{record['forward']:.2f}", f"{record['adjoint']:.2f}", ratio, kept,
            str(record["slices"]), str(record["samples"]),
        ])  # fmt: skip
    headings = [
        "", "forward", "adjoint", "times faster than ASTRA on 1 thread", "memory, MB", "slices a call", "samples"
    ]  # fmt: skip
    lines.append(markdown_table(headings, rows, align="lrrlrrr"))
    if cell["left_out"]:
        lines += ["", "Left out: " + "; ".join(f"{name} ({reason})" for name, reason in cell["left_out"].items()) + "."]
    return lines
