"""Pictures of backbones: the trace of the C-alpha atoms, seen along its two longest axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from deft_ct.report.chain_viewer import principal
from deft_ct.runtime.atomic import atomic_file

_COLUMNS, _INCHES, _DPI = 4, 2.6, 100
_SCAFFOLD, _MOTIF = "#8a93a0", "#d1495b"


def save_backbones(
    path: str | Path, chains: Sequence[Tensor], motifs: Sequence[Sequence[int]], titles: Sequence[str], note: str
) -> Path:
    """Draw chains side by side, the residues of the motif in red; nearer parts are drawn over farther ones.

    Args:
        path: PNG file; an old one is replaced.
        chains: ``(N, 3)`` each, angstrom.
        motifs: residues of the motif in each chain, counted from 0.
        titles: of each chain.
        note: below the pictures.

    Returns:
        The path.
    """
    columns = min(_COLUMNS, len(chains))
    rows = math.ceil(len(chains) / columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * rows + 0.3), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, chain, motif, title in zip(axes, chains, motifs, titles, strict=False):
        flat = principal(chain).numpy()
        fixed = set(motif)
        for k in np.argsort(0.5 * (flat[1:, 2] + flat[:-1, 2])):
            both = {int(k), int(k) + 1} <= fixed
            axis.plot(
                flat[k : k + 2, 0], flat[k : k + 2, 1], color=_MOTIF if both else _SCAFFOLD, linewidth=3.0,
                solid_capstyle="round",
            )  # fmt: skip
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=8)
    figure.supxlabel(note, fontsize=7)
    with atomic_file(path) as work:
        figure.savefig(work, format="png", metadata={"Software": None})
    return Path(path)
