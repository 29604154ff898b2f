"""All restored photographs of a benchmark as picture files, for people and for measures of sets such as FID."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from deft_ct.evaluation.estimates import EstimateStore
from deft_ct.evaluation.problem import Floats
from deft_ct.evaluation.worker import Benchmark
from deft_ct.io.photographs import Photograph, write_photograph
from deft_ct.runtime.atomic import atomic_file
from deft_ct.runtime.file_names import distinct_names

PICTURES = "pictures"
"""Folder of the pictures, in the folder of a benchmark."""
TRUTH = "truth"
"""Folder of the true pictures of a problem, beside those of the methods."""

Say = Callable[[str], None]


def write_pictures(folder: Path, benchmark: Benchmark, say: Say) -> None:
    """Write the photographs of a finished benchmark that keeps all of them, as PNG of 8 bits, clipped to [-1, 1].

    The files are ``pictures/PROBLEM/METHOD/IMAGE.png`` and ``pictures/PROBLEM/truth/IMAGE.png``. Nothing is removed.

    Args:
        folder: of the benchmark.
        benchmark: what was measured.
        say: gets a line on each folder that is not one whole set: a method failed on some images, or there are other
            pictures, for example of an earlier run with more images.

    Raises:
        ReadError: a kept reconstruction is damaged.
    """
    store, plan = EstimateStore(folder), benchmark.plan
    places = distinct_names(benchmark.names)
    for number, (problem, planned) in enumerate(zip(benchmark.problems, plan.problems, strict=True)):
        place, images = folder / PICTURES / places[number], distinct_names(planned.image_ids)
        _write_set(place / TRUTH, zip(images, problem.truth, strict=True), say)
        problem.release()
        cells = [cell for cell in plan.cells if cell.problem == number]
        for cell, method in zip(cells, distinct_names([cell.label for cell in cells], taken=[TRUTH]), strict=True):
            rows = zip(planned.image_ids, planned.contents, strict=True)
            restored = (store.load((cell.key, image_id, content)) for image_id, content in rows)
            _write_set(place / method, zip(images, restored, strict=True), say)


def _write_set(folder: Path, pictures: Iterable[tuple[str, Floats | None]], say: Say) -> None:
    """Write the pictures that are there; one that is the same already is left alone."""
    written, failed = set(), 0
    for name, picture in pictures:
        if picture is None:
            failed += 1
            continue
        path, content = folder / f"{name}.png", io.BytesIO()
        write_photograph(Photograph(torch.from_numpy(picture)), content)
        if not (path.is_file() and path.read_bytes() == content.getvalue()):
            with atomic_file(path) as part:
                part.write_bytes(content.getvalue())
        written.add(path)
    if failed:
        say(f"{folder} lacks {failed} of {len(written) + failed} pictures, on which the method failed")
    if others := set(folder.glob("*.png")) - written:
        say(f"{folder} has {len(others)} other pictures: remove them before you measure the distance of the set")
