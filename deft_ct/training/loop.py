"""The training loop: averaged weights, mixed precision, several processes, accumulation, exact resumption.

Random numbers depend only on the seed, the step and the part of the batch. They never depend on earlier work or on the
process. A run that was stopped and resumed therefore gives the same weights as an unbroken one. N processes give the
same weights as one process that accumulates N parts, up to the order of sums.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from deft_ct.training.checkpoint import CHECKPOINT, State, training_key
from deft_ct.training.config import TrainingConfig
from deft_ct.training.ema import averaged_model
from deft_ct.training.log import TrainingLog
from deft_ct.training.muon import Muon
from deft_ct.training.order import item_order, mixed_seed
from deft_ct.training.processes import accelerator_for, training_folder

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""``loss(network, indices, generator)``: scalar loss of the training items ``indices`` (int64, ``(B,)``, on CPU)."""


def fit(
    network: nn.Module,
    loss: Loss,
    count: int,
    config: TrainingConfig,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    progress: bool = True,
) -> nn.Module:
    """Train ``network`` and return its exponential moving average; resumes from ``folder`` when it can.

    Args:
        network: the module to train; trained in place.
        loss: loss of a set of items, with all randomness drawn from the generator that it is given. With several
            processes it has to call the network once.
        count: number of training items.
        config: see :class:`TrainingConfig`.
        folder: where ``checkpoint.pt``, the checkpoint before it and ``log.csv`` go.
        identity: all that the weights depend on besides ``config``: the content of the data, scans, frozen networks,
            the shape and the start of the network. A checkpoint of another training is refused.
        progress: show a progress bar.

    Returns:
        The averaged network, on the device of the training, in evaluation mode.

    Raises:
        OtherContentError: the folder holds a checkpoint of another training, and ``config.overwrite`` is false.
        ValueError: the batch cannot be shared out.
        FloatingPointError: the loss is not finite.
        RuntimeError: out of memory; the message says what to change. Or several processes that do not know each other.
        InUseError: another training writes to the folder.
        WriteError: the disk is full or refuses.
    """
    with training_folder(folder):
        return _fit(network, loss, count, config, folder, identity, progress)


def _fit(
    network: nn.Module, loss: Loss, count: int, config: TrainingConfig, folder: Path,
    identity: Mapping[str, Any], progress: bool,
) -> nn.Module:  # fmt: skip
    """:func:`fit`, in a folder that is held."""
    accelerator = accelerator_for(config)
    parts = config.accumulate * accelerator.num_processes
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size {config.batch_size} cannot be shared out over {accelerator.num_processes} processes of "
            f"{config.accumulate} parts each: use a multiple of {parts}"
        )
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, config)
    averaged = averaged_model(network, config.ema_decay)
    # Random numbers are drawn on the device of the training, and differ between kinds of devices.
    what = dict(identity) | {"items": count, "device": accelerator.device.type}
    state = State(
        network=network, optimizer=optimizer, averaged=averaged, key=training_key(config, parts, what),
        scaler=accelerator.scaler,
    )  # fmt: skip
    start = 0 if config.overwrite else state.resume(folder / CHECKPOINT)
    if start:
        accelerator.print(f"resuming at step {start} of {config.steps}")
    # The optimiser's state and the averages follow the network to its device.
    model, optimizer = accelerator.prepare(network, optimizer)
    averaged.to(accelerator.device)
    state.network, state.optimizer = accelerator.unwrap_model(model), optimizer
    run: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    main = accelerator.is_main_process
    began = saved = time.monotonic()
    losses: list[float] = []
    log = TrainingLog(folder, start, tensorboard=config.tensorboard) if main else None
    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"), disable=not (progress and main),
    )  # fmt: skip
    with bar:
        task = bar.add_task("training", total=config.steps, completed=start, loss=float("nan"))
        model.train()
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            value = _gradients(accelerator, model, run, loss, count, config, step)
            elapsed = (time.monotonic() - began) / 60
            late = config.max_minutes is not None and elapsed > config.max_minutes
            # All processes see the same two numbers, so none continues alone and waits for the others for ever.
            total, stop = accelerator.reduce(torch.tensor([value, float(late)], device=accelerator.device)).tolist()
            total /= accelerator.num_processes
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"the loss is {total} at step {step}: lower the learning rate, or resume from "
                    f"{folder / CHECKPOINT} with another seed"
                )
            accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            averaged.update_parameters(state.network)
            losses.append(total)
            bar.update(task, completed=step + 1, loss=sum(losses[-50:]) / len(losses[-50:]))
            now = time.monotonic()
            if log is not None and (step + 1) % config.log_every == 0:
                log.write(step + 1, sum(losses) / len(losses), config.rate(step), now - began)
                losses.clear()
            last = step + 1 == config.steps
            if main and (last or stop or now - saved > 60 * config.checkpoint_minutes):
                state.save(folder / CHECKPOINT, step + 1)
                saved = now
            if stop and not last:
                accelerator.print(f"stopped by the time limit after step {step + 1}; run again to resume")
                break
    if log is not None:
        log.close()
    accelerator.wait_for_everyone()  # so that whoever returns finds the checkpoint
    return averaged.module.eval()


def _gradients(
    accelerator: Accelerator, model: nn.Module, run: nn.Module, loss: Loss, count: int, config: TrainingConfig,
    step: int,
) -> float:  # fmt: skip
    """Accumulate the gradients of this process's share of a batch, and return its mean loss."""
    share, rank = config.batch_size // accelerator.num_processes, accelerator.process_index
    mine = item_order(count, config.batch_size, step, config.seed)[rank * share : (rank + 1) * share]
    total = 0.0
    for part, indices in enumerate(mine.chunk(config.accumulate)):
        generator = torch.Generator(accelerator.device)
        generator.manual_seed(mixed_seed(config.seed, step, rank * config.accumulate + part + 2))
        last = part + 1 == config.accumulate
        # Processes exchange their gradients once a step. The prepared network runs in mixed precision by itself;
        # operators and losses stay in float32.
        with nullcontext() if last else accelerator.no_sync(model):
            value = _with_memory_advice(loss, run, indices, generator) * len(indices) / len(mine)
            accelerator.backward(value)
        total += float(value.detach())
    return total


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    parameters, rate, decay = network.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "muon":
        return Muon(parameters, lr=rate, weight_decay=decay, momentum=config.momentum)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def _with_memory_advice(loss: Loss, network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
    try:
        return loss(network, indices, generator)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"out of memory with {len(indices)} items at once: raise `accumulate`, or lower `batch_size`"
        ) from error
