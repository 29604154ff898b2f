"""Export results of ``deft-ct scaffold`` to the folders that pipelines of sequence design and prediction read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deft_ct.io.errors import ReadError
from deft_ct.io.motifbench import ExportedScaffold, checked_case, write_motifbench
from deft_ct.io.structures import Structure
from deft_ct.protein.contigs import Contig, SegmentPlaces
from deft_ct.protein.scaffolds import CLAIM, segment_ends
from deft_ct.runtime.atomic import atomic_folder, reserve_folder, write_text
from deft_ct.runtime.fields import from_values
from deft_ct.runtime.json_object import read_json_object
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, file_sha256

EXPORT_RECORD = "export.json"
"""Lists the files of an export, so that it may be replaced."""


def export_motifbench(results: Mapping[str, Path], out: str | Path, *, overwrite: bool = False) -> list[str]:
    """Write chains of several results as test cases of MotifBench, in a folder that appears whole.

    Args:
        results: name of a test case, such as ``01_1LDB`` -> folder of its result.
        out: a new or empty folder.
        overwrite: replace an earlier export.

    Returns:
        The files, relative to ``out``.

    Raises:
        FileNotFoundError: there is no such result.
        MissingExtraError: gemmi is not installed.
        ReadError: a folder holds no result of ``deft-ct scaffold``, or a damaged one.
        ValueError: there is no result, or the name of a test case cannot be that of a file.
        FileExistsError: there is something in the way of the output.
    """
    if not results:
        raise ValueError("name results to export: 01_1LDB=FOLDER")
    for case in results:
        checked_case(case)
    found = {case: _scaffolds(folder) for case, folder in results.items()}
    with (
        reserve_folder(out, overwrite=overwrite) as target,
        atomic_folder(target, overwrite=overwrite, is_own=is_own_export) as work,
    ):
        files = {path.relative_to(work).as_posix(): path for path in write_motifbench(work, found, title=CLAIM)}
        listed = {name: file_sha256(path) for name, path in files.items()}
        write_text(work / EXPORT_RECORD, json.dumps({"program": PROGRAM, "files": listed}, indent=1) + "\n")
    return list(files)


def is_own_export(path: Path) -> bool:
    """Whether :func:`export_motifbench` wrote a file, as the record of its folder lists it."""
    for folder in path.parents:
        try:
            record = read_json_object(folder / EXPORT_RECORD, "the record of an export")
        except (FileNotFoundError, ReadError):
            continue
        files = record.get("files") if record.get("program") == PROGRAM else None
        if not isinstance(files, dict):
            return False
        name = path.relative_to(folder).as_posix()
        return name == EXPORT_RECORD or (name in files and files[name] == file_sha256(path))
    return False


def _scaffolds(folder: Path) -> list[ExportedScaffold]:
    path = folder / RUN_RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no result of deft-ct scaffold: it has no {RUN_RECORD}")
    record = read_json_object(path, "the record of a result")
    try:
        if record["program"] != PROGRAM:
            raise ValueError(f"it is of {str(record['program'])[:80]!r}")
        contig = Contig.parse(str(record["settings"]["contig"]))
        return [_one(folder, contig, row) for row in record["scaffolds"]]
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(path, f"is not the record of deft-ct scaffold ({type(error).__name__}: {error})") from error


def _one(folder: Path, contig: Contig, row: Mapping[str, Any]) -> ExportedScaffold:
    places = from_values(SegmentPlaces, row["places"])
    if len(places.starts) != len(contig.segments):
        raise ValueError(f"{len(places.starts)} places for {len(contig.segments)} segments")
    path = folder / Path(str(row["file"])).name
    (chain,) = Structure(path).chains.values()
    if len(chain.ca) != places.length:
        raise ReadError(path, f"has {len(chain.ca)} residues, expected {places.length}")
    return ExportedScaffold(chain=chain.ca, residues=chain.residues, ends=segment_ends(contig, places))
