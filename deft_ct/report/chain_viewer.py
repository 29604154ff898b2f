"""Chains of C-alpha atoms to turn with the mouse, as a part of a page that needs no network and no other program.

The view is ``assets/report/chains.js``, some hundred lines on a 2D canvas. 3Dmol.js and Mol* draw far more than a line
through C-alpha atoms, add 0.5 to 5 MB of script to every page and need WebGL, which remote desktops often lack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

MOST_CHAINS = 200
"""Chains of a page; the files hold all of them."""


@dataclass(frozen=True, kw_only=True)
class ViewedChain:
    """One chain of the view.

    Attributes:
        title: in the list.
        places: ``(N, 3)`` in angstrom.
        motif: residues of the motif, counted from 0.
        structure: H, E or C for each residue.
        scores: shown beside the chain.
    """

    title: str
    places: Tensor
    motif: Sequence[int]
    structure: str
    scores: Mapping[str, str]


def chains_html(chains: Sequence[ViewedChain]) -> str:
    """The view as HTML: a section with its style, script and data.

    Each chain is shown about its centre along its longest axes; it is turned for that, never mirrored.

    Args:
        chains: the first :data:`MOST_CHAINS` are shown.

    Raises:
        ValueError: there are none, or letters and residues do not belong together.
    """
    if not chains:
        raise ValueError("a view of chains needs a chain")
    wrong = next((one for one in chains if len(one.structure) != len(one.places)), None)
    if wrong is not None:
        raise ValueError(f"{wrong.title} has {len(wrong.places)} residues and {len(wrong.structure)} letters")
    shown: list[dict[str, Any]] = [
        {
            "title": one.title,
            "places": [[round(x, 2) for x in place] for place in principal(one.places).tolist()],
            "motif": list(one.motif), "structure": one.structure, "scores": dict(one.scores),
        }
        for one in chains[:MOST_CHAINS]
    ]  # fmt: skip
    text = json.dumps(shown, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = _asset("chains.html").replace("{{script}}", _asset("chains.js")).replace("{{data}}", text)
    if len(chains) > MOST_CHAINS:
        page += f"<p>The first {MOST_CHAINS} of {len(chains)} chains are shown; the files hold all.</p>"
    return page


def principal(chain: Tensor) -> Tensor:
    """A chain ``(N, 3)`` about its centre in the axes of its inertia, longest first, never mirrored; float64."""
    places = chain.detach().double().cpu()
    centred = places - places.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(-1)
    axes[:, 2] *= torch.linalg.det(axes).sign()
    return centred @ axes


def _asset(name: str) -> str:
    return files("deft_ct").joinpath("assets", "report", name).read_text(encoding="utf-8")
