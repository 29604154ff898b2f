"""Protein backbones and motif problems in one HDF5 file, see the MANIFEST beside it. All coordinates in angstrom.

The chains come in four splits. ``benchmark_homologue`` holds chains that are homologous to sources of the RFdiffusion
benchmark; like ``val`` and ``test`` they are never trained on. :meth:`BackboneFile.training_chains` is the only way to
chains for a training, and it checks this rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.io.errors import ReadError
from deft_ct.io.hdf5_texts import read_texts
from deft_ct.io.untrusted import HDF5File
from deft_ct.protein.contigs import Contig

PREFIX = "backbones:"
BackboneSplit = Literal["train", "val", "test", "benchmark_homologue"]
SPLITS: tuple[BackboneSplit, ...] = get_args(BackboneSplit)
_CA = 1
_FARTHEST = 1e4
"""Largest coordinate of a centred chain, angstrom."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """C-alpha atoms of one chain.

    Attributes:
        name: PDB code and chain, for example ``"1C9O_A"``.
        ca: ``(N, 3)`` float32, centred, angstrom.
        sequence: one letter for each residue.
        secondary: H, E or C for each residue, from C-alpha geometry; empty where unknown.
        compact: whether the chain is about as compact as a globular protein.
        representative: whether it is the one of its cluster of similar sequences.
    """

    name: str
    ca: Tensor
    sequence: str
    secondary: str = ""
    compact: bool = True
    representative: bool = True

    def __len__(self) -> int:
        return len(self.ca)


@dataclass(frozen=True, kw_only=True)
class MotifCut:
    """A continuous segment of a chain as a motif.

    Attributes:
        name: of the problem.
        chain: the chain that the motif was cut from.
        start: its first residue.
        stop: one more than its last residue.
    """

    name: str
    chain: Chain
    start: int
    stop: int

    @property
    def template(self) -> Tensor:
        """``(stop - start, 3)`` coordinates of the motif."""
        return self.chain.ca[self.start : self.stop]


@dataclass(frozen=True, kw_only=True)
class BenchmarkMotif:
    """A problem of the RFdiffusion benchmark (Watson et al. 2023).

    Attributes:
        name: of the problem.
        contig: where the segments may go.
        segments: ``(M, 3)`` C-alpha atoms of each segment, in the order of the contig.
        length: residues of the chain, at most 125.
    """

    name: str
    contig: Contig
    segments: tuple[Tensor, ...]
    length: int


def is_backbones(text: str) -> bool:
    """Whether a name of data is that of backbones: ``backbones:FILE``."""
    return text.startswith(PREFIX)


class BackboneFile:
    """The file; chains and problems are read once.

    Args:
        path: the file, or its name ``backbones:FILE``.

    Raises:
        FileNotFoundError: no such file.
        ReadError: not such a file, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(str(path).removeprefix(PREFIX))
        if not self.path.is_file():
            raise FileNotFoundError(f"no such file of backbones: {self.path}; the name of one is backbones:FILE")
        self._file = HDF5File(self.path, depth=4)
        self._splits = read_texts(self._file, "split")
        unknown = sorted(set(self._splits) - set(SPLITS))
        if unknown:
            raise ReadError(self.path, f"has the unknown split {unknown[0]!r}; known: {', '.join(SPLITS)}")
        self._groups: NDArray[np.int64] = self._numbers("homology_group")
        self._chains = self._read_chains()

    def chains(self, split: BackboneSplit) -> list[Chain]:
        """The chains of a split, for sampling, tuning or judging. For a training: :meth:`training_chains`."""
        return [chain for chain, found in zip(self._chains, self._splits, strict=True) if found == split]

    def training_chains(self) -> list[Chain]:
        """Compact chains of the training split, and windows of longer chains.

        Raises:
            ReadError: the file breaks the rule: a training chain is homologous to one that is held out, or is one.
        """
        train = [found == "train" for found in self._splits]
        shared = set(self._groups[train].tolist()) & set(self._groups[[not t for t in train]].tolist())
        if shared:
            raise ReadError(self.path, f"homology group {min(shared)} is in train and in a split that is held out")
        windows = self._windows()
        held_out = {chain.name for chain, known in zip(self._chains, train, strict=True) if not known}
        found = [chain for chain, known in zip(self._chains, train, strict=True) if known and chain.compact] + windows
        both = sorted(held_out & {chain.name for chain in found})
        if both:
            raise ReadError(self.path, f"chain {both[0]} is for training and held out")
        return found

    def motif_cuts(self, split: Literal["val", "test"]) -> list[MotifCut]:
        """Segments cut from the chains of a split: ``val`` for tuning, ``test`` for judging.

        Raises:
            ReadError: the file has none, or one names no residues of a chain of this split.
        """
        group = f"motifs/{split}_cut"
        names = read_texts(self._file, f"{group}/name")
        index, start, stop = (self._numbers(f"{group}/{key}") for key in ("index", "start", "stop"))
        if not len(names) == len(index) == len(start) == len(stop):
            raise ReadError(self.path, f"'{group}' has lists of different lengths")
        found = []
        for name, k, first, end in zip(names, index.tolist(), start.tolist(), stop.tolist(), strict=True):
            known = 0 <= k < len(self._chains) and self._splits[k] == split
            if not known or not 0 <= first < end <= len(self._chains[k]):
                raise ReadError(self.path, f"motif {name!r} names no residues of a chain of {split}")
            found.append(MotifCut(name=name, chain=self._chains[k], start=first, stop=end))
        return found

    def benchmark_motifs(self) -> list[BenchmarkMotif]:
        """The problems of the RFdiffusion benchmark, sorted by name.

        Raises:
            ReadError: a contig and its segments do not belong together.
        """
        group = "motifs/rfdiffusion"
        return [self._benchmark_motif(name, f"{group}/{name}") for name in self._file.children(group)]

    def _benchmark_motif(self, name: str, group: str) -> BenchmarkMotif:
        try:
            contig = Contig.parse(str(self._file.attribute(group, "contig", "")))
        except ValueError as error:
            raise ReadError(self.path, f"motif {name!r}: {error}") from error
        segments = []
        for k, segment in enumerate(contig.segments):
            atoms = self._coordinates(f"{group}/segment{k}", (3, 3))[:, _CA]
            if len(atoms) != len(segment):
                raise ReadError(self.path, f"motif {name!r}: segment {k} has {len(atoms)} residues, expected {segment}")
            segments.append(_tensor(atoms))
        return BenchmarkMotif(
            name=name, contig=contig, segments=tuple(segments), length=int(self._file.number(group, "length_fixed"))
        )

    def _read_chains(self) -> list[Chain]:
        atoms = self._coordinates("coordinates", (3, 3))[:, _CA]
        parts = self._parts("offsets", len(atoms), len(self._splits))
        pdb, letter, sequence, secondary = (
            self._texts(key, len(parts)) for key in ("pdb_id", "chain_id", "sequence", "ss_ca")
        )
        compact, representative = (self._numbers(key) for key in ("compact", "representative"))
        if not len(parts) == len(compact) == len(representative) == len(self._groups):
            raise ReadError(self.path, "has lists of different lengths")
        return [
            Chain(
                name=f"{pdb[k]}_{letter[k]}", ca=self._chain(atoms[part]), sequence=sequence[k], secondary=secondary[k],
                compact=bool(compact[k]), representative=bool(representative[k]),
            )
            for k, part in enumerate(parts)
        ]  # fmt: skip

    def _windows(self) -> list[Chain]:
        if not self._file.is_group("windows"):
            return []
        atoms = self._coordinates("windows/ca", (3,))
        names = read_texts(self._file, "windows/pdb_id")
        parts = self._parts("windows/offsets", len(atoms), len(names))
        letter, sequence = (self._texts(f"windows/{key}", len(parts)) for key in ("chain_id", "sequence"))
        return [
            Chain(name=f"{names[k]}_{letter[k]}", ca=self._chain(atoms[part]), sequence=sequence[k])
            for k, part in enumerate(parts)
        ]

    def _chain(self, atoms: NDArray[np.float32]) -> Tensor:
        if not bool(np.isfinite(atoms).all()) or float(np.abs(atoms).max()) > _FARTHEST:
            raise ReadError(self.path, "a chain has C-alpha atoms that are missing or out of place")
        return _tensor(atoms - atoms.mean(0, keepdims=True))

    def _coordinates(self, name: str, last: tuple[int, ...]) -> NDArray[np.float32]:
        shape = self._file.item(name).shape
        if len(shape) != len(last) + 1 or shape[1:] != last:
            raise ReadError(self.path, f"'{name}' must have shape (N, {', '.join(map(str, last))}), got {shape}")
        return self._file.read(name, dtype=np.float32)

    def _numbers(self, name: str) -> NDArray[Any]:
        if len(self._file.item(name).shape) != 1:
            raise ReadError(self.path, f"'{name}' must be a list, got shape {self._file.item(name).shape}")
        return self._file.read(name, dtype=np.int64)

    def _texts(self, name: str, count: int) -> list[str]:
        found = read_texts(self._file, name)
        if len(found) != count:
            raise ReadError(self.path, f"'{name}' has {len(found)} entries for {count} chains")
        return found

    def _parts(self, name: str, atoms: int, count: int) -> list[slice]:
        """The rows of each chain; chains have three residues or more."""
        offsets = self._numbers(name)
        if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != atoms or bool((np.diff(offsets) < 3).any()):
            raise ReadError(self.path, f"'{name}' does not divide {atoms} residues into {count} chains of 3 or more")
        return [slice(int(a), int(b)) for a, b in pairwise(offsets)]


class ChainSets:
    """Sets of chains of nearly equal lengths, as items of a training.

    A network evaluates chains of one length at once. Item ``n`` therefore is a set of chains that are near to chain
    ``n`` in the order of lengths, drawn with a fixed seed; each chain is in about ``size`` sets.

    Args:
        chains: ``(N, 3)`` each.
        size: chains of a set.

    Raises:
        ValueError: there are fewer chains than a set has.
    """

    NEAR = 4
    """Chains that a set is drawn from, over its size."""

    def __init__(self, chains: Iterable[Tensor], size: int) -> None:
        self._chains = sorted(chains, key=len)
        if not 1 <= size <= len(self._chains):
            raise ValueError(f"sets of {size} chains need as many chains, got {len(self._chains)}")
        self._sets = [self._near(n, size) for n in range(len(self._chains))]

    def _near(self, n: int, size: int) -> list[int]:
        count = len(self._chains)
        width = min(self.NEAR * size, count)
        low = min(max(n - width // 2, 0), count - width)
        others = [k for k in range(low, low + width) if k != n]
        drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(n))[: size - 1]
        return [n, *(others[k] for k in drawn.tolist())]

    def __len__(self) -> int:
        return len(self._sets)

    @property
    def longest(self) -> int:
        """Residues of the longest chain."""
        return len(self._chains[-1])

    def batch(self, indices: Tensor | Sequence[int]) -> Tensor:
        """``(B, N, 3)`` chains of the sets ``indices``; NaN from the end of a chain to that of the longest one."""
        chosen = [self._chains[k] for n in torch.as_tensor(indices).tolist() for k in self._sets[n]]
        out = torch.full((len(chosen), max(map(len, chosen)), 3), torch.nan)
        for row, chain in zip(out, chosen, strict=True):
            row[: len(chain)] = chain
        return out


def _tensor(atoms: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(atoms))
