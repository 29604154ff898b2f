"""Degradations of photographs by name: ``NAME[:key=value,...]``, for example ``sr4`` or ``gaussian_blur:sigma=2``.

``CONVENTION/TASK`` is a published problem under its own parameters, for example ``dps/sr4``; see
:mod:`deft_ct.operators.image.conventions`. All operators work on images in [-1, 1], and noise levels are given in that
range. Sizes are in pixels of the image at hand. The noise of a task is one of these keys:

- ``noise=SIGMA``: white Gaussian noise of this standard deviation, 0 for none.
- ``noise=LOW..HIGH``: white Gaussian noise whose level is drawn for each image, and estimated from the data.
- ``photons=PEAK``: photon counts, with so many for white.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from deft_ct.operators.base import Operator
from deft_ct.operators.identity import Identity
from deft_ct.operators.image.blur import Boundary, GaussianBlur, MotionBlur
from deft_ct.operators.image.colorization import Colorization
from deft_ct.operators.image.compressed_sensing import CompressedSensing
from deft_ct.operators.image.conventions import ImageShape, preset, presets
from deft_ct.operators.image.hdr import HDR
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.image.jpeg import JPEG
from deft_ct.operators.image.masked_fourier import MaskedFourier, cartesian_mask
from deft_ct.operators.image.masks import (
    box_mask,
    expand_mask,
    freeform_mask,
    half_mask,
    lattice_mask,
    random_mask,
)
from deft_ct.operators.image.nonlinear_blur import NonlinearBlur
from deft_ct.operators.image.phase_retrieval import PhaseRetrieval
from deft_ct.operators.image.quantisation import Quantisation
from deft_ct.operators.image.super_resolution import SuperResolution
from deft_ct.operators.noise import NoiseModel, NoNoise
from deft_ct.problems.task_keys import (
    NOISE,
    NOISE_KEYS,
    TaskKey,
    check_noise,
    choice,
    gaussian_noise,
    number,
    odd,
    whole,
)
from deft_ct.runtime.seeds import generator_for

__all__ = ["TASKS", "NaturalTask", "TaskKind", "parse_task", "task_list"]

Values = Mapping[str, Any]
Build = Callable[[ImageShape, torch.Generator, Values], Operator]


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A degradation.

    Args:
        build: the operator for an image shape, with random parts drawn from the generator.
        keys: its parameters by name, without those of the noise.
        noise: standard deviation of the noise where none is given.
        help: what it is, in one line.
    """

    build: Build
    keys: Mapping[str, TaskKey]
    noise: float = NOISE
    help: str


@dataclass(frozen=True, kw_only=True)
class NaturalTask:
    """A degradation with its parameters; :func:`parse_task` reads one from text.

    Attributes:
        name: as it was written, without keys, for example ``"sr4"`` or ``"dps/sr4"``.
        given: the keys that were written, as text.
        values: all parameters of the operator.
        noise: None for that of the convention.
    """

    name: str
    given: tuple[tuple[str, str], ...]
    values: Values
    noise: NoiseModel | None

    @property
    def text(self) -> str:
        """What :func:`parse_task` reads as this task again."""
        keys = ",".join(f"{key}={value}" for key, value in self.given)
        return f"{self.name}:{keys}" if keys else self.name

    @property
    def label(self) -> str:
        """Name that is also a file name; presets and results are stored by it."""
        return "-".join([self.name.replace("/", "-"), *(f"{key}={value}" for key, value in self.given)])

    def build(self, image_shape: ImageShape, *, seed: int = 0) -> tuple[Operator, NoiseModel]:
        """Operator and noise for images of a shape.

        Args:
            image_shape: ``(C, H, W)``.
            seed: of masks, kernels and random transforms; the same task has the same ones for the same seed.

        Raises:
            ValueError: the image does not suit the operator, or a parameter is out of range.
        """
        generator = generator_for(seed, "operator", self.text)
        convention, slash, task = self.name.partition("/")
        try:
            if slash:
                operator, own = preset(convention, task, image_shape, generator)
            else:
                operator, own = TASKS[self.name].build(image_shape, generator, self.values), NoNoise()
            check_noise(operator, self.noise)
        except ValueError as error:
            raise ValueError(f"{self.text}: {error}") from error
        return operator, own if self.noise is None else self.noise


def parse_task(text: str) -> NaturalTask:
    """A task from its text.

    Args:
        text: ``NAME[:key=value,...]`` with a name of :data:`TASKS`, or ``CONVENTION/TASK[:noise=SIGMA]`` with a task of
            :func:`~deft_ct.operators.image.conventions.presets`. Dashes and underscores are the same in names.

    Raises:
        ValueError: the name or a key is unknown, or a value is not what the key expects. The message has the list.
    """
    written, colon, rest = text.strip().partition(":")
    convention, slash, task = written.partition("/")
    if slash:
        name, kind = _published(convention, task), None
    else:
        name = written.replace("-", "_")
        kind = TASKS.get(name)
        if kind is None:
            raise ValueError(f"unknown task {written!r}; known are {', '.join(task_list())}, or CONVENTION/TASK")
    keys = {**({} if kind is None else kind.keys), **NOISE_KEYS}
    given: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in keys or not equals:
            expected = ", ".join(f"{known}={entry.expects}" for known, entry in keys.items())
            raise ValueError(f"{name}: unknown key {part!r}; known are {expected}")
        if key in given:
            raise ValueError(f"{name}: {key} is there twice in {text!r}")
        given[key] = value
    values = {key: _read(name, key, keys[key], given[key]) for key in given}
    chosen = [key for key in NOISE_KEYS if key in given]
    if len(chosen) > 1:
        raise ValueError(f"{name}: {' and '.join(chosen)} are two kinds of noise in {text!r}; give one")
    noise = values[chosen[0]] if chosen else None if kind is None else gaussian_noise(kind.noise)
    filled = {} if kind is None else {key: values.get(key, entry.default) for key, entry in kind.keys.items()}
    ordered = tuple((key, given[key]) for key in keys if key in given)
    return NaturalTask(name=name, given=ordered, values=filled, noise=noise)


def task_list() -> list[str]:
    """Every task with its keys and their defaults, for example ``"jpeg[:quality=10]"``."""
    return [
        name + (f"[:{','.join(f'{key}={_shown(e.default)}' for key, e in kind.keys.items())}]" if kind.keys else "")
        for name, kind in TASKS.items()
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _published(convention: str, task: str) -> str:
    table, written = presets(), f"{convention}/{task}"
    convention = {name.replace("-", ""): name for name in table}.get(convention.replace("-", ""), convention)
    if convention not in table:
        raise ValueError(f"{written!r} has the unknown convention {convention!r}; known are {', '.join(table)}")
    task = task.replace("_", "-")
    if task not in table[convention]:
        raise ValueError(f"{convention} has no task {task!r}; it has {', '.join(table[convention])}")
    return f"{convention}/{task}"


def _read(name: str, key: str, entry: TaskKey, value: str) -> Any:
    try:
        return entry.read(value)
    except ValueError:
        raise ValueError(f"{name}: {key} must be {entry.expects}, got {value!r}") from None


_BOUNDARY = choice("reflect", *get_args(Boundary))
_KERNEL = choice("average", "average", "bicubic")


def _box(shape: ImageShape, generator: torch.Generator, values: Values) -> Operator:
    height, width = (max(1, round(values["size"] * side)) for side in shape[1:])
    margin = min((shape[1] - height) // 2, (shape[2] - width) // 2, min(shape[1:]) // 16)
    where = generator if values["place"] == "random" else None
    return Inpainting(shape, box_mask(shape[1:], (height, width), where, margin=max(margin, 0)))


def _freeform(shape: ImageShape, generator: torch.Generator, values: Values) -> Operator:
    return Inpainting(shape, freeform_mask(shape[1:], generator, coverage=(values["low"], values["high"])))


def _super_resolution(factor: int) -> TaskKind:
    return TaskKind(
        build=lambda shape, _, values: SuperResolution(shape, factor, values["kernel"]),
        keys={"kernel": _KERNEL},
        help=f"{factor} times fewer pixels along each side",
    )


def _gaussian(shape: ImageShape, _: torch.Generator, values: Values) -> Operator:
    taps = 2 * max(1, round(4 * values["sigma"])) + 1
    return GaussianBlur(shape, taps, values["sigma"], boundary=values["boundary"])


def _motion(shape: ImageShape, generator: torch.Generator, values: Values) -> Operator:
    return MotionBlur(shape, generator, values["size"], values["intensity"], boundary=values["boundary"])


def _sensing(shape: ImageShape, generator: torch.Generator, values: Values) -> Operator:
    pixels = shape[1] * shape[2]
    transform: Literal["hadamard", "dct"] = (
        "dct" if pixels & (pixels - 1) else "hadamard"
    )  # the latter needs a power of two
    return CompressedSensing(shape, values["ratio"], generator, transform=transform)


def _phase(shape: ImageShape, _: torch.Generator, values: Values) -> Operator:
    return PhaseRetrieval(shape, values["oversample"])


TASKS: Mapping[str, TaskKind] = {
    "denoise": TaskKind(build=lambda shape, _g, _v: Identity(shape), keys={}, noise=0.2, help="noise alone"),
    "inpaint_box": TaskKind(
        build=_box,
        keys={"size": number(0.5, high=1.0, above=True), "place": choice("centre", "centre", "random")},
        help="a missing box, size as a share of each side",
    ),
    "inpaint_random": TaskKind(
        build=lambda shape, generator, v: Inpainting(shape, random_mask(shape[1:], v["missing"], generator)),
        keys={"missing": number(0.7, high=1.0)},
        help="pixels missing at random",
    ),
    "inpaint_freeform": TaskKind(
        build=_freeform,
        keys={"low": number(0.2, high=1.0), "high": number(0.3, high=1.0)},
        help="missing brush strokes, from low to high of the pixels",
    ),
    "inpaint_half": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, half_mask(shape[1:], v["side"])),
        keys={"side": choice("right", "left", "right", "top", "bottom")},
        help="one half missing",
    ),
    "inpaint_expand": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, expand_mask(shape[1:], v["kept"])),
        keys={"kept": number(0.25, high=1.0, above=True)},
        help="all but a central box missing, kept as a share of each side",
    ),
    "inpaint_lattice": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, lattice_mask(shape[1:], v["rows"], v["columns"])),
        keys={"rows": whole(2, 1, 64), "columns": whole(2, 1, 64)},
        help="all but every so many rows and columns missing",
    ),
    "mri": TaskKind(
        build=lambda shape, generator, v: MaskedFourier(
            shape, cartesian_mask(shape[1:], v["acceleration"], generator, centre=v["centre"])
        ),
        keys={"acceleration": number(4.0, low=1.0, high=64.0), "centre": number(0.08, high=1.0)},
        help="columns of the Fourier transform, as of one coil; centre as a share of them",
    ),
    "sr2": _super_resolution(2),
    "sr4": _super_resolution(4),
    "sr8": _super_resolution(8),
    "gaussian_blur": TaskKind(
        build=_gaussian,
        keys={"sigma": number(1.5, high=50.0, above=True), "boundary": _BOUNDARY},
        help="Gaussian blur, sigma in pixels, cut off at four of them",
    ),
    "motion_blur": TaskKind(
        build=_motion,
        keys={"size": odd(15), "intensity": number(0.5, high=1.0), "boundary": _BOUNDARY},
        help="a random camera shake, size of its kernel in pixels",
    ),
    "nonlinear_blur": TaskKind(
        build=lambda shape, generator, v: NonlinearBlur.camera(
            shape, generator, kernel_size=v["size"], intensity=v["intensity"]
        ),
        keys={"size": odd(11), "intensity": number(0.5, high=1.0)},
        help="a shake that varies over the picture, in linear light, with saturation",
    ),
    "colorization": TaskKind(
        build=lambda shape, _, v: Colorization(shape, v["weights"]),
        keys={"weights": choice("mean", "mean", "luma")},
        help="one grey channel",
    ),
    "compressed_sensing": TaskKind(
        build=_sensing,
        keys={"ratio": number(0.25, high=1.0, above=True)},
        help="random Hadamard or cosine coefficients, ratio of the number of pixels",
    ),
    "hdr": TaskKind(
        build=lambda shape, _, v: HDR(shape, v["gain"]),
        keys={"gain": number(2.0, high=1000.0, above=True)},
        help="over-exposed by gain and clipped",
    ),
    "quantisation": TaskKind(
        build=lambda shape, _, v: Quantisation(shape, v["bits"]),
        keys={"bits": whole(2, 1, 16)},
        noise=0.0,
        help="few grey levels",
    ),
    "jpeg": TaskKind(
        build=lambda shape, _, v: JPEG(shape, v["quality"]),
        keys={"quality": whole(10, 1, 100)},
        noise=0.0,
        help="JPEG compression",
    ),
    "phase_retrieval": TaskKind(
        build=_phase,
        keys={"oversample": number(2.0, high=8.0)},
        help="magnitudes of the oversampled Fourier transform",
    ),
}
"""Every task of its own name."""
