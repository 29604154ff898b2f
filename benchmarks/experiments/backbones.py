"""A prior of backbones, and methods that scaffold motifs with it: geometry alone, no designability.

Three tables. The samples of the prior beside the chains of val: bonds, clashes, size, secondary structure, hand of the
helices. The error of the estimate outside of the motif, given the motif, of an h-transform and of replacement. The
methods on the problems of a split: ``val`` to tune on, ``test`` to judge; a chain is solved by the criteria of
``deft_ct.protein.scaffolds``. Intervals are over chains, or over problems.

Run: python benchmarks/experiments/backbones.py --data backbones:FILE --prior PRIOR --out benchmarks/results
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deft_ct.datasets.backbones import BackboneFile, MotifCut
from deft_ct.evaluation.statistics import cluster_interval
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.registry import Networks
from deft_ct.protein.scaffolds import CLAIM
from deft_ct.workflows.experiments.arguments import (
    add_network_arguments,
    build_method,
    experiment_parser,
    networks_from,
)
from deft_ct.workflows.experiments.backbone_scores import (
    chain_geometry,
    denoising_errors,
    drawn_chains,
    scaffold_scores,
)

SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Noise levels of the gate, angstrom."""
SHOWN = (
    "solved", "well_formed", "motif_rmsd", "junction_error", "valid_bonds", "clashes", "compactness", "evaluations",
    "seconds",
)  # fmt: skip


def cell(values: Sequence[float], names: Sequence[str]) -> str:
    """Mean and interval as text."""
    found = cluster_interval(values, names)
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"


def of_the_prior(file: BackboneFile, networks: Networks, count: int, steps: int, seed: int) -> tuple[str, Record]:
    """Samples, with the lengths of the chains of val, beside these chains."""
    val = [chain for chain in file.chains("val") if chain.compact]
    lengths = [len(val[k % len(val)]) for k in range(count)]
    drawn = drawn_chains(networks.load_prior(), lengths, steps=steps, seed=seed)
    rows = {
        "samples": [chain_geometry(chain) for chain in drawn], "val": [chain_geometry(chain.ca) for chain in val]
    }  # fmt: skip
    names = list(rows["val"][0])
    lines = [
        [
            what,
            str(len(found)),
            *(cell([row[name] for row in found], list(map(str, range(len(found))))) for name in names),
        ]
        for what, found in rows.items()
    ]
    return markdown_table(["chains", "n", *names], lines), {"rows": rows, "steps": steps}


def gate(cuts: Sequence[MotifCut], networks: Networks, seed: int) -> tuple[str, Record]:
    """Errors outside of the motif by noise level, of replacement and of the h-transform if one was named."""
    known = {"replacement": None, "deft": networks.load_htransform(required=False)}
    errors = {
        name: {
            str(sigma): denoising_errors(networks.load_prior(), htransform, cuts, sigma=sigma, seed=seed)
            for sigma in SIGMAS
        }
        for name, htransform in known.items() if name == "replacement" or htransform is not None
    }  # fmt: skip
    names = [cut.name for cut in cuts]
    lines = [[name, *(cell(found[str(sigma)], names) for sigma in SIGMAS)] for name, found in errors.items()]
    return markdown_table(["estimate", *(f"{sigma:g} A" for sigma in SIGMAS)], lines), {"errors": errors}


def scaffolded(
    cuts: Sequence[MotifCut], networks: Networks, methods: Sequence[str], samples: int, seeds: int
) -> tuple[str, Record]:
    """Scores of the methods over problems, samples and seeds."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for text in methods:
        method = build_method(networks, text)
        rows[text] = [
            {"problem": cut.name, "seed": seed, **row}
            for cut in cuts
            for seed in range(seeds)
            for row in scaffold_scores(method, cut, samples=samples, seed=seed)
        ]
    lines = [
        [text, *(cell([float(row[name]) for row in found], [row["problem"] for row in found]) for name in SHOWN)]
        for text, found in rows.items()
    ]
    return markdown_table(["method", *SHOWN], lines), {"rows": rows}


def main() -> None:
    """Measure and write ``backbones.md`` and ``backbones.json``."""
    parser = experiment_parser(__doc__)
    parser.add_argument("--data", required=True, help="backbones:FILE")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="whose motifs")
    parser.add_argument("--limit", type=int, help="take the first motifs only")
    parser.add_argument("--draws", type=int, default=64, help="samples of the prior; 0 for none")
    parser.add_argument("--steps", type=int, default=100, help="evaluations of each sample of the prior")
    parser.add_argument("--method", action="append", help="method with its options; repeat it")
    parser.add_argument("--samples", type=int, default=8, help="chains of each problem and seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the methods, from 0")
    parser.add_argument("--seed", type=int, default=0, help="of the prior's samples and of the gate")
    add_network_arguments(parser)
    arguments = parser.parse_args()
    file, networks = BackboneFile(arguments.data), networks_from(arguments)
    cuts = file.motif_cuts(arguments.split)[: arguments.limit]
    parts = {"gate": gate(cuts, networks, arguments.seed)}
    if arguments.draws:
        parts["prior"] = of_the_prior(file, networks, arguments.draws, arguments.steps, arguments.seed)
    if arguments.method:
        parts["methods"] = scaffolded(cuts, networks, arguments.method, arguments.samples, arguments.seeds)
    about = (
        f"{CLAIM.capitalize()}. {len(cuts)} motifs of {arguments.split}; prior "
        f"{networks.load_prior().content_hash()[:12]}; 95 % bootstrap intervals over chains or problems."
    )
    text = "\n\n".join([about, *(f"## {name}\n\n{table}" for name, (table, _) in parts.items())])
    record = {"about": about} | {name: found for name, (_, found) in parts.items()}
    write_result(arguments.out, "backbones", record, text + "\n")


if __name__ == "__main__":
    main()
