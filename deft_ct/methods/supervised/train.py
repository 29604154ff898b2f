"""Training of the supervised methods: one function for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deft_ct.methods.supervised.model import TrainedModel
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.pairs import PairSource

Model = TypeVar("Model", bound=TrainedModel)


def train_model(
    model_type: type[Model],
    shape: Any,
    pairs: PairSource,
    folder: Path,
    *,
    training: TrainingConfig,
    initial: Model | None = None,
    progress: bool = True,
) -> Model:
    """Train a model on simulated pairs; run again to resume.

    Args:
        model_type: which model.
        shape: of its ``shape_type``.
        pairs: slices and scans.
        folder: checkpoint and log; an interrupted training resumes from it.
        training: optimiser settings.
        initial: start from these weights, with a new schedule; None starts at random ones.
        progress: show a progress bar.

    Returns:
        The model with the averaged weights, on the CPU, frozen.

    Raises:
        ValueError: ``initial`` has another shape.
        OtherContentError: the folder is of another training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = model_type(shape, value_range=pairs.value_range)
    identity = pairs.description() | model.description()
    if initial is not None:
        if initial.description() != model.description():
            raise ValueError("the initial model has another shape or value range: use its values to start from it")
        model.load_state_dict(initial.state_dict())
        identity |= {"initial": initial.content_hash()}

    def loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        return model.training_loss(network, pairs.draw(indices, generator), generator)

    averaged = fit(model, loss, len(pairs), training, folder, identity=identity, progress=progress)
    if not isinstance(averaged, model_type):
        raise TypeError(f"expected a {model_type.__name__}, got {type(averaged).__name__}")
    return averaged.cpu().eval().requires_grad_(False)
