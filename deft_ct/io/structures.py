"""Protein structures as PDB and mmCIF files, through gemmi: C-alpha atoms in and out, in angstrom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.parsing import parsing
from deft_ct.protein.contigs import Segment
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.extras import optional_library

STRUCTURE_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
MOST_BYTES = 256 * 2**20
"""Largest file that is read; the largest entries of the PDB have about as much."""
_WIDEST = 999.0
"""Largest coordinate that the columns of a PDB file hold with either sign, angstrom."""
_EXTRA = "protein"


@dataclass(frozen=True, kw_only=True)
class StructureChain:
    """C-alpha atoms of one chain of a file.

    Attributes:
        numbers: residue number of each atom, as in the file, increasing.
        residues: three-letter name of each residue.
        ca: ``(N, 3)`` float64, angstrom.
    """

    numbers: tuple[int, ...]
    residues: tuple[str, ...]
    ca: Tensor


class Structure:
    """The chains of a file: of its first model, residues that have a C-alpha atom and no insertion code.

    Args:
        path: a PDB or mmCIF file, by its suffix.

    Raises:
        FileNotFoundError: no such file.
        MissingExtraError: gemmi is not installed; the message names the extra.
        ReadError: another kind of file, damaged, too large, without C-alpha atoms, or with values that are not finite.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no such file: {self.path}")
        if self.path.suffix.lower() not in STRUCTURE_SUFFIXES:
            raise ReadError(self.path, f"is not a protein structure: expected {', '.join(STRUCTURE_SUFFIXES)}")
        if self.path.stat().st_size > MOST_BYTES:
            raise ReadError(self.path, f"is larger than {MOST_BYTES // 2**20} MiB")
        gemmi: Any = optional_library("gemmi", _EXTRA)
        with parsing(self.path, "a protein structure"):
            found = gemmi.read_structure(str(self.path))
            self.chains = {} if not len(found) else _chains(found[0])
        if not self.chains:
            raise ReadError(self.path, "holds no C-alpha atoms")
        for name, chain in self.chains.items():
            if not bool(torch.isfinite(chain.ca).all()):
                raise ReadError(self.path, f"chain {name} has coordinates that are not finite")

    def segment(self, segment: Segment) -> StructureChain:
        """The residues of a segment of a motif.

        Raises:
            ReadError: the file has no such chain, or lacks one of the residues.
        """
        if segment.chain not in self.chains:
            raise ReadError(self.path, f"has no chain {segment.chain}; it has {', '.join(self.chains)}")
        chain = self.chains[segment.chain]
        place = {number: k for k, number in enumerate(chain.numbers)}
        wanted = range(segment.first, segment.last + 1)
        missing = [number for number in wanted if number not in place]
        if missing:
            raise ReadError(
                self.path,
                f"chain {segment.chain} has no C-alpha atom of residue {missing[0]} ({len(missing)} of {len(wanted)} "
                f"residues of {segment} are missing)",
            )
        rows = [place[number] for number in wanted]
        return StructureChain(numbers=tuple(wanted), residues=tuple(chain.residues[k] for k in rows), ca=chain.ca[rows])


def _chains(model: Any) -> dict[str, StructureChain]:
    found: dict[str, dict[int, tuple[str, tuple[float, float, float]]]] = {}
    for chain in model:
        atoms = found.setdefault(chain.name, {})
        for residue in chain:
            if residue.seqid.icode != " ":
                continue
            known = [atom for atom in residue if atom.name == "CA" and atom.element.name == "C"]
            if known:
                best = max(
                    known, key=lambda atom: atom.occ
                )  # of alternative places the most occupied, the first of equals
                atoms.setdefault(residue.seqid.num, (residue.name, tuple(best.pos.tolist())))
    return {
        name: StructureChain(
            numbers=tuple(sorted(atoms)), residues=tuple(atoms[n][0] for n in sorted(atoms)),
            ca=torch.tensor([atoms[n][1] for n in sorted(atoms)], dtype=torch.float64),
        )
        for name, atoms in found.items() if atoms
    }  # fmt: skip


def write_structure(
    path: str | Path, ca: Tensor, *, residues: Sequence[str] | None = None, motif: Sequence[int] = (), title: str = ""
) -> Path:
    """Write a chain of C-alpha atoms, whole or not at all.

    The chain is called A and numbered from 1. The B factor is 1 for residues of the motif and 0 for others.

    Args:
        path: a PDB or mmCIF file, by its suffix; an old one is replaced.
        ca: ``(N, 3)`` in angstrom; its centre is moved to the origin.
        residues: three-letter names; glycine where left out, because a backbone has no sequence.
        motif: residues of the motif, counted from 0.
        title: what the file says of itself.

    Returns:
        The path.

    Raises:
        MissingExtraError: gemmi is not installed; the message names the extra.
        ValueError: another suffix, shape or number of names, or values that are not finite or too large for the format.
        PermissionError: it cannot be written.
    """
    target = Path(path)
    names = ["GLY"] * len(ca) if residues is None else list(residues)
    if ca.ndim != 2 or ca.shape[1] != 3 or len(ca) != len(names) or not len(ca):
        raise ValueError(f"expected a chain (N, 3) and a name for each residue, got {tuple(ca.shape)} and {len(names)}")
    if target.suffix.lower() not in STRUCTURE_SUFFIXES:
        raise ValueError(f"{target.name} names no protein structure: expected {', '.join(STRUCTURE_SUFFIXES)}")
    places = ca.detach().double().cpu()
    places = places - places.mean(0)
    if not (math.isfinite(float(places.abs().max())) and float(places.abs().max()) <= _WIDEST):
        raise ValueError(f"coordinates must be finite and within {_WIDEST:.0f} A of the centre")
    gemmi: Any = optional_library("gemmi", _EXTRA)
    chain, fixed = gemmi.Chain("A"), set(motif)
    for k, (name, place) in enumerate(zip(names, places.tolist(), strict=True)):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = name, gemmi.SeqId(k + 1, " ")
        residue.entity_type, residue.subchain, residue.entity_id = gemmi.EntityType.Polymer, "A", "1"
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
        atom.b_iso, atom.occ = float(k in fixed), 1.0
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure = gemmi.Structure()
    structure.name = target.stem
    structure.info["_struct.title"] = title or "C-alpha backbone"
    model = gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    is_pdb = target.suffix.lower() in (".pdb", ".ent")
    text = structure.make_pdb_string() if is_pdb else structure.make_mmcif_document().as_string()
    write_text(target, text)
    return target
