"""The comparison on motifs: equal effort, rows that survive a kill, and what counts as solved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_backbones import helix_atoms, tiny_backbone_prior

from deft_ct.evaluation.store import Record
from deft_ct.methods.registry import Networks
from deft_ct.operators.points.motif import Motif
from deft_ct.runtime.evaluations import count_evaluations
from deft_ct.workflows.experiments.backbone_problems import ScaffoldProblem
from deft_ct.workflows.experiments.backbone_study import (
    SPACES,
    Contender,
    Rows,
    Tuning,
    compared_rows,
    criteria_met,
    fitness,
    fixed_options,
    novelty,
    solved_chains,
    trial_options,
    tuned_options,
)

pytest.importorskip("tmtools", reason="the extra tm-score is not installed")
GOOD = {
    "motif_rmsd": 0.5, "junction_error": 0.1, "valid_bonds": 0.99, "clashes": 0.0, "compactness": 1.0, "solved": True,
}  # fmt: skip


def problem(name: str = "a") -> ScaffoldProblem:
    template = torch.from_numpy(helix_atoms(12)[4:9, 1])
    return ScaffoldProblem(name=name, motif=Motif(12, range(4, 9), template), template=template, ends=((4, 9),))


def contender(method: str = "replacement") -> Contender:
    return Contender(
        label=method, method=method, networks=Networks(prior=tiny_backbone_prior()), options=fixed_options(method, 4)
    )  # fmt: skip


def test_every_method_has_the_same_number_of_trials_and_evaluations() -> None:
    for method, space in SPACES.items():
        options = trial_options(space, 5, seed=0)
        assert len(options) == 5 and options[0] == {} and options == trial_options(space, 5, seed=0)
        assert len({str(one) for one in options}) == 5
        fixed = fixed_options(method, 100)
        assert fixed["steps"] * fixed.get("ode_steps", 1) == 100
    with pytest.raises(ValueError, match="unknown method"):
        fixed_options("fbp", 100)


def test_rows_are_computed_once(tmp_path: Path) -> None:
    rows = Rows(work=tmp_path, samples=2)
    with count_evaluations() as first:
        found = list(compared_rows([(contender(), {})], rows, lambda seed: [problem("a"), problem("b")], 2))
    assert first.total == 4 * 2 * 4 and [(row["problem"], row["seed"]) for row in found] == [
        ("a", 0), ("b", 0), ("a", 1), ("b", 1),
    ]  # fmt: skip
    path = sorted((tmp_path / "rows").iterdir())[0]
    path.unlink()
    with count_evaluations() as rest:
        again = list(compared_rows([(contender(), {})], rows, lambda seed: [problem("a"), problem("b")], 2))
    assert rest.total == 2 * 4
    assert [row["chains"] for row in again] == [row["chains"] for row in found]
    path.unlink()
    stored = Rows(work=tmp_path, samples=2, compute=False)
    with count_evaluations() as none:
        assert len(list(compared_rows([(contender(), {})], stored, lambda seed: [problem("a"), problem("b")], 2))) == 3
        other = [(contender(), {"eta": 0.5})]  # another key
        assert not list(compared_rows(other, stored, lambda seed: [problem()], 1))
    assert none.total == 0


def test_the_best_trial_wins_and_the_defaults_win_ties(tmp_path: Path) -> None:
    rows, lines = Rows(work=tmp_path, samples=1), list[str]()
    found = tuned_options(contender(), rows, Tuning(problems=[problem()], trials=3), lines.append)
    assert len(lines) == len(found["trials"]) == 3
    best = max(trial["fitness"] for trial in found["trials"])
    assert found["fitness"] == best and found["options"] == next(
        trial["options"] for trial in found["trials"] if trial["fitness"] == best
    )
    stored, tuning = Rows(work=tmp_path, samples=1, compute=False), Tuning(problems=[problem()], trials=1)
    with pytest.raises(ValueError, match="no trial"):
        tuned_options(contender("dps"), stored, tuning, lines.append)


def test_what_is_maximised() -> None:
    bad = GOOD | {"clashes": 0.5, "motif_rmsd": 2.0, "solved": False}
    assert criteria_met(GOOD) == 1 and criteria_met(bad) == pytest.approx(0.6)
    rows: list[Record] = [{"samples": [GOOD, bad]}, {"samples": []}]  # the second has diverged
    assert fitness(rows) == pytest.approx((1.01 + 0.006 + 0) / 3)
    assert fitness([{"samples": [GOOD]}]) > fitness([{"samples": [bad]}]) > fitness([{"samples": []}]) == 0


def test_only_solved_chains_are_compared_with_the_training(tmp_path: Path) -> None:
    helix = torch.from_numpy(helix_atoms(30)[:, 1])
    rows: list[Record] = [{"samples": [GOOD, GOOD | {"solved": False}], "chains": [helix.tolist(), helix.tolist()]}]
    (chain,) = solved_chains(rows)
    assert novelty(tmp_path, "x", [chain], [helix]) == [pytest.approx(1.0, abs=1e-3)]
    (path,) = (tmp_path / "novelty").iterdir()
    path.write_text('{"tm": 0.25}')
    assert novelty(tmp_path, "x", [chain], [helix]) == [0.25]
