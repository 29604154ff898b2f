"""Degradations of photographs by name: ``NAME[:key=value,...]``, for example ``sr4`` or ``gaussian_blur:sigma=2``.

``CONVENTION/TASK`` is a published problem under its own parameters, for example ``dps/sr4``; see
:mod:`deft_ct.operators.image.conventions`. All operators work on images in [-1, 1], and noise levels are given in that
range. Sizes are in pixels of the image at hand.
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
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise
from deft_ct.runtime.seeds import generator_for

__all__ = ["TASKS", "NaturalTask", "TaskKey", "TaskKind", "parse_task", "task_list"]

Values = Mapping[str, Any]
Build = Callable[[ImageShape, torch.Generator, Values], Operator]

NOISE = 0.05
"""Standard deviation of the Gaussian noise where none is given, on images in [-1, 1]: that of DPS and DAPS."""


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """A parameter of a task.

    Args:
        read: its value from text; raises ``ValueError`` for text that is none.
        default: its value where none is given.
        expects: what is expected, for error messages and help.
    """

    read: Callable[[str], Any]
    default: Any
    expects: str


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
        noise: standard deviation of the Gaussian noise; 0 for none, None for that of the convention.
    """

    name: str
    given: tuple[tuple[str, str], ...]
    values: Values
    noise: float | None

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
        except ValueError as error:
            raise ValueError(f"{self.text}: {error}") from error
        if self.noise is None:
            return operator, own
        return operator, GaussianNoise(self.noise) if self.noise else NoNoise()


def parse_task(text: str) -> NaturalTask:
    """A task from its text.

    Args:
        text: ``NAME[:key=value,...]`` with a name of :data:`TASKS`, or ``CONVENTION/TASK[:noise=SIGMA]`` with a task of
            :func:`~deft_ct.operators.image.conventions.presets`. Dashes and underscores are the same.

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
    keys = {"noise": _NOISE} if kind is None else {**kind.keys, "noise": _NOISE}
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
    noise = values.pop("noise", None if kind is None else kind.noise)
    filled = {} if kind is None else {key: values.get(key, entry.default) for key, entry in kind.keys.items()}
    ordered = tuple((key, given[key]) for key in keys if key in given)
    return NaturalTask(name=name, given=ordered, values=filled, noise=noise)


def task_list() -> list[str]:
    """Every task with its keys and their defaults, for example ``"jpeg[:quality=10]"``."""
    return [
        name + (f"[:{','.join(f'{key}={_shown(e.default)}' for key, e in kind.keys.items())}]" if kind.keys else "")
        for name, kind in TASKS.items()
    ]


def _published(convention: str, task: str) -> str:
    table = presets()
    convention = {name.replace("-", ""): name for name in table}.get(convention.replace("-", ""), convention)
    if convention not in table:
        raise ValueError(f"unknown convention {convention!r}; known are {', '.join(table)}")
    task = task.replace("_", "-")
    if task not in table[convention]:
        raise ValueError(f"{convention} has no task {task!r}; it has {', '.join(table[convention])}")
    return f"{convention}/{task}"


def _read(name: str, key: str, entry: TaskKey, value: str) -> Any:
    try:
        return entry.read(value)
    except ValueError:
        raise ValueError(f"{name}: {key} must be {entry.expects}, got {value!r}") from None


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(default: float, *, low: float = 0.0, high: float = float("inf"), above: bool = False) -> TaskKey:
    """A number from ``low`` (or ``above`` it) to ``high``."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high or (above and value == low):  # also NaN
            raise ValueError(text)
        return value

    words = f"a number {'above' if above else 'from'} {low:g}" + (f" to {high:g}" if high < float("inf") else "")
    return TaskKey(read=read, default=default, expects=f"({words})")


def _whole(default: int, low: int, high: int) -> TaskKey:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return TaskKey(read=read, default=default, expects=f"(a whole number from {low} to {high})")


def _odd(default: int) -> TaskKey:
    def read(text: str) -> int:
        value = int(text)
        if not 1 <= value <= 511 or value % 2 == 0:
            raise ValueError(text)
        return value

    return TaskKey(read=read, default=default, expects="(an odd number from 1 to 511)")


def _choice(default: str, *allowed: str) -> TaskKey:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return TaskKey(read=read, default=default, expects=f"({' | '.join(allowed)})")


_NOISE = _number(NOISE, high=10.0)
_BOUNDARY = _choice("reflect", *get_args(Boundary))
_KERNEL = _choice("average", "average", "bicubic")


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
        keys={"size": _number(0.5, high=1.0, above=True), "place": _choice("centre", "centre", "random")},
        help="a missing box, size as a share of each side",
    ),
    "inpaint_random": TaskKind(
        build=lambda shape, generator, v: Inpainting(shape, random_mask(shape[1:], v["missing"], generator)),
        keys={"missing": _number(0.7, high=1.0)},
        help="pixels missing at random",
    ),
    "inpaint_freeform": TaskKind(
        build=_freeform,
        keys={"low": _number(0.2, high=1.0), "high": _number(0.3, high=1.0)},
        help="missing brush strokes, from low to high of the pixels",
    ),
    "inpaint_half": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, half_mask(shape[1:], v["side"])),
        keys={"side": _choice("right", "left", "right", "top", "bottom")},
        help="one half missing",
    ),
    "inpaint_expand": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, expand_mask(shape[1:], v["kept"])),
        keys={"kept": _number(0.25, high=1.0, above=True)},
        help="all but a central box missing, kept as a share of each side",
    ),
    "inpaint_lattice": TaskKind(
        build=lambda shape, _, v: Inpainting(shape, lattice_mask(shape[1:], v["rows"], v["columns"])),
        keys={"rows": _whole(2, 1, 64), "columns": _whole(2, 1, 64)},
        help="all but every so many rows and columns missing",
    ),
    "mri": TaskKind(
        build=lambda shape, generator, v: MaskedFourier(
            shape, cartesian_mask(shape[1:], v["acceleration"], generator, centre=v["centre"])
        ),
        keys={"acceleration": _number(4.0, low=1.0, high=64.0), "centre": _number(0.08, high=1.0)},
        help="columns of the Fourier transform, as of one coil; centre as a share of them",
    ),
    "sr2": _super_resolution(2),
    "sr4": _super_resolution(4),
    "sr8": _super_resolution(8),
    "gaussian_blur": TaskKind(
        build=_gaussian,
        keys={"sigma": _number(1.5, high=50.0, above=True), "boundary": _BOUNDARY},
        help="Gaussian blur, sigma in pixels, cut off at four of them",
    ),
    "motion_blur": TaskKind(
        build=_motion,
        keys={"size": _odd(15), "intensity": _number(0.5, high=1.0), "boundary": _BOUNDARY},
        help="a random camera shake, size of its kernel in pixels",
    ),
    "nonlinear_blur": TaskKind(
        build=lambda shape, generator, v: NonlinearBlur.camera(
            shape, generator, kernel_size=v["size"], intensity=v["intensity"]
        ),
        keys={"size": _odd(11), "intensity": _number(0.5, high=1.0)},
        help="a shake that varies over the picture, in linear light, with saturation",
    ),
    "colorization": TaskKind(
        build=lambda shape, _, v: Colorization(shape, v["weights"]),
        keys={"weights": _choice("mean", "mean", "luma")},
        help="one grey channel",
    ),
    "compressed_sensing": TaskKind(
        build=_sensing,
        keys={"ratio": _number(0.25, high=1.0, above=True)},
        help="random Hadamard or cosine coefficients, ratio of the number of pixels",
    ),
    "hdr": TaskKind(
        build=lambda shape, _, v: HDR(shape, v["gain"]),
        keys={"gain": _number(2.0, high=1000.0, above=True)},
        help="over-exposed by gain and clipped",
    ),
    "quantisation": TaskKind(
        build=lambda shape, _, v: Quantisation(shape, v["bits"]),
        keys={"bits": _whole(2, 1, 16)},
        noise=0.0,
        help="few grey levels",
    ),
    "jpeg": TaskKind(
        build=lambda shape, _, v: JPEG(shape, v["quality"]),
        keys={"quality": _whole(10, 1, 100)},
        noise=0.0,
        help="JPEG compression",
    ),
    "phase_retrieval": TaskKind(
        build=_phase,
        keys={"oversample": _number(2.0, high=8.0)},
        help="magnitudes of the oversampled Fourier transform",
    ),
}
"""Every task of its own name."""
