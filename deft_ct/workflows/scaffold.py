"""Scaffold a motif: sample chains of C-alpha atoms that carry residues of a structure file, and write them."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deft_ct.diffusion.prior_folder import shipped_priors
from deft_ct.io.structures import Structure, write_structure
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import shipped_htransforms
from deft_ct.methods.presets import MOTIF_PRESET, shipped_presets
from deft_ct.methods.registry import NetworkChoice, Networks, method_class
from deft_ct.networks.backbone import SHORTEST
from deft_ct.networks.storage import BACKBONES
from deft_ct.operators.noise import GaussianNoise
from deft_ct.protein.contigs import Contig
from deft_ct.protein.proteinmpnn import SequenceLikelihood
from deft_ct.protein.scaffolds import CLAIM, ScaffoldScores, placed_motif, scores, segment_ends
from deft_ct.protein.scale import Angstrom
from deft_ct.protein.secondary import letters, secondary_structure
from deft_ct.reconstructor import PriorReconstructor, Reconstructor
from deft_ct.report.backbones import save_backbones
from deft_ct.report.chain_viewer import ViewedChain
from deft_ct.report.html import Report, write_html
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.plain_values import plain
from deft_ct.runtime.seeds import generator_for
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, file_sha256, is_own_file

LONGEST = 512
"""Residues of the longest chain; the network looks at all pairs."""
MOST_SAMPLES = 10_000
LEAST_TOLERANCE = 1e-3
"""Angstrom; the weight of less, its inverse square, would drown everything else in single precision."""
_MOST_DIGITS = 10
TABLE, PICTURE, PAGE = "scaffolds.csv", "scaffolds.png", "index.html"
NOTICE = f"Research only; {CLAIM}"


@dataclass(frozen=True, kw_only=True)
class ScaffoldSettings(NetworkChoice):
    """The motif and the method.

    Args:
        contig: where the segments of the motif go, in the notation of RFdiffusion: ``"10-30,A23-35,10-30"``.
        length: fewest and most residues of a chain, such as ``"60-80"`` or ``"70"``; as the contig allows when None.
        tolerance: how closely the motif is held, the standard deviation of each coordinate in angstrom.
        method: a name of :func:`deft_ct.methods.registry.methods`.
        options: fields of its configuration, in the place of those of its preset for motifs.
        samples: chains that are drawn, each with its own sizes of the gaps.
        seed: of the gaps and of the sampling.
        likelihood: whether CA-ProteinMPNN says how likely it finds the sequences that it designs for each chain.

    Raises:
        ValueError: a value is out of range, a name is unknown, or no chain fits the contig.
    """

    contig: str
    length: str | None = None
    tolerance: float = 0.1
    method: str = "deft"
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 8
    seed: int = 0
    likelihood: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        method_class(self.method)
        check_device(self.device)
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"samples must lie in 1..{MOST_SAMPLES}, got {self.samples}")
        if not LEAST_TOLERANCE <= self.tolerance <= 10:
            raise ValueError(f"tolerance must be above 0, from {LEAST_TOLERANCE} to 10 A, got {self.tolerance}")
        low, high = self.lengths
        if high > LONGEST or low < SHORTEST:
            raise ValueError(f"chains must have {SHORTEST} to {LONGEST} residues, got {low} to {high}")

    @property
    def parsed(self) -> Contig:
        """The contig."""
        return Contig.parse(self.contig)

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most residues of a chain.

        Raises:
            ValueError: the length has another form, or no chain of it fits the contig.
        """
        low, high = self.parsed.lengths
        if self.length is None:
            return low, high
        first, _, last = self.length.partition("-")
        if not all(part.isdecimal() and len(part) <= _MOST_DIGITS for part in (first, last or first)):
            raise ValueError(
                f"length must be a number of residues such as 70, or a range 60-80, got {self.length[:_MOST_DIGITS]!r}"
            )
        wanted = int(first), int(last or first)
        if wanted[0] > wanted[1] or wanted[0] > high or wanted[1] < low:
            raise ValueError(f"no chain of {self.length} residues fits the contig, which gives {low} to {high}")
        return max(low, wanted[0]), min(high, wanted[1])


@dataclass(frozen=True, kw_only=True)
class Scaffold:
    """One chain.

    Attributes:
        name: of its file.
        chain: ``(N, 3)`` in angstrom.
        motif: residues of the motif, counted from 0.
        residues: three-letter name of each residue: of the motif as in its file, glycine elsewhere.
        scores: its geometry.
        likelihood: mean log-likelihood of a residue of designed sequences, nats, where it was asked for.
    """

    name: str
    chain: Tensor
    motif: tuple[int, ...]
    residues: tuple[str, ...]
    scores: ScaffoldScores
    likelihood: float | None = None

    def row(self) -> dict[str, float | int | bool | str]:
        """Scores for tables."""
        more = {} if self.likelihood is None else {"sequence_log_likelihood": self.likelihood}
        return {**self.scores.to_dict(), **more}


def scaffold_motif(
    source: str | Path, out: str | Path, settings: ScaffoldSettings, *, overwrite: bool = False, progress: bool = False
) -> list[Scaffold]:
    """Draw chains around a motif and write them to a folder that appears whole.

    The folder holds a PDB file for each chain, ``scaffolds.csv``, ``scaffolds.png``, ``index.html`` and ``run.json``.
    The segments of a motif are one rigid body. A chain depends on the seed and its number alone, not on how many are
    drawn.

    Args:
        source: PDB or mmCIF file with the motif.
        out: a new or empty folder.
        settings: contig and method.
        overwrite: replace an earlier result.
        progress: show progress bars.

    Returns:
        The chains, in the order of their numbers.

    Raises:
        FileNotFoundError: the file or the prior is not there.
        MissingExtraError: gemmi is not installed, or proteinmpnn where the likelihood is asked for.
        ReadError: the file is damaged, or has no such residues.
        ValueError: the prior is not one of backbones, the method cannot be used, or the motif is too small.
        FileExistsError: there is something in the way of the output.
        WriteError: a file cannot be written.
    """
    networks, likelihood = _networks(settings), SequenceLikelihood() if settings.likelihood else None
    structure = Structure(source)
    parts = [structure.segment(segment) for segment in settings.parsed.segments]
    template = torch.cat([part.ca for part in parts])
    names = [name for part in parts for name in part.residues]
    with reserve_folder(out, overwrite=overwrite) as target:
        method = _build(settings, networks)
        found, records = [], []
        for number in range(settings.samples):
            one, record = _draw(number, template, names, method, settings, progress)
            found.append(one if likelihood is None else replace(one, likelihood=likelihood(one.chain, seed=number)))
            records.append(record)
        with atomic_folder(target, overwrite=overwrite, is_own=is_own_file) as work:
            _write(work, Path(source), found, records, settings)
    return found


def _networks(settings: ScaffoldSettings) -> Networks:
    """Those that were named, and else the shipped ones of backbones."""
    htransform = settings.htransform
    if htransform is None and settings.method == "deft":
        htransform = _of_backbones(shipped_htransforms())
        if htransform is None:
            raise FileNotFoundError(
                "deft needs an h-transform of backbones, and none comes with this installation: name one with "
                "--htransform. Train it with `deft-ct train htransform --data backbones:FILE --prior PRIOR`"
            )
    networks = Networks(
        prior=settings.prior or _of_backbones(shipped_priors()), htransform=htransform, models=settings.models,
        device=settings.device, precision=settings.precision,
    )  # fmt: skip
    networks.load_named()
    return networks


def _of_backbones(names: list[str]) -> str | None:
    """The shipped network with the shortest name; those of other sizes have a longer one."""
    return min((name for name in names if name.startswith(BACKBONES)), default=None)


def _build(settings: ScaffoldSettings, networks: Networks) -> Reconstructor:
    if networks.prior is None and issubclass(method_class(settings.method), PriorReconstructor):
        raise FileNotFoundError(
            f"{settings.method} needs a prior of backbones, and none comes with this installation: name one with "
            "--prior. Train it with `deft-ct train prior --data backbones:FILE --channels 128 --layers 2`"
        )
    preset = MOTIF_PRESET if MOTIF_PRESET in shipped_presets(settings.method) else None
    return networks.build(settings.method, settings.options, preset=preset)


def _draw(
    number: int, template: Tensor, names: list[str], method: Reconstructor, settings: ScaffoldSettings, progress: bool
) -> tuple[Scaffold, dict[str, Any]]:
    contig = settings.parsed
    places = contig.place(generator_for(settings.seed, "contig", number), settings.lengths)
    motif = placed_motif(contig, places, template)
    measurement = Measurement(motif, GaussianNoise(settings.tolerance), units=Angstrom()).to(settings.device)
    result = method.reconstruct(
        template.float()[None].to(settings.device), measurement, num_samples=1, seed=settings.seed,
        image_ids=[f"scaffold {number}"], progress=progress,
    )  # fmt: skip
    ends = segment_ends(contig, places)
    residues = ["GLY"] * places.length
    for place, name in zip(motif.indices.tolist(), names, strict=True):
        residues[place] = name
    chain = result.mean[0].cpu()
    scaffold = Scaffold(
        name=f"scaffold_{number}.pdb", chain=chain, motif=tuple(motif.indices.tolist()), residues=tuple(residues),
        scores=scores(chain, motif, ends),
    )  # fmt: skip
    return scaffold, {"places": asdict(places), "provenance": result.provenance}


def _viewed(one: Scaffold) -> ViewedChain:
    shown = {
        name.replace("_", " "): ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"
        for name, value in one.row().items()
    }  # fmt: skip
    return ViewedChain(
        title=one.name.removesuffix(".pdb"), places=one.chain, motif=one.motif,
        structure=letters(secondary_structure(one.chain)), scores=shown,
    )  # fmt: skip


def _write(
    work: Path, source: Path, found: list[Scaffold], records: list[dict[str, Any]], settings: ScaffoldSettings
) -> None:
    for one in found:
        write_structure(work / one.name, one.chain, residues=one.residues, motif=one.motif, title=NOTICE)
    rows = [{"file": one.name, **one.row()} for one in found]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows({key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    (work / TABLE).write_text(text.getvalue(), encoding="utf-8")
    titles = [
        f"{one.name.removesuffix('.pdb')}: {one.scores.length} residues, motif {one.scores.motif_rmsd:.2f} A"
        for one in found
    ]
    save_backbones(work / PICTURE, [one.chain for one in found], [one.motif for one in found], titles, NOTICE)
    record = {
        "program": PROGRAM, "notice": NOTICE, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in ("deft-ct", "torch", "gemmi")},
        "source": {"name": source.name, "sha256": file_sha256(source)}, "settings": asdict(settings),
        "scaffolds": [row | kept for row, kept in zip(rows, records, strict=True)],
    }  # fmt: skip
    shown = plain({key: record[key] for key in ("settings", "source", "versions")} | {"scaffolds": rows})
    page = Report(
        title=f"Scaffolds of {source.name}", chains=[_viewed(one) for one in found],
        figures={"C-alpha traces; the motif in red": work / PICTURE},
        provenance=shown, notice=NOTICE,
    )  # fmt: skip
    write_html(work / PAGE, page)
    files = {path.name: file_sha256(path) for path in sorted(work.iterdir())}
    text_of_record = json.dumps(plain(record | {"files": files}), indent=2, allow_nan=False)
    (work / RUN_RECORD).write_text(text_of_record + "\n", encoding="utf-8")
