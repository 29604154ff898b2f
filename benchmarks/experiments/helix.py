"""Raw helical data to a volume: bias of water and error beside the limit of a circular scan.

Synthetic DICOM-CT-PD files of ellipsoids, whose line integrals are known in closed form, go through the reader and the
reconstruction of ``deft-ct reconstruct --projections``. The limit is filtered back-projection of the same slices from a
circular scan in their plane, with the same fan, detector columns and views of a turn. No real file could be had.

Run: python benchmarks/experiments/helix.py --json benchmarks/results/helix.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from deft_ct.datasets.synthetic_ct_pd import SyntheticScan
from deft_ct.evaluation.tables import markdown_table
from deft_ct.runtime.atomic import write_text
from deft_ct.workflows.experiments.helix_accuracy import HelixCase, circular_limit, helix_accuracy, written

BASE = SyntheticScan(turns=2.6, views_per_turn=300, columns=160, column_mm=3.0)
CASES: Mapping[str, SyntheticScan] = {
    "pitch 0.6": replace(BASE, pitch=0.6, turns=3.4),
    "pitch 1.0": BASE,
    "pitch 1.0, table the other way": replace(BASE, pitch=-1.0),
    "pitch 1.0, angle falls, GE headers": replace(BASE, clockwise=True, manufacturer="GE MEDICAL SYSTEMS"),
    "pitch 0.6, spot along z": replace(BASE, pitch=0.6, turns=3.4, flying_focal_spot="FFSZ", views_per_turn=600),
    "pitch 1.0, spot in the plane": replace(BASE, flying_focal_spot="FFSXY", views_per_turn=600),
    "pitch 1.0, spot both ways": replace(
        BASE, flying_focal_spot="FFSXYZ", views_per_turn=1200, clockwise=True, pitch=-1.0, spot_mm=(0.6, 0.6, 0.3)
    ),
}
METHODS: Mapping[str, Mapping[str, Any]] = {"fbp": {}, "rebinned fbp": {}, "cgls": {"iterations": 30}}
ITERATIVE_UP_TO = 300
"""Views of a turn up to which the iterative method runs: it takes minutes."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and write its values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--case", action="append", choices=list(CASES), help="repeat; default: all")
    parser.add_argument("--method", action="append", choices=list(METHODS), help="repeat; default: all")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--json", type=Path, help="file for the values")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.case or CASES:
        case = HelixCase(scan=CASES[name], size=arguments.size)
        row: dict[str, Any] = {"case": name, "circular limit": asdict(circular_limit(case))}
        with tempfile.TemporaryDirectory() as folder:
            files = written(case, Path(folder) / "files")
            for method in arguments.method or METHODS:
                if method in ("fbp", "rebinned fbp") or CASES[name].views_per_turn <= ITERATIVE_UP_TO:
                    out = Path(folder) / method.replace(" ", "_")
                    row[method] = asdict(helix_accuracy(case, files, out, method, METHODS[method]))
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(markdown(rows))
    if arguments.json is not None:
        settings = {"size": arguments.size, "cases": {row["case"]: asdict(CASES[row["case"]]) for row in rows}}
        write_text(arguments.json, json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False) + "\n")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bias of water and RMSE within the body, in HU, of every method."""
    shown = ["circular limit", *(name for name in METHODS if any(name in row for row in rows))]
    headings = ["scan", *(f"{name}: water bias (HU)" for name in shown), *(f"{name}: RMSE (HU)" for name in shown)]
    cells = []
    for row in rows:
        bias = [f"{row[name]['water_bias']:+.2f}" if name in row else "" for name in shown]
        rmse = [f"{row[name]['rmse']:.1f}" if name in row else "" for name in shown]
        cells.append([row["case"], *bias, *rmse])
    return markdown_table(headings, cells)


if __name__ == "__main__":
    main()
