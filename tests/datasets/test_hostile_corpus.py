"""The corpus of hostile files, where it is at hand: every case is a result or one error that names the file, soon."""

from __future__ import annotations

import importlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.io.errors import ReadError
from deft_ct.io.nifti import read_nifti


@pytest.fixture(scope="module")
def corpus() -> Path:
    try:
        folder = data_root() / "hostile"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="module")
def fuzz(repository_root: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository_root / "scripts"))
        return importlib.import_module("fuzz")


@pytest.mark.data
@pytest.mark.parametrize("name", ["hdf5", "lodopab", "mat", "nifti", "ctpd"])
def test_every_case_keeps_the_contract(corpus: Path, fuzz: Any, tmp_path: Path, name: str) -> None:
    known = fuzz.seeds(name, corpus)
    assert len(known) > 3
    for number, case in enumerate(known):
        folder = tmp_path / str(number)
        for file, data in case.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        start = time.monotonic()
        problems = [fuzz.judged(call) for call in fuzz.TARGETS[name].reads(folder)]
        assert problems and not any(problems), (number, problems)
        assert time.monotonic() - start < 30, number


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hdf5_bomb_40GB.h5", "declares"), ("hdf5_external_storage.h5", "external storage"),
        ("hdf5_pixel_neg.h5", "pixel_mm"), ("nifti_declared_huge.nii", "declares"), ("nifti_complex.nii", "complex"),
    ],
)  # fmt: skip
def test_named_cases_are_refused_for_what_they_are(corpus: Path, name: str, why: str) -> None:
    with pytest.raises(ReadError, match=why) as caught:
        read_nifti(corpus / name) if name.endswith(".nii") else CTPack(corpus / name)
    assert name in caught.value.path


def test_the_oracle_can_fail(fuzz: Any) -> None:
    def refuse() -> None:
        raise ReadError("x", "is damaged")

    assert fuzz.judged(refuse) is None
    assert "JSONDecodeError in" in fuzz.judged(lambda: json.loads("{"))
    assert "ZeroDivisionError" in fuzz.judged(lambda: 1 / 0)
    rng, mutated = random.Random(0), importlib.import_module("fuzzing.damage").mutated
    assert len({mutated({"a": bytes(100)}, rng)["a"] for _ in range(50)}) > 25
