"""Panels: truth and reconstructions above, errors below, of images of a problem in HU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.problems.ct import CTProblem
from deft_ct.report.benchmark_panels import error_figure, write_panels
from deft_ct.report.figures import SOFT_TISSUE


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> CTProblem:
    pack = CTPack(write_tiny_pack(tmp_path_factory.mktemp("panels") / "val.h5", count=2))
    return CTProblem(pack, Scan(views=8, photons=None), refine=1)


def test_each_reconstruction_has_its_error_below(problem: CTProblem) -> None:
    truth = problem.truth[0]
    figure = error_figure(truth, {"fbp": truth + 50, "tv": truth - 10}, window=SOFT_TISSUE, title="slice")
    pictures = [axis.images[0] for axis in figure.axes if axis.images]
    assert [axis.get_title().split("\n")[0] for axis in figure.axes[:3]] == ["truth", "fbp", "tv"]
    shown = [np.asarray(picture.get_array()) for picture in pictures]
    assert len(shown) == 5 and np.allclose(shown[3], 50) and np.allclose(shown[4], -10)
    assert {picture.get_clim() for picture in pictures[3:]} == {(-100.0, 100.0)}
    assert "32.0 dB" in figure.axes[1].get_title()  # 20 log10(2000 / 50)
    many = error_figure(truth, {f"m{n}": truth + n for n in range(8)}, window=SOFT_TISSUE)
    shown = [axis.get_title().split("\n")[0] for axis in many.axes if axis.get_title()]
    assert shown == ["truth", *(f"m{n}" for n in range(8))], "more than six go below, none is lost"
    errors = [axis.images[0] for axis in many.axes if axis.images and not axis.get_title()]
    assert [round(float(np.asarray(e.get_array()).mean())) for e in errors] == list(range(8))
    with pytest.raises(ValueError, match="at least one reconstruction"):
        error_figure(truth, {})
    with pytest.raises(ValueError, match="fbp must have the shape of truth"):
        error_figure(truth, {"fbp": truth[:5]})


def test_panels_are_written_where_the_page_looks_for_them(problem: CTProblem, tmp_path: Path) -> None:
    images = {n: {"fbp": problem.truth[n] + 20} for n in (0, 3)}
    found = write_panels(tmp_path, problem, images, name="a scan, data x")
    assert [path.parent for path in found] == [tmp_path / "panels"] * 2 and len(set(found)) == 2
    assert found[1].name == "a-scan,-data-x-series1-1.png"
    with Image.open(found[0]) as picture:
        assert picture.format == "PNG" and picture.width > 300
    with pytest.raises(ValueError, match=r"has 4 images, so none with the numbers \[4\]"):
        write_panels(tmp_path, problem, {4: images[0]}, name="a")
