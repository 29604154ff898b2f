"""A table of training slices with their initial reconstructions, computed once and used for several passes.

Total variation costs more than a training step of the networks that improve it. They are therefore trained from a
table, a folder with blocks of pairs (:mod:`deft_ct.training.blocks`). The data are cheap and not stored:
:func:`draw_batch` simulates the data of any batch again, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deft_ct.methods.deft.conditioning import Start, scan_features
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.methods.initial import initial_for
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.content_key import ContentKey, result_versions
from deft_ct.runtime.fields import check_fields
from deft_ct.training import item_order, mixed_seed
from deft_ct.training.blocks import stored_batches
from deft_ct.training.pairs import Pairs, PairSource

MOST_ITERATIONS = 10**5
"""Largest number of TV iterations: far above what changes an image."""


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Settings of a table. Its content follows from these, the slices and the scans.

    Args:
        batches: batches of pairs; the slices of a batch share a scan.
        batch_size: pairs in a batch.
        reference: kind of the initial reconstruction.
        tv_iterations: of the TV reconstruction.
        guidance: kind of the residual.
        scan_features: whether the features of the scan are kept.
        arc_direction: whether they say where a limited arc lies.
        second: :func:`second_name` of the model that gives the second reconstruction; empty for none.
        seed: of the order of the slices, their changes, scans and noise.

    Raises:
        ValueError: a count is below 1, or too large.
    """

    batches: int
    batch_size: int = 8
    reference: str = "tv"
    tv_iterations: int = 40
    guidance: str = "fbp"
    scan_features: bool = True
    arc_direction: bool = False
    second: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.batches, self.batch_size, self.tv_iterations) < 1:
            raise ValueError(
                "batches, batch_size and tv_iterations must be at least 1, got "
                f"{self.batches}, {self.batch_size} and {self.tv_iterations}"
            )
        if self.tv_iterations > MOST_ITERATIONS:
            raise ValueError(f"tv_iterations must be at most {MOST_ITERATIONS}, got {self.tv_iterations}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, later additions only where they are used: so older tables stay known."""
        return {name: value for name, value in asdict(self).items() if name not in ("arc_direction", "second") or value}


@dataclass(frozen=True, kw_only=True)
class ReferenceBatch:
    """Pairs of a table: images ``(B, C, H, W)`` float32 in the prior's range, and scan features ``(B, F)`` or None."""

    x0: Tensor
    start: Start
    features: Tensor | None


class ReferenceTable:
    """The pairs in a folder, held in memory as float16.

    Args:
        config: what was tabulated.
        columns: of all pairs, by name.
    """

    def __init__(self, config: TableConfig, columns: dict[str, Tensor]) -> None:
        self.config = config
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["x0"])

    def batch(self, indices: Tensor) -> ReferenceBatch:
        """The pairs ``indices``, int64 ``(B,)``."""
        found = {name: column[indices].float() for name, column in self._columns.items()}
        start = Start(found["reference"], found["remainder"], found.get("second"))
        return ReferenceBatch(x0=found["x0"], start=start, features=found.get("scan"))

    def whole_batch(self, number: int) -> ReferenceBatch:
        """The pairs of the batch ``number``, in the order of :func:`draw_batch`."""
        size = self.config.batch_size
        return self.batch(torch.arange(number * size, (number + 1) * size))


def second_name(model: PrimalDualModel | None) -> str:
    """What the second reconstructions of a table follow from: SHA-256 and precision of the model; empty for none."""
    return "" if model is None else f"{model.content_hash()} in {model.precision}"


@torch.no_grad()
def tabulate(
    pairs: PairSource,
    config: TableConfig,
    folder: Path,
    *,
    second: PrimalDualModel | None = None,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> ReferenceTable | None:
    """Compute the table, or what is missing of it.

    Args:
        pairs: draws slices and data.
        config: see :class:`TableConfig`.
        folder: of the blocks.
        second: the model that gives the second reconstruction; the configuration names it.
        overwrite: replace the table of another training.
        should_stop: asked before every block but the first, also before those that are there: the processes of a
            training ask equally often. True ends the work until the next call.
        progress: show a progress bar.

    Returns:
        The table; None if ``should_stop`` ended the work before it was complete.

    Raises:
        OtherContentError: the folder holds another table, and ``overwrite`` is false.
        ValueError: the table does not fit into memory, or the configuration names another second model.
    """
    if config.second != second_name(second):
        raise ValueError("the configuration of a table and the model of the second reconstruction must belong together")
    images = (3 if second is None else 4) * config.batches * config.batch_size
    values = images * math.prod(pairs.measurements[0].operator.domain_shape)
    check_memory(
        torch.float16.itemsize * values, f"a table of {config.batches} batches of {config.batch_size} pairs",
        "take fewer or smaller batches (--batches; of finetune: --refinement-steps)",
    )  # fmt: skip
    key = ContentKey(config.to_dict() | pairs.description() | {"versions": result_versions()})
    columns = stored_batches(
        folder, key, config.batches, lambda number: _batch(pairs, config, number, second), overwrite=overwrite,
        should_stop=should_stop, progress="references" if progress else None,
    )  # fmt: skip
    return None if columns is None else ReferenceTable(config, columns)


def draw_batch(pairs: PairSource, config: TableConfig, number: int, device: torch.device | str = "cpu") -> Pairs:
    """Slices and data of the batch ``number`` of a table."""
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, number, 1))
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return pairs.seeded(item_order(len(pairs), config.batch_size, number, config.seed), seed, device)


def _batch(pairs: PairSource, config: TableConfig, number: int, second: PrimalDualModel | None) -> dict[str, Tensor]:
    drawn = draw_batch(pairs, config, number)
    likelihood = drawn.likelihood
    initial = initial_for(config.reference, iterations=config.tv_iterations)(likelihood)
    residual = guidance_for(config.guidance).of_initial(likelihood, initial, 1.0)
    columns = {"x0": drawn.x0.half(), "reference": initial.half(), "remainder": residual.half()}
    if config.scan_features:
        columns["scan"] = scan_features(likelihood, direction=config.arc_direction)
    if second is not None:
        columns["second"] = second(likelihood).half()
    return {name: column.contiguous() for name, column in columns.items()}
