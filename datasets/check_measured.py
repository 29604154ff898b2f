"""Are folders of measured scans complete: HTC 2022, 2DeteCT, walnuts, or single files of projections?"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from deft_ct.datasets.data_exchange import read_data_exchange
from deft_ct.datasets.findings import DataFindings
from deft_ct.datasets.htc2022 import STRUCTS, read_htc2022
from deft_ct.datasets.htc2022_set import RECONSTRUCTION, SEGMENTATION, htc2022_files, read_segmentation
from deft_ct.datasets.nexus_scan import is_nexus, read_nexus
from deft_ct.datasets.packs import CTPack
from deft_ct.datasets.two_detect import MODES, RAW_FILES, REFERENCE_SIDE, SLICE_FOLDER, VIEWS, raw_counts
from deft_ct.datasets.walnuts import DARK, GEOMETRY, OPEN_BEAMS, Walnuts, projection_file, read_vectors, walnut_orbits
from deft_ct.datasets.walnuts import VIEWS as WALNUT_VIEWS
from deft_ct.io.matlab import read_matlab
from deft_ct.io.nifti import SUFFIXES as NIFTI_SUFFIXES
from deft_ct.io.nifti import read_nifti
from deft_ct.io.pictures import read_picture
from deft_ct.io.untrusted import HDF5File


def check_htc2022(root: Path) -> DataFindings | None:
    """Scans and reference segmentations of the challenge; None where there is none."""
    files = htc2022_files(root) if root.is_dir() else []
    if not files:
        return None
    found = DataFindings("Helsinki Tomography Challenge 2022 (measured)")
    for one in files:
        found.look(root, one.scan, _htc_scan)
        if one.segmentation is None:
            found.add(root, one.scan.parent / f"{one.name}_recon_fbp_seg.mat", "missing", "reference segmentation")
        else:
            found.look(root, one.segmentation, lambda path: f"{int(read_segmentation(path).sum())} pixels of material")
    judged = sum(one.segmentation is not None for one in files)
    found.notes.append(f"{len(files)} discs, {judged} with a reference")
    found.commands.append(f"deft-ct compare --data htc2022:{root} --out OUT")
    return found


def check_two_detect(root: Path) -> DataFindings | None:
    """Every file of each slice and mode of which something is there; None where there is none."""
    if not root.is_dir():
        return None
    modes: dict[tuple[int, int], set[Path]] = defaultdict(set)
    for path in sorted(root.rglob("mode[123]")):
        number = SLICE_FOLDER.fullmatch(path.parent.name)
        if number and path.is_dir():
            modes[int(number[1]), int(path.name[-1])].add(path)
    if not modes:
        return None
    found = DataFindings("2DeteCT (measured)")
    has_references = any((path / "reconstruction.tif").exists() for paths in modes.values() for path in paths)
    for (_, mode), paths in sorted(modes.items()):
        first = min(paths)
        raw = next((p for p in sorted(paths) if any((p / name).exists() for name in RAW_FILES)), first)
        for name in RAW_FILES:
            rows = VIEWS + 1 if name == "sinogram.tif" else 1
            found.look(root, raw / name, lambda path, rows=rows: f"{raw_counts(path, rows).shape}")  # type: ignore[misc]
        if has_references and mode in MODES:
            place = next((p for p in sorted(paths) if (p / "reconstruction.tif").exists()), first)
            found.look(root, place / "reconstruction.tif", _two_detect_reference)
    slices = len({number for number, _ in modes})
    found.notes.append(f"{slices} slices, {len(modes)} of slice and mode")
    if not has_references:
        found.notes.append("no reference reconstructions: they are an archive of their own (Zenodo 8017582 ff.)")
    found.commands.append(f"deft-ct compare --data 2detect:{root}:views=360 --every 10 --out OUT")
    return found


def check_walnuts(root: Path) -> DataFindings | None:
    """Projections, fields and geometry of each orbit of each walnut; None where there is none.

    See :mod:`deft_ct.datasets.walnuts` for the layout.
    """
    orbits = walnut_orbits(root) if root.is_dir() else {}
    if not orbits:
        return None
    found = DataFindings("cone-beam scans of walnuts (measured)")
    for orbit in orbits.values():
        for name in (DARK, *OPEN_BEAMS):
            found.look(root, orbit / name, lambda path: "{} x {}".format(*read_picture(path).size))
        found.look(root, orbit / GEOMETRY, lambda path: f"{len(read_vectors(path))} views")
        there = {path.name for path in orbit.glob("scan_*.tif")}
        lost = [name for name in map(projection_file, range(WALNUT_VIEWS, -1, -1)) if name not in there]
        for name in lost:
            found.add(root, orbit / name, "missing", "")
        found.add(root, orbit, "found", f"{WALNUT_VIEWS + 1 - len(lost)} of {WALNUT_VIEWS + 1} projections")
    walnuts = sorted({number for number, _ in orbits})
    found.notes.append(f"{len(walnuts)} walnuts, {len(orbits)} orbits")
    judged = [number for number in Walnuts(root).referenced() if number in walnuts]
    found.notes.append(f"{len(judged)} with a reference reconstruction (Reconstructions/full_AGD_50_*.tiff)")
    if judged:
        found.commands.append(f"deft-ct compare --data walnut:{root} --method cgls --method tv --out OUT")
    return found


def check_file(path: Path) -> DataFindings | None:
    """A single file that some reader knows; None for any other."""
    if not path.is_file():
        return None
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        found = DataFindings("NIfTI volume", commands=[f"deft-ct compare --data folder:{path.parent} --out OUT"])
        found.look(path, path, lambda p: "{} slices of {} x {}".format(*read_nifti(p).shape))
        return found
    if name.endswith(".mat"):
        found = DataFindings("MATLAB file of HTC 2022 (measured)")
        found.look(path, path, _htc_matlab)
        if any(" views, " in one.what for one in found.files):
            found.commands.append(_reconstruct(path))
        return found
    if name.endswith((".h5", ".hdf5", ".nxs")):
        return _check_hdf5(path)
    return None


def _check_hdf5(path: Path) -> DataFindings:
    try:
        file = HDF5File(path)
    except ValueError as error:
        found = DataFindings("HDF5 file")
        found.add(path, path, "damaged", str(error))
        return found
    if is_nexus(file):
        found = DataFindings(
            "NeXus file of CIL (measured)",
            commands=[_reconstruct(path), f"deft-ct compare --data sinogram:{path} --out OUT"],
        )
        found.look(path, path, _nexus)
        return found
    if "exchange/data" in file:
        found = DataFindings(
            "projections in data-exchange HDF5 (measured)", commands=[f"{_reconstruct(path)} --raw center=auto"]
        )
        found.look(path, path, lambda p: f"{tuple(read_data_exchange(p, center=0).sinogram.shape)} line integrals")
        return found
    found = DataFindings("slice dataset", commands=[f"deft-ct compare --data {path} --out OUT"])
    found.look(path, path, lambda p: _pack(CTPack(p)))
    return found


def _reconstruct(path: Path) -> str:
    return f"deft-ct reconstruct --projections {path} --out OUT --method fbp"


def _nexus(path: Path) -> str:
    sinogram, geometry = read_nexus(path)
    views, elements = geometry.sinogram_shape
    return f"{len(sinogram)} fan-beam scans of {views} views, {elements} elements"


def _pack(pack: CTPack) -> str:
    side = " x ".join(map(str, pack.image_shape))
    return f"{len(pack)} slices of {side}, {len(pack.groups)} series, {len(set(pack.patients))} patients"


def _htc_matlab(path: Path) -> str:
    held = read_matlab(path, (*STRUCTS, RECONSTRUCTION, SEGMENTATION))
    if set(held) & set(STRUCTS):
        return _htc_scan(path)
    return f"reference {'segmentation' if SEGMENTATION in held else 'reconstruction'}"


def _htc_scan(path: Path) -> str:
    scan = read_htc2022(path, image_shape=(1, 1))
    views, elements = scan.geometry.sinogram_shape
    return f"{views} views, {elements} elements, {'limited angle' if scan.limited else 'full scan'}"


def _two_detect_reference(path: Path) -> str:
    width, height = read_picture(path).size
    if (width, height) != (REFERENCE_SIDE, REFERENCE_SIDE):
        raise ValueError(f"an image of {height} x {width}, expected {REFERENCE_SIDE} x {REFERENCE_SIDE}")
    return f"{height} x {width}"
