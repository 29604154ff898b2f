"""Every kind of file and folder that the package writes, small enough for hundreds of runs.

A writer writes a generation, 1 or 2, to a folder. A reader says which generation lies there, None for nothing, and
fails for anything half written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior
from torch import nn

from deft_ct.ct.volume import Volume
from deft_ct.diffusion import load_prior, save_prior
from deft_ct.evaluation.store import write_result
from deft_ct.io import (
    Series,
    read_dicom_series,
    read_hdf5,
    read_nifti,
    sample_series_path,
    write_dicom_series,
    write_hdf5,
    write_nifti,
)
from deft_ct.methods.deft import (
    SpreadNetwork,
    load_htransform,
    load_refinement,
    load_spread_network,
    save_htransform,
    save_refinement,
    save_spread_network,
)
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.methods.deft.spread_network import SpreadConfig
from deft_ct.methods.presets import Preset, load_preset
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel, FBPUNetShape
from deft_ct.report import Report, save_png, write_html
from deft_ct.runtime.atomic import atomic_folder, write_text
from deft_ct.training.checkpoint_file import read_checkpoint, write_checkpoint
from deft_ct.training.log import TrainingLog

Write = Callable[[Path, int], Any]
Read = Callable[[Path], int | None]


@dataclass(frozen=True)
class Writer:
    """How one kind of thing is written and read back."""

    write: Write
    read: Read


def _file(name: str, write: Write, read: Callable[[Path], int]) -> Writer:
    """A writer of one file in the folder."""
    return Writer(
        lambda folder, generation: write(folder / name, generation),
        lambda folder: read(folder / name) if (folder / name).exists() else None,
    )


def _folder(write: Write, read: Callable[[Path], int]) -> Writer:
    """A writer of the folder ``out`` in the folder."""
    return Writer(
        lambda folder, generation: write(folder / "out", generation),
        lambda folder: read(folder / "out") if (folder / "out").exists() else None,
    )


def _volume(generation: int) -> Volume:
    return Volume.from_spacing(np.full((2, 4, 4), float(generation), np.float32), pixel_mm=1.0, z_mm=1.0)


def _generation_of(volume: Volume) -> int:
    assert (volume.hu == volume.hu[0, 0, 0]).all()
    return int(volume.hu[0, 0, 0])


@cache
def _networks(generation: int) -> tuple[Any, Any, Any, Any]:
    prior = tiny_prior(seed=generation)
    head = tiny_htransform(tiny_prior(seed=1), seed=generation)
    torch.manual_seed(generation)
    refinement = Refinement(RefinementConfig(network=NETWORK))
    model = FBPUNetModel(FBPUNetShape(network=NETWORK))
    for number, network in enumerate((prior, head, refinement, model)):
        if number != 1:
            network.card = {"generation": generation}
    head.card = {"generation": generation}
    return prior, head, refinement, model


@cache
def _spread(generation: int) -> SpreadNetwork:
    return SpreadNetwork(SpreadConfig(network=NETWORK), card={"generation": generation})


@cache
def _series() -> Series:
    series = read_dicom_series(sample_series_path())
    return series.resampled(series.image_shape[0] // SIZE)


def _write_dicom(folder: Path, generation: int) -> None:
    series = _series()
    hu = np.full(series.volume.shape, 10.0 * generation, np.float32)
    write_dicom_series(hu, like=series, folder=folder, overwrite=True)


def _read_dicom(folder: Path) -> int:
    found = read_dicom_series(folder)
    assert found.volume.shape == _series().volume.shape
    return _generation_of(replace(found.volume, hu=found.volume.hu / 10))


def _picture(path: Path, generation: int) -> None:
    figure = Figure(figsize=(generation, 1), dpi=10)
    save_png(figure, path)


def _read_picture(path: Path) -> int:
    with Image.open(path) as image:
        image.load()
        return round(image.width / image.height)


def _preset(path: Path, generation: int) -> None:
    Preset(method="fbp", scan="s", options={"cutoff": float(generation)}, provenance={}).write(path)


def _calibration(generation: int) -> SpreadCalibration:
    return SpreadCalibration(factor=float(generation), floor_hu=0.0, samples=2, settings={}, level=0.9)


def _write_html(path: Path, generation: int) -> None:
    title = ("first", "second")[generation - 1]
    write_html(path, Report(title=title, figures={}, provenance={"generation": generation}))


def _read_html(path: Path) -> int:
    page = path.read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    return 1 if "<title>first</title>" in page else 2


def _log(folder: Path, generation: int) -> None:
    log = TrainingLog(folder, 0)
    log.rows = [{"step": 0, "loss": "0", "rate": "0", "seconds": "0"}] * (generation - 1)
    log.write(generation, 1.0, 1.0, 1.0)


def _read_log(folder: Path) -> int | None:
    path = folder / "log.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else None


def _plain_folder(folder: Path, generation: int) -> None:
    with atomic_folder(folder, overwrite=True, is_own=lambda p: p.name in ("a", "b")) as work:
        (work / "a").write_text(str(generation))
        (work / "deep").mkdir()
        (work / "deep" / "b").write_text(str(generation))


def _read_plain_folder(folder: Path) -> int:
    one, two = (folder / "a").read_text(), (folder / "deep" / "b").read_text()
    assert one == two
    return int(one)


def _result(folder: Path, generation: int) -> None:
    write_result(folder, "r", {"g": generation}, f"{generation}\n")


def _read_result(folder: Path) -> int | None:
    if not (folder / "r.json").exists():
        return None
    found: int = json.loads((folder / "r.json").read_text())["g"]
    if (folder / "r.md").exists():
        assert (folder / "r.md").read_text() in ("1\n", "2\n")
    return found


def _checkpoint(path: Path, generation: int) -> None:
    write_checkpoint(path, {"step": generation, "w": torch.ones(3)})


def _read_checkpoint(folder: Path) -> int | None:
    with warnings.catch_warnings():
        # A failure between the two renames; the command line shows it.
        warnings.filterwarnings("ignore", ".*is missing: the checkpoint before it", UserWarning)
        state = read_checkpoint(folder / "checkpoint.pt")
    return None if state is None else int(state["step"])


def _card(network: nn.Module | Any) -> int:
    return int(network.card["generation"])


WRITERS: dict[str, Writer] = {
    "text": _file("a.txt", lambda p, g: write_text(p, f"{g}"), lambda p: int(p.read_text())),
    "folder": _folder(_plain_folder, _read_plain_folder),
    "prior": _folder(lambda p, g: save_prior(_networks(g)[0], p), lambda p: _card(load_prior(p))),
    "htransform": _folder(lambda p, g: save_htransform(_networks(g)[1], p), lambda p: _card(load_htransform(p))),
    "spread": _folder(lambda p, g: save_spread_network(_spread(g), p), lambda p: _card(load_spread_network(p))),
    "refinement": _folder(lambda p, g: save_refinement(_networks(g)[2], p), lambda p: _card(load_refinement(p))),
    "model": _folder(lambda p, g: _networks(g)[3].save(p), lambda p: _card(FBPUNetModel.load(p))),
    "checkpoint": Writer(lambda f, g: _checkpoint(f / "checkpoint.pt", g), _read_checkpoint),
    "log": Writer(_log, _read_log),
    "nifti": _file("v.nii.gz", lambda p, g: write_nifti(_volume(g), p), lambda p: _generation_of(read_nifti(p))),
    "hdf5": _file("v.h5", lambda p, g: write_hdf5(_volume(g), p), lambda p: _generation_of(read_hdf5(p))),
    "png": _file("p.png", _picture, _read_picture),
    "html": _file("r.html", _write_html, _read_html),
    "dicom": _folder(_write_dicom, _read_dicom),
    "preset": _file("fbp.json", _preset, lambda p: int(load_preset("fbp", p).options["cutoff"])),
    "calibration": _file(
        "calibration-a.json", lambda p, g: _calibration(g).write(p), lambda p: int(SpreadCalibration.read(p).factor)
    ),
    "result": Writer(_result, _read_result),
}
