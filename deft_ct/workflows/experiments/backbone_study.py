"""The comparison of methods on motif problems: the same effort of tuning, and rows that are stored one by one.

A row is one method on one problem with one seed. It is a file of its own, named by all that it depends on, so that a
run can be killed at any time: the same command resumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import qmc
from torch import Tensor

from deft_ct.evaluation.store import Record, cached_json, content_name
from deft_ct.methods.presets import MOTIF_PRESET, Preset
from deft_ct.methods.registry import Networks
from deft_ct.networks import weights_digest
from deft_ct.protein.scaffolds import COMPACTNESS, LEAST_VALID_BONDS, MOST_CLASHES, MOST_JUNCTION_ERROR, MOST_MOTIF_RMSD
from deft_ct.protein.similarity import mean_pairwise_tm, nearest
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.search_space import Choice, Range, SearchSpace
from deft_ct.workflows.experiments.backbone_problems import ScaffoldProblem, scaffold_scores

_GRID: SearchSpace = {"grid": Choice(("uniform", "log_snr"))}
_SAMPLER: SearchSpace = {"sampler": Choice(("dpm-solver", "ddim")), "eta": Range(0.0, 1.0)}
SPACES: Mapping[str, SearchSpace] = {
    "unconditional": {**_GRID, **_SAMPLER},
    "replacement": {**_GRID, "eta": Range(0.0, 1.0)},
    "reconstruction_guidance": {**_GRID, "weight": Range(0.1, 10.0, log=True), "eta": Range(0.0, 1.0)},
    "dps": {**_GRID, "zeta": Range(0.03, 10.0, log=True), "norm": Choice(("l2", "l2sq")), "eta": Range(0.0, 1.0)},
    "reddiff": {**_GRID, "strength": Range(1e-3, 10.0, log=True), "learning_rate": Range(3e-3, 1.0, log=True)},
    "daps": {**_GRID, "radius": Range(0.03, 3.0, log=True), "langevin_step": Range(0.1, 1.5)},
    "deft": {**_GRID, **_SAMPLER},
    "amortised": {**_GRID, "eta": Range(0.0, 1.0)},
}
"""What is tuned of each method. Weights of the data are left out: the noise of a motif is the same everywhere."""
DAPS_ODE_STEPS = 4


def fixed_options(method: str, evaluations: int) -> dict[str, Any]:
    """Options that give a method so many evaluations of the prior for each sample.

    Raises:
        ValueError: there is no tuning of such a method.
    """
    if method not in SPACES:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(SPACES)}")
    if method == "daps":
        return {"steps": max(1, evaluations // DAPS_ODE_STEPS), "ode_steps": DAPS_ODE_STEPS}
    return {"steps": evaluations} | ({"estimate": "samples"} if method == "deft" else {})


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A method of the comparison.

    Attributes:
        label: in the tables; several may share a method, with other networks.
        method: name.
        networks: of the method.
        options: that are not tuned.
    """

    label: str
    method: str
    networks: Networks
    options: Mapping[str, Any]

    def build(self, tuned: Mapping[str, Any], batch_size: int) -> Reconstructor:
        """The method with tuned options."""
        return self.networks.build(self.method, {**self.options, **tuned, "batch_size": batch_size})


def trial_options(space: SearchSpace, trials: int, seed: int) -> list[dict[str, Any]]:
    """The defaults, then scrambled Halton points of a space: the same number for every method, known beforehand.

    Args:
        space: what is tuned.
        trials: how many.
        seed: of the scrambling.
    """
    points = qmc.Halton(len(space), scramble=True, rng=seed).random(max(0, trials - 1)) if space else []
    found: list[dict[str, Any]] = [{}]
    for point in points:
        found.append({name: _at(where, float(u)) for (name, where), u in zip(space.items(), point, strict=True)})
    return found


def _at(where: Range | Choice, u: float) -> Any:
    if isinstance(where, Choice):
        return where.options[min(int(u * len(where.options)), len(where.options) - 1)]
    if where.log:
        return float(f"{math.exp(math.log(where.low) + u * math.log(where.high / where.low)):.3g}")
    return float(f"{where.low + u * (where.high - where.low):.3g}")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where rows are stored, and how each is drawn.

    Attributes:
        work: folder.
        samples: chains of each problem and seed, drawn at once.
        compute: whether missing rows are computed; if not, only stored ones are found.
    """

    work: Path
    samples: int
    compute: bool = True

    def row(self, label: str, method: Reconstructor, problem: ScaffoldProblem, seed: int, digest: str) -> Record | None:
        """Scores, mean pairwise TM-score and chains of one problem and seed; None if it may not be computed.

        Args:
            label: of the method, for the name of the file.
            method: the method.
            problem: the problem.
            seed: of the samples.
            digest: of the networks' weights, see :func:`networks_digest`.
        """
        config = {key: value for key, value in asdict(method.config).items() if key != "batch_size"}
        name = content_name(label, method.name, config, digest, problem.content(), self.samples, seed)
        path = self.work / "rows" / f"{name}.json"
        if not self.compute and not path.is_file():
            return None
        return cached_json(path, lambda: self._compute(label, method, problem, seed))

    def _compute(self, label: str, method: Reconstructor, problem: ScaffoldProblem, seed: int) -> Record:
        found: Record = {"label": label, "problem": problem.name, "seed": seed}
        try:
            scored, chains = scaffold_scores(method, problem, samples=self.samples, seed=seed)
        except FloatingPointError as error:  # diverged: none of the samples is solved
            return found | {"failed": str(error), "samples": [], "chains": []}
        sane = bool((chains.abs() < 999.0).all())
        return found | {
            "samples": scored, "diversity": mean_pairwise_tm(list(chains)) if sane and len(chains) > 1 else None,
            "chains": [[[round(x, 2) for x in place] for place in chain.tolist()] for chain in chains] if sane else [],
        }  # fmt: skip


def networks_digest(contender: Contender, method: Reconstructor) -> str:
    """Of all weights of a method, once for many rows."""
    return f"{contender.method} {weights_digest(method)}"


def solved_chains(rows: Sequence[Record]) -> list[Tensor]:
    """The chains ``(N, 3)`` of solved samples of rows, in their order."""
    return [
        torch.tensor(chain)
        for row in rows
        for chain, score in zip(row["chains"], row["samples"], strict=False)
        if score["solved"]
    ]


def fitness(rows: Sequence[Record]) -> float:
    """What the tuning maximises: the share of solved samples; the share of criteria that are met decides ties."""
    values = []
    for row in rows:
        values += [float(s["solved"]) + 0.01 * criteria_met(s) for s in row["samples"]] or [0.0]
    return sum(values) / len(values) if values else 0.0


def criteria_met(score: Mapping[str, Any]) -> float:
    """Share of the five criteria of a solved chain."""
    low, high = COMPACTNESS
    met = (
        score["motif_rmsd"] < MOST_MOTIF_RMSD, score["junction_error"] < MOST_JUNCTION_ERROR,
        score["valid_bonds"] > LEAST_VALID_BONDS, score["clashes"] <= MOST_CLASHES, low <= score["compactness"] <= high,
    )  # fmt: skip
    return sum(met) / len(met)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How methods are tuned.

    Attributes:
        problems: of val.
        trials: of each method.
        seed: of the points and of the samples.
    """

    problems: Sequence[ScaffoldProblem]
    trials: int
    seed: int = 0


def tuned_options(contender: Contender, rows: Rows, tuning: Tuning, log: Callable[[str], None]) -> Record:
    """The best of the trials of a method.

    Args:
        contender: the method.
        rows: where they are stored.
        tuning: problems and trials.
        log: gets a line for each trial.

    Returns:
        ``{"options", "fitness", "trials"}``.
    """
    trials: list[Record] = []
    for options in trial_options(SPACES[contender.method], tuning.trials, tuning.seed):
        method = contender.build(options, rows.samples)
        digest = networks_digest(contender, method)
        found = [rows.row(contender.label, method, problem, tuning.seed, digest) for problem in tuning.problems]
        known = [row for row in found if row is not None]
        if len(known) == len(found):
            trials.append({"options": options, "fitness": fitness(known), "solved": _share(known)})
            log(f"{contender.label} {options or 'defaults'}: fitness {trials[-1]['fitness']:.4f}")
    if not trials:
        raise ValueError(f"no trial of {contender.label} is complete")
    best = max(trials, key=lambda trial: float(trial["fitness"]))  # the first of equals: the defaults before others
    return {"options": best["options"], "fitness": best["fitness"], "trials": trials}


def motif_preset(contender: Contender, found: Record, provenance: Record) -> Preset:
    """The best options of a tuning, as ``deft-ct scaffold`` finds them.

    Args:
        contender: the method.
        found: of :func:`tuned_options`.
        provenance: data, networks and effort of the tuning.
    """
    return Preset(
        method=contender.method, scan=MOTIF_PRESET, options={**contender.options, **found["options"]},
        provenance={
            **provenance, "best_value": found["fitness"], "default_value": found["trials"][0]["fitness"],
            "objective": "share of solved chains", "trials": len(found["trials"]),
        },
    )  # fmt: skip


def _share(rows: Sequence[Record]) -> float:
    values = [float(score["solved"]) for row in rows for score in row["samples"]]
    return sum(values) / len(values) if values else 0.0


def compared_rows(
    contenders: Sequence[tuple[Contender, Mapping[str, Any]]], rows: Rows,
    problems_of: Callable[[int], Sequence[ScaffoldProblem]], seeds: int,
) -> Iterator[Record]:  # fmt: skip
    """Rows of all methods; an early end leaves all methods with the same problems.

    Args:
        contenders: methods with their tuned options.
        rows: where they are stored.
        problems_of: the problems of a seed.
        seeds: how many, from 0.
    """
    built = [(contender, contender.build(options, rows.samples)) for contender, options in contenders]
    digests = [networks_digest(contender, method) for contender, method in built]
    for seed in range(seeds):
        for problem in problems_of(seed):
            for (contender, method), digest in zip(built, digests, strict=True):
                found = rows.row(contender.label, method, problem, seed, digest)
                if found is not None:
                    yield found


def novelty(work: Path, label: str, chains: Sequence[Tensor], known: Sequence[Tensor]) -> list[float]:
    """The largest TM-score of each chain to known ones; each is computed once.

    Args:
        work: folder.
        label: for the names of the files.
        chains: ``(N, 3)`` each.
        known: chains of the training.
    """
    found = []
    for chain in chains:
        path = work / "novelty" / f"{content_name(label, chain, len(known), sum(map(len, known)))}.json"
        found.append(float(cached_json(path, lambda chain=chain: {"tm": nearest(chain, known)[0]})["tm"]))  # type: ignore[misc]
    return found
