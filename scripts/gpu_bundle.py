"""What a GPU is for, in stages: checks, timings, and the training of the shipped networks. See CONTRIBUTING.

    python scripts/gpu_bundle.py pack   --packs DIR --data ../shared/data     # here: make the files that travel
    python scripts/gpu_bundle.py check  --packs DIR --out OUT                 # there: versions, correctness, speed
    python scripts/gpu_bundle.py train  --packs DIR --out OUT --minutes 7     # there: the unrolled reconstruction
    python scripts/gpu_bundle.py prior  --packs DIR --out OUT --minutes 4 --domain photos   # or ct

`--rehearse` runs each stage with tiny networks and a few slices on any machine. Everything is written to OUT at once.
The length of a training is a time, not a number of steps, so its result depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deft_ct.ct.compact_packs import CompactPack, read_compact, write_compact
from deft_ct.ct.pairs import augment_slices
from deft_ct.ct.resident_pairs import ResidentPairs, ScanGroup
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.diffusion import save_prior
from deft_ct.diffusion.train import PriorSpec, train_prior
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.supervised.unrolled import Unrolled, UnrolledModel, UnrolledShape, deviation_loss, staged_loss
from deft_ct.networks import UNetConfig
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.ct.backends import matrix as matrix_backend
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.augment import mirrored
from deft_ct.training.muon import Muon

NAMED = {
    "parallel60_1e5": 4.0, "parallel20_1e5": 3.0, "parallel60_1e5_120deg": 2.0, "fan60_1e5": 1.5,
    "parallel120_1e5": 1.5, "parallel60_1e4": 1.5, "parallel60_noisefree": 0.5, "parallel1000_4096": 0.5,
}  # fmt: skip
"""Common scans and how often each is drawn, beside :data:`DRAWN` for the random ones."""
DRAWN = 14.0
FAMILY = ScanRange(views=(10, 400), photons=(1e3, 1e6), any_start=True)
NAMED_512 = {"parallel60_1e5": 1.0, "parallel120_1e5": 1.0, "parallel60_2.5e4": 0.5, "fan120_1e5": 0.5}
DRAWN_512 = 2.5
FAMILY_512 = ScanRange(views=(20, 200), photons=(3e3, 1e6), any_start=True)
HELD = ("LCTSC_p009", "TCGA-LIHC_p001", "C4KC-KiTS_p001", "Lung-Fused-CT-Pathology_p002")
"""Training patients whose slices are kept for the network of the error."""
PART_BYTES = 15 * 2**20
"""Weights are written in files of at most this size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["pack", "check", "train", "prior"])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out")))
    parser.add_argument("--work", type=Path, help="checkpoints, which are too large to travel; OUT/work if left out")
    parser.add_argument("--initial", type=Path, help="folder with the weights that an earlier call has written")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--domain", choices=["ct", "photos"], default="photos")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--geometries", type=int, default=24)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    if arguments.stage == "pack":
        pack(arguments.data, arguments.packs)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work = arguments.work or arguments.out / "work"
    torch.set_float32_matmul_precision("high")
    matrix_backend.KEPT_SHARE = 0.7
    {"check": check, "train": train, "prior": prior}[arguments.stage](arguments)


def pack(data: Path, out: Path) -> None:
    """Make the files that travel."""
    out.mkdir(parents=True, exist_ok=True)
    write_compact([data / "ct256/train.h5", data / "ct256/train_more.h5"], out / "ct256.npz")
    write_compact([data / "ct512/train.h5"], out / "ct512.npz")


@contextmanager
def timed(out: Path, what: str) -> Iterator[dict[str, object]]:
    """Print a stage with its time and what it found, and add the line to ``OUT/stages.jsonl``."""
    began, found = time.monotonic(), dict[str, object]()
    try:
        yield found
    except Exception as error:  # the next stage may still be of use
        found["failed"] = repr(error)
        raise
    finally:
        line = json.dumps({"stage": what, "seconds": round(time.monotonic() - began, 2), **found})
        print(line, flush=True)
        with (out / "stages.jsonl").open("a") as file:
            file.write(line + "\n")


@dataclass(frozen=True, kw_only=True)
class TimedConfig(TrainingConfig):
    """A training whose learning rate follows the time and reaches its end at ``max_minutes``."""

    began: float = 0.0

    def rate(self, step: int) -> float:
        """See ``TrainingConfig.rate``; the step only counts for the warm-up."""
        assert self.max_minutes is not None
        share = min(1.0, (time.monotonic() - self.began) / (60 * self.max_minutes))
        along = step if step < self.warmup else self.warmup + round(share * (self.steps - self.warmup))
        return super().rate(along)


def timed_training(minutes: float, batch_size: int, rate: float, **changes: object) -> TimedConfig:
    """The settings of every training here."""
    values: dict[str, object] = {
        "steps": 10**6, "batch_size": batch_size, "learning_rate": rate, "optimizer": "muon", "momentum": 0.95,
        "warmup": 60, "ema_decay": 0.995, "precision": "bfloat16", "channels_last": True, "max_minutes": minutes,
        "began": time.monotonic(), "checkpoint_minutes": 1000.0, "log_every": 50,
    }  # fmt: skip
    return TimedConfig(**(values | changes))  # type: ignore[arg-type]


def slices(packs: Path, rehearse: bool, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """``(hu, pixel_mm)`` on the device: ``train256``, ``train512`` and ``held256``, by what is there."""
    workers = min(14, os.cpu_count() or 1)
    small = read_compact(packs / "ct256.npz", processes=workers)
    parts = [(small.hu, small.pixel_mm, small.patient)]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    if (packs / "ct512.npz").is_file():
        large = read_compact(packs / "ct512.npz", processes=workers)
        kept = ~np.isin(large.patient, HELD)
        found["train512"] = torch.from_numpy(large.hu[kept]), torch.from_numpy(large.pixel_mm[kept])
        parts += list(phases(large))
    hu, pixel_mm, patient = (np.concatenate(values) for values in zip(*parts, strict=True))
    held = np.isin(patient, HELD)
    found["train256"] = torch.from_numpy(hu[~held]), torch.from_numpy(pixel_mm[~held])
    found["held256"] = torch.from_numpy(hu[held]), torch.from_numpy(pixel_mm[held])
    if rehearse:
        found = {name: (a[:8, :64, :64].contiguous(), b[:8]) for name, (a, b) in found.items()}
    return {name: (a.to(device), b.to(device)) for name, (a, b) in found.items()}


def phases(pack: CompactPack) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The 2 x 2 means of 512 x 512 slices at the three other positions of the coarse grid."""
    for down, right in ((0, 1), (1, 0), (1, 1)):
        moved = np.roll(pack.hu, (-down, -right), (1, 2)).astype(np.float32)
        mean = moved.reshape(len(moved), 256, 2, 256, 2).mean((2, 4)).round().astype(np.int16)
        yield mean, 2 * pack.pixel_mm, pack.patient


def group(
    held: tuple[Tensor, Tensor], named: dict[str, float], drawn: float, family: ScanRange, geometries: int, batch: int,
    share: float = 1.0,
) -> ScanGroup:  # fmt: skip
    """Scans of one size, with their matrices on the device."""
    hu, pixel_mm = held
    scans = [Scan.from_name(name) for name in named] + family.draw(geometries, 3, levels=4)
    weights = [*named.values()] + [drawn / (4 * geometries)] * (4 * geometries)
    shape = (int(hu.shape[-2]), int(hu.shape[-1]))
    made = unit_measurements(scans, shape, float(pixel_mm.median()))
    made = [m.to(hu.device) for m in made]
    prepare(made, hu.device)
    return ScanGroup(hu=hu, pixel_mm=pixel_mm, measurements=made, weights=[share * w for w in weights], batch=batch)


def prepare(measurements: Sequence[Measurement], device: torch.device) -> None:
    """Build the matrices of all scans in threads, instead of one by one when they are first drawn."""

    def build(measurement: Measurement) -> None:
        operator = measurement.operator
        assert isinstance(operator, RayTransform)
        y = torch.zeros((1, *operator.range_shape), device=device)
        operator.adjoint(operator(operator.pseudo_inverse(y)))
        measurement.noise_free(torch.zeros((1, 1, *operator.domain_shape), device=device), refine=2)

    if device.type == "cpu":  # which needs no matrices
        return
    first = {id(measurement.operator): measurement for measurement in measurements}
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(build, first.values()))
    for measurement in measurements:
        build(measurement)


class WithError(nn.Module):
    """The network of the error around frozen stages."""

    def __init__(self, model: UnrolledModel) -> None:
        super().__init__()
        self.model = model
        for stage in model.stages:
            stage.requires_grad_(False)

    def forward(self, likelihood: object) -> tuple[Tensor, Tensor]:
        """The image and its standard deviation."""
        with torch.no_grad():
            found: Unrolled = self.model(likelihood)
        return found.images[-1], self.model.deviation(found)


def shape_for(rehearse: bool) -> UnrolledShape:
    """The shape of the shipped network, or a tiny one."""
    if not rehearse:
        return UnrolledShape()
    tiny = UNetConfig(patch=4, channels=(16,), attention=(False,), norm_groups=8, head_channels=16, scale_shift=True)
    return UnrolledShape(stages=2, network=tiny, spread_network=tiny)


def train(arguments: argparse.Namespace) -> None:
    """Train the stages of the unrolled reconstruction, then the network of its error."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = arguments.work
    deadline = time.monotonic() + 60 * arguments.minutes
    with timed(out, "slices"):
        held = slices(arguments.packs, rehearse, device)
    with timed(out, "matrices") as found:
        count, batch = (1, 2) if rehearse else (arguments.geometries, arguments.batch_size)
        named = {"parallel20_1e5": 1.0} if rehearse else NAMED
        groups = [group(held["train256"], named, DRAWN, FAMILY, count, batch)]
        if "train512" in held:
            small = min(count, 6)
            groups.append(group(held["train512"], NAMED_512, DRAWN_512, FAMILY_512, small, max(1, batch // 4)))
        for_error = group(held["held256"], named, DRAWN, FAMILY, min(count, 12), batch)
        found |= memory(device)
    pairs, error_pairs = ResidentPairs(groups), ResidentPairs([for_error])
    torch.manual_seed(0)
    model = UnrolledModel(shape_for(rehearse), value_range=PriorRange())
    if arguments.initial is not None:
        model.load_state_dict(written(arguments.initial))
    if arguments.compile:
        for stage in model.stages:
            stage.network.compile()
    error_minutes = min(1.0, 0.12 * arguments.minutes)
    minutes = (deadline - time.monotonic()) / 60 - error_minutes - 0.1
    with timed(out, "stages") as found:
        training = timed_training(minutes, batch, 4e-3)

        def loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            drawn = pairs.draw(indices, generator)
            return staged_loss(network(drawn.likelihood).images, drawn.x0)

        identity = pairs.description() | model.description()
        averaged = fit(model, loss, len(pairs), training, work / "stages", identity=identity, progress=False)
        assert isinstance(averaged, UnrolledModel)
        found |= {"steps": lines(work / "stages"), **memory(device)}
    write(averaged, out, work / "stages")
    with timed(out, "error") as found:
        training = timed_training(max(0.05, (deadline - time.monotonic()) / 60), batch, 3e-3, warmup=30, ema_decay=0.99)

        def error_loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
            drawn = error_pairs.draw(indices, generator)
            image, deviation = network(drawn.likelihood)
            return deviation_loss(deviation, image.float() - drawn.x0)

        whole = fit(
            WithError(averaged.requires_grad_(True)), error_loss, len(error_pairs), training, work / "error",
            identity=error_pairs.description() | {"stages": averaged.content_hash()}, progress=False,
        )  # fmt: skip
        found |= {"steps": lines(work / "error")}
    assert isinstance(whole, WithError)
    write(whole.model, out, work / "error")


def lines(folder: Path) -> str:
    """The last line of a training log."""
    log = folder / "log.csv"
    return log.read_text().splitlines()[-1] if log.is_file() else ""


def memory(device: torch.device) -> dict[str, object]:
    """GPU memory in use and at most, GB."""
    if device.type != "cuda":
        return {}
    used, peak = torch.cuda.memory_allocated() / 1e9, torch.cuda.max_memory_allocated() / 1e9
    return {"gpu_gb": round(used, 1), "gpu_peak_gb": round(peak, 1)}


def write(model: nn.Module, out: Path, folder: Path) -> None:
    """Write weights in half precision, in parts that are small enough to travel, and the log beside them."""
    weights = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    parts: list[dict[str, Tensor]] = [{}]
    for name, value in weights.items():
        if sum(t.nbytes for t in parts[-1].values()) + value.nbytes > PART_BYTES:
            parts.append({})
        parts[-1][name] = value
    for number, part in enumerate(parts):
        save_file(part, out / f"unrolled-{number}.safetensors")
    if (folder / "log.csv").is_file():
        (out / f"log-{folder.name}.csv").write_text((folder / "log.csv").read_text())


def written(folder: Path) -> dict[str, Tensor]:
    """The weights of :func:`write`."""
    parts = [load_file(path) for path in sorted(folder.glob("unrolled-*.safetensors"))]
    return {name: value for part in parts for name, value in part.items()}


def prior(arguments: argparse.Namespace) -> None:
    """Train an unconditional prior of photographs or of CT slices."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    deadline = time.monotonic() + 60 * arguments.minutes
    if arguments.domain == "photos":
        from deft_ct.datasets.images import PhotoCrops

        crops = PhotoCrops(arguments.packs / "crops64.h5", "train")
        source: Held = Held(crops.batch(np.arange(8 if rehearse else len(crops))).to(device))
        network = UNetConfig(
            in_channels=3, out_channels=3, patch=1, channels=(64, 96, 128, 160), attention=(False, False, True, True),
            layers=1, norm_groups=8, scale_shift=True,
        )  # fmt: skip
        spec = PriorSpec(network=network, image_shape=(3, 64, 64), time_power=1.0)
        augment = mirrored
    else:
        hu, _ = slices(arguments.packs, rehearse, device)["train256"]
        source = Held(hu[:, None])
        network = UNetConfig(
            patch=4, channels=(64, 96, 128), attention=(False,) * 3, norm_groups=8, head_channels=32, scale_shift=True
        )
        spec = PriorSpec(network=network, image_shape=(1, *hu.shape[1:]), value_range=PriorRange())
        augment = partial(augment_slices, air_hu=-1000.0)
    if rehearse:
        spec = replace(spec, network=replace(network, channels=(32,), attention=(False,)))
    with timed(out, f"prior {arguments.domain}") as found:
        batch = 2 if rehearse else 2 * arguments.batch_size
        training = timed_training((deadline - time.monotonic()) / 60, batch, 2e-3, ema_decay=0.9995)
        folder = arguments.work / arguments.domain
        made = train_prior(source, folder, spec=spec, training=training, augment=augment, progress=False)
        found |= {"steps": lines(folder)}
    save_prior(made, out / f"prior-{arguments.domain}")


class Held:
    """Images on the device of the training."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """The images ``indices`` in float32."""
        return self.images[indices.to(self.images.device)].float()


def check(arguments: argparse.Namespace) -> None:
    """Versions, whether the GPU computes what the CPU does, and how long things take."""
    out, rehearse = arguments.out, arguments.rehearse
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with timed(out, "versions") as found:
        found |= {"torch": torch.__version__, "cuda": str(torch.version.cuda), "cpus": os.cpu_count() or 0}
        found |= {"gpu": torch.cuda.get_device_name()} if device.type == "cuda" else {}
    for name in ("parallel60_1e5", "fan60_1e5"):
        with timed(out, f"ray transform {name}") as found:
            found |= ray_transform(name, device, (64, 64) if rehearse else (256, 256))
    with timed(out, "slices"):
        held = slices(arguments.packs, rehearse, device)
    with timed(out, "step") as found:
        found |= steps(held["train256"], arguments, device)


def ray_transform(name: str, device: torch.device, shape: tuple[int, int]) -> dict[str, object]:
    """Largest difference to the CPU in double precision, and microseconds for a slice of a batch of 64."""
    geometry = Scan.from_name(name).unit_geometry(shape, 1.5)
    exact, operator = RayTransform(geometry, "matrix"), RayTransform(geometry, "matrix").to(device)
    x = torch.rand((64, *shape), generator=torch.Generator().manual_seed(0))
    y = exact(x.double())
    fast = operator(x.to(device))
    back, reference = operator.adjoint(fast), exact.adjoint(y)
    result: dict[str, object] = {
        "forward_error": float((fast.cpu() - y).norm() / y.norm()),
        "adjoint_error": float((back.cpu() - reference).norm() / reference.norm()),
    }
    for what, call, argument in (
        ("forward", operator, x.to(device)), ("adjoint", operator.adjoint, fast), ("fbp", operator.pseudo_inverse, fast)
    ):  # fmt: skip
        result[f"{what}_us_a_slice"] = round(1e6 * seconds(lambda c=call, a=argument: c(a), device) / 64, 2)
    return result


def seconds(call: object, device: torch.device, repeats: int = 20) -> float:
    """Mean time of a call."""
    assert callable(call)
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.monotonic()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - began) / repeats


def steps(held: tuple[Tensor, Tensor], arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Seconds that the matrices take, of a training step in both memory layouts, and of its parts."""
    batch = 2 if arguments.rehearse else arguments.batch_size
    began = time.monotonic()
    count = 1 if arguments.rehearse else arguments.geometries
    pairs = ResidentPairs([group(held, NAMED, DRAWN, FAMILY, count, batch)])
    result: dict[str, object] = {"matrices_s": round(time.monotonic() - began, 1)}
    for name, layout in {"plain": torch.contiguous_format, "channels_last": torch.channels_last}.items():
        model = UnrolledModel(shape_for(arguments.rehearse), value_range=PriorRange()).to(device)
        model.to(memory_format=layout)  # type: ignore[call-overload]
        if arguments.compile:
            for stage in model.stages:
                stage.network.compile()
        result |= {f"{name}_{what}": value for what, value in step_times(model, pairs, batch, device).items()}
    return result | memory(device)


def step_times(model: UnrolledModel, pairs: ResidentPairs, batch: int, device: torch.device) -> dict[str, float]:
    """Seconds of the first step, of a later one, of the optimiser and of drawing the data."""
    optimizer = Muon(model.parameters(), lr=1e-3)
    generator, indices = torch.Generator(device).manual_seed(0), torch.arange(batch)

    def step() -> None:
        drawn = pairs.draw(indices, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = staged_loss(model(drawn.likelihood).images, drawn.x0)
        loss.backward()

    began = time.monotonic()
    step()
    return {
        "first_s": round(time.monotonic() - began, 2),
        "step_s": round(seconds(step, device), 4),
        "optimizer_s": round(seconds(optimizer.step, device, 5), 4),
        "draw_s": round(seconds(lambda: pairs.draw(indices, generator), device), 4),
    }


if __name__ == "__main__":
    main()
