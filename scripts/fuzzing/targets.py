"""What is fed: each kind of input with the calls that read it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzzing import sound_files


def _each_file(folder: Path, read: dict[str, Callable[[Path], Any]]) -> Iterator[Callable[[], Any]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for key, function in read.items():
            if key in path.name:
                yield lambda path=path, function=function: function(path)


def _reads_hdf5(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.datasets.data_exchange import read_data_exchange
    from deft_ct.datasets.packs import CTPack
    from deft_ct.io.hdf5 import read_hdf5

    readers: dict[str, Callable[[Path], Any]] = {
        "pack": lambda p: CTPack(p).array(), "vol": lambda p: read_hdf5(p).hu,
        "dx": lambda p: read_data_exchange(p, center=5.0).sinogram,
    }  # fmt: skip
    return _each_file(folder, readers)


def _reads_lodopab(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.datasets.lodopab import LoDoPaB

    for kind in ("ground_truth", "observation"):  # the further files are never opened
        for number in range(28):
            path = folder / f"{kind}_test_{number:03d}.hdf5"
            if not path.exists():
                path.touch()
    yield lambda: LoDoPaB(folder, "test")[1].observation


def _reads_mat(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.datasets.htc2022 import read_htc2022

    return _each_file(folder, {".mat": lambda p: read_htc2022(p, image_shape=(16, 16)).sinogram})


def _reads_nifti(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.io.nifti import read_nifti

    return _each_file(folder, {".nii": lambda p: read_nifti(p).hu})


def _reads_dicom(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.io.dicom_read import read_all_dicom_series, read_dicom_series

    zips = sorted(folder.glob("*.zip"))
    for source in zips or [folder]:
        yield lambda source=source: read_dicom_series(source).hu
        yield lambda source=source: read_all_dicom_series(source, allow_gaps=True)


def _reads_ctpd(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.datasets.ldct_projection import read_projections

    yield lambda: read_projections(folder).projections


def _reads_png(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.datasets.dicom_folder import CTFolder
    from deft_ct.datasets.images import PhotoFolder

    yield lambda: CTFolder(folder, size=16, picture_hu=(-1000.0, 1000.0), picture_pixel_mm=1.0).batch([0])
    yield lambda: [picture for picture in PhotoFolder(folder, 16)]


def _reads_model(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.methods.supervised.fbp_unet import FBPUNetModel

    yield lambda: FBPUNetModel.load(folder)


def _reads_prior(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.diffusion.prior_folder import load_prior

    yield lambda: load_prior(folder)


def _reads_htransform(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.methods.deft.folder import load_htransform

    yield lambda: load_htransform(folder)


def _reads_calibration(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.methods.deft.spread_calibration import SpreadCalibration

    return _each_file(folder, {".json": SpreadCalibration.read})


def _reads_preset(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.methods.presets import load_preset

    return _each_file(folder, {".json": lambda p: load_preset("tv", p)})


def _reads_options(folder: Path) -> Iterator[Callable[[], Any]]:
    from deft_ct.ct.scan import Scan
    from deft_ct.methods.method_text import method_variants, parse_method, split_methods
    from deft_ct.methods.registry import load_reconstructor

    text = next(iter(sound_files.files_of(folder).values())).decode("utf-8", "replace")

    def build() -> None:
        for method in split_methods([text]):
            for variant in method_variants(method)[:4]:
                name, options = parse_method(variant)
                if name in ("fbp", "tv", "sirt", "cgls"):  # those that need no networks
                    load_reconstructor(name, **options)

    yield build
    yield lambda: Scan.from_name(text)


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of input.

    Args:
        write: writes sound files into an empty folder.
        reads: calls that read a folder, in the contract's hands.
    """

    write: Callable[[Path], None]
    reads: Callable[[Path], Iterator[Callable[[], Any]]]


TARGETS = {
    "dicom": Target(sound_files.write_dicom, _reads_dicom),
    "zip": Target(sound_files.write_zip, _reads_dicom),
    "hdf5": Target(sound_files.write_hdf5, _reads_hdf5),
    "lodopab": Target(sound_files.write_lodopab, _reads_lodopab),
    "mat": Target(sound_files.write_mat, _reads_mat),
    "nifti": Target(sound_files.write_nifti, _reads_nifti),
    "ctpd": Target(sound_files.write_ctpd, _reads_ctpd),
    "png": Target(sound_files.write_png, _reads_png),
    "model": Target(sound_files.write_model, _reads_model),
    "prior": Target(sound_files.write_prior, _reads_prior),
    "htransform": Target(sound_files.write_htransform, _reads_htransform),
    "preset": Target(sound_files.write_preset, _reads_preset),
    "calibration": Target(sound_files.write_calibration, _reads_calibration),
    "options": Target(sound_files.write_options, _reads_options),
}


def seeds(name: str, corpus: Path | None) -> list[sound_files.Case]:
    """Our own sound input first, then the cases of the corpus for this target."""
    with tempfile.TemporaryDirectory() as scratch:
        TARGETS[name].write(Path(scratch))
        found = [sound_files.files_of(Path(scratch))]
    if corpus is not None and corpus.is_dir():
        for folder in sorted((corpus / "fuzz").glob(f"*-{name}-*" if name != "options" else "*-cli-*")):
            case = sound_files.files_of(folder / "case") or sound_files.files_of(folder)
            found.append({"text": next(iter(case.values()))} if name == "options" else case)
        kinds = {"hdf5": "hdf5_*.h5", "nifti": "nifti_*.nii", "zip": "zip_*.zip", "mat": "mat_*", "dicom": "dicom_*"}
        for path in sorted(corpus.glob(kinds.get(name, "-"))):
            if path.is_dir():
                found.append(sound_files.files_of(path))
            else:
                found.append({("pack.h5" if name == "hdf5" else path.name): path.read_bytes()})
        if name == "hdf5" and (corpus / "hang1").is_dir():
            found.append(sound_files.files_of(corpus / "hang1"))
    return [case for case in found if case]
