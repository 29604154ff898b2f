"""Are folders of DICOM images complete: the AAPM challenge, TCIA's low-dose collection, or any series?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deft_ct.datasets.aapm import PATIENTS, SUFFIXES
from deft_ct.datasets.findings import DataFindings
from deft_ct.datasets.ldct_images import PATIENT
from deft_ct.io.dicom_checks import check_alike, check_positions, check_slice, positions_along_normal
from deft_ct.io.dicom_files import DicomFile, find_series
from deft_ct.io.dicom_layouts import PROJECTIONS_COMMAND, RAW_PROJECTION
from deft_ct.io.dicom_select import is_localizer, without_strays
from deft_ct.io.errors import ReadError

_AAPM = re.compile(r"(?P<dose>full|quarter)_(?P<thickness>[13])mm(?P<sharp>_sharp)?", re.IGNORECASE)
_LDCT = re.compile(r"(full|low) dose (images|projections)", re.IGNORECASE)


def check_aapm(root: Path) -> DataFindings | None:
    """Series of the ten training patients; None where no folder is called as in the challenge."""
    series: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder in _folders(root):
        parts = folder.relative_to(root).parts
        patient = next((p for p in PATIENTS if p in parts), None)
        name = _AAPM.fullmatch(folder.name)
        if name and patient and _has_images(folder):
            sharp = name["sharp"] or any("d45" in part.lower().split() for part in parts)
            kind = f"{name['dose'].lower()}_{name['thickness']}mm, {'D45' if sharp else 'B30'}"
            series[kind][patient] = folder
    if not series:
        return None
    found = DataFindings("AAPM 2016 Low Dose CT Grand Challenge")
    for kind in sorted(series):
        for patient in PATIENTS:
            if patient in series[kind]:
                found.look(root, series[kind][patient], _series_in_words)
            else:
                found.add(root, root / f"{patient} {kind}", "missing", "no such series")
        there = ", ".join(sorted(series[kind]))
        found.notes.append(f"{kind}: {len(series[kind])} of {len(PATIENTS)} training patients ({there})")
    found.commands.append(f"deft-ct compare --data aapm:{root}:test --every 10 --out OUT")
    found.commands.append(f"deft-ct compare --data aapm:{root}:dm4ct=i,ii,iii,iv,v --out OUT")
    return found


def check_ldct(root: Path) -> DataFindings | None:
    """Images and projections of TCIA's collection; None where no folder is called so."""
    folders = [f for f in _folders(root) if _LDCT.search(f.name) and _patient(root, f)]
    if not folders:
        return None
    found = DataFindings("TCIA LDCT-and-Projection-data")
    kinds: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        kind = _LDCT.search(folder.name)
        assert kind is not None
        kinds[_patient(root, folder)].add(kind[0].lower())
        raw = "projections" in kind[0].lower()
        found.look(root, folder, _projections_in_words if raw else _series_in_words)
    for patient, has in sorted(kinds.items()):
        if "full dose images" not in has:
            found.add(root, root / patient, "missing", "its full-dose images")
    images = sum("full dose images" in has for has in kinds.values())
    raws = sum(any("projections" in one for one in has) for has in kinds.values())
    found.notes.append(f"{len(kinds)} patients: {images} with full-dose images, {raws} with projections")
    found.commands.append(f"deft-ct compare --data ldct:{root} --every 10 --out OUT")
    if raws:
        found.commands.append(f"{PROJECTIONS_COMMAND} FOLDER --out OUT")
    return found


def check_series(root: Path) -> DataFindings | None:
    """Every CT series below a folder, from its headers; None where there is no DICOM file."""
    try:
        held = find_series(root)
    except ReadError as error:
        if RAW_PROJECTION in str(error):
            found = DataFindings("raw projections (DICOM-CT-PD)", commands=[f"{PROJECTIONS_COMMAND} {root} --out OUT"])
            found.look(root, root, _projections_in_words)
            return found
        return None
    found = DataFindings("DICOM series")
    for uid, files in sorted(held.series.items()):
        path = files[0].path.parent if root.is_dir() else root
        found.look(root, path, lambda _, files=files: _in_words(files))  # type: ignore[misc]
        found.commands.append(f"deft-ct reconstruct {root}" + (f" --series {uid}" if len(held.series) > 1 else ""))
    for damaged in held.damaged:
        found.add(root, root / damaged.name, "damaged", str(damaged.error))
    found.notes.extend(f"{count} x {kind}" for kind, count in sorted(held.others.items()))
    return found


def _folders(root: Path) -> Sequence[Path]:
    return [root, *sorted(path for path in root.rglob("*") if path.is_dir())] if root.is_dir() else []


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _patient(root: Path, folder: Path) -> str:
    return next((part for part in folder.relative_to(root).parts[:-1] if PATIENT.fullmatch(part)), "")


def _series_in_words(folder: Path) -> str:
    held = find_series(folder)
    if len(held.series) > 1:
        raise ValueError(f"holds {len(held.series)} series; keep one")
    if held.damaged:
        raise ValueError(f"{len(held.damaged)} damaged file(s): {held.damaged[0].error}")
    return _in_words(next(iter(held.series.values())))


def _in_words(files: list[DicomFile]) -> str:
    """What a series is.

    Raises:
        ReadError: it is no proper series.
    """
    slices = without_strays(files).files
    if all(is_localizer(file.header) for file in slices):
        return f"{len(files)} scout view(s)"
    for file in slices:
        check_slice(file)
    check_alike(slices)
    order = np.argsort(positions_along_normal(slices), kind="stable")
    ordered = [slices[n] for n in order]
    check_positions(ordered)
    along, header = positions_along_normal(ordered), ordered[0].header
    step = f", {float(np.median(np.diff(along))):.3g} mm apart" if len(along) > 1 else ""
    pixel = float(header.PixelSpacing[0])
    kernel = header.get("ConvolutionKernel") or "unknown"
    return f"{len(slices)} slices of {header.Rows} x {header.Columns}, {pixel:.3g} mm pixels{step}, kernel {kernel}"


def _projections_in_words(folder: Path) -> str:
    try:
        held = find_series(folder)
    except ReadError as error:
        if RAW_PROJECTION in str(error):
            count = sum(path.is_file() for path in folder.iterdir())
            return f"{count} raw projections"
        raise
    raise ValueError(f"holds {len(held.series)} series of images, expected raw projections")
