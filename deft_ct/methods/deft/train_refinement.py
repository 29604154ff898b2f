"""Training of the refinement network: a regression on initial reconstructions, of a table or of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft.conditioning import declared_images
from deft_ct.methods.deft.initial_table import ReferenceBatch, ReferenceTable, TableConfig, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.scan_embedding import with_new_features
from deft_ct.methods.initial import initial_for
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel
from deft_ct.training import TimeLimit, TrainingConfig, fit
from deft_ct.training.pairs import Pairs, PairSource

JUDGED = 64
"""Pairs that the error of a trained refinement is measured on."""
LARGER_SHARE = 0.25
"""Share of the batches that are crops of slices with more pixels."""
SHIFT = 8
"""Pixels by which the images of a pair are shifted together in training, at most."""


@dataclass(frozen=True, kw_only=True)
class Tabulated:
    """Pairs whose initial reconstructions are tabulated before a training.

    Args:
        pairs: draws slices and data.
        table: the initial reconstructions.
    """

    pairs: PairSource
    table: TableConfig


def train_refinement(
    source: Tabulated,
    folder: Path,
    *,
    config: RefinementConfig,
    training: TrainingConfig,
    larger: Tabulated | None = None,
    initial: Refinement | None = None,
    progress: bool = True,
) -> Refinement | None:
    """Train a refinement; resumes from ``folder``, which keeps the table, the checkpoint and the log.

    Args:
        source: what it is trained on.
        folder: see above.
        config: what the network sees.
        training: optimiser settings.
        larger: slices with more pixels; :data:`LARGER_SHARE` of the batches are crops of them, as large as the others.
        initial: start from these weights, with a new schedule; new features of the scan start at zero. None starts at
            ``r' = r``. It holds the model of the second reconstruction, if the configuration has one, see
            :func:`with_second`.
        progress: show progress bars.

    Returns:
        The refinement with the averaged weights, on the CPU. None if ``training.max_minutes`` ended the work before the
        tables were complete; the next call goes on.

    Raises:
        ValueError: ``initial`` is of another shape, a table does not fit, or ``larger`` has fewer pixels.
        OtherContentError: the folder is of another training.
    """
    second = None if initial is None else initial.second
    if config.second is not None and second is None:
        raise ValueError("a second reconstruction needs its model: start from a refinement of with_second")
    shape, *others = [one.pairs.measurements[0].operator.domain_shape for one in (source, larger) if one is not None]
    if any(side > more for other in others for side, more in zip(shape, other, strict=True)):
        raise ValueError(f"larger slices have at least {shape} pixels, these have {others[0]}")
    limit, tables = TimeLimit(training), []
    network = _first(config, training.seed, initial)
    for one, name in ((source, "references"), (larger, "larger")):
        if one is None:
            continue
        if one.table.guidance != config.guidance:
            raise ValueError(f"the table has {one.table.guidance} residuals, the refinement wants {config.guidance}")
        if second is not None and second.value_range != one.pairs.value_range:
            raise ValueError(
                f"the second model is for the range {second.value_range}, the pairs have {one.pairs.value_range}"
            )
        found = tabulate(
            one.pairs, one.table, folder / name, second=second, overwrite=training.overwrite,
            should_stop=limit.reached, progress=progress,
        )  # fmt: skip
        if found is None:
            return None
        tables.append(found)
    known, *more = tables

    def drawn(indices: Tensor, generator: torch.Generator) -> ReferenceBatch:
        device = generator.device
        if more and float(torch.rand((), generator=generator, device=device)) < LARGER_SHARE:
            batch = more[0].batch(torch.randint(len(more[0]), indices.shape, generator=generator, device=device).cpu())
            return _cropped(batch, shape, generator)
        return _shifted(known.batch(indices), generator)

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        batch = drawn(indices, generator)
        refined = net(batch.start.initial, batch.start.residual, batch.features, None, batch.start.second)
        return ((refined - batch.x0) / network.spread(batch.features, batch.x0)).square().mean()

    identity = source.pairs.description() | {
        "table": source.table.to_dict(), "refinement": config.to_dict(), "initial": initial and initial.content_hash()
    }  # fmt: skip
    if larger is not None:
        identity["larger"] = larger.pairs.description() | {"table": larger.table.to_dict(), "share": LARGER_SHARE}
    averaged = fit(network, loss, len(known), limit.rest(training), folder, identity=identity, progress=progress)
    trained = cast(Refinement, averaged.cpu())
    trained.relative_error = relative_error(trained, known)
    return trained


def with_second(
    config: RefinementConfig, second: PrimalDualModel, *, initial: Refinement | None = None, seed: int = 0
) -> Refinement:
    """A refinement with a second reconstruction, to start a training from.

    Args:
        config: its shape, with that of the second model.
        second: the trained model; kept as it is.
        initial: gives the other weights. Where it has no second reconstruction, that enters the first layer by weights
            of zero. None for random weights.
        seed: of random weights.

    Raises:
        ValueError: the model is for images of another range or of another shape than the configuration says, or
            ``initial`` is of another shape.
    """
    usual = PriorRange()
    if config.second != second.shape or second.value_range != usual:
        raise ValueError(
            f"config.second must be the shape of the model, and its range {usual}; it is for {second.value_range}"
        )
    network = _first(config, seed, initial)
    assert network.second is not None
    network.second.load_state_dict(second.state_dict())
    network.second.precision = second.precision
    return network.eval().requires_grad_(False)


def _first(config: RefinementConfig, seed: int, initial: Refinement | None) -> Refinement:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Refinement(config)
    if initial is not None:
        told = replace(
            initial.config, arc_direction=config.arc_direction, mirror=config.mirror,
            second=initial.config.second or config.second,
        )  # fmt: skip
        if told.to_dict() != config.to_dict() or (initial.config.arc_direction and not config.arc_direction):
            raise ValueError("the initial refinement has another shape: use its values to start from it")
        weights = network.state_dict() | with_new_features(initial.state_dict(), network)
        if config.second is not None and initial.config.second is None:
            name = f"network.{network.network.first_layer}.weight"
            more = network.state_dict()[name].shape[1] - weights[name].shape[1]
            weights[name] = functional.pad(weights[name], (0, 0, 0, 0, 0, more))
        network.load_state_dict(weights)
    return network


def train_drawn_refinement(
    pairs: PairSource,
    folder: Path,
    *,
    config: RefinementConfig,
    reference: str,
    training: TrainingConfig,
    initial: Refinement | None = None,
    progress: bool = True,
) -> Refinement:
    """Train a refinement on data that are simulated at every step; resumes from ``folder``.

    For initial reconstructions that cost little beside the network. No pair is seen twice.

    Args:
        pairs: draws images and data.
        folder: checkpoint and log.
        config: what the network sees; without features of the scan.
        reference: name of the initial reconstruction, see :data:`~deft_ct.methods.initial.INITIALS`.
        training: optimiser settings.
        initial: start from these weights, with a new schedule. None starts at ``r' = r``.
        progress: show a progress bar.

    Returns:
        The refinement with the averaged weights, on the CPU.

    Raises:
        ValueError: ``initial`` is of another shape, or the features of the scan are wanted.
        OtherContentError: the folder is of another training.
    """
    if config.scan_features:
        raise ValueError("features of the scan need a table of initial reconstructions: use train_refinement")
    network, start = _first(config, training.seed, initial), initial_for(reference)

    def squares(net: nn.Module, drawn: Pairs) -> Tensor:
        with torch.no_grad():
            image = start(drawn.likelihood)
            residual = network.guidance.of_initial(drawn.likelihood, image, config.spread)
            declared = declared_images(drawn.likelihood, config.operator_images)
        return ((net(image, residual, None, declared) - drawn.x0) / config.spread).square().mean()

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        return squares(net, pairs.draw(indices, generator))

    identity = pairs.description() | {
        "reference": reference, "refinement": config.to_dict(), "initial": initial and initial.content_hash()
    }  # fmt: skip
    trained = cast(
        Refinement, fit(network, loss, len(pairs), training, folder, identity=identity, progress=progress).cpu()
    )
    trained.eval()
    with torch.no_grad():
        parts = torch.arange(min(JUDGED, len(pairs))).split(8)
        errors = [squares(trained, pairs.seeded(indices, k)) for k, indices in enumerate(parts)]
    trained.relative_error = float(torch.stack(errors).mean().sqrt())
    return trained


@torch.no_grad()
def relative_error(refinement: Refinement, references: ReferenceTable, count: int = JUDGED) -> float:
    """Root-mean-square error of the refined reconstructions in units of their spread, over the first pairs of a table.

    Args:
        refinement: on the CPU.
        references: pairs.
        count: how many.
    """
    squares = []
    for indices in torch.arange(min(count, len(references))).split(8):
        batch = references.batch(indices)
        refined = refinement(batch.start.initial, batch.start.residual, batch.features, None, batch.start.second)
        squares.append(((refined - batch.x0) / refinement.spread(batch.features, batch.x0)).square().flatten(1).mean(1))
    return float(torch.cat(squares).mean().sqrt())


def _cropped(batch: ReferenceBatch, shape: Sequence[int], generator: torch.Generator) -> ReferenceBatch:
    """The same random part of all images of a batch, of the given numbers of rows and columns."""
    device, (height, width) = generator.device, batch.x0.shape[-2:]
    top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator, device=device))
        for whole, part in zip((height, width), shape, strict=True)
    )
    rows, columns = slice(top, top + shape[0]), slice(left, left + shape[1])
    return _changed(batch, lambda image: image[..., rows, columns].to(device), device)


def _shifted(batch: ReferenceBatch, generator: torch.Generator) -> ReferenceBatch:
    """All images of a batch moved by the same random step; what leaves on one side comes back on the other (air)."""
    device = generator.device
    step = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator, device=device).tolist()
    return _changed(batch, lambda image: torch.roll(image.to(device), step, (-2, -1)), device)


def _changed(batch: ReferenceBatch, change: Callable[[Tensor], Tensor], device: torch.device) -> ReferenceBatch:
    features = None if batch.features is None else batch.features.to(device)
    return ReferenceBatch(x0=change(batch.x0), start=batch.start.each(change), features=features)
