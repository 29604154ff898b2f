"""Writing results as derived CT series."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from torch import Tensor

from deft_ct.ct.volume import Volume
from deft_ct.io.deidentify import NO_DATE, deidentified
from deft_ct.io.dicom_derive import (
    CT_NUMBERS,
    DERIVATION,
    IMPLEMENTATION_PREFIX,
    SIMULATED,
    SPREAD,
    Derivation,
    PixelFormat,
    derived_image,
    hashed_uid,
    random_uid,
)
from deft_ct.io.dicom_files import DicomSeriesError
from deft_ct.io.dicom_frames import slice_uid
from deft_ct.io.dicom_parametric_map import require_highdicom, save_parametric_map
from deft_ct.io.dicom_valid import is_valid_uid
from deft_ct.io.parsing import parsing
from deft_ct.io.series import Series
from deft_ct.runtime.atomic import atomic_folder, check_writable
from deft_ct.runtime.printable import printable

logger = logging.getLogger(__name__)

UidKind = Literal["hash", "random"]
SERIES_NUMBER_OFFSET = 1000


@runtime_checkable
class HasMean(Protocol):
    """A reconstruction: posterior mean and spread in 1/mm, (Z, 1, H, W)."""

    @property
    def mean(self) -> Tensor:
        """Posterior mean."""

    @property
    def std(self) -> Tensor | None:
        """Standard deviation of the posterior samples; None for a single one."""


@dataclass(frozen=True)
class WrittenSeries:
    """What was written.

    Attributes:
        mean: files of the image series, in slice order.
        spread: files of the series of the standard deviation; empty without one.
        parametric_map: the standard deviation as a DICOM Parametric Map, if asked for.
    """

    mean: tuple[Path, ...]
    spread: tuple[Path, ...] = ()
    parametric_map: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DicomOptions:
    """How a derived series is written.

    Args:
        uids: "hash" derives UIDs from the source UIDs, the pixels and the texts, so that the same result has the same
            UIDs again; "random" makes new ones.
        series_number_offset: added to the SeriesNumber of the source (one more for the spread).
        parametric_map: also write the spread as ``folder/spread_parametric_map.dcm``; needs the extra
            ``parametric-map``.
        created: date and time of the new images. None: the time of writing, or a dummy with ``deidentify``.
        deidentify: drop or replace what identifies the patient in every derived object, by the Basic Application Level
            Confidentiality Profile of DICOM PS3.15; needs the extra ``deidentify``. UIDs are then new each time.
        allow_burned_in: de-identify images, too, that are known to show text (BurnedInAnnotation YES).
        process: how the images came about, the start of the DerivationDescription.
        comment: what the ImageComments say after the warning.
        format: how the values of the image series are stored.

    Raises:
        ValueError: ``uids`` is unknown.
    """

    uids: UidKind = "hash"
    series_number_offset: int = SERIES_NUMBER_OFFSET
    parametric_map: bool = False
    created: datetime | None = None
    deidentify: bool = False
    allow_burned_in: bool = False
    process: str = DERIVATION
    comment: str = SIMULATED
    format: PixelFormat = CT_NUMBERS

    def __post_init__(self) -> None:
        if self.uids not in ("hash", "random"):
            raise ValueError(f"uids must be 'hash' or 'random', got {self.uids!r}")


def write_dicom_series(
    result: HasMean | Volume | NDArray[Any] | Tensor,
    *,
    like: Series,
    folder: str | Path,
    description: str = "Sparse-view reconstruction",
    details: str = "",
    overwrite: bool = False,
    options: DicomOptions | None = None,
) -> WrittenSeries:
    r"""Write a derived DICOM series: new UIDs, the patient, study, frame of reference and geometry of ``like``.

    CT numbers are stored as unsigned 16 bits with slope 1 and intercept -1024 (rounded to 1 HU; below -1024 HU they are
    clipped), the spread as 16 bits with slope 0.1. Every image says ``DERIVED\SECONDARY``, names its source image and
    that it is research only. The folder appears when all files are complete, or not at all.

    Args:
        result: a reconstruction in 1/mm, or CT numbers in HU of shape (Z, H, W) or (Z, 1, H, W). CT numbers are written
            to ``folder`` itself. A reconstruction is written to ``folder/mean`` and, if it has a spread,
            ``folder/spread``.
        like: the series that it was made from, at the same size: ``series.resampled(2)`` for a result at half size.
        folder: where to write; must be new or empty, and lie apart from the source.
        description: method and views, for the SeriesDescription.
        details: geometry, noise, seed and hashes, for the DerivationDescription and the contributing equipment.
        overwrite: replace a folder that holds nothing but earlier output of this program.
        options: UIDs, series number, Parametric Map and date; the defaults when None.

    Returns:
        The files.

    Raises:
        ImportError: a package is missing that a Parametric Map or de-identification needs; the message names the extra.
        ReadError: a header of ``like`` cannot be inherited from, see :func:`check_derivable`.
        ValueError: wrong shape, values that are not finite, no spread for a Parametric Map, or a folder that overlaps
            the source.
        FileExistsError: the folder is not empty.
        PermissionError: it cannot be written.
    """
    options = options or DicomOptions()
    mean, spread, nested = _hu_of(result, like)
    if options.parametric_map and spread is None:
        raise ValueError("parametric_map needs a result with a spread: draw more than one sample")
    target = check_writable(folder, overwrite=overwrite, source=like.source)
    like = check_derivable(like, options)
    number = _series_number(like, options)
    base = Derivation(
        description, details, "", options.format, "", number, _frame_of_reference(like), _created(options),
        options.process, options.comment,
    )  # fmt: skip
    map_path = None
    with atomic_folder(target, overwrite=overwrite, is_own=is_own_output) as work:
        mean_names = _write_series(work, "mean" if nested else "", mean, like, base, options.uids)
        spread_names: list[str] = []
        if spread is not None:
            about = replace(
                base,
                description=f"Std {description}",
                kind="POSTERIOR_STD",
                format=SPREAD,
                series_number=number + 1,
            )
            spread_names = _write_series(work, "spread", spread, like, about, options.uids)
            if options.parametric_map:
                map_path = target / "spread_parametric_map.dcm"
                uid_of = (lambda *_: random_uid()) if options.uids == "random" else hashed_uid
                about = replace(about, series_number=number + 2)
                save_parametric_map(work / map_path.name, spread, like.headers, about, uid_of)
    return WrittenSeries(
        tuple(target / name for name in mean_names), tuple(target / name for name in spread_names), map_path
    )


def check_derivable(like: Series, options: DicomOptions | None = None) -> Series:
    """Check that every header can be inherited from, for example before a long reconstruction.

    Each derived image is made and encoded with a single pixel.

    Returns:
        The series that is inherited from: ``like``, de-identified if ``options`` say so.

    Raises:
        ImportError: a package is missing that ``options`` need; the message names the extra.
        ReadError: a SeriesNumber that is no whole number, an attribute that cannot be written, or text in images that
            are to be de-identified; it names the file.
    """
    options = options or DicomOptions()
    if options.parametric_map:
        require_highdicom()
    number, uid = _series_number(like, options), random_uid()
    if options.deidentify:
        like = deidentified(like, allow_burned_in=options.allow_burned_in)
    about = Derivation("check", "", "", CT_NUMBERS, uid, number, _frame_of_reference(like), _created(options))
    for header in like.headers:
        with parsing(like.file_of(header), "the source of a derived series"):
            image = derived_image(header, np.zeros((1, 1), np.uint16), about, number=1, uid=uid)
            image.save_as(io.BytesIO(), enforce_file_format=True)
    return like


def _created(options: DicomOptions) -> datetime:
    return options.created or (NO_DATE if options.deidentify else datetime.now())


def _series_number(like: Series, options: DicomOptions) -> int:
    value = like.headers[0].get("SeriesNumber")
    try:
        number = int(0 if value in (None, "") else value) + options.series_number_offset
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or abs(number) + 2 >= 2**31:
        raise DicomSeriesError(
            like.file_of(like.headers[0]),
            f"SeriesNumber is {printable(value)!r}; expected a whole number, from which that of the derived series "
            "follows: correct it or delete it",
        )
    return number


def is_own_output(path: Path) -> bool:
    """Whether a file is DICOM that this program wrote (by its ImplementationVersionName)."""
    try:
        meta = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).file_meta
    except (InvalidDicomError, OSError):
        return False
    return str(meta.get("ImplementationVersionName", "")).startswith(IMPLEMENTATION_PREFIX)


def _hu_of(
    result: HasMean | Volume | NDArray[Any] | Tensor, like: Series
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, bool]:
    # Arrays and tensors have methods called mean and std: they must be told apart first.
    if isinstance(result, Volume):
        return _stack(result.hu, like, "result"), None, False
    if isinstance(result, np.ndarray | Tensor):
        return _stack(result, like, "result"), None, False
    if not isinstance(result, HasMean):
        raise TypeError(f"expected a reconstruction, a Volume or CT numbers in HU, got {type(result).__name__}")
    mean = _stack(like.units.to_hu(result.mean), like, "mean")
    if result.std is None:
        return mean, None, True
    spread = _stack(result.std / like.units.scale, like, "std")
    if (spread < 0).any():
        raise ValueError("std holds negative values")
    return mean, spread, True


def _stack(values: NDArray[Any] | Tensor, like: Series, name: str) -> NDArray[np.float32]:
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float32)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != like.volume.shape:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}, the series like= has {like.volume.shape} (Z, H, W); for a result "
            "at half size pass like=series.resampled(2)"
        )
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite; nothing was written"
        )
    return array


def _frame_of_reference(like: Series) -> str:
    first = str(like.headers[0].get("FrameOfReferenceUID", "") or "")
    return first if is_valid_uid(first) else hashed_uid("frame of reference", like.series_uid)


def _write_series(
    work: Path, sub: str, hu: NDArray[np.float32], like: Series, about: Derivation, uids: UidKind
) -> list[str]:
    """Write one series to ``work/sub``; returns the file names relative to ``work``."""
    (work / sub).mkdir(exist_ok=True)
    stored = about.format.encode(hu)
    _report_clipping(hu, about.format)
    texts = (about.description, about.details, about.kind)
    if uids == "hash":
        series_uid = hashed_uid("series", like.series_uid, *texts, *like.slice_uids, stored.tobytes())
    else:
        series_uid = random_uid()
    about = replace(about, series_uid=series_uid)
    names = []
    for n, (header, pixels) in enumerate(zip(like.headers, stored, strict=True), start=1):
        uid = hashed_uid("instance", series_uid, slice_uid(header)) if uids == "hash" else random_uid()
        name = str(Path(sub) / f"{n:04d}.dcm")
        _save(derived_image(header, pixels, about, number=n, uid=uid), work / name)
        names.append(name)
    return names


def _report_clipping(hu: NDArray[np.float32], form: PixelFormat) -> None:
    low, high = form.intercept, form.intercept + 65535 * form.slope
    outside = int(((hu < low - form.slope) | (hu > high + form.slope)).sum())
    if outside:
        logger.info("%d of %d values outside %g..%g HU were clipped in the DICOM output", outside, hu.size, low, high)


def _save(image: Dataset, path: Path) -> None:
    content = io.BytesIO()  # pydicom puts a traceback into the message of an error of the disk
    image.save_as(content, enforce_file_format=True)
    path.write_bytes(content.getbuffer())
