"""CT problems by the name of their data."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from deft_ct.ct.scan import Scan
from deft_ct.problems.by_name import DEFAULT_SCANS, ProblemOptions, ct_problems


def _pack(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.attrs.update({"pixel_mm": 2.0, "patient": "p1"})
        group["hu"] = np.zeros((7, 16, 16), np.int16)
    return path


def test_slice_datasets(tmp_path: Path) -> None:
    pack = _pack(tmp_path / "some.h5")
    scan = Scan(views=4, photons=None)
    (problem,) = ct_problems(str(pack), [scan], ProblemOptions(every=2, limit=3, seed=5, batch_size=2))
    assert (problem.name, problem.data, problem.seed) == (scan.name, "some.h5", 5)
    assert problem.image_ids == ["a/2", "a/4", "a/6"] and problem.patients == ["p1"] * 3
    assert [len(batch.y) for batch in problem.batches] == [2, 1]
    assert tuple(problem.name for problem in ct_problems(str(pack), None, ProblemOptions())) == DEFAULT_SCANS
    whole, fewer = (ct_problems(str(pack), [scan], ProblemOptions(limit=limit))[0].content() for limit in (None, 3))
    assert whole != fewer


@pytest.mark.parametrize("option", ["every", "limit", "batch_size"])
def test_options_out_of_range(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        ProblemOptions(**{option: 0})
