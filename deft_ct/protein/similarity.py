"""Similarity of folds by TM-score (Zhang and Skolnick 2004, Proteins 57, 702), through tmtools (TM-align).

A TM-score lies in (0, 1]; 1 is the same chain, and above 0.5 two chains have about the same fold. It is not symmetric:
it is normalised by the length of the first chain. The alignment is by structure alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from deft_ct.runtime.extras import optional_library

_EXTRA = "tm-score"


def tm_score(chain: Tensor, other: Tensor) -> float:
    """TM-score of two chains ``(N, 3)`` and ``(M, 3)`` in angstrom, normalised by ``N``.

    Raises:
        MissingExtraError: tmtools is not installed; the message names the extra.
    """
    tmtools: Any = optional_library("tmtools", _EXTRA)
    found = tmtools.tm_align(_points(chain), _points(other), "A" * len(chain), "A" * len(other))
    return float(found.tm_norm_chain1)


def mean_pairwise_tm(chains: Sequence[Tensor]) -> float:
    """Mean TM-score over all pairs of chains: low where they are diverse; NaN for fewer than two.

    Args:
        chains: ``(N, 3)`` each, angstrom. A pair is normalised by the shorter chain.
    """
    pairs = [(a, b) for k, a in enumerate(chains) for b in chains[:k]]
    scores = [tm_score(*sorted(pair, key=len)) for pair in pairs]
    return float(np.mean(scores)) if scores else float("nan")


def nearest(chain: Tensor, known: Sequence[Tensor]) -> tuple[float, int]:
    """The largest TM-score of a chain to known ones, normalised by the chain, and which one it is.

    A novel fold has a small one.

    Raises:
        ValueError: there are no known chains.
    """
    if not known:
        raise ValueError("novelty is relative to known chains, and there are none")
    scores = [tm_score(chain, other) for other in known]
    best = int(np.argmax(scores))
    return scores[best], best


def _points(chain: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    points: np.ndarray[tuple[int, int], np.dtype[np.float64]] = chain.detach().double().cpu().numpy()
    return np.ascontiguousarray(points)
