"""The benchmark of more views, from end to end in the small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from markdown_tables import unpadded
from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack

from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import save_htransform

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "experiments" / "more_data.py"


@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights
def test_every_cell_is_measured_once_and_the_table_says_what_more_views_bring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    head = tiny_htransform(prior, tv_iterations=3)
    head.card = {"scan": {"geometry": ["parallel"], "views": [5, 8], "photons": [1e3, 1e5]}}
    save_htransform(head, tmp_path / "head")
    pack = write_tiny_pack(tmp_path / "val.h5", count=1)
    options = [
        "--data", pack, "--every", 1, "--views", 6, 24, "--photons", 4096, "inf", "--methods", "tv", "deft",
        "--prior", tmp_path / "prior", "--htransform", tmp_path / "head", "--work", tmp_path / "work",
        "--out", tmp_path / "out",
    ]  # fmt: skip
    main = runpy.run_path(str(SCRIPT))["main"]
    main([str(part) for part in options])
    assert "parallel24_4.096e3: deft" in capsys.readouterr().out
    cells = json.loads((tmp_path / "out" / "more_data.json").read_text())["cells"]
    assert len(cells) == 8
    text = unpadded((tmp_path / "out" / "more_data.md").read_text())
    assert "| 4096 photons | 6 views | 24 views |" in text
    assert "| no noise | 6 views | 24 views |" in text and text.count("above TV on every slice") == 2
    main([str(part) for part in options])
    assert "parallel24_4.096e3: deft" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(part) for part in options[:8]] + ["--methods", "fbp", "--work", "w", "--out", "o"])
