"""Panels of a benchmark: of a slice truth, reconstructions and errors in HU; of photographs truth, data and methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deft_ct.evaluation.estimates import EstimateStore
from deft_ct.evaluation.metrics import psnr, rmse
from deft_ct.evaluation.problem import Floats, Problem
from deft_ct.evaluation.worker import Benchmark
from deft_ct.problems.ct_metrics import DATA_RANGE_HU, body_mask
from deft_ct.problems.natural_pictures import data_pictures
from deft_ct.report.figures import FOOTER, FOOTER_OF_PHOTOGRAPHS, STYLE, Window, save_png, show_image
from deft_ct.report.panels import around_body, same_shape, window_for
from deft_ct.report.photograph_figures import gallery_figure
from deft_ct.runtime.file_names import safe_name

__all__ = ["PANELS", "draw_panels", "error_figure", "write_galleries", "write_panels"]

PANELS = "panels"
"""Folder of the panels, in the folder of a benchmark."""

_CELL_INCHES = 2.2
_MOST_METHODS_A_ROW = 6
"""Methods beside each other; more go below, so that a picture stays readable on a page."""


def error_figure(
    truth: ArrayLike | torch.Tensor,
    reconstructions: Mapping[str, ArrayLike | torch.Tensor],
    *,
    window: Window | None = None,
    data_range_hu: float = DATA_RANGE_HU,
    title: str = "",
) -> Figure:
    """A slice, cropped to the body: truth and reconstructions in one window, and the error of each on one scale.

    Args:
        truth: ``(H, W)`` in HU.
        reconstructions: name -> HU, same shape, in the order of the columns.
        window: grey scale and error scale; :func:`~deft_ct.report.panels.window_for` the truth when None.
        data_range_hu: data range of the PSNR, which is of the whole slice; the RMSE is of the body.
        title: of the figure; the window is added to it.

    Raises:
        ValueError: shapes differ, or there is no reconstruction.
    """
    reference, images = same_shape(truth, reconstructions)
    if not images:
        raise ValueError("a panel needs at least one reconstruction")
    window = window or window_for(reference)
    body = body_mask(reference)
    part = around_body(body)
    height, width = reference[part].shape
    cell = _CELL_INCHES * height / width
    names = list(images)
    lines = -(-len(names) // _MOST_METHODS_A_ROW)
    a_row = -(-len(names) // lines)
    columns = 1 + a_row
    with rc_context(STYLE):
        figure = Figure(figsize=(_CELL_INCHES * columns, 2 * lines * (cell + 0.25) + 0.9))
        FigureCanvasAgg(figure)
        edge = 0.45 / figure.get_figheight()
        figure.set_layout_engine("compressed", h_pad=0.02, w_pad=0.02, rect=(0.0, edge, 1.0, 1.0 - edge))
        axes = figure.subplots(2 * lines, columns, squeeze=False)
        low, high = window.limits
        for axis in axes.flat:
            axis.set_axis_off()
        show_image(axes[0, 0], reference[part], "gray", low, high)
        axes[0, 0].set_title("truth\n")
        limit = window.error_limit
        for k, name in enumerate(names):
            above, below = (axes[2 * (k // a_row) + n, 1 + k % a_row] for n in (0, 1))
            image = images[name]
            quality = psnr(image, reference, data_range=data_range_hu)[0]
            error = rmse(image, reference, mask=body)[0] if body.any() else float("nan")
            show_image(above, image[part], "gray", low, high)
            above.set_title(f"{name}\n{quality:.1f} dB, {error:.0f} HU")
            picture = show_image(below, (image - reference)[part], "RdBu_r", -limit, limit)
        bar = figure.colorbar(picture, ax=axes[1, 0], location="left", extend="both", shrink=0.8, aspect=18)
        bar.set_label("error: reconstruction - truth, HU")
        grey = f"{window.name} window (level {window.level:.0f}, width {window.width:.0f} HU)"
        figure.suptitle(f"{title}; {grey}" if title else grey, fontsize=9)
        note = f"{FOOTER}.\nPSNR of the whole slice, data range {data_range_hu:g} HU; RMSE inside the body."
        figure.text(0.5, 0.1 * edge, note, ha="center", va="bottom", fontsize=7)
    return figure


def draw_panels(folder: Path, benchmark: Benchmark, say: Callable[[str], None]) -> list[Path]:
    """Draw the images of a finished benchmark whose reconstructions were kept, see ``Benchmark``.

    Args:
        folder: of the benchmark.
        benchmark: what was measured.
        say: gets a line on problems that have no pictures.

    Returns:
        The files, in the order of the problems.

    Raises:
        ReadError: a kept reconstruction is damaged.
    """
    store, plan = EstimateStore(folder), benchmark.plan
    written: list[Path] = []
    for number, (problem, planned) in enumerate(zip(benchmark.problems, plan.problems, strict=True)):
        shown = benchmark.shown[number]
        write = _WRITERS.get(problem.kind)
        if write is None:
            if shown:
                say(f"{planned.name}: no pictures, which are drawn of slices and photographs only")
            continue
        found: dict[int, dict[str, Floats]] = {}
        for n in shown:
            for cell in plan.cells:
                place = (cell.key, planned.image_ids[n], planned.contents[n])
                if cell.problem == number and (image := store.load(place)) is not None:
                    found.setdefault(n, {})[cell.label] = image
        written += write(folder, problem, found, name=benchmark.names[number])
        problem.release()
    return written


def write_panels(
    folder: Path, problem: Problem, estimates: Mapping[int, Mapping[str, Floats]], *, name: str
) -> list[Path]:  # fmt: skip
    """Write panels of some images of a problem to ``folder/panels``.

    Args:
        folder: of the benchmark.
        problem: images in HU.
        estimates: place of an image in the problem -> method -> ``(H, W)`` HU.
        name: of the problem, for the names of the files.

    Returns:
        The files.

    Raises:
        ValueError: the problem is not in HU, or there is no such image.
    """
    if problem.unit != "HU":
        raise ValueError(
            f"panels show images in HU, and {problem.name} is in {problem.unit or 'values without a unit'}"
        )
    if wrong := [n for n in estimates if not 0 <= n < len(problem)]:
        raise ValueError(f"{problem.name} has {len(problem)} images, so none with the numbers {wrong}")
    written = []
    for n, images in estimates.items():
        image_id = problem.image_ids[n]
        figure = error_figure(problem.picture(problem.truth[n]), images, title=f"{problem.title}; {image_id}")
        written.append(save_png(figure, folder / PANELS / _file_name(f"{name}-{image_id}")))
    return written


def write_galleries(
    folder: Path, problem: Problem, estimates: Mapping[int, Mapping[str, Floats]], *, name: str
) -> list[Path]:  # fmt: skip
    """Write one panel with some photographs of a problem to ``folder/panels``: truth, data and methods.

    Args:
        folder: of the benchmark.
        problem: photographs in [-1, 1].
        estimates: place of an image in the problem -> method -> ``(C, H, W)``. A method that failed on one of the
            images is left out.
        name: of the problem, for the name of the file.

    Returns:
        The file; nothing without estimates.
    """
    if not estimates:
        return []
    places = list(estimates)
    methods = [method for method in estimates[places[0]] if all(method in images for images in estimates.values())]
    data = [
        picture
        for batch in problem.batches
        for picture in data_pictures(batch.y, batch.measurement.operator)
    ]  # fmt: skip
    figure = gallery_figure(
        torch.from_numpy(problem.truth[places]), torch.stack([data[n] for n in places]),
        {method: torch.from_numpy(np.stack([estimates[n][method] for n in places])) for method in methods},
        title=f"{name}; {problem.data}",
    )  # fmt: skip
    return [save_png(figure, folder / PANELS / _file_name(name), comment=FOOTER_OF_PHOTOGRAPHS)]


def _file_name(text: str) -> str:
    return f"{safe_name(text)}.png"


_WRITERS = {"slice": write_panels, "photograph": write_galleries}
"""Kind of the images of a problem -> what draws them."""
