"""The task metric of CT: can a low-contrast lesion be found in a reconstruction?

Lesions of known contrast are inserted into slices. The scans of the slices with and without them are simulated and
reconstructed, and a channelised Hotelling observer tells the two apart; see :mod:`deft_ct.evaluation.observer`. PSNR is
known to disagree with such a task: smoothing raises the one and may remove the lesion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from deft_ct.datasets.slices import CTSlice, SliceData
from deft_ct.evaluation.observer import Detectability, detectability, laguerre_gauss_channels
from deft_ct.evaluation.problem import Floats
from deft_ct.evaluation.score import Score, score
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_metrics import uniform_tissue
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.seeds import derive_seed

__all__ = ["LesionPair", "LesionScore", "Lesions", "lesion_pair", "score_lesions"]


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Round lesions with a soft edge: a disk, blurred by a Gaussian of half a pixel.

    Args:
        contrast_hu: of the middle of a lesion against its surroundings; negative for a darker one.
        diameter_px: of the disk, in pixels.
        per_slice: at most so many in one slice, none of them near another one.
        seed: of their places.

    Raises:
        ValueError: a value is out of range.
    """

    contrast_hu: float = -20.0
    diameter_px: float = 8.0
    per_slice: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not (self.contrast_hu and self.diameter_px >= 2 and self.per_slice >= 1):
            raise ValueError(
                f"expected a contrast other than 0, a diameter of at least 2 pixels and at least 1 lesion, got {self}"
            )

    @property
    def patch_px(self) -> int:
        """Side of the patch around a lesion that the observer sees: three diameters, odd."""
        return 2 * round(1.5 * self.diameter_px) + 1

    @property
    def profile(self) -> NDArray[np.float64]:
        """``(patch_px, patch_px)`` HU, the lesion in the middle."""
        side, fine = self.patch_px, 5
        y, x = (np.indices((side * fine, side * fine)) - (side * fine - 1) / 2) / fine
        disk = (np.hypot(y, x) <= self.diameter_px / 2).astype(np.float64)
        return self.contrast_hu * ndimage.gaussian_filter(disk, 0.5 * fine).reshape(side, fine, side, fine).mean((1, 3))


@dataclass(frozen=True, kw_only=True)
class LesionPair:
    """One problem with the lesions and one without, with independent noise.

    Attributes:
        lesions: what was inserted.
        absent: the slices as they are.
        present: the slices with the lesions.
        places: ``(n, 3)``: slice, row and column of the middle of each lesion.
        patients: ``(n,)``.
    """

    lesions: Lesions
    absent: CTProblem
    present: CTProblem
    places: NDArray[np.int64]
    patients: list[str]

    def patches(self, images: Floats) -> NDArray[np.float64]:
        """``(n, patch_px, patch_px)`` around each place, of ``(N, H, W)`` images."""
        reach = self.lesions.patch_px // 2
        return np.stack([
            images[n, row - reach : row + reach + 1, column - reach : column + reach + 1].astype(np.float64)
            for n, row, column in self.places
        ])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LesionScore:
    """A method at the task.

    Attributes:
        label: name of the method.
        found: AUC and d' of the observer.
        contrast: mean over lesions of the contrast that is left, as a share of the true one.
        absent: the method on the slices without lesions.
    """

    label: str
    found: Detectability
    contrast: float
    absent: Score


def lesion_pair(problem: CTProblem, lesions: Lesions = Lesions()) -> LesionPair:
    """Insert lesions into uniform tissue of the slices of a problem.

    The places of a slice depend on (seed of the lesions, series, index) alone.

    Args:
        problem: slices and scan.
        lesions: what is inserted.

    Raises:
        ValueError: no slice has uniform tissue for a lesion.
    """
    slices = list(problem.pack)
    truth, reach = problem.truth.astype(np.float64), lesions.patch_px // 2
    calm = uniform_tissue(truth, problem.body)
    radius = int(np.ceil(lesions.diameter_px / 2)) + 1
    disk = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    places = []
    for n, item in enumerate(slices):
        free = ndimage.binary_erosion(calm[n], structure=disk)
        free[:reach], free[-reach:], free[:, :reach], free[:, -reach:] = False, False, False, False
        rng = np.random.default_rng(derive_seed(lesions.seed, "lesions", f"{item.group}/{item.index}"))
        for _ in range(lesions.per_slice):
            rows, columns = np.nonzero(free)
            if not len(rows):
                break
            k = int(rng.integers(len(rows)))
            row, column = int(rows[k]), int(columns[k])
            places.append((n, row, column))
            free[max(0, row - 2 * reach) : row + 2 * reach + 1, max(0, column - 2 * reach) : column + 2 * reach + 1] = (
                False
            )
    if not places:
        raise ValueError(
            f"no slice of {problem.data} has uniform tissue for a lesion of {lesions.diameter_px:g} pixels: use other "
            "slices or smaller lesions"
        )
    added = np.zeros_like(truth)
    for n, row, column in places:
        added[n, row - reach : row + reach + 1, column - reach : column + reach + 1] += lesions.profile
    changed = _WithLesions(problem.pack, [item.hu + torch.from_numpy(more).float() for item, more in
                                          zip(slices, added, strict=True)], lesions)  # fmt: skip
    present = replace(problem, pack=cast(SliceData, changed), seed=derive_seed(problem.seed, "lesions"))
    patients = problem.patients
    return LesionPair(
        lesions=lesions, absent=problem, present=present, places=np.array(places, dtype=np.int64),
        patients=[patients[n] for n, _, _ in places],
    )  # fmt: skip


def score_lesions(
    label: str, reconstructor: Reconstructor, pair: LesionPair, *, samples: int = 4, channels: int = 5
) -> LesionScore:
    """Reconstruct both problems of a pair and let the observer tell the lesions.

    Args:
        label: name of the method.
        reconstructor: the method.
        pair: see :func:`lesion_pair`.
        samples: posterior samples of each image, for methods that draw them.
        channels: number of Laguerre-Gauss channels.

    Raises:
        ValueError: there are too few lesions for so many channels.
    """
    absent, present = (score(label, reconstructor, problem, samples=samples) for problem in (pair.absent, pair.present))
    bank = laguerre_gauss_channels(pair.lesions.patch_px, width_px=pair.lesions.diameter_px, count=channels)
    without, with_lesions = pair.patches(absent.estimate), pair.patches(present.estimate)
    profile = pair.lesions.profile
    left = ((with_lesions - without) * profile).sum((1, 2)).mean() / (profile**2).sum()
    found = detectability(without, with_lesions, bank, patients=pair.patients)
    return LesionScore(label=label, found=found, contrast=float(left), absent=absent)


class _WithLesions:
    """Slices of a data set with other CT numbers; the rest is as in the data set."""

    def __init__(self, slices: Any, images: list[torch.Tensor], lesions: Lesions) -> None:
        self._slices, self._images, self._lesions = slices, images, lesions

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._slices, name)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, n: int) -> CTSlice:
        return replace(self._slices[n], hu=self._images[n])

    def __iter__(self) -> Iterator[CTSlice]:
        return (self[n] for n in range(len(self)))

    def content_hash(self) -> str:
        return content_digest([self._slices.content_hash(), self._lesions])
