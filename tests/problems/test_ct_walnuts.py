"""Walnuts by name, on files in the published layout with exact line integrals of ellipsoids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deft_ct.evaluation.measuring import measure_part
from deft_ct.evaluation.problem import Problem
from deft_ct.methods.registry import Networks
from deft_ct.problems.by_name import ProblemOptions, ct_problems
from tests.support.walnut_layout import write_two_walnuts

VIEWS = 24


@pytest.fixture(scope="module")
def walnuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_walnuts(tmp_path_factory.mktemp("walnuts"), VIEWS)


def _problem(root: Path, more: str = "") -> Problem:
    (problem,) = ct_problems(f"walnut:{root}:views={VIEWS}:bins=2:size=25{more}", None, ProblemOptions())
    return problem


def test_walnut_by_name(walnuts: Path) -> None:
    problem = _problem(walnuts)
    assert problem.image_ids == ["Walnut3", "Walnut11"] == problem.patients and problem.split is None
    assert problem.truth.shape == (2, 25, 25, 25) and [len(b.y) for b in problem.batches] == [1, 1]
    best = problem.measure(problem.truth)
    assert best["rmse"].tolist() == [0.0, 0.0] and np.allclose(best["ssim"], 1)
    (walnut,) = measure_part(problem.one_batch(0), Networks().build("cgls", {}), samples=1)
    assert walnut.reason == "" and walnut.values["psnr"] > 25
    both = _problem(walnuts, ":orbits=1,2")
    assert both.image_ids == ["Walnut3"] and both.batches[0].y.shape == (1, 1, 48, 30, 24)
    assert problem.content() != both.content()


def test_walnut_faults(walnuts: Path, tmp_path: Path) -> None:
    for more, message in (
        (":orbits=3", "holds no walnut with tubeV3 and"), (":orbits=4", "must be of 1, 2 and 3"),
        (":orbits=2,2", "each once"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            _problem(walnuts, more)
    with pytest.raises(ValueError, match="views must divide 1200, got 7"):
        ct_problems(f"walnut:{walnuts}:views=7", None, ProblemOptions())
    with pytest.raises(ValueError, match="size must be one positive integer, got '8,9'"):
        ct_problems(f"walnut:{walnuts}:size=8,9", None, ProblemOptions())
    with pytest.raises(FileNotFoundError, match=r"holds no Walnut\*/Projections"):
        ct_problems(f"walnut:{tmp_path}", None, ProblemOptions())
