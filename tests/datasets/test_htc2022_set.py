"""Which files of a folder are discs of the challenge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from deft_ct.datasets.htc2022_set import htc2022_files, read_segmentation
from deft_ct.io.errors import ReadError


def test_the_limited_scan_goes_before_the_full_one(tmp_path: Path) -> None:
    names = [
        "htc2022_ta_full.mat", "htc2022_01a_full.mat", "htc2022_01a_limited.mat", "htc2022_02b_limited.mat",
        "htc2022_ta_full_recon_fbp_seg.mat", "htc2022_01a_recon_fbp_seg.mat", "other.mat", "htc2022_03c_full.mat.bak",
    ]  # fmt: skip
    for name in names:
        (tmp_path / "below").mkdir(exist_ok=True)
        (tmp_path / "below" / name).touch()
    found = htc2022_files(tmp_path)
    assert [(one.name, one.scan.name) for one in found] == [
        ("htc2022_01a", "htc2022_01a_limited.mat"), ("htc2022_02b", "htc2022_02b_limited.mat"),
        ("htc2022_ta", "htc2022_ta_full.mat"),
    ]  # fmt: skip
    segmentations = [one.segmentation and one.segmentation.name for one in found]
    assert segmentations == ["htc2022_01a_recon_fbp_seg.mat", None, "htc2022_ta_full_recon_fbp_seg.mat"]


def test_segmentations(tmp_path: Path) -> None:
    image = np.zeros((512, 512), np.uint8)
    image[3, 4], image[5, 6] = 255, 127
    scipy.io.savemat(tmp_path / "a.mat", {"reconFullFbpSeg": image})
    assert np.argwhere(read_segmentation(tmp_path / "a.mat")).tolist() == [[3, 4]]
    scipy.io.savemat(tmp_path / "zero.mat", {"reconFullFbpSeg": 0 * image})
    assert not read_segmentation(tmp_path / "zero.mat").any()
    scipy.io.savemat(tmp_path / "small.mat", {"reconFullFbpSeg": image[:511]})
    with pytest.raises(ReadError, match=r"expected a segmentation of 512 x 512, got \(511, 512\)"):
        read_segmentation(tmp_path / "small.mat")
