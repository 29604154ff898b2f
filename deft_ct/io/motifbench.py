"""Scaffolds in the folders of MotifBench (Zheng et al. 2025), for sequence design and structure prediction.

``scaffolds/CASE/CASE_0.pdb ...`` with ``scaffold_info.csv`` beside them, as its evaluation reads them, and
``fixed_positions.jsonl``, which tells ProteinMPNN to keep the amino acids of the motif. The files hold C-alpha atoms
alone: design sequences with the CA model of ProteinMPNN (``--ca_only``).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from deft_ct.io.structures import write_structure
from deft_ct.runtime.atomic import write_text

SCAFFOLDS, INFO, FIXED = "scaffolds", "scaffold_info.csv", "fixed_positions.jsonl"
_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SEGMENTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class ExportedScaffold:
    """One chain.

    Attributes:
        chain: ``(N, 3)`` in angstrom.
        residues: three-letter name of each residue.
        ends: first residue of each segment of the motif, counted from 0, and one more than its last; in the order of
            the segments in the file of the motif.
    """

    chain: Tensor
    residues: Sequence[str]
    ends: Sequence[tuple[int, int]]


def checked_case(case: str) -> str:
    """The name of a test case, such as ``01_1LDB``.

    Raises:
        ValueError: it cannot be the name of a file.
    """
    if not _CASE.fullmatch(case):
        raise ValueError(f"the name of a test case is like 01_1LDB: letters, digits, _ . and -, got {case!r}")
    return case


def motif_placement(ends: Sequence[tuple[int, int]], length: int) -> str:
    """Lengths of the scaffold between the segments, which are called A, B, ...: ``12/B/15/A/29``.

    Raises:
        ValueError: there are none or too many, or they overlap.
    """
    if not 1 <= len(ends) <= len(_SEGMENTS):
        raise ValueError(f"a motif has 1 to {len(_SEGMENTS)} segments, got {len(ends)}")
    parts, at = list[str](), 0
    named = [(start, stop, letter) for (start, stop), letter in zip(ends, _SEGMENTS, strict=False)]
    for start, stop, letter in sorted(named):
        if not at <= start < stop <= length:
            raise ValueError(f"segments overlap or leave the chain of {length} residues: {list(ends)}")
        parts += ([str(start - at)] if start > at or parts else []) + [letter]
        at = stop
    return "/".join(parts + ([str(length - at)] if at < length else []))


def write_motifbench(folder: Path, cases: Mapping[str, Sequence[ExportedScaffold]], *, title: str = "") -> list[Path]:
    """Write the scaffolds of test cases.

    Args:
        folder: of ``scaffolds`` and ``fixed_positions.jsonl``; there must be none in it.
        cases: name of a test case -> its scaffolds, in the order of their numbers.
        title: what the PDB files say of themselves.

    Returns:
        The files.

    Raises:
        ValueError: a name or segments that cannot be; see :func:`~deft_ct.io.structures.write_structure` for others.
        MissingExtraError: gemmi is not installed.
    """
    fixed, files = dict[str, dict[str, list[int]]](), list[Path]()
    for case, scaffolds in cases.items():
        target = folder / SCAFFOLDS / checked_case(case)
        target.mkdir(parents=True)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["sample_num", "motif_placements"])
        for number, one in enumerate(scaffolds):
            table.writerow([number, motif_placement(one.ends, len(one.chain))])
            motif = sorted(r for start, stop in one.ends for r in range(start, stop))
            path = target / f"{case}_{number}.pdb"
            files.append(write_structure(path, one.chain, residues=one.residues, motif=motif, title=title))
            fixed[path.stem] = {"A": [r + 1 for r in motif]}
        write_text(target / INFO, text.getvalue())
        files.append(target / INFO)
    write_text(folder / FIXED, json.dumps(fixed) + "\n")
    return [*files, folder / FIXED]
