"""A prior of backbones, and methods that scaffold motifs with it: geometry alone, no designability.

Parts, in the order of their use:

* ``prior``: samples of the prior beside chains of val and the probe that came before it; pictures.
* ``gate``: error of the estimate outside of the motif, given the motif, of each trained network and of replacement, on
  val. A network that is not better at every noise level has learned nothing: do not sample with it.
* ``cost``: processor time of the next two parts, from a few steps.
* ``tune``: the same number of trials for every method, on val; the best options go to WORK/tuned.json, and as presets
  of the package to RESULTS/presets/motif. Of several h-transforms the last one has the preset of DEFT.
* ``table``: the methods on the test motifs and on the benchmark motifs of one segment. A chain is solved by the
  criteria of ``deft_ct.protein.scaffolds``. Intervals are over problems.

Every row is stored in WORK. A killed run resumes by the same command; ``--stored`` makes the table of what is there.

Run: python benchmarks/experiments/backbones.py table --data backbones:FILE --prior PRIOR --work WORK --out RESULTS
     [--head deft_4=FOLDER --head deft_10=FOLDER] [--amortised FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from deft_ct.datasets.backbones import BackboneFile
from deft_ct.diffusion import Prior
from deft_ct.evaluation.statistics import cluster_interval
from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.methods.presets import MOTIF_PRESET
from deft_ct.methods.registry import Networks
from deft_ct.methods.supervised.amortised import AmortisedModel
from deft_ct.protein.scaffolds import CLAIM
from deft_ct.report.backbones import save_backbones
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.content_key import result_versions
from deft_ct.workflows.experiments.arguments import experiment_parser
from deft_ct.workflows.experiments.backbone_cost import core_hours
from deft_ct.workflows.experiments.backbone_problems import problems
from deft_ct.workflows.experiments.backbone_scores import (
    Conditional,
    by_amortised,
    by_htransform,
    by_replacement,
    chain_geometry,
    denoising_errors,
    drawn_chains,
)
from deft_ct.workflows.experiments.backbone_study import (
    Contender,
    Rows,
    Tuning,
    compared_rows,
    fixed_options,
    motif_preset,
    networks_digest,
    novelty,
    solved_chains,
    tuned_options,
)

SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Noise levels of the gate, angstrom."""
SHOWN = ("solved", "well_formed", "motif_rmsd", "junction_error", "valid_bonds", "clashes", "compactness")
COSTS = ("evaluations", "seconds")
PROBE = {
    "bond_error": "0.109", "valid_bonds": "0.91", "clashes": "0.35", "compactness": "1.05", "helix": "0.11",
    "strand": "0.07", "left_helix": "none seen",
}  # fmt: skip
"""Samples of a network of 1.2 M parameters after 470 s of one core, 64 of 100 steps: what the prior is to beat."""
BASELINES = ("unconditional", "replacement", "reconstruction_guidance", "dps", "reddiff", "daps")
DRAWN = 16
"""Samples of the prior in the picture."""


def cell(values: Sequence[float], names: Sequence[str]) -> str:
    """Mean and interval as text."""
    if not values:
        return "-"
    found = cluster_interval(values, names)
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"


def contenders(arguments: argparse.Namespace) -> list[Contender]:
    """The methods of the comparison, those of trained networks where they were named."""
    prior = Networks(prior=arguments.prior)
    prior.load_prior()

    def new(label: str, method: str, networks: Networks) -> Contender:
        options = fixed_options(method, arguments.evaluations)
        return Contender(label=label, method=method, networks=networks, options=options)

    found = [new(name, name, prior) for name in BASELINES]
    for text in arguments.head or ():
        label, _, folder = text.partition("=")
        if not folder:
            raise ValueError(f"--head needs a label and a folder, deft_4=FOLDER, got {text!r}")
        networks = Networks(prior=prior.load_prior(), htransform=folder)
        networks.load_named()
        found.append(new(label, "deft", networks))
    if arguments.amortised:
        found.append(new("amortised", "amortised", Networks(models={"amortised": arguments.amortised})))
    chosen = arguments.only or [one.label for one in found]
    unknown = sorted(set(chosen) - {one.label for one in found})
    if unknown:
        raise ValueError(f"--only names {unknown[0]}, and there is {', '.join(one.label for one in found)}")
    return [one for one in found if one.label in chosen]


def score_prior(file: BackboneFile, prior: Prior, arguments: argparse.Namespace) -> tuple[str, Record]:
    """Samples, with the lengths of the chains of val, beside these chains."""
    val = [chain for chain in file.chains("val") if chain.compact]
    lengths = [len(val[k % len(val)]) for k in range(arguments.draws)]
    drawn = drawn_chains(prior, lengths, steps=arguments.evaluations, seed=arguments.seed)
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
    ] + [["probe", "64", *(PROBE[name] for name in names)]]
    shown = drawn[:DRAWN]
    titles = [
        f"{len(chain)} residues, bonds {row['valid_bonds']:.0%}"
        for chain, row in zip(shown, rows["samples"], strict=False)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    note = f"first samples of the prior, {arguments.evaluations} steps, seed {arguments.seed}"
    save_backbones(arguments.out / "backbones_prior.png", shown, [()] * len(shown), titles, note)
    table = markdown_table(["chains", "n", *names], lines)
    return table, {"rows": rows, "steps": arguments.evaluations, "lengths": lengths}


def gate(file: BackboneFile, arguments: argparse.Namespace) -> tuple[str, Record]:
    """Errors outside of the motif by noise level, of replacement and of every trained network; who passes."""
    cuts = file.motif_cuts("val")[: arguments.limit]
    prior = Networks(prior=arguments.prior).load_prior()
    known: dict[str, Conditional] = {"replacement": by_replacement(prior)}
    for one in contenders(arguments):
        if one.method == "deft":
            head = one.networks.load_htransform()
            assert head is not None
            known[one.label] = by_htransform(prior, head)
        elif one.method == "amortised":
            known[one.label] = by_amortised(AmortisedModel.load(arguments.amortised))
    names = [cut.name for cut in cuts]
    errors = {
        label: {
            str(sigma): denoising_errors(prior.schedule, conditional, cuts, sigma=sigma, seed=arguments.seed)
            for sigma in SIGMAS
        }
        for label, conditional in known.items()
    }  # fmt: skip
    lines, passed = [], {}
    for label, found in errors.items():
        less = {
            key: cluster_interval([a - b for a, b in zip(found[key], errors["replacement"][key], strict=True)], names)
            for key in found
        }  # fmt: skip
        passed[label] = all(one.mean < 0 for one in less.values())
        lines.append([label, *(cell(found[str(sigma)], names) for sigma in SIGMAS)])
        if label != "replacement":
            change = [f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in less.values()]
            lines.append([f"{label} less replacement: {'passes' if passed[label] else 'fails'}", *change])
    table = markdown_table(["estimate", *(f"{sigma:g} A" for sigma in SIGMAS)], lines)
    return table, {"errors": errors, "passed": passed, "motifs": len(cuts)}


def tuned(file: BackboneFile, arguments: argparse.Namespace, log: Callable[[str], None]) -> tuple[str, Record]:
    """Tune all methods with the same effort, on val."""
    given = Tuning(
        problems=problems(file, "val", 0, arguments.tune_problems), trials=arguments.trials, seed=arguments.seed
    )  # fmt: skip
    rows = Rows(work=arguments.work, samples=arguments.tune_samples, compute=not arguments.stored)
    found = {one.label: tuned_options(one, rows, given, log) for one in contenders(arguments)}
    path = arguments.work / "tuned.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    write_text(path, json.dumps(before | found, indent=1) + "\n")
    effort = {
        "data": Path(arguments.data).name, "problems": len(given.problems), "seed": given.seed, "split": "val",
        "samples": arguments.tune_samples, "versions": result_versions(),
    }  # fmt: skip
    for one in contenders(arguments):
        preset = motif_preset(one, found[one.label], {**effort, "networks": networks_digest(one, one.build({}, 1))})
        preset.write(arguments.out / "presets" / MOTIF_PRESET / f"{one.method}.json")
    lines = [
        [label, f"{one['fitness']:.4f}", f"{one['trials'][0]['fitness']:.4f}", json.dumps(one["options"])]
        for label, one in found.items()
    ]
    about = {"trials": arguments.trials, "problems": len(given.problems), "samples": arguments.tune_samples}
    return markdown_table(["method", "fitness", "of the defaults", "options"], lines, align="lrrl"), about | found


def table(file: BackboneFile, arguments: argparse.Namespace) -> tuple[str, Record]:
    """Scores of the tuned methods over problems, samples and seeds, for each group of problems."""
    path = arguments.work / "tuned.json"
    options = json.loads(path.read_text()) if path.is_file() else {}
    chosen = contenders(arguments)
    missing = [one.label for one in chosen if one.label not in options]
    if missing and not arguments.untuned:
        raise ValueError(f"{missing[0]} is not tuned: run the part tune first, or give --untuned for the defaults")
    pairs = [(one, options.get(one.label, {"options": {}})["options"]) for one in chosen]
    known = [chain.ca for chain in file.chains("train") if chain.compact and chain.representative]
    rows = Rows(work=arguments.work, samples=arguments.samples, compute=not arguments.stored)
    texts, record = [], {"options": {one.label: given for one, given in pairs}}
    for group in arguments.groups:
        given = {seed: problems(file, group, seed, arguments.limit) for seed in range(arguments.seeds)}
        found = list(compared_rows(pairs, rows, given.__getitem__, arguments.seeds))
        by_label = {one.label: [row for row in found if row["label"] == one.label] for one in chosen}
        lines = []
        for label, mine in by_label.items():
            new = novelty(arguments.work, label, solved_chains(mine)[: arguments.novelty], known)
            lines.append([label, *summary(mine), "-" if not new else f"{sum(new) / len(new):.3g} ({len(new)})"])
        headings = ["method", "problems", *SHOWN, "diversity", *COSTS, "novelty"]
        texts.append(f"### {group}\n\n{markdown_table(headings, lines)}\n\n{differences(by_label)}")
        record[group] = [compact(row) for row in found]
    return "\n\n".join(texts), record


def compact(row: Record) -> Record:
    """A row for the repository: without chains, and the scores of its samples as lists of four digits."""
    scores = {key: [float(f"{float(one[key]):.4g}") for one in row["samples"]] for key in (*SHOWN, *COSTS)}
    return {key: value for key, value in row.items() if key not in ("chains", "samples")} | {"samples": scores}


def summary(rows: Sequence[Record]) -> list[str]:
    """Cells of one method; a row that diverged counts as unsolved."""
    scored = [(row["problem"], score) for row in rows for score in row["samples"]]
    names = [name for name, _ in scored]
    cells = [str(len({row["problem"] for row in rows}))]
    for key in SHOWN:
        values, of = [float(score[key]) for _, score in scored], list(names)
        if key in ("solved", "well_formed"):
            failed = [row["problem"] for row in rows if not row["samples"]]
            values, of = values + [0.0] * len(failed), of + failed
        cells.append(cell(values, of))
    diverse = [(row["problem"], row["diversity"]) for row in rows if row.get("diversity") is not None]
    cells.append(cell([value for _, value in diverse], [name for name, _ in diverse]))
    costs = (median([float(score[key]) for _, score in scored]) if scored else 0.0 for key in COSTS)
    return [*cells, *(f"{value:.3g}" for value in costs)]  # medians: a process that was stopped counts like any other


def differences(by_label: dict[str, list[Record]]) -> str:
    """Solved shares of the trained methods less those of DPS, paired by problem."""
    base = _solved_by_problem(by_label.get("dps", []))
    lines = []
    for label, rows in by_label.items():
        own = _solved_by_problem(rows)
        shared = sorted(set(own) & set(base))
        if shared and label not in BASELINES:
            values = [own[name] - base[name] for name in shared]
            lines.append(f"- {label} less dps, solved: {cell(values, shared)} over {len(shared)} problems")
    return "\n".join(lines) or "No trained method beside DPS."


def _solved_by_problem(rows: Sequence[Record]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["problem"], []).extend([float(s["solved"]) for s in row["samples"]] or [0.0])
    return {name: sum(values) / len(values) for name, values in found.items()}


def cost(file: BackboneFile, arguments: argparse.Namespace) -> tuple[str, Record]:
    """Processor time of tuning and table."""
    trial = problems(file, "val", 0)
    one = sorted(trial, key=len)[len(trial) // 2]
    count = sum(len(problems(file, group, 0, arguments.limit)) for group in arguments.groups)
    val = len(trial[: arguments.tune_problems])
    lines, record = [], Record()
    for contender in contenders(arguments):
        hours = core_hours(contender, one, samples=arguments.samples)
        parts = {
            "tune": hours * arguments.trials * val * arguments.tune_samples,
            "table": hours * count * arguments.samples * arguments.seeds,
        }  # fmt: skip
        record[contender.label] = {"core_seconds_per_chain": 3600 * hours, **parts}
        lines.append([contender.label, f"{3600 * hours:.2f}", *(f"{value:.2f}" for value in parts.values())])
    total = [sum(record[label][part] for label in record) for part in ("tune", "table")]
    lines.append(["all", "", *(f"{value:.2f}" for value in total)])
    headings = ["method", f"core seconds a chain of {len(one)}", "tune, core hours", "table, core hours"]
    return markdown_table(headings, lines), record


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = experiment_parser(__doc__)
    parser.add_argument("part", choices=("prior", "gate", "cost", "tune", "table"))
    parser.add_argument("--data", required=True, help="backbones:FILE")
    parser.add_argument("--prior", required=True, help="prior of backbones")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--work", type=Path, default=Path("backbones_work"), help="folder of the stored rows")
    parser.add_argument("--head", action="append", metavar="LABEL=FOLDER", help="h-transform; repeat it")
    parser.add_argument("--amortised", help="folder of the fine-tuned prior")
    parser.add_argument("--only", action="append", metavar="LABEL", help="these methods only; repeat it")
    parser.add_argument("--evaluations", type=int, default=100, help="of the prior, for each chain")
    parser.add_argument("--draws", type=int, default=64, help="samples of the prior")
    parser.add_argument("--groups", nargs="+", choices=("val", "test", "benchmark"), default=["test", "benchmark"])
    parser.add_argument("--limit", type=int, help="take the first motifs of each group only")
    parser.add_argument("--samples", type=int, default=8, help="chains of each problem and seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the methods, from 0")
    parser.add_argument("--trials", type=int, default=8, help="of the tuning of each method")
    parser.add_argument("--tune-problems", type=int, help="take the first motifs of val only")
    parser.add_argument("--tune-samples", type=int, default=2, help="chains of each problem and trial")
    parser.add_argument("--novelty", type=int, default=16, help="solved chains of each method compared with training")
    parser.add_argument("--stored", action="store_true", help="compute nothing: use the rows that are stored")
    parser.add_argument("--untuned", action="store_true", help="defaults for methods that are not tuned")
    parser.add_argument("--seed", type=int, default=0, help="of the prior's samples, the gate and the tuning")
    return parser.parse_args()


def main() -> None:
    """Measure a part and write ``backbones_PART.md`` and ``.json``."""
    arguments = parsed()
    file, prior = BackboneFile(arguments.data), Networks(prior=arguments.prior).load_prior()
    parts: dict[str, Callable[[], tuple[str, Record]]] = {
        "prior": lambda: score_prior(file, prior, arguments), "gate": lambda: gate(file, arguments),
        "cost": lambda: cost(file, arguments),
        "tune": lambda: tuned(file, arguments, lambda line: print(line, file=sys.stderr)),
        "table": lambda: table(file, arguments),
    }  # fmt: skip
    text, record = parts[arguments.part]()
    claim = f"{CLAIM[0].upper()}{CLAIM[1:]}"
    about = f"{claim}. Prior {prior.content_hash()[:12]}. 95 % bootstrap intervals over chains or problems."
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
    whole = {"about": about, "arguments": shown} | record
    write_result(arguments.out, f"backbones_{arguments.part}", whole, f"{about}\n\n{text}\n")


if __name__ == "__main__":
    main()
