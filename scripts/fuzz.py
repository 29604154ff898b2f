"""Feed damaged input to every reader, the options parser and the model folders, and hold them to their contract.

Each target runs in a worker process of its own, so that a crash or a hang is a finding and not the end. The contract: a
right result, or one error of our own that names what is wrong; no other exception, no crash, nothing longer than 15 s,
no more than 1.5 GiB. Atheris would guide by coverage, but not across the process that reads HDF5 and MATLAB files, and
it ends with the first native crash.

    python scripts/fuzz.py --minutes 30 --target all
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import logging
import math
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

Case = dict[str, bytes]
"""Files of one case by name; one file ``text`` for targets that take text."""

SLOWEST_S = 15.0
MOST_BYTES = int(1.5 * 2**30)
START_S = 120.0
_NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
_FLOATS = (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300, 1e-300, 1e12)
_JSON = (
    None,
    True,
    -1,
    0,
    2**40,
    10**30,
    1.5,
    math.nan,
    math.inf,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": []},
    [1, 2, 3],
    "1e400",
)
_WORDS = (
    "tv", "sirt", "cgls", "fbp", "dps", "deft", "strength", "iterations", "tolerance", "cutoff", "views", "zeta",
    "steps", "filter", "seed", "=", ":", ",", "|", "1", "0", "-1", "2.5", "1e3", "1e30", "nan", "inf", "None", "True",
    "{}", "[", "]", "(", ")", "{[]:1}", "é", "\0", " ", "9" * 5000, "1e400",
    "parallel", "60", "_1e5", "_from45",
    "_120deg", "fan",
)  # fmt: skip


# --- seeds: small, sound inputs of our own writers ---


def _files(folder: Path) -> Case:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _volume() -> Any:
    import numpy as np

    from deft_ct.ct.volume import Volume

    values = np.random.default_rng(0).normal(0, 300, (3, 8, 8))
    return Volume.from_spacing(values, pixel_mm=0.8, z_mm=2.0)


def _hdf5(folder: Path) -> None:
    import h5py
    import numpy as np

    from deft_ct.io.hdf5 import write_hdf5

    rng = np.random.default_rng(0)
    with h5py.File(folder / "pack.h5", "w") as file:
        for name in "ab":
            data = rng.integers(-1000, 1000, (3, 8, 8), dtype=np.int16)
            file.create_dataset(f"{name}/hu", data=data, compression="gzip", chunks=(1, 8, 8))
            file[f"{name}/z_mm"] = np.arange(3.0)
            file[name].attrs.update({"pixel_mm": 0.7, "patient": name, "slice_thickness_mm": "3"})
        file.attrs["split"] = "val"
    write_hdf5(_volume(), folder / "vol.h5")
    with h5py.File(folder / "dx.h5", "w") as file:
        file["exchange/data"] = rng.integers(100, 900, (4, 2, 12), dtype=np.uint16)
        file["exchange/data_white"] = np.full((2, 2, 12), 1000, np.uint16)
        file["exchange/data_dark"] = np.full((2, 2, 12), 10, np.uint16)
        file["exchange/theta"] = np.linspace(0, 180, 4)
        file["exchange/theta"].attrs["units"] = "degrees"


def _lodopab(folder: Path) -> None:
    import h5py
    import numpy as np

    for kind, shape in (("ground_truth", (362, 362)), ("observation", (1000, 513))):
        with h5py.File(folder / f"{kind}_test_000.hdf5", "w") as file:
            file.create_dataset("data", (2, *shape), np.float32, chunks=(1, *shape), compression="gzip")
    (folder / "patient_ids_rand_test.csv").write_text("1\n" * 3553)


def _mat(folder: Path) -> None:
    import h5py
    import numpy as np
    import scipy.io

    parameters: dict[str, Any] = {
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "distanceUnit": "mm",
        "angles": np.arange(0.0, 3.0, 0.5), "numDetectorsPost": 8, "pixelSizePost": 0.2,
        "effectivePixelSizePost": 0.148,
    }  # fmt: skip
    sinogram = np.random.default_rng(0).random((6, 8))
    for name, packed in (("v5.mat", False), ("v5c.mat", True)):
        content = {"CtDataFull": {"sinogram": sinogram, "parameters": parameters}}
        scipy.io.savemat(folder / name, content, do_compression=packed)
    with h5py.File(folder / "v73.mat", "w", userblock_size=512) as file:
        file["CtDataFull/sinogram"] = sinogram.T
        for key, value in parameters.items():
            item: Any = [[ord(c)] for c in value] if isinstance(value, str) else np.atleast_2d(value).T
            file[f"CtDataFull/parameters/{key}"] = np.array(item, np.uint16 if isinstance(value, str) else float)
    with (folder / "v73.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")


def _nifti(folder: Path) -> None:
    from deft_ct.io.nifti import write_nifti

    write_nifti(_volume(), folder / "n.nii")
    write_nifti(_volume(), folder / "n.nii.gz")


def _dicom(folder: Path) -> None:
    import pydicom

    from deft_ct.io import sample_series_path

    for n, path in enumerate(sorted(p for p in sample_series_path().rglob("*") if p.suffix == ".dcm")[:3]):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array[:16, :16]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(folder / f"{n}.dcm", enforce_file_format=True)


def _zip(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _dicom(Path(scratch))
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(scratch).iterdir()):
                archive.write(path, f"series/{path.name}")


def _ctpd(folder: Path) -> None:
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    for n in range(4):
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if n == 3 else ExplicitVRLittleEndian
        d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = CTImageStorage
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{n}"
        d.Modality, d.InstanceNumber, d.Rows, d.Columns = "CT", n + 1, 4, 10
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
        d.RescaleSlope, d.RescaleIntercept = "0.0001", -0.1
        for group in (0x7029, 0x7031, 0x7033, 0x7041):
            d.add_new((group, 0x0010), "LO", "CTPD")
        for tag, vr, value in (
            ((0x7029, 0x1002), "FL", 1.28), ((0x7029, 0x1006), "FL", 1.09), ((0x7029, 0x100B), "CS", "CYLINDRICAL"),
            ((0x7029, 0x1010), "US", 4), ((0x7029, 0x1011), "US", 10), ((0x7031, 0x1001), "FL", -0.4 * n),
            ((0x7031, 0x1002), "FL", 100.0 - n), ((0x7031, 0x1003), "FL", 595.0), ((0x7031, 0x1031), "FL", 1085.6),
            ((0x7031, 0x1033), "FL", [5.125, 2.5]), ((0x7033, 0x100B), "FL", 0.001), ((0x7033, 0x100E), "CS", "FFSZ"),
            ((0x7033, 0x1065), "FL", [1000.0] * 10), ((0x7041, 0x1001), "DS", "0.0192"),
        ):  # fmt: skip
            d.add_new(tag, vr, value)
        d.PixelData = np.random.default_rng(n).integers(0, 60000, (4, 10), dtype=np.uint16).tobytes()
        d["PixelData"].VR = "OW"
        d.save_as(folder / f"{n}.dcm", enforce_file_format=True)


def _png(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 65535, (16, 16), dtype=np.uint16)).save(folder / "b.tif")
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "c.jpg")


def _unet() -> Any:
    from deft_ct.networks import UNetConfig

    return UNetConfig(patch=4, channels=(8,), attention=(False,), norm_groups=2, head_channels=4)


def _prior(folder: Path) -> None:
    from deft_ct.diffusion import Prior
    from deft_ct.diffusion.prior_folder import save_prior
    from deft_ct.diffusion.schedule import Schedule

    save_prior(Prior(_unet().build(), Schedule(), image_shape=(1, 16, 16)), folder)


def _model(folder: Path) -> None:
    from deft_ct.methods.supervised.fbp_unet import FBPUNetModel

    FBPUNetModel(FBPUNetModel.shape_type(network=_unet())).save(folder)


def _htransform(folder: Path) -> None:
    from deft_ct.diffusion.schedule import Schedule
    from deft_ct.methods.deft.folder import save_htransform
    from deft_ct.methods.deft.htransform import HTransform, HTransformConfig

    save_htransform(HTransform(HTransformConfig(network=_unet()), Schedule()), folder)
    _calibration(folder)


def _calibration(folder: Path) -> None:
    from deft_ct.methods.deft.spread_calibration import SpreadCalibration

    SpreadCalibration(factor=1.2, floor_hu=3.0, samples=8).write(folder / "calibration.json")


def _preset(folder: Path) -> None:
    from deft_ct.methods.presets import Preset

    Preset(method="tv", scan="x", options={"strength": 1.0, "iterations": 20}, provenance={}).write(folder / "p.json")


def _options(folder: Path) -> None:
    (folder / "text").write_text("tv:strength=80,iterations=20|sirt:iterations=5", encoding="utf-8")


# --- targets ---


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

    text = next(iter(_files(folder).values())).decode("utf-8", "replace")

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
    "dicom": Target(_dicom, _reads_dicom),
    "zip": Target(_zip, _reads_dicom),
    "hdf5": Target(_hdf5, _reads_hdf5),
    "lodopab": Target(_lodopab, _reads_lodopab),
    "mat": Target(_mat, _reads_mat),
    "nifti": Target(_nifti, _reads_nifti),
    "ctpd": Target(_ctpd, _reads_ctpd),
    "png": Target(_png, _reads_png),
    "model": Target(_model, _reads_model),
    "prior": Target(_prior, _reads_prior),
    "htransform": Target(_htransform, _reads_htransform),
    "preset": Target(_preset, _reads_preset),
    "calibration": Target(_calibration, _reads_calibration),
    "options": Target(_options, _reads_options),
}


# --- mutations ---


def mutated(case: Case, rng: random.Random) -> Case:
    """The case with one of its files damaged."""
    name = rng.choice(sorted(case))
    data = case[name]
    if name == "text":
        return {name: _text(data.decode("utf-8", "replace"), rng).encode("utf-8", "replace")}
    if name.endswith(".json") and rng.random() < 0.7:
        return {**case, name: _json(data, rng)}
    if name.endswith(".gz") and rng.random() < 0.7:
        try:
            return {**case, name: gzip.compress(_bytes(gzip.decompress(data), rng), 1)}
        except (OSError, EOFError, ValueError, zlib.error):
            pass
    if name.endswith(".zip") and rng.random() < 0.6:
        return {**case, name: _zipped(data, rng)}
    return {**case, name: _bytes(data, rng)}


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        if not out:
            break
        at, kind = rng.randrange(len(out)), rng.randrange(9)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind in (2, 3):
            size = rng.choice("BHIQ")
            value = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(size))
            raw = struct.pack(rng.choice("<>") + size, value)
            out[at : at + len(raw)] = raw
        elif kind == 4:
            raw = struct.pack(rng.choice("<>") + rng.choice("fd"), rng.choice(_FLOATS[:5]))
            out[at : at + len(raw)] = raw
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 7:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + rng.randrange(1, 64)]
        else:
            start, length = rng.randrange(len(out)), rng.randrange(1, 32)
            out[at : at + length] = out[start : start + length]
    return bytes(out)


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    for _ in range(rng.randrange(1, 3)):
        if not places:
            return json.dumps(rng.choice(_JSON)).encode()
        node, key = rng.choice(places)
        action = rng.random()
        if action < 0.7 or isinstance(node, list):
            try:
                node[key] = rng.choice(_JSON)
            except IndexError:
                continue
        elif action < 0.85:
            node.pop(key, None)
        else:
            node[rng.choice(("typo", "", "kind", "é"))] = rng.choice(_JSON)
    return json.dumps(content).encode()


def _text(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 12)))
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(_WORDS) + text[place + rng.randrange(4) :]


def _zipped(data: bytes, rng: random.Random) -> bytes:
    """The archive with a damaged member, or one under another name."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = [(info.filename, archive.read(info)) for info in archive.infolist()[:50]]
            with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as made:
                chosen = rng.randrange(max(len(members), 1))
                for n, (name, content) in enumerate(members):
                    if n == chosen:
                        name = rng.choice((name, members[0][0], "../x.dcm", "/etc/x", "DICOMDIR", "a\\b", "é"))
                        content = _bytes(content, rng)
                    made.writestr(name, content)
    except Exception:  # noqa: BLE001 - the seed may be damaged in any way
        return _bytes(data, rng)
    return out.getvalue()


# --- the worker ---


def seeds(name: str, corpus: Path | None) -> list[Case]:
    """Our own sound input first, then the cases of the corpus for this target."""
    with tempfile.TemporaryDirectory() as scratch:
        TARGETS[name].write(Path(scratch))
        found = [_files(Path(scratch))]
    if corpus is not None and corpus.is_dir():
        for folder in sorted((corpus / "fuzz").glob(f"*-{name}-*" if name != "options" else "*-cli-*")):
            case = _files(folder / "case") or _files(folder)
            found.append({"text": next(iter(case.values()))} if name == "options" else case)
        kinds = {"hdf5": "hdf5_*.h5", "nifti": "nifti_*.nii", "zip": "zip_*.zip", "mat": "mat_*", "dicom": "dicom_*"}
        for path in sorted(corpus.glob(kinds.get(name, "-"))):
            if path.is_dir():
                found.append(_files(path))
            else:
                found.append({("pack.h5" if name == "hdf5" else path.name): path.read_bytes()})
        if name == "hdf5" and (corpus / "hang1").is_dir():
            found.append(_files(corpus / "hang1"))
    return [case for case in found if case]


def case_number(number: int, name: str, seed: int, known: list[Case]) -> Case:
    """The case of a number: the seeds as they are, then damaged ones."""
    if number < len(known):
        return known[number]
    rng = random.Random(f"{seed}-{name}-{number}")
    case = mutated(known[0] if rng.random() < 0.5 else rng.choice(known), rng)
    return mutated(case, rng) if rng.random() < 0.2 else case


def judged(call: Callable[[], Any]) -> str | None:
    """None where a call keeps the contract, else what it did: the exception and where it was raised."""
    import numpy as np
    import torch

    from deft_ct.io.errors import ReadError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except ReadError:
        return None
    except BaseException as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)
        places = [f for f in frames if "fuzz.py" not in f.filename]
        ours = bool(places) and re.search(r"(deft_ct|operators|datasets)/", places[-1].filename) is not None
        # Errors of arguments and of names are plain; anything else, or one raised by a library, is an accident.
        plain = type(error) in (ValueError, FileNotFoundError) or type(error).__module__.startswith("deft_ct")
        if ours and plain and isinstance(error, ValueError | OSError):
            return None
        where = f"{Path(places[-1].filename).name}:{places[-1].name}" if places else "?"
        inner = [f for f in places if re.search(r"(deft_ct|operators|datasets)/", f.filename)]
        mine = f" from {Path(inner[-1].filename).name}:{inner[-1].lineno}" if inner else ""
        return f"{type(error).__name__} in {where}{mine}: {str(error)[:160]}"
    values = result.numpy() if isinstance(result, torch.Tensor) else result
    if isinstance(values, np.ndarray) and not np.isfinite(values).all():
        return "a result that is not finite"
    return None


def memory() -> int:
    """Peak resident bytes of this process and of the one that reads for it."""
    import psutil

    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            total += 1024 * int(status.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError, psutil.Error):
            continue
    return total


def work(name: str, seed: int, first: int, seed_file: Path, coverage_file: Path | None) -> None:
    """Run cases from a number on for ever; says what happens line by line on stdout."""
    measured: Any = None
    if coverage_file is not None:
        import coverage

        root = Path(__file__).resolve().parents[1]
        measured = coverage.Coverage(
            data_file=str(coverage_file), include=[f"{root}/deft_ct/io/*", f"{root}/datasets/*"], branch=False
        )
        measured.start()
    logging.disable(logging.CRITICAL)
    known = [
        {file: bytes.fromhex(data) for file, data in case.items()} for case in json.loads(seed_file.read_text("utf-8"))
    ]
    from deft_ct.io import limits

    limits.LIMITS = dataclasses.replace(limits.LIMITS, seconds=4.0)  # so that hanging files cost less of the time
    saved = time.monotonic()
    number = first
    while True:
        print(f"start {number}", flush=True)
        case = case_number(number, name, seed, known)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for file, data in case.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            problems = [problem for call in TARGETS[name].reads(folder) if (problem := judged(call)) is not None]
        used = memory()
        if used > MOST_BYTES:
            problems.append(f"{used / 2**30:.1f} GiB of memory")
        print("end " + json.dumps({"number": number, "problems": problems, "memory": used}), flush=True)
        number += 1
        if measured is not None and time.monotonic() - saved > 5:
            measured.save()
            saved = time.monotonic()


# --- the parent ---


@dataclasses.dataclass
class Result:
    """What a target did so far."""

    cases: int = 0
    memory: int = 0
    findings: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, problem: str, number: int) -> bool:
        """Note a problem; False where one of its kind is known."""
        key = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|/\S+", "#", problem)[:120]
        if key in self.findings:
            return False
        self.findings[key] = number
        return True


class Run:
    """All targets in turn until the time is over.

    Args:
        seed: of all cases.
        corpus: folder of further seeds.
        keep: folder for the inputs that broke the contract; None to keep none.
        scratch: for the seeds, and the data of coverage.
        coverage: whether it is measured.
    """

    def __init__(self, seed: int, corpus: Path | None, keep: Path | None, scratch: Path, *, coverage: bool) -> None:
        self.seed, self.corpus, self.keep, self.scratch, self.coverage = seed, corpus, keep, scratch, coverage
        self.seeds: dict[str, list[Case]] = {}
        self.results = {name: Result() for name in TARGETS}
        self.parts = 0

    def _seed_file(self, name: str) -> Path:
        """The seeds of a target as the workers read them: made once, because times change with every writing."""
        path = self.scratch / f"{name}.json"
        if name not in self.seeds:
            self.seeds[name] = seeds(name, self.corpus)
            content = [{file: data.hex() for file, data in case.items()} for case in self.seeds[name]]
            path.write_text(json.dumps(content), "utf-8")
        return path

    def target(self, name: str, seconds: float) -> None:
        """Fuzz one target for a time; workers that end or hang are replaced."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._worker(name, end)

    def _worker(self, name: str, end: float) -> None:
        result = self.results[name]
        self.parts += 1
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", name, "--seed", str(self.seed)]
        command += ["--first", str(result.cases), "--seed-file", str(self._seed_file(name))]
        if self.coverage:
            command += ["--coverage-file", str(self.scratch / f".coverage.{name}.{self.parts}")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        drain = threading.Thread(target=lambda: errors.extend(process.stderr or []), daemon=True)
        drain.start()
        current: int | None = None
        deadline = [time.monotonic() + START_S]
        ended = [""]

        def watch() -> None:
            while process.poll() is None:
                now = time.monotonic()
                if now > deadline[0] or (now > end + SLOWEST_S):
                    ended[0] = "hang" if now > deadline[0] else "time"
                    process.kill()
                    return
                time.sleep(0.05)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if word == "start":
                    current, deadline[0] = int(rest), time.monotonic() + SLOWEST_S
                elif word == "end":
                    told = json.loads(rest)
                    result.cases, result.memory = told["number"] + 1, max(result.memory, told["memory"])
                    current = None
                    deadline[0] = time.monotonic() + SLOWEST_S
                    for problem in told["problems"]:
                        self._found(name, told["number"], problem)
                    if time.monotonic() > end:
                        ended[0] = "time"
                        break
        finally:
            process.kill()
            code = process.wait()
            watcher.join()
            drain.join(timeout=5)
        if current is not None and ended[0] != "time":
            what = f"no end within {SLOWEST_S:.0f} s" if ended[0] == "hang" else f"the process ended with status {code}"
            self._found(name, current, what)
            result.cases = current + 1
        elif current is None and not ended[0]:
            raise SystemExit(f"the worker of {name} does not start:\n" + "".join(errors[-20:]))

    def _found(self, name: str, number: int, problem: str) -> None:
        if not self.results[name].add(problem, number):
            return
        print(f"FOUND {name} case {number} (seed {self.seed}): {problem}", flush=True)
        if self.keep is not None:
            case = case_number(number, name, self.seed, self.seeds[name])
            folder = self.keep / f"{name}-{hashlib.sha256(problem.encode()).hexdigest()[:10]}"
            if folder.exists():
                shutil.rmtree(folder)
            for file, data in case.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            (folder / "PROBLEM.txt").write_text(f"{name} case {number} seed {self.seed}: {problem}\n")

    def report(self) -> int:
        """Print the table; the number of findings."""
        total = 0
        print(f"{'target':12} {'cases':>8} {'findings':>8} {'peak MiB':>8}")
        for name, result in self.results.items():
            total += len(result.findings)
            print(f"{name:12} {result.cases:8} {len(result.findings):8} {result.memory / 2**20:8.0f}")
        print(f"{'all':12} {sum(r.cases for r in self.results.values()):8} {total:8}")
        return total


def main(
    target: Annotated[list[str] | None, typer.Option(help="A target, may be repeated, or `all`.")] = None,
    minutes: Annotated[float, typer.Option(help="Time for all of them.", min=0.01)] = 30.0,
    seed: Annotated[int, typer.Option(help="Of all cases.")] = 0,
    corpus: Annotated[Path | None, typer.Option(help="Further seeds, `../shared/data/hostile` for example.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for inputs that break the contract.")] = None,
    coverage: Annotated[bool, typer.Option(help="Measure the lines of io/ and datasets/ that are reached.")] = False,
    first: Annotated[int, typer.Option(hidden=True)] = 0,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    seed_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    coverage_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Fuzz; status 1 where something broke the contract."""
    if worker is not None:
        assert seed_file is not None
        work(worker, seed, first, seed_file, coverage_file)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = list(TARGETS) if not target or "all" in target else target
    if unknown := sorted(set(chosen) - set(TARGETS)):
        raise SystemExit(f"unknown target {', '.join(unknown)}; known: all, {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(seed, corpus, keep, Path(scratch), coverage=coverage)
        for name in chosen:
            run.target(name, 60 * minutes / len(chosen))
        found = run.report()
        if coverage:
            _report_coverage(Path(scratch))
    raise SystemExit(1 if found else 0)


def _report_coverage(folder: Path) -> None:
    import coverage

    total = coverage.Coverage(data_file=str(folder / ".coverage"))
    total.combine([str(folder)])
    total.report(show_missing=False, skip_covered=False)


if __name__ == "__main__":
    typer.run(main)
