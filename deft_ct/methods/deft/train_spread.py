"""Training of the spread network: a regression on the errors of means, of images that no other network has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.htransform import Condition
from deft_ct.methods.deft.initial_table import TableConfig, draw_batch
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_network import SpreadConfig, SpreadNetwork
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.content_key import ContentKey, result_versions
from deft_ct.training import TrainingConfig, fit, item_order
from deft_ct.training.blocks import stored_batches
from deft_ct.training.pairs import PairSource

SHIFT = 8
"""Pixels by which the images of a pair are shifted together in training, at most."""
_BRIGHT, _RARE = 0.2, 9.0
"""Pixels whose mean is above this value of the prior's range, bone in CT, count ten times in the loss: they are few."""
_IMAGES = ("error", "mean", "refined", "residual", "unrefined")


@dataclass(frozen=True, kw_only=True)
class MeanTable:
    """Means of training pairs, and their errors.

    Args:
        columns: ``(N, *image_shape)`` float16 in the prior's range: ``error``, ``mean``, ``refined``, ``residual`` and
            ``unrefined``; and ``scan``, the features of the scan, where the h-transform has them.
        items: which image of the source each row is of, int64 ``(N,)``.
        identity: all that the rows depend on, for content keys; ``"htransform"`` and ``"prior"`` are the hashes of the
            networks that made the means.
    """

    columns: dict[str, Tensor]
    items: Tensor
    identity: dict[str, Any]


@torch.no_grad()
def tabulate_means(
    pairs: PairSource,
    solver: DEFT,
    config: TableConfig,
    folder: Path,
    *,
    overwrite: bool = False,
    should_stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> MeanTable | None:
    """Compute means and their errors, or what is missing of them.

    Args:
        pairs: draws images and data.
        solver: computes the means, with the settings of its configuration.
        config: number and size of the batches, and the seed; the reconstruction is that of the h-transform.
        folder: of the blocks.
        overwrite: replace the table of another training.
        should_stop: asked before every block but the first; True ends the work until the next call.
        progress: show a progress bar.

    Returns:
        The table; None if ``should_stop`` ended the work.

    Raises:
        OtherContentError: the folder holds another table, and ``overwrite`` is false.
        ValueError: the table does not fit into memory, or the h-transform has no initial reconstruction.
    """
    htransform = solver.htransform
    if htransform.initial is None:
        raise ValueError("a spread network needs an h-transform with an initial reconstruction, tv or fbp")
    values = len(_IMAGES) * config.batches * config.batch_size * math.prod(pairs.measurements[0].operator.domain_shape)
    check_memory(
        torch.float16.itemsize * values, f"a table of {config.batches} batches of {config.batch_size} pairs",
        "take fewer or smaller batches (--batches)",
    )  # fmt: skip
    settings = solver.config.mean_settings
    made_by = {"htransform": htransform.content_hash(), "prior": solver.prior.content_hash()}
    key = ContentKey(config.to_dict() | pairs.description() | settings | made_by | {"versions": result_versions()})

    def batch(number: int) -> dict[str, Tensor]:
        drawn = draw_batch(pairs, config, number)
        condition = condition_for(drawn.likelihood, htransform)
        mean = solver.mean(drawn.likelihood, condition, range(len(drawn.x0)), seed=config.seed + number)
        assert condition.initial is not None and condition.residual is not None
        unrefined = condition.initial if condition.unrefined is None else condition.unrefined
        images = (mean - drawn.x0, mean, condition.initial, condition.residual, unrefined)
        columns = {name: image.half().contiguous() for name, image in zip(_IMAGES, images, strict=True)}
        return columns if condition.features is None else columns | {"scan": condition.features}

    columns = stored_batches(
        folder, key, config.batches, batch, overwrite=overwrite, should_stop=should_stop,
        progress="means" if progress else None,
    )  # fmt: skip
    if columns is None:
        return None
    order = [item_order(len(pairs), config.batch_size, number, config.seed) for number in range(config.batches)]
    identity = pairs.description() | {"table": config.to_dict(), "mean": settings} | made_by
    return MeanTable(columns=columns, items=torch.cat(order), identity=identity)


def train_spread(
    table: MeanTable,
    folder: Path,
    *,
    config: SpreadConfig,
    training: TrainingConfig,
    left_out: Collection[int] = (),
    progress: bool = True,
) -> SpreadNetwork:
    """Train a spread network; resumes from ``folder``, which keeps the checkpoint and the log.

    Args:
        table: of :func:`tabulate_means`. No other network of the method may have been trained on these images: their
            errors would be too small.
        folder: see above.
        config: what the network sees.
        training: optimiser settings.
        left_out: images of the source whose rows are not used, so that the network can be judged on them.
        progress: show progress bars.

    Returns:
        The network with the averaged weights, on the CPU, without intervals.

    Raises:
        ValueError: no row is left.
        OtherContentError: the folder is of another training.
    """
    rows = torch.nonzero(~torch.isin(table.items, torch.tensor(sorted(left_out), dtype=torch.int64))).flatten()
    if not len(rows):
        raise ValueError("all images of the table are left out: leave some in to train on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = SpreadNetwork(
            config, htransform_hash=table.identity["htransform"], prior_hash=table.identity["prior"]
        )

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        error, mean, condition = _shifted(table.columns, rows[indices], generator)
        scale = net(mean, condition)
        weight = 1 + _RARE * (mean > _BRIGHT)
        return (weight * (scale.log() + error.abs() / scale)).sum() / weight.sum() - math.log(config.spread)

    identity = table.identity | {"spread": config.to_dict()} | ({"left_out": sorted(left_out)} if left_out else {})
    return cast(
        SpreadNetwork, fit(network, loss, len(rows), training, folder, identity=identity, progress=progress).cpu()
    )


def _shifted(
    columns: dict[str, Tensor], indices: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Condition]:
    """Pairs, all images moved by the same random step; what leaves on one side comes back on the other (air)."""
    device = generator.device
    step = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator, device=device).tolist()
    error, mean, refined, residual, unrefined = (
        torch.roll(columns[name][indices].to(device).float(), step, (-2, -1)) for name in _IMAGES
    )
    features = columns["scan"][indices].to(device) if "scan" in columns else None
    condition = Condition(initial=refined, residual=residual, unrefined=unrefined, features=features)
    return error, mean, condition
