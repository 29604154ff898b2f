"""PDB and mmCIF files: what is written is read, and what other programs write, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deft_ct.io.errors import ReadError
from deft_ct.io.structures import Structure, write_structure
from deft_ct.protein.contigs import Segment

pytest.importorskip("gemmi", reason="the extra protein is not installed")

CHAIN = 10 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

FOREIGN = """\
HEADER    A FILE OF ANOTHER PROGRAM
MODEL        1
ATOM      1  N   ALA A   4      10.000   2.000   3.000  1.00 10.00           N
ATOM      2  CA AALA A   4      11.000   2.000   3.000  0.40 10.00           C
ATOM      3  CA BALA A   4      12.000   2.000   3.000  0.60 10.00           C
ATOM      4  CA  GLY A   5      14.000   2.000   3.000  1.00 10.00           C
ATOM      5  CA  GLY A   5A     15.000   2.000   3.000  1.00 10.00           C
HETATM    6  CA  MSE A   7      17.000   2.000   3.000  1.00 10.00           C
HETATM    7 CA    CA A 101      99.000   2.000   3.000  1.00 10.00          CA
ATOM      8  CA  LYS B   1       1.000   1.000   1.000  1.00 10.00           C
ENDMDL
MODEL        2
ATOM      1  CA  ALA A   4      50.000   2.000   3.000  1.00 10.00           C
ENDMDL
END
"""


@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    names = ["ALA", "GLY", "TRP"] * 3
    path = write_structure(tmp_path / f"x.{suffix}", CHAIN + 50, residues=names, motif=[2, 3], title="a chain")
    (chain,) = Structure(path).chains.values()
    torch.testing.assert_close(chain.ca, CHAIN - CHAIN.mean(0), rtol=0, atol=6e-4)
    assert chain.numbers == tuple(range(1, 10)) and chain.residues == tuple(names)
    if suffix == "pdb":
        rows = [line for line in path.read_text().splitlines() if line.startswith("ATOM")]
        assert [float(row[60:66]) for row in rows] == [0, 0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("title", "written"), [("a chain", "a chain"), ("", "C-alpha backbone")])
def test_a_file_has_a_title(tmp_path: Path, title: str, written: str) -> None:
    pdb = write_structure(tmp_path / "x.pdb", CHAIN, motif=[], title=title).read_text().splitlines()
    assert [line[10:].strip().lower() for line in pdb if line.startswith("TITLE")] == [written.lower()]


def test_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.pdb"
    path.write_text(FOREIGN)
    structure = Structure(path)
    assert list(structure.chains) == ["A", "B"]
    chain = structure.chains["A"]
    assert chain.numbers == (4, 5, 7) and chain.residues == ("ALA", "GLY", "MSE")
    assert chain.ca[:, 0].tolist() == [12.0, 14.0, 17.0]
    part = structure.segment(Segment("A", 4, 5))
    assert part.numbers == (4, 5) and part.ca[:, 0].tolist() == [12.0, 14.0]
    with pytest.raises(ReadError, match=r"no C-alpha atom of residue 6 \(1 of 4"):
        structure.segment(Segment("A", 4, 7))
    with pytest.raises(ReadError, match="has no chain C; it has A, B"):
        structure.segment(Segment("C", 1, 2))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.pdb", "", "no C-alpha atoms"), ("x.txt", FOREIGN, "is not a protein structure"),
        ("x.cif", "data_x\nloop_\n_atom_site.id\n'open", "a protein structure"),
        ("x.pdb", FOREIGN.replace("1.000   1.000   1.000", "  nan     nan     nan"), "not finite|protein structure"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReadError, match=why):
        Structure(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Structure(tmp_path / "none.pdb")


def test_chains_that_no_file_holds_are_refused(tmp_path: Path) -> None:
    for ca, names, target, why in (
        (CHAIN[:, :2], None, "x.pdb", "expected a chain"), (CHAIN, ["ALA"], "x.pdb", "a name for each residue"),
        (CHAIN, None, "x.xyz", "names no protein structure"), (CHAIN * 1e4, None, "x.pdb", "within 999 A"),
        (CHAIN * torch.nan, None, "x.pdb", "finite"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            write_structure(tmp_path / target, ca, residues=names)
    assert not list(tmp_path.iterdir())
