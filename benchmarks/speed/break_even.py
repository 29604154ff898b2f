"""From how many slices on DEFT is faster than methods without training, its own training counted.

Run: python benchmarks/speed/break_even.py benchmarks/results/compare_parallel60_1e5.json --out break_even.md
Seconds per slice come from `deft-ct compare`, those of the training from the card of the h-transform.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.deft import load_htransform
from deft_ct.report import FOOTER

OWN = "deft"
SIZES = (100, 1000, 10_000)


def break_even(training: float, own: float, other: float) -> float:
    """Slices from which on ``training + n own < n other``; infinite where the other method is not slower."""
    return training / (other - own) if other > own else math.inf


def markdown(cells: list[dict[str, Any]], training: float, source: str) -> str:
    """The table: methods that use a prior, by their seconds per slice."""
    values = {cell["label"]: cell["values"] for cell in cells if "prior_sha256" in cell["provenance"]}
    if OWN not in values:
        raise ValueError(f"{source} holds no row {OWN!r}: run deft-ct compare with --method deft")
    own = values.pop(OWN)
    head = ["method", "PSNR (dB)", "s per slice", "times DEFT", "break-even (slices)", *(f"h for {n}" for n in SIZES)]
    lines = []

    def row(name: str, found: dict[str, Any], extra: float, even: str) -> list[str]:
        seconds = found["seconds_per_slice"]
        hours = [f"{(extra + n * seconds) / 3600:.2f}" for n in SIZES]
        quality = sum(found["psnr_db"]) / len(found["psnr_db"])
        return [name, f"{quality:.2f}", f"{seconds:.2f}", f"{seconds / own['seconds_per_slice']:.1f}", even, *hours]

    lines.append(row(OWN, own, training, "-"))
    for name, found in sorted(values.items(), key=lambda item: item[1]["seconds_per_slice"]):
        if name.startswith(OWN):  # trained, too
            continue
        even = break_even(training, own["seconds_per_slice"], found["seconds_per_slice"])
        lines.append(row(name, found, 0.0, "never" if math.isinf(even) else f"{math.ceil(even)}"))
    table = markdown_table(head, lines)
    return (
        f"{table}\n\nFrom {source}, n = {len(own['psnr_db'])} slices. DEFT's hours include {training:.0f} s of "
        "training of the h-transform and its refinement; the prior is common to all and is not counted.\n\n"
        f"{FOOTER}.\n"
    )


def main() -> None:
    """Read, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="comparison.json of deft-ct compare, of one scan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--htransform", help="folder or shipped name; its card has the seconds of the training")
    arguments = parser.parse_args()
    training = float(load_htransform(arguments.htransform).card["seconds"])
    cells = json.loads(arguments.comparison.read_text(encoding="utf-8"))["cells"]
    text = markdown(cells, training, arguments.comparison.name)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
