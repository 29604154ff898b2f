"""Small, sound input of our own writers, from which damaged input is made."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

Case = dict[str, bytes]
"""Files of one case by name; one file ``text`` for targets that take text."""


def files_of(folder: Path) -> Case:
    """The files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _volume() -> Any:
    import numpy as np

    from deft_ct.ct.volume import Volume

    values = np.random.default_rng(0).normal(0, 300, (3, 8, 8))
    return Volume.from_spacing(values, pixel_mm=0.8, z_mm=2.0)


def write_hdf5(folder: Path) -> None:
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


def write_lodopab(folder: Path) -> None:
    import h5py
    import numpy as np

    for kind, shape in (("ground_truth", (362, 362)), ("observation", (1000, 513))):
        with h5py.File(folder / f"{kind}_test_000.hdf5", "w") as file:
            file.create_dataset("data", (2, *shape), np.float32, chunks=(1, *shape), compression="gzip")
    (folder / "patient_ids_rand_test.csv").write_text("1\n" * 3553)


def write_mat(folder: Path) -> None:
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


def write_nifti(folder: Path) -> None:
    from deft_ct.io.nifti import write_nifti

    write_nifti(_volume(), folder / "n.nii")
    write_nifti(_volume(), folder / "n.nii.gz")


def write_dicom(folder: Path) -> None:
    import pydicom

    from deft_ct.io import sample_series_path

    for n, path in enumerate(sorted(p for p in sample_series_path().rglob("*") if p.suffix == ".dcm")[:3]):
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array[:16, :16]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(folder / f"{n}.dcm", enforce_file_format=True)


def write_zip(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        write_dicom(Path(scratch))
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(scratch).iterdir()):
                archive.write(path, f"series/{path.name}")


def write_ctpd(folder: Path) -> None:
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


def write_png(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 65535, (16, 16), dtype=np.uint16)).save(folder / "b.tif")
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / "c.jpg")


def _unet() -> Any:
    from deft_ct.networks import UNetConfig

    return UNetConfig(patch=4, channels=(8,), attention=(False,), norm_groups=2, head_channels=4)


def write_prior(folder: Path) -> None:
    from deft_ct.diffusion import Prior
    from deft_ct.diffusion.prior_folder import save_prior
    from deft_ct.diffusion.schedule import Schedule

    save_prior(Prior(_unet().build(), Schedule(), image_shape=(1, 16, 16)), folder)


def write_model(folder: Path) -> None:
    from deft_ct.methods.supervised.fbp_unet import FBPUNetModel

    FBPUNetModel(FBPUNetModel.shape_type(network=_unet())).save(folder)


def write_htransform(folder: Path) -> None:
    from deft_ct.diffusion.schedule import Schedule
    from deft_ct.methods.deft import HTransform, HTransformConfig
    from deft_ct.methods.deft.folder import save_htransform

    save_htransform(HTransform(HTransformConfig(network=_unet()), Schedule()), folder)
    write_calibration(folder)


def write_calibration(folder: Path) -> None:
    from deft_ct.methods.deft.spread_calibration import SpreadCalibration

    SpreadCalibration(factor=1.2, floor_hu=3.0, samples=8).write(folder / "calibration.json")


def write_preset(folder: Path) -> None:
    from deft_ct.methods.presets import Preset

    Preset(method="tv", scan="x", options={"strength": 1.0, "iterations": 20}, provenance={}).write(folder / "p.json")


def write_options(folder: Path) -> None:
    (folder / "text").write_text("tv:strength=80,iterations=20|sirt:iterations=5", encoding="utf-8")
