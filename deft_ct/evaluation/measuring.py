"""One batch of images with one method: numbers for each image, also where the method fails."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deft_ct.evaluation.problem import COVERAGE, Batch, Floats, Problem
from deft_ct.evaluation.score import estimate_of
from deft_ct.reconstruction import Reconstruction
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.memory import peak_memory
from deft_ct.runtime.plain_values import plain
from deft_ct.runtime.printable import printable

OUT_OF_MEMORY = "out of memory"
"""How the reason of a failure begins that a later run, or another machine, may not have."""

NOT_APPLICABLE = "not applicable: "
"""How the reason begins if a method cannot be used with the measurement, see ``UnsupportedError``."""

_FORESEEN = (ValueError, OSError, ImportError, FloatingPointError)
_MOST_CHARACTERS = 1000
_OF_THE_BATCH = frozenset({
    "seconds_per_image", "network_evaluations_per_image", "data_residual", "images", "warnings",
})  # fmt: skip
"""Parts of the provenance that are numbers of their own here, or that depend on the other images of the batch."""


@dataclass(frozen=True, kw_only=True)
class MeasuredImage:
    """A method on one image.

    Attributes:
        values: name of each metric -> value, NaN where it is undefined; empty if the method failed.
        reason: why the method failed; empty if it did not.
        seconds: wall-clock time: that of the batch divided by its images.
        evaluations: network evaluations.
        data_residual: ``|y - A(x)| / |y|`` of this image.
        note: warnings of the method, for example of a fallback.
        provenance: configuration, hashes, versions, and what the method records of the batch; nothing if it failed.
        estimate: the reconstruction, in the layout of the problem; None if the method failed.
    """

    values: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float | None = None
    evaluations: float | None = None
    data_residual: float | None = None
    note: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    estimate: Floats | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Outcome:
    """What became of one call of a method."""

    result: Reconstruction | None
    error: Exception | None
    note: str


def measure_part(
    part: Problem, reconstructor: Reconstructor, *, samples: int, progress: bool = False
) -> list[MeasuredImage]:
    """Reconstruct and judge one batch; a failure gives rows with its reason.

    If the method diverges, every image is tried on its own, so that one image does not take its neighbours along: the
    result of an image does not depend on the rest of the batch.

    Args:
        part: a problem of one batch, see ``Problem.one_batch``.
        reconstructor: the method.
        samples: posterior samples of each image, for methods that draw them.
        progress: show progress bars.
    """
    (batch,) = part.batches
    options = {"num_samples": samples, "seed": part.seed, "progress": progress}
    count = len(batch.image_ids)
    pieces, outcomes = [slice(0, count)], [_attempt(batch, reconstructor, options)]
    if isinstance(outcomes[0].error, FloatingPointError) and count > 1:
        pieces = [slice(n, n + 1) for n in range(count)]
        outcomes = [_attempt(_piece(batch, piece), reconstructor, options) for piece in pieces]
    values, images = _judged(part, pieces, outcomes)
    found: list[MeasuredImage] = []
    for piece, outcome in zip(pieces, outcomes, strict=True):
        numbers = range(piece.start, piece.stop)
        if outcome.result is None:
            found += [MeasuredImage(reason=_reason(outcome.error), note=outcome.note)] * len(numbers)
            continue
        record = outcome.result.provenance
        residuals = _residuals(_piece(batch, piece), outcome.result)
        found += [
            MeasuredImage(
                values={name: float(column[n]) for name, column in values.items()},
                seconds=float(record["seconds_per_image"]),
                evaluations=float(record["network_evaluations_per_image"]),
                data_residual=residual, note=outcome.note,
                provenance={name: plain(value) for name, value in record.items() if name not in _OF_THE_BATCH},
                estimate=images[n],
            )
            for n, residual in zip(numbers, residuals, strict=True)
        ]  # fmt: skip
    return found


def memory_of_one_image(part: Problem, reconstructor: Reconstructor, *, samples: int) -> float | None:
    """Peak memory of the first image alone in MiB; None if the method fails.

    What a method sets up once is thus not part of the times that are taken afterwards.
    """
    (batch,) = part.batches
    with peak_memory(part.device) as peak:
        outcome = _attempt(_piece(batch, slice(0, 1)), reconstructor, {"num_samples": samples, "seed": part.seed})
    return None if outcome.result is None else peak.mib


def _attempt(batch: Batch, reconstructor: Reconstructor, options: dict[str, Any]) -> _Outcome:
    y, measurement, image_ids = batch
    with _noted() as notes:
        try:
            result = reconstructor.reconstruct(y, measurement, image_ids=image_ids, **options)
        except Exception as error:  # noqa: BLE001  # one method must not end the benchmark; the row says why
            return _Outcome(None, error, "; ".join(notes))
    return _Outcome(result, None, "; ".join(notes))


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """Collect the warnings that are meant for users; others go where they would have gone."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield notes
        finally:
            said = [printable(item.message, _MOST_CHARACTERS) for item in caught if _for_users(item)]
            notes[:] = list(dict.fromkeys(said))
    for item in caught:
        if not _for_users(item):
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)


def _for_users(item: warnings.WarningMessage) -> bool:
    return issubclass(item.category, UserWarning)


def _piece(batch: Batch, piece: slice) -> Batch:
    return Batch(batch.y[piece], batch.measurement[piece], batch.image_ids[piece])


def _judged(part: Problem, pieces: list[slice], outcomes: list[_Outcome]) -> tuple[dict[str, Floats], Floats]:
    """Name of each metric -> values of all images, and the images; those of failed ones mean nothing."""
    images, covered = part.truth.copy(), np.full(len(part.truth), np.nan)
    for piece, outcome in zip(pieces, outcomes, strict=True):
        if outcome.result is not None:
            images[piece], _, covered[piece] = estimate_of(part, piece, outcome.result)
    if all(outcome.result is None for outcome in outcomes):
        return {}, images
    return {**part.measure(images), COVERAGE.name: covered}, images


def _residuals(batch: Batch, result: Reconstruction) -> list[float]:
    """``|y - A(x)| / |y|`` of each image."""
    with torch.no_grad():
        difference = batch.y - batch.measurement.noise.mean(batch.measurement.operator(result.mean))
        size = batch.y.flatten(1).norm(dim=1).clamp_min(torch.finfo(batch.y.dtype).tiny)
        found: list[float] = (difference.flatten(1).norm(dim=1) / size).tolist()
    return found


def _reason(error: Exception | None) -> str:
    message = printable(error, _MOST_CHARACTERS)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in message for words in ("out of memory", "allocate memory"))
    ):
        return f"{OUT_OF_MEMORY}: {message}" if message else OUT_OF_MEMORY
    if isinstance(error, UnsupportedError):
        return f"{NOT_APPLICABLE}{message}"
    return message if message and isinstance(error, _FORESEEN) else f"{type(error).__name__}: {message}"
