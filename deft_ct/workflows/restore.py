"""Restore a photograph: simulate a degradation of a picture file, or take a degraded one, and reconstruct it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deft_ct.io.photographs import Photograph, read_kernel, read_mask, read_photograph
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.presets import shipped_presets
from deft_ct.methods.registry import NetworkChoice, method_class
from deft_ct.operators.base import Operator
from deft_ct.operators.image.blur import Blur
from deft_ct.operators.image.conventions import ImageShape
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.noise import GaussianNoise, NoiseModel
from deft_ct.problems.natural_by_name import NaturalTask, parse_task
from deft_ct.problems.natural_pictures import data_pictures
from deft_ct.problems.task_keys import NOISE, gaussian_noise
from deft_ct.reconstructor import PriorReconstructor, Reconstructor
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_fields
from deft_ct.workflows.natural_networks import NaturalNetworks
from deft_ct.workflows.restore_output import RestoredPhotograph, reserve_output, write_restored

_MULTIPLES = (1, 2, 4, 8, 16)
_SCALES = (1, 2, 3, 4, 8)


@dataclass(frozen=True, kw_only=True)
class RestoreSettings(NetworkChoice):
    """The degradation and the method.

    Args:
        operator: the degradation by name, see :func:`~deft_ct.problems.natural_by_name.parse_task`; None with a mask
            or a kernel.
        measured: whether the picture is degraded already; otherwise the degradation is simulated.
        mask: picture of the observed pixels, white, and the missing ones, black.
        kernel: picture or ``.npy`` file of a blur kernel.
        noise: standard deviation of the noise on images in [-1, 1], 0 for none; that of the operator when None.
        method: a name of :func:`deft_ct.methods.registry.methods`.
        options: fields of its configuration.
        samples: posterior samples, of which the mean is written.
        seed: of masks, kernels, noise and sampling.

    Raises:
        ValueError: a value is out of range, or a name is unknown.
    """

    operator: str | None = None
    measured: bool = False
    mask: str | None = None
    kernel: str | None = None
    noise: float | None = None
    method: str = "deft"
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        method_class(self.method)
        if self.samples < 0:
            raise ValueError(f"samples must be at least 0, got {self.samples}")
        if self.noise is not None and not 0 <= self.noise <= 10:
            raise ValueError(f"noise must be from 0 to 10 on images in [-1, 1], got {self.noise}")
        given = [name for name in ("operator", "mask", "kernel") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise ValueError(f"say the degradation once, by --operator, --mask or --kernel; got {found}")
        _ = self.task
        check_device(self.device)

    @property
    def task(self) -> NaturalTask | None:
        """The degradation by name; None with a mask or a kernel."""
        return None if self.operator is None else parse_task(self.operator)

    @property
    def label(self) -> str:
        """Of the degradation; presets and h-transforms are found by it."""
        task = self.task
        return task.label if task is not None else "inpaint" if self.mask is not None else "blur"


def restore_photograph(
    source: str | Path, out: str | Path, settings: RestoreSettings, *, overwrite: bool = False, progress: bool = False
) -> RestoredPhotograph:
    """Restore a picture file and write the result.

    A colour picture is restored channel by channel by a prior of grey images. A grey picture is restored as three
    equal channels by a prior of colour images, and their mean is written. A picture whose sides do not suit the
    degradation is continued by its edge, to the right and below, and cropped afterwards. A picture that is larger than
    the training images of the prior is denoised in overlapping tiles, see
    :class:`~deft_ct.networks.tiles.TiledNetwork`.

    Args:
        source: the picture: the true one, or the degraded one with ``settings.measured``.
        out: a new or empty folder, or a picture file ``NAME.png``; see
            :func:`~deft_ct.workflows.restore_output.write_restored`.
        settings: degradation and method.
        overwrite: replace an earlier result.
        progress: show progress bars.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: the picture, the mask, the kernel or a network is not there.
        ReadError: a file is damaged or of another kind.
        ValueError: picture and degradation do not fit, or the method cannot be used with it.
        FileExistsError: there is something in the way of the output.
        WriteError: a file cannot be written.
    """
    for name in ("mask", "kernel"):
        path = getattr(settings, name)
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"no such {name}: {path}")
    with reserve_output(out, overwrite=overwrite, source=source) as target:
        method = _build(settings)
        photograph = read_photograph(source)
        case = (
            _measured(photograph, settings, method) if settings.measured else _simulated(photograph, settings, method)
        )
        result = method.reconstruct(
            case.y, case.measurement, num_samples=settings.samples, seed=settings.seed,
            image_ids=_names(len(case.y)), progress=progress,
        )  # fmt: skip
        restored = RestoredPhotograph(
            source=Path(source), target=target, settings=settings, truth=None if settings.measured else photograph,
            degraded=case.degraded if case.degraded is not None else _as_picture(case, photograph.bits),
            restored=replace(photograph, pixels=case.back(result.mean.cpu())), result=result,
            notes=(*photograph.notes, *case.notes),
        )  # fmt: skip
        write_restored(restored, overwrite=overwrite)
    return restored


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Data and how a result becomes a picture again.

    Attributes:
        y: ``(B, *range_shape)``.
        measurement: of images ``(C, H, W)``, padded.
        size: ``(H, W)`` of the picture.
        grey: whether the picture has one channel and the images three equal ones.
        degraded: the degraded picture, where it was given.
        notes: what was done to the picture.
    """

    y: Tensor
    measurement: Measurement
    size: tuple[int, int]
    grey: bool
    degraded: Photograph | None = None
    notes: tuple[str, ...] = ()

    def back(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` as the pixels of one picture."""
        height, width = self.size
        pixels = images.flatten(0, 1)[:, :height, :width]
        return pixels.mean(0, keepdim=True) if self.grey else pixels


def _build(settings: RestoreSettings) -> Reconstructor:
    """The method with its networks, at its preset for the task."""
    networks = NaturalNetworks(settings)
    networks.check(settings.method)
    of_task = networks.for_task(settings.label)
    of_task.load_named()
    preset = settings.label if settings.label in shipped_presets(settings.method) else None
    return of_task.build(settings.method, settings.options, preset=preset)


def _divisions(picture: int, method: Reconstructor) -> list[tuple[int, int]]:
    """Number of images and channels of each that a picture of some channels may be reconstructed as."""
    if not isinstance(method, PriorReconstructor):
        return [(1, picture), (1, 3)]
    return list(dict.fromkeys([(1, method.prior.channels), (picture, method.prior.channels)]))


def _names(count: int) -> list[str]:
    """The noise of each image is its own."""
    return [f"channel {n}" for n in range(count)]


def _simulated(photograph: Photograph, settings: RestoreSettings, method: Reconstructor) -> _Case:
    """The degradation of a true picture."""
    picture, height, width = photograph.shape
    count, channels = next((n, c) for n, c in _divisions(picture, method) if n * c == picture or picture == 1)
    grey = channels > picture
    x = photograph.pixels.expand(count * channels, -1, -1).reshape(count, channels, height, width)
    measurement = _fitting(settings, (channels, height, width)).to(settings.device)
    size = measurement.operator.domain_shape[-2:]
    y = measurement.simulate(
        _continued(x, size).to(settings.device), seed=settings.seed, image_ids=_names(count)
    )  # fmt: skip
    notes = () if size == (height, width) else (f"continued to {size[0]} x {size[1]} pixels, and cropped afterwards",)
    return _Case(y=y, measurement=measurement, size=(height, width), grey=grey, notes=notes)


def _measured(photograph: Photograph, settings: RestoreSettings, method: Reconstructor) -> _Case:
    """A degraded picture as data."""
    picture, height, width = photograph.shape
    for scale, (count, channels) in product(_SCALES, _divisions(picture, method)):
        try:
            operator, noise = _operator(settings, (channels, scale * height, scale * width))
        except ValueError:
            if scale == 1 and settings.task is None:
                raise  # of a mask or a kernel
            continue
        wanted = operator.range_shape
        if len(wanted) != 3 or wanted[1:] != (height, width):
            continue
        grey = picture == count == 1 and wanted[0] == channels == 3
        if not grey and count * wanted[0] != picture:
            continue
        _refuse_unknown(settings, operator)
        y = photograph.pixels.expand(3 if grey else picture, -1, -1).reshape(count, *wanted)
        y = operator(y) if isinstance(operator, Inpainting) else y  # whatever stands at missing pixels
        measurement = Measurement(operator, noise).to(settings.device)
        return _Case(
            y=y.to(settings.device), measurement=measurement, size=(scale * height, scale * width), grey=grey,
            degraded=photograph,
        )  # fmt: skip
    raise ValueError(
        f"a picture of {picture} channel{'s' * (picture > 1)} and {height} x {width} pixels cannot be the data of "
        f"{settings.label} for {settings.method}"
    )


def _refuse_unknown(settings: RestoreSettings, operator: Operator) -> None:
    """Refuse a degradation whose mask or kernel is drawn by chance: that of a measured picture is another one."""
    task = settings.task
    if task is None:
        return
    other, _ = task.build(_image_shape(operator), seed=settings.seed + 1)
    probe = torch.linspace(-1, 1, 251)[torch.arange(torch.Size(operator.domain_shape).numel()) % 251]
    x = probe.reshape(1, *operator.domain_shape)
    if not torch.equal(operator(x), other(x)):
        raise ValueError(
            f"{settings.label} is drawn by chance, so its mask or kernel is not known for a measured picture: "
            "name that of the picture with --mask or --kernel"
        )


def _fitting(settings: RestoreSettings, shape: ImageShape) -> Measurement:
    """The measurement of images of the smallest size from ``shape`` on that suits the operator."""
    refused: ValueError | None = None
    for multiple in _MULTIPLES:
        channels, height, width = shape
        try:
            operator, noise = _operator(
                settings, (channels, height + -height % multiple, width + -width % multiple)
            )  # fmt: skip
        except ValueError as error:
            refused = refused or error
        else:
            return Measurement(operator, noise)
    raise refused or ValueError(f"{settings.label} suits no picture of {shape}")


def _operator(settings: RestoreSettings, shape: ImageShape) -> tuple[Operator, NoiseModel]:
    """Operator and noise; the noise of the settings goes before that of the operator."""
    operator: Operator
    task = settings.task
    noise: NoiseModel = GaussianNoise(NOISE)
    if task is not None:
        operator, noise = task.build(shape, seed=settings.seed)
    elif settings.mask is not None:
        mask = read_mask(settings.mask)
        if tuple(mask.shape[1:]) != shape[1:]:
            raise ValueError(
                f"the mask has {mask.shape[1]} x {mask.shape[2]} pixels and the picture {shape[1]} x {shape[2]}"
            )
        operator = Inpainting(shape, mask)
    else:
        operator = Blur(shape, read_kernel(str(settings.kernel)), boundary="reflect")
    if settings.noise is not None:
        noise = gaussian_noise(settings.noise)
    return operator, noise


def _image_shape(operator: Operator) -> ImageShape:
    channels, height, width = operator.domain_shape
    return channels, height, width


def _continued(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(B, C, H, W)`` with its last row and column repeated."""
    down, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return torch.nn.functional.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def _as_picture(case: _Case, bits: int) -> Photograph | None:
    """Simulated data as a picture; None where a picture of their own for each channel has not one shape."""
    pixels = data_pictures(case.y, case.measurement.operator).flatten(0, 1)
    pixels = pixels.mean(0, keepdim=True) if case.grey else pixels
    return Photograph(pixels, bits=bits) if len(pixels) in (1, 3) else None
