"""The folders of MotifBench: names, places of the motif, and positions that ProteinMPNN keeps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from tiny_backbones import helix_atoms

from deft_ct.io.motifbench import ExportedScaffold, motif_placement, write_motifbench

CHAIN = torch.from_numpy(helix_atoms(30)[:, 1])


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([(5, 12)], "5/A/18"), ([(0, 12)], "A/18"), ([(20, 30)], "20/A"), ([(4, 8), (12, 20)], "4/A/4/B/10"),
        ([(12, 20), (4, 8)], "4/B/4/A/10"), ([(0, 5), (5, 30)], "A/0/B"),
    ],
)  # fmt: skip
def test_the_place_of_the_motif(ends: list[tuple[int, int]], text: str) -> None:
    assert motif_placement(ends, 30) == text
    named = {letter: stop - start for letter, (start, stop) in zip("AB", ends, strict=False)}
    assert sum(int(part) if part.isdecimal() else named[part] for part in text.split("/")) == 30


@pytest.mark.parametrize(
    ("ends", "why"), [([], "1 to 26 segments"), ([(3, 8), (7, 9)], "overlap"), ([(25, 31)], "leave")]
)
def test_places_that_cannot_be(ends: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        motif_placement(ends, 30)


def test_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("gemmi", reason="the extra protein is not installed")
    one = ExportedScaffold(chain=CHAIN, residues=["GLY"] * 5 + ["LEU"] * 7 + ["GLY"] * 18, ends=[(5, 12)])
    files = write_motifbench(tmp_path, {"01_1LDB": [one, one]}, title="x")
    folder = tmp_path / "scaffolds" / "01_1LDB"
    assert sorted(path.name for path in folder.iterdir()) == ["01_1LDB_0.pdb", "01_1LDB_1.pdb", "scaffold_info.csv"]
    assert len(files) == 4 and all(path.is_file() for path in files)
    with (folder / "scaffold_info.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"sample_num": str(n), "motif_placements": "5/A/18"} for n in range(2)
        ]  # fmt: skip
    fixed = json.loads((tmp_path / "fixed_positions.jsonl").read_text())
    assert fixed["01_1LDB_1"] == {"A": list(range(6, 13))}
    assert (folder / "01_1LDB_0.pdb").read_text().count(" CA  LEU A") == 7
    with pytest.raises(ValueError, match="like 01_1LDB"):
        write_motifbench(tmp_path, {"../x": [one]})
