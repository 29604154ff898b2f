"""Reconstructions of images of a benchmark, kept for its pictures under the content that they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deft_ct.evaluation.parquet_store import Place
from deft_ct.evaluation.problem import Floats
from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.read_error import ReadError

ESTIMATES = "estimates"
"""Folder of the reconstructions, in the folder of a benchmark."""


class EstimateStore:
    """Float32 arrays in ``folder/estimates``, one for each row that has a picture.

    A file appears whole or not at all. Its name is the content key of its row. So workers that share a folder write the
    same file, and a reconstruction of other data, weights or options is never taken for this one.

    Args:
        folder: of the benchmark; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ESTIMATES

    def __contains__(self, place: Place) -> bool:
        return self._path(place).is_file()

    def save(self, place: Place, image: Floats | None) -> None:
        """Keep an image; None notes that the method failed on it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self._path(place)) as part, part.open("wb") as stream:
            np.save(stream, np.asarray([] if image is None else image, np.float32), allow_pickle=False)

    def load(self, place: Place) -> Floats | None:
        """An image that is there; None where the method failed.

        Raises:
            ReadError: the file is damaged.
        """
        path = self._path(place)
        try:
            found: Floats = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ReadError(path, f"is damaged ({str(error)[:80]}): remove it and run the benchmark again") from error
        return found if found.size else None

    def clear(self) -> None:
        """Remove everything."""
        for path in self._folder.glob("*.npy"):
            path.unlink(missing_ok=True)

    def _path(self, place: Place) -> Path:
        return self._folder / f"{content_digest(list(place))[:32]}.npy"


def first_of_each(sources: Sequence[str], count: int) -> list[int]:
    """Places of the first image of each patient or other source, at most ``count`` of them, in order."""
    first: dict[str, int] = {}
    for n, source in enumerate(sources):
        first.setdefault(source, n)
    return sorted(first.values())[:count]
