"""Training of the supervised methods: one function for all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deft_ct.methods.supervised.model import TrainedModel
from deft_ct.runtime.atomic import write_text
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.pairs import PairSource

Model = TypeVar("Model", bound=TrainedModel)

SETUP = "setup.json"


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
        folder: checkpoint, log and set-up; an interrupted training resumes from it.
        training: optimiser settings.
        initial: start from these weights, with a new schedule; None starts at random ones.
        progress: show a progress bar.

    Returns:
        The model with the averaged weights, on the CPU, frozen.

    Raises:
        ValueError: the folder belongs to another training, or ``initial`` has another shape.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = model_type(shape, value_range=pairs.value_range)
    setup = model.description() | {"slices": len(pairs), "scans": len(pairs.measurements)}
    if initial is not None:
        if initial.description() != model.description():
            raise ValueError("the initial model has another shape or value range: use its values to start from it")
        model.load_state_dict(initial.state_dict())
        setup |= {"initial": initial.content_hash()}
    _remember(folder, setup)

    def loss(network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        return model.training_loss(network, pairs.draw(indices, generator), generator)

    averaged = fit(model, loss, len(pairs), training, folder, progress=progress)
    if not isinstance(averaged, model_type):
        raise TypeError(f"expected a {model_type.__name__}, got {type(averaged).__name__}")
    return averaged.cpu().eval().requires_grad_(False)


def _remember(folder: Path, setup: dict[str, Any]) -> None:
    """Write down what is trained, or compare it with what a folder was begun with."""
    path = folder / SETUP
    plain = json.loads(json.dumps(setup))
    if not path.is_file():
        write_text(path, json.dumps(plain, indent=2, sort_keys=True) + "\n")  # several processes may do so at once
        return
    before = json.loads(path.read_text())
    changed = sorted(key for key in plain.keys() | before.keys() if plain.get(key) != before.get(key))
    if changed:
        raise ValueError(
            f"{folder} holds the training of another {', '.join(changed)}: use the same settings to resume, or another "
            "folder to start anew"
        )
