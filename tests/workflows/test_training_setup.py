"""Slices and scans of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.packs import CTPack
from deft_ct.workflows import FolderSource
from deft_ct.workflows.training_setup import TrainingData, new_network, random_scans, training_slices


def test_a_name_is_a_data_set_and_a_path_with_slash_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "ct256").mkdir(parents=True)
    write_tiny_pack(tmp_path / "data" / "ct256" / "train.h5", count=2)
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path / "data"))
    (tmp_path / "train").mkdir()
    write_tiny_pack(tmp_path / "train" / "a.h5", count=1)
    monkeypatch.chdir(tmp_path)
    assert isinstance(training_slices("train"), CTPack)
    assert isinstance(training_slices("./train"), CTFolder)
    assert isinstance(training_slices("data/ct256/train.h5"), CTPack)


def test_measurements_of_fixed_scans_are_drawn_equally_often(tmp_path: Path) -> None:
    data = TrainingData(
        slices=CTPack(write_tiny_pack(tmp_path / "train.h5", count=2)), scans=[Scan(views=8), Scan(views=6)]
    )
    measurements, weights = data.measurements(0)
    assert [m.operator.range_shape[-2] for m in measurements] == [8, 6] and weights is None


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="also give --any-scan"):
        random_scans(False, True)
    with pytest.raises(ValueError, match="pictures need both"):
        FolderSource(data="x", hu_range=(-1000, 1000))
    with pytest.raises(ValueError, match="whole numbers separated by commas"):
        new_network("32;64")
